//! Proves that streams made on a GPU, and features decoded there, are those of the CPU, bit for bit: shapes, dtypes,
//! profiles, qualities, chunks, lanes, odd numbers, buffers, batches, broken streams, and a lost device.
//!
//! Without an adapter the tests say so and pass; `NARROWS_REQUIRE_GPU=1` makes them fail. With a software driver:
//! `VK_LOADER_DRIVERS_SELECT='*lvp*'`, where `LP_NATIVE_VECTOR_WIDTH=128`, `256` or `512` chooses subgroups of 4, 8 or 16.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use half::{bf16, f16};
use narrows::gpu::{self, ByteCoder, Device, FeatureBuffer, Source, wgpu};
use narrows::{Axes, Dtype, Element, Error, Feature, FeatureView, Profile, Quality};
use ndarray::{ArrayD, IxDyn, ShapeBuilder};

/// The device, in each way in which it can be told to work.
fn devices() -> Vec<Device> {
    static DEVICE: OnceLock<Option<Device>> = OnceLock::new();
    let device = DEVICE.get_or_init(|| match Device::request() {
        Ok(device) => {
            eprintln!("on {}", device.info());
            Some(device)
        }
        Err(error) if std::env::var_os("NARROWS_REQUIRE_GPU").is_some_and(|value| value == "1") => {
            panic!("NARROWS_REQUIRE_GPU=1, but {error}")
        }
        Err(error) => {
            eprintln!("skipped: {error}");
            None
        }
    });
    let Some(device) = device else { return Vec::new() };
    vec![device.clone(), device.clone().subgroups(false).integer_floats(true)]
}

fn vectors() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors")
}

fn profile(name: &str) -> Arc<Profile> {
    let path = match name {
        "demo" => Path::new(env!("CARGO_MANIFEST_DIR")).join("demo/profile.safetensors"),
        name => vectors().join(format!("{name}.profile.safetensors")),
    };
    Arc::new(Profile::load(path).unwrap())
}

fn noise(seed: u64, i: usize) -> f32 {
    let mut z = (seed ^ i as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 31)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    ((z >> 40) as f32 / 16_777_216.0 - 0.5) * 4.0
}

/// Mostly small values, some large.
fn array<T: Element>(shape: &[usize], seed: u64, scale: f32) -> ArrayD<T> {
    let mut i = 0;
    ArrayD::from_shape_simple_fn(IxDyn(shape), || {
        i += 1;
        let x = noise(seed, i);
        T::from_f32(x * x * x * 0.3 * scale)
    })
}

/// The bits of a feature: `==` on floats would take -0 for 0.
fn bits(feature: &Feature) -> (Dtype, Vec<usize>, Vec<u32>) {
    let bits = match feature {
        Feature::F32(array) => array.iter().map(|x| x.to_bits()).collect(),
        Feature::F16(array) => array.iter().map(|x| u32::from(x.to_bits())).collect(),
        Feature::Bf16(array) => array.iter().map(|x| u32::from(x.to_bits())).collect(),
        Feature::I8(array) => array.iter().map(|&x| x as u32).collect(),
        Feature::U8(array) => array.iter().map(|&x| u32::from(x)).collect(),
        other => panic!("{other:?}"),
    };
    (feature.dtype(), feature.shape().to_vec(), bits)
}

/// Options of both encoders.
#[derive(Debug, Clone, Copy)]
struct Options {
    chunks: Option<usize>,
    lanes: Option<usize>,
    rdo: bool,
}

const DEFAULT: Options = Options { chunks: None, lanes: None, rdo: true };

fn cpu_encoder(profile: Option<&Arc<Profile>>, options: Options) -> narrows::Encoder {
    let encoder = match profile {
        Some(profile) => narrows::Encoder::with_profile(profile.clone()),
        None => narrows::Encoder::plain(),
    };
    let encoder = options.chunks.into_iter().fold(encoder.rdo(options.rdo), narrows::Encoder::chunks);
    options.lanes.into_iter().fold(encoder, narrows::Encoder::lanes)
}

fn gpu_encoder(device: &Device, profile: Option<&Arc<Profile>>, options: Options) -> gpu::Encoder {
    let encoder = match profile {
        Some(profile) => gpu::Encoder::with_profile(device, profile.clone()),
        None => gpu::Encoder::plain(device),
    };
    let encoder = options.chunks.into_iter().fold(encoder.rdo(options.rdo), gpu::Encoder::chunks);
    options.lanes.into_iter().fold(encoder, gpu::Encoder::lanes)
}

fn cpu_decoder(profile: Option<&Arc<Profile>>) -> narrows::Decoder {
    profile.into_iter().cloned().fold(narrows::Decoder::new(), narrows::Decoder::profile)
}

fn gpu_decoder(device: &Device, profile: Option<&Arc<Profile>>) -> gpu::Decoder {
    profile.into_iter().cloned().fold(gpu::Decoder::new(device), gpu::Decoder::profile)
}

/// Encodes and decodes on both sides.
fn check(device: &Device, profile: Option<&Arc<Profile>>, view: FeatureView<'_>, quality: Quality, options: Options) {
    let what = || format!("{:?} {:?} {quality:?} {options:?} {:?}", view.shape(), view.dtype(), device.info());
    let expected = cpu_encoder(profile, options).encode(view.clone(), quality);
    let stream = gpu_encoder(device, profile, options).encode(view.clone(), quality);
    assert_eq!(stream, expected, "{}", what());
    if let Ok(stream) = stream {
        let expected = cpu_decoder(profile).decode(&stream).unwrap();
        let decoded = gpu_decoder(device, profile).decode(&stream).unwrap_or_else(|e| panic!("{e}: {}", what()));
        assert!(bits(&decoded) == bits(&expected), "{}", what());
    }
}

#[test]
fn golden_streams_decode_to_what_they_always_did() {
    for device in devices() {
        let mut decoder = [profile("waves"), profile("rectified")]
            .into_iter()
            .fold(gpu::Decoder::new(&device), gpu::Decoder::profile);
        let mut names = Vec::new();
        for entry in fs::read_dir(vectors()).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "stream") {
                names.push(path);
            }
        }
        let streams: Vec<_> = names.iter().map(|name| fs::read(name).unwrap()).collect();
        let streams: Vec<_> = streams.iter().map(Vec::as_slice).collect();
        // One by one, and all of them in one submission.
        let one_by_one: Vec<_> = streams.iter().map(|stream| decoder.decode(stream)).collect();
        for results in [one_by_one, decoder.decode_batch(&streams)] {
            for (name, result) in names.iter().zip(results) {
                let feature = result.unwrap_or_else(|error| panic!("{}: {error}", name.display()));
                let size = feature.dtype().size();
                let bytes: Vec<u8> = bits(&feature).2.iter().flat_map(|x| x.to_le_bytes()[..size].to_vec()).collect();
                assert_eq!(bytes, fs::read(name.with_extension("feature")).unwrap(), "{}", name.display());
            }
        }
        assert!(streams.len() >= 18);
    }
}

#[test]
fn profiles_of_all_kinds() {
    let waves = |seed: u64, shape: &[usize]| {
        let rough = array::<f32>(shape, seed, 1.0);
        let mut at = 0;
        rough.mapv(|x| {
            at += 1;
            x + 2.0 * (at as f32 * 0.37 + seed as f32).sin()
        })
    };
    for device in devices() {
        for (name, shape) in [("waves", [1, 6, 8, 8]), ("rectified", [1, 6, 8, 8]), ("demo", [1, 32, 16, 16])] {
            let profile = profile(name);
            let mut shape = shape;
            shape[1] = profile.layout().channels();
            let feature = waves(3, &shape);
            let feature = if name == "waves" { feature } else { feature.mapv(|x| x.max(0.0)) };
            for scale in [0.02, 0.3, 1.0, 6.0] {
                check(&device, Some(&profile), (&feature).into(), Quality::Scale(scale), DEFAULT);
            }
            for rdo in [false, true] {
                for (chunks, lanes) in [(1, 1), (2, 2), (3, 4), (1, 8), (7, 16), (100, 32)] {
                    let options = Options { chunks: Some(chunks), lanes: Some(lanes), rdo };
                    check(&device, Some(&profile), (&feature).into(), Quality::Scale(0.2), options);
                }
            }
            // Other sizes: blocks that are cut off, several planes, one row, nothing.
            for other in [[3, 0, 9, 11], [1, 0, 1, 30], [2, 0, 17, 1], [1, 0, 1, 1], [2, 0, 0, 5]] {
                let mut shape = other;
                shape[1] = profile.layout().channels();
                check(&device, Some(&profile), (&waves(5, &shape)).into(), Quality::Scale(0.5), DEFAULT);
            }
            // Nothing to code: no position, or no channel that is worth a bit.
            let options = Options { chunks: Some(2), lanes: Some(4), rdo: true };
            let empty = ArrayD::<f32>::zeros(IxDyn(&[1, profile.layout().channels(), 0, 3]));
            check(&device, Some(&profile), (&empty).into(), Quality::Scale(1.0), options);
            check(&device, Some(&profile), (&feature).into(), Quality::Scale(250.0), options);
            check(&device, Some(&profile), (&feature).into(), Quality::Bytes(150), DEFAULT);
            check(&device, Some(&profile), (&feature).into(), Quality::Bytes(3), DEFAULT);
            check(&device, Some(&profile), (&feature).into(), Quality::Sqnr(9.0), DEFAULT);
        }
    }
}

#[test]
fn plain_shapes_dtypes_and_qualities() {
    for device in devices() {
        for shape in [
            &[1][..],
            &[1, 1, 1],
            &[7],
            &[31, 3],
            &[5, 32],
            &[33, 2, 3],
            &[63, 4, 4],
            &[65, 3, 2],
            &[2, 3, 4, 5],
            &[2, 2, 2, 3, 2, 3, 2, 2],
            &[2048, 2, 2],
            &[96, 13, 11],
            &[0, 3],
        ] {
            check(&device, None, (&array::<f32>(shape, 1, 1.0)).into(), Quality::Scale(1.0), DEFAULT);
        }
        let shape = [3, 20, 7, 9];
        for quality in [Quality::Scale(0.004), Quality::Scale(30.0), Quality::Bytes(700), Quality::Sqnr(21.0)] {
            check(&device, None, (&array::<f32>(&shape, 2, 1.0)).into(), quality, DEFAULT);
        }
        check(&device, None, (&array::<f16>(&shape, 3, 2.0)).into(), Quality::Scale(0.5), DEFAULT);
        check(&device, None, (&array::<bf16>(&shape, 4, 1e20)).into(), Quality::Scale(0.5), DEFAULT);
        check(&device, None, (&array::<i8>(&shape, 5, 90.0)).into(), Quality::Scale(0.2), DEFAULT);
        check(&device, None, (&array::<u8>(&shape, 6, 90.0)).into(), Quality::Sqnr(30.0), DEFAULT);
        check(&device, None, (&array::<f32>(&shape, 7, 1e-37)).into(), Quality::Scale(1.0), DEFAULT);
        check(&device, None, (&array::<f32>(&shape, 8, 1e37)).into(), Quality::Scale(1.0), DEFAULT);
        for (chunks, lanes) in [(1, 1), (5, 2), (60, 4), (21, 8), (2, 16), (9, 32)] {
            let options = Options { chunks: Some(chunks), lanes: Some(lanes), rdo: chunks % 2 == 0 };
            check(&device, None, (&array::<f32>(&shape, 9, 1.0)).into(), Quality::Scale(0.01), options);
        }
        // Any memory order and any axes.
        let mut turned = ArrayD::<f32>::zeros(IxDyn(&[4, 6, 5]).f());
        turned.assign(&array::<f32>(&[4, 6, 5], 10, 1.0));
        for channels in 0..3 {
            for batch in [None, Some(0), Some(2)] {
                let view =
                    FeatureView::from(&turned).channel_axis(channels).batch_axis(batch.filter(|&b| b != channels));
                check(&device, None, view, Quality::Scale(0.5), DEFAULT);
            }
        }
    }
}

#[test]
fn edges_of_the_numbers() {
    // NaN, infinities, subnormals, zeros of both signs, ties, the largest and the least.
    let hard: Vec<f32> = [
        0,
        1,
        0x7f_ffff,
        0x80_0000,
        0x3f00_0000,
        0x3fc0_0000,
        0x4020_0000,
        0x46ff_fe00,
        0x46ff_ff00,
        0x4700_0000,
        0x7f7f_ffff,
        0x7f80_0000,
        0x7f80_0001,
        0x7fc0_0000,
    ]
    .into_iter()
    .flat_map(|bits: u32| [f32::from_bits(bits), f32::from_bits(bits | 1 << 31)])
    .collect();
    let mixed = ArrayD::from_shape_fn(IxDyn(&[6, 8, 8]), |at| {
        let i = (at[0] * 8 + at[1]) * 8 + at[2];
        if i % 3 == 0 { hard[i / 3 % hard.len()] } else { noise(9, i) }
    });
    let halves =
        ArrayD::from_shape_fn(IxDyn(&[256, 16, 16]), |at| f16::from_bits((at[0] * 256 + at[1] * 16 + at[2]) as u16));
    let finite = halves.mapv(|x| if x.is_finite() { x } else { f16::ZERO });
    for device in devices() {
        assert!(device.probe().unwrap());
        // The software driver is exact, so that the float instructions are what the first device tests.
        assert!(!device.info().name.contains("llvmpipe") || !devices()[0].info().integer_floats);
        let waves = profile("waves");
        for scale in [0.01, 1.0] {
            check(&device, None, (&mixed).into(), Quality::Scale(scale), DEFAULT);
            check(&device, Some(&waves), (&mixed).into(), Quality::Scale(scale), DEFAULT);
            check(&device, None, (&finite).into(), Quality::Scale(scale), DEFAULT);
        }
        // Every f16 there is, at the finest steps, so that nothing hides a wrong integer.
        check(&device, None, (&halves).into(), Quality::Scale(0.004), Options { chunks: Some(16), ..DEFAULT });
        let six = halves.as_slice().unwrap()[..65_532].to_vec();
        let six = ArrayD::from_shape_vec(IxDyn(&[6, 127, 86]), six).unwrap();
        check(&device, Some(&waves), (&six).into(), Quality::Scale(0.004), Options { chunks: Some(8), ..DEFAULT });
    }
}

fn same<T: PartialEq + std::fmt::Debug>(one: Result<T, Error>, two: Result<T, Error>, what: impl Fn() -> String) {
    assert_eq!(one.map_err(|e| format!("{e:?}")), two.map_err(|e| format!("{e:?}")), "{}", what());
}

#[test]
fn broken_streams_give_the_same_error() {
    for device in devices() {
        let waves = profile("waves");
        let demo = profile("demo");
        let mut shape = vec![1, 0, 4, 4];
        shape[1] = demo.layout().channels();
        let cases: Vec<(Option<&Arc<Profile>>, Vec<u8>)> = vec![
            {
                let options = Options { chunks: Some(3), lanes: Some(4), rdo: true };
                let feature = array::<f32>(&[9, 6, 5], 1, 1.0);
                (None, cpu_encoder(None, options).encode(&feature, Quality::Scale(0.02)).unwrap())
            },
            {
                let options = Options { chunks: Some(1), lanes: Some(32), rdo: true };
                let feature = array::<f32>(&[40, 3, 3], 1, 1.0);
                (None, cpu_encoder(None, options).encode(&feature, Quality::Scale(0.01)).unwrap())
            },
            {
                let feature = array::<f32>(&[1, 6, 8, 8], 2, 4.0);
                (Some(&waves), cpu_encoder(Some(&waves), DEFAULT).encode(&feature, Quality::Scale(0.3)).unwrap())
            },
            {
                let feature = array::<f32>(&shape, 3, 3.0);
                (Some(&demo), cpu_encoder(Some(&demo), DEFAULT).encode(&feature, Quality::Scale(2.0)).unwrap())
            },
        ];
        for (profile, stream) in &cases {
            let mut broken: Vec<Vec<u8>> = (0..stream.len()).map(|end| stream[..end].to_vec()).collect();
            for bit in 0..stream.len() * 8 {
                let mut bad = stream.clone();
                bad[bit / 8] ^= 1 << (bit % 8);
                broken.push(bad);
            }
            let mut longer = stream.clone();
            longer.push(0);
            broken.push(longer.clone());
            longer.push(0);
            broken.push(longer);
            let mut cpu = cpu_decoder(*profile);
            let mut gpu = gpu_decoder(&device, *profile);
            for batch in broken.chunks(64) {
                let streams: Vec<_> = batch.iter().map(Vec::as_slice).collect();
                for (bad, result) in batch.iter().zip(gpu.decode_batch(&streams)) {
                    let expected = cpu.decode(bad);
                    same(result.map(|f| bits(&f)), expected.map(|f| bits(&f)), || format!("{bad:?}"));
                }
            }
        }
    }
}

/// A buffer with these bytes, for a feature to encode or to decode into.
fn buffer(device: &Device, bytes: &[u8]) -> wgpu::Buffer {
    let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::COPY_SRC;
    let size = (bytes.len() as u64).next_multiple_of(4).max(4);
    let buffer = device.wgpu_device().create_buffer(&wgpu::BufferDescriptor {
        label: None,
        size,
        usage,
        mapped_at_creation: false,
    });
    let mut padded = bytes.to_vec();
    padded.resize(size as usize, 0);
    device.wgpu_queue().write_buffer(&buffer, 0, &padded);
    buffer
}

fn contents(device: &Device, buffer: &wgpu::Buffer) -> Vec<u8> {
    let usage = wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST;
    let copy = device.wgpu_device().create_buffer(&wgpu::BufferDescriptor {
        label: None,
        size: buffer.size(),
        usage,
        mapped_at_creation: false,
    });
    let mut commands = device.wgpu_device().create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
    commands.copy_buffer_to_buffer(buffer, 0, &copy, 0, buffer.size());
    device.wgpu_queue().submit([commands.finish()]);
    let (sender, receiver) = std::sync::mpsc::channel();
    copy.map_async(wgpu::MapMode::Read, .., move |result| sender.send(result).unwrap());
    loop {
        device.wgpu_device().poll(wgpu::PollType::wait_indefinitely()).unwrap();
        if let Ok(result) = receiver.recv_timeout(std::time::Duration::from_millis(10)) {
            result.unwrap();
            break;
        }
    }
    copy.get_mapped_range(..).unwrap().to_vec()
}

/// The bytes of a tensor whose elements lie `offset` and `strides` apart among bytes of 0xAA.
fn strided<T: Element>(array: &ArrayD<T>, offset: usize, strides: &[usize], elements: usize) -> Vec<u8> {
    let size = T::DTYPE.size();
    let mut bytes = vec![0xAA; elements * size];
    for (at, x) in array.indexed_iter() {
        let index: usize = offset + (0..array.ndim()).map(|axis| at[axis] * strides[axis]).sum::<usize>();
        bytes[index * size..][..size].copy_from_slice(&x.bytes()[..size]);
    }
    bytes
}

#[test]
fn features_in_buffers_with_offsets_and_strides() {
    fn check<T: Element>(device: &Device, profile: Option<&Arc<Profile>>, seed: u64) {
        let shape = [2, 6, 9, 7];
        let array = array::<T>(&shape, seed, 3.0);
        // Dense after an odd offset; channels last in rows that are too long; every other element.
        let layouts: [(usize, [usize; 4]); 3] =
            [(77, [378, 63, 7, 1]), (3, [800, 1, 80, 9]), (1, [2 * 378, 2 * 63, 2 * 7, 2])];
        for (offset, strides) in layouts {
            let elements = 2000;
            let bytes = strided(&array, offset, &strides, elements);
            let feature = FeatureBuffer::new(buffer(device, &bytes), &shape, T::DTYPE).offset(offset).strides(&strides);
            for quality in [Quality::Scale(0.3), Quality::Bytes(400), Quality::Sqnr(2.0)] {
                let expected = cpu_encoder(profile, DEFAULT).encode(&array, quality).unwrap();
                let stream = gpu_encoder(device, profile, DEFAULT).encode(&feature, quality).unwrap();
                assert_eq!(stream, expected, "{offset} {strides:?} {quality:?}");

                // Back into such a buffer: what lies between the elements stays.
                let decoded = cpu_decoder(profile).decode(&stream).unwrap();
                let target = FeatureBuffer { buffer: buffer(device, &vec![0xAA; bytes.len()]), ..feature.clone() };
                gpu_decoder(device, profile).decode_into(&stream, &target).unwrap();
                let expected = match &decoded {
                    Feature::F32(array) => strided(array, offset, &strides, elements),
                    Feature::F16(array) => strided(array, offset, &strides, elements),
                    other => panic!("{other:?}"),
                };
                assert_eq!(contents(device, &target.buffer), expected);
            }
        }
        // What does not fit is refused.
        let small = FeatureBuffer::new(buffer(device, &[0; 400]), &shape, T::DTYPE);
        let mut encoder = gpu_encoder(device, profile, DEFAULT);
        assert!(matches!(encoder.encode(&small, Quality::default()), Err(Error::InvalidInput(_))));
        let stream = cpu_encoder(profile, DEFAULT).encode(&array, Quality::default()).unwrap();
        let mut decoder = gpu_decoder(device, profile);
        assert!(matches!(decoder.decode_into(&stream, &small), Err(Error::InvalidInput(_))));
        let other = FeatureBuffer::new(buffer(device, &[0; 4000]), &[2, 6, 9, 8], T::DTYPE);
        assert!(matches!(decoder.decode_into(&stream, &other), Err(Error::InvalidInput(_))));
    }
    for device in devices() {
        for profile in [None, Some(profile("rectified")), Some(profile("waves"))] {
            check::<f32>(&device, profile.as_ref(), 1);
            check::<f16>(&device, profile.as_ref(), 2);
        }
    }
}

#[test]
fn batches_are_what_their_features_are() {
    for device in devices() {
        for profile in [None, Some(profile("rectified")), Some(profile("waves"))] {
            let profile = profile.as_ref();
            let options = Options { chunks: Some(2), ..DEFAULT };
            let shapes: [&[usize]; 5] = [&[1, 6, 8, 8], &[1, 6, 9, 5], &[6, 4, 4], &[6, 1, 1], &[2, 6, 8, 8]];
            let features: Vec<_> =
                (0..23).map(|i| array::<f32>(shapes[i * i % 5], i as u64, 1.0 + (i % 3) as f32)).collect();
            let halves: Vec<_> = (0..3).map(|i| array::<f16>(&[6, 5, 5], i as u64, 2.0)).collect();
            let mut sources: Vec<Source<'_>> = features.iter().map(Source::from).collect();
            sources.extend(halves.iter().map(Source::from));
            let mut expected: Vec<_> = features
                .iter()
                .map(|f| cpu_encoder(profile, options).encode(f, Quality::Scale(0.2)).unwrap())
                .collect();
            expected
                .extend(halves.iter().map(|f| cpu_encoder(profile, options).encode(f, Quality::Scale(0.2)).unwrap()));
            let mut encoder = gpu_encoder(&device, profile, options);
            // Twice: buffers are used again.
            for _ in 0..2 {
                assert_eq!(encoder.encode_batch(&sources, Quality::Scale(0.2)).unwrap(), expected);
            }
            // A broken stream among them does no harm to the others.
            expected.insert(7, expected[3][..expected[3].len() - 2].to_vec());
            let streams: Vec<_> = expected.iter().map(Vec::as_slice).collect();
            let mut cpu = cpu_decoder(profile);
            for (i, result) in gpu_decoder(&device, profile).decode_batch(&streams).into_iter().enumerate() {
                let expected = cpu.decode(streams[i]);
                assert_eq!(result.is_err(), i == 7);
                same(result.map(|f| bits(&f)), expected.map(|f| bits(&f)), || format!("{i}"));
            }
        }
    }
}

#[test]
fn other_modes_are_left_to_the_cpu() {
    for device in devices() {
        let feature = array::<f32>(&[4, 5, 6], 1, 1.0);
        let stream = narrows::Encoder::lossless().encode(&feature, Quality::default()).unwrap();
        let mut decoder = gpu::Decoder::new(&device);
        assert_eq!(decoder.decode(&stream).unwrap(), Feature::from(feature.clone()));
        let target = FeatureBuffer::new(buffer(&device, &[0; 480]), &[4, 5, 6], Dtype::F32);
        assert!(matches!(decoder.decode_into(&stream, &target), Err(Error::Unsupported { .. })));
    }
}

#[test]
fn wrong_calls_give_the_same_error() {
    for device in devices() {
        let feature = array::<f32>(&[5, 4, 4], 1, 1.0);
        let waves = profile("waves");
        let quality = Quality::default();
        for profile in [None, Some(&waves)] {
            let options = Options { lanes: Some(3), ..DEFAULT };
            for (options, quality) in [
                (options, quality),
                (DEFAULT, Quality::Scale(f32::NAN)),
                (DEFAULT, Quality::Bytes(1)),
                (DEFAULT, Quality::Sqnr(900.0)),
                (DEFAULT, Quality::Sqnr(f32::NAN)),
            ] {
                let expected = cpu_encoder(profile, options).encode(&feature, quality);
                assert!(expected.is_err());
                same(gpu_encoder(&device, profile, options).encode(&feature, quality), expected, || {
                    format!("{quality:?}")
                });
            }
        }
        let view = FeatureView::from(&feature).with_axes(Axes { channels: 7, batch: None });
        let expected = cpu_encoder(None, DEFAULT).encode(view.clone(), quality);
        same(gpu_encoder(&device, None, DEFAULT).encode(view, quality), expected, || "axes".into());
        let stream = cpu_encoder(Some(&waves), DEFAULT).encode(&array::<f32>(&[6, 4, 4], 1, 1.0), quality).unwrap();
        let expected = cpu_decoder(None).decode(&stream);
        same(gpu::Decoder::new(&device).decode(&stream), expected, || "profile".into());
        let limits = narrows::Limits { output_bytes: 100, ..narrows::Limits::default() };
        let expected = cpu_decoder(Some(&waves)).limits(limits).decode(&stream);
        same(gpu_decoder(&device, Some(&waves)).limits(limits).decode(&stream), expected, || "limits".into());
    }
}

#[test]
fn a_lost_device_is_an_error_and_the_cpu_takes_over_if_asked_to() {
    if devices().is_empty() {
        return;
    }
    let feature = array::<f32>(&[6, 8, 8], 1, 1.0);
    let quality = Quality::Scale(0.5);
    for profile in [None, Some(profile("waves"))] {
        let profile = profile.as_ref();
        let expected = cpu_encoder(profile, DEFAULT).encode(&feature, quality).unwrap();
        let decoded = cpu_decoder(profile).decode(&expected).unwrap();
        for used_before in [false, true] {
            let device = Device::request().unwrap();
            let mut encoder = gpu_encoder(&device, profile, DEFAULT);
            let mut decoder = gpu_decoder(&device, profile);
            if used_before {
                assert_eq!(encoder.encode(&feature, quality).unwrap(), expected);
                assert_eq!(decoder.decode(&expected).unwrap(), decoded);
            }
            let inside = FeatureBuffer::new(buffer(&device, &[0; 4 * 384]), &[6, 8, 8], Dtype::F32);
            device.wgpu_device().destroy();
            for _ in 0..2 {
                assert!(matches!(encoder.encode(&feature, quality), Err(Error::Backend(_))));
                assert!(matches!(encoder.encode(&inside, quality), Err(Error::Backend(_))));
                assert!(matches!(decoder.decode(&expected), Err(Error::Backend(_))));
                assert!(matches!(decoder.decode_into(&expected, &inside), Err(Error::Backend(_))));
            }
            assert!(device.is_lost());
            let (mut encoder, mut decoder) = (encoder.fallback(true), decoder.fallback(true));
            assert_eq!(encoder.encode(&feature, quality).unwrap(), expected);
            assert_eq!(decoder.decode(&expected).unwrap(), decoded);
            assert!(matches!(encoder.encode(&inside, quality), Err(Error::Backend(_))));
        }
    }
}

#[test]
fn a_device_of_the_callers_own() {
    if devices().is_empty() {
        return;
    }
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle_from_env());
    let adapter = pollster::block_on(instance.request_adapter(&Default::default())).unwrap();
    let (device, queue) = pollster::block_on(adapter.request_device(&Default::default())).unwrap();
    let device = Device::new(device, queue).unwrap();
    // Requested without subgroups, so it has none.
    assert_eq!(device.info().subgroups, None);
    check(&device, None, (&array::<f32>(&[6, 8, 8], 1, 1.0)).into(), Quality::Scale(0.1), DEFAULT);
    // A mistake of the caller's on the device is told by the next call, once.
    let own = Device::request().unwrap();
    let _too_large = own.wgpu_device().create_buffer(&wgpu::BufferDescriptor {
        label: None,
        size: 1 << 50,
        usage: wgpu::BufferUsages::STORAGE,
        mapped_at_creation: false,
    });
    let small = array::<f32>(&[9], 1, 1.0);
    let told = gpu::Encoder::plain(&own).encode(&small, Quality::default());
    assert!(matches!(told, Err(Error::Backend(_))), "{told:?}");
    assert!(gpu::Encoder::plain(&own).encode(&small, Quality::default()).is_ok());
    // Losing the device is an error too.
    device.wgpu_device().destroy();
    let result = gpu::Decoder::new(&device)
        .decode(&narrows::encode(&array::<f32>(&[9], 1, 1.0), None, Quality::default()).unwrap());
    assert!(matches!(result, Err(Error::Backend(_))), "{result:?}");
}

#[test]
fn an_encoder_of_the_cpu_with_a_gpu_beside_it() {
    for device in devices() {
        let feature = array::<f32>(&[6, 8, 8], 1, 1.0);
        for profile in [None, Some(profile("waves"))] {
            let profile = profile.as_ref();
            let expected = cpu_encoder(profile, DEFAULT).encode(&feature, Quality::Scale(0.4)).unwrap();
            let decoded = cpu_decoder(profile).decode(&expected).unwrap();
            for always in [true, false] {
                let mut encoder = cpu_encoder(profile, DEFAULT).gpu(&device, always, false);
                assert_eq!(encoder.encode(&feature, Quality::Scale(0.4)).unwrap(), expected);
                let mut decoder = cpu_decoder(profile).gpu(&device, always, false);
                assert_eq!(decoder.decode(&expected).unwrap(), decoded);
                same(decoder.decode(&expected[..20]), cpu_decoder(profile).decode(&expected[..20]), || "short".into());
            }
        }
        // Measured once: another measurement would count what it is given.
        let known = device.crossover().unwrap();
        assert_eq!(device.crossover_with(|_| panic!("measured again")).unwrap(), known);
        assert!(known >= 4096);
    }
}

/// Frequencies that sum to 4,096, of symbols that get rarer.
fn frequencies(symbols: usize) -> [u16; 256] {
    let mut frequencies = [0; 256];
    let mut left = 4096;
    for (i, frequency) in frequencies.iter_mut().enumerate().take(symbols) {
        *frequency = if i + 1 == symbols { left } else { (left / 3).max(1) };
        left -= *frequency;
    }
    frequencies
}

/// The byte coder, one symbol after the other.
fn bytes_reference(symbols: &[u8], frequencies: &[u16; 256]) -> Vec<u8> {
    let start = |symbol: u8| frequencies[..usize::from(symbol)].iter().map(|&f| u32::from(f)).sum::<u32>();
    let mut states = [1u32 << 16; 32];
    let mut words = Vec::new();
    for (i, &symbol) in symbols.iter().enumerate().rev() {
        let frequency = u32::from(frequencies[usize::from(symbol)]);
        let x = &mut states[i % 32];
        if u64::from(*x) >= u64::from(frequency) << 20 {
            words.push(*x as u16);
            *x >>= 16;
        }
        *x = ((*x / frequency) << 12) + *x % frequency + start(symbol);
    }
    let states = states.iter().flat_map(|&x| [(x >> 16) as u16, x as u16]);
    states.chain(words.into_iter().rev()).flat_map(u16::to_le_bytes).collect()
}

#[test]
fn bytes_encode_and_bytes_decode() {
    for device in devices() {
        for kinds in [1, 2, 7, 12] {
            let frequencies = frequencies(kinds);
            let coder = ByteCoder::new(&device, &frequencies).unwrap();
            for (count, chunk) in
                [(1, 32), (31, 32), (33, 32), (4096, 4096), (5000, 4096), (9_999, 160), (70_000, 1024)]
            {
                // Symbols as the table expects them: by the slot that a number falls on.
                let ends: Vec<u32> =
                    (0..256).map(|symbol| frequencies[..=symbol].iter().map(|&f| u32::from(f)).sum()).collect();
                let symbols: Vec<u8> = (0..count)
                    .map(|i| {
                        let slot = ((noise(count as u64, i) / 4.0 + 0.5) * 4096.0) as u32;
                        ends.iter().position(|&end| slot < end).unwrap_or(0) as u8
                    })
                    .collect();
                let buffers = coder.buffers(count, chunk).unwrap();
                coder.write_symbols(&buffers, &symbols).unwrap();
                let total = coder.encode(&buffers, 2).unwrap();
                let chunks = coder.read_chunks(&buffers).unwrap();
                let expected: Vec<_> =
                    symbols.chunks(chunk).map(|symbols| bytes_reference(symbols, &frequencies)).collect();
                assert!(chunks == expected, "{kinds} {count} {chunk}");
                assert_eq!(total, expected.iter().map(|chunk| chunk.len().next_multiple_of(4)).sum::<usize>());
                let fresh = coder.buffers(count, chunk).unwrap();
                coder.write_chunks(&fresh, &chunks).unwrap();
                coder.decode(&fresh, 2).unwrap();
                assert!(coder.read_symbols(&fresh).unwrap() == symbols, "{kinds} {count} {chunk}");
                if kinds > 1 && count > 40 {
                    let mut bad = chunks.clone();
                    bad[0].truncate(chunks[0].len() - 2);
                    coder.write_chunks(&fresh, &bad).unwrap();
                    assert!(matches!(coder.decode(&fresh, 1), Err(Error::Truncated { .. } | Error::Corrupt { .. })));
                    bad = chunks.clone();
                    bad[0].extend([1, 2]);
                    coder.write_chunks(&fresh, &bad).unwrap();
                    assert!(matches!(coder.decode(&fresh, 1), Err(Error::Corrupt { .. })));
                    bad = chunks.clone();
                    bad[0][40] ^= 1;
                    coder.write_chunks(&fresh, &bad).unwrap();
                    assert!(matches!(coder.decode(&fresh, 1), Err(Error::Truncated { .. } | Error::Corrupt { .. })));
                    bad[0][..2].fill(0);
                    coder.write_chunks(&fresh, &bad).unwrap();
                    assert!(matches!(coder.decode(&fresh, 1), Err(Error::Corrupt { offset: 0, .. })));
                }
            }
            let buffers = coder.buffers(5, 32).unwrap();
            coder.write_symbols(&buffers, &[0, 0, 255, 0, 0]).unwrap();
            assert!(matches!(coder.encode(&buffers, 1), Err(Error::InvalidInput(_))));
            assert!(matches!(coder.buffers(5, 33), Err(Error::InvalidInput(_))));
        }
        assert!(matches!(ByteCoder::new(&device, &[1; 256]), Err(Error::InvalidInput(_))));
    }
}

#[test]
fn integers_become_halves_as_on_the_cpu() {
    for device in devices() {
        let mut decoder = gpu::Decoder::new(&device);
        for exponent in [-3, -2, -1, 0, 3, 9, 10, 13, 20, 24, 25, 26, 30, 39, 40] {
            // A few large numbers among zeros, so that steps are finer than the numbers.
            let feature = ArrayD::from_shape_fn(IxDyn(&[16, 64, 64]), |at| {
                let i = at[0] * 4096 + at[1] * 64 + at[2];
                let int = match i % 701 {
                    0 => 32_767 - (i / 701) as i32 % 50,
                    1 => (noise(3, i) * 16_000.0) as i32,
                    2 => (i / 701) as i32 - 40,
                    _ => 0,
                };
                int as f32 * 2f32.powi(-exponent)
            });
            let stream =
                cpu_encoder(None, Options { chunks: Some(16), ..DEFAULT }).encode(&feature, Quality::Scale(0.004));
            let stream = stream.unwrap();
            let expected = cpu_decoder(None).decode(&stream).unwrap().to_f32().mapv(f16::from_f32);
            let target = FeatureBuffer::new(buffer(&device, &[0; 2 * 65_536]), &[16, 64, 64], Dtype::F16);
            decoder.decode_into(&stream, &target).unwrap();
            let expected: Vec<u8> = expected.iter().flat_map(|x| x.to_le_bytes()).collect();
            assert!(contents(&device, &target.buffer) == expected, "{exponent}");
        }
    }
}
