//! Proves that FORMAT.md says all there is to say: a decoder written from that page alone (`decoder.rs`) decodes the
//! golden streams and datagrams to their features, agrees with the crate on random features of every mode, with the golden profiles
//! and with profiles made of random numbers, and accepts a damaged stream only if the crate does, as the same feature.

mod decoder;
mod profiles;

use std::{fs, path::PathBuf, sync::Arc, sync::LazyLock};

use half::{bf16, f16};
use narrows::datagram::{Assembler, Concealment, Datagrams};
use narrows::{Clip, Decoder, Encoder, Feature, FeatureView, Info, Packed, Profile, Quality};
use ndarray::ArrayD;
use proptest::prelude::*;

/// The same profile for both decoders.
struct Pair {
    own: decoder::Profile,
    crates: Arc<Profile>,
}

impl Pair {
    fn read(file: &[u8]) -> Self {
        let own = decoder::read_profile(file).expect("the reference reads the profile");
        Self { own, crates: Arc::new(Profile::from_bytes(file).expect("the crate reads the profile")) }
    }
}

fn vector(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/vectors").join(name)
}

fn golden_profiles() -> Vec<Pair> {
    let file = |name: &str| fs::read(vector(name)).expect("golden profile");
    ["waves", "rectified", "bursts"].map(|name| Pair::read(&file(&format!("{name}.profile.safetensors")))).into()
}

/// Golden profiles, then random ones.
static PROFILES: LazyLock<Vec<Pair>> = LazyLock::new(|| {
    golden_profiles().into_iter().chain((0..60).map(|seed| Pair::read(&profiles::random(seed)))).collect()
});

#[test]
fn golden_streams_decode() {
    let profiles: Vec<_> = golden_profiles().into_iter().map(|pair| pair.own).collect();
    let mut seen = 0;
    for file in fs::read_dir(vector("")).expect("tests/vectors") {
        let path = file.expect("entry").path();
        if path.extension().is_some_and(|extension| extension == "stream") {
            let decoded = decoder::decode(&fs::read(&path).expect("stream"), &profiles);
            let bytes = fs::read(path.with_extension("feature")).expect("feature");
            assert!(decoded.map(|decoded| decoded.bytes) == Ok(bytes), "{}", path.display());
            seen += 1;
        }
    }
    assert!(seen > 0);
}

#[test]
fn golden_datagrams_decode() {
    let mut seen = 0;
    for (name, pair) in ["waves", "rectified", "bursts"].iter().zip(golden_profiles()) {
        for file in fs::read_dir(vector("")).expect("tests/vectors") {
            let path = file.expect("entry").path();
            if path.extension().is_some_and(|extension| extension == "datagrams")
                && path.file_stem().and_then(|stem| stem.to_str()).is_some_and(|stem| stem.contains(name))
            {
                let mut file = fs::read(&path).expect("datagrams");
                let mut datagrams = vec![];
                while let Some((length, rest)) = file.split_first_chunk::<2>() {
                    let (datagram, rest) = rest.split_at(usize::from(u16::from_le_bytes(*length)));
                    datagrams.push(datagram.to_vec());
                    file = rest.to_vec();
                }
                let decoded = decoder::decode_datagrams(&datagrams, &pair.own);
                let bytes = fs::read(path.with_extension("feature")).expect("feature");
                assert!(decoded.map(|decoded| decoded.bytes) == Ok(bytes), "{}", path.display());
                seen += 1;
            }
        }
    }
    assert!(seen >= 6, "{seen} golden features in datagrams");
}

/// How a feature is made and coded.
#[derive(Clone, Debug)]
struct Case {
    /// 0 to 1 lossless and packed, 2 to 3 plain, above that the profiles by turns.
    mode: usize,
    dims: Vec<usize>,
    axes: (usize, usize),
    dtype: u8,
    /// Kind of values, and their seed.
    values: (u8, u64),
    lanes: u32,
    chunks: usize,
    /// With a profile.
    layers: usize,
    quality: (u8, f32),
}

fn cases() -> impl Strategy<Value = Case> {
    let shape = (prop::collection::vec(0..14_usize, 1..=5), (any::<prop::sample::Index>(), 0..12_usize));
    let coding = (0..=5_u32, prop_oneof![3 => Just(0_usize), 2 => 1..6_usize], 1..=4_usize, (0..4_u8, 0.0..1.0_f32));
    (0..130_usize, shape, 0..5_u8, (0..6_u8, any::<u64>()), coding).prop_map(
        |(mode, (mut dims, (channel, batch)), dtype, values, (lanes, chunks, layers, quality))| {
            // No length is 0 in most of the features.
            if values.1 % 8 > 0 {
                dims.iter_mut().for_each(|len| *len = (*len).max(1));
            }
            let channel = channel.index(dims.len());
            if dims.len() > 3 {
                dims.iter_mut().for_each(|len| *len = (*len).min(7));
            }
            if dims.len() == 2 && values.1 % 3 == 0 {
                dims[channel] *= 12; // several runs of channels
            }
            Case { mode, dims, axes: (channel, batch), dtype, values, lanes, chunks, layers, quality }
        },
    )
}

fn array<T: Clone>(dims: &[usize], case: &Case, from: impl Fn(f32) -> T) -> ArrayD<T> {
    let mut random = profiles::Random(case.values.1);
    ArrayD::from_shape_simple_fn(dims, || {
        let wave = random.uniform() + random.uniform() + random.uniform() - 1.5;
        from(match case.values.0 {
            0 => wave * 60.0,
            1 => (wave * 9.0).max(0.0),
            2 if random.uniform() < 0.95 => 0.0,
            2 => wave * 40.0,
            3 => wave.powi(9) * 3000.0,
            4 => wave * (random.uniform() * 80.0 - 40.0).exp2(),
            _ if random.uniform() < 0.02 => [f32::NAN, f32::INFINITY, f32::MIN, -0.0, 1e-42][random.below(5)],
            _ => wave * 8.0,
        })
    })
}

/// Encodes with the crate; none if the case makes no sense to it. Gives the profile, if any, with the stream.
fn encode(case: &Case) -> Option<(Vec<u8>, Option<&'static Pair>)> {
    let pair =
        (case.mode > 3).then(|| &PROFILES[if case.mode < 40 { case.mode % 2 } else { case.mode % PROFILES.len() }]);
    let mut dims = case.dims.clone();
    let axis = case.axes.0;
    if let Some(pair) = pair {
        dims[axis] = pair.crates.layout().channels();
    }
    let encoder = match case.mode {
        0 => Encoder::lossless(),
        1 => {
            let clip = if case.quality.0 == 0 { Clip::Aciq } else { Clip::MinMax };
            Encoder::packed(Packed { bits: 1 + (case.values.1 >> 8) as u8 % 8, clip })
        }
        2 | 3 => Encoder::plain(),
        _ => Encoder::with_profile(pair?.crates.clone()),
    };
    let mut encoder = match case.chunks {
        _ if case.mode < 2 => encoder,
        0 => encoder.lanes(1 << case.lanes),
        chunks => encoder.lanes(1 << case.lanes).chunks(chunks),
    };
    encoder = encoder.checksums(case.values.1.is_multiple_of(5)).layers(if case.mode > 3 { case.layers } else { 1 });
    let quality = match case.quality {
        (0, by) => Quality::Sqnr(by * 50.0),
        (_, by) => Quality::Scale((by * 20.0 - 10.0).exp2()),
    };
    macro_rules! stream {
        ($from:expr) => {{
            let array = array(&dims, case, $from);
            let batch = Some(case.axes.1).filter(|&batch| batch < dims.len() && batch != axis);
            encoder.encode(FeatureView::from(&array).channel_axis(axis).batch_axis(batch), quality)
        }};
    }
    let stream = match case.dtype {
        0 => stream!(|v| v),
        1 => stream!(f16::from_f32),
        2 => stream!(bf16::from_f32),
        3 => stream!(|v| v as i8),
        _ => stream!(|v| v as u8),
    };
    Some((stream.ok()?, pair))
}

fn plain_words(feature: &Feature) -> decoder::Decoded {
    let (dtype, bytes) = match feature {
        Feature::F32(a) => ("f32", a.iter().flat_map(|v| v.to_le_bytes()).collect()),
        Feature::F16(a) => ("f16", a.iter().flat_map(|v| v.to_le_bytes()).collect()),
        Feature::Bf16(a) => ("bf16", a.iter().flat_map(|v| v.to_le_bytes()).collect()),
        Feature::I8(a) => ("i8", a.iter().flat_map(|v| v.to_le_bytes()).collect()),
        Feature::U8(a) => ("u8", a.iter().copied().collect()),
        _ => panic!("a dtype that FORMAT.md does not have"),
    };
    decoder::Decoded { dtype, shape: feature.shape().to_vec(), bytes }
}

/// Both decoders' answers.
fn both(stream: &[u8], pair: Option<&Pair>) -> [Result<decoder::Decoded, String>; 2] {
    let own = decoder::decode(stream, pair.map_or(&[], |pair| std::slice::from_ref(&pair.own)));
    let crates = pair.map_or(Decoder::new(), |pair| Decoder::new().profile(pair.crates.clone())).decode(stream);
    [own.map_err(|kind| format!("{kind:?}")), crates.map(|f| plain_words(&f)).map_err(|error| format!("{error:?}"))]
}

const CASES: u32 = if cfg!(debug_assertions) { 150 } else { 1500 };

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(CASES) })]

    #[test]
    fn streams_decode_alike(case in cases()) {
        if let Some((stream, pair)) = encode(&case) {
            let [own, crates] = both(&stream, pair);
            prop_assert!(own.is_ok());
            prop_assert_eq!(own, crates);
            // Of several layers every end, and what is next to it.
            let ends = Info::read(&stream).expect("header").layers;
            for end in ends.iter().flat_map(|&end| [end - 1, end, end + 1]) {
                let Some(prefix) = stream.get(..end).filter(|_| ends.len() > 1) else { continue };
                let [own, crates] = both(prefix, pair);
                prop_assert!(own.is_ok() || !ends.contains(&end));
                prop_assert_eq!(own.is_err(), crates.is_err(), "{} of {:?}: {:?}, {:?}", end, ends, own.err(), crates.err());
                prop_assert!(own.is_err() || own == crates);
            }
        }
    }

    #[test]
    fn datagrams_decode_alike(case in cases(), parts in 1..=20_usize, copies in 0..=3_u8) {
        let pair = &PROFILES[case.mode % PROFILES.len()];
        let mut dims = case.dims.clone();
        dims[case.axes.0] = pair.crates.layout().channels();
        let array = array(&dims, &case, |v| v);
        let batch = Some(case.axes.1).filter(|&batch| batch < dims.len() && batch != case.axes.0);
        let view = FeatureView::from(&array).channel_axis(case.axes.0).batch_axis(batch);
        let options = Datagrams { number: 5, bytes: 60_000, parts, copies };
        let quality = Quality::Scale((case.quality.1 * 12.0 - 6.0).exp2());
        if let Ok(sent) = Encoder::with_profile(pair.crates.clone()).datagrams(view, quality, &options) {
            let mut assembler = Assembler::new(pair.crates.clone());
            for datagram in &sent {
                prop_assert!(assembler.push(datagram).is_ok());
            }
            let crates = plain_words(&assembler.take(5, Concealment::Neighbours).expect("all parts"));
            prop_assert_eq!(decoder::decode_datagrams(&sent, &pair.own), Ok(crates));
        }
    }

    #[test]
    fn damaged_streams_decode_alike(case in cases(), seed in any::<u64>()) {
        if let Some((stream, pair)) = encode(&case) {
            let mut random = profiles::Random(seed);
            for _ in 0..20 {
                let mut damaged = stream.clone();
                match random.below(4) {
                    0 => damaged.truncate(random.below(stream.len())),
                    1 => damaged.push(random.below(256) as u8),
                    2 => damaged[random.below(stream.len().min(30))] = random.below(256) as u8,
                    _ => damaged[random.below(stream.len())] ^= 1 << random.below(8),
                }
                if let Some(flags) = damaged.get_mut(1) {
                    *flags = *flags & 0x3f | stream[1] & 0xc0; // the crate may read fewer versions than the page has
                }
                let [own, crates] = both(&damaged, pair);
                prop_assert_eq!(own.is_err(), crates.is_err(), "{:02x?}: {:?}, {:?}", &damaged, own.err(), crates.err());
                if own.is_ok() {
                    prop_assert!(own == crates, "{:02x?}", &damaged);
                }
            }
        }
    }
}
