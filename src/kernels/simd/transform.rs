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
    if channels == 1 {
        for (integer, &value) in integers.iter_mut().zip(values) {
            *integer = to_int(value.to_f32(), scale);
        }
        return;
    }
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
    if channels == 1 {
        for (value, &integer) in values.iter_mut().zip(integers) {
            *value = T::from_f32(f32::from(integer) * scale);
        }
        return;
    }
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
                let mut rows: [i16x8<S>; SQUARE] = std::array::from_fn(
                    #[inline(always)]
                    |i| i16x8::from_slice(simd, &from[(y + i) * from_stride + x..][..SQUARE]),
                );
                // Three rounds of pairing row i with row i + 4.
                for _ in 0..3 {
                    rows = std::array::from_fn(
                        #[inline(always)]
                        |i| {
                            let (a, b) = (rows[i / 2], rows[i / 2 + SQUARE / 2]);
                            if i % 2 == 0 { a.zip_low(b) } else { a.zip_high(b) }
                        },
                    );
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

/// Values that buffers have beyond a block, for whole vectors to be read and written at its end.
pub(crate) const PADDING: usize = 32;

/// Both passes of a block DCT, or of its inverse if `transpose`; see
/// [`portable::block_dct`](crate::kernels::portable::block_dct). `block` and `scratch` have
/// [`PADDING`] more values.
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
    let across = Pass { width: columns * channels, groups: 1, matrix: row_matrix, shift: row_shift, transpose };
    across.run(simd, block, scratch);
    let along = Pass { width: channels, groups: rows, matrix: column_matrix, shift: column_shift, transpose };
    along.run(simd, scratch, block);
}

/// For every group of vectors of `width` values, as many as the matrix has rows: as many sums of them.
struct Pass<'a> {
    width: usize,
    groups: usize,
    matrix: &'a [i16],
    shift: u32,
    transpose: bool,
}

impl Pass<'_> {
    #[inline(always)]
    fn run<S: Isa>(&self, simd: S, input: &[i16], output: &mut [i16]) {
        let Pass { width, groups, matrix, shift, transpose } = *self;
        let lanes = S::i16s::LEN;
        let length = matrix.len().isqrt();
        let pairs = length.div_ceil(2);
        // Pairs of factors, as the two halves of an i32.
        let mut factors = [0i32; MAX_SIDE * MAX_SIDE / 2 + MAX_SIDE / 2];
        for to in 0..length {
            for (pair, factor) in factors[to * pairs..][..pairs].iter_mut().enumerate() {
                let (even, odd) = (2 * pair, 2 * pair + 1);
                let at = if transpose {
                    [even * length + to, odd * length + to]
                } else {
                    [to * length + even, to * length + odd]
                };
                *factor = pair_of(matrix[at[0]], if odd < length { matrix[at[1]] } else { 0 });
            }
        }
        let zero = S::i16s::splat(simd, 0);
        let mut zipped = [(zero, zero); MAX_SIDE / 2];
        for group in (0..groups).map(|group| group * length * width) {
            // From the last vector to the first: what it writes beyond its row is written again by the
            // first vector of the next row.
            for at in (0..width).step_by(lanes).rev() {
                for (pair, zipped) in zipped[..pairs].iter_mut().enumerate() {
                    let row = group + 2 * pair * width + at;
                    let even = S::i16s::from_slice(simd, &input[row..row + lanes]);
                    let odd = match input.get(row + width..row + width + lanes) {
                        Some(odd) if 2 * pair + 1 < length => S::i16s::from_slice(simd, odd),
                        _ => zero,
                    };
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
                    let row = group + to * width + at;
                    sums.store_slice(&mut output[row..row + lanes]);
                }
            }
        }
    }
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

/// As [`portable::channel_matrix`](crate::kernels::portable::channel_matrix); `pairs` is from
/// [`pack_pairs`]. `input` and `output` begin with the `channels` values and have [`PADDING`] more.
#[inline(always)]
pub(crate) fn channel_matrix<S: Isa>(
    simd: S,
    input: &[i16],
    channels: usize,
    pairs: &[i32],
    shift: u32,
    output: &mut [i32],
) {
    let width = channels.next_multiple_of(OUTPUTS);
    let input = &input[..channels.next_multiple_of(2)];
    for first in (0..width).step_by(4 * OUTPUTS) {
        let (pairs, output) = (&pairs[first..], &mut output[first..]);
        match (width - first) / OUTPUTS {
            1 => outputs::<S, 1>(simd, input, pairs, width, shift, output),
            2 => outputs::<S, 2>(simd, input, pairs, width, shift, output),
            3 => outputs::<S, 3>(simd, input, pairs, width, shift, output),
            _ => outputs::<S, 4>(simd, input, pairs, width, shift, output),
        }
    }
}

/// 16 N outputs of a channel matrix. (An odd last input has a partner, whose factors are 0.)
#[inline(always)]
fn outputs<S: Isa, const N: usize>(
    simd: S,
    input: &[i16],
    pairs: &[i32],
    width: usize,
    shift: u32,
    output: &mut [i32],
) {
    let lanes = S::i32s::LEN;
    let vectors = OUTPUTS / lanes;
    let mut sums = [[S::i32s::splat(simd, 0); OUTPUTS / 4]; N];
    for (&[even, odd], row) in input.as_chunks::<2>().0.iter().zip(pairs.chunks(width)) {
        let value: S::i16s = S::i32s::splat(simd, pair_of(even, odd)).bitcast();
        let row = &row[..N * OUTPUTS];
        for n in 0..N {
            for v in 0..vectors {
                let at = n * OUTPUTS + v * lanes;
                let factors: S::i16s = S::i32s::from_slice(simd, &row[at..at + lanes]).bitcast();
                sums[n][v] += simd.pair_products(factors, value);
            }
        }
    }
    for (out, sums) in output[..N * OUTPUTS].chunks_exact_mut(OUTPUTS).zip(&sums) {
        for (out, &sum) in out.chunks_exact_mut(lanes).zip(sums) {
            round_shift::<S>(sum, shift).store_slice(out);
        }
    }
}
