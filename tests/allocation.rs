//! Proves that encoders and decoders keep their buffers: once warm, encoding into a reused `Vec`
//! allocates nothing, and decoding allocates the output and nothing else.

#[path = "support/counting.rs"]
mod counting;

use std::sync::Arc;

use counting::allocations;

use narrows::fit::FitOptions;
use narrows::{Clip, Decoder, Encoder, Packed, Profile, Quality};
use ndarray::{ArrayD, IxDyn};

fn feature(seed: usize) -> ArrayD<f32> {
    ArrayD::from_shape_fn(IxDyn(&[1, 16, 12, 12]), |at| {
        ((at[1] * 3 + at[2] * at[3] + seed * 7) as f32 * 0.37).sin() * (1.0 + at[1] as f32)
    })
}

#[test]
fn warm_encoders_and_decoders_do_not_allocate() {
    let mut samples: Vec<_> = (0..16).map(feature).collect();
    let profile = Arc::new(Profile::fit(&mut samples, None, &FitOptions::default(), &mut |_| {}).unwrap());
    let encoders = [
        ("profile", Encoder::with_profile(profile.clone())),
        ("layers", Encoder::with_profile(profile.clone()).layers(3).chunks(2).checksums(true)),
        ("plain", Encoder::plain()),
        ("packed", Encoder::packed(Packed { bits: 4, clip: Clip::Aciq })),
        ("lossless", Encoder::lossless()),
    ];
    for (name, mut encoder) in encoders {
        for quality in [Quality::Scale(1.0), Quality::Scale(0.3), Quality::Bytes(20_000), Quality::Sqnr(10.0)] {
            let mut out = Vec::new();
            let features: Vec<_> = (20..26).map(feature).collect();
            for feature in &features {
                encoder.encode_into(feature, quality, &mut out).unwrap();
            }
            let count = allocations(|| {
                for feature in &features {
                    encoder.encode_into(feature, quality, &mut out).unwrap();
                }
            });
            assert_eq!(count, 0, "{name} {quality:?}");

            let mut decoder = Decoder::new().profile(profile.clone());
            let mut last = Some(decoder.decode(&out).unwrap());
            let count = allocations(|| last = Some(decoder.decode(&out).unwrap()));
            drop(last);
            // The output's elements; a lossless stream is also unpacked into planes first.
            let allowed = if name == "lossless" { 2 } else { 1 };
            assert!(count <= allowed, "{name} {quality:?}: {count} allocations to decode");
        }
    }
}
