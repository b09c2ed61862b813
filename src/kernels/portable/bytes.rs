//! The one-table coder: bytes under one table of up to 256 symbols, by the same rANS as everything else.
//!
//! Symbol i belongs to lane i mod L; a chunk is laid out as in [`super::rans_encode`].

use super::rans::{LOWEST, MAX_LANES, Words};
use crate::container::{Reader, put_varint};
use crate::entropy::bank::{PROBABILITY_BITS, TOTAL};
use crate::error::{Error, Result};

/// Byte values.
pub const SYMBOLS: usize = 256;

/// 12-bit frequencies of the byte values, and what coding looks up in them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ByteTable {
    frequencies: [u16; SYMBOLS],
    /// Start (low half) and frequency (high half) of each symbol.
    pub(crate) intervals: [u32; SYMBOLS],
    /// Of each slot: symbol (8 bits), frequency (12 bits), slot less start (12 bits).
    pub(crate) slots: Box<[u32; TOTAL as usize]>,
}

impl ByteTable {
    /// The table of these frequencies.
    ///
    /// # Errors
    /// `Corrupt` unless they sum to 4,096, none being 4,096.
    pub fn new(frequencies: &[u16; SYMBOLS]) -> Result<ByteTable> {
        let sum: u32 = frequencies.iter().map(|&frequency| u32::from(frequency)).sum();
        if sum != TOTAL || frequencies.contains(&(TOTAL as u16)) {
            return Err(Error::corrupt("the frequencies of a table of bytes", 0));
        }
        let mut slots = Box::new([0; TOTAL as usize]);
        let mut intervals = [0; SYMBOLS];
        let mut start = 0;
        for (symbol, &frequency) in frequencies.iter().enumerate() {
            let frequency = u32::from(frequency);
            intervals[symbol] = start | frequency << 16;
            for place in 0..frequency {
                slots[(start + place) as usize] = symbol as u32 | frequency << 8 | place << 20;
            }
            start += frequency;
        }
        Ok(ByteTable { frequencies: *frequencies, intervals, slots })
    }

    /// The table that codes bytes counted so in the fewest bits, about: symbols that were seen keep at
    /// least 1 of 4,096, the others nothing.
    pub fn from_histogram(counts: &[u32; SYMBOLS]) -> ByteTable {
        let total: u64 = counts.iter().map(|&count| u64::from(count)).sum();
        let mut frequencies = counts.map(|count| match u64::from(count) * u64::from(TOTAL) {
            0 => 0,
            scaled => ((scaled + total / 2) / total).clamp(1, u64::from(TOTAL) - 1) as u16,
        });
        if counts.iter().filter(|&&count| count > 0).count() < 2 {
            // One symbol, or none: a second one keeps the table valid.
            let only = counts.iter().position(|&count| count > 0).unwrap_or(0);
            frequencies[only] = TOTAL as u16 - 1;
            frequencies[(only + 1) % SYMBOLS] = 1;
        }
        // Give or take single slots where that changes the length least.
        loop {
            let sum: i32 = frequencies.iter().map(|&frequency| i32::from(frequency)).sum();
            let missing = TOTAL as i32 - sum;
            if missing == 0 {
                break;
            }
            let slope = |symbol: usize| {
                let frequency = f32::from(frequencies[symbol]);
                let worth = counts[symbol] as f32 / if missing > 0 { frequency + 0.5 } else { frequency - 0.5 };
                match (missing > 0, frequencies[symbol]) {
                    (true, 0) | (false, 0 | 1) => f32::MIN,
                    (true, _) => worth,
                    (false, _) => -worth,
                }
            };
            let mut best = (0, f32::MIN);
            for symbol in 0..SYMBOLS {
                let slope = slope(symbol);
                if slope > best.1 {
                    best = (symbol, slope);
                }
            }
            frequencies[best.0] = (i32::from(frequencies[best.0]) + missing.signum()) as u16;
        }
        ByteTable::new(&frequencies).expect("the frequencies sum to 4096")
    }

    /// Frequency of each byte value.
    pub fn frequencies(&self) -> &[u16; SYMBOLS] {
        &self.frequencies
    }

    /// Appends the table: its largest symbol, then a varint for each up to that.
    pub fn write(&self, out: &mut Vec<u8>) {
        let last = self.frequencies.iter().rposition(|&frequency| frequency > 0).unwrap_or(0);
        out.push(last as u8);
        for &frequency in &self.frequencies[..=last] {
            put_varint(u64::from(frequency), out);
        }
    }

    /// Reads a table off the front of `bytes`.
    ///
    /// # Errors
    /// `Truncated` or `Corrupt`.
    pub fn read(bytes: &mut &[u8]) -> Result<ByteTable> {
        let mut reader = Reader::new(bytes);
        let last = usize::from(reader.u8("a table of bytes")?);
        let mut frequencies = [0; SYMBOLS];
        for frequency in &mut frequencies[..=last] {
            let offset = reader.offset();
            *frequency = u16::try_from(reader.varint("a table of bytes")?)
                .map_err(|_| Error::corrupt("the frequencies of a table of bytes", offset))?;
        }
        let table = ByteTable::new(&frequencies)?;
        *bytes = reader.rest();
        Ok(table)
    }
}

/// Counts byte values.
pub fn histogram(symbols: &[u8]) -> [u32; SYMBOLS] {
    // Eight counters a value, so that runs of equal values do not wait for each other.
    let mut counts = [[0u32; SYMBOLS]; 8];
    let (groups, rest) = symbols.as_chunks::<8>();
    for &symbol in rest {
        counts[0][usize::from(symbol)] += 1;
    }
    for group in groups {
        let mut group = u64::from_le_bytes(*group);
        for counts in &mut counts {
            counts[(group & 255) as usize] += 1;
            group >>= 8;
        }
    }
    std::array::from_fn(|symbol| counts.iter().map(|counts| counts[symbol]).sum())
}

/// Appends one chunk to `out`. `words` is kept between calls.
///
/// # Errors
/// `InvalidInput` if the table gives a symbol no frequency; `out` is then as it was.
pub fn bytes_encode(
    symbols: &[u8],
    table: &ByteTable,
    lanes: usize,
    words: &mut Vec<u16>,
    out: &mut Vec<u8>,
) -> Result<()> {
    if has_unknown(symbols, table) {
        return Err(unknown_symbol());
    }
    words.clear();
    let mut states = [LOWEST; MAX_LANES];
    for (i, &symbol) in symbols.iter().enumerate().rev() {
        put(symbol, table, &mut states[i & (lanes - 1)], |word| words.push(word));
    }
    for state in &states[..lanes] {
        out.extend_from_slice(&((state >> 16) as u16).to_le_bytes());
        out.extend_from_slice(&(*state as u16).to_le_bytes());
    }
    for word in words.iter().rev() {
        out.extend_from_slice(&word.to_le_bytes());
    }
    Ok(())
}

/// Puts one symbol into a state.
#[inline(always)]
pub(crate) fn put(symbol: u8, table: &ByteTable, state: &mut u32, mut push: impl FnMut(u16)) {
    let interval = table.intervals[usize::from(symbol)];
    let (start, frequency) = (interval & 0xffff, interval >> 16);
    if *state >> (32 - PROBABILITY_BITS) >= frequency {
        push(*state as u16);
        *state >>= 16;
    }
    *state = ((*state / frequency) << PROBABILITY_BITS) + *state % frequency + start;
}

/// Whether the table cannot code some symbol.
#[inline(always)]
pub(crate) fn has_unknown(symbols: &[u8], table: &ByteTable) -> bool {
    symbols.iter().any(|&symbol| table.frequencies[usize::from(symbol)] == 0)
}

pub(crate) fn unknown_symbol() -> Error {
    Error::invalid("the table has no frequency for one of the symbols")
}

/// Decodes one chunk of `symbols.len()` symbols.
///
/// # Errors
/// `Truncated` if the words run out, `Corrupt` if the states do not end where encoders begin or words
/// are left over.
pub fn bytes_decode(bytes: &[u8], table: &ByteTable, lanes: usize, symbols: &mut [u8]) -> Result<()> {
    let mut states = [LOWEST; MAX_LANES];
    let mut words = Words::open(bytes, 0, &mut states[..lanes])?;
    decode_rest(symbols, table, &mut states[..lanes], &mut words)?;
    words.close(&states[..lanes], &[LOWEST; MAX_LANES][..lanes])
}

/// Decodes symbols, the first of which is of lane 0.
#[inline(always)]
pub(crate) fn decode_rest(
    symbols: &mut [u8],
    table: &ByteTable,
    states: &mut [u32],
    words: &mut Words<'_>,
) -> Result<()> {
    for group in symbols.chunks_mut(states.len()) {
        for (symbol, state) in group.iter_mut().zip(states.iter_mut()) {
            let slot = table.slots[(*state & (TOTAL - 1)) as usize];
            *symbol = slot as u8;
            let place = slot >> 20;
            *state = ((slot >> 8) & (TOTAL - 1)) * (*state >> PROBABILITY_BITS) + place;
            if *state < LOWEST {
                *state = *state << 16 | words.next()?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn bytes_and_their_table_come_back(
            symbols in proptest::collection::vec(prop_oneof![9 => 0..4u8, 1 => any::<u8>()], 0..3000),
            log_lanes in 0..6u32,
        ) {
            let (lanes, table) = (1 << log_lanes, ByteTable::from_histogram(&histogram(&symbols)));
            let mut bytes = Vec::new();
            table.write(&mut bytes);
            bytes_encode(&symbols, &table, lanes, &mut Vec::new(), &mut bytes).unwrap();
            let mut rest = &bytes[..];
            prop_assert_eq!(&ByteTable::read(&mut rest).unwrap(), &table);
            let mut back = vec![0; symbols.len()];
            bytes_decode(rest, &table, lanes, &mut back).unwrap();
            prop_assert_eq!(&back, &symbols);
            let ideal: f64 = symbols
                .iter()
                .map(|&symbol| 12.0 - f64::from(table.frequencies()[usize::from(symbol)]).log2())
                .sum();
            prop_assert!((rest.len() as f64) < ideal / 8.0 * 1.002 + 4.0 * lanes as f64 + 2.0);
        }

        #[test]
        fn any_bytes_decode_or_fail(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let table = ByteTable::from_histogram(&[1; SYMBOLS]);
            let _ = bytes_decode(&bytes, &table, 4, &mut [0; 100]);
            let _ = ByteTable::read(&mut &bytes[..]);
        }
    }

    #[test]
    fn a_symbol_without_a_frequency_is_refused() {
        let table = ByteTable::from_histogram(&histogram(&[1, 2, 3]));
        assert!(bytes_encode(&[9], &table, 1, &mut Vec::new(), &mut Vec::new()).is_err());
    }
}
