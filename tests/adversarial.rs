//! Proves that no feature, however made, gives a stream longer than itself and 64 bytes, in any mode, and that byte budgets
//! hold. `benches/adversarial.rs` shows what such features cost in time.

#[path = "support/adversaries.rs"]
mod adversaries;

use std::path::Path;
use std::sync::Arc;

use adversaries::{KINDS, feature};
use half::{bf16, f16};
use narrows::{Backend, Clip, Decoder, Element, Encoder, Error, FeatureView, Packed, Profile, Quality};

fn profile(name: &str) -> Arc<Profile> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/vectors/{name}.profile.safetensors"));
    Arc::new(Profile::load(path).unwrap())
}

const QUALITIES: [Quality; 5] =
    [Quality::Scale(1e-6), Quality::Scale(0.03), Quality::Scale(1.0), Quality::Sqnr(60.0), Quality::Sqnr(5.0)];

fn check<T: Element>(backend: &Backend) {
    let profiles = [profile("waves"), profile("rectified"), profile("bursts")];
    let mut decoder = profiles.iter().cloned().fold(Decoder::new().backend(backend.clone()), Decoder::profile);
    for kind in KINDS {
        let encoders = [
            (6, Encoder::with_profile(profiles[0].clone()).chunks(3)),
            (6, Encoder::with_profile(profiles[1].clone())),
            (40, Encoder::with_profile(profiles[2].clone()).checksums(true)),
            (13, Encoder::plain()),
            (13, Encoder::plain().chunks(5).lanes(32)),
            (1, Encoder::plain().lanes(32)),
            (9, Encoder::packed(Packed { bits: 8, clip: Clip::MinMax })),
            (9, Encoder::lossless().checksums(true)),
        ];
        for (number, (channels, encoder)) in encoders.into_iter().enumerate() {
            let mut encoder = encoder.backend(backend.clone());
            for side in [1, 4, 17] {
                let array = feature::<T>(kind, &[1, channels, side, side]);
                let raw = array.len() * size_of::<T>();
                for quality in QUALITIES.into_iter().chain([raw / 8, raw / 2, raw + 40, raw * 3].map(Quality::Bytes)) {
                    let what = format!("{kind:?} {:?} encoder {number} side {side} {quality:?}", T::DTYPE);
                    match encoder.encode(FeatureView::from(&array), quality) {
                        Ok(stream) => {
                            assert!(stream.len() <= raw + 64, "{what}: {} of {raw}", stream.len());
                            if let Quality::Bytes(budget) = quality {
                                assert!(stream.len() <= budget, "{what}");
                            }
                            let back = decoder.decode(&stream).unwrap_or_else(|error| panic!("{what}: {error}"));
                            assert_eq!((back.shape(), back.dtype()), (array.shape(), T::DTYPE), "{what}");
                        }
                        Err(Error::LimitExceeded { needed, limit, .. }) => {
                            assert!(quality == Quality::Bytes(limit as usize) && needed > limit, "{what}");
                        }
                        // Beyond what the profile was fitted to, or what integers tell.
                        Err(Error::InvalidInput(_)) if matches!(quality, Quality::Sqnr(_)) => {}
                        Err(error) => panic!("{what}: {error}"),
                    }
                }
            }
        }
    }
}

#[test]
fn no_stream_is_longer_than_its_feature() {
    for backend in [Backend::detect(), Backend::Portable] {
        check::<f32>(&backend);
        check::<u8>(&backend);
    }
    check::<f16>(&Backend::detect());
    check::<bf16>(&Backend::detect());
    check::<i8>(&Backend::detect());
}
