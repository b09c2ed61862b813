//! Convolutions on vectors: lanes are output channels, four positions at a time share the weights they meet.

use fearless_simd::prelude::*;

use super::isa::Isa;
use crate::kernels::portable::{Convolution, Output, Plane};
use crate::network::{Arithmetic, Float, Integer, MAX_SIDE};

/// Outputs computed at a time: the packed weights of each input are padded to a multiple of it.
const OUTPUTS: usize = 32;
/// Positions that share what is read of the weights.
pub(crate) const POSITIONS: usize = 4;
/// Groups that are gathered at a time: about 16 KiB, half of a small first cache.
const GATHERED: usize = 1024;
/// Most places of a window.
const PLACES: usize = MAX_SIDE * MAX_SIDE;
/// The offset of a place that is outside.
const OUTSIDE: usize = usize::MAX;

/// How vectors multiply, for one kind of arithmetic.
pub(crate) trait Vectors: Arithmetic {
    /// Values whose products are added at a time.
    const GROUP: usize;
    type Lanes<S: Isa>: Copy;

    fn zero<S: Isa>(simd: S) -> Self::Lanes<S>;
    fn lanes<S: Isa>() -> usize;
    /// A group of values (fewer at the end, or none) as one.
    fn group_values(group: &[Self::Value]) -> Self::Packed;
    /// A group of values in every lane.
    fn splat<S: Isa>(simd: S, group: Self::Packed) -> Self::Lanes<S>;
    fn load<S: Isa>(simd: S, weights: &[Self::Packed]) -> Self::Lanes<S>;
    fn add_products<S: Isa>(
        simd: S,
        sums: Self::Lanes<S>,
        weights: Self::Lanes<S>,
        values: Self::Lanes<S>,
    ) -> Self::Lanes<S>;
    fn store<S: Isa>(sums: Self::Lanes<S>, out: &mut [Self::Sum]);
    fn add(sum: Self::Sum, bias: Self::Sum) -> Self::Sum;
    /// A group of weights as one.
    fn group(weights: impl Iterator<Item = Self::Weight>) -> Self::Packed;
    /// Adds the products of a window to the sums of some channels. `offsets` are where the values of each place begin in
    /// `values`, or [`OUTSIDE`]; the weights of a group of places are `stride` from those of the next.
    fn add_window<S: Isa>(
        simd: S,
        values: &[Self::Value],
        offsets: &[usize],
        weights: (&[Self::Packed], usize),
        sums: &mut [Self::Sum],
    );
}

impl Vectors for Integer {
    const GROUP: usize = 2;
    type Lanes<S: Isa> = S::i32s;

    #[inline(always)]
    fn zero<S: Isa>(simd: S) -> S::i32s {
        S::i32s::splat(simd, 0)
    }

    #[inline(always)]
    fn lanes<S: Isa>() -> usize {
        S::i32s::LEN
    }

    #[inline(always)]
    fn group_values(group: &[i16]) -> i32 {
        match *group {
            [even, odd] => pair(even, odd),
            [even] => pair(even, 0),
            _ => 0,
        }
    }

    #[inline(always)]
    fn splat<S: Isa>(simd: S, group: i32) -> S::i32s {
        S::i32s::splat(simd, group)
    }

    #[inline(always)]
    fn load<S: Isa>(simd: S, weights: &[i32]) -> S::i32s {
        S::i32s::from_slice(simd, weights)
    }

    #[inline(always)]
    fn add_products<S: Isa>(simd: S, sums: S::i32s, weights: S::i32s, values: S::i32s) -> S::i32s {
        sums + simd.pair_products(weights.bitcast(), values.bitcast())
    }

    #[inline(always)]
    fn store<S: Isa>(sums: S::i32s, out: &mut [i32]) {
        sums.store_slice(out);
    }

    #[inline(always)]
    fn add(sum: i32, bias: i32) -> i32 {
        sum + bias
    }

    fn group(mut weights: impl Iterator<Item = i8>) -> i32 {
        let mut next = || i16::from(weights.next().unwrap_or(0));
        let even = next();
        pair(even, next())
    }

    #[inline(always)]
    fn add_window<S: Isa>(
        simd: S,
        values: &[i16],
        offsets: &[usize],
        (weights, stride): (&[i32], usize),
        sums: &mut [i32],
    ) {
        let (lanes, half) = (S::i16s::LEN, S::i32s::LEN);
        let whole = sums.len() / lanes * lanes;
        for at in (0..whole).step_by(lanes) {
            let zero = S::i16s::splat(simd, 0);
            let mut low = S::i32s::from_slice(simd, &sums[at..at + half]);
            let mut high = S::i32s::from_slice(simd, &sums[at + half..at + lanes]);
            for (pair, places) in offsets.chunks(2).enumerate() {
                let mut both = [zero; 2];
                for number in 0..places.len() {
                    if places[number] != OUTSIDE {
                        both[number] = S::i16s::from_slice(simd, &values[places[number] + at..][..lanes]);
                    }
                }
                let weights = &weights[pair * stride + at..][..lanes];
                let first = S::i32s::from_slice(simd, &weights[..half]);
                let second = S::i32s::from_slice(simd, &weights[half..]);
                low += simd.pair_products(both[0].zip_low(both[1]), first.bitcast());
                high += simd.pair_products(both[0].zip_high(both[1]), second.bitcast());
            }
            low.store_slice(&mut sums[at..at + half]);
            high.store_slice(&mut sums[at + half..at + lanes]);
        }
        for at in whole..sums.len() {
            for (place, &offset) in offsets.iter().enumerate() {
                if offset != OUTSIDE {
                    let pair = weights[place / 2 * stride + at];
                    let weight = if place % 2 == 0 { pair as i16 } else { (pair >> 16) as i16 };
                    sums[at] += i32::from(values[offset + at]) * i32::from(weight);
                }
            }
        }
    }
}

impl Vectors for Float {
    const GROUP: usize = 1;
    type Lanes<S: Isa> = S::f32s;

    #[inline(always)]
    fn zero<S: Isa>(simd: S) -> S::f32s {
        S::f32s::splat(simd, 0.0)
    }

    #[inline(always)]
    fn lanes<S: Isa>() -> usize {
        S::f32s::LEN
    }

    #[inline(always)]
    fn group_values(group: &[f32]) -> f32 {
        group.first().copied().unwrap_or(0.0)
    }

    #[inline(always)]
    fn splat<S: Isa>(simd: S, group: f32) -> S::f32s {
        S::f32s::splat(simd, group)
    }

    #[inline(always)]
    fn load<S: Isa>(simd: S, weights: &[f32]) -> S::f32s {
        S::f32s::from_slice(simd, weights)
    }

    #[inline(always)]
    fn add_products<S: Isa>(_: S, sums: S::f32s, weights: S::f32s, values: S::f32s) -> S::f32s {
        if S::FUSED { weights.mul_add(values, sums) } else { sums + weights * values }
    }

    #[inline(always)]
    fn store<S: Isa>(sums: S::f32s, out: &mut [f32]) {
        sums.store_slice(out);
    }

    #[inline(always)]
    fn add(sum: f32, bias: f32) -> f32 {
        sum + bias
    }

    fn group(mut weights: impl Iterator<Item = f32>) -> f32 {
        weights.next().unwrap_or(0.0)
    }

    #[inline(always)]
    fn add_window<S: Isa>(
        _: S,
        values: &[f32],
        offsets: &[usize],
        (weights, stride): (&[f32], usize),
        sums: &mut [f32],
    ) {
        for (place, &offset) in offsets.iter().enumerate() {
            if offset != OUTSIDE {
                let (values, weights) = (&values[offset..][..sums.len()], &weights[place * stride..][..sums.len()]);
                for ((sum, &value), &weight) in sums.iter_mut().zip(values).zip(weights) {
                    *sum += value * weight;
                }
            }
        }
    }
}

#[inline(always)]
fn pair(even: i16, odd: i16) -> i32 {
    i32::from(even as u16) | i32::from(odd) << 16
}

/// The weights of a convolution as [`convolve`] reads them: for each block of outputs, each place of the window and each
/// group of inputs, those of the block, padded; depthwise, for each group of places those of all channels.
pub(crate) fn pack_convolution<A: Vectors>(convolution: &Convolution<A>, outputs: usize) -> Vec<A::Packed> {
    let [rows, columns] = convolution.kernel;
    let places = rows * columns;
    let window = convolution.weights.len() / outputs;
    let weight = |output: usize, at: usize| convolution.weights[output * window + at];
    let mut packed = Vec::new();
    if convolution.depthwise {
        for place in (0..places).step_by(A::GROUP) {
            let group = place..(place + A::GROUP).min(places);
            packed.extend((0..outputs).map(|output| A::group(group.clone().map(|place| weight(output, place)))));
        }
        return packed;
    }
    let inputs = window / places;
    for start in (0..outputs).step_by(OUTPUTS) {
        for place in 0..places {
            for input in (0..inputs).step_by(A::GROUP) {
                let group = input..(input + A::GROUP).min(inputs);
                for output in start..start + OUTPUTS {
                    let in_range = if output < outputs { group.clone() } else { 0..0 };
                    packed.push(A::group(in_range.map(|input| weight(output, place * inputs + input))));
                }
            }
        }
    }
    packed
}

/// As [`portable::convolve`](crate::kernels::portable::convolve); float sums in another order.
#[inline(always)]
pub(crate) fn convolve<A: Vectors, S: Isa>(
    simd: S,
    convolution: &Convolution<A>,
    input: Plane<'_, A::Value>,
    bias: &[A::Sum],
    output: Output<'_, A::Value>,
    columns: &mut Vec<[A::Packed; POSITIONS]>,
) {
    if convolution.depthwise {
        depthwise::<A, S>(simd, convolution, input, bias, output);
    } else {
        dense::<A, S>(simd, convolution, input, bias, output, columns);
    }
}

/// Where the values begin that each place of the window meets, for one position of the result.
#[inline(always)]
fn window<A: Arithmetic>(
    convolution: &Convolution<A>,
    input: &Plane<'_, A::Value>,
    (y, x): (usize, usize),
    offsets: &mut [usize; PLACES],
) {
    let [rows, columns] = convolution.kernel;
    for row in 0..rows {
        let y = convolution.source(y, row, 0, input.height);
        for column in 0..columns {
            let x = convolution.source(x, column, 1, input.width);
            offsets[row * columns + column] = match (y, x) {
                (Some(y), Some(x)) => (y * input.width + x) * input.channels,
                _ => OUTSIDE,
            };
        }
    }
}

/// What a window meets, in groups, for some positions side by side: 0 where it meets nothing.
#[inline(always)]
fn gather<A: Vectors>(
    input: &Plane<'_, A::Value>,
    offsets: &[usize],
    position: usize,
    columns: &mut [[A::Packed; POSITIONS]],
) {
    let groups = input.channels.div_ceil(A::GROUP);
    let nothing = A::group_values(&[]);
    for (&offset, columns) in offsets.iter().zip(columns.chunks_exact_mut(groups)) {
        if offset == OUTSIDE {
            columns.iter_mut().for_each(|column| column[position] = nothing);
            continue;
        }
        let values = &input.values[offset..][..input.channels];
        for (column, group) in columns.iter_mut().zip(values.chunks(A::GROUP)) {
            column[position] = A::group_values(group);
        }
    }
}

#[inline(always)]
fn dense<A: Vectors, S: Isa>(
    simd: S,
    convolution: &Convolution<A>,
    input: Plane<'_, A::Value>,
    bias: &[A::Sum],
    output: Output<'_, A::Value>,
    columns: &mut Vec<[A::Packed; POSITIONS]>,
) {
    let places = convolution.kernel[0] * convolution.kernel[1];
    let outputs = output.channels;
    let depth = places * input.channels.div_ceil(A::GROUP);
    let lanes = A::lanes::<S>();
    let mut offsets = [OUTSIDE; PLACES];
    let count = output.height * output.width;
    // What some positions meet is gathered once, and then meets the weights of each block of outputs, which stay in a
    // cache meanwhile.
    let batch = (GATHERED / depth).max(1);
    columns.resize(batch * depth, [A::group_values(&[]); POSITIONS]);
    let (mut y, mut x) = (0, 0);
    for first in (0..count).step_by(batch * POSITIONS) {
        let number = (batch * POSITIONS).min(count - first);
        for position in 0..number {
            window(convolution, &input, (y, x), &mut offsets);
            let columns = &mut columns[position / POSITIONS * depth..][..depth];
            gather::<A>(&input, &offsets[..places], position % POSITIONS, columns);
            x += 1;
            if x == output.width {
                (y, x) = (y + 1, 0);
            }
        }
        for (block, weights) in convolution.packed.chunks_exact(depth * OUTPUTS).enumerate() {
            let start = block * OUTPUTS;
            let outputs = OUTPUTS.min(outputs - start);
            for (group, columns) in columns.chunks_exact(depth).enumerate().take(number.div_ceil(POSITIONS)) {
                let mut sums = [[A::Sum::default(); OUTPUTS]; POSITIONS];
                for at in (0..OUTPUTS).step_by(2 * lanes) {
                    let mut own = [[A::zero(simd); 2]; POSITIONS];
                    for (column, weights) in columns.iter().zip(weights.as_chunks::<OUTPUTS>().0) {
                        let low = A::load(simd, &weights[at..at + lanes]);
                        let high = A::load(simd, &weights[at + lanes..at + 2 * lanes]);
                        for position in 0..POSITIONS {
                            let value = A::splat(simd, column[position]);
                            own[position][0] = A::add_products(simd, own[position][0], low, value);
                            own[position][1] = A::add_products(simd, own[position][1], high, value);
                        }
                    }
                    for position in 0..POSITIONS {
                        A::store::<S>(own[position][0], &mut sums[position][at..at + lanes]);
                        A::store::<S>(own[position][1], &mut sums[position][at + lanes..at + 2 * lanes]);
                    }
                }
                for position in 0..POSITIONS.min(number - group * POSITIONS) {
                    let at = (first + group * POSITIONS + position) * output.channels + start;
                    let sums = &mut sums[position][..outputs];
                    for (sum, &bias) in sums.iter_mut().zip(&bias[start..start + outputs]) {
                        *sum = A::add(*sum, bias);
                    }
                    let add = output.add.map(|add| &add[at..at + outputs]);
                    A::finish_row(sums, &convolution.constants, start, add, &mut output.values[at..at + outputs]);
                }
            }
        }
    }
}

/// Channels computed at a time.
const CHANNELS: usize = 64;

#[inline(always)]
fn depthwise<A: Vectors, S: Isa>(
    simd: S,
    convolution: &Convolution<A>,
    input: Plane<'_, A::Value>,
    bias: &[A::Sum],
    output: Output<'_, A::Value>,
) {
    let places = convolution.kernel[0] * convolution.kernel[1];
    let channels = output.channels;
    let mut offsets = [OUTSIDE; PLACES];
    let (mut y, mut x) = (0, 0);
    for position in 0..output.height * output.width {
        window(convolution, &input, (y, x), &mut offsets);
        x += 1;
        if x == output.width {
            (y, x) = (y + 1, 0);
        }
        for start in (0..channels).step_by(CHANNELS) {
            let count = CHANNELS.min(channels - start);
            let mut sums = [A::Sum::default(); CHANNELS];
            let sums = &mut sums[..count];
            sums.copy_from_slice(&bias[start..start + count]);
            let weights = (&convolution.packed[start..], channels);
            A::add_window(simd, &input.values[start..], &offsets[..places], weights, sums);
            let at = position * channels + start;
            let add = output.add.map(|add| &add[at..at + count]);
            A::finish_row(sums, &convolution.constants, start, add, &mut output.values[at..at + count]);
        }
    }
}
