//! Arbitrary bytes as a stream, with the golden profiles and without: a feature of the promised shape or an error, the
//! same into memory that held something else.
#![no_main]

use libfuzzer_sys::fuzz_target;
use narrows::{Decoder, Error, Feature, Info};
use narrows_fuzz::{bits, check_shape, decoder, limits};
use ndarray::{ArrayD, IxDyn};

/// Largest feature, in bytes.
const MOST: u64 = 1 << 16;

fuzz_target!(|bytes: &[u8]| {
    let mut decoder = decoder(MOST);
    let result = decoder.decode(bytes);
    check_shape(bytes, &result);
    if let Ok(feature) = &result {
        // Old values, in the same shape, must not show through.
        let mut used = feature.clone();
        match &mut used {
            Feature::F32(array) => array.fill(f32::NAN),
            Feature::I8(array) => array.fill(99),
            Feature::U8(array) => array.fill(99),
            other => *other = Feature::F32(ArrayD::from_elem(IxDyn(&[3]), 5.0)),
        }
        decoder.decode_into(bytes, &mut used).expect("it was decoded before");
        assert_eq!(bits(&used), bits(feature));
        // One byte less is allowed to be refused, one byte more has to be.
        let _ = decoder.decode(&bytes[..bytes.len() - 1]);
        let longer = decoder.decode(&[bytes, &[0]].concat());
        // Unless it is the length of the first chunk of a layer that was cut off, where nothing is coded.
        let info = Info::read(bytes).expect("it was decoded before");
        assert!(
            longer.is_err() || info.layers.last() != Some(&bytes.len()) || info.layers.len() > 1,
            "a byte too many"
        );
    }
    let without = Decoder::new().limits(limits(MOST)).decode(bytes);
    match (&result, without) {
        (_, Err(Error::ProfileMismatch { .. })) => {}
        (result, without) => assert_eq!(result.as_ref().map(bits), without.as_ref().map(bits)),
    }
});
