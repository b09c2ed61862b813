//! Proves that streams and profiles written once decode to the same features for ever. The files
//! under `tests/vectors` are never regenerated; `NARROWS_WRITE_VECTORS=1` only adds missing ones.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use half::f16;
use narrows::fit::{FitOptions, Transforms};
use narrows::{Clip, Decoder, Element, Encoder, Feature, FeatureView, Packed, Profile, Quality};
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

/// Waves that differ between samples, with noise on top.
fn waves(seed: usize, rectified: bool) -> ArrayD<f32> {
    let mut state = seed as u32 * 2_654_435_761 + 12_345;
    let mut noise = move || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / 16_777_216.0 - 0.5
    };
    let phases: Vec<f32> = (0..24).map(|_| noise() * 6.0).collect();
    ArrayD::from_shape_fn(IxDyn(&[1, 6, 8, 8]), |at| {
        let (c, y, x) = (at[1], at[2] as f32, at[3] as f32);
        let wave = |k: usize| (phases[4 * c + k] + y * 0.3 * k as f32 + x * 0.4).sin() * (1.0 + phases[k]);
        let value = wave(0) + wave(1) + wave(2) + wave(3) + noise();
        if rectified { value.max(0.0) } else { value }
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

fn profiles() -> [Arc<Profile>; 2] {
    ["waves", "rectified"]
        .map(|name| Arc::new(Profile::load(folder().join(format!("{name}.profile.safetensors"))).unwrap()))
}

fn decoder() -> Decoder {
    profiles().into_iter().fold(Decoder::new(), Decoder::profile)
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
    for (name, transforms) in [("waves", Transforms::All), ("rectified", Transforms::Identity)] {
        let path = folder.join(format!("{name}.profile.safetensors"));
        if !path.exists() {
            let mut samples: Vec<_> = (0..40).map(|seed| waves(seed, name == "rectified")).collect();
            let options = FitOptions { transforms, ..FitOptions::default() };
            Profile::fit(&mut samples, None, &options, &mut |_| {}).unwrap().save(&path).unwrap();
        }
    }
    let [profile, rectified] = profiles();
    let stream = |name: &str, mut encoder: Encoder, view: FeatureView<'_>, quality: Quality| {
        let stream = encoder.encode(view, quality).unwrap();
        let feature = decoder().decode(&stream).unwrap();
        write(&format!("{name}.stream"), &stream);
        write(&format!("{name}.feature"), &bytes(&feature));
    };
    let scale = Quality::Scale;
    let (f32s, halves) = (feature::<f32>(&[1, 9, 10, 11], 1.0), feature::<f16>(&[5, 40], 3.0));
    let (i8s, u8s) = (feature::<i8>(&[3, 4, 5, 2, 3], 60.0), feature::<u8>(&[17], 100.0));
    let packed = |bits, clip| Encoder::packed(Packed { bits, clip });
    let [first, second, third] = [waves(100, false), waves(101, false), waves(102, true)];
    stream("profile-waves", Encoder::with_profile(profile.clone()), (&first).into(), scale(1.0));
    stream("profile-waves-fine", Encoder::with_profile(profile.clone()).lanes(8), (&second).into(), scale(0.05));
    stream("profile-rectified", Encoder::with_profile(rectified.clone()), (&third).into(), scale(1.0));
    stream("profile-rectified-fine", Encoder::with_profile(rectified.clone()).chunks(4), (&third).into(), scale(0.1));
    // Several planes in one chunk: the row above the first of a plane is in another plane.
    let views: Vec<_> = (200..204).map(|seed| waves(seed, true)).collect();
    let planes = ndarray::concatenate(ndarray::Axis(0), &views.iter().map(|v| v.view()).collect::<Vec<_>>()).unwrap();
    stream("profile-rectified-planes", Encoder::with_profile(rectified).chunks(1), (&planes).into(), scale(0.5));
    stream("plain-rectified", Encoder::plain(), (&third).into(), scale(0.5));
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
    let mut decoder = decoder();
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
    assert!(count >= 18, "{count} golden streams");
}
