//! Proves what a stream may make the decoder allocate: next to nothing before its payload can be what it claims, and then
//! little beside the bytes and the feature. One test, in a process of its own: the counter counts every thread.

#[path = "support/counting.rs"]
mod counting;

use std::path::Path;
use std::sync::Arc;

use counting::{held as held_now, peak};

use half::f16;
use narrows::datagram::{Assembler, Datagrams};
use narrows::{Backend, Clip, Decoder, Element, Encoder, Error, FeatureView, Info, Limits, Packed, Profile, Quality};
use ndarray::{ArrayD, IxDyn};

/// Most bytes before the payload has proved itself.
const UNPROVED: usize = 64 << 10;

fn file(name: &str) -> Vec<u8> {
    std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors").join(name)).unwrap()
}

fn profiles() -> Vec<Arc<Profile>> {
    let names = ["waves", "rectified", "bursts"];
    names.map(|name| Arc::new(Profile::from_bytes(&file(&format!("{name}.profile.safetensors"))).unwrap())).into()
}

fn varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 128 {
        out.push(value as u8 | 128);
        value >>= 7;
    }
    out.push(value as u8);
}

/// A plain stream that claims this shape (channels first) and this many chunks, with levels of one bit each.
fn claim(shape: [u64; 3], chunks: u64, payload: usize) -> Vec<u8> {
    let mut out = vec![0xf7, 0b0110_1101, if chunks > 1 { 3 } else { 1 }, 0x34, 0xf0];
    shape.iter().for_each(|&size| varint(size, &mut out));
    if chunks > 1 {
        varint(chunks, &mut out);
        (1..chunks).for_each(|_| varint(payload as u64 / chunks, &mut out));
    }
    out.extend([0, 5, 100, 1, 1]);
    out.extend(vec![0xff; shape[0].div_ceil(8) as usize]);
    out.extend((0..payload).map(|i| (i * 151) as u8 | 1));
    out
}

fn claims_cost_nothing() {
    let mut streams = vec![
        // 256 MiB on the word of a few bytes.
        claim([1, 16_384, 16_384], 1, 200),
        claim([4096, 256, 256], 1, 4000),
        claim([65_536, 64, 64], 1, 2000),
        claim([1, 1, 268_435_456], 1, 128),
        claim([1, 65_536, 4096], 65_536, 0),
        claim([2, 60_000, 2], 60_000, 6_000_000),
    ];
    // Profiled streams of another size than the profile's.
    for profile in ["waves", "rectified", "bursts"] {
        let mut bytes = file(&format!("2-{profile}-narrow.stream"));
        let layout = 12 + 2;
        bytes.splice(layout..layout + 4, [1, 0xff, 0x1f, 0xff, 0x1f]);
        streams.push(bytes);
    }
    // Many rows on the word of a base layer without symbols, or with few, and of the layers above it.
    for (profile, scale, layers) in [(0, 0.2, 2), (0, 16.0, 4), (1, 0.1, 3), (1, 8.0, 4), (2, 0.5, 2), (2, 30.0, 4)] {
        let profile = &profiles()[profile];
        let mut shape = profile.layout().shape();
        let axes = profile.layout().axes;
        let row = (0..4).find(|&axis| axis != axes.channels && Some(axis) != axes.batch).unwrap();
        shape[row] += 1;
        let array = feature::<f32>(&shape).mapv(|value| value * 20.0);
        let view = FeatureView::from(&array).with_axes(axes);
        let mut encoder = Encoder::with_profile(profile.clone()).layers(layers);
        let mut bytes = encoder.encode(view, Quality::Scale(scale)).unwrap();
        assert!(Info::read(&bytes).unwrap().layers.len() == layers);
        // Magic, flags, hash, quality, extension, dtype and rank, axes; then a byte for each length.
        assert_eq!(usize::from(bytes[15 + row]), shape[row]);
        bytes.splice(15 + row..=15 + row, [0xff, 0xff, 0x07]);
        streams.push(bytes);
    }
    for backend in Backend::available() {
        let mut decoder = profiles().into_iter().fold(Decoder::new().backend(backend.clone()), Decoder::profile);
        for bytes in &streams {
            let (result, held) = peak(|| decoder.decode(bytes).map(drop));
            assert!(result.is_err(), "{:?}", &bytes[..20]);
            assert!(held <= UNPROVED, "{held} bytes for {:?} on {}: {result:?}", &bytes[..20], backend.name());
        }
    }
}

/// A feature that is not trivial, of which most symbols are.
fn feature<T: Element>(shape: &[usize]) -> ArrayD<T> {
    let mut state = 1u32;
    ArrayD::from_shape_simple_fn(IxDyn(shape), || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let noise = (state >> 8) as f32 / 16_777_216.0;
        T::from_f32(if noise < 0.9 { 0.0 } else { (noise - 0.9) * 900.0 })
    })
}

fn decoding_holds_little_beside_its_ends<T: Element>() {
    // Square maps, many channels, one row, one column, two long rows, channels last.
    let shapes: [&[usize]; 6] = [
        &[1, 64, 300, 300],
        &[1, 2048, 40, 40],
        &[3, 1, 2_000_000],
        &[1, 6_000_000, 1],
        &[2, 2, 1_500_000],
        &[700_000, 9],
    ];
    for shape in shapes {
        let array = feature::<T>(shape);
        let output = array.len() * size_of::<T>();
        let packed = Encoder::packed(Packed { bits: 3, clip: Clip::MinMax });
        for (name, mut encoder) in [
            ("plain", Encoder::plain()),
            ("chunks", Encoder::plain().chunks(64).checksums(true)),
            ("packed", packed),
            ("lossless", Encoder::lossless()),
        ] {
            if name == "chunks" && shape.len() < 4 {
                continue;
            }
            let stream = encoder.encode(FeatureView::from(&array), Quality::Scale(2.0)).unwrap();
            for backend in Backend::available().into_iter().rev().take(1).chain([Backend::Portable]) {
                if output > 8 << 20 && matches!(backend, Backend::Portable) {
                    continue;
                }
                let mut decoder = Decoder::new().backend(backend.clone());
                let (result, held) = peak(|| decoder.decode(&stream));
                let bound = (stream.len() + output) * 5 / 4 + (8 << 20);
                // The stream itself was there before.
                let held = held + stream.len();
                assert!(held <= bound, "{name} {shape:?} of {:?}: {held} > {bound}, {}", T::DTYPE, backend.name());
                assert_eq!(result.unwrap().shape(), shape);
            }
        }
    }
}

fn layers_are_decoded_in_little_more() {
    // Of each profile a large map, one row, one column, many small planes; then as many chunks as there may be.
    for (profile, scale) in profiles().into_iter().zip([4.0, 4.0, 40.0]) {
        let axes = profile.layout().axes;
        for (planes, rows, columns, chunks) in
            [(1, 700, 700, 1), (1, 1, 90_000, 1), (2, 90_000, 1, 64), (300, 30, 40, 300), (65_536, 1, 3, 65_536)]
        {
            let mut shape = profile.layout().shape();
            let spatial: Vec<usize> = (0..4).filter(|&axis| axis != axes.channels && axis != 0).collect();
            (shape[0], shape[spatial[0]], shape[spatial[1]]) = (planes, rows, columns);
            let array = feature::<u8>(&shape);
            let encoder = Encoder::with_profile(profile.clone()).chunks(chunks);
            for layers in [1, 4] {
                let mut encoder = encoder.clone().layers(layers);
                let stream = encoder.encode(FeatureView::from(&array).with_axes(axes), Quality::Scale(scale)).unwrap();
                assert_eq!(Info::read(&stream).unwrap().layers.len(), layers, "{shape:?}");
                let mut decoder = Decoder::new().profile(profile.clone());
                let (result, held) = peak(|| decoder.decode(&stream));
                let held = held + stream.len();
                let bound = (stream.len() + array.len()) * 5 / 4 + (8 << 20);
                println!("{shape:?} {layers} layers: {held} of {bound}");
                assert!(held <= bound, "{shape:?} in {layers} layers: {held} > {bound}");
                assert_eq!(result.unwrap().shape(), shape);
            }
        }
    }
}

fn contexts_of_long_rows_are_bounded() {
    // Each of four layers keeps the contexts of a row.
    let profile = profiles().swap_remove(1);
    for columns in [150_000, 600_000] {
        let array = feature::<u8>(&[1, 6, 1, columns]);
        for layers in [1, 4] {
            let mut encoder = Encoder::with_profile(profile.clone()).layers(layers);
            let stream = encoder.encode(&array, Quality::Scale(0.5)).unwrap();
            assert_eq!(Info::read(&stream).unwrap().layers.len(), layers);
            let mut decoder = Decoder::new().profile(profile.clone());
            let (result, held) = peak(|| decoder.decode(&stream));
            let (held, bound) = (held + stream.len(), (stream.len() + array.len()) * 5 / 4 + (8 << 20));
            assert!(held <= bound, "{columns} columns in {layers} layers: {held} > {bound}");
            match result {
                Ok(decoded) => assert_eq!(decoded.shape(), array.shape()),
                Err(error) => {
                    assert!(
                        matches!(error, Error::LimitExceeded { .. }) && layers == 4 && columns == 600_000,
                        "{error}"
                    );
                }
            }
        }
    }
}

fn a_profile_is_read_in_little_more_than_its_own_size() {
    for name in ["waves", "rectified", "bursts"] {
        let bytes = file(&format!("{name}.profile.safetensors"));
        let before = held_now();
        let (profile, held) = peak(|| Profile::from_bytes(&bytes).unwrap());
        let own = held_now() - before;
        assert!(held + bytes.len() <= (bytes.len() + own) * 5 / 4 + (8 << 20), "{held} for {own}");
        drop(profile);
        // Every prefix is refused without more.
        for end in (0..bytes.len()).step_by(97) {
            let (result, held) = peak(|| Profile::from_bytes(&bytes[..end]).map(drop));
            assert!(result.is_err() && held <= 2 * bytes.len() + UNPROVED, "{held} for {end}");
        }
    }
    // A header of a great many values.
    let text = format!("{{\"__metadata__\":{{\"narrows\":\"[{}]\"}}}}", "0,".repeat(400_000));
    let mut bytes = (text.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(text.as_bytes());
    let (result, held) = peak(|| Profile::from_bytes(&bytes).map(drop));
    assert!(result.is_err() && held <= UNPROVED, "{held}");
}

/// Features in datagrams of which one has come each: all of their symbols, in bytes, and no more than is admitted.
fn features_that_wait_for_datagrams_share_a_bound() {
    let profile = profiles().swap_remove(1);
    let array = feature::<u8>(&[1, 6, 400, 400]);
    let limits = Limits { output_bytes: 12 << 20, ..Limits::default() };
    let mut encoder = Encoder::with_profile(profile.clone());
    let sent: Vec<_> = (0..8)
        .map(|number| {
            let options = Datagrams { number, bytes: 60_000, parts: 8, ..Datagrams::default() };
            encoder.datagrams(&array, Quality::Scale(1.0), &options).unwrap().swap_remove(0)
        })
        .collect();
    let mut assembler = Assembler::new(profile.clone()).limits(limits);
    let (_, held) = peak(|| sent.iter().for_each(|datagram| assert!(assembler.push(datagram).unwrap().missing > 0)));
    let waiting = (0..8).filter(|&number| assembler.missing(number).is_some()).count();
    // Each has 3.8 MB; one more is there before the first gives way.
    assert_eq!(waiting, 3);
    assert!(held <= (12 << 20) + (6 << 20), "{held}");
    // On the word of a few bytes, whatever the type.
    let dense = Encoder::with_profile(profile.clone()).datagrams(
        &feature::<u8>(&[1, 6, 8, 9]),
        Quality::Scale(1.0),
        &Datagrams { parts: 2, ..Datagrams::default() },
    );
    let mut claim = dense.unwrap().swap_remove(0);
    assert_eq!(claim[14..16], [8, 9]);
    claim.splice(14..16, [0xff, 0x1f, 0xff, 0x1f]);
    let mut assembler = Assembler::new(profile);
    let (result, held) = peak(|| assembler.push(&claim).map(drop));
    assert!(result.is_err() && held <= UNPROVED, "{held}: {result:?}");
}

#[test]
fn memory_is_bounded_by_what_is_there() {
    // What is made once in a process.
    let warm = Encoder::plain().encode(&feature::<f32>(&[8, 8, 8]), Quality::default()).unwrap();
    for backend in Backend::available() {
        Decoder::new().backend(backend).decode(&warm).unwrap();
    }
    claims_cost_nothing();
    a_profile_is_read_in_little_more_than_its_own_size();
    layers_are_decoded_in_little_more();
    contexts_of_long_rows_are_bounded();
    features_that_wait_for_datagrams_share_a_bound();
    decoding_holds_little_beside_its_ends::<f32>();
    decoding_holds_little_beside_its_ends::<f16>();
    decoding_holds_little_beside_its_ends::<u8>();
}
