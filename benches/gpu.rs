//! The GPU backend on this machine's GPU: see `gpu.sh`. Prints tables for RESULTS.md; asserts its answers.

use std::sync::Arc;
use std::time::{Duration, Instant};

use narrows::gpu::{ByteCoder, Decoder, Device, Encoder, FeatureBuffer, Source, wgpu};
use narrows::{Dtype, Profile, Quality};
use ndarray::{ArrayD, IxDyn};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// A device with all the memory that the adapter gives.
fn device() -> Result<Device> {
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle_from_env());
    let options =
        wgpu::RequestAdapterOptions { power_preference: wgpu::PowerPreference::HighPerformance, ..Default::default() };
    let adapter = pollster::block_on(instance.request_adapter(&options))?;
    let most = adapter.limits();
    let (device, queue) = pollster::block_on(adapter.request_device(&wgpu::DeviceDescriptor {
        required_features: adapter.features() & wgpu::Features::SUBGROUP,
        required_limits: wgpu::Limits {
            max_buffer_size: most.max_buffer_size,
            max_storage_buffer_binding_size: most.max_storage_buffer_binding_size,
            ..wgpu::Limits::default()
        },
        ..Default::default()
    }))?;
    Ok(Device::new(device, queue)?)
}

/// The shortest of some runs, after one that is not counted.
fn best(mut run: impl FnMut() -> Result<()>) -> Result<Duration> {
    run()?;
    let mut best = Duration::MAX;
    for _ in 0..5 {
        let start = Instant::now();
        run()?;
        best = best.min(start.elapsed());
    }
    Ok(best)
}

/// The time of one repetition on the GPU: that of many in one submission less that of one, so that the trip is not in it.
fn per_repetition(times: usize, mut run: impl FnMut(usize) -> Result<()>) -> Result<f64> {
    let one = best(|| run(1))?;
    let many = best(|| run(times + 1))?;
    Ok((many.as_secs_f64() - one.as_secs_f64()).max(1e-9) / times as f64)
}

fn random(state: &mut u64) -> u32 {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    (*state >> 33) as u32
}

/// Frequencies of a zero-inflated half-Laplacian, and symbols drawn from them.
fn laplacian(decay: f64, count: usize) -> ([u16; 256], f64, Vec<u8>) {
    let weights: Vec<f64> = (0..64).map(|i| decay.powi(i) * if i == 0 { 2.0 } else { 1.0 }).collect();
    let sum: f64 = weights.iter().sum();
    let mut frequencies = [0u16; 256];
    for (frequency, weight) in frequencies.iter_mut().zip(&weights) {
        *frequency = ((weight / sum * 4032.0) as u16).max(1);
    }
    frequencies[0] += 4096 - frequencies.iter().sum::<u16>();
    let slots: Vec<u8> =
        frequencies.iter().enumerate().flat_map(|(symbol, &f)| std::iter::repeat_n(symbol as u8, f.into())).collect();
    let entropy = frequencies.iter().filter(|&&f| f > 0).map(|&f| f64::from(f) / 4096.0);
    let entropy = entropy.map(|p| -p * p.log2()).sum();
    let mut state = 7;
    (frequencies, entropy, (0..count).map(|_| slots[random(&mut state) as usize & 4095]).collect())
}

fn feature(shape: &[usize], seed: u64) -> ArrayD<f32> {
    let mut state = seed;
    ArrayD::from_shape_simple_fn(IxDyn(shape), || {
        let x = random(&mut state) as f32 / 1_073_741_824.0 - 1.0;
        x.powi(5) * 3.0
    })
}

fn storage(device: &Device, bytes: usize) -> wgpu::Buffer {
    device.wgpu_device().create_buffer(&wgpu::BufferDescriptor {
        label: None,
        size: bytes as u64,
        usage: wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST,
        mapped_at_creation: false,
    })
}

/// Profile, shape, batch, chunks.
type Case<'a> = (Option<&'a Arc<Profile>>, Vec<usize>, usize, usize);

fn main() -> Result<()> {
    // `cargo test --benches` passes other arguments, and asks for nothing but that it runs.
    let small = std::env::var_os("NARROWS_BENCH_SMALL").is_some() || !std::env::args().any(|arg| arg == "--bench");
    let device = device()?;
    println!("adapter: {}", device.info());
    if std::env::var_os("NARROWS_BENCH_FLOATS").is_some() {
        return all_floats(&device);
    }
    let bandwidth = memory(&device, small)?;
    byte_coder(&device, small, bandwidth)?;
    whole_path(&device, small)?;
    if let Some(path) = std::env::var_os("NARROWS_BENCH_PROFILE") {
        networks(&device, &Arc::new(Profile::load(path)?), small)?;
    }
    println!("\ncrossover with one core of the CPU, plain mode, from and to the memory of the CPU: {}", {
        match device.crossover()? {
            usize::MAX => "none up to 2^20 elements".to_owned(),
            elements => format!("{elements} elements"),
        }
    });
    Ok(())
}

/// Takes all 2^32 floats to integers, by float instructions and without.
fn all_floats(device: &Device) -> Result<()> {
    const AT_ONCE: u64 = 1 << 21;
    // That of the demo's profile: a tenth of all floats are in range, the others too small or too large.
    const EXPONENT: i32 = 11;
    for device in [device.clone(), device.clone().integer_floats(true)] {
        let start = Instant::now();
        for first in (0..1 << 32).step_by(AT_ONCE as usize) {
            let difference = device.first_difference(first..first + AT_ONCE, EXPONENT)?;
            assert_eq!(difference, None, "the first float that differs, by its bits");
        }
        let what = if device.info().integer_floats { "integer" } else { "float" };
        println!("all 2^32 f32 through the {what} edge as on the CPU, in {:.0} s", start.elapsed().as_secs_f64());
    }
    Ok(())
}

fn memory(device: &Device, small: bool) -> Result<f64> {
    let bytes = if small { 1 << 22 } else { 1 << 28 };
    let (from, to) = (storage(device, bytes), storage(device, bytes));
    let coder = ByteCoder::new(device, &laplacian(0.5, 0).0)?;
    let seconds = per_repetition(if small { 2 } else { 20 }, |times| Ok(coder.copy(&from, &to, times)?))?;
    let bandwidth = 2.0 * bytes as f64 / seconds;
    println!("memory bandwidth (copy of {} MiB, read and written): {:.1} GB/s", bytes >> 20, bandwidth / 1e9);
    Ok(bandwidth)
}

fn byte_coder(device: &Device, small: bool, bandwidth: f64) -> Result<()> {
    println!(
        "\n| bytes, resident | entropy | chunk | over entropy | encode G/s | of bandwidth | decode G/s | of bandwidth |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    let sizes: &[usize] = if small { &[1 << 17] } else { &[2 << 20, 64 << 20, 128 << 20] };
    for &count in sizes {
        for decay in [0.15, 0.5, 0.8] {
            for chunk in [1024, 4096, 16_384] {
                let (frequencies, entropy, symbols) = laplacian(decay, count);
                let coder = ByteCoder::new(device, &frequencies)?;
                let buffers = coder.buffers(count, chunk)?;
                coder.write_symbols(&buffers, &symbols)?;
                let bytes = coder.encode(&buffers, 1)?;
                coder.write_symbols(&buffers, &vec![0; count])?;
                coder.decode(&buffers, 1)?;
                assert!(coder.read_symbols(&buffers)? == symbols, "the symbols come back");
                let times = if small { 2 } else { (1 << 30) / count };
                let encode =
                    count as f64 / per_repetition(times, |times| Ok(coder.encode(&buffers, times).map(drop)?))?;
                let decode = count as f64 / per_repetition(times, |times| Ok(coder.decode(&buffers, times)?))?;
                println!(
                    "| {count} | {entropy:.2} | {chunk} | {:+.2} % | {:.2} | {:.1} % | {:.2} | {:.1} % |",
                    (bytes as f64 * 8.0 / (entropy * count as f64) - 1.0) * 100.0,
                    encode / 1e9,
                    encode / bandwidth * 100.0,
                    decode / 1e9,
                    decode / bandwidth * 100.0
                );
            }
        }
    }
    Ok(())
}

/// A profile with networks, in the shape that it was fitted on: here and on the CPU, from and to the memory of the CPU.
fn networks(device: &Device, profile: &Arc<Profile>, small: bool) -> Result<()> {
    let shape = profile.layout().shape();
    let cost = profile.cost(profile.layout()).map(|cost| cost.map_or(0.0, |cost| cost.macs as f64 / 1e6));
    println!(
        "\nprofile {:016x}: {} elements, analysis {:.1} MMAC, synthesis {:.1} MMAC",
        profile.hash(),
        shape.iter().product::<usize>(),
        cost[0],
        cost[1]
    );
    println!("\n| batch | bytes | encode ms | CPU | decode ms | CPU |\n|---|---|---|---|---|---|");
    for batch in if small { vec![1, 2] } else { vec![1, 8, 64] } {
        let features: Vec<_> = (0..batch).map(|seed| feature(&shape, seed as u64)).collect();
        let sources: Vec<_> = features.iter().map(Source::from).collect();
        let mut encoder = Encoder::with_profile(device, profile.clone());
        let mut decoder = Decoder::new(device).profile(profile.clone());
        let mut cpu_encoder = narrows::Encoder::with_profile(profile.clone());
        let mut cpu_decoder = narrows::Decoder::new().profile(profile.clone());
        let streams = encoder.encode_batch(&sources, Quality::default())?;
        for (feature, stream) in features.iter().zip(&streams).take(4) {
            assert!(cpu_encoder.encode(feature, Quality::default())? == *stream, "the CPU's bytes");
        }
        let views: Vec<_> = streams.iter().map(Vec::as_slice).collect();
        let times = [
            best(|| Ok(encoder.encode_batch(&sources, Quality::default()).map(drop)?))?,
            best(|| features.iter().try_for_each(|f| Ok(cpu_encoder.encode(f, Quality::default()).map(drop)?)))?,
            best(|| decoder.decode_batch(&views).into_iter().try_for_each(|feature| Ok(feature.map(drop)?)))?,
            best(|| views.iter().try_for_each(|stream| Ok(cpu_decoder.decode(stream).map(drop)?)))?,
        ];
        let [encode, cpu_encode, decode, cpu_decode] = times.map(|time| time.as_secs_f64() * 1e3);
        let bytes: usize = streams.iter().map(Vec::len).sum();
        println!("| {batch} | {bytes} | {encode:.2} | {cpu_encode:.2} | {decode:.2} | {cpu_decode:.2} |");
    }
    Ok(())
}

fn whole_path(device: &Device, small: bool) -> Result<()> {
    let demo = concat!(env!("CARGO_MANIFEST_DIR"), "/demo/profile.safetensors");
    let profile = Arc::new(Profile::load(demo)?);
    let channels = profile.layout().channels();
    println!("\n| f32 feature, resident | mode | batch | chunks | bytes | encode GB/s | decode GB/s |");
    println!("|---|---|---|---|---|---|---|");
    let cases: Vec<Case<'_>> = if small {
        vec![(None, vec![64, 16, 16], 2, 16), (Some(&profile), vec![1, channels, 8, 8], 4, 1)]
    } else {
        let mut cases = Vec::new();
        for batch in [1, 8, 32] {
            cases.push((None, vec![64, 112, 112], batch, 112));
            cases.push((None, vec![64, 56, 56], batch, 56));
        }
        for batch in [1, 32, 512] {
            cases.push((Some(&profile), vec![1, channels, 8, 8], batch, 1));
            cases.push((Some(&profile), vec![1, channels, 32, 32], batch, 8));
        }
        cases
    };
    for (profile, shape, batch, chunks) in cases {
        let features: Vec<_> = (0..batch).map(|seed| feature(&shape, seed as u64)).collect();
        let elements: usize = shape.iter().product();
        let resident: Vec<_> = features
            .iter()
            .map(|feature| {
                let buffer = storage(device, 4 * elements);
                let bytes: Vec<u8> = feature.iter().flat_map(|x| x.to_le_bytes()).collect();
                device.wgpu_queue().write_buffer(&buffer, 0, &bytes);
                FeatureBuffer::new(buffer, &shape, Dtype::F32)
            })
            .collect();
        let targets: Vec<_> =
            (0..batch).map(|_| FeatureBuffer::new(storage(device, 4 * elements), &shape, Dtype::F32)).collect();
        let targets: Vec<_> = targets.iter().collect();
        let sources: Vec<_> = resident.iter().map(Source::from).collect();
        let (mut encoder, mut decoder) = match profile {
            Some(profile) => (
                Encoder::with_profile(device, profile.clone()).chunks(chunks),
                Decoder::new(device).profile(profile.clone()),
            ),
            None => (Encoder::plain(device).chunks(chunks), Decoder::new(device)),
        };
        let cpu = match profile {
            Some(profile) => narrows::Encoder::with_profile(profile.clone()),
            None => narrows::Encoder::plain(),
        };
        let streams = encoder.encode_batch(&sources, Quality::default())?;
        let mut cpu = cpu.chunks(chunks);
        for (feature, stream) in features.iter().zip(&streams).take(4) {
            assert!(cpu.encode(feature, Quality::default())? == *stream, "the CPU's bytes");
        }
        let views: Vec<_> = streams.iter().map(Vec::as_slice).collect();
        let expected = narrows::decode(&streams[0], profile)?;
        assert!(decoder.decode(&streams[0])? == expected, "the CPU's feature");
        let bytes = 4.0 * (elements * batch) as f64;
        let encode = best(|| Ok(encoder.encode_batch(&sources, Quality::default()).map(drop)?))?;
        let decode = best(|| {
            decoder.decode_batch_into(&views, &targets).into_iter().collect::<std::result::Result<Vec<()>, _>>()?;
            Ok(())
        })?;
        println!(
            "| {} | {} | {batch} | {chunks} | {} | {:.3} | {:.3} |",
            shape.iter().map(usize::to_string).collect::<Vec<_>>().join(" x "),
            if profile.is_some() { "profile (demo)" } else { "plain" },
            streams.iter().map(Vec::len).sum::<usize>(),
            bytes / encode.as_secs_f64() / 1e9,
            bytes / decode.as_secs_f64() / 1e9
        );
    }
    Ok(())
}
