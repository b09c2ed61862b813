//! Profiles: what both ends share before the first feature.

mod file;
pub mod fit;
mod symbols;

use std::fs::File;
use std::io::Read;
use std::path::Path;

use crate::container::Layout;
use crate::entropy::bank::{Bank, TABLES};
use crate::error::{Error, Result};
use crate::geometry::Grid;
use crate::kernels::portable::{CONTEXTS, ContextRule};
use crate::kernels::simd::pack_pairs;
use crate::limits::Limits;
use crate::network::{self, Analysis, Cost, Float, Network};

/// Longest side of a DCT block.
pub const MAX_BLOCK: usize = 64;

/// One side of the separable block DCT: an orthonormal matrix in integers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Dct {
    /// Row-major, `side` x `side`.
    pub matrix: Vec<i16>,
    /// Fractional bits of the entries.
    pub shift: u32,
}

impl Dct {
    pub fn side(&self) -> usize {
        self.matrix.len().isqrt()
    }
}

/// A channel matrix and its inverse, both by columns, with the fractional bits of their entries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ChannelPair {
    pub forward: Vec<i16>,
    pub forward_shift: u32,
    pub inverse: Vec<i16>,
    pub inverse_shift: u32,
    /// The same matrices as the SIMD kernels read them.
    pub forward_pairs: Vec<i32>,
    pub inverse_pairs: Vec<i32>,
}

impl ChannelPair {
    /// The pair of matrices (by columns, of equal size, square) and their fractional bits.
    pub fn new((forward, forward_shift): (Vec<i16>, u32), (inverse, inverse_shift): (Vec<i16>, u32)) -> ChannelPair {
        let channels = forward.len().isqrt();
        let (forward_pairs, inverse_pairs) = (pack_pairs(&forward, channels), pack_pairs(&inverse, channels));
        ChannelPair { forward, forward_shift, inverse, inverse_shift, forward_pairs, inverse_pairs }
    }
}

/// What both ends share before the first feature: transform, steps, tables and contexts, fitted once
/// from sample features of one cut of one network.
///
/// Made by [`Profile::fit`](crate::Profile::fit), kept as one `.safetensors` file, named by a 64-bit
/// hash of its content that every stream carries.
///
/// A coder channel is a (component, band) pair, number `band * channels + component`.
#[derive(Debug, Clone, PartialEq)]
pub struct Profile {
    pub(crate) layout: Layout,
    /// x becomes round(x * 2^exponent).
    pub(crate) exponent: i32,
    /// Smallest and largest integer value of each channel.
    pub(crate) range: Vec<[i16; 2]>,
    /// DCT over the rows and over the columns of a block.
    pub(crate) dct: [Dct; 2],
    /// Channel matrices, and which of them each band uses; none: channels as they are.
    pub(crate) matrices: Vec<ChannelPair>,
    pub(crate) band_matrix: Vec<u8>,
    /// Per coder channel.
    pub(crate) means: Vec<i32>,
    pub(crate) steps: Vec<u16>,
    /// Rounding offset of the quantiser in 1/256 step.
    pub(crate) rounding: u8,
    /// Lagrangian of rate-distortion optimised quantisation: 1/4096 squared step per bit; 0 = off.
    pub(crate) lambda: u16,
    pub(crate) bank: Bank,
    /// Reconstruction offsets towards zero, 1/16 step, for magnitudes 1, 2 and more, by scale index.
    pub(crate) offsets: Vec<[u8; 3]>,
    pub(crate) context: ContextRule,
    /// What each context adds to a channel's scale index (rule `Runs`; zeros otherwise).
    pub(crate) context_offsets: [i8; CONTEXTS],
    /// Quality indices at which `levels` and `maps` were fitted, ascending.
    pub(crate) anchors: Vec<i16>,
    /// Per anchor and coder channel: the scale index without a context, 0 if silent.
    pub(crate) levels: Vec<u8>,
    /// Per anchor, coder channel and context: the scale index. Empty without contexts.
    pub(crate) maps: Vec<u8>,
    /// How it was fitted, for people.
    /// On the device, between the integer feature and the transform; its latent has `latent_exponent`.
    pub(crate) analysis: Option<Analysis>,
    /// On the server, between the inverse transform and the feature.
    pub(crate) synthesis: Option<Network<Float>>,
    /// Fractional bits of the values that the transform sees; `exponent` without networks.
    pub(crate) latent_exponent: i32,
    /// Per anchor and coder channel: what the step index gains beside the quality index; empty: nothing.
    pub(crate) gains: Vec<i16>,
    pub(crate) notes: String,
    pub(crate) hash: u64,
}

impl Profile {
    /// The 64-bit content hash that streams carry.
    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// Shape, element type and axes of the features that it was fitted on. Features of another size
    /// may be coded as long as the number of channels is the same; their header is longer.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// How it was fitted, as text.
    pub fn notes(&self) -> &str {
        &self.notes
    }

    /// Rows and columns of a DCT block; (1, 1) is no DCT.
    pub fn block(&self) -> (usize, usize) {
        (self.dct[0].side(), self.dct[1].side())
    }

    /// Number of channel matrices: 0 for channels as they are, more than 1 if groups of bands have their own.
    pub fn matrices(&self) -> usize {
        self.matrices.len()
    }

    /// Channels of what the transform sees: of the feature, or of the latent that the analysis network makes of it.
    pub(crate) fn channels(&self) -> usize {
        self.analysis.as_ref().map_or(self.layout.channels(), Analysis::outputs)
    }

    /// Whether it has an analysis or a synthesis network.
    pub fn has_networks(&self) -> bool {
        self.analysis.is_some() || self.synthesis.is_some()
    }

    /// Whether every backend makes the same stream of a feature: not if its analysis network, an imported one, runs in
    /// floating point.
    pub fn is_exact(&self) -> bool {
        !matches!(self.analysis, Some(Analysis::Float(_)))
    }

    /// What its analysis and synthesis networks cost for a feature of this layout; `None` where there is no network.
    pub fn cost(&self, layout: &Layout) -> [Option<Cost>; 2] {
        let grid = Grid::new(layout);
        let times = |cost: Cost| Cost { macs: cost.macs * grid.planes as u64, ..cost };
        let size = (grid.height, grid.width);
        let latent = self.analysis.as_ref().map_or(Some(size), |analysis| analysis.output_size(size));
        let analysis = self.analysis.as_ref().map(|analysis| times(analysis.cost(size)));
        let synthesis = self.synthesis.as_ref().zip(latent).map(|(synthesis, latent)| times(synthesis.cost(latent)));
        [analysis, synthesis]
    }

    /// Checks that a feature of this layout has the channels that it was fitted on.
    pub(crate) fn check_channels(&self, layout: &Layout) -> Result<()> {
        let (given, own) = (layout.channels(), self.layout.channels());
        if given != own {
            return Err(Error::invalid(format!(
                "the feature has {given} channels, profile {:016x} was fitted on {own}",
                self.hash
            )));
        }
        Ok(())
    }

    /// The planes of the latent of a feature, if the networks can be run on it within limits.
    ///
    /// # Errors
    /// `InvalidInput` for planes that a network makes nothing of, `LimitExceeded`.
    pub(crate) fn latent(&self, grid: &Grid, limits: &Limits) -> Result<Grid> {
        let size = (grid.height, grid.width);
        let check = |memory: Option<u64>, cost: Cost| {
            Limits::check("bytes of a network's values", memory.unwrap_or(u64::MAX), limits.network_bytes)?;
            let macs = cost.macs.saturating_mul(grid.planes as u64);
            Limits::check("multiply-accumulates of a network", macs, limits.network_macs)
        };
        if !self.has_networks() || grid.planes == 0 {
            return Ok(grid.with_planes(size, self.channels()));
        }
        let mut latent = size;
        if let Some(analysis) = &self.analysis {
            latent = analysis.output_size(size).ok_or(network::too_small(size))?;
            check(analysis.memory(size), analysis.cost(size))?;
        }
        let planes = grid.with_planes(latent, self.channels());
        let sizes = [planes.planes, planes.height, planes.width, planes.channels, size_of::<f32>()];
        Limits::check_product("bytes of a latent", sizes.map(|size| size as u64), limits.network_bytes)?;
        if let Some(synthesis) = &self.synthesis {
            let made = synthesis.output_size(latent).ok_or(network::too_small(latent))?;
            if made.0 < size.0 || made.1 < size.1 {
                return Err(Error::invalid(format!(
                    "the profile's synthesis network makes {}x{} positions of a feature of {}x{}",
                    made.0, made.1, size.0, size.1
                )));
            }
            check(synthesis.memory(latent), synthesis.cost(latent))?;
        } else if latent != size {
            return Err(Error::invalid(format!(
                "the profile's analysis network makes {}x{} positions of {}x{}, and there is no synthesis network",
                latent.0, latent.1, size.0, size.1
            )));
        }
        Ok(planes)
    }

    /// Bands of a block.
    pub(crate) fn bands(&self) -> usize {
        let (rows, columns) = self.block();
        rows * columns
    }

    /// Number of coder channels: components times bands.
    pub fn coder_channels(&self) -> usize {
        self.bands() * self.channels()
    }

    /// Contexts of a coder channel in `maps`: none if its level and the context's offset name the table.
    pub(crate) fn map_contexts(&self) -> usize {
        if self.context == ContextRule::Neighbours { CONTEXTS } else { 0 }
    }

    /// Reads a profile from a file.
    ///
    /// # Errors
    /// `InvalidInput` if the file cannot be read, else as [`Profile::from_bytes`].
    pub fn load(path: impl AsRef<Path>) -> Result<Profile> {
        Profile::load_with(path, &Limits::default())
    }

    /// As [`Profile::load`], with other limits. What is read is limited too, whatever the file says its length is.
    ///
    /// # Errors
    /// As there.
    pub fn load_with(path: impl AsRef<Path>, limits: &Limits) -> Result<Profile> {
        let path = path.as_ref();
        let unreadable = |error| Error::invalid(format!("cannot read profile {}: {error}", path.display()));
        let file = File::open(path).map_err(unreadable)?;
        let length = file.metadata().map_err(unreadable)?.len();
        Limits::check("bytes of a profile", length, limits.profile_bytes)?;
        let mut bytes = Vec::with_capacity(length as usize);
        file.take(limits.profile_bytes.saturating_add(1)).read_to_end(&mut bytes).map_err(unreadable)?;
        Profile::from_bytes_with(&bytes, limits)
    }

    /// Writes the profile to a file.
    ///
    /// # Errors
    /// `InvalidInput` if the file cannot be written.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        std::fs::write(path, self.to_bytes())
            .map_err(|error| Error::invalid(format!("cannot write profile {}: {error}", path.display())))
    }

    /// Checks everything that decoding relies on.
    pub(crate) fn validate(&self, limits: &Limits) -> Result<()> {
        let fail = |what| Err(Error::corrupt(what, 0));
        let channels = self.channels();
        self.layout.check(limits)?;
        if !(-126..=126).contains(&self.exponent) || !(-126..=126).contains(&self.latent_exponent) {
            return fail("the input exponent of the profile");
        }
        for dct in &self.dct {
            let side = dct.side();
            if side == 0 || side > MAX_BLOCK || side * side != dct.matrix.len() || dct.shift > 15 {
                return fail("the DCT of the profile");
            }
            if !bounded(&dct.matrix, side) {
                return fail("a DCT row of the profile sums to more than 65535");
            }
        }
        let bands = self.bands();
        let coder_channels = bands as u64 * channels as u64;
        Limits::check("coder channels of a profile", coder_channels, limits.channels)?;
        let coder_channels = coder_channels as usize;
        for pair in &self.matrices {
            if pair.forward.len() != channels * channels || pair.inverse.len() != channels * channels {
                return fail("a channel matrix of the profile has the wrong size");
            }
            if !(2..=16).contains(&pair.forward_shift) || pair.inverse_shift > 16 {
                return fail("a shift of the profile");
            }
            if !bounded(&pair.forward, channels) || !bounded(&pair.inverse, channels) {
                return fail("a channel matrix row of the profile sums to more than 65535");
            }
        }
        let matrices_fit = self.band_matrix.iter().all(|&i| usize::from(i) < self.matrices.len());
        if self.band_matrix.len() != if self.matrices.is_empty() { 0 } else { bands } || !matrices_fit {
            return fail("the band groups of the profile");
        }
        if self.range.len() != channels || self.range.iter().any(|[low, high]| low > high) {
            return fail("the value range of the profile");
        }
        let max = crate::kernels::portable::COEFFICIENT_MAX;
        if self.means.len() != coder_channels || self.means.iter().any(|mean| !(-max..=max).contains(mean)) {
            return fail("the means of the profile");
        }
        if self.steps.len() != coder_channels || self.steps.iter().any(|&step| step >= 1 << 12) {
            return fail("the steps of the profile");
        }
        if self.rounding > 128 || self.offsets.len() != TABLES || self.offsets.iter().flatten().any(|&o| o > 15) {
            return fail("the quantiser of the profile");
        }
        let anchors = self.anchors.len();
        if anchors == 0 || anchors > 64 || self.anchors.windows(2).any(|pair| pair[0] >= pair[1]) {
            return fail("the anchors of the profile");
        }
        if self.levels.len() != anchors * coder_channels
            || self.maps.len() != anchors * coder_channels * self.map_contexts()
            || self.levels.iter().chain(&self.maps).any(|&level| usize::from(level) >= TABLES)
        {
            return fail("the scale maps of the profile");
        }
        if !self.gains.is_empty() && self.gains.len() != anchors * coder_channels {
            return fail("the gains of the profile");
        }
        if self.gains.iter().any(|gain| gain.unsigned_abs() > 1 << 12) {
            return fail("a gain of the profile");
        }
        if self.synthesis.as_ref().is_some_and(|synthesis| synthesis.outputs() != self.layout.channels()) {
            return fail("the channels of the synthesis network");
        }
        if self.synthesis.is_none() && channels != self.layout.channels() {
            return fail("the analysis network changes the number of channels, and there is no synthesis network");
        }
        let own = Grid::new(&self.layout);
        if own.planes * own.height * own.width > 0 {
            self.latent(&own, limits).map_err(|error| match error {
                Error::InvalidInput { .. } => Error::corrupt("the networks do not fit the profile's own shape", 0),
                error => error,
            })?;
        }
        Ok(())
    }
}

/// True if the absolute values of every row and of every column sum to at most 65,535, so that sums
/// of products with i16 values stay within i32 in either direction.
fn bounded(matrix: &[i16], side: usize) -> bool {
    let sum = |values: &mut dyn Iterator<Item = &i16>| {
        values.map(|&value| u64::from(value.unsigned_abs())).sum::<u64>() <= 65_535
    };
    (0..side).all(|i| sum(&mut matrix[i * side..][..side].iter()) && sum(&mut matrix[i..].iter().step_by(side)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::{Axes, Dtype};

    #[test]
    fn a_profile_without_elements_has_no_endless_positions() {
        let mut profile =
            Profile::from_bytes(include_bytes!("../../tests/vectors/rectified.profile.safetensors")).unwrap();
        let channels = profile.layout.channels();
        let axes = Axes { channels: 0, batch: None };
        for shape in [[channels, 0, 1 << 31], [channels, 1 << 31, 0], [0, 1 << 31, 1 << 29]] {
            profile.layout = Layout::new(Dtype::F32, axes, &shape).unwrap();
            let error = profile.validate(&Limits::default()).unwrap_err();
            assert!(matches!(error, Error::LimitExceeded { what: "decoded bytes", .. }), "{shape:?}: {error}");
        }
    }
}
