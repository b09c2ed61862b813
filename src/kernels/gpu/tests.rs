//! Proves parity for profiles that no file at hand holds: every context rule, with and without a Lagrangian, on few and on
//! many channels, in every lane count. As in `tests/gpu.rs`, an adapter may be missing unless `NARROWS_REQUIRE_GPU=1`.

use std::path::Path;
use std::sync::Arc;

use ndarray::{ArrayD, IxDyn};

use crate::kernels::gpu::{Decoder, Device, Encoder};
use crate::kernels::portable::{CONTEXTS, ContextRule};
use crate::profile::{ChannelPair, Profile};
use crate::quality::Quality;

pub(super) fn device() -> Option<Device> {
    match Device::request() {
        Ok(device) => Some(device),
        Err(error) if std::env::var_os("NARROWS_REQUIRE_GPU").is_some_and(|value| value == "1") => panic!("{error}"),
        Err(error) => {
            eprintln!("skipped: {error}");
            None
        }
    }
}

/// A profile of a file with another context rule and Lagrangian, and a hash to tell it by.
fn changed(path: &str, context: ContextRule, lambda: u16, hash: u64) -> Arc<Profile> {
    let mut profile = Profile::load(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap();
    profile.context = context;
    profile.lambda = lambda;
    profile.hash = hash;
    profile.rounding = if lambda > 0 { 112 } else { 96 };
    profile.context_offsets = [0; CONTEXTS];
    profile.maps.clear();
    match context {
        ContextRule::None => {}
        ContextRule::Neighbours => {
            for &level in &profile.levels {
                profile.maps.extend((0..CONTEXTS as u8).map(|context| level.saturating_add(3 * context).clamp(1, 103)));
            }
        }
        ContextRule::Runs => profile.context_offsets = [-9, -6, -3, 0, 2, 5, 8, 12],
    }
    // Two more channel matrices than it has; that they invert nothing does not matter.
    let channels = profile.layout.channels();
    let mut state = 7u32;
    let mut matrix = || -> Vec<i16> {
        let most = 60_000 / channels as i32;
        let mut entry = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            ((state >> 12) as i32 % (2 * most + 1) - most).clamp(-32_768, 32_767) as i16
        };
        (0..channels * channels).map(|_| entry()).collect()
    };
    for shift in [13, 14] {
        let (forward, inverse) = (matrix(), matrix());
        profile.matrices.push(ChannelPair::new((forward, shift), (inverse, shift + 1)));
    }
    let count = profile.matrices.len();
    profile.band_matrix = (0..profile.bands()).map(|band| ((band + 1) % count) as u8).collect();
    for (i, offset) in profile.offsets.iter_mut().enumerate() {
        *offset = [i as u8 % 7, i as u8 % 5, i as u8 % 3];
    }
    profile.validate(&crate::Limits::default()).unwrap();
    Arc::new(profile)
}

#[test]
fn every_context_rule_with_and_without_rate_decisions() {
    let Some(device) = device() else { return };
    let mut hash = 0;
    for (path, shape) in [
        ("tests/vectors/waves.profile.safetensors", [2, 6, 17, 30]),
        ("tests/support/wide.profile.safetensors", [3, 128, 5, 9]),
    ] {
        let mut state = 1u32;
        let feature = ArrayD::from_shape_fn(IxDyn(&shape), |at| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let noise = (state >> 8) as f32 / 8_388_608.0 - 1.0;
            // Loud and quiet corners, so that contexts have something to tell.
            noise * noise * noise * (1.0 + 0.4 * at[2] as f32) * if at[3] % 7 < 3 { 0.2 } else { 1.0 }
        });
        for context in [ContextRule::None, ContextRule::Neighbours, ContextRule::Runs] {
            for lambda in [0, 300] {
                hash += 1;
                let profile = changed(path, context, lambda, hash);
                for (device, lanes) in [
                    (device.clone(), [None, Some(1), Some(8), Some(32)]),
                    (device.clone().subgroups(false), [None, Some(2), Some(4), Some(16)]),
                ] {
                    for lanes in lanes {
                        let chunks = lanes.unwrap_or(3);
                        let mut here = crate::Encoder::with_profile(profile.clone()).chunks(chunks);
                        let mut there = Encoder::with_profile(&device, profile.clone()).chunks(chunks);
                        if let Some(lanes) = lanes {
                            (here, there) = (here.lanes(lanes), there.lanes(lanes));
                        }
                        let mut decoders = (
                            crate::Decoder::new().profile(profile.clone()),
                            Decoder::new(&device).profile(profile.clone()),
                        );
                        for scale in [0.03, 0.7] {
                            let stream = here.encode(&feature, Quality::Scale(scale)).unwrap();
                            let what = format!("{path} {context:?} {lambda} {lanes:?} {scale}");
                            assert!(there.encode(&feature, Quality::Scale(scale)).unwrap() == stream, "{what}");
                            let decoded = decoders.0.decode(&stream).unwrap();
                            assert!(decoders.1.decode(&stream).unwrap() == decoded, "{what}");
                            let broken: Vec<Vec<u8>> = (0..if scale > 0.5 { 12 } else { 0 })
                                .map(|i| {
                                    let mut bad = stream.clone();
                                    let at = 30 + i * (stream.len() - 30) / 12;
                                    bad[at] ^= 1 << (i % 8);
                                    if i % 6 == 0 {
                                        bad.truncate(at);
                                    }
                                    bad
                                })
                                .collect();
                            let broken: Vec<_> = broken.iter().map(Vec::as_slice).collect();
                            for (result, bad) in decoders.1.decode_batch(&broken).into_iter().zip(&broken) {
                                assert!(result == decoders.0.decode(bad), "{what}");
                            }
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn nothing_of_earlier_features_shows() {
    let Some(device) = device() else { return };
    let profiles = ["tests/vectors/waves.profile.safetensors", "tests/vectors/rectified.profile.safetensors"]
        .map(|path| Arc::new(Profile::load(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()));
    let feature = |side: usize, seed: usize| {
        ArrayD::from_shape_fn(IxDyn(&[2, 6, side, side + 3]), |at| {
            ((at[1] * 5 + at[2] * at[3] + seed) as f32 * 0.37).sin() * (1.0 + (at[3] % 4) as f32)
        })
    };
    for profile in [Some(&profiles[0]), Some(&profiles[1]), None] {
        let (mut here, mut there) = match profile {
            Some(profile) => {
                (crate::Encoder::with_profile(profile.clone()), Encoder::with_profile(&device, profile.clone()))
            }
            None => (crate::Encoder::plain(), Encoder::plain(&device)),
        };
        let mut decoder = profiles.iter().cloned().fold(Decoder::new(&device), Decoder::profile);
        // Large ones first, so that the small ones use parts of the buffers; a refused one in between.
        for (number, side) in [33, 33, 9, 1, 20].into_iter().enumerate() {
            for quality in [Quality::Scale(0.4), Quality::Bytes(700), Quality::Sqnr(15.0)] {
                let feature = feature(side, number);
                let Ok(expected) = here.encode(&feature, quality) else { continue };
                there.poison();
                assert!(there.encode(&feature, quality).unwrap() == expected, "{side} {quality:?}");
                let decoded = profiles.iter().cloned().fold(crate::Decoder::new(), crate::Decoder::profile);
                let decoded = decoded.clone().decode(&expected).unwrap();
                decoder.poison();
                assert!(decoder.decode(&expected).unwrap() == decoded, "{side} {quality:?}");
                let mut broken = expected;
                if let Some(last) = broken.last_mut() {
                    *last ^= 0x55;
                }
                decoder.poison();
                assert!(decoder.decode(&broken).is_err());
            }
        }
    }
}
