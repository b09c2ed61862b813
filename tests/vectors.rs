//! Proves that streams and profiles written once decode to the same features for ever. The files
//! under `tests/vectors` are never regenerated; `NARROWS_WRITE_VECTORS=1` only adds missing ones.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use half::f16;
use narrows::fit::FitOptions;
use narrows::{Clip, Decoder, Element, Encoder, Feature, FeatureView, Packed, Profile, Quality, decode};
use ndarray::{ArrayD, IxDyn};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors")
}

fn feature<T: Element>(shape: &[usize], scale: f32) -> ArrayD<T> {
    let mut state = 1u32;
    ArrayD::from_shape_simple_fn(IxDyn(shape), || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let noise = (state >> 8) as f32 / 16_777_216.0 - 0.5;
        T::from_f32((noise * noise * noise * 8.0 * scale).max(-0.2 * scale))
    })
}

fn smooth(seed: usize) -> ArrayD<f32> {
    ArrayD::from_shape_fn(IxDyn(&[1, 6, 8, 8]), |at| {
        let phase = (seed * 37 % 101) as f32 * 0.1;
        (phase + at[2] as f32 * 0.3 + at[1] as f32).sin() + (phase * 2.0 - at[3] as f32 * 0.2).cos() * at[1] as f32
    })
}

/// The bytes of a feature, for comparison with a file.
fn bytes(feature: &Feature) -> Vec<u8> {
    match feature {
        Feature::F32(array) => array.iter().flat_map(|x| x.to_le_bytes()).collect(),
        Feature::F16(array) => array.iter().flat_map(|x| x.to_le_bytes()).collect(),
        Feature::Bf16(array) => array.iter().flat_map(|x| x.to_le_bytes()).collect(),
        Feature::I8(array) => array.iter().flat_map(|x| x.to_le_bytes()).collect(),
        Feature::U8(array) => array.iter().copied().collect(),
        other => panic!("no bytes for {other:?}"),
    }
}

fn write_missing() {
    let folder = folder();
    fs::create_dir_all(&folder).unwrap();
    let write = |name: &str, content: &[u8]| {
        let path = folder.join(name);
        if !path.exists() {
            fs::write(path, content).unwrap();
        }
    };
    let path = folder.join("smooth.profile.safetensors");
    if !path.exists() {
        let mut samples: Vec<_> = (0..24).map(smooth).collect();
        let profile = Profile::fit(&mut samples, None, &FitOptions::default(), &mut |_| {}).unwrap();
        profile.save(&path).unwrap();
    }
    let profile = Arc::new(Profile::load(&path).unwrap());
    let stream = |name: &str, mut encoder: Encoder, view: FeatureView<'_>, quality: Quality| {
        let stream = encoder.encode(view, quality).unwrap();
        let feature = decode(&stream, Some(&profile)).unwrap();
        write(&format!("{name}.stream"), &stream);
        write(&format!("{name}.feature"), &bytes(&feature));
    };
    let scale = Quality::Scale;
    let (f32s, halves) = (feature::<f32>(&[1, 9, 10, 11], 1.0), feature::<f16>(&[5, 40], 3.0));
    let (i8s, u8s) = (feature::<i8>(&[3, 4, 5, 2, 3], 60.0), feature::<u8>(&[17], 100.0));
    let packed = |bits, clip| Encoder::packed(Packed { bits, clip });
    let smooths = [smooth(100), smooth(101)];
    stream("profile-1", Encoder::with_profile(profile.clone()), (&smooths[0]).into(), scale(1.0));
    stream("profile-fine", Encoder::with_profile(profile.clone()).lanes(8), (&smooths[1]).into(), scale(0.05));
    let other_size = f32s.slice(ndarray::s![0, ..6, .., ..]).to_owned();
    stream("profile-other-size", Encoder::with_profile(profile.clone()).chunks(2), (&other_size).into(), scale(0.5));
    stream("plain-f32", Encoder::plain(), (&f32s).into(), scale(1.0));
    stream("plain-f32-escapes", Encoder::plain().chunks(3).lanes(4), (&f32s).into(), scale(0.004));
    stream("plain-f16", Encoder::plain(), (&halves).into(), Quality::Sqnr(18.0));
    stream("plain-i8", Encoder::plain(), (&i8s).into(), scale(1.0));
    stream("packed-u8", packed(3, Clip::MinMax), (&u8s).into(), scale(1.0));
    stream("packed-f32", packed(4, Clip::Aciq), (&f32s).into(), scale(1.0));
    stream("packed-1-bit", packed(1, Clip::Aciq), (&halves).into(), scale(1.0));
    stream("lossless-f16", Encoder::lossless(), (&halves).into(), scale(1.0));
    stream("lossless-i8", Encoder::lossless(), (&i8s).into(), scale(1.0));
    stream("plain-empty", Encoder::plain(), (&feature::<f32>(&[0, 3, 2], 1.0)).into(), scale(1.0));
    stream("lossless-empty", Encoder::lossless(), (&feature::<u8>(&[2, 0], 1.0)).into(), scale(1.0));
}

#[test]
fn golden_streams_decode_to_what_they_always_did() {
    if std::env::var_os("NARROWS_WRITE_VECTORS").is_some() {
        write_missing();
    }
    let profile = Profile::load(folder().join("smooth.profile.safetensors")).unwrap();
    let mut decoder = Decoder::new().profile(Arc::new(profile));
    let mut count = 0;
    for entry in fs::read_dir(folder()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "stream") {
            let decoded = decoder.decode(&fs::read(&path).unwrap());
            let decoded = decoded.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            assert_eq!(bytes(&decoded), fs::read(path.with_extension("feature")).unwrap(), "{}", path.display());
            count += 1;
        }
    }
    assert!(count >= 14, "{count} golden streams");
}
