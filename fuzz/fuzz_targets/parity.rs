//! Every SIMD level of this machine against the portable kernels: the same bytes for any feature, the same feature or
//! the same error for any bytes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use narrows::Backend;
use narrows_fuzz::{CASE_BYTES, Input, decode_everywhere};

fuzz_target!(|input: Input| {
    if let Input::Patched(case, _) = &input {
        let feature = case.feature();
        let encode = |backend: Backend| case.encoder(backend).encode(case.view(&feature), case.quality);
        let expected = encode(Backend::Portable);
        for backend in Backend::available() {
            assert_eq!(encode(backend.clone()), expected, "{backend} differs from portable");
        }
        if let Ok(stream) = expected {
            decode_everywhere(&stream, CASE_BYTES).expect("the stream of the encoder");
        }
    }
    if let Some(bytes) = input.bytes() {
        let _ = decode_everywhere(&bytes, CASE_BYTES);
    }
});
