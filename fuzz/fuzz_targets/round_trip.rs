//! Any feature, encoded and decoded: shape and dtype come back, in the lossless mode every bit; sizes are what was
//! promised; the same call gives the same bytes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use narrows::{Backend, Error, Info, Mode, Quality};
use narrows_fuzz::{CASE_BYTES, Case, Method, bits, check_shape, decoder};

fuzz_target!(|case: Case| {
    let feature = case.feature();
    let view = case.view(&feature);
    let mut encoder = case.encoder(Backend::detect());
    let result = encoder.encode(view.clone(), case.quality);
    assert_eq!(encoder.encode(view.clone(), case.quality), result, "used again");
    let stream = match result {
        Ok(stream) => stream,
        Err(Error::InvalidInput(_)) => return,
        Err(Error::LimitExceeded { needed, limit, .. }) => {
            assert!(matches!(case.quality, Quality::Bytes(budget) if budget as u64 == limit && needed > limit));
            return;
        }
        Err(other) => panic!("{other}"),
    };
    assert_eq!(case.encoder(Backend::detect()).encode(view, case.quality).as_ref(), Ok(&stream), "made anew");
    if let Quality::Bytes(budget) = case.quality {
        assert!(stream.len() <= budget);
    }
    let info = Info::read(&stream).expect("the header of the encoder");
    let back = decoder(CASE_BYTES).decode(&stream).expect("the stream of the encoder");
    assert_eq!((back.dtype(), back.shape()), (case.dtype, &case.shape[..]));
    let raw = case.shape.iter().product::<usize>() * case.dtype.size();
    assert!(stream.len() <= raw + 64);
    if case.layers > 1 && info.mode == Mode::Profile {
        // Every prefix decodes; all layers are what one layer of that quality is.
        for &end in &info.layers {
            check_shape(
                &stream[..end],
                &Ok(decoder(CASE_BYTES).decode(&stream[..end]).expect("a layer of the encoder")),
            );
        }
        if let Quality::Scale(_) = case.quality
            && let Ok(one) = case.encoder(Backend::detect()).layers(1).encode(case.view(&feature), case.quality)
            && Info::read(&one).is_ok_and(|info| info.mode == Mode::Profile)
        {
            assert_eq!(bits(&decoder(CASE_BYTES).decode(&one).expect("the stream of the encoder")), bits(&back));
        }
    }
    if info.mode == Mode::Lossless {
        assert_eq!(bits(&back), bits(&feature));
        return;
    }
    match case.method {
        Method::Lossless => unreachable!("the mode was asked for"),
        Method::Packed(packed) => {
            let elements = case.shape.iter().product();
            let checksum = if case.checksums { 4 } else { 0 };
            assert_eq!(info.payload_bytes, 6 + packed.payload_bytes(elements) + checksum);
            assert!(info.header_bytes <= 53);
        }
        Method::Plain | Method::Profile(_) => {
            assert!(case.lanes.is_none_or(|lanes| info.lanes == lanes));
            assert!(case.chunks.is_none_or(|chunks| info.chunks <= chunks.max(1)));
        }
    }
});
