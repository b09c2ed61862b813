//! Networks for tests.

use super::*;
use crate::limits::Limits;

/// Numbers that are the same on every machine.
pub(crate) struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 33
    }

    pub fn below(&mut self, limit: usize) -> usize {
        self.next() as usize % limit
    }

    pub fn integer(&mut self, most: i32) -> i32 {
        self.next() as i32 % (2 * most + 1) - most
    }

    pub fn float(&mut self) -> f32 {
        self.integer(1000) as f32 / 1000.0
    }
}

/// The window of a convolution.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Window {
    pub kernel: [usize; 2],
    pub stride: usize,
    pub depthwise: bool,
    pub transposed: Option<usize>,
}

pub(crate) fn integer_convolution(random: &mut Random, inputs: usize, outputs: usize, window: Window) -> Op<Integer> {
    let Window { kernel: [rows, columns], stride, depthwise, .. } = window;
    let count = rows * columns * if depthwise { 1 } else { inputs } * outputs;
    let mut some = |most: i32, count: usize| -> Vec<i32> { (0..count).map(|_| random.integer(most)).collect() };
    // Large, but never too large for i32.
    let largest = (60_000 * outputs / count).clamp(1, 127) as i32;
    let mut convolution = Convolution {
        kernel: [rows, columns],
        stride,
        padding: [rows / 2, columns / 2],
        depthwise,
        transposed: None,
        weights: some(largest, count).into_iter().map(|weight| weight as i8).collect(),
        constants: IntegerConstants {
            bias: some(1 << 20, outputs),
            quality: some(1 << 12, if outputs.is_multiple_of(2) { outputs } else { 0 }),
            multiplier: some(32_767, outputs).into_iter().map(|m| m.unsigned_abs() as i16).collect(),
            shifts: [7, 13],
            slope: some(32_767, if outputs.is_multiple_of(3) { outputs } else { 0 })
                .into_iter()
                .map(|s| s as i16)
                .collect(),
            low: -20_000,
            high: 30_000,
        },
        packed: Vec::new(),
    };
    convolution.packed = Integer::pack(&convolution, outputs);
    Op::Convolution(Box::new(convolution))
}

pub(crate) fn float_convolution(random: &mut Random, inputs: usize, outputs: usize, window: Window) -> Op<Float> {
    let Window { kernel: [rows, columns], stride, depthwise, transposed } = window;
    let each = if depthwise { 1 } else { inputs };
    let mut some = |count: usize| -> Vec<f32> { (0..count).map(|_| random.float()).collect() };
    let mut convolution = Convolution {
        kernel: [rows, columns],
        stride,
        padding: [rows / 2, columns / 2],
        depthwise,
        transposed,
        weights: some(rows * columns * each * outputs),
        constants: FloatConstants {
            bias: some(outputs),
            quality: some(if outputs.is_multiple_of(2) { outputs } else { 0 }),
            slope: some(if outputs.is_multiple_of(3) { outputs } else { 0 }),
            low: -50.0,
            high: f32::MAX,
        },
        packed: Vec::new(),
    };
    convolution.packed = Float::pack(&convolution, outputs);
    Op::Convolution(Box::new(convolution))
}

pub(crate) fn node<A: Arithmetic>(op: Op<A>, input: usize, add: Option<usize>, channels: usize) -> Node<A> {
    Node { op, input, add, channels }
}

/// What networks are made of in practice: an inverted bottleneck with a residual, and what changes sizes.
pub(crate) fn integer_network(random: &mut Random) -> Network<Integer> {
    let channels = [1 + random.below(40), 1 + random.below(100), 1 + random.below(70)];
    let (side, stride) = ([1, 3, 5][random.below(3)], 1 + random.below(3));
    integer_network_of(random, channels, (side, stride))
}

/// The same with these inputs, channels in between, and outputs; a side of its windows and the stride of the last one.
pub(crate) fn integer_network_of(
    random: &mut Random,
    [inputs, hidden, outputs]: [usize; 3],
    (side, stride): (usize, usize),
) -> Network<Integer> {
    let point = Window { kernel: [1, 1], stride: 1, depthwise: false, transposed: None };
    let around = Window { kernel: [side, 3], depthwise: true, ..point };
    let strided = Window { kernel: [3, side], stride, ..point };
    let nodes = vec![
        node(integer_convolution(random, inputs, hidden, point), 0, None, hidden),
        node(integer_convolution(random, hidden, hidden, around), 1, None, hidden),
        node(integer_convolution(random, hidden, inputs, point), 2, Some(0), inputs),
        node(Op::Unshuffle(2), 3, None, 4 * inputs),
        node(integer_convolution(random, 4 * inputs, outputs, strided), 4, None, outputs),
        node(integer_convolution(random, outputs, 4 * outputs, point), 5, None, 4 * outputs),
        node(Op::Shuffle(2), 6, None, outputs),
    ];
    Network::new(inputs, nodes, &Limits::default()).unwrap()
}

/// What grows: a transposed window with normalisation, a residual, a transposed depthwise window.
#[cfg(feature = "gpu")]
pub(crate) fn float_network_of(
    random: &mut Random,
    [inputs, hidden, outputs]: [usize; 3],
    (side, stride): (usize, usize),
) -> Network<Float> {
    let point = Window { kernel: [1, 1], stride: 1, depthwise: false, transposed: None };
    let grow = Window { kernel: [side, side + 1], stride, transposed: Some(stride - 1), ..point };
    let around = Window { kernel: [3, 3], depthwise: true, ..point };
    let each = Window { kernel: [2, 3], stride: 2, depthwise: true, transposed: Some(1) };
    let shrink = Window { kernel: [3, 3], stride: 2, ..point };
    let normalisation = |random: &mut Random, inverse| {
        // One of each kind.
        let simple = inverse;
        let beta = (0..hidden).map(|_| 0.5 + random.float().abs()).collect();
        let gamma = (0..hidden * hidden).map(|_| random.float().abs() / hidden as f32).collect();
        Op::Normalisation(Box::new(Normalisation::new(inverse, simple, beta, gamma)))
    };
    let nodes = vec![
        node(float_convolution(random, inputs, hidden, grow), 0, None, hidden),
        node(normalisation(random, false), 1, None, hidden),
        node(float_convolution(random, hidden, hidden, around), 2, Some(1), hidden),
        node(normalisation(random, true), 3, None, hidden),
        node(float_convolution(random, hidden, hidden, each), 4, None, hidden),
        node(float_convolution(random, hidden, 4 * outputs, shrink), 5, None, 4 * outputs),
        node(Op::Shuffle(2), 6, None, outputs),
        node(Op::Unshuffle(2), 7, None, 4 * outputs),
        node(Op::Shuffle(2), 8, None, outputs),
    ];
    Network::new(inputs, nodes, &Limits::default()).unwrap()
}
