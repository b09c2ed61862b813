//! The transform: block DCT over positions, then a channel matrix for every group of bands.
//!
//! Both are optional: a 1x1 block is no DCT, no matrix leaves the channels as they are. Doing the DCT
//! first lets low and high spatial frequencies have channel matrices of their own.

pub mod dct;
pub mod klt;

use std::ops::Range;

use crate::geometry::Grid;
use crate::kernels::portable::{Strip, round_shift};
use crate::kernels::simd::PADDING;
use crate::kernels::{BlockKernels, DctPair, Kernels, with_blocks};
use crate::plan::Plan;
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

    /// Calls `visit(pixel of the block, row of the grid over all planes, column of the grid, inside)` for each pixel of a
    /// block; a pixel beyond the edge has the place of the last one inside.
    #[inline(always)]
    pub fn pixels(&self, grid: &Grid, row: usize, column: usize, mut visit: impl FnMut(usize, usize, usize, bool)) {
        let (plane, block_row) = (row / self.plane_rows, row % self.plane_rows);
        let mut pixel = 0;
        for y in block_row * self.block.0..(block_row + 1) * self.block.0 {
            let line = plane * grid.height + y.min(grid.height - 1);
            for x in column * self.block.1..(column + 1) * self.block.1 {
                let inside = y < grid.height && x < grid.width;
                visit(pixel, line, x.min(grid.width - 1), inside);
                pixel += 1;
            }
        }
    }

    /// The part of the grid that a strip of blocks covers: rows of the grid over all planes, and columns.
    pub fn area(&self, grid: &Grid, strip: &Strip) -> (Range<usize>, Range<usize>) {
        let line = |row: usize| {
            let (plane, row) = (row / self.plane_rows.max(1), row % self.plane_rows.max(1));
            plane * grid.height + row * self.block.0
        };
        // The last row of blocks of a plane may be cut off.
        let columns = strip.columns.start * self.block.1..(strip.columns.end * self.block.1).min(grid.width);
        let last = strip.rows.end.max(1) - 1;
        let left = grid.height - (last % self.plane_rows.max(1)) * self.block.0;
        (line(strip.rows.start)..line(last) + left.min(self.block.0), columns)
    }
}

/// Buffers of [`forward`] and [`inverse`].
#[derive(Debug, Default, Clone)]
pub(crate) struct TransformScratch {
    block: Vec<i16>,
    other: Vec<i16>,
    sums: Vec<i32>,
    coefficients: Vec<i32>,
    low: Vec<i16>,
    high: Vec<i16>,
}

impl TransformScratch {
    fn resize(&mut self, pixels: usize, channels: usize) {
        let TransformScratch { block, other, sums, coefficients, .. } = self;
        block.resize(pixels * channels + PADDING, 0);
        other.resize(pixels * channels + PADDING, 0);
        sums.resize(channels + PADDING, 0);
        coefficients.resize(pixels * channels + PADDING, 0);
    }
}

fn dct_pair(profile: &Profile) -> DctPair<'_> {
    let [rows, columns] = &profile.dct;
    ((&rows.matrix, rows.shift), (&columns.matrix, columns.shift))
}

/// What becomes of the coefficients of a block: for every band, one value per component.
pub(crate) trait Sink {
    /// Takes the coefficients of the next block.
    fn block(&mut self, coefficients: &[i32], kernel: impl BlockKernels);
}

/// Keeps all coefficients.
pub(crate) struct Kept<'a>(pub &'a mut [i32]);

impl Sink for Kept<'_> {
    #[inline(always)]
    fn block(&mut self, coefficients: &[i32], _: impl BlockKernels) {
        let (own, rest) = std::mem::take(&mut self.0).split_at_mut(coefficients.len());
        own.copy_from_slice(coefficients);
        self.0 = rest;
    }
}

/// Quantises at once.
pub(crate) struct Quantized<'a> {
    pub plan: &'a Plan,
    pub symbols: &'a mut [i32],
}

impl Sink for Quantized<'_> {
    #[inline(always)]
    fn block(&mut self, coefficients: &[i32], kernel: impl BlockKernels) {
        let Plan { active, quantizers, .. } = self.plan;
        let (own, rest) = std::mem::take(&mut self.symbols).split_at_mut(active.len());
        kernel.quantize(coefficients, active, quantizers, own);
        self.symbols = rest;
    }
}

/// Integer feature values (channels last) to coefficients, block by block, for a range of block rows.
pub(crate) fn forward(
    profile: &Profile,
    grid: &Grid,
    rows: Range<usize>,
    values: &[i16],
    mut sink: impl Sink,
    scratch: &mut TransformScratch,
    kernels: Kernels,
) {
    scratch.resize(profile.bands(), grid.channels);
    with_blocks!(kernels, kernel => forward_blocks(profile, grid, rows, values, &mut sink, scratch, kernel));
}

#[inline(always)]
fn forward_blocks(
    profile: &Profile,
    grid: &Grid,
    rows: Range<usize>,
    values: &[i16],
    sink: &mut impl Sink,
    scratch: &mut TransformScratch,
    kernel: impl BlockKernels,
) {
    let blocks = Blocks::new(grid, profile.block());
    let (channels, bands) = (grid.channels, profile.bands());
    let dct = dct_pair(profile);
    let TransformScratch { block, other, coefficients, .. } = scratch;
    for index in rows.start * blocks.columns..rows.end * blocks.columns {
        blocks.pixels(
            grid,
            index / blocks.columns,
            index % blocks.columns,
            #[inline(always)]
            |pixel, line, column, _| {
                let value = &values[(line * grid.width + column) * channels..][..channels];
                block[pixel * channels..][..channels].copy_from_slice(value);
            },
        );
        if bands > 1 {
            kernel.block_dct(block, channels, dct, other);
        }
        if profile.matrices.is_empty() {
            for (coefficient, &value) in coefficients.iter_mut().zip(block.iter()) {
                *coefficient = i32::from(value) << COEFFICIENT_BITS;
            }
        } else {
            // In order: what a matrix writes beyond its row, the next one writes again.
            for (band, &matrix) in profile.band_matrix.iter().enumerate() {
                let pair = &profile.matrices[usize::from(matrix)];
                let (values, out) = (&block[band * channels..], &mut coefficients[band * channels..]);
                kernel.forward_matrix(values, channels, pair, pair.forward_shift - COEFFICIENT_BITS, out);
            }
        }
        sink.block(&coefficients[..bands * channels], kernel);
    }
}

/// Symbols (active channels of each block) of a strip of blocks back to integer feature values, clipped to the fitted
/// range. `values` are those of the strip's [`area`](Blocks::area), row by row.
pub(crate) fn inverse(
    profile: &Profile,
    grid: &Grid,
    strip: &Strip,
    plan: &Plan,
    (symbols, values): (&[i32], &mut [i16]),
    scratch: &mut TransformScratch,
    kernels: Kernels,
) {
    scratch.resize(profile.bands(), grid.channels);
    with_blocks!(kernels, kernel => inverse_blocks(profile, grid, strip, plan, (symbols, values), scratch, kernel));
}

#[inline(always)]
fn inverse_blocks(
    profile: &Profile,
    grid: &Grid,
    strip: &Strip,
    plan: &Plan,
    (symbols, values): (&[i32], &mut [i16]),
    scratch: &mut TransformScratch,
    kernel: impl BlockKernels,
) {
    let blocks = Blocks::new(grid, profile.block());
    let (channels, bands) = (grid.channels, profile.bands());
    let dct = dct_pair(profile);
    let count = plan.active.len();
    let TransformScratch { block, other, sums, coefficients, low, high } = scratch;
    low.clear();
    low.extend(profile.range.iter().map(|range| range[0]));
    high.clear();
    high.extend(profile.range.iter().map(|range| range[1]));
    let (lines, columns) = blocks.area(grid, strip);
    for (number, (row, column)) in strip.places().enumerate() {
        coefficients[..bands * channels].copy_from_slice(&profile.means);
        let symbols = &symbols[number * count..][..count];
        kernel.dequantize(symbols, &plan.active, &plan.dequantizers, coefficients);
        for (value, &coefficient) in block.iter_mut().zip(coefficients.iter()) {
            *value = round_shift(coefficient, COEFFICIENT_BITS).clamp(-32_768, 32_767) as i16;
        }
        if !profile.matrices.is_empty() {
            for (band, &matrix) in profile.band_matrix.iter().enumerate() {
                let values = &mut block[band * channels..];
                kernel.inverse_matrix(values, channels, &profile.matrices[usize::from(matrix)], sums);
                for (value, &sum) in values[..channels].iter_mut().zip(sums.iter()) {
                    *value = sum.clamp(-32_768, 32_767) as i16;
                }
            }
        }
        if bands > 1 {
            kernel.block_idct(block, channels, dct, other);
        }
        blocks.pixels(
            grid,
            row,
            column,
            #[inline(always)]
            |pixel, line, column, inside| {
                if inside {
                    let from = &block[pixel * channels..][..channels];
                    let position = (line - lines.start) * columns.len() + column - columns.start;
                    let to = &mut values[position * channels..][..channels];
                    for (((value, &x), &low), &high) in to.iter_mut().zip(from).zip(&low[..]).zip(&high[..]) {
                        *value = x.max(low).min(high);
                    }
                }
            },
        );
    }
}
