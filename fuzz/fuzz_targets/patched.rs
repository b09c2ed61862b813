//! Streams of the encoder with single fields changed: no panic, and a feature that is decoded all the same has the shape
//! that the changed header promises.
#![no_main]

use libfuzzer_sys::fuzz_target;
use narrows_fuzz::{CASE_BYTES, Case, Fields, Patch, check_shape, decoder};

fuzz_target!(|input: (Case, Vec<Patch>)| {
    let (case, patches) = input;
    let Some(stream) = case.stream() else { return };
    let mut fields = Fields::read(&stream);
    assert_eq!(fields.write(), stream);
    let mut decoder = decoder(CASE_BYTES);
    for patch in patches.iter().take(8) {
        fields.apply(patch);
        let changed = fields.write();
        check_shape(&changed, &decoder.decode(&changed));
    }
    // What was seen in between leaves no trace.
    check_shape(&stream, &Ok(decoder.decode(&stream).expect("the stream of the encoder")));
});
