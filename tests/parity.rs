//! Proves that every backend of this machine writes the bytes of the portable one and decodes them to
//! the same features: all modes, shapes, element types, chunk and lane counts, hard values.

use std::path::Path;
use std::sync::Arc;

use half::{bf16, f16};
use narrows::{Backend, Clip, Decoder, Element, Encoder, Feature, FeatureView, Packed, Profile, Quality};
use ndarray::{ArrayD, IxDyn};
use proptest::prelude::*;

/// The processor backends of this machine but the portable one.
fn others() -> Vec<Backend> {
    Backend::available().into_iter().filter(|backend| *backend != Backend::Portable).collect()
}

fn profiles() -> Vec<Arc<Profile>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    [
        "tests/vectors/waves.profile.safetensors",
        "tests/vectors/rectified.profile.safetensors",
        "tests/vectors/bursts.profile.safetensors",
        "tests/support/wide.profile.safetensors",
    ]
    .map(|path| Arc::new(Profile::load(root.join(path)).unwrap()))
    .to_vec()
}

/// Encodes and decodes on every backend, and compares.
fn check(encoder: &Encoder, profile: Option<&Arc<Profile>>, feature: &FeatureView<'_>, quality: Quality) {
    let reference = encoder.clone().backend(Backend::Portable).encode(feature.clone(), quality);
    let decode = |backend: Backend, stream: &[u8]| {
        let decoder = Decoder::new().backend(backend);
        profile.into_iter().cloned().fold(decoder, Decoder::profile).decode(stream)
    };
    let decoded = reference.as_ref().map(|stream| decode(Backend::Portable, stream).unwrap());
    for backend in others() {
        let stream = encoder.clone().backend(backend.clone()).encode(feature.clone(), quality);
        assert!(stream == reference, "{backend}: {:?} {quality:?}", feature.shape());
        if let (Ok(stream), Ok(decoded)) = (&stream, &decoded) {
            let own = decode(backend.clone(), stream).unwrap();
            assert!(bits(&own) == bits(decoded), "{backend}: {:?} {quality:?}", feature.shape());
        }
    }
}

/// The bits of every element: NaN is equal to itself, 0 is not -0.
fn bits(feature: &Feature) -> Vec<u32> {
    feature.to_f32().iter().map(|x| x.to_bits()).collect()
}

/// Skewed noise with a share of zeros, and hard values here and there.
fn noise<T: Element>(shape: &[usize], seed: u32, size: f32, hard: bool) -> ArrayD<T> {
    let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(12_345);
    let mut next = move || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / 16_777_216.0
    };
    const HARD: [f32; 10] = [
        f32::NAN,
        f32::INFINITY,
        f32::NEG_INFINITY,
        f32::MIN_POSITIVE / 2.0,
        -f32::MIN_POSITIVE / 4.0,
        -0.0,
        f32::MAX,
        f32::MIN,
        f32::MIN_POSITIVE,
        1e-40,
    ];
    ArrayD::from_shape_simple_fn(IxDyn(shape), || {
        let (x, y) = (next() - 0.5, next());
        if hard && y < 0.02 {
            return T::from_f32(HARD[(x * 10.0 + 5.0) as usize % 10]);
        }
        T::from_f32(if y < 0.4 { 0.0 } else { x * x * x * size })
    })
}

#[test]
fn plain_streams_are_equal_for_every_shape() {
    let shapes: [&[usize]; 16] = [
        &[1, 1, 1],
        &[7],
        &[3, 5],
        &[31, 3, 2],
        &[32, 4, 5],
        &[33, 9, 7],
        &[63, 2, 3],
        &[64, 8, 8],
        &[65, 1, 9],
        &[1, 100, 100],
        &[2, 24, 5, 7],
        &[2048, 2, 2],
        &[1, 3, 2, 2, 2, 3],
        &[0, 4, 4],
        &[3, 40, 13, 1],
        &[2, 3, 4, 1, 1, 2, 3, 2],
    ];
    for (i, shape) in shapes.iter().enumerate() {
        let feature = noise::<f32>(shape, i as u32, 30.0, i % 3 == 0);
        for quality in [Quality::Scale(1.0), Quality::Scale(0.02), Quality::Scale(8.0)] {
            check(&Encoder::plain(), None, &FeatureView::from(&feature), quality);
        }
        check(&Encoder::plain().chunks(3).rdo(false), None, &FeatureView::from(&feature), Quality::Scale(0.5));
        check(&Encoder::lossless(), None, &FeatureView::from(&feature), Quality::Scale(1.0));
    }
}

#[test]
fn profile_streams_are_equal_for_every_shape_and_quality() {
    for profile in profiles() {
        let channels = profile.layout().channels();
        let range = if channels == 6 { 8.0 } else { 40.0 };
        for (i, (height, width)) in [(1, 1), (8, 8), (5, 7), (16, 3), (1, 33), (40, 24)].into_iter().enumerate() {
            let feature = noise::<f32>(&[1 + i % 2, channels, height, width], i as u32, range, i == 2);
            let view = FeatureView::from(&feature);
            let encoder = Encoder::with_profile(profile.clone());
            for scale in [0.01, 0.3, 1.0, 3.0, 50.0] {
                check(&encoder, Some(&profile), &view, Quality::Scale(scale));
            }
            check(&encoder.clone().rdo(false), Some(&profile), &view, Quality::Bytes(4000));
            check(&encoder.clone().chunks(2), Some(&profile), &view, Quality::Sqnr(6.0));
        }
    }
}

#[test]
fn rows_without_columns_leave_nothing_to_decide() {
    for profile in profiles() {
        let feature = ArrayD::<f32>::zeros(IxDyn(&[1, profile.layout().channels(), 3, 0]));
        let encoder = Encoder::with_profile(profile.clone()).rdo(true);
        check(&encoder, Some(&profile), &FeatureView::from(&feature), Quality::Scale(0.5));
    }
}

#[test]
fn every_lane_and_chunk_count_is_equal() {
    let feature = noise::<f32>(&[70, 12, 11], 5, 60.0, true);
    let view = FeatureView::from(&feature);
    for lanes in [1, 2, 4, 8, 16, 32] {
        for chunks in [1, 2, 5, 12] {
            for scale in [0.05, 1.0] {
                let encoder = Encoder::plain().lanes(lanes).chunks(chunks);
                check(&encoder, None, &view, Quality::Scale(scale));
            }
        }
    }
}

#[test]
fn every_element_type_and_memory_order_is_equal() {
    fn types<T: Element>() {
        let feature = noise::<T>(&[2, 19, 9, 10], 3, 90.0, T::DTYPE.size() > 1);
        for axis in 0..4 {
            check(&Encoder::plain(), None, &FeatureView::from(&feature).channel_axis(axis), Quality::Scale(0.3));
            let turned = feature.view().reversed_axes();
            check(&Encoder::plain(), None, &FeatureView::from(&turned).channel_axis(axis), Quality::Scale(0.3));
        }
        for bits in [1, 3, 8] {
            for clip in [Clip::Aciq, Clip::MinMax] {
                let encoder = Encoder::packed(Packed { bits, clip });
                check(&encoder, None, &FeatureView::from(&feature), Quality::Scale(1.0));
            }
        }
    }
    types::<f32>();
    types::<f16>();
    types::<bf16>();
    types::<i8>();
    types::<u8>();
}

#[test]
fn every_f16_is_quantised_alike() {
    let all = ArrayD::from_shape_vec(IxDyn(&[64, 32, 32]), (0..=u16::MAX).map(f16::from_bits).collect()).unwrap();
    for scale in [0.001, 1.0, 40.0] {
        check(&Encoder::plain(), None, &FeatureView::from(&all), Quality::Scale(scale));
    }
    // Finite ones alone leave the exponent to the values that matter.
    let small = all.mapv(|x| if x.to_f32().abs() < 4.0 { x } else { f16::ZERO });
    check(&Encoder::plain(), None, &FeatureView::from(&small), Quality::Scale(0.001));
    for profile in profiles() {
        let channels = profile.layout().channels();
        let rows = 65_536 / channels / 32;
        let values = all.iter().copied().take(channels * rows * 32).collect();
        let some = ArrayD::from_shape_vec(IxDyn(&[1, channels, rows, 32]), values).unwrap();
        check(&Encoder::with_profile(profile.clone()), Some(&profile), &FeatureView::from(&some), Quality::Scale(0.1));
    }
}

#[test]
fn corrupt_streams_give_the_same_error() {
    let feature = noise::<f32>(&[40, 6, 6], 9, 50.0, false);
    for lanes in [1, 8, 32] {
        let stream = Encoder::plain().lanes(lanes).chunks(2).encode(&feature, Quality::Scale(0.2)).unwrap();
        let decode = |backend: Backend, bytes: &[u8]| Decoder::new().backend(backend).decode(bytes);
        for backend in others() {
            for end in 0..stream.len() {
                let cut = &stream[..end];
                assert_eq!(decode(backend.clone(), cut), decode(Backend::Portable, cut), "{backend}: {end} bytes");
            }
            for bit in 0..stream.len() * 8 {
                let mut bad = stream.clone();
                bad[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(decode(backend.clone(), &bad), decode(Backend::Portable, &bad), "{backend}: bit {bit}");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn any_feature_is_coded_alike(
        shape in proptest::collection::vec(1..12usize, 1..6),
        channels in 1..80usize,
        seed in any::<u32>(),
        size in 0.01..1e4f32,
        hard in any::<bool>(),
        scale in 0.005..20f32,
        chunks in 1..6usize,
        rdo in any::<bool>(),
    ) {
        let mut shape = shape;
        shape.truncate(3);
        shape.push(channels);
        let axis = shape.len() - 1 - seed as usize % shape.len();
        shape.swap(axis, 0);
        let feature = noise::<f32>(&shape, seed, size, hard);
        let view = FeatureView::from(&feature).channel_axis(axis);
        check(&Encoder::plain().chunks(chunks).rdo(rdo), None, &view, Quality::Scale(scale));
    }
}

#[cfg(feature = "rayon")]
#[test]
fn any_number_of_threads_gives_the_same_bytes() {
    let waves = profiles().swap_remove(0);
    let features = [noise::<f32>(&[3, 6, 90, 80], 5, 4.0, false), noise::<f32>(&[1, 6, 300, 70], 6, 4.0, false)];
    let on_threads = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let mut all = Vec::new();
            for feature in &features {
                for chunks in [2, 7, 64] {
                    for encoder in [Encoder::plain(), Encoder::with_profile(waves.clone())] {
                        let mut encoder = encoder.chunks(chunks);
                        for quality in [Quality::Scale(0.3), Quality::Sqnr(12.0)] {
                            let stream = encoder.encode(feature, quality).unwrap();
                            let decoded = Decoder::new().profile(waves.clone()).decode(&stream).unwrap();
                            // The error, too, is that of the first chunk that is wrong.
                            let mut broken = stream.clone();
                            for part in 1..4 {
                                broken[stream.len() * part / 4] ^= 0x55;
                            }
                            let error = Decoder::new().profile(waves.clone()).decode(&broken).map(|f| bits(&f));
                            all.push((stream, bits(&decoded), error));
                        }
                    }
                }
            }
            all
        })
    };
    let one = on_threads(1);
    for threads in [2, 5] {
        assert!(on_threads(threads) == one, "{threads} threads");
    }
}
