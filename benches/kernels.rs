//! The speed of the kernels on every backend of this machine, and of the whole path, in items (values, symbols, bytes)
//! per second. A kernel has its name here as everywhere: `cargo bench --no-default-features --bench kernels rans`
//! runs `rans_encode` and `rans_decode`. Every bench compares its answer before it is timed, and every iteration
//! takes the next of eight inputs. `cargo test --no-default-features --bench kernels` runs each bench once.
//!
//! The other kernels have no door of their own: the whole path (`plain_*`, `profile_*`) is made of them.

use std::hint::black_box;
use std::path::Path;
use std::sync::{Arc, LazyLock};

use divan::Bencher;
use divan::counter::ItemsCount;
use narrows::raw::portable::{self, ContextRule};
use narrows::raw::{BYTE_LANES, ByteCoder, ByteJob, ByteTable, ContextCoder, feature_to_int};
use narrows::{Backend, Decoder, Encoder, Profile, Quality};
use ndarray::Array4;

/// Inputs that iterations take in turn.
const RING: usize = 8;
type Ring<T> = [T; RING];
/// Symbols and their chunks.
type Coded<T> = Ring<(Vec<T>, Vec<u8>)>;
/// Bytes at a time: a small chunk, and a large one.
const BYTES: [usize; 2] = [4 << 10, 1 << 20];
/// Rows, columns and channels of the context coder's symbols.
const GRID: (usize, usize, usize) = (64, 64, 64);
/// Height and width of the features.
const SIDE: usize = 112;
/// Channels of the feature in mode `Plain`.
const CHANNELS: usize = 64;

const PROFILES: [(&str, &str); 3] = [
    ("demo", "demo/profile.safetensors"),
    ("rectified", "tests/vectors/rectified.profile.safetensors"),
    ("waves", "tests/vectors/waves.profile.safetensors"),
];
const RULES: [(&str, ContextRule); 3] =
    [("none", ContextRule::None), ("neighbours", ContextRule::Neighbours), ("runs", ContextRule::Runs)];

fn main() {
    divan::main();
}

/// A backend and what else a bench depends on.
struct Case<T> {
    backend: Backend,
    name: &'static str,
    of: T,
}

impl<T> std::fmt::Display for Case<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}, {}", self.name, self.backend)
    }
}

/// Every one of these on every backend.
fn cases<T: Copy>(of: &[(&'static str, T)]) -> Vec<Case<T>> {
    let all = of
        .iter()
        .flat_map(|&(name, of)| Backend::available().into_iter().map(move |backend| Case { backend, name, of }));
    all.collect()
}

/// Times a function on one input after the other.
fn bench<T>(bencher: Bencher<'_, '_>, items: usize, inputs: &[T], mut run: impl FnMut(&T)) {
    let mut inputs = inputs.iter().cycle();
    bencher
        .counter(ItemsCount::new(items))
        .bench_local(|| inputs.next().into_iter().for_each(|input| run(black_box(input))));
}

#[divan::bench(name = "feature_to_int", args = Backend::available())]
fn to_integers(bencher: Bencher<'_, '_>, backend: &Backend) {
    let count = CHANNELS * SIDE * SIDE;
    let inputs = ring(|seed| noise(count, seed));
    let mut integers = vec![0; count];
    let mut wanted = vec![0; count];
    for values in &inputs {
        feature_to_int(backend, values, 64.0, &mut integers).unwrap();
        portable::feature_to_int(values, 64.0, &mut wanted);
        assert!(integers == wanted);
    }
    bench(bencher, count, &inputs, |values| feature_to_int(backend, values, 64.0, &mut integers).unwrap());
}

#[divan::bench(args = Backend::available(), consts = BYTES)]
fn histogram<const N: usize>(bencher: Bencher<'_, '_>, backend: &Backend) {
    let inputs = ring(|seed| bytes(N, seed));
    let coder = ByteCoder::new(backend).unwrap();
    for symbols in &inputs {
        assert_eq!(coder.histogram(symbols), portable::histogram(symbols));
    }
    bench(bencher, N, &inputs, |symbols| {
        black_box(coder.histogram(symbols));
    });
}

#[divan::bench(args = Backend::available(), consts = BYTES)]
fn bytes_encode<const N: usize>(bencher: Bencher<'_, '_>, backend: &Backend) {
    let (table, inputs) = coded_bytes::<N>();
    let mut coder = ByteCoder::new(backend).unwrap();
    let mut chunk = Vec::new();
    for (symbols, wanted) in &inputs {
        chunk.clear();
        coder.encode(symbols, &table, BYTE_LANES, &mut chunk).unwrap();
        assert!(chunk == *wanted);
    }
    bench(bencher, N, &inputs, |(symbols, _)| {
        chunk.clear();
        coder.encode(symbols, &table, BYTE_LANES, &mut chunk).unwrap();
    });
}

/// Two chunks side by side, as is fastest.
#[divan::bench(args = Backend::available(), consts = BYTES)]
fn bytes_decode<const N: usize>(bencher: Bencher<'_, '_>, backend: &Backend) {
    let (table, inputs) = coded_bytes::<N>();
    let mut coder = ByteCoder::new(backend).unwrap();
    let (mut first, mut second) = (vec![0; N], vec![0; N]);
    let pairs: Vec<_> = (0..RING).map(|i| [&inputs[i], &inputs[(i + 1) % RING]]).collect();
    let mut decode = |[a, b]: &[&(Vec<u8>, Vec<u8>); 2], check: bool| {
        let jobs = &mut [ByteJob { bytes: &a.1, symbols: &mut first }, ByteJob { bytes: &b.1, symbols: &mut second }];
        coder.decode(jobs, &table, BYTE_LANES).unwrap();
        assert!(!check || (first == a.0 && second == b.0));
    };
    pairs.iter().for_each(|pair| decode(pair, true));
    bench(bencher, 2 * N, &pairs, |pair| decode(pair, false));
}

#[divan::bench(args = cases(&RULES))]
fn rans_encode(bencher: Bencher<'_, '_>, case: &Case<ContextRule>) {
    let (mut coder, inputs) = coded_symbols(case);
    let mut chunk = Vec::new();
    bench(bencher, inputs[0].0.len(), &inputs, |(symbols, _)| {
        chunk.clear();
        coder.encode(symbols, &mut chunk).unwrap();
    });
}

#[divan::bench(args = cases(&RULES))]
fn rans_decode(bencher: Bencher<'_, '_>, case: &Case<ContextRule>) {
    let (mut coder, inputs) = coded_symbols(case);
    let mut decoded = vec![0; inputs[0].0.len()];
    for (symbols, chunk) in &inputs {
        coder.decode(chunk, &mut decoded).unwrap();
        assert!(decoded == *symbols);
    }
    bench(bencher, decoded.len(), &inputs, |(_, chunk)| coder.decode(chunk, &mut decoded).unwrap());
}

#[divan::bench(args = Backend::available())]
fn plain_encode(bencher: Bencher<'_, '_>, backend: &Backend) {
    encode(bencher, &Encoder::plain(), CHANNELS, backend);
}

#[divan::bench(args = Backend::available())]
fn plain_decode(bencher: Bencher<'_, '_>, backend: &Backend) {
    decode(bencher, &Encoder::plain(), &Decoder::new(), CHANNELS, backend);
}

#[divan::bench(args = cases(&PROFILES))]
fn profile_encode(bencher: Bencher<'_, '_>, case: &Case<&str>) {
    let profile = profile(case.of);
    encode(bencher, &Encoder::with_profile(profile.clone()), profile.layout().channels(), &case.backend);
}

#[divan::bench(args = cases(&PROFILES))]
fn profile_decode(bencher: Bencher<'_, '_>, case: &Case<&str>) {
    let profile = profile(case.of);
    let decoder = Decoder::new().profile(profile.clone());
    decode(bencher, &Encoder::with_profile(profile.clone()), &decoder, profile.layout().channels(), &case.backend);
}

/// The whole path of an encoder.
fn encode(bencher: Bencher<'_, '_>, encoder: &Encoder, channels: usize, backend: &Backend) {
    let inputs = features(channels);
    let mut encoder = encoder.clone().backend(backend.clone());
    let wanted = encoder.clone().backend(Backend::Portable).encode(&inputs[0], Quality::Scale(1.0));
    assert!(encoder.encode(&inputs[0], Quality::Scale(1.0)) == wanted);
    bench(bencher, inputs[0].len(), &inputs, |feature| {
        black_box(encoder.encode(feature, Quality::Scale(1.0)).unwrap());
    });
}

/// The whole path of a decoder.
fn decode(bencher: Bencher<'_, '_>, encoder: &Encoder, decoder: &Decoder, channels: usize, backend: &Backend) {
    let inputs = features(channels);
    let mut encoder = encoder.clone();
    let streams = inputs.each_ref().map(|feature| encoder.encode(feature, Quality::Scale(1.0)).unwrap());
    let mut decoder = decoder.clone().backend(backend.clone());
    let mut feature = decoder.decode(&streams[0]).unwrap();
    assert!(decoder.clone().backend(Backend::Portable).decode(&streams[0]).unwrap() == feature);
    bench(bencher, inputs[0].len(), &streams, |stream| decoder.decode_into(stream, &mut feature).unwrap());
}

fn profile(path: &str) -> Arc<Profile> {
    Arc::new(Profile::load(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap())
}

fn ring<T>(make: impl Fn(u32) -> T) -> Ring<T> {
    std::array::from_fn(|seed| make(seed as u32))
}

/// Uniform numbers from -0.5 to 0.5.
fn random(seed: u32) -> impl FnMut() -> f32 {
    let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(12_345);
    move || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / 16_777_216.0 - 0.5
    }
}

/// Skewed noise, much of it zero.
fn noise(count: usize, seed: u32) -> Vec<f32> {
    let mut next = random(seed);
    (0..count).map(|_| (next(), next())).map(|(x, y)| if y < -0.1 { 0.0 } else { x * x * x * 40.0 }).collect()
}

/// Bytes of about three bits each.
fn bytes(count: usize, seed: u32) -> Vec<u8> {
    noise(count, seed).into_iter().map(|x| (x * 4.0) as i32 as u8).collect()
}

/// Smooth maps with noise on top, without negative values.
fn features(channels: usize) -> Ring<Array4<f32>> {
    ring(|seed| {
        let mut next = random(seed);
        let waves: Vec<_> = (0..channels).map(|_| [next() * 0.6, next() * 0.6, next() * 6.0]).collect();
        Array4::from_shape_fn((1, channels, SIDE, SIDE), |(_, c, y, x)| {
            let [v, h, phase] = waves[c];
            ((v * y as f32 + h * x as f32 + phase).sin() * 2.0 + next()).max(0.0)
        })
    })
}

/// Bytes and their chunks, under one table.
fn coded_bytes<const N: usize>() -> (ByteTable, Coded<u8>) {
    let mut coder = ByteCoder::new(&Backend::Portable).unwrap();
    let inputs = ring(|seed| bytes(N, seed));
    let table = ByteTable::from_histogram(&coder.histogram(&inputs.concat()));
    let coded = inputs.map(|symbols| {
        let mut chunk = Vec::new();
        coder.encode(&symbols, &table, BYTE_LANES, &mut chunk).unwrap();
        (symbols, chunk)
    });
    (table, coded)
}

/// A context coder, and symbols with their chunks, which are those of the portable backend.
fn coded_symbols(case: &Case<ContextRule>) -> (ContextCoder, Coded<i32>) {
    static INPUTS: LazyLock<Ring<Vec<i32>>> = LazyLock::new(|| ring(symbols));
    let samples: Vec<_> = INPUTS.iter().map(Vec::as_slice).collect();
    let coder = |backend| ContextCoder::fit(&samples, GRID, case.of, backend).unwrap();
    let (mut portable, mut own) = (coder(&Backend::Portable), coder(&case.backend));
    let coded = INPUTS.each_ref().map(|symbols| {
        let (mut wanted, mut chunk) = (Vec::new(), Vec::new());
        portable.encode(symbols, &mut wanted).unwrap();
        own.encode(symbols, &mut chunk).unwrap();
        assert!(chunk == wanted);
        (symbols.clone(), chunk)
    });
    (own, coded)
}

/// Small symbols whose size changes slowly with the position.
fn symbols(seed: u32) -> Vec<i32> {
    let (rows, columns, channels) = GRID;
    let mut next = random(seed);
    let mut all = Vec::with_capacity(rows * columns * channels);
    for position in 0..rows * columns {
        let (row, column) = ((position / columns) as f32, (position % columns) as f32);
        let busy = 3.0 + 2.5 * (row * 0.2 + seed as f32).sin() * (column * 0.15).cos();
        all.extend((0..channels).map(|channel| (next() * next() * busy * 100.0 / (channel + 8) as f32) as i32));
    }
    all
}
