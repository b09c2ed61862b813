//! Datagrams: all parts, in any order and repeated, are the feature of the stream; lost ones are concealed, by neighbours
//! better than by means; what is damaged, of another feature or of another profile is refused, and nothing panics.

use std::path::Path;
use std::sync::Arc;

use narrows::datagram::{Assembler, Concealment, Datagrams, Request};
use narrows::{Encoder, Error, Feature, Limits, Profile, Quality, decode, fit::FitOptions};
use ndarray::{ArrayD, Dimension};

const PROFILES: [&str; 4] = [
    "demo/profile.safetensors",
    "demo/bottleneck.safetensors",
    "tests/support/wide.profile.safetensors",
    "tests/vectors/rectified.profile.safetensors",
];

fn profile(path: &str) -> Arc<Profile> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    Arc::new(Profile::from_bytes(&std::fs::read(path).unwrap()).unwrap())
}

/// Smooth, with some noise.
fn wave(shape: &[usize], seed: u64) -> ArrayD<f32> {
    let mut state = seed;
    ArrayD::from_shape_fn(shape, |at| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let noise = (state >> 40) as f32 / (1 << 24) as f32;
        let phases = [seed as f32, 0.7, 0.11, 0.13];
        let wave: f32 = at.slice().iter().zip(phases).map(|(&i, f)| i as f32 * f).sum();
        (wave + seed as f32).sin() * 4.0 + noise
    })
}

/// The numbers below `count`, shuffled.
fn shuffled(count: usize, seed: u64) -> Vec<usize> {
    let mut order: Vec<usize> = (0..count).collect();
    order.sort_by_key(|&i| (i as u64 + seed).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(23));
    order
}

#[test]
fn all_parts_in_any_order_are_the_feature_of_the_stream() {
    for path in PROFILES {
        let profile = profile(path);
        let mut shape = profile.layout().shape();
        let own = wave(&shape, 3);
        shape[2] += 3;
        for feature in [own, wave(&shape, 4)] {
            for (bytes, parts, copies, scale) in [
                (1200, 1, 0, 1.0),
                (1200, 1, 1, 1.0),
                (60_000, 16, 0, 0.25),
                (60_000, 2, 1, 0.25),
                (100, 3, 0, 4.0),
                (400, 255, 3, 1.0),
            ] {
                let quality = Quality::Scale(scale);
                let mut encoder = Encoder::with_profile(profile.clone());
                let expected = decode(&encoder.encode(&feature, quality).unwrap(), Some(&profile)).unwrap();
                let options = Datagrams { number: 9, bytes, parts, copies };
                let sent = match encoder.datagrams(&feature, quality, &options) {
                    Ok(sent) => sent,
                    Err(error) => {
                        assert!(matches!(error, Error::LimitExceeded { .. }) && bytes == 100, "{path}: {error}");
                        continue;
                    }
                };
                assert!(sent.len() >= parts && sent.iter().all(|datagram| datagram.len() <= bytes));
                let mut assembler = Assembler::new(profile.clone());
                for (count, i) in shuffled(sent.len(), 5).into_iter().enumerate() {
                    let received = assembler.push(&sent[i]).unwrap();
                    assert_eq!((received.repeated, received.missing), (false, sent.len() - count - 1));
                    assert!(assembler.push(&sent[i]).unwrap().repeated);
                }
                assert_eq!(assembler.request(9), None);
                assert_eq!(assembler.take(9, Concealment::Neighbours).unwrap(), expected, "{path}");
                assert!(assembler.take(9, Concealment::Neighbours).is_err());
            }
        }
    }
}

fn error(feature: &ArrayD<f32>, other: &Feature) -> f64 {
    feature.iter().zip(&other.to_f32()).map(|(a, b)| f64::from(a - b).powi(2)).sum()
}

#[test]
fn neighbours_conceal_better_than_means_and_requests_bring_the_rest() {
    let shape = [1, 6, 24, 24];
    let mut samples: Vec<_> = (0..40).map(|seed| wave(&shape, seed)).collect();
    let options = FitOptions { blocks: Some(vec![2]), ..FitOptions::default() };
    let profile = Arc::new(Profile::fit(&mut samples, None, &options, &mut |_| {}).unwrap());
    let mut encoder = Encoder::with_profile(profile.clone());
    let mut sums = [0.0; 3];
    for seed in 100..110 {
        let feature = wave(&shape, seed);
        let options = Datagrams { number: 1, parts: 8, ..Datagrams::default() };
        let sent = encoder.datagrams(&feature, Quality::Scale(1.0), &options).unwrap();
        for lost in 0..sent.len() {
            let assembled = || {
                let mut assembler = Assembler::new(profile.clone());
                for (_, datagram) in sent.iter().enumerate().filter(|&(i, _)| i != lost) {
                    assembler.push(datagram).unwrap();
                }
                assembler
            };
            sums[0] += error(&feature, &assembled().take(1, Concealment::Means).unwrap());
            sums[1] += error(&feature, &assembled().take(1, Concealment::Neighbours).unwrap());
            let mut assembler = assembled();
            let request = Request::from_bytes(&assembler.request(1).unwrap().to_bytes()).unwrap();
            assert_eq!((request.feature, &request.parts[..]), (1, &[lost as u8][..]));
            for part in request.parts {
                assembler.push(&sent[usize::from(part)]).unwrap();
            }
            sums[2] += error(&feature, &assembler.take(1, Concealment::Neighbours).unwrap());
        }
    }
    let [means, neighbours, whole] = sums;
    // Of what means lose, neighbours bring most back.
    assert!(whole < neighbours && neighbours - whole < 0.2 * (means - whole), "{sums:?}");
}

#[test]
fn a_copy_stands_for_a_lost_part_as_well_as_a_coarser_stream() {
    for path in PROFILES {
        let profile = profile(path);
        let feature = wave(&profile.layout().shape(), 21);
        let mut encoder = Encoder::with_profile(profile.clone());
        let [scale, coarser] = [0.25, 0.75].map(Quality::Scale);
        let mut stream = |quality| {
            let bytes = encoder.encode(&feature, quality).unwrap();
            decode(&bytes, Some(&profile)).unwrap()
        };
        let whole = stream(scale).to_f32();
        let coarse = error(&whole, &stream(coarser));
        let mut lost_one = |copies| -> f64 {
            let options = Datagrams { number: 4, bytes: 60_000, parts: 8, copies };
            let sent = encoder.datagrams(&feature, scale, &options).unwrap();
            let without = |lost: usize| {
                let mut assembler = Assembler::new(profile.clone());
                for (_, datagram) in sent.iter().enumerate().filter(|&(i, _)| i != lost) {
                    assembler.push(datagram).unwrap();
                }
                assert_eq!(assembler.missing(4), Some(vec![lost as u8]));
                error(&whole, &assembler.take(4, Concealment::Means).unwrap())
            };
            (0..8).map(without).sum::<f64>() / 8.0
        };
        let [none, one, two] = [0, 1, 2].map(&mut lost_one);
        // An eighth of the symbols is coarse.
        assert!(one < coarse / 4.0, "{path}: {one} {coarse}");
        assert!(one < two && two < none, "{path}: {one} {two} {none}");
    }
}

#[test]
fn a_part_takes_the_place_of_its_copy_and_a_copy_that_of_no_part() {
    let profile = profile(PROFILES[1]);
    let feature = wave(&profile.layout().shape(), 22);
    let mut encoder = Encoder::with_profile(profile.clone());
    let quality = Quality::Scale(0.25);
    let expected = decode(&encoder.encode(&feature, quality).unwrap(), Some(&profile)).unwrap();
    let options = Datagrams { number: 4, parts: 8, copies: 3, ..Datagrams::default() };
    let sent = encoder.datagrams(&feature, quality, &options).unwrap();
    for seed in 0..20 {
        let mut assembler = Assembler::new(profile.clone());
        for i in shuffled(sent.len(), seed) {
            assembler.push(&sent[i]).unwrap();
        }
        assert_eq!(assembler.take(4, Concealment::Neighbours).unwrap(), expected);
    }
}

#[test]
fn a_datagram_that_claims_much_costs_little() {
    for path in PROFILES {
        let profile = profile(path);
        let mut shape = profile.layout().shape();
        shape[2] += 1;
        let mut encoder = Encoder::with_profile(profile.clone());
        let options = Datagrams { parts: 2, copies: 1, ..Datagrams::default() };
        let mut bytes = encoder.datagrams(&wave(&shape, 5), Quality::Scale(1.0), &options).unwrap().swap_remove(0);
        // Behind ten bytes, the type and the axes: a byte for each length below 128.
        let rows = 14 + usize::from(shape[1] > 127);
        assert_eq!(usize::from(bytes[rows]), shape[2], "{path}");
        let limits = Limits { output_bytes: 1 << 16, network_bytes: 1 << 16, ..Limits::default() };
        let mut small = Assembler::new(profile.clone()).limits(limits);
        bytes.splice(rows..=rows, [0xff, 0xff, 0x03]);
        assert!(matches!(small.push(&bytes), Err(Error::LimitExceeded { .. })), "{path}");
        // Within the limits, its states are wrong.
        let error = Assembler::new(profile.clone()).push(&bytes).unwrap_err();
        assert!(
            matches!(error, Error::Truncated { .. } | Error::Corrupt { .. } | Error::LimitExceeded { .. }),
            "{path}: {error}"
        );
    }
}

#[test]
fn damaged_and_foreign_datagrams_are_refused() {
    for path in PROFILES {
        let profile = profile(path);
        let feature = wave(&profile.layout().shape(), 8);
        let mut encoder = Encoder::with_profile(profile.clone());
        let options = Datagrams { number: 300, bytes: 60_000, parts: 5, copies: 2 };
        let sent = encoder.datagrams(&feature, Quality::Scale(2.0), &options).unwrap();
        let mut assembler = Assembler::new(profile.clone());
        assembler.push(&sent[0]).unwrap();
        let mut unseen = 0;
        let datagram = &sent[1];
        for at in 0..datagram.len() {
            for mask in [1, 0x10, 0xff] {
                let mut bytes = datagram.clone();
                bytes[at] ^= mask;
                // Another feature is its own affair.
                if (2..4).contains(&at) {
                    continue;
                }
                unseen += usize::from(assembler.push(&bytes).is_ok());
            }
            assert!(assembler.push(&datagram[..at]).is_err());
        }
        // One in 2^16 may pass.
        assert!(unseen <= 1, "{path}: {unseen} changes went unnoticed");
        assert!(assembler.push(&[&datagram[..], &[1]].concat()).is_err());
        if unseen == 0 {
            assert_eq!(assembler.missing(300), Some(vec![1, 2, 3, 4]));
        }
        // What has the same number and another quality, or other parts, is another feature, and what has more of them counts.
        for (scale, parts) in [(1.0, 5), (2.0, 6)] {
            let options = Datagrams { parts, ..options };
            let other = encoder.datagrams(&feature, Quality::Scale(scale), &options).unwrap();
            assert_eq!(assembler.push(&other[2]).unwrap().missing, parts - 1, "{scale} {parts}");
        }
        for datagram in &sent[1..4] {
            assembler.push(datagram).unwrap();
        }
        assert_eq!(assembler.missing(300), Some(vec![4]));
    }
    let one = profile(PROFILES[0]);
    let sent = Encoder::with_profile(one.clone())
        .datagrams(&wave(&one.layout().shape(), 1), Quality::default(), &Datagrams::default())
        .unwrap();
    let error = Assembler::new(profile(PROFILES[3])).push(&sent[0]).unwrap_err();
    assert!(matches!(error, Error::ProfileMismatch { .. }));
}

#[test]
fn the_oldest_feature_makes_room() {
    let profile = profile(PROFILES[0]);
    let feature = wave(&profile.layout().shape(), 1);
    let mut assembler = Assembler::new(profile.clone());
    let mut encoder = Encoder::with_profile(profile);
    for number in 0..10 {
        let options = Datagrams { number, parts: 2, ..Datagrams::default() };
        assembler.push(&encoder.datagrams(&feature, Quality::Scale(4.0), &options).unwrap()[0]).unwrap();
    }
    let held: Vec<u16> = (0..10).filter(|&number| assembler.missing(number).is_some()).collect();
    assert_eq!(held, (2..10).collect::<Vec<_>>());
}

#[test]
fn what_comes_after_a_feature_was_taken_is_late() {
    let profile = profile(PROFILES[0]);
    let feature = wave(&profile.layout().shape(), 1);
    let mut assembler = Assembler::new(profile.clone());
    let mut encoder = Encoder::with_profile(profile);
    let mut sent = |number| {
        let options = Datagrams { number, parts: 2, ..Datagrams::default() };
        encoder.datagrams(&feature, Quality::Scale(4.0), &options).unwrap()
    };
    // The first feature is taken, then one of its datagrams comes again.
    let first = 65_500;
    let late = sent(first);
    for number in (0..300).map(|i| first.wrapping_add(i)) {
        for datagram in sent(number) {
            assembler.push(&datagram).unwrap();
        }
        assembler.take(number, Concealment::Means).unwrap();
        let late = assembler.push(&late[0]).unwrap();
        let apart = number.wrapping_sub(first);
        assert_eq!((late.repeated, late.missing), if apart <= 256 { (true, 0) } else { (false, 1) }, "{apart}");
    }
}

#[test]
fn rates_are_met_within_as_many_datagrams_as_there_can_be() {
    let profile = profile(PROFILES[0]);
    let feature = wave(&profile.layout().shape(), 1);
    let mut encoder = Encoder::with_profile(profile.clone());
    let mut sent = |quality, bytes| {
        let options = Datagrams { bytes, ..Datagrams::default() };
        encoder.datagrams(&feature, quality, &options)
    };
    let sqnr = |sent: &[Vec<u8>]| {
        let mut assembler = Assembler::new(profile.clone());
        for datagram in sent {
            assembler.push(datagram).unwrap();
        }
        let narrows::Feature::F32(made) = assembler.take(0, Concealment::Means).unwrap() else { panic!("not f32") };
        let noise: f32 = made.iter().zip(&feature).map(|(a, b)| (a - b) * (a - b)).sum();
        10.0 * (feature.iter().map(|x| x * x).sum::<f32>() / noise).log10()
    };
    // The finest steps do not fit into 255 of these.
    let small = 30;
    assert!(matches!(sent(Quality::Scale(1.0 / 256.0), small), Err(Error::LimitExceeded { .. })));
    let budget = sent(Quality::Scale(8.0), small).unwrap().iter().map(|datagram| datagram.len() + 2).sum::<usize>();
    let within = sent(Quality::Bytes(budget), small).unwrap();
    assert!(within.iter().map(|datagram| datagram.len() + 2).sum::<usize>() <= budget);
    let coarse = sqnr(&sent(Quality::Scale(8.0), small).unwrap());
    assert!(sqnr(&within) > 0.9 * coarse, "{} {coarse}", sqnr(&within));
    let reached = sqnr(&sent(Quality::Sqnr(coarse), small).unwrap());
    assert!((coarse..coarse + 3.0).contains(&reached), "{reached} {coarse}");
    let all = sent(Quality::Bytes(1 << 20), small).unwrap();
    assert!(all.iter().all(|datagram| datagram.len() <= small));
    let error = sent(Quality::Sqnr(500.0), small).unwrap_err();
    assert!(error.to_string().contains("that fit"), "{error}");
}

#[test]
fn options_out_of_range_are_errors() {
    let profile = profile(PROFILES[0]);
    let feature = wave(&profile.layout().shape(), 1);
    let mut encoder = Encoder::with_profile(profile.clone());
    for copies in [4, 255] {
        let options = Datagrams { parts: 2, copies, ..Datagrams::default() };
        assert!(matches!(encoder.datagrams(&feature, Quality::default(), &options), Err(Error::InvalidInput { .. })));
    }
    for parts in [0, 256] {
        let options = Datagrams { parts, ..Datagrams::default() };
        assert!(matches!(encoder.datagrams(&feature, Quality::default(), &options), Err(Error::InvalidInput { .. })));
    }
    let tiny = Datagrams { bytes: 12, ..Datagrams::default() };
    assert!(matches!(encoder.datagrams(&feature, Quality::default(), &tiny), Err(Error::LimitExceeded { .. })));
    let mut layered = encoder.clone().layers(2);
    assert!(layered.datagrams(&feature, Quality::default(), &Datagrams::default()).is_err());
    assert!(Encoder::plain().datagrams(&feature, Quality::default(), &Datagrams::default()).is_err());
}
