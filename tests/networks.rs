//! Profiles with networks: what they code comes back, alike on every backend; what they ask for is bounded; and streams
//! written once decode to the same features for ever.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use narrows::{Backend, Decoder, Encoder, Error, Info, Level, Limits, Profile, Quality};
use ndarray::{ArrayD, IxDyn};
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView, serialize};
use serde_json::{Value, json};

const CHANNELS: usize = 6;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors")
}

/// Numbers that are the same on every machine.
struct Random(u32);

impl Random {
    fn next(&mut self) -> f32 {
        self.0 = self.0.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (self.0 >> 8) as f32 / 16_777_216.0 - 0.5
    }

    fn integers(&mut self, count: usize, most: f32) -> Vec<i32> {
        (0..count).map(|_| (self.next() * 2.0 * most) as i32).collect()
    }
}

/// Waves that differ between samples, with noise on top.
fn waves(seed: usize, (height, width): (usize, usize)) -> ArrayD<f32> {
    let mut random = Random(seed as u32 * 2_654_435_761 + 99);
    let phases: Vec<f32> = (0..24).map(|_| random.next() * 6.0).collect();
    ArrayD::from_shape_fn(IxDyn(&[1, CHANNELS, height, width]), |at| {
        let (c, y, x) = (at[1], at[2] as f32, at[3] as f32);
        let wave = |k: usize| (phases[4 * c + k] + y * 0.3 * k as f32 + x * 0.4).sin() * (1.0 + phases[k]);
        wave(0) + wave(1) + wave(2) + wave(3) + random.next()
    })
}

/// The numbers and the nodes of a network.
#[derive(Default)]
struct Draft {
    nodes: Vec<Value>,
    weights: Vec<i8>,
    constants: Vec<i32>,
    values: Vec<f32>,
}

impl Draft {
    /// A residual block in integers: 1x1, depthwise 3x3, 1x1 and the sum with its input, whose last weights are at most `last`.
    fn integer(last: f32) -> Draft {
        let (mut draft, mut random) = (Draft::default(), Random(7));
        let hidden = 10;
        let mut convolution =
            |side: usize, depthwise: bool, inputs: usize, outputs: usize, most: f32, ends: [i32; 4]| {
                let [input, add, low, quality] = ends;
                let count = side * side * outputs * if depthwise { 1 } else { inputs };
                draft.weights.extend(random.integers(count, most).iter().map(|&weight| weight as i8));
                draft.constants.extend(random.integers(outputs, most * 100.0));
                if quality > 0 {
                    draft.constants.extend(random.integers(outputs, 300.0));
                }
                draft.constants.extend(random.integers(outputs, 8_000.0).iter().map(|&m| 20_000 + m));
                draft.nodes.push(json!({
                "op": "convolution", "kernel": [side, side], "stride": 1, "padding": [side / 2, side / 2],
                "depthwise": depthwise, "transposed": null, "quality": quality > 0, "slope": false, "shifts": [4, 16],
                "bounds": [low, 32_767], "input": input, "add": if add < 0 { Value::Null } else { json!(add) },
                "channels": outputs,
            }));
            };
        convolution(1, false, CHANNELS, hidden, 120.0, [0, -1, 0, 1]);
        convolution(3, true, hidden, hidden, 120.0, [1, -1, 0, 0]);
        convolution(1, false, hidden, CHANNELS, last, [2, 0, -32_768, 0]);
        draft
    }

    /// Half the rows and columns, or, transposed, twice as many.
    fn resizing(inputs: usize, outputs: usize, transposed: bool) -> Draft {
        let (mut draft, mut random) = (Draft::default(), Random(11));
        draft.values.extend((0..9 * inputs * outputs).map(|_| (random.next() * 64.0).round() / 128.0));
        draft.values.extend((0..outputs).map(|_| (random.next() * 64.0).round() / 64.0));
        draft.nodes.push(json!({
            "op": "convolution", "kernel": [3, 3], "stride": 2, "padding": [1, 1], "depthwise": false,
            "transposed": if transposed { json!(1) } else { Value::Null }, "quality": false, "slope": false,
            "bounds": [null, null], "input": 0, "add": null, "channels": outputs,
        }));
        draft
    }

    /// A residual block in f32 whose numbers f16 holds.
    fn float() -> Draft {
        let mut draft = Draft::resizing(CHANNELS, CHANNELS, false);
        draft.nodes[0]["stride"] = json!(1);
        draft.nodes[0]["add"] = json!(0);
        draft.values.iter_mut().for_each(|value| *value /= 16.0);
        draft
    }
}

fn le<T: Copy, const N: usize>(values: &[T], bytes: impl Fn(T) -> [u8; N]) -> Vec<u8> {
    values.iter().flat_map(|&value| bytes(value)).collect()
}

/// The golden profile `waves` with networks and gains, as a draft that another program might have written.
fn draft(analysis: Option<(&str, &Draft)>, synthesis: Option<&Draft>, gain: i16) -> Vec<u8> {
    let file = fs::read(folder().join("waves.profile.safetensors")).unwrap();
    let (_, header) = SafeTensors::read_metadata(&file).unwrap();
    let metadata: Value = serde_json::from_str(&header.metadata().as_ref().unwrap()["narrows"]).unwrap();
    let mut scalars = metadata["profile"].clone();
    scalars["version"] = json!(2);
    scalars["latent_exponent"] = scalars["exponent"].clone();
    scalars["analysis"] =
        analysis.map_or(Value::Null, |(arithmetic, draft)| json!({ "arithmetic": arithmetic, "nodes": draft.nodes }));
    scalars["synthesis"] = synthesis.map_or(Value::Null, |draft| json!({ "nodes": draft.nodes }));
    let golden = SafeTensors::deserialize(&file).unwrap();
    let mut tensors: Vec<(String, Dtype, Vec<usize>, Vec<u8>)> = Vec::new();
    for name in ["band_matrix", "dct.columns", "dct.rows", "matrix.forward", "matrix.inverse", "mean", "range", "step"]
    {
        let tensor = golden.tensor(name).unwrap();
        tensors.push((name.into(), tensor.dtype(), tensor.shape().to_vec(), tensor.data().to_vec()));
    }
    let none = Draft::default();
    let own = analysis.map_or(&none, |(_, draft)| draft);
    let made = &synthesis.unwrap_or(&none).values;
    let steps = golden.tensor("step").unwrap().shape()[0];
    let anchors: Vec<i16> = (-6..=6).map(|i| i * 16).collect();
    let gains: Vec<i16> =
        if gain == 0 { Vec::new() } else { (0..anchors.len() * steps).map(|i| (i % 5) as i16 * gain).collect() };
    let mut push = |name: &str, dtype, count: usize, bytes| tensors.push((name.into(), dtype, vec![count], bytes));
    push("analysis.weights", Dtype::I8, own.weights.len(), le(&own.weights, i8::to_le_bytes));
    push("analysis.constants", Dtype::I32, own.constants.len(), le(&own.constants, i32::to_le_bytes));
    push("analysis.values", Dtype::F32, own.values.len(), le(&own.values, f32::to_le_bytes));
    push("synthesis.values", Dtype::F32, made.len(), le(made, f32::to_le_bytes));
    push("anchor", Dtype::I16, anchors.len(), le(&anchors, i16::to_le_bytes));
    push("gain", Dtype::I16, gains.len(), le(&gains, i16::to_le_bytes));
    let views = tensors
        .iter()
        .map(|(name, dtype, shape, bytes)| (name.clone(), TensorView::new(*dtype, shape.clone(), bytes).unwrap()));
    let text = json!({ "profile": scalars, "notes": "a test" }).to_string();
    serialize(views, &Some(HashMap::from([("narrows".to_string(), text)]))).unwrap()
}

fn fitted(draft: &[u8]) -> Arc<Profile> {
    let mut samples: Vec<ArrayD<f32>> = (0..24).map(|seed| waves(seed, (8, 8))).collect();
    Arc::new(Profile::assemble(draft).unwrap().refit(&mut samples, &mut |_| {}).unwrap())
}

fn backends() -> impl Iterator<Item = Backend> {
    let levels = Level::ALL.into_iter().filter(|level| level.is_available()).map(Backend::Simd);
    [Backend::Portable].into_iter().chain(levels)
}

#[test]
fn every_backend_makes_the_same_stream_and_nearly_the_same_feature() {
    let integer = Draft::integer(60.0);
    let float = Draft::float();
    let profile = fitted(&draft(Some(("integer", &integer)), Some(&float), 3));
    assert!(profile.has_networks() && profile.is_exact());
    let [analysis, synthesis] = profile.cost(profile.layout()).map(Option::unwrap);
    assert_eq!(analysis.macs, (6 * 10 + 90 + 60) * 64);
    assert_eq!([synthesis.macs, synthesis.parameters], [9 * 36 * 64, 9 * 36 + 6]);
    for size in [(8, 8), (11, 5), (1, 1), (3, 20)] {
        let feature = waves(100, size);
        for quality in
            [Quality::Scale(0.3), Quality::Scale(1.0), Quality::Scale(3.0), Quality::Bytes(100), Quality::Sqnr(-9.0)]
        {
            let mut expected: Option<(Vec<u8>, ArrayD<f32>)> = None;
            for backend in backends() {
                let mut encoder = Encoder::with_profile(profile.clone()).backend(backend.clone());
                let stream = encoder.encode(&feature, quality).unwrap();
                let decoded = Decoder::new().profile(profile.clone()).backend(backend.clone()).decode(&stream).unwrap();
                let decoded = decoded.to_f32();
                assert_eq!(decoded.shape(), feature.shape());
                let Some((bytes, values)) = &expected else {
                    expected = Some((stream, decoded));
                    continue;
                };
                assert_eq!(&stream, bytes, "{backend} at {quality:?}");
                let most = values.iter().fold(1.0f32, |most, value| most.max(value.abs()));
                let error = values.iter().zip(&decoded).fold(0.0f32, |most, (a, b)| most.max((a - b).abs()));
                assert!(error <= 1e-5 * most, "{error} of {most} on {backend}");
            }
        }
    }
}

#[test]
fn branches_of_zeros_change_nothing_but_the_hash() {
    let plain = fitted(&draft(None, None, 0));
    let branch = fitted(&draft(Some(("integer", &Draft { constants: zeroed_last(), ..Draft::integer(0.0) })), None, 0));
    assert_ne!(plain.hash(), branch.hash());
    let feature = waves(55, (8, 8));
    let [one, other] = [plain, branch].map(|profile| {
        let stream = Encoder::with_profile(profile.clone()).encode(&feature, Quality::Scale(0.7)).unwrap();
        (stream.len(), Decoder::new().profile(profile).decode(&stream).unwrap())
    });
    assert_eq!(one, other);
}

/// The constants of a block whose last convolution has no bias.
fn zeroed_last() -> Vec<i32> {
    let mut constants = Draft::integer(0.0).constants;
    let last = constants.len() - 2 * CHANNELS;
    constants[last..last + CHANNELS].fill(0);
    constants
}

#[test]
fn networks_may_change_size_and_channels() {
    let (down, up) = (Draft::resizing(CHANNELS, CHANNELS, false), Draft::resizing(CHANNELS, CHANNELS, true));
    let profile = fitted(&draft(Some(("float", &down)), Some(&up), 0));
    assert!(!profile.is_exact());
    for size in [(8, 8), (7, 10), (1, 3)] {
        let feature = waves(5, size);
        let stream = Encoder::with_profile(profile.clone()).encode(&feature, Quality::Scale(0.5)).unwrap();
        let decoded = Decoder::new().profile(profile.clone()).decode(&stream).unwrap();
        assert_eq!(decoded.shape(), feature.shape());
        // A quarter of the positions.
        assert!(stream.len() < 60 + feature.len() / 2, "{}", stream.len());
    }
}

#[test]
fn a_profile_with_networks_is_the_same_after_its_file() {
    let (integer, float) = (Draft::integer(60.0), Draft::float());
    let profile = fitted(&draft(Some(("integer", &integer)), Some(&float), 3));
    let bytes = profile.to_bytes();
    let again = Profile::from_bytes(&bytes).unwrap();
    assert_eq!((&again, again.to_bytes()), (&*profile, bytes.clone()));
    // The numbers of the synthesis network are such that f16 holds them.
    let file = SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(file.tensor("synthesis.values").unwrap().dtype(), Dtype::F16);
    let mut changed = bytes.clone();
    *changed.last_mut().unwrap() ^= 1;
    assert!(matches!(Profile::from_bytes(&changed), Err(Error::Corrupt { .. })));
}

#[test]
fn what_networks_ask_for_is_limited() {
    let (integer, float) = (Draft::integer(60.0), Draft::float());
    let profile = fitted(&draft(Some(("integer", &integer)), Some(&float), 0));
    let stream = Encoder::with_profile(profile.clone()).encode(&waves(1, (64, 64)), Quality::Scale(4.0)).unwrap();
    let decode = |limits| Decoder::new().profile(profile.clone()).limits(limits).decode(&stream);
    assert!(decode(Limits::default()).is_ok());
    for limits in [
        Limits { network_bytes: 64 * 64 * 6 * 4, ..Limits::default() },
        Limits { network_macs: 9 * 36 * 64 * 64 - 1, ..Limits::default() },
    ] {
        assert!(matches!(decode(limits), Err(Error::LimitExceeded { .. })));
        assert!(matches!(
            Profile::from_bytes_with(&profile.to_bytes(), &Limits { network_macs: 99, ..limits }),
            Err(Error::LimitExceeded { .. })
        ));
    }
    // Without synthesis there is nothing that could undo a change of size.
    let down = Draft::resizing(CHANNELS, CHANNELS, false);
    assert!(matches!(Profile::assemble(&draft(Some(("float", &down)), None, 0)), Err(Error::Corrupt { .. })));
    let fewer = Draft::resizing(CHANNELS, CHANNELS - 1, false);
    assert!(Profile::assemble(&draft(Some(("float", &fewer)), None, 0)).is_err());
}

/// The parts of a draft, changed at random: what is still read codes features, alike on every backend.
#[test]
fn changed_networks_are_refused_or_run() {
    let (integer, float) = (Draft::integer(60.0), Draft::float());
    let (down, up) = (Draft::resizing(CHANNELS, CHANNELS, false), Draft::resizing(CHANNELS, CHANNELS, true));
    let drafts = [draft(Some(("integer", &integer)), Some(&float), 3), draft(Some(("float", &down)), Some(&up), 0)];
    let mut random = Random(17);
    let mut below = |limit: usize| ((random.next() + 0.5) * limit as f32) as usize % limit.max(1);
    let feature = waves(3, (5, 7));
    let [mut read, mut coded] = [0, 0];
    for round in 0..1500 {
        let file = &drafts[round % 2];
        let (_, header) = SafeTensors::read_metadata(file).unwrap();
        let mut metadata: Value = serde_json::from_str(&header.metadata().as_ref().unwrap()["narrows"]).unwrap();
        let golden = SafeTensors::deserialize(file).unwrap();
        let mut tensors: Vec<(String, Dtype, Vec<usize>, Vec<u8>)> = golden
            .tensors()
            .iter()
            .map(|(name, view)| (name.clone(), view.dtype(), view.shape().to_vec(), view.data().to_vec()))
            .collect();
        for _ in 0..1 + below(3) {
            if below(3) == 0 {
                // A number of a network.
                let names = ["analysis.weights", "analysis.constants", "analysis.values", "synthesis.values", "gain"];
                let name = names[below(names.len())];
                let (_, _, _, bytes) = tensors.iter_mut().find(|(own, ..)| own == name).unwrap();
                if !bytes.is_empty() {
                    let at = below(bytes.len());
                    bytes[at] = [0, 1, 0x7f, 0x80, 0xff][below(5)];
                }
                continue;
            }
            let network = ["analysis", "synthesis"][below(2)];
            let Some(nodes) = metadata["profile"][network]["nodes"].as_array_mut() else { continue };
            let count = nodes.len();
            let node = &mut nodes[below(count)];
            let keys: Vec<String> = node.as_object().unwrap().keys().cloned().collect();
            let key = &keys[below(keys.len())];
            let numbers = [0, 1, 2, 3, 4, 6, 10, 17, 255, 1 << 20, u64::MAX];
            let number = json!(numbers[below(numbers.len())]);
            let pair = json!([numbers[below(5)], numbers[below(5)]]);
            node[key.as_str()] = [
                Value::Null,
                json!(true),
                json!("shuffle"),
                json!("unshuffle"),
                json!("normalisation"),
                pair,
                number.clone(),
                number,
            ][below(8)]
            .clone();
        }
        let views = tensors
            .iter()
            .map(|(name, dtype, shape, bytes)| (name.clone(), TensorView::new(*dtype, shape.clone(), bytes).unwrap()));
        let changed = serialize(views, &Some(HashMap::from([("narrows".to_string(), metadata.to_string())]))).unwrap();
        let Ok(profile) = Profile::assemble(&changed) else { continue };
        read += 1;
        assert_eq!(Profile::from_bytes(&profile.to_bytes()).unwrap(), profile);
        let profile = Arc::new(profile);
        for scale in [0.2, 30.0] {
            let mut streams = Vec::new();
            for backend in backends() {
                let mut encoder = Encoder::with_profile(profile.clone()).backend(backend.clone());
                let Ok(stream) = encoder.encode(&feature, Quality::Scale(scale)) else { continue };
                let limits = Limits { network_macs: 1 << 24, ..Limits::default() };
                let decoded = Decoder::new().profile(profile.clone()).limits(limits).backend(backend).decode(&stream);
                decoded.iter().for_each(|decoded| assert_eq!(decoded.shape(), feature.shape()));
                coded += usize::from(decoded.is_ok());
                streams.push(stream);
            }
            assert!(!profile.is_exact() || streams.windows(2).all(|pair| pair[0] == pair[1]));
        }
    }
    assert!(read > 100 && coded > 100, "{read} of 1500 were read, {coded} streams came back");
}

/// The golden streams: of several qualities, and of layers, whole and cut off.
fn golden_streams(profile: &Arc<Profile>) -> Vec<(String, Vec<u8>)> {
    let encode = |layers, scale| {
        let mut encoder = Encoder::with_profile(profile.clone()).layers(layers);
        encoder.encode(&waves(200, (11, 9)), Quality::Scale(scale)).unwrap()
    };
    let qualities = [("fine", 0.2), ("middle", 1.0), ("coarse", 2.5)];
    let whole = encode(3, 0.3);
    let layers = (1..).zip(Info::read(&whole).unwrap().layers);
    let layers = layers.map(|(layer, end)| (format!("layers-{layer}"), whole[..end].to_vec()));
    qualities.map(|(name, scale)| (name.to_string(), encode(1, scale))).into_iter().chain(layers).collect()
}

/// `NARROWS_WRITE_VECTORS=1` adds what is missing.
#[test]
fn golden_streams_with_networks_decode_for_ever() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/bottleneck");
    let path = folder.join("bottleneck.profile.safetensors");
    let writes = std::env::var_os("NARROWS_WRITE_VECTORS").is_some();
    if writes && !path.exists() {
        let (integer, float) = (Draft::integer(60.0), Draft::float());
        let profile = fitted(&draft(Some(("integer", &integer)), Some(&float), 3));
        fs::create_dir_all(&folder).unwrap();
        fs::write(&path, profile.to_bytes()).unwrap();
    }
    let profile = Arc::new(Profile::load(&path).unwrap());
    let mut features: Vec<Vec<f32>> = Vec::new();
    for (name, encoded) in golden_streams(&profile) {
        let [stream, feature] = ["stream", "feature"].map(|ending| folder.join(format!("{name}.{ending}")));
        if writes && !stream.exists() {
            let mut decoder = Decoder::new().profile(profile.clone()).backend(Backend::Portable);
            let values: Vec<f32> = decoder.decode(&encoded).unwrap().to_f32().iter().copied().collect();
            fs::write(&stream, &encoded).unwrap();
            fs::write(&feature, le(&values, f32::to_le_bytes)).unwrap();
        }
        let stream = fs::read(stream).unwrap();
        assert_eq!(encoded, stream, "{name}");
        let expected = fs::read(feature).unwrap();
        let expected: Vec<f32> = expected.as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect();
        for backend in backends() {
            let decoded = Decoder::new().profile(profile.clone()).backend(backend).decode(&stream).unwrap().to_f32();
            let error = decoded.iter().zip(&expected).fold(0.0f32, |most, (a, b)| most.max((a - b).abs()));
            assert!(error < 1e-4, "{name}: {error}");
            assert_eq!(decoded.len(), expected.len());
        }
        features.push(expected);
    }
    // Gains differ from quality to quality: each stream is another feature.
    assert!((1..features.len()).all(|i| !features[..i].contains(&features[i])));
}
