//! From floats to integers and back, with the transposition between planes and channels last; DCT
//! passes and channel matrices as sums of products of pairs.

use fearless_simd::i16x8;
use fearless_simd::prelude::*;

use super::isa::Isa;
use crate::kernels::portable::to_int;
use crate::tensor::Element;

/// Positions converted and transposed at a time.
const TILE: usize = 64;
/// Side of the squares that are transposed in registers.
const SQUARE: usize = 8;
/// Outputs of a channel matrix are computed this many at a time.
const OUTPUTS: usize = 16;
/// Longest side of a DCT block.
const MAX_SIDE: usize = crate::profile::MAX_BLOCK;

/// Values of a feature as integers, channels last: channel c of position p is `values[c * stride + p]`
/// and becomes `integers[p * channels + c]`. `tile` is kept between calls.
#[inline(always)]
pub(crate) fn feature_to_int<S: Isa, T: Element>(
    simd: S,
    values: &[T],
    stride: usize,
    channels: usize,
    scale: f32,
    integers: &mut [i16],
    tile: &mut Vec<i16>,
) {
    tile.resize(channels.next_multiple_of(SQUARE) * TILE, 0);
    for (number, out) in integers.chunks_mut((TILE * channels).max(1)).enumerate() {
        let (first, count) = (number * TILE, out.len() / channels);
        for (channel, row) in tile.chunks_exact_mut(TILE).enumerate().take(channels) {
            let from = &values[channel * stride + first..][..count];
            for (integer, &value) in row.iter_mut().zip(from) {
                *integer = to_int(value.to_f32(), scale);
            }
        }
        transpose(simd, tile, TILE, channels, count, out, channels);
    }
}

/// The reverse of [`feature_to_int`].
#[inline(always)]
pub(crate) fn int_to_feature<S: Isa, T: Element>(
    simd: S,
    integers: &[i16],
    channels: usize,
    scale: f32,
    values: &mut [T],
    stride: usize,
    tile: &mut Vec<i16>,
) {
    tile.resize(channels.next_multiple_of(SQUARE) * TILE, 0);
    for (number, from) in integers.chunks((TILE * channels).max(1)).enumerate() {
        let (first, count) = (number * TILE, from.len() / channels);
        transpose(simd, from, channels, count, channels, tile, TILE);
        for (channel, row) in tile.chunks_exact(TILE).enumerate().take(channels) {
            for (value, &integer) in values[channel * stride + first..][..count].iter_mut().zip(row) {
                *value = T::from_f32(f32::from(integer) * scale);
            }
        }
    }
}

/// `to[x * to_stride + y] = from[y * from_stride + x]` for x < `width`, y < `height`.
#[inline(always)]
fn transpose<S: Isa>(
    simd: S,
    from: &[i16],
    from_stride: usize,
    height: usize,
    width: usize,
    to: &mut [i16],
    to_stride: usize,
) {
    for y in (0..height).step_by(SQUARE) {
        for x in (0..width).step_by(SQUARE) {
            if y + SQUARE <= height && x + SQUARE <= width {
                let row = |i: usize| i16x8::from_slice(simd, &from[(y + i) * from_stride + x..][..SQUARE]);
                let mut rows: [i16x8<S>; SQUARE] = std::array::from_fn(row);
                // Three rounds of pairing row i with row i + 4.
                for _ in 0..3 {
                    rows = std::array::from_fn(|i| {
                        let (a, b) = (rows[i / 2], rows[i / 2 + SQUARE / 2]);
                        if i % 2 == 0 { a.zip_low(b) } else { a.zip_high(b) }
                    });
                }
                for (i, row) in rows.iter().enumerate() {
                    row.store_slice(&mut to[(x + i) * to_stride + y..][..SQUARE]);
                }
            } else {
                for y in y..(y + SQUARE).min(height) {
                    for x in x..(x + SQUARE).min(width) {
                        to[x * to_stride + y] = from[y * from_stride + x];
                    }
                }
            }
        }
    }
}

/// Both passes of a block DCT, or of its inverse if `transpose`; see
/// [`portable::block_dct`](crate::kernels::portable::block_dct).
#[inline(always)]
pub(crate) fn separable<S: Isa>(
    simd: S,
    block: &mut [i16],
    channels: usize,
    (row_matrix, row_shift): (&[i16], u32),
    (column_matrix, column_shift): (&[i16], u32),
    scratch: &mut [i16],
    transpose: bool,
) {
    let (rows, columns) = (row_matrix.len().isqrt(), column_matrix.len().isqrt());
    pass(simd, block, scratch, columns * channels, rows, row_matrix, row_shift, transpose);
    pass(simd, scratch, block, channels, columns, column_matrix, column_shift, transpose);
}

/// For every group of `length` vectors of `width` values: as many sums of them.
#[inline(always)]
#[expect(clippy::too_many_arguments, reason = "one call a pass")]
fn pass<S: Isa>(
    simd: S,
    input: &[i16],
    output: &mut [i16],
    width: usize,
    length: usize,
    matrix: &[i16],
    shift: u32,
    transpose: bool,
) {
    let lanes = S::i16s::LEN;
    let entry = |to: usize, from: usize| match (from < length, transpose) {
        (false, _) => 0,
        (true, false) => matrix[to * length + from],
        (true, true) => matrix[from * length + to],
    };
    let pairs = length.div_ceil(2);
    // Pairs of factors, as the two halves of an i32.
    let mut factors = [0i32; MAX_SIDE * MAX_SIDE / 2 + MAX_SIDE / 2];
    for to in 0..length {
        for pair in 0..pairs {
            factors[to * pairs + pair] = pair_of(entry(to, 2 * pair), entry(to, 2 * pair + 1));
        }
    }
    let zero = S::i16s::splat(simd, 0);
    let mut zipped = [(zero, zero); MAX_SIDE / 2];
    for (input, output) in input.chunks_exact(length * width).zip(output.chunks_exact_mut(length * width)) {
        for at in (0..width).step_by(lanes) {
            let count = lanes.min(width - at);
            let load = |row: usize| {
                if row >= length { zero } else { load_part::<S>(simd, &input[row * width + at..][..count]) }
            };
            for (pair, zipped) in zipped[..pairs].iter_mut().enumerate() {
                let (even, odd) = (load(2 * pair), load(2 * pair + 1));
                *zipped = (even.zip_low(odd), even.zip_high(odd));
            }
            for to in 0..length {
                let mut low = S::i32s::splat(simd, 0);
                let mut high = low;
                for (zipped, &factor) in zipped[..pairs].iter().zip(&factors[to * pairs..][..pairs]) {
                    let factor: S::i16s = S::i32s::splat(simd, factor).bitcast();
                    low += simd.pair_products(zipped.0, factor);
                    high += simd.pair_products(zipped.1, factor);
                }
                let sums = round_shift::<S>(low, shift).saturating_narrow(round_shift::<S>(high, shift));
                let out = &mut output[to * width + at..][..count];
                if count == lanes {
                    sums.store_slice(out);
                } else {
                    out.copy_from_slice(&sums.as_slice()[..count]);
                }
            }
        }
    }
}

#[inline(always)]
fn load_part<S: Isa>(simd: S, values: &[i16]) -> S::i16s {
    if values.len() == S::i16s::LEN {
        return S::i16s::from_slice(simd, values);
    }
    S::i16s::from_fn(simd, |i| if i < values.len() { values[i] } else { 0 })
}

#[inline(always)]
fn pair_of(low: i16, high: i16) -> i32 {
    i32::from(low as u16) | i32::from(high) << 16
}

/// As [`portable::round_shift`](crate::kernels::portable::round_shift).
#[inline(always)]
fn round_shift<S: Isa>(values: S::i32s, shift: u32) -> S::i32s {
    if shift == 0 {
        return values;
    }
    let halved = values >> (shift - 1);
    (halved >> 1) + (halved & 1)
}

/// A channel matrix (by columns) as pairs of columns, the pairs of each output side by side, rows
/// padded to a multiple of 16 outputs: what [`channel_matrix`] reads.
pub(crate) fn pack_pairs(matrix: &[i16], channels: usize) -> Vec<i32> {
    let width = channels.next_multiple_of(OUTPUTS);
    let mut pairs = vec![0; channels.div_ceil(2) * width];
    for (pair, out) in pairs.chunks_exact_mut(width.max(1)).enumerate() {
        for (output, out) in out.iter_mut().take(channels).enumerate() {
            let entry = |input: usize| if input < channels { matrix[input * channels + output] } else { 0 };
            *out = pair_of(entry(2 * pair), entry(2 * pair + 1));
        }
    }
    pairs
}

/// A channel matrix applied to each of a run of rows of `channels` values, as
/// [`portable::channel_matrix`](crate::kernels::portable::channel_matrix); `pairs` is from [`pack_pairs`].
#[inline(always)]
pub(crate) fn channel_matrix<S: Isa>(simd: S, input: &[i16], pairs: &[i32], shift: u32, output: &mut [i32]) {
    let channels = output.len();
    let width = channels.next_multiple_of(OUTPUTS);
    for first in (0..width).step_by(4 * OUTPUTS) {
        let blocks = (width - first).min(4 * OUTPUTS) / OUTPUTS;
        let out = &mut output[first..channels.min(first + 4 * OUTPUTS)];
        match blocks {
            1 => outputs::<S, 1>(simd, input, &pairs[first..], width, shift, out),
            2 => outputs::<S, 2>(simd, input, &pairs[first..], width, shift, out),
            3 => outputs::<S, 3>(simd, input, &pairs[first..], width, shift, out),
            _ => outputs::<S, 4>(simd, input, &pairs[first..], width, shift, out),
        }
    }
}

/// 16 N outputs of a channel matrix.
#[inline(always)]
fn outputs<S: Isa, const N: usize>(
    simd: S,
    input: &[i16],
    pairs: &[i32],
    width: usize,
    shift: u32,
    output: &mut [i32],
) {
    let vectors = OUTPUTS / S::i32s::LEN;
    let mut sums = [[S::i32s::splat(simd, 0); OUTPUTS / 4]; N];
    for (pair, row) in pairs.chunks(width).enumerate() {
        let value = pair_of(input[2 * pair], input.get(2 * pair + 1).copied().unwrap_or(0));
        let value: S::i16s = S::i32s::splat(simd, value).bitcast();
        let row = &row[..N * OUTPUTS];
        for (n, sums) in sums.iter_mut().enumerate() {
            for (v, sum) in sums[..vectors].iter_mut().enumerate() {
                let at = n * OUTPUTS + v * S::i32s::LEN;
                let factors: S::i16s = S::i32s::from_slice(simd, &row[at..at + S::i32s::LEN]).bitcast();
                *sum += simd.pair_products(factors, value);
            }
        }
    }
    let mut all = [[0i32; OUTPUTS]; N];
    for (all, sums) in all.iter_mut().zip(&sums) {
        for (out, &sum) in all.chunks_exact_mut(S::i32s::LEN).zip(sums) {
            round_shift::<S>(sum, shift).store_slice(out);
        }
    }
    output.copy_from_slice(&all.as_flattened()[..output.len()]);
}
