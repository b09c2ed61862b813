//! The layers of analysis and synthesis networks.
//!
//! Values are planes of rows and columns, channels last.

use crate::network::Arithmetic;

/// A convolution, with what follows its sums.
#[derive(Debug, Clone, PartialEq)]
pub struct Convolution<A: Arithmetic> {
    /// Rows and columns of the window.
    pub kernel: [usize; 2],
    pub stride: usize,
    /// Rows and columns of zeros around the input.
    pub padding: [usize; 2],
    /// Each channel for itself.
    pub depthwise: bool,
    /// Transposed, with this many rows and columns added at the end of the output.
    pub transposed: Option<usize>,
    /// `[output][row][column][input]`; depthwise, without the last.
    pub weights: Vec<A::Weight>,
    pub constants: A::Constants,
    /// The weights as the SIMD kernels read them.
    pub packed: Vec<A::Packed>,
}

impl<A: Arithmetic> Convolution<A> {
    /// Length of one side of the result (axis 0: rows, 1: columns), if there is one.
    pub fn side(&self, input: usize, axis: usize) -> Option<usize> {
        let (kernel, padding) = (self.kernel[axis], 2 * self.padding[axis]);
        match self.transposed {
            Some(extra) => {
                let full = input.checked_sub(1)?.checked_mul(self.stride)?.checked_add(kernel + extra)?;
                full.checked_sub(padding)
            }
            None => Some(input.checked_add(padding)?.checked_sub(kernel)? / self.stride + 1),
        }
    }

    /// Which row (or column) of the input meets a row of the window, for a row of the result.
    #[inline(always)]
    pub fn source(&self, at: usize, tap: usize, axis: usize, size: usize) -> Option<usize> {
        let source = if self.transposed.is_some() {
            let place = (at + self.padding[axis]).checked_sub(tap)?;
            if !place.is_multiple_of(self.stride) {
                return None;
            }
            place / self.stride
        } else {
            (at * self.stride + tap).checked_sub(self.padding[axis])?
        };
        (source < size).then_some(source)
    }
}

/// Outputs of a normalisation that are summed at a time.
const OUTPUTS: usize = 32;

/// Generalised divisive normalisation: x over (or, inverse, times) the root of beta + gamma x^2, or, simple, over (times)
/// beta + gamma |x|.
#[derive(Debug, Clone, PartialEq)]
pub struct Normalisation {
    pub inverse: bool,
    pub simple: bool,
    pub beta: Vec<f32>,
    /// `[output][input]`
    pub gamma: Vec<f32>,
    /// beta, then gamma as `[input][output]`, outputs padded to a multiple of [`OUTPUTS`].
    packed: Vec<f32>,
}

impl Normalisation {
    /// A normalisation of as many channels as there are betas.
    pub fn new(inverse: bool, simple: bool, beta: Vec<f32>, gamma: Vec<f32>) -> Normalisation {
        let channels = beta.len();
        let width = channels.next_multiple_of(OUTPUTS);
        let mut packed = vec![0.0; if gamma.len() == channels * channels { (channels + 1) * width } else { 0 }];
        if let Some((first, rest)) = packed.split_at_mut_checked(width) {
            first[..channels].copy_from_slice(&beta);
            for (input, row) in rest.chunks_exact_mut(width.max(1)).enumerate() {
                for (output, value) in row[..channels].iter_mut().enumerate() {
                    *value = gamma[output * channels + input];
                }
            }
        }
        Normalisation { inverse, simple, beta, gamma, packed }
    }
}

/// A plane of values.
#[derive(Debug, Clone, Copy)]
pub struct Plane<'a, T> {
    pub height: usize,
    pub width: usize,
    pub channels: usize,
    pub values: &'a [T],
}

impl<'a, T> Plane<'a, T> {
    /// The channels of a position.
    #[inline(always)]
    pub fn at(&self, row: usize, column: usize) -> &'a [T] {
        &self.values[(row * self.width + column) * self.channels..][..self.channels]
    }
}

/// Where a layer's result goes, and what is added to it.
#[derive(Debug)]
pub struct Output<'a, T> {
    pub height: usize,
    pub width: usize,
    pub channels: usize,
    pub add: Option<&'a [T]>,
    pub values: &'a mut [T],
}

/// A convolution: sums in the order of the window's rows, its columns, and the input's channels.
pub fn convolve<A: Arithmetic>(
    convolution: &Convolution<A>,
    input: Plane<'_, A::Value>,
    bias: &[A::Sum],
    output: Output<'_, A::Value>,
) {
    let Convolution { kernel: [rows, columns], depthwise, .. } = *convolution;
    let inputs = if depthwise { 1 } else { input.channels };
    for (position, out) in output.values.chunks_exact_mut(output.channels).enumerate() {
        let (y, x) = (position / output.width, position % output.width);
        for (channel, value) in out.iter_mut().enumerate() {
            let mut sum = bias[channel];
            for row in 0..rows {
                let Some(y) = convolution.source(y, row, 0, input.height) else { continue };
                for column in 0..columns {
                    let Some(x) = convolution.source(x, column, 1, input.width) else { continue };
                    let first = ((channel * rows + row) * columns + column) * inputs;
                    let values = input.at(y, x);
                    let values = if depthwise { &values[channel..=channel] } else { values };
                    for (&value, &weight) in values.iter().zip(&convolution.weights[first..first + inputs]) {
                        sum = A::add_product(sum, value, weight);
                    }
                }
            }
            let add = output.add.map_or(A::Value::default(), |add| add[position * output.channels + channel]);
            *value = A::finish(sum, &convolution.constants, channel, add);
        }
    }
}

/// Channels to pixels: channel `(c factor + i) factor + j` of a position becomes channel c of row i, column j of a square.
pub fn shuffle<T: Copy>(input: Plane<'_, T>, factor: usize, output: Output<'_, T>) {
    for (position, out) in output.values.chunks_exact_mut(output.channels).enumerate() {
        let (y, x) = (position / output.width, position % output.width);
        let from = input.at(y / factor, x / factor);
        let first = (y % factor) * factor + x % factor;
        for (channel, value) in out.iter_mut().enumerate() {
            *value = from[channel * factor * factor + first];
        }
    }
}

/// The reverse of [`shuffle`]; what lies beyond the input is 0.
pub fn unshuffle<T: Copy + Default>(input: Plane<'_, T>, factor: usize, output: Output<'_, T>) {
    for (position, out) in output.values.chunks_exact_mut(output.channels).enumerate() {
        let (y, x) = (position / output.width * factor, position % output.width * factor);
        for (number, value) in out.iter_mut().enumerate() {
            let (channel, place) = (number / (factor * factor), number % (factor * factor));
            let (y, x) = (y + place / factor, x + place % factor);
            let inside = y < input.height && x < input.width;
            *value = if inside { input.at(y, x)[channel] } else { T::default() };
        }
    }
}

/// Generalised divisive normalisation of every position: sums in the order of the input's channels.
#[inline(always)]
pub fn normalise(normalisation: &Normalisation, input: &[f32], output: &mut [f32]) {
    let Normalisation { inverse, simple, ref beta, ref packed, .. } = *normalisation;
    let channels = beta.len();
    let width = channels.next_multiple_of(OUTPUTS);
    let (beta, gamma) = packed.split_at(width);
    for (values, out) in input.chunks_exact(channels).zip(output.chunks_exact_mut(channels)) {
        for start in (0..channels).step_by(OUTPUTS) {
            let mut norms = [0.0; OUTPUTS];
            norms.copy_from_slice(&beta[start..start + OUTPUTS]);
            for (&value, row) in values.iter().zip(gamma.chunks_exact(width)) {
                let power = if simple { value.abs() } else { value * value };
                for (norm, &gamma) in norms.iter_mut().zip(&row[start..start + OUTPUTS]) {
                    *norm += gamma * power;
                }
            }
            if !simple {
                norms = norms.map(f32::sqrt);
            }
            for ((out, &x), norm) in out[start..].iter_mut().zip(&values[start..]).zip(norms) {
                *out = if inverse { x * norm } else { x / norm };
            }
        }
    }
}
