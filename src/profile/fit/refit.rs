//! Tables for a profile whose transform, steps and networks are given.

use super::{FitEvent, Reporter, Samples, tables};
use crate::bottleneck::Latents;
use crate::error::{Error, Result};
use crate::geometry::Grid;
use crate::kernels::Kernels;
use crate::kernels::portable::ContextRule;
use crate::limits::Limits;
use crate::profile::Profile;
use crate::tensor::FeatureView;
use crate::transform::{self, Blocks, Kept, TransformScratch};

impl Profile {
    /// This profile with tables fitted anew to sample features: what one needs whose networks, matrices or steps were
    /// trained elsewhere ([`Profile::assemble`]).
    ///
    /// Every context rule is tried, and the one of fewest bytes is kept. If the
    /// profile has gains, its anchors stay as they are; else they are those of [`Profile::fit`].
    ///
    /// # Errors
    /// `InvalidInput` if there are no samples, or they are not of the profile's shape; any error of the samples.
    pub fn refit(&self, samples: &mut dyn Samples, events: &mut dyn FnMut(FitEvent<'_>)) -> Result<Profile> {
        if samples.is_empty() {
            return Err(Error::invalid("there are no samples to fit tables to"));
        }
        let mut reporter = Reporter { events, notes: String::new() };
        let mut best: Option<(u64, Profile)> = None;
        for context in [ContextRule::None, ContextRule::Neighbours, ContextRule::Runs] {
            let mut profile = Profile { context, ..self.clone() };
            let bytes = fit(&mut profile, samples, &mut reporter)?;
            reporter.note(&format!("{bytes} bytes a feature at quality 0, context rule {}", context.code()));
            if best.as_ref().is_none_or(|&(least, _)| bytes < least) {
                best = Some((bytes, profile));
            }
        }
        let (_, mut profile) = best.ok_or(Error::invalid("there are no samples to fit tables to"))?;
        profile.notes =
            if self.notes.is_empty() { reporter.notes } else { format!("{}\n{}", self.notes, reporter.notes) };
        profile.hash = profile.content_hash();
        profile.validate(&Limits::default())?;
        Ok(profile)
    }
}

/// Fits tables; returns the mean bytes of a stream at quality 0.
fn fit(profile: &mut Profile, samples: &mut dyn Samples, reporter: &mut Reporter<'_>) -> Result<u64> {
    let anchors = if profile.gains.is_empty() { super::search::anchors() } else { profile.anchors.clone() };
    let own = Grid::new(&profile.layout);
    let grid = profile.latent(&own, &Limits::default())?;
    let blocks = Blocks::new(&grid, profile.block());
    let (mut latents, mut scratch) = (Latents::default(), TransformScratch::default());
    let mut coefficients = Vec::new();
    let count = samples.len();
    tables::fit(profile, &grid, &anchors, false, reporter, |profile, take, reporter| {
        // Every coefficient is written.
        coefficients.resize(blocks.count() * profile.coder_channels(), 0);
        for index in 0..count {
            reporter.progress("fitting tables", index, count);
            let feature = samples.feature(index)?;
            let kernels = Kernels::best();
            let own = profile.layout;
            if feature.dtype() != own.dtype || feature.shape() != &own.padded_shape()[..own.dims().len()] {
                return Err(Error::invalid(format!("sample {index} has another shape than the profile")));
            }
            latents.take(&feature, profile, kernels)?;
            let mut each = |quality: i16, only: Option<usize>| -> Result<()> {
                let values = latents.analyse(profile, quality, kernels)?;
                transform::forward(
                    profile,
                    &grid,
                    0..blocks.rows,
                    values,
                    Kept(&mut coefficients),
                    &mut scratch,
                    kernels,
                );
                take(&coefficients, only);
                Ok(())
            };
            if profile.analysis.as_ref().is_some_and(|analysis| analysis.depends_on_quality()) {
                for (number, &anchor) in profile.anchors.iter().enumerate() {
                    each(anchor, Some(number))?;
                }
            } else {
                each(0, None)?;
            }
        }
        Ok(())
    })?;
    profile.hash = profile.content_hash();
    let shared = std::sync::Arc::new(profile.clone());
    let mut encoder = crate::Encoder::with_profile(shared);
    let mut bytes = 0;
    for index in 0..count {
        reporter.progress("measuring", index, count);
        bytes += encoder
            .encode(
                FeatureView::from(&samples.feature(index)?).with_axes(profile.layout.axes),
                crate::Quality::Scale(1.0),
            )?
            .len() as u64;
    }
    Ok(bytes / count as u64)
}
