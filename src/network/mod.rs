//! Learned bottlenecks: a small analysis network on the device, a synthesis network on the server.
//!
//! ```text
//! encode:  feature -> integers -> analysis -> latent -> transform ...
//! decode:  ... inverse transform -> latent -> synthesis -> feature
//! ```
//!
//! A network is a list of nodes, each of which reads values that were made before it: it cannot loop. Value 0 is the
//! input, value n the output of node n - 1; the last value is the output. Values are planes of rows and columns,
//! channels last. Analysis runs in integers, so that every backend makes the same symbols; synthesis, and the analysis
//! of imported models, in f32.

mod check;
mod file;
mod run;
#[cfg(test)]
mod tests;

use crate::kernels::portable::{Convolution, Normalisation, Output, Plane, normalise, round_shift};
use crate::kernels::simd::{self, Isa, POSITIONS};

pub(crate) use file::Stored;
pub(crate) use run::{Runner, too_small};

/// Most nodes of a network.
pub(crate) const MAX_NODES: usize = 256;
/// Longest side of a kernel, largest stride and factor.
pub(crate) const MAX_SIDE: usize = 16;
/// Most output channels that are finished at a time.
const ROW: usize = 64;
/// Quality indices beyond which a network sees no difference.
pub(crate) const MAX_QUALITY: i16 = 128;

/// What the values of a network are, and how they are summed.
pub(crate) trait Arithmetic: Sized + Clone + std::fmt::Debug + PartialEq + 'static {
    type Value: Copy + Default + Send + Sync + std::fmt::Debug + PartialEq;
    type Weight: Copy + Send + Sync + std::fmt::Debug + PartialEq;
    /// What the SIMD kernels read for a weight, or for two.
    type Packed: Copy + Send + Sync + std::fmt::Debug + PartialEq;
    type Sum: Copy + Default + Send + Sync + std::fmt::Debug;
    /// Per output channel of a convolution.
    type Constants: Clone + Send + Sync + std::fmt::Debug + PartialEq;

    /// What the sum of each output channel begins with, at a quality index.
    fn bias(constants: &Self::Constants, quality: i16, bias: &mut Vec<Self::Sum>);
    /// One more product.
    fn add_product(sum: Self::Sum, value: Self::Value, weight: Self::Weight) -> Self::Sum;
    /// What follows a sum.
    fn finish(sum: Self::Sum, constants: &Self::Constants, channel: usize, add: Self::Value) -> Self::Value;
    /// A convolution or normalisation on vectors.
    fn on_vectors<S: Isa>(
        simd: S,
        convolution: &Convolution<Self>,
        input: Plane<'_, Self::Value>,
        bias: &[Self::Sum],
        output: Output<'_, Self::Value>,
        columns: &mut Vec<[Self::Packed; POSITIONS]>,
    );
    /// As [`finish`](Self::finish), for the output channels from `start` on.
    #[inline(always)]
    fn finish_row(
        sums: &[Self::Sum],
        constants: &Self::Constants,
        start: usize,
        add: Option<&[Self::Value]>,
        values: &mut [Self::Value],
    ) {
        for (number, value) in values.iter_mut().enumerate() {
            let add = add.map_or(Self::Value::default(), |add| add[number]);
            *value = Self::finish(sums[number], constants, start + number, add);
        }
    }
    /// The weights of a convolution of so many outputs, as `on_vectors` reads them.
    fn pack(convolution: &Convolution<Self>, outputs: usize) -> Vec<Self::Packed>;
    /// Normalisation, where there is one.
    fn normalise(normalisation: &Normalisation, input: &[Self::Value], output: &mut [Self::Value]);
}

/// i16 values, i8 weights, i32 sums.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Integer;

/// f32 throughout.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Float;

/// What precedes and follows the sums of an integer convolution, per output channel.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct IntegerConstants {
    pub bias: Vec<i32>,
    /// Times the quality index, added to the bias; empty if the node does not depend on it.
    pub quality: Vec<i32>,
    /// 15-bit multipliers; between the two shifts.
    pub multiplier: Vec<i16>,
    pub shifts: [u32; 2],
    /// What negative values are multiplied by, 15 fractional bits; empty: nothing.
    pub slope: Vec<i16>,
    pub low: i16,
    pub high: i16,
}

/// What precedes and follows the sums of a float convolution, per output channel.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct FloatConstants {
    pub bias: Vec<f32>,
    /// Times the quality in octaves, added to the bias; empty if the node does not depend on it.
    pub quality: Vec<f32>,
    /// What negative values are multiplied by; empty: nothing.
    pub slope: Vec<f32>,
    pub low: f32,
    pub high: f32,
}

/// A quality index as networks see it.
fn limited(quality: i16) -> i16 {
    quality.clamp(-MAX_QUALITY, MAX_QUALITY)
}

impl Arithmetic for Integer {
    type Value = i16;
    type Weight = i8;
    type Packed = i32;
    type Sum = i32;
    type Constants = IntegerConstants;

    fn bias(constants: &IntegerConstants, quality: i16, bias: &mut Vec<i32>) {
        bias.clear();
        bias.extend_from_slice(&constants.bias);
        for (bias, &by_quality) in bias.iter_mut().zip(&constants.quality) {
            *bias += by_quality * i32::from(limited(quality));
        }
    }

    #[inline(always)]
    fn add_product(sum: i32, value: i16, weight: i8) -> i32 {
        sum + i32::from(value) * i32::from(weight)
    }

    /// Two rounding shifts around a multiplication, a slope for negative values, an addition, bounds.
    #[inline(always)]
    fn finish(sum: i32, constants: &IntegerConstants, channel: usize, add: i16) -> i16 {
        let value = clamp16(round_shift(sum, constants.shifts[0])) * i32::from(constants.multiplier[channel]);
        let mut value = clamp16(round_shift(value, constants.shifts[1]));
        if !constants.slope.is_empty() {
            let sloped = round_shift(value * i32::from(constants.slope[channel]), 15);
            value = if value < 0 { sloped } else { value };
        }
        (value + i32::from(add)).clamp(i32::from(constants.low), i32::from(constants.high)) as i16
    }

    #[inline(always)]
    fn on_vectors<S: Isa>(
        simd: S,
        convolution: &Convolution<Integer>,
        input: Plane<'_, i16>,
        bias: &[i32],
        output: Output<'_, i16>,
        columns: &mut Vec<[i32; POSITIONS]>,
    ) {
        simd::convolve::<Integer, S>(simd, convolution, input, bias, output, columns);
    }

    /// Without a look at what is the same for all of them, so that it becomes vectors.
    #[inline(always)]
    fn finish_row(sums: &[i32], constants: &IntegerConstants, start: usize, add: Option<&[i16]>, values: &mut [i16]) {
        let count = values.len();
        let (sums, multipliers) = (&sums[..count], &constants.multiplier[start..start + count]);
        let [first, second] = constants.shifts;
        let (low, high) = (i32::from(constants.low), i32::from(constants.high));
        let mut row = [0i32; ROW];
        let row = &mut row[..count];
        for number in 0..count {
            let value = clamp16(round_shift(sums[number], first)) * i32::from(multipliers[number]);
            row[number] = clamp16(round_shift(value, second));
        }
        if !constants.slope.is_empty() {
            let slopes = &constants.slope[start..start + count];
            for number in 0..count {
                let sloped = round_shift(row[number] * i32::from(slopes[number]), 15);
                row[number] = if row[number] < 0 { sloped } else { row[number] };
            }
        }
        if let Some(add) = add {
            let add = &add[..count];
            for number in 0..count {
                row[number] += i32::from(add[number]);
            }
        }
        for number in 0..count {
            values[number] = row[number].clamp(low, high) as i16;
        }
    }

    fn pack(convolution: &Convolution<Integer>, outputs: usize) -> Vec<i32> {
        simd::pack_convolution::<Integer>(convolution, outputs)
    }

    fn normalise(_: &Normalisation, input: &[i16], output: &mut [i16]) {
        // Refused when a network is read.
        output.copy_from_slice(input);
    }
}

#[inline(always)]
fn clamp16(value: i32) -> i32 {
    value.clamp(-32_768, 32_767)
}

impl Arithmetic for Float {
    type Value = f32;
    type Weight = f32;
    type Packed = f32;
    type Sum = f32;
    type Constants = FloatConstants;

    fn bias(constants: &FloatConstants, quality: i16, bias: &mut Vec<f32>) {
        bias.clear();
        bias.extend_from_slice(&constants.bias);
        for (bias, &by_quality) in bias.iter_mut().zip(&constants.quality) {
            *bias += by_quality * (f32::from(limited(quality)) / 32.0);
        }
    }

    #[inline(always)]
    fn add_product(sum: f32, value: f32, weight: f32) -> f32 {
        sum + value * weight
    }

    /// A slope for negative values, an addition, bounds.
    #[inline(always)]
    fn finish(sum: f32, constants: &FloatConstants, channel: usize, add: f32) -> f32 {
        let mut value = sum;
        if !constants.slope.is_empty() {
            value = if value < 0.0 { value * constants.slope[channel] } else { value };
        }
        (value + add).max(constants.low).min(constants.high)
    }

    #[inline(always)]
    fn on_vectors<S: Isa>(
        simd: S,
        convolution: &Convolution<Float>,
        input: Plane<'_, f32>,
        bias: &[f32],
        output: Output<'_, f32>,
        columns: &mut Vec<[f32; POSITIONS]>,
    ) {
        simd::convolve::<Float, S>(simd, convolution, input, bias, output, columns);
    }

    fn pack(convolution: &Convolution<Float>, outputs: usize) -> Vec<f32> {
        simd::pack_convolution::<Float>(convolution, outputs)
    }

    fn normalise(normalisation: &Normalisation, input: &[f32], output: &mut [f32]) {
        normalise(normalisation, input, output);
    }
}

/// What a node does.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Op<A: Arithmetic> {
    /// Sums over a window, and what follows them; transposed ones only in f32.
    Convolution(Box<Convolution<A>>),
    /// Channels to pixels (pixel shuffle) by a factor.
    Shuffle(usize),
    /// Pixels to channels by a factor.
    Unshuffle(usize),
    /// Generalised divisive normalisation, or its inverse; only in f32.
    Normalisation(Box<Normalisation>),
}

/// One step of a network.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Node<A: Arithmetic> {
    pub op: Op<A>,
    /// The value that it reads.
    pub input: usize,
    /// A value that is added to its result (before it is clamped).
    pub add: Option<usize>,
    /// Channels of its result.
    pub channels: usize,
}

/// A network whose shapes fit and whose sums cannot overflow.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Network<A: Arithmetic> {
    pub inputs: usize,
    pub nodes: Vec<Node<A>>,
    /// After which node each value is not read again.
    pub last_use: Vec<usize>,
}

/// A network on the device.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Analysis {
    Integer(Network<Integer>),
    /// Imported: its symbols may differ between machines.
    Float(Network<Float>),
}

/// What a network costs at a size of its input.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cost {
    /// Multiply-accumulates.
    pub macs: u64,
    /// Weights, biases and all else that was learned.
    pub parameters: u64,
}

impl<A: Arithmetic> Network<A> {
    /// Channels of the output.
    pub fn outputs(&self) -> usize {
        self.nodes.last().map_or(self.inputs, |node| node.channels)
    }

    /// Channels of a value.
    pub fn channels(&self, value: usize) -> usize {
        if value == 0 { self.inputs } else { self.nodes[value - 1].channels }
    }

    /// Rows and columns of every value, the input first; `None` if one of them would have none or too many.
    pub fn sizes(&self, input: (usize, usize)) -> Option<Vec<(usize, usize)>> {
        let mut sizes = vec![input];
        for node in &self.nodes {
            let size = node.size(sizes[node.input])?;
            if node.add.is_some_and(|add| sizes[add] != size) {
                return None;
            }
            sizes.push(size);
        }
        Some(sizes)
    }

    /// Rows and columns of the output.
    pub fn output_size(&self, input: (usize, usize)) -> Option<(usize, usize)> {
        self.sizes(input).and_then(|sizes| sizes.last().copied())
    }

    /// Most bytes of values that live at the same time, for an input of this size.
    pub fn memory(&self, input: (usize, usize)) -> Option<u64> {
        let sizes = self.sizes(input)?;
        let bytes = |value: usize| {
            let (height, width) = sizes[value];
            [height, width, self.channels(value), size_of::<A::Value>()]
                .into_iter()
                .fold(1, |product: u64, size| product.saturating_mul(size as u64))
        };
        let live = |at: usize| (0..=at).filter(move |&value| self.last_use[value] >= at).map(bytes);
        let most = (0..self.nodes.len()).map(|at| live(at).fold(bytes(at + 1), u64::saturating_add));
        Some(most.max().unwrap_or(0))
    }

    /// What it costs for an input of this size.
    pub fn cost(&self, input: (usize, usize)) -> Cost {
        let Some(sizes) = self.sizes(input) else { return Cost::default() };
        let mut cost = Cost::default();
        for (number, node) in self.nodes.iter().enumerate() {
            let area = |value: usize| sizes[value].0 as u64 * sizes[value].1 as u64;
            match &node.op {
                Op::Convolution(convolution) => {
                    // A transposed one visits its input, not its output.
                    let visited = if convolution.transposed.is_some() { node.input } else { number + 1 };
                    cost.macs += convolution.weights.len() as u64 * area(visited);
                    cost.parameters += convolution.weights.len() as u64 + node.channels as u64;
                }
                Op::Normalisation(normalisation) => {
                    cost.macs += normalisation.gamma.len() as u64 * area(number + 1);
                    cost.parameters += (normalisation.gamma.len() + normalisation.beta.len()) as u64;
                }
                Op::Shuffle(_) | Op::Unshuffle(_) => {}
            }
        }
        cost
    }
}

impl<A: Arithmetic> Node<A> {
    /// Rows and columns of the result, from those of what it reads.
    fn size(&self, (height, width): (usize, usize)) -> Option<(usize, usize)> {
        let (height, width) = match &self.op {
            Op::Convolution(convolution) => (convolution.side(height, 0)?, convolution.side(width, 1)?),
            Op::Shuffle(factor) => (height.checked_mul(*factor)?, width.checked_mul(*factor)?),
            Op::Unshuffle(factor) => (height.div_ceil(*factor), width.div_ceil(*factor)),
            Op::Normalisation(_) => (height, width),
        };
        (height > 0 && width > 0).then_some((height, width))
    }
}

impl Analysis {
    /// Channels of the latent.
    pub fn outputs(&self) -> usize {
        match self {
            Analysis::Integer(network) => network.outputs(),
            Analysis::Float(network) => network.outputs(),
        }
    }

    /// Rows and columns of the latent.
    pub fn output_size(&self, input: (usize, usize)) -> Option<(usize, usize)> {
        match self {
            Analysis::Integer(network) => network.output_size(input),
            Analysis::Float(network) => network.output_size(input),
        }
    }

    /// As [`Network::memory`].
    pub fn memory(&self, input: (usize, usize)) -> Option<u64> {
        match self {
            Analysis::Integer(network) => network.memory(input),
            Analysis::Float(network) => network.memory(input),
        }
    }

    /// As [`Network::cost`].
    pub fn cost(&self, input: (usize, usize)) -> Cost {
        match self {
            Analysis::Integer(network) => network.cost(input),
            Analysis::Float(network) => network.cost(input),
        }
    }

    /// Whether what it makes depends on the quality.
    pub fn depends_on_quality(&self) -> bool {
        match self {
            Analysis::Integer(network) => network.nodes.iter().any(
                |node| matches!(&node.op, Op::Convolution(convolution) if !convolution.constants.quality.is_empty()),
            ),
            Analysis::Float(network) => network.nodes.iter().any(
                |node| matches!(&node.op, Op::Convolution(convolution) if !convolution.constants.quality.is_empty()),
            ),
        }
    }
}
