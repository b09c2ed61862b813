//! A set of images with the answers of the exits and of what comes after them.

use crate::error::{Error, Result};
use crate::exit::softmax::Reading;

/// Fewest images that a policy is fitted on: fewer say nothing of an accuracy.
const FEWEST: usize = 64;

/// What exits, and the rest of the network after them, said of the same images in the same order.
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

    /// Checks lengths, classes and logits.
    pub(super) fn check(&self) -> Result<()> {
        let (images, classes) = (self.labels.len(), self.classes());
        if images < FEWEST {
            return Err(Error::invalid(format!("{images} images: a policy needs {FEWEST} or more")));
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
            for (i, row) in rows.iter().enumerate() {
                if row.len() != classes || row.iter().any(|value| !value.is_finite()) {
                    return Err(Error::invalid(format!("exit {exit}, image {i}: not {classes} finite logits")));
                }
            }
        }
        Ok(())
    }

    /// The images `i` with `i % 2 == half`, which is 0 or 1.
    pub(super) fn half<'b>(&'b self, half: usize) -> impl Iterator<Item = usize> + 'b {
        (half..self.labels.len()).step_by(2)
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
