//! Fitting a profile to sample features.
//!
//! The samples are split: three quarters fit moments and tables, one quarter selects among the
//! candidates by bytes at equal task distortion. The winner is then fitted again on all of them.
//!
//! Task distortion is, by what the caller can give: the KL divergence from the tail's answer on the
//! feature to its answer on the decoded one (with a [`Tail`]); half the mean squared product of error
//! and gradient samples, which approximates it (with gradients); or the error's share of the energy.

mod draft;
mod metric;
mod moments;
mod refit;
mod search;
mod symbols;
mod tables;
mod target;

pub(crate) use symbols::fit_symbols;

use ndarray::ArrayD;

use crate::container::Layout;
use crate::error::{Error, Result};
use crate::profile::Profile;
use crate::tensor::{Axes, Feature, FeatureView};

/// Sample features, by number. The fit asks for each of them several times, so that its memory does
/// not grow with their number.
pub trait Samples {
    /// How many samples there are.
    fn len(&self) -> usize;

    /// True when there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Sample `index`; all have the same shape and element type.
    ///
    /// # Errors
    /// Any error ends the fit and is returned from it.
    fn feature(&mut self, index: usize) -> Result<Feature>;

    /// Gradient samples at sample `index`, of its shape: vectors g such that the mean of g g' is the
    /// curvature of the task loss (the Gauss-Newton matrix of the KL divergence of the tail's
    /// answer). None by default.
    ///
    /// # Errors
    /// As [`Samples::feature`].
    fn gradients(&mut self, index: usize) -> Result<Vec<ArrayD<f32>>> {
        let _ = index;
        Ok(Vec::new())
    }
}

impl Samples for Vec<ArrayD<f32>> {
    fn len(&self) -> usize {
        self.as_slice().len()
    }

    fn feature(&mut self, index: usize) -> Result<Feature> {
        Ok(Feature::F32(self[index].clone()))
    }
}

/// The tail of the network: features in, logits out, in any inference engine.
pub trait Tail {
    /// The logits of each feature; features have the shape of the samples.
    ///
    /// # Errors
    /// Any error ends the fit and is returned from it.
    fn logits(&mut self, features: &[ArrayD<f32>]) -> Result<Vec<Vec<f32>>>;
}

impl<F: FnMut(&[ArrayD<f32>]) -> Result<Vec<Vec<f32>>>> Tail for F {
    fn logits(&mut self, features: &[ArrayD<f32>]) -> Result<Vec<Vec<f32>>> {
        self(features)
    }
}

/// Where the task weights come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Weights {
    /// Gradients if the samples have them, else probing if there is a tail, else none.
    #[default]
    Auto,
    /// No task weights: every element counts the same.
    Unweighted,
    /// The samples' gradients.
    Gradients,
    /// Probing: the tail's answers to perturbed features. The logits respond linearly to a small
    /// perturbation, so the responses of all channels to one pattern of signs give the whole metric
    /// between channels, and one perturbation of each band its weight.
    Probe,
}

/// Which transforms are tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Transforms {
    /// All of them.
    #[default]
    All,
    /// Channels as they are, no DCT.
    Identity,
}

/// What [`Profile::fit`] may be told.
#[derive(Debug, Clone, PartialEq)]
pub struct FitOptions {
    /// Axes of the features; `None`: those usual for their rank.
    pub axes: Option<Axes>,
    /// Where the task weights come from.
    pub weights: Weights,
    /// Which transforms are tried.
    pub transforms: Transforms,
    /// Sides of the DCT blocks that are tried; `None`: chosen from the feature's size.
    pub blocks: Option<Vec<usize>>,
    /// Task distortion at quality scale 1 (KL divergence in nats, where there is a tail).
    pub target: f64,
    /// Most samples that selection looks at.
    pub selection: usize,
}

impl Default for FitOptions {
    fn default() -> Self {
        FitOptions {
            axes: None,
            weights: Weights::Auto,
            transforms: Transforms::All,
            blocks: None,
            target: 0.05,
            selection: 96,
        }
    }
}

/// What a fit reports while it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum FitEvent<'a> {
    /// A stage moved on.
    Progress {
        /// Its name.
        stage: &'a str,
        /// How much is done.
        done: usize,
        /// How much there is to do.
        total: usize,
    },
    /// What was tried and why it was chosen: a line for people.
    Note(&'a str),
}

/// The report of a fit and the text that the profile keeps of it.
pub(crate) struct Reporter<'a> {
    events: &'a mut dyn FnMut(FitEvent<'_>),
    notes: String,
}

impl Reporter<'_> {
    fn note(&mut self, line: &str) {
        self.notes.push_str(line);
        self.notes.push('\n');
        (self.events)(FitEvent::Note(line));
    }

    fn progress(&mut self, stage: &str, done: usize, total: usize) {
        (self.events)(FitEvent::Progress { stage, done, total });
    }
}

impl Profile {
    /// Fits a profile to sample features: transform, block size, weights, steps, quantiser, contexts
    /// and tables, chosen by bytes at equal task distortion.
    ///
    /// Samples are asked for several times and not kept (but for a bounded selection), in a fixed
    /// order; the same samples in the same order give the same profile to the byte. `report` is
    /// told what was tried and why it was chosen.
    ///
    /// # Errors
    /// `InvalidInput` if there are fewer than 8 samples, they differ in shape, hold no finite value
    /// that is not zero, or lack what the options ask for, or the target is not above 0; any error of `samples` or `tail`.
    ///
    /// ```
    /// use narrows::{Profile, fit::FitOptions};
    /// use ndarray::ArrayD;
    ///
    /// let mut samples: Vec<ArrayD<f32>> = (0..16)
    ///     .map(|i| ArrayD::from_shape_fn(vec![4, 8, 8], |at| ((at[0] + at[1] * at[2] + i) as f32).sin()))
    ///     .collect();
    /// let profile = Profile::fit(&mut samples, None, &FitOptions::default(), &mut |_| {})?;
    /// assert_eq!(profile.layout().dims(), [4, 8, 8]);
    /// # Ok::<(), narrows::Error>(())
    /// ```
    pub fn fit(
        samples: &mut dyn Samples,
        tail: Option<&mut dyn Tail>,
        options: &FitOptions,
        report: &mut dyn FnMut(FitEvent<'_>),
    ) -> Result<Profile> {
        if samples.len() < 8 {
            return Err(Error::invalid(format!(
                "a fit needs at least 8 sample features, better some hundreds; there are {}",
                samples.len()
            )));
        }
        if !(options.target.is_finite() && options.target > 0.0) {
            return Err(Error::invalid(format!("a target distortion of {}: it is above 0", options.target)));
        }
        let first = samples.feature(0)?;
        let axes = options.axes.unwrap_or(Axes::default_for(first.shape().len()));
        let layout = Layout::new(first.dtype(), axes, first.shape())?;
        if layout.elements()? == 0 {
            return Err(Error::invalid("the sample features have no elements"));
        }
        let mut reporter = Reporter { events: report, notes: String::new() };
        let tail = tail.map(|tail| tail as &mut dyn Tail);
        search::Search::new(samples, tail, options, layout, &mut reporter)?.run()
    }
}

/// A sample as f32, channels last, what is not finite being 0; checked against the first sample's layout.
fn values(feature: &Feature, layout: &Layout, index: usize) -> Result<Vec<f32>> {
    let view = FeatureView::from(feature).with_axes(layout.axes);
    let same = view.dtype() == layout.dtype
        && view.shape().len() == layout.dims().len()
        && view.shape().iter().zip(layout.dims()).all(|(&a, &b)| a == b as usize);
    if !same {
        return Err(Error::invalid(format!(
            "sample {index} has shape {:?} and type {}, the first one {:?} and {}",
            view.shape(),
            view.dtype().name(),
            layout.dims(),
            layout.dtype.name()
        )));
    }
    Ok(channels_last(&feature.to_f32(), layout))
}

/// A tensor of the layout's shape as values with channels last, what is not finite being 0.
fn channels_last(array: &ArrayD<f32>, layout: &Layout) -> Vec<f32> {
    let grid = crate::geometry::Grid::new(layout);
    let mut values = vec![0.0; grid.len()];
    grid.gather(&array.view(), &mut values, |x| if x.is_finite() { x } else { 0.0 });
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_above_zero() {
        let mut samples: Vec<ArrayD<f32>> = (0..8).map(|i| ArrayD::from_elem(vec![1, 2, 2], i as f32)).collect();
        for target in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            let options = FitOptions { target, ..FitOptions::default() };
            let error = Profile::fit(&mut samples, None, &options, &mut |_| {}).unwrap_err();
            assert!(matches!(&error, Error::InvalidInput(text) if text.contains("above 0")), "{target}: {error}");
        }
    }
}
