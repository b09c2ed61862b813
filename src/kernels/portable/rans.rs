//! Interleaved rANS: 32-bit states, 16-bit renormalisation, 12-bit probabilities.
//!
//! ```text
//! decode: slot = x & 4095; token = the one whose interval [start, start + f) holds slot
//!         x = f * (x >> 12) + slot - start; if x < 2^16 { x = x << 16 | next word }
//! encode: the inverse, from the last operation to the first
//! ```
//!
//! Channel j of a position belongs to lane j mod L. The channels of a position are coded in groups
//! of L: first the tokens of the group, in lane order; then rounds of raw bits, in each of which
//! every lane that still has raw bits to come codes up to four of them (low bits first), again in
//! lane order, as a token of frequency 4096 >> n. All lanes share one sequence of words. A chunk is
//! the L initial states (high word, low word), then the words, all u16 little-endian. Decoding must
//! end with every state where [`CheckSums`] of the symbols say, and no word left.

use super::check::CheckSums;
use super::context::{ContextModel, Neighbourhood};
use super::strip::{Strip, Strips};
use crate::entropy::bank::{Bank, PROBABILITY_BITS, TOTAL};
use crate::entropy::token::{ESCAPE, LAST_WITHOUT_BITS, class_bits, nibbles, symbol_of, token_of, unzigzag, zigzag};
use crate::error::{Error, Result};

/// Most lanes.
pub const MAX_LANES: usize = 32;
/// The smallest state.
pub(crate) const LOWEST: u32 = 1 << 16;

/// One coding step: which lane, and the interval of 4,096.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Step {
    pub lane: u8,
    pub start: u16,
    pub frequency: u16,
}

fn raw_step(lane: usize, raw: u32, bits: u32) -> Step {
    let shift = PROBABILITY_BITS - bits;
    Step { lane: lane as u8, start: (raw << shift) as u16, frequency: 1 << shift }
}

/// Raw bits still to be coded by a lane.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Pending {
    raw: u64,
    bits: u32,
}

/// Appends one chunk to `out`: `symbols` holds rows of `channels` symbols, `tables` the table of each, `ends` the state in
/// which the decoder of each lane shall end.
///
/// `scratch` is kept between calls so that nothing is allocated.
pub fn rans_encode(
    symbols: &[i32],
    tables: &[u8],
    channels: usize,
    ends: &[u32],
    bank: &Bank,
    scratch: &mut RansScratch,
    out: &mut Vec<u8>,
) {
    let lanes = ends.len();
    scratch.steps.clear();
    for (row, row_tables) in symbols.chunks(channels.max(1)).zip(tables.chunks(channels.max(1))) {
        for (group, group_tables) in row.chunks(lanes).zip(row_tables.chunks(lanes)) {
            push_group(group, group_tables, bank, &mut scratch.steps);
        }
    }
    scratch.write(ends, out);
}

/// Buffers of [`rans_encode`].
#[derive(Debug, Default, Clone)]
pub struct RansScratch {
    /// In the order in which a decoder takes them.
    pub(crate) steps: Vec<Step>,
    words: Vec<u16>,
}

impl RansScratch {
    /// Takes the steps from the last to the first, and appends the chunk that they make to `out`.
    pub(crate) fn write(&mut self, ends: &[u32], out: &mut Vec<u8>) {
        let RansScratch { steps, words } = self;
        let lanes = ends.len();
        words.clear();
        let mut states = [LOWEST; MAX_LANES];
        states[..lanes].copy_from_slice(ends);
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
}

/// The steps of one group, in the order in which a decoder takes them.
pub(crate) fn push_group(group: &[i32], tables: &[u8], bank: &Bank, steps: &mut Vec<Step>) {
    let mut pending = [Pending::default(); MAX_LANES];
    for (lane, (&symbol, &table)) in group.iter().zip(tables).enumerate() {
        pending[lane] = push_symbol(lane, symbol, table, bank, steps);
    }
    push_raw(&mut pending[..group.len()], steps);
}

/// The step of a symbol's token, and what raw bits come after those of its group.
#[inline]
pub(crate) fn push_symbol(lane: usize, symbol: i32, table: u8, bank: &Bank, steps: &mut Vec<Step>) -> Pending {
    let (token, raw, bits) = token_of(symbol);
    let mut pending = Pending { raw: u64::from(raw), bits };
    let (mut start, mut frequency) = bank.interval(table, token);
    if token == ESCAPE || frequency == 0 {
        (start, frequency) = bank.interval(table, ESCAPE);
        let value = zigzag(symbol);
        let count = nibbles(value);
        pending = Pending { raw: u64::from(value) << 4 | u64::from(count), bits: 4 + 4 * count };
    }
    steps.push(Step { lane: lane as u8, start: start as u16, frequency: frequency as u16 });
    pending
}

/// The steps of the raw bits of a group.
#[inline]
pub(crate) fn push_raw(group: &mut [Pending], steps: &mut Vec<Step>) {
    let most = group.iter().map(|pending| pending.bits).max().unwrap_or(0);
    for _ in 0..most.div_ceil(4) {
        for (lane, pending) in group.iter_mut().enumerate() {
            let bits = pending.bits.min(4);
            if bits > 0 {
                steps.push(raw_step(lane, (pending.raw & ((1 << bits) - 1)) as u32, bits));
                pending.raw >>= bits;
                pending.bits -= bits;
            }
        }
    }
}

/// The words of a chunk, from the first to the last.
pub(crate) struct Words<'a> {
    pub bytes: &'a [u8],
    /// The next word, in bytes.
    pub at: usize,
    /// Where `bytes` begins in the stream.
    pub offset: usize,
}

impl<'a> Words<'a> {
    /// Reads the initial states of a chunk.
    pub fn open(bytes: &'a [u8], offset: usize, states: &mut [u32]) -> Result<Self> {
        let mut words = Words { bytes, at: 0, offset };
        for state in states {
            *state = words.next()? << 16 | words.next()?;
            if *state < LOWEST {
                return Err(Error::corrupt("an initial state is out of range", offset));
            }
        }
        Ok(words)
    }

    /// Checks that a chunk ends here, in the states that it should.
    pub fn close(&self, states: &[u32], ends: &[u32]) -> Result<()> {
        if states != ends {
            return Err(Error::corrupt(
                "a chunk does not end in the states that its symbols ask for",
                self.offset + self.at,
            ));
        }
        if self.at != self.bytes.len() {
            return Err(Error::corrupt("bytes left over after a chunk", self.offset + self.at));
        }
        Ok(())
    }

    #[inline]
    pub fn next(&mut self) -> Result<u32> {
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
    pub fn advance(&mut self, state: &mut u32, start: u32, frequency: u32) -> Result<()> {
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

/// A chunk to decode.
#[derive(Debug, Clone)]
pub struct Source<'a> {
    /// States and words.
    pub bytes: &'a [u8],
    /// Where they begin in the stream, for errors.
    pub offset: usize,
    /// Number of states.
    pub lanes: usize,
    /// The tables.
    pub bank: &'a Bank,
    /// What chooses among them.
    pub model: ContextModel<'a>,
    /// The parts in which the symbols are wanted.
    pub strips: Strips,
    /// What the check sums start from; none in streams of version 1.
    pub seed: Option<u32>,
}

impl Source<'_> {
    /// Symbols of a strip at most, and a run more.
    pub(crate) fn strip_symbols(&self) -> usize {
        self.strips.positions() * self.model.channels + MAX_LANES
    }
}

/// Decodes one chunk; `sink` takes the symbols of each strip, rows of channels. `near` and `symbols` are scratch.
///
/// # Errors
/// `Truncated` if the words run out, `Corrupt` if the states do not end where the symbols say, words are left over, or an
/// escape is malformed; what went to the sink is then garbage.
pub fn rans_decode(
    source: &Source<'_>,
    near: &mut Neighbourhood,
    symbols: &mut Vec<i32>,
    sink: &mut dyn FnMut(&Strip, &[i32]),
) -> Result<()> {
    let Source { bytes, offset, lanes, bank, ref model, ref strips, seed } = *source;
    let mut states = [LOWEST; MAX_LANES];
    let mut words = Words::open(bytes, offset, &mut states[..lanes])?;
    let mut tables = [0; MAX_LANES];
    let mut sums = CheckSums::default();
    let mut number = 0u32;
    near.start_chunk(model);
    symbols.resize(source.strip_symbols(), 0);
    for strip in strips.clone() {
        let mut at = 0;
        for (row, column) in strip.places() {
            if column == 0 {
                near.start_row(model.has_up(row - model.first_row));
            }
            for run in 0..model.run_count() {
                let count = MAX_LANES.min(model.channels - run * MAX_LANES);
                near.tables(model, column, run, &mut tables[..count]);
                let mut decoded = [0; MAX_LANES];
                for (group, tables) in decoded[..count].chunks_mut(lanes).zip(tables[..count].chunks(lanes)) {
                    decode_group(group, tables, bank, &mut states, &mut words)?;
                }
                symbols[at..at + count].copy_from_slice(&decoded[..count]);
                sums.add(number, &decoded);
                near.put(model, column, run, &decoded);
                at += count;
                number = number.wrapping_add(count as u32);
            }
        }
        sink(&strip, &symbols[..at]);
    }
    words.close(&states[..lanes], &sums.end_states(lanes, seed)[..lanes])
}

/// Decodes up to a symbol for each lane.
pub(crate) fn decode_group(
    group: &mut [i32],
    tables: &[u8],
    bank: &Bank,
    states: &mut [u32; MAX_LANES],
    words: &mut Words<'_>,
) -> Result<()> {
    let mut tokens = [0u8; MAX_LANES];
    let mut largest = 0;
    for (lane, &table) in tables[..group.len()].iter().enumerate() {
        let token = bank.token_at(table, states[lane]);
        let (start, frequency) = bank.interval(table, token);
        words.advance(&mut states[lane], start, frequency)?;
        tokens[lane] = token;
        largest = largest.max(token);
    }
    for (symbol, &token) in group.iter_mut().zip(&tokens) {
        *symbol = symbol_of(token, 0);
    }
    if largest > LAST_WITHOUT_BITS { decode_raw(group, &tokens, states, words) } else { Ok(()) }
}

/// The rounds of raw bits of a group whose tokens are known.
pub(crate) fn decode_raw(
    group: &mut [i32],
    tokens: &[u8; MAX_LANES],
    states: &mut [u32; MAX_LANES],
    words: &mut Words<'_>,
) -> Result<()> {
    let mut pending: [u32; MAX_LANES] = std::array::from_fn(|lane| match tokens[lane] {
        ESCAPE => 4,
        token => class_bits(usize::from(token).div_ceil(2)),
    });
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
    use super::super::context::{CONTEXTS, ContextRule, RunTables};
    use super::*;
    use proptest::prelude::*;

    const SEED: Option<u32> = Some(77);

    /// One chunk of rows of these channels, each with its table.
    fn encode(symbols: &[i32], tables: &[u8], lanes: usize, bank: &Bank) -> Vec<u8> {
        let (mut sums, mut bytes) = (CheckSums::default(), Vec::new());
        sums.add_all(symbols, tables.len());
        let ends = &sums.end_states(lanes, SEED)[..lanes];
        let all: Vec<u8> = tables.iter().copied().cycle().take(symbols.len()).collect();
        rans_encode(symbols, &all, tables.len(), ends, bank, &mut RansScratch::default(), &mut bytes);
        bytes
    }

    fn decode(bytes: &[u8], positions: usize, tables: &[u8], lanes: usize, bank: &Bank) -> Result<Vec<i32>> {
        let runs: Vec<RunTables> = tables
            .chunks(MAX_LANES)
            .map(|tables| {
                let mut run = RunTables::EMPTY;
                run.tables[0][..tables.len()].copy_from_slice(tables);
                RunTables { tables: [run.tables[0]; CONTEXTS], ..run }
            })
            .collect();
        let (rule, columns, channels) = (ContextRule::None, positions.max(1), tables.len());
        let model = ContextModel { rule, columns, plane_rows: 1, first_row: 0, channels, runs: &runs };
        let strips = Strips::new(0..positions.min(1), columns, channels, 1000);
        let source = Source { bytes, offset: 0, lanes, bank, model, strips, seed: SEED };
        let mut symbols = Vec::new();
        let sink = &mut |_: &Strip, strip: &[i32]| symbols.extend_from_slice(strip);
        rans_decode(&source, &mut Neighbourhood::default(), &mut Vec::new(), sink)?;
        Ok(symbols)
    }

    fn symbol() -> impl Strategy<Value = i32> {
        prop_oneof![8 => -2..3i32, 4 => -30..30i32, 2 => -600..600i32, 1 => any::<i32>()]
    }

    proptest! {
        #[test]
        fn symbols_come_back(
            tables in proptest::collection::vec(0..104u8, 1..70),
            log_lanes in 0..6u32,
            data in proptest::collection::vec(symbol(), 0..if cfg!(miri) { 100 } else { 400 }),
        ) {
            let bank = Bank::builtin();
            let (positions, lanes) = (data.len() / tables.len(), 1 << log_lanes);
            let symbols = &data[..positions * tables.len()];
            let bytes = encode(symbols, &tables, lanes, &bank);
            prop_assert_eq!(decode(&bytes, positions, &tables, lanes, &bank).unwrap(), symbols);
            // Within 1 % and the states' bytes of the ideal length under the same tables.
            let cost = |(&symbol, &table)| f64::from(bank.cost(table, symbol));
            let ideal: f64 = symbols.iter().zip(tables.iter().cycle()).map(cost).sum();
            let bound = ideal / 256.0 / 8.0 * 1.01 + 4.0 * lanes as f64 + 12.0;
            prop_assert!((bytes.len() as f64) <= bound, "{} > {}", bytes.len(), bound);
        }

        #[test]
        fn any_bytes_decode_or_fail(bytes in proptest::collection::vec(any::<u8>(), 0..200), table in 0..104u8) {
            let _ = decode(&bytes, 10, &[table; 6], 4, &Bank::builtin());
        }
    }

    #[test]
    fn a_changed_bit_or_a_missing_byte_is_noticed() {
        let bank = Bank::builtin();
        // Table 80 has symbols of several raw bits, which pass through the states unchanged.
        for (table, spread) in [(35, 7), (80, 601)] {
            let symbols: Vec<i32> = (0..240).map(|i| (i * 31 % spread) - spread / 2).collect();
            let tables = [table; 12];
            let bytes = encode(&symbols, &tables, 2, &bank);
            // All of them, but where every step is interpreted.
            let stride = if cfg!(miri) { 61 } else { 1 };
            for bit in (0..bytes.len() * 8).step_by(stride) {
                let mut bad = bytes.clone();
                bad[bit / 8] ^= 1 << (bit % 8);
                assert!(decode(&bad, 20, &tables, 2, &bank).is_err(), "bit {bit} of {}", bytes.len() * 8);
            }
            for end in (0..bytes.len()).step_by(stride) {
                assert!(decode(&bytes[..end], 20, &tables, 2, &bank).is_err());
            }
        }
    }
}
