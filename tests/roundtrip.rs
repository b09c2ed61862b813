//! Proves that what is encoded comes back: shape and dtype always, values within what the mode
//! promises, for every dtype, rank, memory order, mode and quality.

use std::sync::Arc;

use half::{bf16, f16};
use narrows::fit::FitOptions;
use narrows::{
    Backend, Clip, Decoder, Dtype, Element, Encoder, Error, Feature, FeatureView, Info, Mode, Packed, Profile, Quality,
    decode,
};
use ndarray::{ArrayD, IxDyn, ShapeBuilder};
use proptest::prelude::*;

fn noise(seed: u64, i: usize) -> f32 {
    let mut z = (seed ^ i as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 31)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    ((z >> 40) as f32 / 16_777_216.0 - 0.5) * 4.0
}

fn shape() -> impl Strategy<Value = Vec<usize>> {
    prop_oneof![
        proptest::collection::vec(0..6usize, 1..=8).prop_filter("small", |s| s.iter().product::<usize>() < 4096),
        proptest::collection::vec(1..40usize, 1..=3),
        (1..3usize, 1..70usize, 1..10usize, 1..10usize).prop_map(|(n, c, h, w)| vec![n, c, h, w]),
    ]
}

fn array<T: Element>(shape: &[usize], seed: u64, fortran: bool, scale: f32) -> ArrayD<T> {
    let mut i = 0;
    ArrayD::from_shape_simple_fn(IxDyn(shape).set_f(fortran), || {
        i += 1;
        T::from_f32(noise(seed, i) * scale)
    })
}

fn check<T: Element + PartialEq + std::fmt::Debug>(
    shape: &[usize],
    seed: u64,
    fortran: bool,
    scale: f32,
    quality: f32,
    axes: (usize, Option<usize>),
) -> Result<(), TestCaseError> {
    let array = array::<T>(shape, seed, fortran, scale);
    let channels = axes.0 % shape.len();
    let batch = axes.1.map(|b| b % shape.len()).filter(|&b| b != channels);
    let view = FeatureView::from(&array).channel_axis(channels).batch_axis(batch);

    let lossless = decode(&Encoder::lossless().encode(view.clone(), Quality::default()).unwrap(), None).unwrap();
    prop_assert_eq!(&lossless, &Feature::from(array.as_standard_layout().to_owned().into_dyn()));

    for clip in [Clip::Aciq, Clip::MinMax] {
        for bits in [1, 3, 8] {
            let packed = Packed { bits, clip };
            let stream = Encoder::packed(packed).encode(view.clone(), Quality::default()).unwrap();
            let info = Info::read(&stream).unwrap();
            prop_assert_eq!(info.payload_bytes, packed.payload_bytes(array.len()) + 6);
            let back = decode(&stream, None).unwrap();
            prop_assert_eq!((back.shape(), back.dtype()), (shape, T::DTYPE));
        }
    }

    let mut encoder = Encoder::plain();
    let stream = encoder.encode(view.clone(), Quality::Scale(quality)).unwrap();
    let back = decode(&stream, None).unwrap();
    prop_assert_eq!((back.shape(), back.dtype()), (shape, T::DTYPE));
    let info = Info::read(&stream).unwrap();
    // Noise in fine steps is not worth more bytes than itself.
    prop_assert!(matches!(info.mode, Mode::Plain | Mode::Lossless));
    prop_assert!(stream.len() <= array.len() * size_of::<T>() + 64);
    prop_assert_eq!(info.layout.unwrap().shape(), shape);
    prop_assert_eq!(encoder.encode(view.clone(), Quality::Scale(quality)).unwrap(), stream.clone());

    for budget in [stream.len() / 2, stream.len(), stream.len() + 7] {
        match encoder.encode(view.clone(), Quality::Bytes(budget)) {
            Ok(stream) => {
                prop_assert!(stream.len() <= budget);
                decode(&stream, None).unwrap();
            }
            Err(Error::LimitExceeded { needed, limit, .. }) => prop_assert!(needed > limit && limit == budget as u64),
            Err(other) => return Err(TestCaseError::fail(other.to_string())),
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn every_mode_gives_back_shape_and_dtype(
        shape in shape(),
        seed in any::<u64>(),
        fortran in any::<bool>(),
        dtype in 0..5usize,
        scale in prop_oneof![Just(1.0f32), Just(1e-20), Just(30.0), Just(1e9)],
        quality in prop_oneof![Just(0.01f32), Just(0.3), Just(1.0), Just(9.0)],
        axes in (0..8usize, proptest::option::of(0..8usize)),
    ) {
        match Dtype::ALL[dtype] {
            Dtype::F32 => check::<f32>(&shape, seed, fortran, scale, quality, axes)?,
            Dtype::F16 => check::<f16>(&shape, seed, fortran, scale.min(100.0), quality, axes)?,
            Dtype::Bf16 => check::<bf16>(&shape, seed, fortran, scale, quality, axes)?,
            Dtype::I8 => check::<i8>(&shape, seed, fortran, scale.min(30.0), quality, axes)?,
            Dtype::U8 => check::<u8>(&shape, seed, fortran, scale.min(30.0), quality, axes)?,
        }
    }

    #[test]
    fn sqnr_targets_are_reached(seed in any::<u64>(), target in 1.0f32..45.0) {
        let array = array::<f32>(&[8, 9, 11], seed, false, 3.0);
        let stream = Encoder::plain().encode(&array, Quality::Sqnr(target)).unwrap();
        let back = decode(&stream, None).unwrap().to_f32();
        let signal: f64 = array.iter().map(|&x| f64::from(x).powi(2)).sum();
        let error: f64 = array.iter().zip(&back).map(|(&x, &y)| (f64::from(x) - f64::from(y)).powi(2)).sum();
        prop_assert!(10.0 * (signal / error).log10() >= f64::from(target) - 1e-3);
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..120), mode in 0..4u8) {
        let mut bytes = bytes;
        if bytes.len() > 1 {
            bytes[0] = 0xf7;
            bytes[1] = bytes[1] & 0b0011_1100 | mode;
        }
        let _ = decode(&bytes, None);
        let _ = Info::read(&bytes);
    }
}

/// Smooth features with structure between channels, so that transforms have something to find.
fn samples(count: usize, shape: [usize; 4], rectified: bool) -> Vec<ArrayD<f32>> {
    (0..count)
        .map(|i| {
            let phase = |k: usize| noise(7, i * 100 + k) * 3.0;
            ArrayD::from_shape_fn(IxDyn(&shape), |at| {
                let (c, y, x) = (at[1], at[2] as f32, at[3] as f32);
                let basis = |k: usize| (phase(k) + y * 0.2 * (k % 3) as f32 + x * 0.15 * (k % 4) as f32).sin();
                let value = (0..4).map(|k| basis(k) * noise(3, c * 10 + k)).sum::<f32>()
                    + 0.05 * noise(i as u64, at[1] * 977 + at[2] * 31 + at[3]);
                if rectified { value.max(0.0) } else { value }
            })
        })
        .collect()
}

fn fitted(rectified: bool) -> (Arc<Profile>, Vec<ArrayD<f32>>) {
    let mut all = samples(40, [1, 12, 16, 16], rectified);
    let held_out = all.split_off(32);
    let profile = Profile::fit(&mut all, None, &FitOptions::default(), &mut |_| {}).unwrap();
    (Arc::new(profile), held_out)
}

#[test]
fn a_fitted_profile_codes_new_features_in_few_bytes() {
    for rectified in [false, true] {
        let (profile, held_out) = fitted(rectified);
        let mut encoder = Encoder::with_profile(profile.clone());
        let mut decoder = Decoder::new().profile(profile.clone());
        for feature in &held_out {
            let mut last = usize::MAX;
            for scale in [0.25, 0.5, 1.0, 2.0, 4.0] {
                let stream = encoder.encode(feature, Quality::Scale(scale)).unwrap();
                assert!(stream.len() <= last, "a coarser step made a longer stream");
                last = stream.len();
                let back = decoder.decode(&stream).unwrap();
                assert_eq!(back.shape(), feature.shape());
                if scale <= 0.5 {
                    let (mut signal, mut error) = (0.0, 0.0);
                    for (&x, &y) in feature.iter().zip(&back.to_f32()) {
                        signal += x * x;
                        error += (x - y) * (x - y);
                    }
                    assert!(error < 0.05 * signal, "{error} of {signal}");
                }
            }
            let stream = encoder.encode(feature, Quality::Scale(1.0)).unwrap();
            assert_eq!(Info::read(&stream).unwrap().header_bytes, 12);
            let plain = Encoder::plain().encode(feature, Quality::Sqnr(15.0)).unwrap();
            assert!(stream.len() < plain.len(), "{} {}", stream.len(), plain.len());
        }
    }
}

#[test]
fn profiles_come_back_from_their_bytes_and_equal_samples_give_equal_bytes() {
    let (profile, _) = fitted(false);
    let bytes = profile.to_bytes();
    assert_eq!(*profile, Profile::from_bytes(&bytes).unwrap());
    assert_eq!(fitted(false).0.to_bytes(), bytes);
    for at in (0..bytes.len()).step_by(bytes.len() / 200 + 1) {
        let mut bad = bytes.clone();
        bad[at] ^= 0x40;
        // A change may hit the notes, which are for people; anything else is noticed.
        if let Ok(changed) = Profile::from_bytes(&bad) {
            assert_eq!(changed.hash(), profile.hash());
        }
        assert!(Profile::from_bytes(&bytes[..at]).is_err());
    }
}

#[test]
fn a_wrong_or_missing_profile_is_named() {
    let (profile, held_out) = fitted(false);
    let other = fitted(true).0;
    let stream = Encoder::with_profile(profile.clone()).encode(&held_out[0], Quality::default()).unwrap();
    let stream_hash = profile.hash();
    assert_eq!(decode(&stream, None), Err(Error::ProfileMismatch { stream: stream_hash, given: None }));
    let given = Some(other.hash());
    assert_eq!(decode(&stream, Some(&other)), Err(Error::ProfileMismatch { stream: stream_hash, given }));
}

#[test]
fn other_sizes_batches_and_chunks_decode_alike() {
    let (profile, _) = fitted(false);
    let mut decoder = Decoder::new().profile(profile.clone());
    for shape in [[1, 12, 5, 7], [3, 12, 16, 16], [2, 12, 33, 1], [0, 12, 4, 4], [1, 12, 0, 3]] {
        let feature = samples(1, shape, false).remove(0);
        let mut first = None;
        for chunks in [1, 2, 3, 100] {
            for lanes in [1, 8, 32] {
                let mut encoder = Encoder::with_profile(profile.clone()).chunks(chunks).lanes(lanes).rdo(false);
                let stream = encoder.encode(&feature, Quality::Scale(1.0)).unwrap();
                let back = decoder.decode(&stream).unwrap();
                assert_eq!(back.shape(), shape);
                assert_eq!(first.get_or_insert(back.clone()), &back, "{shape:?} {chunks} {lanes}");
            }
        }
    }
    let wrong = samples(1, [1, 11, 16, 16], false).remove(0);
    let error = Encoder::with_profile(profile).encode(&wrong, Quality::default()).unwrap_err();
    assert!(error.to_string().contains("11 channels") && error.to_string().contains("fitted on 12"), "{error}");
}

#[test]
fn padding_counts_against_the_limits() {
    let (profile, _) = fitted(false);
    let (rows, columns) = profile.block();
    assert!(rows * columns > 1, "the test needs a profile with a DCT");
    let narrow = samples(1, [60, 12, 1, 1], false).remove(0);
    let stream = Encoder::with_profile(profile.clone()).encode(&narrow, Quality::default()).unwrap();
    let allowed = |output_bytes| {
        let limits = narrows::Limits { output_bytes, ..narrows::Limits::default() };
        Decoder::new().profile(profile.clone()).limits(limits).decode(&stream).map(|_| ())
    };
    let bytes = narrow.len() as u64 * 4;
    let error = allowed(bytes).unwrap_err();
    assert!(matches!(error, Error::LimitExceeded { what: "decoded bytes with padding", .. }), "{error}");
    assert_eq!(allowed(bytes * (rows * columns) as u64), Ok(()));
}

#[test]
fn byte_budgets_are_hard_and_used() {
    let (profile, held_out) = fitted(false);
    let mut encoder = Encoder::with_profile(profile);
    for feature in &held_out {
        let finest = encoder.encode(feature, Quality::Scale(1.0 / 256.0)).unwrap().len();
        for budget in [40, 80, 200, 500, 1000] {
            let stream = encoder.encode(feature, Quality::Bytes(budget)).unwrap();
            assert!(
                stream.len() <= budget && stream.len() * 10 >= budget.min(finest) * 7,
                "{} of {budget}",
                stream.len()
            );
        }
        let error = encoder.encode(feature, Quality::Bytes(5)).unwrap_err();
        assert!(matches!(error, Error::LimitExceeded { what: "byte budget", needed: 12.., limit: 5 }), "{error}");
    }
}

#[test]
fn every_truncation_of_a_stream_is_an_error() {
    let (profile, held_out) = fitted(true);
    let view = FeatureView::from(&held_out[0]);
    let streams = [
        Encoder::with_profile(profile.clone()).chunks(3).encode(view.clone(), Quality::default()).unwrap(),
        Encoder::plain().encode(view.clone(), Quality::Scale(4.0)).unwrap(),
        Encoder::packed(Packed { bits: 2, clip: Clip::Aciq }).encode(view.clone(), Quality::default()).unwrap(),
        Encoder::lossless().encode(view, Quality::default()).unwrap(),
    ];
    for stream in streams {
        for end in 0..stream.len() {
            let error = decode(&stream[..end], Some(&profile)).unwrap_err();
            assert!(matches!(error, Error::Truncated { .. } | Error::Corrupt { .. }), "{end}: {error}");
        }
        let mut longer = stream.clone();
        longer.extend([0, 0]);
        assert!(decode(&longer, Some(&profile)).is_err());
    }
}

#[test]
fn values_that_are_no_numbers_are_tamed() {
    let array = ArrayD::from_shape_vec(
        IxDyn(&[2, 2, 2]),
        vec![f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 1e-40, -0.0, 1.0, -2.0, 3.0],
    )
    .unwrap();
    let back = decode(&Encoder::plain().encode(&array, Quality::Scale(0.01)).unwrap(), None).unwrap().to_f32();
    assert!(back.iter().all(|x| x.is_finite()));
    assert_eq!(back[[0, 0, 0]], 0.0);
    assert!(back[[0, 0, 1]] >= 2.9 && back[[0, 1, 0]] <= -2.9);
    assert!((back[[1, 1, 1]] - 3.0).abs() < 0.05);
}

#[test]
fn a_refused_stream_leaves_nothing_of_the_feature_before_it() {
    let (first, second) =
        (array::<f32>(&[1, 20, 30, 30], 1, false, 9.0), array::<f32>(&[1, 20, 30, 30], 2, false, 9.0));
    for backend in Backend::available() {
        let mut encoder = Encoder::plain().backend(backend.clone());
        let stream = encoder.encode(&first, Quality::Scale(0.2)).unwrap();
        let mut broken = encoder.encode(&second, Quality::Scale(0.2)).unwrap();
        let end = broken.len() - 3;
        broken[end] ^= 1;
        let mut decoder = Decoder::new().backend(backend);
        let mut feature = decoder.decode(&stream).unwrap();
        assert!(decoder.decode_into(&broken, &mut feature).is_err());
        // Neither the first feature nor the part of the second that was decoded before the error was seen.
        let Feature::F32(array) = &feature else { panic!("another type") };
        assert!(array.iter().all(|&x| x == 0.0));
        // Nor does the decoder remember.
        decoder.decode_into(&stream, &mut feature).unwrap();
        assert_eq!(feature, Decoder::new().decode(&stream).unwrap());
    }
}

#[test]
fn symbols_are_those_of_the_steps() {
    let profile = Profile::from_bytes(include_bytes!("vectors/waves.profile.safetensors")).unwrap();
    let feature = ArrayD::from_shape_fn(IxDyn(&[1, 6, 11, 8]), |at| ((at[1] + 2 * at[2]) as f32 * 0.3).sin());
    let symbols = |scale| profile.symbols(&feature, scale).unwrap();
    let (rows, columns) = profile.block();
    assert_eq!(symbols(1.0).shape(), [1, 11usize.div_ceil(rows), 8usize.div_ceil(columns), rows * columns * 6]);
    let sum = |scale| symbols(scale).iter().map(|symbol| symbol.abs()).sum::<i32>();
    assert!(0 < sum(4.0) && sum(4.0) < sum(1.0) && sum(1.0) < sum(0.25));
    let other = ArrayD::<f32>::zeros(IxDyn(&[1, 5, 8, 8]));
    assert!(matches!(profile.symbols(&other, 1.0), Err(Error::InvalidInput { .. })));
    assert!(matches!(profile.symbols(&feature, -1.0), Err(Error::InvalidInput { .. })));
}
