//! The interleaved rANS coder, its lanes in vectors.
//!
//! Decoding: a vector of states looks up its tokens, multiplies, and the lanes that fell below 2^16 take
//! the next words, spread over them by one expansion. Encoding, backwards, is the reverse: one
//! compression gathers the words of the lanes that must give one up. Groups with raw bits, and the
//! last groups of a chunk, go through the portable code.

use fearless_simd::prelude::*;

use super::context::{Neighbourhood, Run};
use super::isa::{Isa, look_up_bytes, table_at};
use crate::entropy::bank::{Bank, PROBABILITY_BITS, TOTAL};
use crate::entropy::token::{FIRST_BUCKET, LAST_WITHOUT_BITS, TOKENS};
use crate::error::Result;
use crate::kernels::portable::{ContextModel, LOWEST, MAX_LANES, Step, Words, decode_group, decode_raw, push_group};

/// Set in an index of [`rans_index`] if the symbol has raw bits.
const HAS_RAW: u16 = 1 << 15;
/// Bytes that a vector of words may be read beyond the words that are needed.
const SLACK: usize = 4 * MAX_LANES;
/// Room for the words of a group, in words: a token and nine rounds of raw bits a lane.
const GROUP_WORDS: usize = 10 * MAX_LANES;

/// Symbols with their tables, ready for [`rans_encode`], and its buffers.
#[derive(Debug, Default, Clone)]
pub(crate) struct Coded {
    /// Per symbol `table * 32 + token`; some more at the end, for whole vectors to be read.
    indices: Vec<u16>,
    words: Vec<u16>,
    steps: Vec<Step>,
    neighbourhood: Neighbourhood,
}

impl Coded {
    /// Makes room for this many symbols.
    pub fn resize(&mut self, symbols: usize) {
        self.indices.clear();
        self.indices.resize(symbols + 2 * MAX_LANES, 0);
    }

    /// Sum of the costs of the symbols, in 1/256 bit, or any number from `enough` on if it is more.
    #[inline(always)]
    pub fn cost(&self, symbols: &[i32], bank: &Bank, enough: u64) -> u64 {
        let costs = bank.costs();
        let mut sum = 0;
        for (indices, symbols) in self.indices.chunks(MAX_LANES).zip(symbols.chunks(MAX_LANES)) {
            let mut run = 0;
            let mut rare = false;
            for &index in &indices[..symbols.len()] {
                let cost = costs[usize::from(index) & (costs.len() - 1)];
                rare |= index & HAS_RAW != 0 || cost == u32::MAX;
                run += cost & 0xffff;
            }
            sum += u64::from(run);
            if rare {
                sum -= u64::from(run);
                let cost = |(&index, &symbol): (&u16, &i32)| u64::from(bank.cost(table_of(index), symbol));
                sum += indices.iter().zip(symbols).map(cost).sum::<u64>();
            }
            if sum >= enough {
                break;
            }
        }
        sum
    }
}

/// Fills in the indices of a chunk whose symbols begin at `at`: its contexts, tables and tokens.
#[inline(always)]
pub(crate) fn rans_index<S: Isa>(
    simd: S,
    model: &ContextModel<'_>,
    symbols: &[i32],
    coded: &mut Coded,
    at: usize,
) {
    let Coded { indices, neighbourhood, .. } = coded;
    let width = (model.columns * model.channels).max(1);
    neighbourhood.start_chunk(model);
    let rows = symbols.chunks_exact(width).zip(indices[at..].chunks_exact_mut(width));
    for (row, (symbols, indices)) in rows.enumerate() {
        neighbourhood.start_row(model.has_up(row));
        let positions = symbols.chunks_exact(model.channels).zip(indices.chunks_exact_mut(model.channels));
        for (column, (symbols, indices)) in positions.enumerate() {
            for (run, (symbols, indices)) in symbols.chunks(MAX_LANES).zip(indices.chunks_mut(MAX_LANES)).enumerate() {
                let tables = neighbourhood.tables(simd, model, column, run);
                let mut all = [0; MAX_LANES];
                all[..symbols.len()].copy_from_slice(symbols);
                neighbourhood.put(model, column, run, &all);
                let of: [u16; MAX_LANES] = std::array::from_fn(#[inline(always)] |i| index_of(all[i], tables[i]));
                indices.copy_from_slice(&of[..indices.len()]);
            }
        }
    }
}

#[inline(always)]
fn index_of(symbol: i32, table: u8) -> u16 {
    let magnitude = symbol.unsigned_abs();
    let token = if magnitude < FIRST_BUCKET as u32 { 2 * magnitude as u16 - u16::from(symbol > 0) } else { HAS_RAW };
    token + u16::from(table) * TOKENS as u16
}

#[inline(always)]
fn table_of(index: u16) -> u8 {
    ((index & !HAS_RAW) / TOKENS as u16) as u8
}

/// A chunk to encode: its symbols, where they begin among those that were indexed, and how they are coded.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Job<'a> {
    pub symbols: &'a [i32],
    pub at: usize,
    pub channels: usize,
    pub lanes: usize,
    pub bank: &'a Bank,
}

/// As [`portable::rans_encode`](crate::kernels::portable::rans_encode), of a chunk that [`rans_index`]
/// has seen.
#[inline(always)]
pub(crate) fn rans_encode<S: Isa>(simd: S, gather: bool, job: &Job<'_>, coded: &mut Coded, out: &mut Vec<u8>) {
    match (job.lanes / S::u32s::LEN, S::GATHERS && gather) {
        (2, true) => encode::<S, 2, true>(simd, job, coded, out),
        (4, true) if S::u32s::LEN <= 8 => encode::<S, 4, true>(simd, job, coded, out),
        (_, true) => encode::<S, 1, true>(simd, job, coded, out),
        (2, false) => encode::<S, 2, false>(simd, job, coded, out),
        (4, false) if S::u32s::LEN <= 8 => encode::<S, 4, false>(simd, job, coded, out),
        (8, false) if S::u32s::LEN <= 4 => encode::<S, 8, false>(simd, job, coded, out),
        (_, false) => encode::<S, 1, false>(simd, job, coded, out),
    }
}

/// With V vectors of states.
#[inline(always)]
fn encode<S: Isa, const V: usize, const GATHER: bool>(simd: S, job: &Job<'_>, coded: &mut Coded, out: &mut Vec<u8>) {
    let Job { symbols, at, channels, lanes, bank } = *job;
    let Coded { indices, words, steps, .. } = coded;
    let width = S::u32s::LEN;
    let intervals = bank.intervals();
    let mut states = [S::u32s::splat(simd, LOWEST); V];
    // Words are written from the end of the buffer to its beginning.
    let mut top = words.len();
    for position in (0..symbols.len() / channels).rev() {
        for first in (0..channels.div_ceil(lanes)).rev().map(|group| group * lanes) {
            let count = lanes.min(channels - first);
            let start = position * channels + first;
            if top < GROUP_WORDS {
                top += grow(words);
            }
            let indices = &indices[at + start..][..2 * MAX_LANES];
            let mut index = [S::u32s::splat(simd, 0); V];
            for (v, pair) in index.chunks_mut(2).enumerate() {
                let both = S::u16s::from_slice(simd, &indices[2 * v * width..][..2 * width]).widen();
                pair[0] = both.0;
                if let Some(second) = pair.get_mut(1) {
                    *second = both.1;
                }
            }
            let mut interval = [S::u32s::splat(simd, 0); V];
            let mut hard = false;
            for v in 0..V {
                interval[v] = table_at::<S, GATHER>(simd, intervals, index[v]);
                // A symbol with raw bits, or a token without an interval.
                let rare = (index[v] & u32::from(HAS_RAW)).simd_gt(0) | (interval[v] >> 16).simd_eq(0);
                hard |= rare.to_bitmask() & active(count, v * width, width) != 0;
            }
            if hard {
                let mut own = spill::<S, V>(&states);
                let group = &symbols[start..start + count];
                let tables: Run = std::array::from_fn(#[inline(always)] |i| table_of(indices[i]));
                steps.clear();
                push_group(group, &tables[..count], bank, steps);
                for step in steps.iter().rev() {
                    let state = &mut own[usize::from(step.lane)];
                    let frequency = u32::from(step.frequency);
                    if *state >> (32 - PROBABILITY_BITS) >= frequency {
                        top -= 1;
                        words[top] = *state as u16;
                        *state >>= 16;
                    }
                    *state = ((*state / frequency) << PROBABILITY_BITS) + *state % frequency + u32::from(step.start);
                }
                states = fill::<S, V>(simd, &own);
                continue;
            }
            for v in (0..V).rev() {
                let old = states[v];
                let (frequency, begin) = (interval[v] >> 16, interval[v] & 0xffff);
                let mut need = (old >> (32 - PROBABILITY_BITS)).simd_ge(frequency);
                let mine = active(count, v * width, width);
                let whole = count >= (v + 1) * width;
                if !whole {
                    need = need & S::mask32s::from_bitmask(simd, mine);
                }
                top = simd.push_words(words, top, old, need);
                let state = need.select(old >> 16, old);
                let new = advance(simd, state, frequency, begin);
                states[v] = if whole { new } else { S::mask32s::from_bitmask(simd, mine).select(new, old) };
            }
        }
    }
    let own = spill::<S, V>(&states);
    put_chunk(&own[..lanes], &words[top..], out);
}

/// The state after a symbol of an interval, the old one being below `frequency` * 2^20.
///
/// The quotient is found in f32 and made exact: the reciprocal is 6 * 2^-24 of it too small, the four
/// roundings to nearest add or take at most 2^-24 each, and the quotient is below 2^20, so that the
/// product's integer part is the quotient or one less.
#[inline(always)]
pub(super) fn advance<S: Isa>(simd: S, state: S::u32s, frequency: S::u32s, begin: S::u32s) -> S::u32s {
    const SHORT: f32 = 1.0 - 6.0 / 16_777_216.0;
    let divisor: S::i32s = frequency.bitcast();
    let reciprocal = S::f32s::splat(simd, SHORT) / divisor.to_float::<S::f32s>();
    let quotient: S::i32s = (simd.to_float(state) * reciprocal).to_int();
    let quotient: S::u32s = quotient.bitcast();
    let rest = state - quotient * frequency;
    let short = rest.simd_ge(frequency);
    let quotient = short.select(quotient + 1, quotient);
    let rest = short.select(rest - frequency, rest);
    (quotient << PROBABILITY_BITS) + rest + begin
}

/// Appends states and words.
pub(super) fn put_chunk(states: &[u32], words: &[u16], out: &mut Vec<u8>) {
    for state in states {
        out.extend_from_slice(&((state >> 16) as u16).to_le_bytes());
        out.extend_from_slice(&(*state as u16).to_le_bytes());
    }
    let from = out.len();
    out.resize(from + 2 * words.len(), 0);
    for (bytes, word) in out[from..].chunks_exact_mut(2).zip(words) {
        bytes.copy_from_slice(&word.to_le_bytes());
    }
}

/// Doubles a buffer that is filled from its end; returns by how much.
#[cold]
fn grow(words: &mut Vec<u16>) -> usize {
    let (old, more) = (words.len(), words.len().max(4 * GROUP_WORDS));
    words.resize(old + more, 0);
    words.copy_within(..old, more);
    more
}

/// One bit for each lane of the vector from lane `first` on that is below `count`.
#[inline(always)]
fn active(count: usize, first: usize, width: usize) -> u64 {
    (1 << count.saturating_sub(first).min(width)) - 1
}

#[inline(always)]
fn spill<S: Isa, const V: usize>(states: &[S::u32s; V]) -> [u32; MAX_LANES] {
    let mut own = [LOWEST; MAX_LANES];
    for (own, states) in own.chunks_exact_mut(S::u32s::LEN).zip(states) {
        states.store_slice(own);
    }
    own
}

#[inline(always)]
fn fill<S: Isa, const V: usize>(simd: S, own: &[u32; MAX_LANES]) -> [S::u32s; V] {
    std::array::from_fn(#[inline(always)] |v| S::u32s::from_slice(simd, &own[v * S::u32s::LEN..][..S::u32s::LEN]))
}

/// A chunk to decode.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Source<'a> {
    pub bytes: &'a [u8],
    /// Where they begin in the stream.
    pub offset: usize,
    pub lanes: usize,
    pub bank: &'a Bank,
    pub model: ContextModel<'a>,
}

/// As [`portable::rans_decode`](crate::kernels::portable::rans_decode), with the contexts of `source.model`.
#[inline(always)]
pub(crate) fn rans_decode<S: Isa>(
    simd: S,
    gather: bool,
    source: &Source<'_>,
    symbols: &mut [i32],
    near: &mut Neighbourhood,
) -> Result<()> {
    match (source.lanes / S::u32s::LEN, S::GATHERS && gather) {
        (2, true) => decode::<S, 2, true>(simd, source, symbols, near),
        (4, true) if S::u32s::LEN <= 8 => decode::<S, 4, true>(simd, source, symbols, near),
        (1, true) => decode::<S, 1, true>(simd, source, symbols, near),
        (0, true) if 2 * source.lanes == S::u32s::LEN => decode::<S, 1, true>(simd, source, symbols, near),
        (1, false) => decode::<S, 1, false>(simd, source, symbols, near),
        (2, false) => decode::<S, 2, false>(simd, source, symbols, near),
        (4, false) if S::u32s::LEN <= 8 => decode::<S, 4, false>(simd, source, symbols, near),
        (8, false) if S::u32s::LEN <= 4 => decode::<S, 8, false>(simd, source, symbols, near),
        // Vectors would be almost empty.
        _ => decode::<S, 0, false>(simd, source, symbols, near),
    }
}

/// With V vectors of states, or 0 for one lane after the other.
#[inline(always)]
fn decode<S: Isa, const V: usize, const GATHER: bool>(
    simd: S,
    source: &Source<'_>,
    symbols: &mut [i32],
    near: &mut Neighbourhood,
) -> Result<()> {
    let Source { bytes, offset, lanes, bank, ref model } = *source;
    let mut own = [LOWEST; MAX_LANES];
    let mut words = Words::open(bytes, offset, &mut own[..lanes])?;
    let mut states = fill::<S, V>(simd, &own);
    near.start_chunk(model);
    let channels = model.channels;
    // Longer than a run, for whole vectors to be read and written.
    let mut decoded = [0i32; 2 * MAX_LANES];
    let mut wide = [0u32; 2 * MAX_LANES];
    for (row, symbols) in symbols.chunks_exact_mut(model.columns * channels).enumerate() {
        near.start_row(model.has_up(row));
        for (column, symbols) in symbols.chunks_exact_mut(channels).enumerate() {
            for (run, symbols) in symbols.chunks_mut(MAX_LANES).enumerate() {
                let tables = near.tables(simd, model, column, run);
                let count = symbols.len();
                for (wide, &table) in wide.iter_mut().zip(&tables) {
                    *wide = u32::from(table) << PROBABILITY_BITS;
                }
                let mut first = 0;
                if V == 0 {
                    let (out, tables) = (&mut decoded[..count], &wide[..count]);
                    first = match lanes {
                        1 => few::<1>(out, tables, bank, &mut own, &mut words)?,
                        2 => few::<2>(out, tables, bank, &mut own, &mut words)?,
                        4 => few::<4>(out, tables, bank, &mut own, &mut words)?,
                        _ => 0,
                    };
                }
                for first in (first..count).step_by(lanes) {
                    let group = lanes.min(count - first);
                    if V == 0 || bytes.len() - words.at < SLACK {
                        if V > 0 {
                            own = spill::<S, V>(&states);
                        }
                        let tables = &tables[first..first + group];
                        decode_group(&mut decoded[first..first + group], tables, bank, &mut own, &mut words)?;
                        states = fill::<S, V>(simd, &own);
                        continue;
                    }
                    let (out, tables) = (&mut decoded[first..], &wide[first..]);
                    let tokens = vectors::<S, V, GATHER>(simd, &mut states, &mut words, tables, group, bank, out);
                    if let Some(tokens) = tokens {
                        own = spill::<S, V>(&states);
                        decode_raw(&mut out[..group], &tokens, &mut own, &mut words)?;
                        states = fill::<S, V>(simd, &own);
                    }
                }
                symbols.copy_from_slice(&decoded[..count]);
                if count < MAX_LANES {
                    decoded[count..].fill(0);
                }
                near.put(model, column, run, decoded.first_chunk().unwrap_or(&[0; MAX_LANES]));
            }
        }
    }
    if V > 0 {
        own = spill::<S, V>(&states);
    }
    words.close(&own[..lanes])
}

/// The tokens of a group, and their symbols; gives the tokens back if raw bits follow some of them.
#[inline(always)]
fn vectors<S: Isa, const V: usize, const GATHER: bool>(
    simd: S,
    states: &mut [S::u32s; V],
    words: &mut Words<'_>,
    tables: &[u32],
    count: usize,
    bank: &Bank,
    out: &mut [i32],
) -> Option<[u8; MAX_LANES]> {
    let width = S::u32s::LEN;
    let mut tokens = [S::u32s::splat(simd, 0); V];
    let mut raw = false;
    for v in 0..V {
        let old = states[v];
        let table = S::u32s::from_slice(simd, &tables[v * width..][..width]);
        let slot = old & (TOTAL - 1);
        let at = table | slot;
        let token = if GATHER { simd.gather_bytes(bank.slots(), at) } else { look_up_bytes(simd, bank.slots(), at) };
        let interval = table_at::<S, GATHER>(simd, bank.intervals(), (table >> (PROBABILITY_BITS - TOKENS.ilog2())) | token);
        let new = (interval >> 16) * (old >> PROBABILITY_BITS) + slot - (interval & 0xffff);
        let mut need = new.simd_lt(LOWEST);
        let whole = count >= (v + 1) * width;
        let mine = active(count, v * width, width);
        if !whole {
            need = need & S::mask32s::from_bitmask(simd, mine);
        }
        let next: S::u16s = S::u8s::from_slice(simd, &words.bytes[words.at..][..4 * width]).bitcast();
        let next = next.widen().0.expand(need);
        let bits = need.to_bitmask();
        words.at += 2 * bits.count_ones() as usize;
        let new = need.select((new << 16) | next, new);
        states[v] = if whole { new } else { S::mask32s::from_bitmask(simd, mine).select(new, old) };
        raw |= token.simd_gt(u32::from(LAST_WITHOUT_BITS)).to_bitmask() & mine != 0;
        // Odd tokens are positive, even ones negative.
        let magnitude = (token + 1) >> 1;
        let sign = (token & 1) - 1;
        let symbol: S::i32s = ((magnitude ^ sign) - sign).bitcast();
        symbol.store_slice(&mut out[v * width..][..width]);
        tokens[v] = token;
    }
    raw.then(|| {
        let tokens = spill::<S, V>(&tokens);
        tokens.map(|token| token as u8)
    })
}

/// A whole run of symbols, one lane after the other; at most four lanes.
///
/// Only groups that cannot run out of words are decoded: gives back how many symbols were.
#[inline(always)]
fn few<const L: usize>(
    out: &mut [i32],
    tables: &[u32],
    bank: &Bank,
    own: &mut [u32; MAX_LANES],
    words: &mut Words<'_>,
) -> Result<usize> {
    let (slots, intervals) = (bank.slots(), bank.intervals());
    let mut states: [u32; L] = *own.first_chunk().unwrap_or(&[0; L]);
    let mut done = 0;
    for (out, tables) in out.as_chunks_mut::<L>().0.iter_mut().zip(tables.as_chunks::<L>().0) {
        let Some(window) = words.bytes[words.at..].first_chunk::<16>() else { break };
        let mut tokens = [0u8; L];
        let mut used = 0;
        for lane in 0..L {
            let (old, table) = (states[lane], tables[lane]);
            let slot = old & (TOTAL - 1);
            let token = slots[(table | slot) as usize & (slots.len() - 4)];
            let index = (table >> (PROBABILITY_BITS - TOKENS.ilog2())) as usize | usize::from(token);
            let interval = intervals[index & (intervals.len() - 1)];
            let new = (interval >> 16) * (old >> PROBABILITY_BITS) + slot - (interval & 0xffff);
            let word = u32::from(u16::from_le_bytes([window[used & 15], window[(used + 1) & 15]]));
            let need = new < LOWEST;
            states[lane] = if need { new << 16 | word } else { new };
            used += 2 * usize::from(need);
            tokens[lane] = token;
            let (magnitude, sign) = ((i32::from(token) + 1) >> 1, i32::from(token & 1) - 1);
            out[lane] = (magnitude ^ sign) - sign;
        }
        words.at += used;
        done += L;
        if tokens.iter().any(|&token| token > LAST_WITHOUT_BITS) {
            let mut all = [0; MAX_LANES];
            all[..L].copy_from_slice(&tokens);
            own[..L].copy_from_slice(&states);
            decode_raw(out, &all, own, words)?;
            states = *own.first_chunk().unwrap_or(&[0; L]);
        }
    }
    own[..L].copy_from_slice(&states);
    Ok(done)
}
