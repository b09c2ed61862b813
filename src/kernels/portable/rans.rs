//! Interleaved rANS: 32-bit states, 16-bit renormalisation, 12-bit probabilities.
//!
//! ```text
//! decode: slot = x & 4095; token = the one whose interval [start, start + f) holds slot
//!         x = f * (x >> 12) + slot - start; if x < 2^16 { x = x << 16 | next word }
//! encode: the inverse, from the last operation to the first, from the state 2^16
//! ```
//!
//! Channel j of a position belongs to lane j mod L. The channels of a position are coded in groups
//! of L: first the tokens of the group, in lane order; then rounds of raw bits, in each of which
//! every lane that still has raw bits to come codes up to four of them (low bits first), again in
//! lane order, as a token of frequency 4096 >> n. All lanes share one sequence of words. A chunk is
//! the L initial states (high word, low word), then the words, all u16 little-endian. Decoding must
//! end with every state at 2^16 and no word left.

use crate::entropy::bank::{Bank, PROBABILITY_BITS, TOTAL};
use crate::entropy::token::{ESCAPE, class_bits, nibbles, symbol_of, token_of, unzigzag, zigzag};
use crate::error::{Error, Result};

/// Most lanes.
pub const MAX_LANES: usize = 32;
/// What every state starts from when encoding, and must end at when decoding.
pub(crate) const LOWEST: u32 = 1 << 16;

/// One coding step: which lane, and the interval of 4,096.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Step {
    lane: u8,
    start: u16,
    frequency: u16,
}

fn raw_step(lane: usize, raw: u32, bits: u32) -> Step {
    let shift = PROBABILITY_BITS - bits;
    Step { lane: lane as u8, start: (raw << shift) as u16, frequency: 1 << shift }
}

/// Raw bits still to be coded by a lane.
#[derive(Debug, Clone, Copy, Default)]
struct Pending {
    raw: u64,
    bits: u32,
}

/// Appends one chunk to `out`: `symbols` holds rows of `channels` symbols, `tables` the table of each.
///
/// `scratch` is kept between calls so that nothing is allocated.
pub fn rans_encode(
    symbols: &[i32],
    tables: &[u8],
    channels: usize,
    lanes: usize,
    bank: &Bank,
    scratch: &mut RansScratch,
    out: &mut Vec<u8>,
) {
    let RansScratch { steps, words } = scratch;
    steps.clear();
    words.clear();
    for (row, row_tables) in symbols.chunks(channels.max(1)).zip(tables.chunks(channels.max(1))) {
        for (group, group_tables) in row.chunks(lanes).zip(row_tables.chunks(lanes)) {
            push_group(group, group_tables, bank, steps);
        }
    }
    let mut states = [LOWEST; MAX_LANES];
    for step in steps.iter().rev() {
        let frequency = u32::from(step.frequency);
        let state = &mut states[usize::from(step.lane)];
        if *state >= frequency << (32 - PROBABILITY_BITS) {
            words.push(*state as u16);
            *state >>= 16;
        }
        *state = ((*state / frequency) << PROBABILITY_BITS) + *state % frequency + u32::from(step.start);
    }
    for state in &states[..lanes] {
        out.extend_from_slice(&((state >> 16) as u16).to_le_bytes());
        out.extend_from_slice(&(*state as u16).to_le_bytes());
    }
    for word in words.iter().rev() {
        out.extend_from_slice(&word.to_le_bytes());
    }
}

/// Buffers of [`rans_encode`].
#[derive(Debug, Default, Clone)]
pub struct RansScratch {
    steps: Vec<Step>,
    words: Vec<u16>,
}

/// The steps of one group, in the order in which a decoder takes them.
fn push_group(group: &[i32], tables: &[u8], bank: &Bank, steps: &mut Vec<Step>) {
    let mut pending = [Pending::default(); MAX_LANES];
    let mut most = 0;
    for (lane, (&symbol, &table)) in group.iter().zip(tables).enumerate() {
        let (mut token, raw, bits) = token_of(symbol);
        let (mut start, mut frequency) = bank.interval(table, token);
        pending[lane] = Pending { raw: u64::from(raw), bits };
        if token == ESCAPE || frequency == 0 {
            token = ESCAPE;
            (start, frequency) = bank.interval(table, token);
            let value = zigzag(symbol);
            let count = nibbles(value);
            pending[lane] = Pending { raw: u64::from(value) << 4 | u64::from(count), bits: 4 + 4 * count };
        }
        most = most.max(pending[lane].bits);
        steps.push(Step { lane: lane as u8, start: start as u16, frequency: frequency as u16 });
    }
    let mut done = 0;
    while done < most {
        for (lane, pending) in pending[..group.len()].iter_mut().enumerate() {
            let bits = pending.bits.min(4);
            if bits > 0 {
                steps.push(raw_step(lane, (pending.raw & ((1 << bits) - 1)) as u32, bits));
                pending.raw >>= bits;
                pending.bits -= bits;
            }
        }
        done += 4;
    }
}

/// The words of a chunk, from the first to the last.
struct Words<'a> {
    bytes: &'a [u8],
    at: usize,
    offset: usize,
}

impl Words<'_> {
    #[inline]
    fn next(&mut self) -> Result<u32> {
        match self.bytes.get(self.at..self.at + 2) {
            Some(word) => {
                self.at += 2;
                Ok(u32::from(u16::from_le_bytes([word[0], word[1]])))
            }
            None => Err(Error::truncated("a chunk", self.offset + self.bytes.len())),
        }
    }

    /// Takes the interval [start, start + frequency) off a state.
    #[inline]
    fn advance(&mut self, state: &mut u32, start: u32, frequency: u32) -> Result<()> {
        let slot = *state & (TOTAL - 1);
        *state = frequency * (*state >> PROBABILITY_BITS) + slot - start;
        if *state < LOWEST {
            *state = *state << 16 | self.next()?;
        }
        Ok(())
    }

    /// Takes `bits` raw bits (1 to 4) off a state.
    #[inline]
    fn raw(&mut self, state: &mut u32, bits: u32) -> Result<u32> {
        let shift = PROBABILITY_BITS - bits;
        let raw = (*state & (TOTAL - 1)) >> shift;
        self.advance(state, raw << shift, 1 << shift)?;
        Ok(raw)
    }
}

/// Decodes one chunk into `symbols`, rows of `channels` symbols.
///
/// Before each run of up to [`MAX_LANES`] channels of a row, `tables_of(symbols so far, tables)`
/// fills in their tables. `offset` is where `bytes` begins in the stream, for errors.
///
/// # Errors
/// `Truncated` if the words run out, `Corrupt` if the states do not end where encoders begin,
/// words are left over, or an escape is malformed.
pub fn rans_decode(
    bytes: &[u8],
    offset: usize,
    symbols: &mut [i32],
    channels: usize,
    lanes: usize,
    bank: &Bank,
    mut tables_of: impl FnMut(&[i32], &mut [u8]),
) -> Result<()> {
    let mut words = Words { bytes, at: 0, offset };
    let mut states = [LOWEST; MAX_LANES];
    for state in &mut states[..lanes] {
        *state = words.next()? << 16 | words.next()?;
        if *state < LOWEST {
            return Err(Error::corrupt("an initial state is out of range", offset));
        }
    }
    let rows = symbols.len().checked_div(channels).unwrap_or(0);
    let mut tables = [0; MAX_LANES];
    for row in 0..rows {
        for first in (0..channels).step_by(MAX_LANES) {
            let (before, rest) = symbols.split_at_mut(row * channels + first);
            let run = &mut rest[..MAX_LANES.min(channels - first)];
            let tables = &mut tables[..run.len()];
            tables_of(before, tables);
            for (group, group_tables) in run.chunks_mut(lanes).zip(tables.chunks(lanes)) {
                decode_group(group, group_tables, bank, &mut states, &mut words)?;
            }
        }
    }
    if states[..lanes].iter().any(|&state| state != LOWEST) {
        return Err(Error::corrupt("a chunk does not end in its start state", offset + words.at));
    }
    if words.at != bytes.len() {
        return Err(Error::corrupt("bytes left over after a chunk", offset + words.at));
    }
    Ok(())
}

fn decode_group(
    group: &mut [i32],
    tables: &[u8],
    bank: &Bank,
    states: &mut [u32; MAX_LANES],
    words: &mut Words<'_>,
) -> Result<()> {
    let mut tokens = [0u8; MAX_LANES];
    let mut pending = [0u32; MAX_LANES];
    let mut any = 0;
    for (lane, (symbol, &table)) in group.iter_mut().zip(tables).enumerate() {
        let token = bank.token_at(table, states[lane]);
        let (start, frequency) = bank.interval(table, token);
        words.advance(&mut states[lane], start, frequency)?;
        if token == ESCAPE {
            pending[lane] = 4;
        } else {
            pending[lane] = class_bits(usize::from(token).div_ceil(2));
            *symbol = symbol_of(token, 0);
        }
        tokens[lane] = token;
        any |= pending[lane];
    }
    if any == 0 {
        return Ok(());
    }
    let mut raw = [0u64; MAX_LANES];
    let mut got = [0u32; MAX_LANES];
    loop {
        let mut any = false;
        for lane in 0..group.len() {
            let bits = (pending[lane] - got[lane]).min(4);
            if bits == 0 {
                continue;
            }
            raw[lane] |= u64::from(words.raw(&mut states[lane], bits)?) << got[lane];
            if tokens[lane] == ESCAPE && got[lane] == 0 {
                let count = raw[lane] as u32;
                if count > 8 {
                    return Err(Error::corrupt("an escape of more than 8 nibbles", words.offset + words.at));
                }
                pending[lane] = 4 + 4 * count;
            }
            got[lane] += bits;
            any = true;
        }
        if !any {
            break;
        }
    }
    for (lane, symbol) in group.iter_mut().enumerate() {
        if tokens[lane] == ESCAPE {
            *symbol = unzigzag((raw[lane] >> 4) as u32);
        } else if pending[lane] > 0 {
            *symbol = symbol_of(tokens[lane], raw[lane] as u32);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn decode(bytes: &[u8], tables: &[u8], channels: usize, lanes: usize, bank: &Bank) -> Result<Vec<i32>> {
        let mut symbols = vec![0; tables.len()];
        rans_decode(bytes, 0, &mut symbols, channels, lanes, bank, |before, out| {
            out.copy_from_slice(&tables[before.len()..][..out.len()]);
        })?;
        Ok(symbols)
    }

    fn symbol() -> impl Strategy<Value = i32> {
        prop_oneof![8 => -2..3i32, 4 => -30..30i32, 2 => -600..600i32, 1 => any::<i32>()]
    }

    proptest! {
        #[test]
        fn symbols_come_back(
            channels in 1..70usize,
            log_lanes in 0..6u32,
            data in proptest::collection::vec((symbol(), 0..104u8), 0..400),
        ) {
            let bank = Bank::builtin();
            let rows = data.len() / channels;
            let (symbols, tables): (Vec<i32>, Vec<u8>) = data[..rows * channels].iter().copied().unzip();
            let lanes = 1 << log_lanes;
            let mut bytes = Vec::new();
            rans_encode(&symbols, &tables, channels, lanes, &bank, &mut RansScratch::default(), &mut bytes);
            prop_assert_eq!(decode(&bytes, &tables, channels, lanes, &bank).unwrap(), symbols.clone());
            // Within 1 % and the states' bytes of the ideal length under the same tables.
            let ideal: f64 = symbols.iter().zip(&tables).map(|(&s, &t)| f64::from(bank.cost(t, s))).sum();
            let bound = ideal / 256.0 / 8.0 * 1.01 + 4.0 * lanes as f64 + 12.0;
            prop_assert!((bytes.len() as f64) <= bound, "{} > {}", bytes.len(), bound);
        }

        #[test]
        fn any_bytes_decode_or_fail(bytes in proptest::collection::vec(any::<u8>(), 0..200), table in 0..104u8) {
            let bank = Bank::builtin();
            let _ = decode(&bytes, &[table; 60], 6, 4, &bank);
        }
    }

    #[test]
    fn a_flipped_bit_before_the_last_words_or_a_missing_word_is_noticed() {
        let bank = Bank::builtin();
        let symbols: Vec<i32> = (0..240).map(|i| (i * 31 % 7) - 3).collect();
        let tables = vec![35; symbols.len()];
        let mut bytes = Vec::new();
        rans_encode(&symbols, &tables, 12, 2, &bank, &mut RansScratch::default(), &mut bytes);
        // A change of a lane's last word only moves its few last symbols, so one in some hundreds of
        // changes there ends in the start state by chance; before that it is one in 2^16.
        for bit in 0..(bytes.len() - 8) * 8 {
            let mut bad = bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(&bad, &tables, 12, 2, &bank).is_err(), "bit {bit} of {}", bytes.len() * 8);
        }
        for end in 0..bytes.len() {
            assert!(decode(&bytes[..end], &tables, 12, 2, &bank).is_err());
        }
    }
}
