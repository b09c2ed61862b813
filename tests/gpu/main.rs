//! Proves that streams made on a GPU, and features decoded there, are those of the CPU, bit for bit: shapes, dtypes,
//! profiles, qualities, chunks, lanes, odd numbers, buffers, batches, broken streams, and a lost device.
//!
//! Without an adapter the tests say so and pass; `NARROWS_REQUIRE_GPU=1` makes them fail. With a software driver:
//! `VK_LOADER_DRIVERS_SELECT='*lvp*'`, where `LP_NATIVE_VECTOR_WIDTH=128`, `256` or `512` chooses subgroups of 4, 8 or 16.

mod buffers;
mod bytes;
mod failures;
mod numbers;
mod shapes;

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
        "demo" => Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/wide.profile.safetensors"),
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

fn same<T: PartialEq + std::fmt::Debug>(one: Result<T, Error>, two: Result<T, Error>, what: impl Fn() -> String) {
    assert_eq!(one.map_err(|e| format!("{e:?}")), two.map_err(|e| format!("{e:?}")), "{}", what());
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
