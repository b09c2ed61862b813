//! Arbitrary bytes as the header of a stream: what is accepted says the same when it is written again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use narrows::{Info, Limits, fuzzing};

/// Bits of the flags that tell the version: an older header is written again as a newer one.
const VERSION: u8 = 0b1100_0000;

fuzz_target!(|bytes: &[u8]| {
    let limits = Limits::default();
    let header = fuzzing::header(bytes, &limits);
    let info = Info::read(bytes);
    let Ok((length, written)) = header else {
        assert_eq!(info.err(), header.err());
        return;
    };
    let unversioned = |header: &[u8]| [&[header[0], header[1] & !VERSION], &header[2..]].concat();
    assert_eq!(unversioned(&written), unversioned(&bytes[..length]));
    // A good header may be followed by bad lengths.
    let Ok(info) = info else { return };
    assert_eq!(info.header_bytes + info.payload_bytes, bytes.len());
    let layers = if written[1] & 0b111 == 0b100 { 1 + usize::from(written[12] >> 3) } else { 1 };
    assert!(length <= info.header_bytes && (info.chunks > 1 || layers > 1 || length == info.header_bytes));
    assert!(info.layers.is_sorted() && info.layers[0] >= info.header_bytes);
    assert!(info.layers.len() == layers || info.layers.len() + 1 == layers && info.layers[layers - 2] >= bytes.len());
    assert!(info.lanes.is_power_of_two() && info.lanes <= 32);
    assert!(info.chunks >= 1 && info.chunks as u64 <= limits.chunks);
    if let Some(layout) = info.layout {
        let shape = layout.shape();
        let elements = shape.iter().try_fold(1u64, |product, &size| product.checked_mul(size.max(1) as u64));
        assert!(elements.expect("a size within the limits") <= limits.output_bytes);
        assert!((1..=8).contains(&shape.len()) && layout.axes.channels < shape.len());
        assert!(layout.channels() as u64 <= limits.channels);
    }
});
