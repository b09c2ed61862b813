//! Arbitrary bytes as frequencies: what is accepted as a bank or as a table of bytes has slots and intervals that agree,
//! and codes symbols.
#![no_main]

use libfuzzer_sys::fuzz_target;
use narrows::Backend;
use narrows::raw::bank::{Bank, TABLES, TOTAL};
use narrows::raw::token::{ESCAPE, TOKENS};
use narrows::raw::{BYTE_LANES, ByteCoder, ByteJob, ByteTable};

/// A bank of the rows in `bytes`, over and over; the escape of each row takes what is missing if `mended`.
fn bank(bytes: &[u8], mended: bool) -> Option<(Bank, usize)> {
    let row = |bytes: &[u8]| {
        let mut row = [0u16; TOKENS];
        for (frequency, pair) in row.iter_mut().zip(bytes.chunks(2)) {
            *frequency = u16::from_le_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]);
        }
        if mended {
            let mut left = TOTAL as u16 - 1;
            for frequency in &mut row[..usize::from(ESCAPE)] {
                *frequency = (*frequency % TOTAL as u16).min(left);
                left -= *frequency;
            }
            row[usize::from(ESCAPE)] = left + 1;
        }
        row
    };
    let rows: Vec<_> = bytes.chunks(2 * TOKENS).take(TABLES).map(row).collect();
    let count = rows.len();
    // Unless mended, the number of tables is what the bytes say.
    let tables = if mended { TABLES } else { bytes.len().div_ceil(2 * TOKENS).max(1) };
    let rows = rows.iter().cycle().take(tables).copied().collect();
    let bank = Bank::new(rows).ok()?;
    Some((bank, count))
}

fn check_bank(bank: &Bank, tables: usize) {
    for table in 0..tables.min(4) as u8 {
        let frequencies = bank.frequencies()[usize::from(table)];
        let mut counts = [0; TOKENS];
        for slot in 0..TOTAL {
            let token = bank.token_at(table, slot);
            let (start, frequency) = bank.interval(table, token);
            assert!(start <= slot && slot < start + frequency, "table {table}, slot {slot}");
            counts[usize::from(token)] += 1;
        }
        assert_eq!(counts, frequencies);
        assert!(frequencies[usize::from(ESCAPE)] > 0);
        assert!(bank.mean_magnitude(table) <= 15 * 16);
        for symbol in [0, 1, -1, 8, -9, 516, -517, i32::MAX, i32::MIN] {
            assert!(bank.cost(table, symbol) < 1 << 16);
        }
    }
}

/// Codes bytes that the table can code on every backend.
fn check_bytes(table: &ByteTable, bytes: &[u8]) {
    let mut written = Vec::new();
    table.write(&mut written);
    let mut rest = &written[..];
    assert_eq!(ByteTable::read(&mut rest).as_ref(), Ok(table));
    assert!(rest.is_empty());
    let known: Vec<u8> = bytes.iter().copied().filter(|&byte| table.frequencies()[usize::from(byte)] > 0).collect();
    for lanes in [1, 4, BYTE_LANES] {
        let mut expected = None;
        for backend in Backend::available() {
            let mut coder = ByteCoder::new(&backend).expect("an available backend");
            let mut chunk = Vec::new();
            let encoded = coder.encode(bytes, table, lanes, &mut chunk);
            assert_eq!(encoded.is_ok(), known.len() == bytes.len());
            chunk.clear();
            coder.encode(&known, table, lanes, &mut chunk).expect("only symbols of the table");
            assert_eq!(expected.get_or_insert(chunk.clone()), &chunk, "{backend}");
            let mut decoded = vec![0; known.len()];
            coder.decode(&mut [ByteJob { bytes: &chunk, symbols: &mut decoded }], table, lanes).expect("a good chunk");
            assert_eq!(decoded, known);
            // The bytes themselves as a chunk: any answer, but the same.
            let mut symbols = vec![0; 40];
            let result = coder.decode(&mut [ByteJob { bytes, symbols: &mut symbols }], table, lanes);
            let mut portable = vec![0; 40];
            let mut coder = ByteCoder::new(&Backend::Portable).expect("the portable backend");
            let wanted = coder.decode(&mut [ByteJob { bytes, symbols: &mut portable }], table, lanes);
            assert_eq!(result, wanted, "{backend}");
            assert!(result.is_err() || symbols == portable, "{backend}");
        }
    }
}

fuzz_target!(|input: &[u8]| {
    let Some((&kind, bytes)) = input.split_first() else { return };
    match kind % 4 {
        0 | 1 => {
            if let Some((bank, tables)) = bank(bytes, kind % 4 == 1) {
                check_bank(&bank, tables);
            }
        }
        2 => {
            let mut rest = bytes;
            if let Ok(table) = ByteTable::read(&mut rest) {
                check_bytes(&table, rest);
            }
        }
        _ => {
            let mut counts = [0; 256];
            for (count, four) in counts.iter_mut().zip(bytes.chunks_exact(4)) {
                *count = u32::from_le_bytes([four[0], four[1], four[2], four[3]]);
            }
            check_bytes(&ByteTable::from_histogram(&counts), bytes);
        }
    }
});
