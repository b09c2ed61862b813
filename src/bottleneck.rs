//! The networks of a profile around its transform: feature to latent, latent to feature.

use crate::error::{Error, Result};
use crate::geometry::{Grid, gather_f32, gather_int};
use crate::kernels::Kernels;
use crate::kernels::portable::{power_of_two, to_int};
use crate::limits::Limits;
use crate::network::{Analysis, Float, Integer, Runner, too_small};
use crate::profile::Profile;
use crate::tensor::{Feature, FeatureView};

/// The planes of a feature, and those that are transformed: its latent's, or without networks its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Planes {
    pub feature: Grid,
    pub latent: Grid,
}

/// What networks read and write, kept between features.
#[derive(Debug, Default, Clone)]
pub(crate) struct Bottleneck {
    integer: Runner<Integer>,
    float: Runner<Float>,
    /// What the analysis network reads.
    integers: Vec<i16>,
    floats: Vec<f32>,
    /// What the synthesis network reads, channels last.
    pub latent: Vec<f32>,
    made: Vec<f32>,
    /// What it makes where that is more than the feature.
    whole: Vec<f32>,
}

impl Bottleneck {
    /// Takes a feature: to what its analysis network reads or, without one, to the values that are transformed.
    pub fn take(
        &mut self,
        view: &FeatureView<'_>,
        planes: &Planes,
        profile: &Profile,
        (values, tile): (&mut Vec<i16>, &mut Vec<i16>),
        kernels: Kernels,
    ) {
        match &profile.analysis {
            None => gather_int(view, &planes.feature, profile.exponent, values, tile, kernels),
            Some(Analysis::Integer(_)) => {
                gather_int(view, &planes.feature, profile.exponent, &mut self.integers, tile, kernels);
            }
            Some(Analysis::Float(_)) => gather_f32(view, &planes.feature, &mut self.floats),
        }
        // Every value is written.
        values.resize(planes.latent.len(), 0);
    }

    /// Runs the analysis network, if there is one, on the feature that was taken, into the values that are transformed.
    ///
    /// # Errors
    /// `InvalidInput` if it makes nothing of planes of this size.
    pub fn analyse(
        &mut self,
        planes: &Planes,
        profile: &Profile,
        quality: i16,
        values: &mut [i16],
        kernels: Kernels,
    ) -> Result<()> {
        let Some(analysis) = &profile.analysis else { return Ok(()) };
        let (size, from, to) = (planes.feature.plane(), planes.feature.plane_len(), planes.latent.plane_len());
        if from == 0 || to == 0 {
            return Ok(());
        }
        for (plane, out) in values.chunks_exact_mut(to).enumerate() {
            let own = plane * from..(plane + 1) * from;
            match analysis {
                Analysis::Integer(network) => {
                    self.integer.run(network, (&self.integers[own], size), quality, out, kernels)?;
                }
                Analysis::Float(network) => {
                    self.latent.resize(to, 0.0);
                    self.float.run(network, (&self.floats[own], size), quality, &mut self.latent, kernels)?;
                    let scale = power_of_two(profile.latent_exponent);
                    for (value, &x) in out.iter_mut().zip(&self.latent) {
                        *value = to_int(x, scale);
                    }
                }
            }
        }
        Ok(())
    }

    /// The feature that the synthesis network makes of `self.latent`, channels last; without one, the latent itself.
    ///
    /// # Errors
    /// `InvalidInput` if it makes nothing of planes of this size.
    pub fn synthesise(&mut self, planes: &Planes, profile: &Profile, quality: i16, kernels: Kernels) -> Result<&[f32]> {
        let Bottleneck { float, latent, made, whole, .. } = self;
        let Some(network) = &profile.synthesis else { return Ok(latent) };
        let Planes { feature, latent: grid } = planes;
        made.resize(feature.len(), 0.0);
        if made.is_empty() || grid.plane_len() == 0 {
            return Ok(made);
        }
        let (height, width) = network.output_size(grid.plane()).ok_or(too_small(grid.plane()))?;
        let row = feature.width * feature.channels;
        for (latent, made) in latent.chunks_exact(grid.plane_len()).zip(made.chunks_exact_mut(feature.plane_len())) {
            if (height, width) == feature.plane() {
                float.run(network, (latent, grid.plane()), quality, made, kernels)?;
                continue;
            }
            // What it makes beyond the feature is dropped.
            whole.resize(height * width * feature.channels, 0.0);
            float.run(network, (latent, grid.plane()), quality, whole, kernels)?;
            for (made, whole) in made.chunks_exact_mut(row).zip(whole.chunks_exact(width * feature.channels)) {
                made.copy_from_slice(&whole[..row]);
            }
        }
        Ok(made)
    }

    /// As [`synthesise`](Self::synthesise), of a latent of integers.
    ///
    /// # Errors
    /// As there.
    pub fn synthesise_integers(
        &mut self,
        planes: &Planes,
        profile: &Profile,
        (quality, integers): (i16, &[i16]),
        kernels: Kernels,
    ) -> Result<&[f32]> {
        let scale = power_of_two(-profile.latent_exponent);
        self.latent.clear();
        self.latent.extend(integers.iter().map(|&value| f32::from(value) * scale));
        self.synthesise(planes, profile, quality, kernels)
    }
}

/// Features of a profile's own layout through its networks, for fits and experts.
#[derive(Debug, Default)]
pub(crate) struct Latents {
    bottleneck: Bottleneck,
    values: Vec<i16>,
    tile: Vec<i16>,
}

impl Latents {
    /// Takes a feature.
    ///
    /// # Errors
    /// `InvalidInput` if it does not have the profile's shape and type.
    pub fn take(&mut self, feature: &Feature, profile: &Profile, kernels: Kernels) -> Result<()> {
        let own = &profile.layout;
        if feature.dtype() != own.dtype || feature.shape() != &own.padded_shape()[..own.dims().len()] {
            return Err(Error::invalid("the feature does not have the profile's shape and type"));
        }
        let view = FeatureView::from(feature).with_axes(own.axes);
        let planes = profile.own_planes()?;
        self.bottleneck.take(&view, &planes, profile, (&mut self.values, &mut self.tile), kernels);
        Ok(())
    }

    /// The integers that the transform sees of the feature that was taken, at a quality index.
    pub fn analyse(&mut self, profile: &Profile, quality: i16, kernels: Kernels) -> Result<&[i16]> {
        self.bottleneck.analyse(&profile.own_planes()?, profile, quality, &mut self.values, kernels)?;
        Ok(&self.values)
    }

    /// What becomes of such integers, channels last.
    ///
    /// # Errors
    /// `InvalidInput` if there are not as many as [`analyse`](Self::analyse) makes.
    pub fn synthesise(
        &mut self,
        profile: &Profile,
        (quality, integers): (i16, &[i16]),
        kernels: Kernels,
    ) -> Result<&[f32]> {
        let planes = profile.own_planes()?;
        if integers.len() != planes.latent.len() {
            let given = integers.len();
            return Err(Error::invalid(format!("{given} integers, where a latent has {}", planes.latent.len())));
        }
        self.bottleneck.synthesise_integers(&planes, profile, (quality, integers), kernels)
    }
}

impl Profile {
    /// The planes of features of its own layout.
    fn own_planes(&self) -> Result<Planes> {
        let feature = Grid::new(&self.layout);
        Ok(Planes { feature, latent: self.latent(&feature, &Limits::UNBOUNDED)? })
    }
}
