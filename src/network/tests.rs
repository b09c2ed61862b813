use proptest::prelude::*;

use super::*;
use crate::error::Error;
use crate::kernels::Kernels;
use crate::limits::Limits;
use crate::network::run::Runner;
use crate::{Backend, Level};

/// Numbers that are the same on every machine.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 33
    }

    fn below(&mut self, limit: usize) -> usize {
        self.next() as usize % limit
    }

    fn integer(&mut self, most: i32) -> i32 {
        self.next() as i32 % (2 * most + 1) - most
    }

    fn float(&mut self) -> f32 {
        self.integer(1000) as f32 / 1000.0
    }
}

/// The window of a convolution.
#[derive(Debug, Clone, Copy)]
struct Window {
    kernel: [usize; 2],
    stride: usize,
    depthwise: bool,
    transposed: Option<usize>,
}

fn integer_convolution(random: &mut Random, inputs: usize, outputs: usize, window: Window) -> Op<Integer> {
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
            quality: some(1 << 12, if outputs % 2 == 0 { outputs } else { 0 }),
            multiplier: some(32_767, outputs).into_iter().map(|m| m.unsigned_abs() as i16).collect(),
            shifts: [7, 13],
            slope: some(32_767, if outputs % 3 == 0 { outputs } else { 0 }).into_iter().map(|s| s as i16).collect(),
            low: -20_000,
            high: 30_000,
        },
        packed: Vec::new(),
    };
    convolution.packed = Integer::pack(&convolution, outputs);
    Op::Convolution(Box::new(convolution))
}

fn float_convolution(random: &mut Random, inputs: usize, outputs: usize, window: Window) -> Op<Float> {
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
            quality: some(if outputs % 2 == 0 { outputs } else { 0 }),
            slope: some(if outputs % 3 == 0 { outputs } else { 0 }),
            low: -50.0,
            high: f32::MAX,
        },
        packed: Vec::new(),
    };
    convolution.packed = Float::pack(&convolution, outputs);
    Op::Convolution(Box::new(convolution))
}

fn node<A: Arithmetic>(op: Op<A>, input: usize, add: Option<usize>, channels: usize) -> Node<A> {
    Node { op, input, add, channels }
}

fn kernels() -> Vec<Kernels> {
    let levels = Level::ALL.into_iter().filter(|level| level.is_available());
    levels.map(|level| Kernels::of(&Backend::Simd(level)).unwrap()).collect()
}

fn run<A: Arithmetic>(
    network: &Network<A>,
    input: &[A::Value],
    size: (usize, usize),
    kernels: Kernels,
) -> Vec<A::Value> {
    let (height, width) = network.output_size(size).unwrap();
    let mut output = vec![A::Value::default(); height * width * network.outputs()];
    let mut runner = Runner::default();
    // Twice: buffers of the first run must not matter to the second.
    for quality in [900, 17] {
        runner.run(network, (input, size), quality, &mut output, kernels).unwrap();
    }
    output
}

/// What networks are made of in practice: an inverted bottleneck with a residual, and what changes sizes.
fn integer_network(random: &mut Random) -> Network<Integer> {
    let (inputs, hidden, outputs) = (1 + random.below(40), 1 + random.below(100), 1 + random.below(70));
    let side = [1, 3, 5][random.below(3)];
    let point = Window { kernel: [1, 1], stride: 1, depthwise: false, transposed: None };
    let around = Window { kernel: [side, 3], depthwise: true, ..point };
    let stride = Window { kernel: [3, side], stride: 1 + random.below(3), ..point };
    let nodes = vec![
        node(integer_convolution(random, inputs, hidden, point), 0, None, hidden),
        node(integer_convolution(random, hidden, hidden, around), 1, None, hidden),
        node(integer_convolution(random, hidden, inputs, point), 2, Some(0), inputs),
        node(Op::Unshuffle(2), 3, None, 4 * inputs),
        node(integer_convolution(random, 4 * inputs, outputs, stride), 4, None, outputs),
        node(integer_convolution(random, outputs, 4 * outputs, point), 5, None, 4 * outputs),
        node(Op::Shuffle(2), 6, None, outputs),
    ];
    Network::new(inputs, nodes, &Limits::default()).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 1 } else { 24 }))]

    #[test]
    fn integer_networks_are_equal_on_every_level(seed: u64, height in 3usize..12, width in 3usize..12) {
        let random = &mut Random(seed);
        let network = integer_network(random);
        let input: Vec<i16> = (0..height * width * network.inputs).map(|_| random.integer(32_767) as i16).collect();
        let expected = run(&network, &input, (height, width), Kernels::Portable);
        prop_assert!(expected.iter().any(|&value| value != expected[0]) || expected.len() < 2);
        for kernels in kernels() {
            prop_assert_eq!(&run(&network, &input, (height, width), kernels), &expected, "{:?}", kernels);
        }
    }

    #[test]
    fn float_networks_agree_within_rounding(seed: u64, height in 2usize..10, width in 2usize..10) {
        let random = &mut Random(seed);
        let (inputs, outputs) = (1 + random.below(40), 1 + random.below(70));
        let grow = Window { kernel: [5, 5], stride: 2, depthwise: false, transposed: Some(1) };
        let around = Window { kernel: [3, 3], stride: 1, depthwise: true, transposed: None };
        let normalisation = |random: &mut Random, inverse| Op::Normalisation(Box::new(Normalisation {
            inverse,
            beta: (0..outputs).map(|_| 0.5 + random.float().abs()).collect(),
            gamma: (0..outputs * outputs).map(|_| random.float().abs() / outputs as f32).collect(),
        }));
        let nodes = vec![
            node(float_convolution(random, inputs, outputs, grow), 0, None, outputs),
            node(normalisation(random, false), 1, None, outputs),
            node(float_convolution(random, outputs, outputs, around), 2, Some(1), outputs),
            node(normalisation(random, true), 3, None, outputs),
        ];
        let network = Network::new(inputs, nodes, &Limits::default()).unwrap();
        let input: Vec<f32> = (0..height * width * inputs).map(|_| random.float()).collect();
        let expected = run(&network, &input, (height, width), Kernels::Portable);
        let scale = expected.iter().fold(1.0f32, |most, value| most.max(value.abs()));
        for kernels in kernels() {
            for (a, b) in run(&network, &input, (height, width), kernels).iter().zip(&expected) {
                prop_assert!((a - b).abs() <= 1e-5 * scale, "{} and {} at {:?}", a, b, kernels);
            }
        }
    }
}

/// Sums as written on paper: two inputs, a 1x1 and a transposed window.
#[test]
fn small_networks_give_what_paper_gives() {
    let convolution = Convolution::<Integer> {
        kernel: [1, 1],
        stride: 1,
        padding: [0, 0],
        depthwise: false,
        transposed: None,
        weights: vec![3, -5],
        constants: IntegerConstants {
            bias: vec![100],
            quality: vec![2],
            multiplier: vec![16_384],
            shifts: [1, 14],
            slope: vec![8_192],
            low: -1_000,
            high: 1_000,
        },
        packed: Vec::new(),
    };
    let nodes = vec![node(Op::Convolution(Box::new(convolution)), 0, None, 1)];
    let network = Network::new(2, nodes, &Limits::default()).unwrap();
    let mut output = [0; 3];
    let input = [10, 20, 100, 300, 1000, 2];
    Runner::default().run(&network, (&input, (1, 3)), 7, &mut output, Kernels::Portable).unwrap();
    // (30 - 100 + 114) / 2 = 22; (300 - 1500 + 114) / 2 = -543, a quarter of it; (3000 - 10 + 114) / 2, bounded.
    assert_eq!(output, [22, -136, 1_000]);

    let transposed = Convolution::<Float> {
        kernel: [1, 3],
        stride: 2,
        padding: [0, 1],
        depthwise: false,
        transposed: Some(1),
        weights: vec![1.0, 10.0, 100.0],
        constants: FloatConstants { bias: vec![0.5], low: f32::MIN, high: f32::MAX, ..Default::default() },
        packed: Vec::new(),
    };
    assert_eq!([transposed.side(2, 1), transposed.side(1, 0)], [Some(4), Some(2)]);
    let nodes = vec![node(Op::Convolution(Box::new(transposed)), 0, None, 1)];
    let network = Network::new(1, nodes, &Limits::default()).unwrap();
    let mut output = [0.0; 8];
    Runner::default().run(&network, (&[1.0, 2.0], (1, 2)), 0, &mut output, Kernels::Portable).unwrap();
    assert_eq!(output, [10.5, 102.5, 20.5, 200.5, 0.5, 0.5, 0.5, 0.5]);
}

#[test]
fn shuffles_undo_each_other() {
    let mut random = Random(5);
    let nodes = vec![node(Op::Unshuffle(3), 0, None, 18), node(Op::Shuffle(3), 1, None, 2)];
    let network = Network::<Integer>::new(2, nodes, &Limits::default()).unwrap();
    let input: Vec<i16> = (0..2 * 9 * 6).map(|_| random.integer(30_000) as i16).collect();
    assert_eq!(run(&network, &input, (9, 6), Kernels::Portable), input);
}

#[test]
fn networks_that_could_overflow_or_do_not_fit_are_refused() {
    let point = Window { kernel: [1, 1], stride: 1, depthwise: false, transposed: None };
    let refuse = |inputs: usize, edit: &dyn Fn(&mut Node<Integer>)| {
        let mut node = node(integer_convolution(&mut Random(3), inputs, 4, point), 0, None, 4);
        edit(&mut node);
        Network::new(inputs, vec![node], &Limits::default()).unwrap_err()
    };
    let window = |edit: &'static dyn Fn(&mut Convolution<Integer>)| {
        move |node: &mut Node<Integer>| {
            if let Op::Convolution(convolution) = &mut node.op {
                edit(convolution);
            }
        }
    };
    let loud: &dyn Fn(&mut Convolution<Integer>) = &|convolution| convolution.weights.fill(127);
    assert!(refuse(600, &window(loud)).to_string().contains("overflow"));
    for edit in [
        &|convolution: &mut Convolution<Integer>| convolution.constants.bias[1] = i32::MIN,
        &|convolution: &mut Convolution<Integer>| convolution.constants.quality[1] = i32::MAX,
        &|convolution: &mut Convolution<Integer>| convolution.constants.shifts[1] = 31,
        &|convolution: &mut Convolution<Integer>| convolution.constants.multiplier[0] = -1,
        &|convolution: &mut Convolution<Integer>| convolution.kernel = [1, 2],
        &|convolution: &mut Convolution<Integer>| convolution.padding = [1, 0],
        &|convolution: &mut Convolution<Integer>| convolution.stride = 0,
        &|convolution: &mut Convolution<Integer>| convolution.transposed = Some(0),
        &|convolution: &mut Convolution<Integer>| convolution.depthwise = true,
    ] as [&'static dyn Fn(&mut Convolution<Integer>); 9]
    {
        assert!(matches!(refuse(8, &window(edit)), Error::Corrupt { .. }));
    }
    assert!(matches!(refuse(8, &|node| node.input = 1), Error::Corrupt { .. }));
    assert!(matches!(refuse(8, &|node| node.add = Some(0)), Error::Corrupt { .. }));
    assert!(matches!(refuse(8, &|node| node.op = Op::Shuffle(2)), Error::Corrupt { .. }));
}
