use proptest::prelude::*;

use super::samples::{
    Random, Window, float_convolution, integer_convolution, integer_network, integer_network_of, node,
};
use super::*;
use crate::error::Error;
use crate::kernels::Kernels;
use crate::limits::Limits;
use crate::network::run::Runner;
use crate::{Backend, Level};

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
        let simple = random.below(2) == 1;
        let normalisation = |random: &mut Random, inverse| Op::Normalisation(Box::new(Normalisation::new(
            inverse,
            simple,
            (0..outputs).map(|_| 0.5 + random.float().abs()).collect(),
            (0..outputs * outputs).map(|_| random.float().abs() / outputs as f32).collect(),
        )));
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

/// Every form of normalisation against its formula, with more channels than are summed at a time.
#[test]
fn normalisation_is_its_formula() {
    let mut random = Random(9);
    for (inverse, simple) in [(false, false), (false, true), (true, false), (true, true)] {
        for channels in [1, 2, 31, 32, 33, 70] {
            let beta: Vec<f32> = (0..channels).map(|_| 0.5 + random.float().abs()).collect();
            let gamma: Vec<f32> = (0..channels * channels).map(|_| random.float().abs()).collect();
            let op = Op::Normalisation(Box::new(Normalisation::new(inverse, simple, beta.clone(), gamma.clone())));
            let network = Network::new(channels, vec![node(op, 0, None, channels)], &Limits::default()).unwrap();
            let read = Network::<Float>::read(channels, &network.describe(), &network.store(), &Limits::default());
            assert_eq!(read.unwrap(), network);
            let input: Vec<f32> = (0..3 * channels).map(|_| 4.0 * random.float()).collect();
            let output = run(&network, &input, (1, 3), Kernels::Portable);
            for kernels in kernels() {
                assert_eq!(run(&network, &input, (1, 3), kernels), output);
            }
            for (position, values) in input.chunks(channels).enumerate() {
                for (channel, &x) in values.iter().enumerate() {
                    let weights = &gamma[channel * channels..][..channels];
                    let power = |value: f32| if simple { value.abs() } else { value * value };
                    let norm = values.iter().zip(weights).fold(beta[channel], |sum, (&x, &w)| sum + w * power(x));
                    let norm = if simple { norm } else { norm.sqrt() };
                    let expected = if inverse { x * norm } else { x / norm };
                    assert_eq!(output[position * channels + channel], expected);
                }
            }
        }
    }
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

#[test]
fn a_latent_of_another_shape_needs_a_synthesis_network() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors/waves.profile.safetensors");
    let mut profile = crate::Profile::load(path).unwrap();
    // (Reading a profile would refuse it: made by hand.)
    let channels = profile.layout.channels();
    profile.analysis = Some(Analysis::Integer(integer_network_of(&mut Random(1), [channels, 4, channels], (1, 2))));
    let profile = std::sync::Arc::new(profile);
    let feature = ndarray::Array3::<f32>::from_shape_fn((channels, 9, 11), |(c, y, x)| (c * y + x) as f32 * 0.1);
    let error = crate::encode(&feature, Some(&profile), crate::Quality::Scale(4.0)).unwrap_err();
    assert!(matches!(error, Error::InvalidInput(_)), "{error}");
    // A stream of this profile for such a shape, made from one of its own: the hash is that of the file.
    let golden = include_bytes!("../../tests/vectors/2-waves.stream");
    let error = crate::decode(golden, Some(&profile)).unwrap_err();
    assert!(matches!(error, Error::Corrupt { .. }), "{error}");
}
