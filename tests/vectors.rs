//! Proves that streams and profiles written once decode to the same features for ever. The files
//! under `tests/vectors` are never regenerated; `NARROWS_WRITE_VECTORS=1` only adds missing ones.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use half::{bf16, f16};
use narrows::datagram::{Assembler, Concealment, Datagrams};
use narrows::fit::{FitOptions, Transforms};
use narrows::{Axes, Backend, Clip, Decoder, Element, Encoder, Feature, FeatureView, Info, Packed, Profile, Quality};
use ndarray::{ArrayD, IxDyn, s};

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

/// Waves whose strength differs from place to place, channels last.
fn bursts(seed: usize) -> ArrayD<f32> {
    let mut state = seed as u32 * 2_246_822_519 + 777;
    let mut noise = move || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / 16_777_216.0 - 0.5
    };
    let strengths: Vec<f32> = (0..9).map(|_| (noise() * 6.0).exp2()).collect();
    ArrayD::from_shape_fn(IxDyn(&[1, 9, 10, 40]), |at| {
        let (y, x, c) = (at[1], at[2], at[3] as f32);
        let slow = (c * 0.7 + y as f32 * 0.4 + x as f32 * 0.2).sin() + (c * 0.31).cos();
        strengths[(y / 3) * 3 + x / 4] * (slow * 0.5 + noise() * 2.0)
    })
}

/// Everything that a float may be.
fn wild(shape: &[usize]) -> ArrayD<f32> {
    let values =
        [0.0, -0.0, 1.0, -1.0, f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 1e-40, -1e-42, f32::MAX, f32::MIN, 0.5];
    let mut i = 0;
    ArrayD::from_shape_simple_fn(IxDyn(shape), || {
        i += 1;
        values[i * i % values.len()]
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

fn profiles() -> [Arc<Profile>; 3] {
    ["waves", "rectified", "bursts"]
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
    let path = folder.join("bursts.profile.safetensors");
    if !path.exists() {
        let mut samples: Vec<_> = (0..40).map(bursts).collect();
        let axes = Some(Axes { channels: 3, batch: Some(0) });
        let options = FitOptions { axes, blocks: Some(vec![3]), target: 0.02, ..FitOptions::default() };
        Profile::fit(&mut samples, None, &options, &mut |_| {}).unwrap().save(&path).unwrap();
    }
    let [profile, rectified, bursting] = profiles();
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
    stream(
        "profile-rectified-planes",
        Encoder::with_profile(rectified.clone()).chunks(1),
        (&planes).into(),
        scale(0.5),
    );
    stream("plain-rectified", Encoder::plain(), (&third).into(), scale(0.5));
    let other_size = f32s.slice(s![0, ..6, .., ..]).to_owned();
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

    // Every dtype and every rank.
    let bf16s = feature::<bf16>(&[6, 7, 8], 2.0);
    stream("2-plain-bf16", Encoder::plain(), (&bf16s).into(), scale(0.7));
    stream("2-plain-f16", Encoder::plain(), (&halves).into(), scale(0.5));
    stream("2-plain-i8", Encoder::plain().chunks(2), (&i8s).into(), scale(0.5));
    stream("2-plain-u8", Encoder::plain(), (&u8s).into(), scale(0.5));
    for rank in 1..=8 {
        let shape: Vec<usize> = (0..rank).map(|axis| 2 + (axis * 5 + rank) % 4).collect();
        stream(&format!("2-plain-rank-{rank}"), Encoder::plain(), (&feature::<f32>(&shape, 1.0)).into(), scale(1.0));
    }
    // Every number of lanes, with groups that they do not fill; several numbers of chunks.
    let wide = feature::<f32>(&[1, 45, 9, 7], 1.0);
    for lanes in [1, 2, 4, 8, 16, 32] {
        let encoder = Encoder::plain().lanes(lanes);
        stream(&format!("2-plain-lanes-{lanes}"), encoder, (&wide).into(), scale(0.25));
    }
    for chunks in [2, 5, 9] {
        let encoder = Encoder::plain().chunks(chunks).checksums(chunks == 5);
        stream(&format!("2-plain-chunks-{chunks}"), encoder, (&wide).into(), scale(1.0));
    }
    // Fine and coarse steps, one value, nothing, everything.
    stream("2-plain-escapes", Encoder::plain().lanes(16), (&wide).into(), scale(0.003));
    stream("2-plain-coarse", Encoder::plain(), (&wide).into(), scale(60.0));
    stream("2-plain-zeros", Encoder::plain(), (&ArrayD::<f32>::zeros(IxDyn(&[3, 4, 5]))).into(), scale(1.0));
    stream("2-plain-constant", Encoder::plain(), (&ArrayD::from_elem(IxDyn(&[5, 6, 7]), 3.25f32)).into(), scale(1.0));
    stream("2-plain-wild", Encoder::plain(), (&wild(&[4, 5, 6])).into(), scale(1.0));
    stream("2-plain-one", Encoder::plain(), (&ArrayD::from_elem(IxDyn(&[1]), -7.5f32)).into(), scale(1.0));
    stream("2-plain-checksum", Encoder::plain().checksums(true), (&bf16s).into(), scale(1.0));
    stream("2-plain-budget", Encoder::plain(), (&wide).into(), Quality::Bytes(500));
    stream("2-plain-rectified", Encoder::plain().lanes(2), (&third).into(), scale(0.2));
    let last = FeatureView::from(&wide).channel_axis(3).batch_axis(None);
    stream("2-plain-channels-last", Encoder::plain(), last, scale(1.0));
    // Noise that is not worth more bytes than itself.
    let noise = feature::<u8>(&[64, 9], 400.0);
    stream("2-plain-too-fine", Encoder::plain(), (&noise).into(), scale(0.001));

    let short = feature::<f32>(&[3, 5, 7], 1.0);
    for bits in 1..=8 {
        let encoder = packed(bits, if bits % 2 == 0 { Clip::MinMax } else { Clip::Aciq });
        stream(&format!("2-packed-{bits}"), encoder.checksums(bits == 5), (&short).into(), scale(1.0));
    }
    stream("2-packed-i8", packed(3, Clip::MinMax), (&i8s).into(), scale(1.0));
    stream("2-packed-bf16", packed(6, Clip::MinMax), (&bf16s).into(), scale(1.0));
    stream("2-packed-wild", packed(4, Clip::MinMax), (&wild(&[3, 17])).into(), scale(1.0));

    stream("2-lossless-f32", Encoder::lossless(), (&wild(&[2, 3, 40])).into(), scale(1.0));
    stream("2-lossless-bf16", Encoder::lossless(), (&bf16s).into(), scale(1.0));
    stream("2-lossless-u8", Encoder::lossless().checksums(true), (&u8s).into(), scale(1.0));
    let steps = ArrayD::from_shape_fn(IxDyn(&[4, 300]), |at| (at[1] / 10) as f32 * 0.25);
    stream("2-lossless-steps", Encoder::lossless(), (&steps).into(), scale(1.0));

    // Each profile, coarse and fine, in chunks and lanes, at another size, and with nothing to code.
    for (name, profile, sample) in
        [("waves", &profile, &first), ("rectified", &rectified, &third), ("bursts", &bursting, &bursts(300))]
    {
        let encoder = || Encoder::with_profile(profile.clone());
        let (channels, columns) = if name == "bursts" { (3, 2) } else { (1, 3) };
        stream(&format!("2-{name}"), encoder(), FeatureView::from(sample).channel_axis(channels), scale(1.0));
        stream(
            &format!("2-{name}-fine"),
            encoder().lanes(32),
            FeatureView::from(sample).channel_axis(channels),
            scale(0.02),
        );
        stream(
            &format!("2-{name}-coarse"),
            encoder().checksums(true),
            FeatureView::from(sample).channel_axis(channels),
            scale(8.0),
        );
        stream(&format!("2-{name}-silent"), encoder(), FeatureView::from(sample).channel_axis(channels), scale(5000.0));
        let views = [sample.view(), sample.view(), sample.view()];
        let batch = ndarray::concatenate(ndarray::Axis(0), &views).unwrap();
        stream(
            &format!("2-{name}-batch"),
            encoder().checksums(true),
            FeatureView::from(&batch).channel_axis(channels),
            scale(0.5),
        );
        let narrow = sample.slice_axis(ndarray::Axis(columns), (1..6).into()).to_owned();
        stream(
            &format!("2-{name}-narrow"),
            encoder().chunks(2).lanes(4),
            FeatureView::from(&narrow).channel_axis(channels),
            scale(0.3),
        );
    }
    // Layers, and what is left of them when a stream is cut off.
    let two = ndarray::concatenate(ndarray::Axis(0), &[third.view(), waves(104, true).view()]).unwrap();
    let with = |profile: &Arc<Profile>, layers| Encoder::with_profile(profile.clone()).layers(layers);
    for (name, mut encoder, sample, channels, quality) in [
        ("waves-layers", with(&profile, 4), &first, 1, scale(0.1)),
        ("rectified-layers", with(&rectified, 3).chunks(5), &two, 1, scale(0.2)),
        ("bursts-layers", with(&bursting, 3).checksums(true), &bursts(301), 3, scale(0.7)),
        ("waves-layers-lanes", with(&profile, 2).lanes(4).chunks(3).checksums(true), &second, 1, scale(0.3)),
        (
            "bursts-layers-narrow",
            with(&bursting, 2).lanes(32),
            &bursts(302).slice(s![.., ..4, ..5, ..]).to_owned().into_dyn(),
            3,
            scale(0.4),
        ),
        ("waves-layers-silent", with(&profile, 3), &first, 1, scale(40.0)),
    ] {
        let whole = encoder.encode(FeatureView::from(sample).channel_axis(channels), quality).unwrap();
        let mut ends = Info::read(&whole).unwrap().layers;
        ends.dedup();
        for (layer, &end) in (1..).zip(&ends) {
            let name = format!("2-{name}-{layer}");
            write(&format!("{name}.stream"), &whole[..end]);
            write(&format!("{name}.feature"), &bytes(&decoder().decode(&whole[..end]).unwrap()));
        }
    }
    // Datagrams, each behind its length; all of them are the feature that the stream of this quality is.
    for (name, profile, sample, channels, scale, options) in [
        ("waves-parts", &profile, &first, 1, 0.2, Datagrams { parts: 3, ..Datagrams::default() }),
        (
            "waves-copies",
            &profile,
            &first,
            1,
            0.05,
            Datagrams { number: 700, parts: 8, copies: 1, ..Datagrams::default() },
        ),
        ("rectified-parts", &rectified, &two, 1, 0.02, Datagrams { bytes: 200, ..Datagrams::default() }),
        ("rectified-copies", &rectified, &third, 1, 0.3, Datagrams { parts: 2, copies: 2, ..Datagrams::default() }),
        ("bursts-parts", &bursting, &bursts(303), 3, 0.01, Datagrams { bytes: 60_000, ..Datagrams::default() }),
        ("bursts-copies", &bursting, &bursts(304), 3, 0.1, Datagrams { parts: 5, copies: 3, ..Datagrams::default() }),
    ] {
        let view = FeatureView::from(sample).channel_axis(channels);
        let sent = Encoder::with_profile(profile.clone()).datagrams(view, Quality::Scale(scale), &options).unwrap();
        let mut assembler = Assembler::new(profile.clone());
        for datagram in &sent {
            assembler.push(datagram).unwrap();
        }
        let whole = assembler.take(options.number, Concealment::Means).unwrap();
        let framed = |datagram: &Vec<u8>| [&(datagram.len() as u16).to_le_bytes()[..], datagram].concat();
        write(&format!("1-{name}.datagrams"), &sent.iter().flat_map(framed).collect::<Vec<u8>>());
        write(&format!("1-{name}.feature"), &bytes(&whole));
    }
    let bytes_of_waves = first.mapv(|x| (x * 10.0 + 100.0) as u8);
    stream("2-waves-u8", Encoder::with_profile(profile.clone()), (&bytes_of_waves).into(), scale(1.0));
    stream("2-waves-wild", Encoder::with_profile(profile.clone()), (&wild(&[1, 6, 8, 8])).into(), scale(1.0));
    let none = ArrayD::<f32>::zeros(IxDyn(&[0, 6, 8, 8]));
    stream("2-waves-empty", Encoder::with_profile(profile), (&none).into(), scale(1.0));
}

/// The hash of every file, as `sha256sum` writes and checks them.
fn manifest() -> String {
    let mut names: Vec<_> = fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    let names = names.iter().map(|name| name.to_str().unwrap()).filter(|&name| name != MANIFEST);
    let line = |name: &str| {
        let hash = hmac_sha256::Hash::hash(&fs::read(folder().join(name)).unwrap());
        let hex: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{hex}  {name}\n")
    };
    names.map(line).collect()
}

const MANIFEST: &str = "SHA256SUMS";

#[test]
fn the_golden_files_are_those_of_the_manifest() {
    let written = fs::read_to_string(folder().join(MANIFEST)).unwrap();
    assert_eq!(manifest(), written, "a golden file was changed, or one was added without the manifest");
}

/// The datagrams of a file, each of which is behind its length.
fn datagrams(mut file: &[u8]) -> Vec<&[u8]> {
    let mut datagrams = Vec::new();
    while let Some((&length, rest)) = file.split_first_chunk::<2>() {
        let (datagram, rest) = rest.split_at(usize::from(u16::from_le_bytes(length)));
        datagrams.push(datagram);
        file = rest;
    }
    datagrams
}

#[test]
fn golden_datagrams_decode_to_what_they_always_did() {
    let mut count = 0;
    for (name, profile) in ["waves", "rectified", "bursts"].into_iter().zip(profiles()) {
        for entry in fs::read_dir(folder()).unwrap() {
            let path = entry.unwrap().path();
            let stem = path.file_stem().unwrap().to_str().unwrap();
            if path.extension().is_none_or(|extension| extension != "datagrams") || !stem.contains(name) {
                continue;
            }
            let (file, expected) = (fs::read(&path).unwrap(), fs::read(path.with_extension("feature")).unwrap());
            for backend in Backend::available() {
                let mut assembler = Assembler::new(profile.clone()).backend(backend.clone());
                let received: Vec<_> =
                    datagrams(&file).into_iter().map(|datagram| assembler.push(datagram).unwrap()).collect();
                let last = received.last().unwrap();
                assert_eq!(last.missing, 0, "{stem}");
                let feature = assembler.take(last.feature, Concealment::Means).unwrap();
                assert_eq!(bytes(&feature), expected, "{stem} on {}", backend.name());
            }
            count += 1;
        }
    }
    assert!(count >= 6, "{count} golden features in datagrams");
}

#[test]
fn golden_streams_decode_to_what_they_always_did() {
    if std::env::var_os("NARROWS_WRITE_VECTORS").is_some() {
        write_missing();
        fs::write(folder().join(MANIFEST), manifest()).unwrap();
    }
    let mut decoder = decoder();
    let mut count = 0;
    for entry in fs::read_dir(folder()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "stream") {
            // An interpreter runs no C, and so no zstd.
            if cfg!(miri) && path.to_str().is_some_and(|path| path.contains("lossless") || path.contains("too-fine")) {
                count += 1;
                continue;
            }
            let decoded = decoder.decode(&fs::read(&path).unwrap());
            let decoded = decoded.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            assert_eq!(bytes(&decoded), fs::read(path.with_extension("feature")).unwrap(), "{}", path.display());
            count += 1;
        }
    }
    assert!(count >= 95, "{count} golden streams");
}
