//! The byte coder.

use super::*;

/// Frequencies that sum to 4,096, of symbols that get rarer.
fn frequencies(symbols: usize) -> [u16; 256] {
    let mut frequencies = [0; 256];
    let mut left = 4096;
    for (i, frequency) in frequencies.iter_mut().enumerate().take(symbols) {
        *frequency = if i + 1 == symbols { left } else { (left / 3).max(1) };
        left -= *frequency;
    }
    frequencies
}

/// The byte coder, one symbol after the other.
fn bytes_reference(symbols: &[u8], frequencies: &[u16; 256]) -> Vec<u8> {
    let start = |symbol: u8| frequencies[..usize::from(symbol)].iter().map(|&f| u32::from(f)).sum::<u32>();
    let mut states = [1u32 << 16; 32];
    let mut words = Vec::new();
    for (i, &symbol) in symbols.iter().enumerate().rev() {
        let frequency = u32::from(frequencies[usize::from(symbol)]);
        let x = &mut states[i % 32];
        if u64::from(*x) >= u64::from(frequency) << 20 {
            words.push(*x as u16);
            *x >>= 16;
        }
        *x = ((*x / frequency) << 12) + *x % frequency + start(symbol);
    }
    let states = states.iter().flat_map(|&x| [(x >> 16) as u16, x as u16]);
    states.chain(words.into_iter().rev()).flat_map(u16::to_le_bytes).collect()
}

#[test]
fn bytes_encode_and_bytes_decode() {
    for device in devices() {
        for kinds in [1, 2, 7, 12] {
            let frequencies = frequencies(kinds);
            let coder = ByteCoder::new(&device, &frequencies).unwrap();
            for (count, chunk) in
                [(1, 32), (31, 32), (33, 32), (4096, 4096), (5000, 4096), (9_999, 160), (70_000, 1024)]
            {
                // Symbols as the table expects them: by the slot that a number falls on.
                let ends: Vec<u32> =
                    (0..256).map(|symbol| frequencies[..=symbol].iter().map(|&f| u32::from(f)).sum()).collect();
                let symbols: Vec<u8> = (0..count)
                    .map(|i| {
                        let slot = ((noise(count as u64, i) / 4.0 + 0.5) * 4096.0) as u32;
                        ends.iter().position(|&end| slot < end).unwrap_or(0) as u8
                    })
                    .collect();
                let buffers = coder.buffers(count, chunk).unwrap();
                coder.write_symbols(&buffers, &symbols).unwrap();
                let total = coder.encode(&buffers, 2).unwrap();
                let chunks = coder.read_chunks(&buffers).unwrap();
                let expected: Vec<_> =
                    symbols.chunks(chunk).map(|symbols| bytes_reference(symbols, &frequencies)).collect();
                assert!(chunks == expected, "{kinds} {count} {chunk}");
                assert_eq!(total, expected.iter().map(|chunk| chunk.len().next_multiple_of(4)).sum::<usize>());
                let fresh = coder.buffers(count, chunk).unwrap();
                coder.write_chunks(&fresh, &chunks).unwrap();
                coder.decode(&fresh, 2).unwrap();
                assert!(coder.read_symbols(&fresh).unwrap() == symbols, "{kinds} {count} {chunk}");
                if kinds > 1 && count > 40 {
                    let mut bad = chunks.clone();
                    bad[0].truncate(chunks[0].len() - 2);
                    coder.write_chunks(&fresh, &bad).unwrap();
                    assert!(matches!(coder.decode(&fresh, 1), Err(Error::Truncated { .. } | Error::Corrupt { .. })));
                    bad = chunks.clone();
                    bad[0].extend([1, 2]);
                    coder.write_chunks(&fresh, &bad).unwrap();
                    assert!(matches!(coder.decode(&fresh, 1), Err(Error::Corrupt { .. })));
                    bad = chunks.clone();
                    bad[0][40] ^= 1;
                    coder.write_chunks(&fresh, &bad).unwrap();
                    assert!(matches!(coder.decode(&fresh, 1), Err(Error::Truncated { .. } | Error::Corrupt { .. })));
                    bad[0][..2].fill(0);
                    coder.write_chunks(&fresh, &bad).unwrap();
                    assert!(matches!(coder.decode(&fresh, 1), Err(Error::Corrupt { offset: 0, .. })));
                }
            }
            let buffers = coder.buffers(5, 32).unwrap();
            coder.write_symbols(&buffers, &[0, 0, 255, 0, 0]).unwrap();
            assert!(matches!(coder.encode(&buffers, 1), Err(Error::InvalidInput(_))));
            assert!(matches!(coder.buffers(5, 33), Err(Error::InvalidInput(_))));
        }
        assert!(matches!(ByteCoder::new(&device, &[1; 256]), Err(Error::InvalidInput(_))));
    }
}
