//! Datagrams of the encoder, some changed, lost, doubled and out of order, and arbitrary bytes among them: each is taken or
//! refused, and what has arrived makes a feature of the promised shape, whatever is missing: that of the stream if nothing is.
#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use narrows::datagram::{Assembler, Concealment, Datagrams, Request};
use narrows::{Decoder, Encoder, FeatureView, Info, Quality};
use narrows_fuzz::{PROFILES, limits};
use ndarray::{ArrayD, IxDyn};

/// Largest feature, in bytes.
const MOST: u64 = 1 << 18;

#[derive(Debug, Arbitrary)]
struct Input {
    profile: u8,
    seed: u32,
    quality: i8,
    parts: u8,
    copies: u8,
    steps: Vec<Step>,
}

/// What arrives next.
#[derive(Debug, Arbitrary)]
enum Step {
    Part(u8),
    Changed { part: u8, at: u16, value: u8 },
    Cut { part: u8, length: u16 },
    Bytes(Vec<u8>),
    Take(bool),
}

fuzz_target!(|input: Input| {
    let profile = PROFILES[usize::from(input.profile) % PROFILES.len()].clone();
    let layout = *profile.layout();
    let mut state = input.seed;
    let feature = ArrayD::from_shape_simple_fn(IxDyn(&layout.shape()), || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / 16_777_216.0 * 4.0 - 1.0
    });
    let number = input.seed as u16;
    let options = Datagrams { number, bytes: 60_000, parts: usize::from(input.parts).max(1), copies: input.copies % 4 };
    let quality = Quality::Scale((f32::from(input.quality) / 32.0).exp2());
    let view = FeatureView::from(&feature).with_axes(layout.axes);
    let mut encoder = Encoder::with_profile(profile.clone());
    let Ok(sent) = encoder.datagrams(view.clone(), quality, &options) else { return };
    let stream = encoder.encode(view, quality).expect("what datagrams hold makes a stream");
    let whole = Decoder::new().profile(profile.clone()).decode(&stream).expect("a stream of the encoder");
    // A stream that would be too long is of another mode, and exact.
    let lossless = Info::read(&stream).is_ok_and(|info| info.profile.is_none());
    let mut assembler = Assembler::new(profile).limits(limits(MOST));
    let part = |part: u8| &sent[usize::from(part) % sent.len()];
    // Whether all that was taken is as it was sent.
    let mut genuine = true;
    for step in input.steps.iter().take(64) {
        let received = match step {
            Step::Part(number) => assembler.push(part(*number)),
            Step::Changed { part: number, at, value } => {
                let mut bytes = part(*number).clone();
                let at = usize::from(*at) % bytes.len();
                bytes[at] = *value;
                assembler.push(&bytes)
            }
            Step::Cut { part: number, length } => {
                let bytes = part(*number);
                assembler.push(&bytes[..usize::from(*length) % bytes.len()])
            }
            Step::Bytes(bytes) => {
                let _ = Request::from_bytes(bytes).map(|request| request.to_bytes());
                assembler.push(bytes)
            }
            Step::Take(neighbours) => {
                let concealment = if *neighbours { Concealment::Restored } else { Concealment::Means };
                if let Some(missing) = assembler.missing(number) {
                    let restored = assembler.take(number, concealment).expect("some part has arrived");
                    assert_eq!(restored.shape().len(), layout.shape().len());
                    assert!(!genuine || !missing.is_empty() || lossless || restored == whole);
                }
                continue;
            }
        };
        // A changed part may pass the check, one in 2^16.
        genuine &= matches!(step, Step::Part(_)) || !received.is_ok_and(|received| !received.repeated);
    }
});
