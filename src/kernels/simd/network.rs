//! Convolutions on vectors: lanes are output channels, four positions at a time share the weights they meet.

use fearless_simd::prelude::*;

use super::isa::Isa;
use crate::kernels::portable::{Convolution, Output, Plane};
use crate::network::{Arithmetic, Float, Integer};

/// Outputs computed at a time: the packed weights of each input are padded to a multiple of it.
const OUTPUTS: usize = 32;
/// Positions that share what is read of the weights.
const POSITIONS: usize = 4;
/// Most vectors in `OUTPUTS` lanes: those of four.
const VECTORS: usize = OUTPUTS / 4;
/// Longest run of values read for no input at all.
const ZEROS: usize = 64;

/// How vectors multiply, for one kind of arithmetic.
pub(crate) trait Vectors: Arithmetic {
    /// Values whose products are added at a time.
    const GROUP: usize;
    type Lanes<S: Isa>: Copy;

    fn zero<S: Isa>(simd: S) -> Self::Lanes<S>;
    fn lanes<S: Isa>() -> usize;
    /// A group of values (fewer at the end of a row) in every lane.
    fn splat<S: Isa>(simd: S, group: &[Self::Value]) -> Self::Lanes<S>;
    fn load<S: Isa>(simd: S, weights: &[Self::Packed]) -> Self::Lanes<S>;
    fn add_products<S: Isa>(simd: S, sums: Self::Lanes<S>, weights: Self::Lanes<S>, values: Self::Lanes<S>)
    -> Self::Lanes<S>;
    fn store<S: Isa>(sums: Self::Lanes<S>, out: &mut [Self::Sum]);
    fn add_bias(sum: Self::Sum, bias: Self::Sum) -> Self::Sum;
    /// A group of weights as one.
    fn group(weights: impl Iterator<Item = Self::Weight>) -> Self::Packed;
    /// Adds the products of two rows of values with two rows of weights, channel by channel, to sums.
    fn add_pairs<S: Isa>(
        simd: S,
        values: [&[Self::Value]; 2],
        weights: &[Self::Packed],
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
    fn splat<S: Isa>(simd: S, group: &[i16]) -> S::i32s {
        let odd = if group.len() > 1 { group[1] } else { 0 };
        S::i32s::splat(simd, pair(group[0], odd))
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
    fn add_bias(sum: i32, bias: i32) -> i32 {
        sum + bias
    }

    fn group(mut weights: impl Iterator<Item = i8>) -> i32 {
        let mut next = || i16::from(weights.next().unwrap_or(0));
        let even = next();
        pair(even, next())
    }

    #[inline(always)]
    fn add_pairs<S: Isa>(simd: S, [even, odd]: [&[i16]; 2], weights: &[i32], sums: &mut [i32]) {
        let (lanes, half) = (S::i16s::LEN, S::i32s::LEN);
        let whole = even.len() / lanes * lanes;
        for at in (0..whole).step_by(lanes) {
            let even = S::i16s::from_slice(simd, &even[at..at + lanes]);
            let odd = S::i16s::from_slice(simd, &odd[at..at + lanes]);
            for (at, values) in [(at, even.zip_low(odd)), (at + half, even.zip_high(odd))] {
                let weights = S::i32s::from_slice(simd, &weights[at..at + half]);
                let sum = S::i32s::from_slice(simd, &sums[at..at + half]);
                (sum + simd.pair_products(values, weights.bitcast())).store_slice(&mut sums[at..at + half]);
            }
        }
        for at in whole..even.len() {
            let (low, high) = (weights[at] as i16, (weights[at] >> 16) as i16);
            sums[at] += i32::from(even[at]) * i32::from(low) + i32::from(odd[at]) * i32::from(high);
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
    fn splat<S: Isa>(simd: S, group: &[f32]) -> S::f32s {
        S::f32s::splat(simd, group[0])
    }

    #[inline(always)]
    fn load<S: Isa>(simd: S, weights: &[f32]) -> S::f32s {
        S::f32s::from_slice(simd, weights)
    }

    #[inline(always)]
    fn add_products<S: Isa>(_: S, sums: S::f32s, weights: S::f32s, values: S::f32s) -> S::f32s {
        weights.mul_add(values, sums)
    }

    #[inline(always)]
    fn store<S: Isa>(sums: S::f32s, out: &mut [f32]) {
        sums.store_slice(out);
    }

    #[inline(always)]
    fn add_bias(sum: f32, bias: f32) -> f32 {
        sum + bias
    }

    fn group(mut weights: impl Iterator<Item = f32>) -> f32 {
        weights.next().unwrap_or(0.0)
    }

    #[inline(always)]
    fn add_pairs<S: Isa>(_: S, [values, _]: [&[f32]; 2], weights: &[f32], sums: &mut [f32]) {
        for ((sum, &value), &weight) in sums.iter_mut().zip(values).zip(weights) {
            *sum += value * weight;
        }
    }
}

#[inline(always)]
fn pair(even: i16, odd: i16) -> i32 {
    i32::from(even as u16) | i32::from(odd) << 16
}

/// The weights of a convolution as [`convolve`] reads them: for each place of the window and each group of inputs, those
/// of all outputs, padded; depthwise, for each group of places those of all channels.
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
    for place in 0..places {
        for input in (0..inputs).step_by(A::GROUP) {
            let group = input..(input + A::GROUP).min(inputs);
            for output in 0..outputs.next_multiple_of(OUTPUTS) {
                let in_range = if output < outputs { group.clone() } else { 0..0 };
                packed.push(A::group(in_range.map(|input| weight(output, place * inputs + input))));
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
) {
    if convolution.depthwise {
        depthwise::<A, S>(simd, convolution, input, bias, output);
    } else {
        dense::<A, S>(simd, convolution, input, bias, output);
    }
}

/// The values that a place of the window meets, for each of some positions: none where it is outside.
#[inline(always)]
fn met<'a, A: Arithmetic>(
    convolution: &Convolution<A>,
    input: &Plane<'a, A::Value>,
    width: usize,
    (first, count): (usize, usize),
    (row, column): (usize, usize),
) -> [Option<&'a [A::Value]>; POSITIONS] {
    let mut met = [None; POSITIONS];
    for (number, met) in met[..count].iter_mut().enumerate() {
        let position = first + number;
        let y = convolution.source(position / width, row, 0, input.height);
        let x = convolution.source(position % width, column, 1, input.width);
        if let (Some(y), Some(x)) = (y, x) {
            *met = Some(input.at(y, x));
        }
    }
    met
}

#[inline(always)]
fn dense<A: Vectors, S: Isa>(
    simd: S,
    convolution: &Convolution<A>,
    input: Plane<'_, A::Value>,
    bias: &[A::Sum],
    output: Output<'_, A::Value>,
) {
    let [rows, columns] = convolution.kernel;
    let (inputs, outputs) = (input.channels, output.channels);
    let width = outputs.next_multiple_of(OUTPUTS);
    let groups = inputs.div_ceil(A::GROUP);
    let lanes = A::lanes::<S>();
    let vectors = OUTPUTS / lanes;
    let count = output.height * output.width;
    let zeros = [A::Value::default(); ZEROS];
    for first in (0..count).step_by(POSITIONS) {
        let number = POSITIONS.min(count - first);
        for start in (0..outputs).step_by(OUTPUTS) {
            let mut sums = [[A::zero(simd); VECTORS]; POSITIONS];
            for place in 0..rows * columns {
                let met = met(convolution, &input, output.width, (first, number), (place / columns, place % columns));
                if met.iter().all(Option::is_none) {
                    continue;
                }
                let weights = &convolution.packed[place * groups * width + start..];
                // In parts, because a position that meets nothing reads zeros.
                for part in (0..inputs).step_by(ZEROS) {
                    let length = ZEROS.min(inputs - part);
                    let mut values = [&zeros[..length]; POSITIONS];
                    for (values, met) in values.iter_mut().zip(met) {
                        if let Some(met) = met {
                            *values = &met[part..part + length];
                        }
                    }
                    let weights = &weights[part / A::GROUP * width..];
                    // As many vectors at a time as their sums leave registers for.
                    for vector in (0..vectors).step_by(2) {
                        products::<A, S>(simd, values, &weights[vector * lanes..], width, &mut sums, vector);
                    }
                }
            }
            let outputs = OUTPUTS.min(outputs - start);
            for (position, sums) in sums[..number].iter().enumerate() {
                let mut plain = [A::Sum::default(); OUTPUTS];
                for (sums, plain) in sums.iter().zip(plain.chunks_exact_mut(lanes)) {
                    A::store::<S>(*sums, plain);
                }
                let at = (first + position) * output.channels + start;
                let add = output.add.map(|add| &add[at..at + outputs]);
                let values = &mut output.values[at..at + outputs];
                finish(convolution, &plain, bias, start, add, values);
            }
        }
    }
}

/// Adds the products of a part of the inputs of some positions to two vectors of sums of each.
#[inline(always)]
fn products<A: Vectors, S: Isa>(
    simd: S,
    values: [&[A::Value]; POSITIONS],
    weights: &[A::Packed],
    width: usize,
    sums: &mut [[A::Lanes<S>; VECTORS]; POSITIONS],
    vector: usize,
) {
    let lanes = A::lanes::<S>();
    let length = values[0].len();
    let mut own = [[A::zero(simd); 2]; POSITIONS];
    for position in 0..POSITIONS {
        own[position] = [sums[position][vector], sums[position][vector + 1]];
    }
    let [a, b, c, d] = values;
    let (a, b, c, d) = (&a[..length], &b[..length], &c[..length], &d[..length]);
    let mut at = 0;
    let mut row = 0;
    while at < length {
        let end = (at + A::GROUP).min(length);
        let both = &weights[row..row + 2 * lanes];
        let (low, high) = (A::load(simd, &both[..lanes]), A::load(simd, &both[lanes..]));
        let groups = [&a[at..end], &b[at..end], &c[at..end], &d[at..end]];
        for position in 0..POSITIONS {
            let value = A::splat(simd, groups[position]);
            own[position][0] = A::add_products(simd, own[position][0], low, value);
            own[position][1] = A::add_products(simd, own[position][1], high, value);
        }
        at += A::GROUP;
        row += width;
    }
    for position in 0..POSITIONS {
        sums[position][vector] = own[position][0];
        sums[position][vector + 1] = own[position][1];
    }
}

/// Bias and what follows the sums of the output channels from `start` on.
#[inline(always)]
fn finish<A: Vectors>(
    convolution: &Convolution<A>,
    sums: &[A::Sum; OUTPUTS],
    bias: &[A::Sum],
    start: usize,
    add: Option<&[A::Value]>,
    values: &mut [A::Value],
) {
    let bias = &bias[start..start + values.len()];
    let sums = &sums[..values.len()];
    match add {
        Some(add) => {
            for (number, value) in values.iter_mut().enumerate() {
                let sum = A::add_bias(sums[number], bias[number]);
                *value = A::finish(sum, &convolution.constants, start + number, add[number]);
            }
        }
        None => {
            for (number, value) in values.iter_mut().enumerate() {
                let sum = A::add_bias(sums[number], bias[number]);
                *value = A::finish(sum, &convolution.constants, start + number, A::Value::default());
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
    let [rows, columns] = convolution.kernel;
    let places = rows * columns;
    let channels = output.channels;
    let zeros = [A::Value::default(); CHANNELS];
    for position in 0..output.height * output.width {
        for start in (0..channels).step_by(CHANNELS) {
            let count = CHANNELS.min(channels - start);
            let mut sums = [A::Sum::default(); CHANNELS];
            sums[..count].copy_from_slice(&bias[start..start + count]);
            for place in (0..places).step_by(A::GROUP) {
                let mut values = [&zeros[..count]; 2];
                for number in 0..A::GROUP.min(places - place) {
                    let (row, column) = ((place + number) / columns, (place + number) % columns);
                    let [met, ..] = met(convolution, &input, output.width, (position, 1), (row, column));
                    if let Some(met) = met {
                        values[number] = &met[start..start + count];
                    }
                }
                let weights = &convolution.packed[place / A::GROUP * channels + start..][..count];
                A::add_pairs(simd, values, weights, &mut sums[..count]);
            }
            let at = position * channels + start;
            let values = &mut output.values[at..at + count];
            for (number, value) in values.iter_mut().enumerate() {
                let add = output.add.map_or(A::Value::default(), |add| add[at + number]);
                *value = A::finish(sums[number], &convolution.constants, start + number, add);
            }
        }
    }
}
