//! From a candidate and moments to a profile that lacks only its tables.

use std::fmt;

use super::moments::Moments;
use crate::container::Layout;
use crate::entropy::bank::{Bank, TABLES};
use crate::error::Result;
use crate::kernels::portable::{COEFFICIENT_MAX, CONTEXTS, ContextRule};
use crate::profile::{ChannelPair, Profile};
use crate::transform::klt::Basis;
use crate::transform::{COEFFICIENT_BITS, dct, klt};

/// The least floor of a candidate.
pub(crate) const FLOOR: f64 = 0.02;

/// How the bands of a block share channel matrices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Groups {
    /// One matrix for all bands.
    One,
    /// Bands by u + v: 0, 1-2, 3-5, 6 and more (in blocks longer than 8: 6-11, 12 and more).
    Octaves,
    /// One matrix for every u + v.
    Diagonals,
    /// One matrix for every band.
    Bands,
}

/// The group of each band of a block.
pub(crate) fn band_groups(groups: Groups, (rows, columns): (usize, usize)) -> Vec<u8> {
    let last = if rows.max(columns) > 8 { 4 } else { 3 };
    (0..rows * columns)
        .map(|band| {
            let diagonal = band / columns + band % columns;
            match groups {
                Groups::One => 0,
                Groups::Octaves => [1, 3, 6, 12].iter().filter(|&&start| diagonal >= start).count().min(last) as u8,
                Groups::Diagonals => diagonal as u8,
                Groups::Bands => band as u8,
            }
        })
        .collect()
}

/// The channel transform of a candidate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Channels {
    /// Channels as they are.
    Identity,
    /// The KLT.
    Klt,
    /// The task-weighted KLT.
    Weighted,
}

/// One combination of choices.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Candidate {
    pub block: (usize, usize),
    pub channels: Channels,
    pub groups: Groups,
    /// Added to the metric's eigenvalues and to the weights, relative to their mean: the noisier the
    /// metric, the less its small values are to be trusted.
    pub floor: f64,
    /// Steps are proportional to weight^-exponent.
    pub exponent: f64,
    /// Rounding offset in 1/256 step.
    pub rounding: u8,
    /// Reconstruct at the centroids of the levels instead of their middles.
    pub centroids: bool,
    /// Lagrangian of rate-distortion optimised quantisation.
    pub lambda: u16,
    pub context: ContextRule,
}

impl fmt::Display for Candidate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let channels = match self.channels {
            Channels::Identity => "channels as they are",
            Channels::Klt => "KLT",
            Channels::Weighted => "task-weighted KLT",
        };
        write!(f, "{channels}")?;
        if self.block != (1, 1) {
            write!(f, ", {}x{} DCT", self.block.0, self.block.1)?;
            match self.groups {
                Groups::One => {}
                Groups::Octaves => write!(f, ", a matrix per octave of bands")?,
                Groups::Diagonals => write!(f, ", a matrix per diagonal of bands")?,
                Groups::Bands => write!(f, ", a matrix per band")?,
            }
        }
        write!(f, ", weight exponent {:.2}", self.exponent)?;
        if self.floor != FLOOR {
            write!(f, ", weight floor {:.2}", self.floor)?;
        }
        if self.rounding != 128 {
            write!(f, ", rounding offset {:.2}", f64::from(self.rounding) / 256.0)?;
        }
        if self.centroids {
            write!(f, ", centroid reconstruction")?;
        }
        if self.lambda > 0 {
            write!(f, ", RDO lambda {:.3}", f64::from(self.lambda) / 4096.0)?;
        }
        match self.context {
            ContextRule::None => {}
            ContextRule::Neighbours => write!(f, ", neighbour context")?,
            ContextRule::Runs => write!(f, ", run context")?,
        }
        Ok(())
    }
}

/// Scales a real matrix to integers such that all absolute row and column sums stay within 65,535;
/// gives it by columns, with the fractional bits.
fn integers(matrix: &[f64], n: usize) -> (Vec<i16>, u32) {
    let largest = dct::largest_sum(matrix, n);
    let entry = matrix.iter().fold(0.0f64, |a, b| a.max(b.abs()));
    let fits = |shift: u32| {
        let scale = f64::from(1u32 << shift);
        largest * scale + n as f64 <= 65_535.0 && entry * scale <= 32_767.0
    };
    let shift = (COEFFICIENT_BITS..=14).rev().find(|&shift| fits(shift)).unwrap_or(COEFFICIENT_BITS);
    let scale = f64::from(1u32 << shift);
    let column_major =
        (0..n * n).map(|i| libm::rint(matrix[i % n * n + i / n] * scale).clamp(-32_767.0, 32_767.0) as i16);
    (column_major.collect(), shift)
}

/// A profile with this candidate's transform and steps, quality 0 being an arbitrary one, and with
/// every channel on a table in the middle of the bank.
pub(crate) fn draft(layout: Layout, moments: &Moments, candidate: &Candidate) -> Result<Profile> {
    let channels = layout.channels();
    let bands = moments.bands();
    let band_matrix = band_groups(candidate.groups, candidate.block);
    let groups = band_matrix.iter().max().map_or(0, |&last| usize::from(last) + 1);
    let mean_of = |group: usize, of: &dyn Fn(usize) -> Vec<f64>| {
        let mut sum = vec![0.0; channels * channels];
        for band in (0..bands).filter(|&band| usize::from(band_matrix[band]) == group) {
            sum.iter_mut().zip(of(band)).for_each(|(sum, value)| *sum += value);
        }
        sum
    };
    let bases: Vec<Basis> = if candidate.channels == Channels::Identity {
        Vec::new()
    } else {
        (0..groups)
            .map(|group| {
                let covariance = mean_of(group, &|band| moments.covariance(band));
                let metric = match (&moments.metric, candidate.channels) {
                    (Some(metric), Channels::Weighted) => Some(mean_of(group, &|band| metric[band].clone())),
                    _ => None,
                };
                klt::basis(&covariance, metric.as_deref(), candidate.floor, channels)
            })
            .collect()
    };
    let norm = moments.largest_norm.max(moments.range.iter().flatten().fold(0.0, |a, &b| a.max(f64::from(b.abs()))));
    let exponent = libm::floor(libm::log2(32_000.0 / norm.max(1e-30))).clamp(-126.0, 126.0) as i32;
    let unit = libm::exp2(f64::from(exponent));

    let mut means = Vec::with_capacity(bands * channels);
    let mut weights = Vec::with_capacity(bands * channels);
    let mut energies = Vec::with_capacity(bands * channels);
    for band in 0..bands {
        let covariance = moments.covariance(band);
        let mean = &moments.mean[band * channels..][..channels];
        for component in 0..channels {
            // Row of the forward matrix and column of the inverse.
            let (forward, inverse): (Vec<f64>, Vec<f64>) = match bases.get(usize::from(band_matrix[band])) {
                Some(basis) => (
                    basis.forward[component * channels..][..channels].to_vec(),
                    basis.inverse[component..].iter().step_by(channels).copied().collect(),
                ),
                None => {
                    let one: Vec<f64> = (0..channels).map(|i| f64::from(u8::from(i == component))).collect();
                    (one.clone(), one)
                }
            };
            let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
            means.push(dot(&forward, mean) * unit * f64::from(1 << COEFFICIENT_BITS));
            energies.push(form(&covariance, &forward).max(0.0));
            weights.push(match &moments.metric {
                Some(metric) => form(&metric[band], &inverse).max(0.0),
                None => dot(&inverse, &inverse),
            });
        }
    }
    // Post-rectifier features without a transform are best left with zero as zero.
    if candidate.channels == Channels::Identity && candidate.block == (1, 1) {
        means.fill(0.0);
    }
    let mean_weight = (weights.iter().sum::<f64>() / weights.len() as f64).max(1e-300);
    let relative: Vec<f64> =
        weights.iter().map(|w| -candidate.exponent * libm::log2(w / mean_weight + candidate.floor)).collect();
    // A first guess at the operating point: steps of the size of the largest weighted deviation.
    let deviation = energies.iter().zip(&relative).map(|(energy, r)| 0.5 * libm::log2(energy.max(1e-300)) - r);
    let largest = deviation.fold(f64::MIN, f64::max);
    let offset = largest - 3.0 + f64::from(exponent) + f64::from(COEFFICIENT_BITS);
    let steps = relative.iter().map(|r| (32.0 * (r + offset + 1.0)).clamp(0.0, 4095.0) as u16).collect();

    let (matrices, band_matrix) = if bases.is_empty() {
        (Vec::new(), Vec::new())
    } else {
        let pair =
            |basis: &Basis| ChannelPair::new(integers(&basis.forward, channels), integers(&basis.inverse, channels));
        (bases.iter().map(pair).collect(), band_matrix)
    };
    let bound = |x: f64| libm::rint(x * unit).clamp(-32_768.0, 32_767.0) as i16;
    // What a transform adds to a value is as often below it as above. Cut off at a bound where values are many, as at the
    // zero of rectified ones, only one of the two is left, and shifts the mean: by far the worst error for what follows.
    let identity = candidate.channels == Channels::Identity && candidate.block == (1, 1);
    let limits = |&[low, high]: &[f32; 2]| {
        let margin = if identity { 0.0 } else { f64::from(high) - f64::from(low) };
        [bound(f64::from(low) - margin), bound(f64::from(high) + margin)]
    };
    Ok(Profile {
        layout,
        exponent,
        range: moments.range.iter().map(limits).collect(),
        dct: [dct::matrix(candidate.block.0), dct::matrix(candidate.block.1)],
        matrices,
        band_matrix,
        means: means
            .iter()
            .map(|&mean| libm::rint(mean).clamp(-f64::from(COEFFICIENT_MAX), f64::from(COEFFICIENT_MAX)) as i32)
            .collect(),
        steps,
        rounding: candidate.rounding,
        lambda: candidate.lambda,
        bank: Bank::builtin(),
        offsets: vec![[0; 3]; TABLES],
        context: candidate.context,
        context_offsets: [0; CONTEXTS],
        anchors: vec![0],
        levels: Vec::new(),
        maps: Vec::new(),
        analysis: None,
        synthesis: None,
        latent_exponent: exponent,
        gains: Vec::new(),
        notes: String::new(),
        hash: 0,
    })
}

/// v' M v.
fn form(matrix: &[f64], v: &[f64]) -> f64 {
    let rows = matrix.chunks_exact(v.len());
    rows.zip(v).map(|(row, x)| x * row.iter().zip(v).map(|(m, y)| m * y).sum::<f64>()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bands_fall_into_octaves() {
        let groups = band_groups(Groups::Octaves, (7, 7));
        assert_eq!(
            [groups[0], groups[1], groups[7], groups[8], groups[3], groups[6], groups[48]],
            [0, 1, 1, 1, 2, 3, 3]
        );
        assert_eq!(band_groups(Groups::Octaves, (14, 14)).iter().max(), Some(&4));
        assert_eq!(band_groups(Groups::Diagonals, (2, 3)), [0, 1, 2, 1, 2, 3]);
        assert_eq!(band_groups(Groups::One, (1, 1)), [0]);
    }

    #[test]
    fn integer_matrices_keep_their_bound() {
        for n in [1, 3, 40] {
            let matrix: Vec<f64> = (0..n * n).map(|i| ((i * 7919) as f64).sin() * 3.0).collect();
            let (entries, shift) = integers(&matrix, n);
            assert!(crate::profile::bounded(&entries, n));
            let scale = f64::from(1u32 << shift);
            for i in 0..n * n {
                let error = f64::from(entries[i % n * n + i / n]) / scale - matrix[i];
                assert!(error.abs() <= 0.5 / scale + 1e-12);
            }
        }
    }
}
