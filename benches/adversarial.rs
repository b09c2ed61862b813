//! What features that are made to be hard cost: encoding and decoding time over those of a typical one, and bytes over the
//! raw ones, in every mode. Prints a table.

#[path = "../tests/support/adversaries.rs"]
mod adversaries;

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use adversaries::{KINDS, feature};
use narrows::{Backend, Clip, Decoder, Encoder, Packed, Profile, Quality};
use ndarray::ArrayD;

/// Median time of a call in microseconds.
fn time(mut body: impl FnMut()) -> f64 {
    body();
    let mut times: Vec<f64> = (0..15)
        .map(|_| {
            let start = Instant::now();
            body();
            start.elapsed().as_secs_f64() * 1e6
        })
        .collect();
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

fn main() {
    // Cargo's test run only wants to know that it starts.
    if std::env::args().any(|argument| argument == "--test") {
        return;
    }
    let load = |name: &str| {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/vectors/{name}.profile.safetensors"));
        Arc::new(Profile::load(path).expect("a golden profile"))
    };
    let profiles = [load("waves"), load("rectified")];
    let packed = Packed { bits: 4, clip: Clip::Aciq };
    println!("encode and decode time over those of the typical feature; stream over raw bytes ({})", Backend::detect());
    print!("{:<34}", "");
    KINDS.iter().for_each(|kind| print!(" {:>21}", format!("{kind:?}")));
    println!();
    for (name, channels, encoder, quality) in [
        ("DCT profile, scale 1", 6, Encoder::with_profile(profiles[0].clone()), Quality::Scale(1.0)),
        ("DCT profile, scale 0.001", 6, Encoder::with_profile(profiles[0].clone()), Quality::Scale(0.001)),
        ("neighbour profile, scale 1", 6, Encoder::with_profile(profiles[1].clone()), Quality::Scale(1.0)),
        ("neighbour profile, scale 0.001", 6, Encoder::with_profile(profiles[1].clone()), Quality::Scale(0.001)),
        ("neighbour profile, 20 % of raw", 6, Encoder::with_profile(profiles[1].clone()), Quality::Bytes(0)),
        ("plain, scale 1", 64, Encoder::plain(), Quality::Scale(1.0)),
        ("plain, scale 0.001", 64, Encoder::plain(), Quality::Scale(0.001)),
        ("plain, 20 % of raw", 64, Encoder::plain(), Quality::Bytes(0)),
        ("plain, 30 dB", 64, Encoder::plain(), Quality::Sqnr(30.0)),
        ("packed, 4 bits", 64, Encoder::packed(packed), Quality::Scale(1.0)),
        ("lossless", 64, Encoder::lossless(), Quality::Scale(1.0)),
    ] {
        let mut encoder = encoder;
        let mut decoder = profiles.iter().cloned().fold(Decoder::new(), Decoder::profile);
        print!("{name:<34}");
        let mut typical = (1.0, 1.0);
        for (i, kind) in KINDS.into_iter().enumerate() {
            let array: ArrayD<f32> = feature(kind, &[1, channels, 56, 56]);
            let raw = 4 * array.len();
            let quality = if quality == Quality::Bytes(0) { Quality::Bytes(raw / 5) } else { quality };
            let mut stream = Vec::new();
            if let Err(error) = encoder.encode_into(&array, quality, &mut stream) {
                print!(" {:>21}", error.to_string().split(':').next().unwrap_or_default());
                continue;
            }
            let encode = time(|| encoder.encode_into(&array, quality, &mut stream).expect("as before"));
            let mut back = decoder.decode(&stream).expect("a good stream");
            let decode = time(|| decoder.decode_into(&stream, &mut back).expect("a good stream"));
            if i == 0 {
                typical = (encode, decode);
            }
            let (encode, decode) = (encode / typical.0, decode / typical.1);
            print!(" {encode:>5.2} {decode:>5.2} {:>7.1} %", 100.0 * stream.len() as f64 / raw as f64);
        }
        println!("   typical {:.0} / {:.0} us", typical.0, typical.1);
    }
}
