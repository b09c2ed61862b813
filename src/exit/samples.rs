//! A set of images with the answers of the exits and of what comes after them.

use crate::error::{Error, Result};
use crate::exit::softmax::Reading;

/// Fewest images that a policy is fitted on: fewer say nothing of an accuracy.
const FEWEST: usize = 64;

/// What exits, and the rest of the network after them, said of the same images in the same order.
///
/// Images must be independent of each other, or a policy is less certain than it says: half of them choose what the others
/// fitted, and of two frames of a video that are nearly equal one may be in each half.
#[derive(Debug, Clone)]
pub struct Samples<'a> {
    /// The right class of each image.
    pub labels: &'a [u32],
    /// For each exit, in the order of the network, the logits of each image.
    pub exits: Vec<&'a [Vec<f32>]>,
    /// The class that comes out if the device goes on after the last exit.
    pub answers: &'a [u32],
    /// Bytes that are sent then; empty if nothing is.
    pub bytes: &'a [u32],
}

impl Samples<'_> {
    /// Number of classes.
    pub fn classes(&self) -> usize {
        self.exits.first().and_then(|rows| rows.first()).map_or(0, Vec::len)
    }

    /// Checks what a fit needs: enough images, lengths, classes, and that all logits are finite.
    pub(super) fn check(&self) -> Result<()> {
        let images = self.labels.len();
        if images < FEWEST {
            return Err(Error::invalid(format!("{images} images: a policy needs {FEWEST} or more to be fitted")));
        }
        self.check_shape()?;
        for (exit, rows) in self.exits.iter().enumerate() {
            if let Some(i) = rows.iter().position(|row| row.iter().any(|value| !value.is_finite())) {
                return Err(Error::invalid(format!("exit {exit}, image {i}: a logit is not finite")));
            }
        }
        Ok(())
    }

    /// Checks lengths and classes.
    pub(super) fn check_shape(&self) -> Result<()> {
        let (images, classes) = (self.labels.len(), self.classes());
        if images == 0 {
            return Err(Error::invalid("no images"));
        }
        if self.exits.is_empty() || classes < 2 {
            return Err(Error::invalid("a policy needs an exit with two classes or more"));
        }
        if self.answers.len() != images || ![0, images].contains(&self.bytes.len()) {
            let (answers, bytes) = (self.answers.len(), self.bytes.len());
            return Err(Error::invalid(format!("{answers} answers and {bytes} sizes for {images} images")));
        }
        if let Some(class) = self.labels.iter().chain(self.answers).find(|&&class| class as usize >= classes) {
            return Err(Error::invalid(format!("class {class} of {classes}")));
        }
        for (exit, rows) in self.exits.iter().enumerate() {
            if rows.len() != images {
                return Err(Error::invalid(format!("exit {exit}: logits of {} of {images} images", rows.len())));
            }
            if let Some(i) = rows.iter().position(|row| row.len() != classes) {
                return Err(Error::invalid(format!("exit {exit}, image {i}: not {classes} logits")));
            }
        }
        Ok(())
    }

    /// The images of one half, 0 or 1. A hash of its number puts an image in a half, so that no order of the classes makes
    /// the halves different: every second image would where labels are 0, 1, 0, 1 and so on.
    pub(super) fn half(&self, half: u64) -> impl Iterator<Item = usize> + use<> {
        (0..self.labels.len()).filter(move |&image| hash(image as u64) & 1 == half)
    }

    /// Whether what comes after the last exit is right on an image.
    pub(super) fn rest_right(&self, image: usize) -> bool {
        self.answers[image] == self.labels[image]
    }

    /// Readings of all images at all exits, [image][exit], at the sharpness of each exit.
    pub(super) fn readings(&self, sharpness: &[f64]) -> Vec<Vec<Reading>> {
        let read = |exit: usize, image: usize| {
            let nothing = Reading { class: 0, confidence: 0.0, entropy: f64::INFINITY };
            Reading::of(&self.exits[exit][image], sharpness[exit]).unwrap_or(nothing)
        };
        let row = |image| (0..self.exits.len()).map(|exit| read(exit, image)).collect();
        (0..self.labels.len()).map(row).collect()
    }
}

/// The output function of splitmix64.
fn hash(number: u64) -> u64 {
    let z = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_halves_have_all_classes_whatever_their_period() {
        let labels = vec![0; 3000];
        let samples = Samples { labels: &labels, exits: Vec::new(), answers: &labels, bytes: &[] };
        let halves = [0, 1].map(|half| samples.half(half).collect::<Vec<usize>>());
        let mut all = halves.concat();
        all.sort_unstable();
        assert!(all.into_iter().eq(0..3000));
        for period in 1..=10 {
            for class in 0..period {
                let counts =
                    halves.each_ref().map(|half| half.iter().filter(|&&image| image % period == class).count());
                let expected = 1500.0 / period as f64;
                // Four standard deviations of a fair choice.
                let most = 4.0 * (expected / 2.0).sqrt();
                assert!(counts.iter().all(|&count| (count as f64 - expected).abs() < most), "{period} {counts:?}");
            }
        }
    }
}
