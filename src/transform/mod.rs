//! The transform: block DCT over positions, then a channel matrix for every group of bands.
//!
//! Both are optional: a 1x1 block is no DCT, no matrix leaves the channels as they are. Doing the DCT
//! first lets low and high spatial frequencies have channel matrices of their own.

pub mod dct;
pub mod klt;

use crate::geometry::Grid;
use crate::kernels::portable::{block_dct, block_idct, channel_matrix, round_shift};
use crate::profile::Profile;

/// Fractional bits of a coefficient relative to an integer feature value.
pub(crate) const COEFFICIENT_BITS: u32 = 2;

/// The blocks of a grid, which are the positions of the coder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Blocks {
    /// Block rows over all planes.
    pub rows: usize,
    /// Block rows of one plane.
    pub plane_rows: usize,
    /// Blocks in a row.
    pub columns: usize,
    block: (usize, usize),
}

impl Blocks {
    pub fn new(grid: &Grid, block: (usize, usize)) -> Blocks {
        let plane_rows = grid.height.div_ceil(block.0);
        Blocks { rows: grid.planes * plane_rows, plane_rows, columns: grid.width.div_ceil(block.1), block }
    }

    /// Number of blocks.
    pub fn count(&self) -> usize {
        self.rows * self.columns
    }

    /// Calls `visit(pixel of the block, position in the grid, inside)` for each pixel of a block; a
    /// pixel beyond the edge repeats the last one inside.
    pub fn pixels(&self, grid: &Grid, row: usize, column: usize, mut visit: impl FnMut(usize, usize, bool)) {
        let (plane, block_row) = (row / self.plane_rows, row % self.plane_rows);
        let mut pixel = 0;
        for y in block_row * self.block.0..(block_row + 1) * self.block.0 {
            let line = (plane * grid.height + y.min(grid.height - 1)) * grid.width;
            for x in column * self.block.1..(column + 1) * self.block.1 {
                let inside = y < grid.height && x < grid.width;
                visit(pixel, line + x.min(grid.width - 1), inside);
                pixel += 1;
            }
        }
    }
}

/// Buffers of [`forward`] and [`inverse`].
#[derive(Debug, Default, Clone)]
pub(crate) struct TransformScratch {
    block: Vec<i16>,
    other: Vec<i16>,
    sums: Vec<i32>,
}

impl TransformScratch {
    fn resize(&mut self, pixels: usize, channels: usize) {
        self.block.resize(pixels * channels, 0);
        self.other.resize(pixels * channels, 0);
        self.sums.resize(channels, 0);
    }
}

/// An integer matrix and the fractional bits of its entries.
type Matrix<'a> = (&'a [i16], u32);

fn dct_pair(profile: &Profile) -> (Matrix<'_>, Matrix<'_>) {
    let [rows, columns] = &profile.dct;
    ((&rows.matrix, rows.shift), (&columns.matrix, columns.shift))
}

/// Integer feature values (channels last) to coefficients: for every block, for every band, one
/// value per component.
pub(crate) fn forward(
    profile: &Profile,
    grid: &Grid,
    values: &[i16],
    coefficients: &mut Vec<i32>,
    scratch: &mut TransformScratch,
) {
    let blocks = Blocks::new(grid, profile.block());
    let (channels, bands) = (grid.channels, profile.bands());
    coefficients.clear();
    coefficients.resize(blocks.count() * bands * channels, 0);
    scratch.resize(bands, channels);
    let (row_dct, column_dct) = dct_pair(profile);
    let width = (bands * channels).max(1);
    for (index, out) in coefficients.chunks_exact_mut(width).enumerate() {
        blocks.pixels(grid, index / blocks.columns, index % blocks.columns, |pixel, position, _| {
            let value = &values[position * channels..][..channels];
            scratch.block[pixel * channels..][..channels].copy_from_slice(value);
        });
        if bands > 1 {
            block_dct(&mut scratch.block, channels, row_dct, column_dct, &mut scratch.other);
        }
        if profile.matrices.is_empty() {
            for (coefficient, &value) in out.iter_mut().zip(&scratch.block) {
                *coefficient = i32::from(value) << COEFFICIENT_BITS;
            }
            continue;
        }
        for (band, (out, values)) in
            out.chunks_exact_mut(channels).zip(scratch.block.chunks_exact(channels)).enumerate()
        {
            let pair = &profile.matrices[usize::from(profile.band_matrix[band])];
            channel_matrix(values, &pair.forward, pair.forward_shift - COEFFICIENT_BITS, out);
        }
    }
}

/// Coefficients of one block at a time back to integer feature values, clipped to the fitted range.
///
/// `coefficients_of(block, coefficients)` fills in the coefficients of a block.
pub(crate) fn inverse(
    profile: &Profile,
    grid: &Grid,
    values: &mut Vec<i16>,
    scratch: &mut TransformScratch,
    block_coefficients: &mut Vec<i32>,
    mut coefficients_of: impl FnMut(usize, &mut [i32]),
) {
    let blocks = Blocks::new(grid, profile.block());
    let (channels, bands) = (grid.channels, profile.bands());
    values.clear();
    values.resize(grid.len(), 0);
    scratch.resize(bands, channels);
    block_coefficients.clear();
    block_coefficients.resize(bands * channels, 0);
    let (row_dct, column_dct) = dct_pair(profile);
    if grid.len() == 0 {
        return;
    }
    for index in 0..blocks.count() {
        coefficients_of(index, block_coefficients);
        for (value, &coefficient) in scratch.block.iter_mut().zip(block_coefficients.iter()) {
            *value = round_shift(coefficient, COEFFICIENT_BITS).clamp(-32_768, 32_767) as i16;
        }
        if !profile.matrices.is_empty() {
            for (band, values) in scratch.block.chunks_exact_mut(channels).enumerate() {
                let pair = &profile.matrices[usize::from(profile.band_matrix[band])];
                channel_matrix(values, &pair.inverse, pair.inverse_shift, &mut scratch.sums);
                for (value, &sum) in values.iter_mut().zip(&scratch.sums) {
                    *value = sum.clamp(-32_768, 32_767) as i16;
                }
            }
        }
        if bands > 1 {
            block_idct(&mut scratch.block, channels, row_dct, column_dct, &mut scratch.other);
        }
        blocks.pixels(grid, index / blocks.columns, index % blocks.columns, |pixel, position, inside| {
            if inside {
                let from = &scratch.block[pixel * channels..][..channels];
                let to = &mut values[position * channels..][..channels];
                for ((value, &x), [low, high]) in to.iter_mut().zip(from).zip(&profile.range) {
                    *value = x.clamp(*low, *high);
                }
            }
        });
    }
}
