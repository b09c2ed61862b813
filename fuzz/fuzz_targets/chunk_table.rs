//! Arbitrary bytes as the chunk lengths of a stream, against varints read here once more; then a stream around them.
#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use narrows::{Info, fuzzing};
use narrows_fuzz::{PROFILES, decode_everywhere};

#[derive(Debug, Arbitrary)]
struct Table {
    chunks: u16,
    /// With a golden profile, or plain.
    profile: bool,
    /// Rows of the feature.
    rows: u8,
    bytes: Vec<u8>,
}

/// A number in base 128 of at most 32 bits in its shortest form, and the bytes after it.
fn varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let length = 1 + bytes.iter().take(5).position(|&byte| byte < 0x80)?;
    let value = bytes[..length].iter().rev().fold(0u64, |value, &byte| value << 7 | u64::from(byte & 0x7f));
    (u32::try_from(value).is_ok() && (length == 1 || bytes[length - 1] != 0)).then_some((value, &bytes[length..]))
}

fn put_varint(mut value: u32, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fuzz_target!(|table: Table| {
    let chunks = usize::from(table.chunks).max(2);
    let expected = (1..chunks).try_fold(&table.bytes[..], |rest, _| varint(rest).map(|(_, rest)| rest));
    let taken = expected.map(|rest| table.bytes.len() - rest.len());
    assert_eq!(fuzzing::chunk_lengths(chunks, &table.bytes).ok(), taken);

    // Magic, flags with an extension, its fields, the table.
    let mut stream = vec![0xf7];
    if table.profile {
        stream.push(0b100);
        stream.extend_from_slice(&PROFILES[1].hash().to_le_bytes());
        stream.extend_from_slice(&[0, 0]);
    } else {
        stream.push(0b101);
    }
    stream.extend_from_slice(&[0b11, 0x30, 0xf0, 6, table.rows & 127, 2]);
    put_varint(chunks as u32, &mut stream);
    let header = stream.len();
    stream.extend_from_slice(&table.bytes);
    assert_eq!(Info::read(&stream).ok().map(|info| info.header_bytes - header), taken);
    let _ = decode_everywhere(&stream, 1 << 16);
});
