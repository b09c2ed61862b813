//! Proves that networks give on the GPU what the portable kernels give: integers exactly, floats within rounding; layer by
//! layer, and in profiles, whose streams are those of the CPU.

use std::path::Path;
use std::sync::Arc;

use half::f16;
use ndarray::{ArrayD, Dimension, IxDyn};

use crate::container::{Header, Layout, Mode, Reader};
use crate::error::Error;
use crate::kernels::Kernels;
use crate::kernels::gpu::network::{Layers, NetworkTable, Run};
use crate::kernels::gpu::recorder::{Pool, Recorder, words_of};
use crate::kernels::gpu::tests::device;
use crate::kernels::gpu::{Decoder, Device, Encoder, FeatureBuffer, Source};
use crate::network::samples::{Random, Window, float_network_of, integer_convolution, integer_network_of, node};
use crate::network::{Analysis, Network, Runner};
use crate::profile::Profile;
use crate::quality::Quality;
use crate::tensor::{Axes, Dtype, Feature};

/// Inputs, channels in between, outputs; a side and a stride of windows; rows and columns.
type Case = ([usize; 3], (usize, usize), (usize, usize));

/// A network on planes, here and there: the words of its outputs.
fn both<A: Layers>(
    device: &Device,
    network: &Network<A>,
    (planes, size): (usize, (usize, usize)),
    quality: i16,
    (values, word): (&[A::Value], impl Fn(A::Value) -> u32),
) -> (Vec<u32>, Vec<A::Value>) {
    let (height, width) = network.output_size(size).unwrap();
    let (from, to) = (size.0 * size.1 * network.inputs, height * width * network.outputs());
    let mut expected = vec![A::Value::default(); planes * to];
    for (values, out) in values.chunks_exact(from).zip(expected.chunks_exact_mut(to)) {
        Runner::default().run(network, (values, size), quality, out, Kernels::Portable).unwrap();
    }
    let made = device.guarded(|| {
        let table = NetworkTable::new(device, network)?;
        let input = device.upload("input", &values.iter().map(|&value| word(value)).collect::<Vec<_>>())?;
        let mut recorder = Recorder::new(device);
        let run = Run { device, network, table: &table, quality };
        let output = run.record(&mut recorder, &mut Pool::default(), (planes, size), &input)?;
        Ok(words_of(&recorder.finish(&[(&output, 4 * planes * to)])?[0]))
    });
    (made.unwrap(), expected)
}

#[test]
fn integer_networks_are_equal() {
    let Some(device) = device() else { return };
    let cases: [Case; 6] = [
        ([1, 1, 1], (1, 1), (3, 3)),
        ([3, 5, 2], (3, 2), (7, 4)),
        ([16, 32, 32], (5, 1), (8, 8)),
        ([17, 33, 31], (3, 3), (9, 5)),
        ([40, 70, 65], (5, 2), (6, 11)),
        ([33, 20, 48], (1, 2), (10, 3)),
    ];
    for (number, (channels, window, size)) in cases.into_iter().enumerate() {
        let random = &mut Random(number as u64);
        let network = integer_network_of(random, channels, window);
        let planes = 1 + number % 3;
        let mut values: Vec<i16> =
            (0..planes * size.0 * size.1 * network.inputs).map(|_| random.integer(32_767) as i16).collect();
        values[0] = -32_768;
        for quality in [-9, 900] {
            let word = |value: i16| i32::from(value) as u32;
            let (made, expected) = both(&device, &network, (planes, size), quality, (&values, word));
            assert!(made == expected.iter().map(|&value| word(value)).collect::<Vec<_>>(), "{channels:?} {quality}");
        }
    }
}

/// Weights and values as large as the sums allow, so that all 32 bits of a sum are in use.
#[test]
fn the_largest_sums_are_equal() {
    let Some(device) = device() else { return };
    let point = Window { kernel: [1, 1], stride: 1, depthwise: false, transposed: None };
    for sign in [-1i8, 1] {
        let mut op = integer_convolution(&mut Random(1), 500, 3, point);
        if let crate::network::Op::Convolution(convolution) = &mut op {
            for (at, weight) in convolution.weights.iter_mut().enumerate() {
                *weight = if at < 500 {
                    127 * sign
                } else if at < 1000 {
                    -128
                } else {
                    128u8.wrapping_add(at as u8) as i8
                };
            }
            convolution.constants.bias = vec![i32::from(sign) * 66_000_000, 12_345, -1];
            convolution.constants.shifts = [16, 14];
        }
        let network = Network::new(500, vec![node(op, 0, None, 3)], &crate::Limits::default()).unwrap();
        let values: Vec<i16> = (0..3 * 500)
            .map(|at| match at / 500 {
                0 => -32_768,
                1 => 32_767,
                _ => (at * 7919) as i16,
            })
            .collect();
        let word = |value: i16| i32::from(value) as u32;
        let (made, expected) = both(&device, &network, (1, (1, 3)), 0, (&values, word));
        assert_eq!(made, expected.iter().map(|&value| word(value)).collect::<Vec<_>>());
    }
}

/// A software driver leaves loops after some number of rounds: up to there sums are whole, from there on refused.
#[test]
fn long_sums_are_equal_or_refused() {
    let Some(device) = device() else { return };
    let window = Window { kernel: [3, 3], stride: 1, depthwise: false, transposed: None };
    for inputs in [3600, 7200] {
        let random = &mut Random(9);
        let op = integer_convolution(random, inputs, 1, window);
        let network = Network::new(inputs, vec![node(op, 0, None, 1)], &crate::Limits::default()).unwrap();
        let values: Vec<i16> = (0..9 * inputs).map(|_| random.integer(32_767) as i16).collect();
        let word = |value: i16| i32::from(value) as u32;
        if inputs == 3600 || device.rounds() == usize::MAX {
            let (made, expected) = both(&device, &network, (1, (3, 3)), 0, (&values, word));
            assert_eq!(made, expected.iter().map(|&value| word(value)).collect::<Vec<_>>());
            continue;
        }
        let table = NetworkTable::new(&device, &network).unwrap();
        let input = device.upload("input", &vec![0; values.len()]).unwrap();
        let run = Run { device: &device, network: &network, table: &table, quality: 0 };
        let refused = run.record(&mut Recorder::new(&device), &mut Pool::default(), (1, (3, 3)), &input);
        assert!(matches!(refused, Err(Error::Backend(_))));
    }
}

#[test]
fn float_networks_agree_within_rounding() {
    let Some(device) = device() else { return };
    let cases: [Case; 4] = [
        ([1, 1, 1], (1, 1), (3, 2)),
        ([5, 34, 3], (5, 2), (4, 6)),
        ([32, 17, 9], (3, 3), (5, 3)),
        ([40, 24, 33], (4, 1), (2, 7)),
    ];
    for (number, (channels, window, size)) in cases.into_iter().enumerate() {
        let random = &mut Random(number as u64);
        let network = float_network_of(random, channels, window);
        let planes = 1 + number % 3;
        let values: Vec<f32> = (0..planes * size.0 * size.1 * network.inputs).map(|_| random.float()).collect();
        let (made, expected) = both(&device, &network, (planes, size), 17, (&values, f32::to_bits));
        near(&made.iter().map(|&bits| f32::from_bits(bits)).collect::<Vec<_>>(), &expected, &format!("{channels:?}"));
    }
}

/// Floats that differ by rounding alone.
fn near(made: &[f32], expected: &[f32], what: &str) {
    assert_eq!(made.len(), expected.len());
    let largest = expected.iter().fold(1e-6f32, |most, value| most.max(value.abs()));
    for (a, b) in made.iter().zip(expected) {
        assert!((a - b).abs() <= 1e-4 * largest, "{a} and {b} of {largest}: {what}");
    }
}

/// A profile of a file between networks for features of so many channels, and a hash to tell it by.
fn profile(path: &str, channels: usize, hash: u64, edit: impl FnOnce(&mut Profile, &mut Random)) -> Arc<Profile> {
    let mut profile = Profile::load(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap();
    let random = &mut Random(hash);
    let inner = profile.layout.channels();
    profile.analysis = Some(Analysis::Integer(integer_network_of(random, [channels, 20, inner], (3, 2))));
    profile.synthesis = Some(float_network_of(random, [inner, 21, channels], (4, 2)));
    profile.layout = Layout::new(Dtype::F32, Axes::default_for(3), &[channels, 13, 18]).unwrap();
    profile.latent_exponent = 8;
    edit(&mut profile, random);
    profile.hash = hash;
    profile.validate(&crate::Limits::default()).unwrap();
    Arc::new(profile)
}

fn feature(shape: &[usize], seed: usize) -> ArrayD<f32> {
    ArrayD::from_shape_fn(IxDyn(shape), |at| {
        let at = at.as_array_view().iter().fold(seed, |sum, &i| sum * 31 + i);
        ((at % 1013) as f32 * 0.37).sin() * (1.0 + (at % 4) as f32)
    })
}

fn floats(feature: &Feature) -> Vec<f32> {
    match feature {
        Feature::F32(array) => array.iter().copied().collect(),
        Feature::F16(array) => array.iter().map(|x| x.to_f32()).collect(),
        other => panic!("{other:?}"),
    }
}

const WAVES: &str = "tests/vectors/waves.profile.safetensors";
const RECTIFIED: &str = "tests/vectors/rectified.profile.safetensors";

#[test]
fn streams_of_profiles_with_networks_are_equal() {
    let Some(device) = device() else { return };
    let without_quality = |profile: &mut Profile, _: &mut Random| {
        let Some(Analysis::Integer(network)) = &mut profile.analysis else { return };
        for node in &mut network.nodes {
            if let crate::network::Op::Convolution(convolution) = &mut node.op {
                convolution.constants.quality.clear();
            }
        }
    };
    let profiles = [
        profile(WAVES, 10, 1, |_, _| ()),
        profile(RECTIFIED, 7, 2, without_quality),
        profile(WAVES, 6, 3, |profile, _| profile.analysis = None),
        profile(WAVES, 6, 5, |profile, random| {
            let point = Window { kernel: [1, 1], stride: 1, depthwise: false, transposed: None };
            let nodes = vec![node(integer_convolution(random, 6, 6, point), 0, None, 6)];
            let network = Network::new(6, nodes, &crate::Limits::default()).unwrap();
            profile.analysis = Some(Analysis::Integer(network));
            profile.synthesis = None;
        }),
        profile(RECTIFIED, 5, 4, |profile, random| {
            let gains = profile.anchors.len() * profile.coder_channels();
            profile.gains = (0..gains).map(|_| random.integer(40) as i16).collect();
        }),
    ];
    for profile in &profiles {
        let channels = profile.layout.channels();
        let mut cpu = crate::Encoder::with_profile(profile.clone()).chunks(2);
        let mut gpu = Encoder::with_profile(&device, profile.clone()).chunks(2);
        let mut attached = crate::Encoder::with_profile(profile.clone()).chunks(2).gpu(&device, true, false);
        let mut decoders = (
            crate::Decoder::new().profile(profile.clone()),
            Decoder::new(&device).profile(profile.clone()),
            crate::Decoder::new().profile(profile.clone()).gpu(&device, true, false),
        );
        for (number, shape) in [[channels, 13, 18], [channels, 16, 8], [channels, 4, 5]].iter().enumerate() {
            let feature = feature(shape, number);
            let qualities =
                [Quality::Scale(4.0), Quality::Scale(1.0), Quality::Bytes(feature.len()), Quality::Sqnr(-3.0)];
            for quality in &qualities[..if number == 0 { 4 } else { 1 }] {
                let what = format!("{} {shape:?} {quality:?}", profile.hash);
                let expected = cpu.encode(&feature, *quality);
                gpu.poison();
                assert!(gpu.encode(&feature, *quality) == expected, "{what}");
                assert!(attached.encode(&feature, *quality) == expected, "{what}");
                let Ok(stream) = expected else { continue };
                let header = Header::read(&mut Reader::new(&stream), &crate::Limits::default()).unwrap();
                assert_eq!(header.mode, Mode::Profile, "{what}");
                let expected = decoders.0.decode(&stream).unwrap();
                decoders.1.poison();
                let decoded = decoders.1.decode(&stream).unwrap();
                assert_eq!(decoded.shape(), expected.shape());
                near(&floats(&decoded), &floats(&expected), &what);
                near(&floats(&decoders.2.decode(&stream).unwrap()), &floats(&expected), &what);
                let mut broken = stream;
                if let Some(last) = broken.last_mut() {
                    *last ^= 0x55;
                }
                assert_eq!(decoders.1.decode(&broken).err(), decoders.0.decode(&broken).err(), "{what}");
            }
        }
    }
}

#[test]
fn batches_and_buffers_of_profiles_with_networks() {
    let Some(device) = device() else { return };
    let profile = profile(WAVES, 9, 11, |_, _| ());
    let mut cpu = crate::Encoder::with_profile(profile.clone());
    let mut gpu = Encoder::with_profile(&device, profile.clone());
    let mut decoder = Decoder::new(&device).profile(profile.clone());
    let shapes: [&[usize]; 4] = [&[9, 13, 18], &[9, 13, 18], &[2, 9, 5, 8], &[9, 13, 18]];
    let features: Vec<_> = shapes.iter().enumerate().map(|(seed, shape)| feature(shape, seed)).collect();
    let streams: Vec<_> = features.iter().map(|feature| cpu.encode(feature, Quality::Scale(2.0)).unwrap()).collect();
    let sources: Vec<_> = features.iter().map(Source::from).collect();
    assert!(gpu.encode_batch(&sources, Quality::Scale(2.0)).unwrap() == streams);
    let expected: Vec<_> =
        streams.iter().map(|stream| floats(&crate::decode(stream, Some(&profile)).unwrap())).collect();
    let views: Vec<_> = streams.iter().map(Vec::as_slice).collect();
    for (decoded, expected) in decoder.decode_batch(&views).into_iter().zip(&expected) {
        near(&floats(&decoded.unwrap()), expected, "decoded together");
    }
    // From and into buffers of the GPU; a broken stream leaves its buffer as it is.
    let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST;
    let buffer = |words: usize| device.guarded(|| device.buffer("test", 4 * words, usage)).unwrap();
    let count = 9 * 13 * 18;
    let resident = buffer(count);
    let bytes: Vec<u8> = features[0].iter().flat_map(|x| x.to_le_bytes()).collect();
    device.guarded(|| device.write(&resident, bytes.len(), |out| out.copy_from_slice(&bytes))).unwrap();
    let resident = FeatureBuffer::new(resident, shapes[0], Dtype::F32);
    assert!(gpu.encode(&resident, Quality::Scale(2.0)).unwrap() == streams[0]);
    let mut broken = streams[1].clone();
    broken.truncate(broken.len() - 1);
    let targets = [(Dtype::F32, count), (Dtype::F16, count.div_ceil(2)), (Dtype::F32, count)]
        .map(|(dtype, words)| FeatureBuffer::new(buffer(words), shapes[0], dtype));
    let results = decoder.decode_batch_into(&[views[0], views[3], &broken], &targets.each_ref());
    assert!(results[0].is_ok() && results[1].is_ok() && results[2].is_err(), "{results:?}");
    let read = |target: &FeatureBuffer| {
        let bytes = target.buffer.size() as usize;
        device.guarded(|| Recorder::new(&device).finish(&[(&target.buffer, bytes)])).unwrap().remove(0)
    };
    let words = words_of(&read(&targets[0]));
    near(&words[..count].iter().map(|&bits| f32::from_bits(bits)).collect::<Vec<_>>(), &expected[0], "f32");
    let halves = read(&targets[1]);
    let halves: Vec<_> =
        halves[..2 * count].chunks_exact(2).map(|b| f16::from_le_bytes([b[0], b[1]]).to_f32()).collect();
    let rounded: Vec<_> = expected[3].iter().map(|&x| f16::from_f32(x).to_f32()).collect();
    let largest = rounded.iter().fold(1.0f32, |most, x| most.max(x.abs()));
    assert!(halves.iter().zip(&rounded).all(|(a, b)| (a - b).abs() <= 2e-3 * largest));
    assert!(read(&targets[2]).iter().all(|&byte| byte == 0));
}

#[test]
fn float_analysis_stays_on_the_cpu() {
    let Some(device) = device() else { return };
    let profile = profile(WAVES, 8, 21, |profile, random| {
        let inner = profile.channels();
        profile.analysis = Some(Analysis::Float(float_network_of(random, [8, 5, inner], (3, 2))));
    });
    let feature = feature(&[8, 6, 6], 1);
    let refused = Encoder::with_profile(&device, profile.clone()).encode(&feature, Quality::Scale(8.0));
    assert!(matches!(refused, Err(Error::Unsupported { .. })), "{refused:?}");
    let expected = crate::Encoder::with_profile(profile.clone()).encode(&feature, Quality::Scale(8.0)).unwrap();
    let attached =
        crate::Encoder::with_profile(profile).gpu(&device, true, false).encode(&feature, Quality::Scale(8.0));
    assert_eq!(attached.unwrap(), expected);
}
