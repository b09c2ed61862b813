//! Streams of several layers: all layers together are the stream of one, bit for bit in what they decode to and nearly in
//! bytes; each prefix that ends where a layer does decodes, and gets closer to the feature; all else is refused.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;

use hmac_sha256::Hash;
use narrows::fit::FitOptions;
use narrows::{Decoder, Encoder, Error, Feature, Info, Limits, Profile, Quality};
use ndarray::{ArrayD, Dimension};
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView, serialize};
use serde_json::Value;

/// Profiles of every kind: without networks and with, context rules 0 to 2, features of one sign and of two.
const PROFILES: [&str; 4] = [
    "demo/profile.safetensors",
    "demo/bottleneck.safetensors",
    "tests/support/wide.profile.safetensors",
    "tests/bottleneck/bottleneck.profile.safetensors",
];

fn profile(path: &str) -> Arc<Profile> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    Arc::new(Profile::from_bytes(&std::fs::read(path).unwrap()).unwrap())
}

/// A smooth feature with some noise, positive, of the profile's own shape but for the number of rows.
fn feature(profile: &Profile, rows: usize, seed: u64) -> ArrayD<f32> {
    let mut shape = profile.layout().shape();
    let axis = shape.len() - 2;
    shape[axis] = rows;
    let mut state = seed;
    ArrayD::from_shape_fn(shape, |at| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let noise = (state >> 40) as f32 / (1 << 24) as f32;
        let wave = at.slice().iter().zip([0.9f32, 0.7, 0.31, 0.23]).map(|(&i, f)| i as f32 * f).sum::<f32>();
        (wave.sin() * 2.0 + noise).max(0.0)
    })
}

fn square_error(a: &ArrayD<f32>, b: &Feature) -> f64 {
    a.iter().zip(b.to_f32().iter()).map(|(a, b)| f64::from(a - b).powi(2)).sum()
}

#[test]
fn all_layers_are_the_stream_of_one_and_prefixes_decode() {
    for path in PROFILES {
        let profile = profile(path);
        let rows = profile.layout().shape()[profile.layout().shape().len() - 2];
        let mut decoder = Decoder::new().profile(profile.clone());
        for (rows, scale) in [(rows, 0.25), (rows, 1.0), (rows * 3 + 1, 0.5)] {
            let feature = feature(&profile, rows, 7);
            for (layers, chunks, checksums) in [(2, 1, false), (3, 1, true), (4, 2, false), (2, 3, true)] {
                let plain =
                    Encoder::with_profile(profile.clone()).chunks(chunks.min(rows / 8 + 1)).checksums(checksums);
                let one = plain.clone().encode(&feature, Quality::Scale(scale)).unwrap();
                let all = plain.clone().layers(layers).encode(&feature, Quality::Scale(scale)).unwrap();
                let ends = Info::read(&all).unwrap().layers;
                assert_eq!((ends.len(), ends[layers - 1]), (layers, all.len()));
                let expected = decoder.decode(&one).unwrap();
                assert_eq!(decoder.decode(&all).unwrap(), expected, "{path} {layers}");
                let errors: Vec<f64> =
                    ends.iter().map(|&end| square_error(&feature, &decoder.decode(&all[..end]).unwrap())).collect();
                // The networks of the last were made at random: they make nothing better. What little a layer may lose
                // elsewhere, it loses to the profile's means.
                if path == PROFILES[3] {
                    continue;
                }
                assert!(errors.windows(2).all(|pair| pair[1] <= pair[0] * 1.02), "{path} {scale}: {errors:?}");
                if scale < 1.0 {
                    assert!(errors[layers - 1] < 0.8 * errors[0], "{path} {scale}: {errors:?}");
                }
            }
        }
    }
}

#[test]
fn layers_cost_at_most_five_per_cent_of_a_stream_and_their_states() {
    let sample = |seed| {
        let mut state = seed;
        ArrayD::from_shape_fn(vec![1, 24, 16, 16], |at| {
            state = u64::wrapping_add(u64::wrapping_mul(state, 6_364_136_223_846_793_005), 1_442_695_040_888_963_407);
            let noise = ((state >> 40) as f32 / (1 << 24) as f32 - 0.5) * 3.0;
            (at[2] as f32 * 0.4 + at[1] as f32 + seed as f32).sin() + (at[3] as f32 * 0.3).cos() * 2.0 + noise
        })
    };
    let mut samples: Vec<ArrayD<f32>> = (0..40).map(sample).collect();
    let fitted = Profile::fit(&mut samples, None, &FitOptions::default(), &mut |_| {}).unwrap();
    let mut encoder = Encoder::with_profile(Arc::new(fitted));
    for scale in [0.35, 0.7, 1.4, 2.8] {
        let mut length = |layers| {
            encoder = encoder.clone().layers(layers);
            (100..120).map(|seed| encoder.encode(&sample(seed), Quality::Scale(scale)).unwrap().len()).sum::<usize>()
        };
        let one = length(1);
        for layers in 2..=4 {
            let all = length(layers);
            // A length of two bytes and a state of four for each, beside the five per cent.
            assert!(all <= one * 21 / 20 + 20 * (1 + 6 * (layers - 1)), "x{scale}, {layers} layers: {all} for {one}");
            assert!(all > one, "{layers} layers");
        }
    }
}

#[test]
fn what_was_cut_off_is_told_by_the_header_alone() {
    let profile = profile(PROFILES[0]);
    let stream =
        Encoder::with_profile(profile.clone()).layers(3).encode(&feature(&profile, 8, 1), Quality::Scale(0.5)).unwrap();
    let whole = Info::read(&stream).unwrap();
    for &end in &whole.layers {
        let info = Info::read(&stream[..end]).unwrap();
        let known = if end == stream.len() { 3 } else { 2 };
        assert_eq!(info.layers, whole.layers[..known]);
    }
    let mut decoder = Decoder::new().profile(profile);
    for end in (0..stream.len()).filter(|end| !whole.layers.contains(end)) {
        let result = decoder.decode(&stream[..end]);
        assert!(matches!(result, Err(Error::Truncated { .. } | Error::Corrupt { .. })), "{end}: {result:?}");
    }
    let long = [&stream[..], &[0, 0]].concat();
    assert!(matches!(decoder.decode(&long), Err(Error::Corrupt { .. })));
}

/// The demo's bottleneck with all levels 0, so that there is nothing to code at any quality, and a synthesis network whose
/// numbers are all alike, those for the quality among them.
fn silent() -> Profile {
    let file = std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join(PROFILES[1])).unwrap();
    let (_, header) = SafeTensors::read_metadata(&file).unwrap();
    let mut metadata: Value = serde_json::from_str(&header.metadata().as_ref().unwrap()["narrows"]).unwrap();
    let golden = SafeTensors::deserialize(&file).unwrap();
    let zeros = vec![0; golden.tensor("level").unwrap().data().len()];
    let values = golden.tensor("synthesis.values").unwrap();
    let number = if values.dtype() == Dtype::F16 { vec![0, 0x14] } else { 0.001f32.to_le_bytes().to_vec() };
    let values = number.repeat(values.data().len() / number.len());
    let mut hash = Hash::new();
    hash.update(metadata["profile"].to_string());
    let mut tensors = BTreeMap::new();
    for (name, view) in golden.tensors().into_iter().collect::<BTreeMap<_, _>>() {
        let bytes = match name.as_str() {
            "level" => &zeros[..],
            "synthesis.values" => &values,
            _ => golden.tensor(&name).unwrap().data(),
        };
        hash.update(&name);
        hash.update((bytes.len() as u64).to_le_bytes());
        hash.update(bytes);
        tensors.insert(name, TensorView::new(view.dtype(), view.shape().to_vec(), bytes).unwrap());
    }
    let hash = u64::from_le_bytes(hash.finalize()[..8].try_into().unwrap());
    metadata["hash"] = format!("{hash:016x}").into();
    let text = HashMap::from([("narrows".to_string(), metadata.to_string())]);
    Profile::from_bytes(&serialize(tensors, &Some(text)).unwrap()).unwrap()
}

#[test]
fn where_nothing_is_coded_no_layer_is_missing() {
    // Synthesis networks are told the quality: it shows at which one a stream was decoded.
    let profile = Arc::new(silent());
    let feature = feature(&profile, 8, 3);
    let mut decoder = Decoder::new().profile(profile.clone());
    let encode = |layers, scale| {
        Encoder::with_profile(profile.clone()).layers(layers).encode(&feature, Quality::Scale(scale)).unwrap()
    };
    let expected = decoder.decode(&encode(1, 0.5)).unwrap();
    assert_ne!(decoder.decode(&encode(1, 1.0)).unwrap(), expected);
    let all = encode(3, 0.5);
    let info = Info::read(&all).unwrap();
    assert_eq!((info.header_bytes, &info.layers[..]), (all.len(), &[all.len(); 2][..]));
    assert_eq!(decoder.decode(&all).unwrap(), expected);
}

#[test]
fn a_base_layer_may_be_empty() {
    for path in PROFILES {
        let profile = profile(path);
        let rows = profile.layout().shape()[profile.layout().shape().len() - 2];
        let feature = feature(&profile, rows, 11).mapv(|value| value * 20.0);
        let mut decoder = Decoder::new().profile(profile.clone());
        let mut seen = 0;
        for scale in (0..36).map(|eighths| (eighths as f32 / 4.0 - 1.0).exp2()) {
            let plain = Encoder::with_profile(profile.clone());
            let one = plain.clone().encode(&feature, Quality::Scale(scale)).unwrap();
            let all = plain.clone().layers(4).encode(&feature, Quality::Scale(scale)).unwrap();
            let info = Info::read(&all).unwrap();
            if info.layers[0] > info.header_bytes || info.layers.len() < 4 {
                continue;
            }
            seen += 1;
            assert_eq!(decoder.decode(&all).unwrap(), decoder.decode(&one).unwrap(), "{path} x{scale}");
            for &end in &info.layers {
                decoder.decode(&all[..end]).unwrap();
            }
        }
        println!("{path}: {seen} streams with an empty base layer");
        assert!(seen > 0 || path == PROFILES[0], "{path}");
    }
}

#[test]
fn every_damaged_layer_is_decoded_or_refused() {
    for path in PROFILES {
        let profile = profile(path);
        let rows = profile.layout().shape()[profile.layout().shape().len() - 2];
        let feature = feature(&profile, rows, 5);
        let limits = Limits { output_bytes: 1 << 24, ..Limits::default() };
        let mut decoder = Decoder::new().profile(profile.clone()).limits(limits);
        let encoder = Encoder::with_profile(profile.clone()).layers(3);
        let plain = encoder.clone().encode(&feature, Quality::Scale(2.0)).unwrap();
        let sealed = encoder.clone().checksums(true).encode(&feature, Quality::Scale(2.0)).unwrap();
        let step = (plain.len() / 200).max(1);
        for at in (0..plain.len()).step_by(step) {
            for mask in [1, 0x80, 0xff] {
                let mut bytes = plain.clone();
                bytes[at] ^= mask;
                let _ = decoder.decode(&bytes);
                let mut bytes = sealed.clone();
                bytes[at] ^= mask;
                assert!(decoder.decode(&bytes).is_err(), "{path}: a changed byte {at} went unnoticed");
            }
        }
    }
}

#[test]
fn layers_need_a_profile_and_a_number_that_there_is() {
    let profile = profile(PROFILES[0]);
    let feature = feature(&profile, 8, 1);
    for mut encoder in [
        Encoder::plain().layers(2),
        Encoder::lossless().layers(2),
        Encoder::with_profile(profile.clone()).layers(0),
        Encoder::with_profile(profile.clone()).layers(5),
    ] {
        let error = encoder.encode(&feature, Quality::default()).unwrap_err();
        assert!(matches!(error, Error::InvalidInput { .. }), "{error}");
    }
    // A budget holds for all layers.
    let stream = Encoder::with_profile(profile).layers(2).encode(&feature, Quality::Bytes(300)).unwrap();
    assert!(stream.len() <= 300);
}
