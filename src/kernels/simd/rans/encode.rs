//! Encoding.

use fearless_simd::prelude::*;

use super::super::context::{Run, load_run, tables};
use super::super::isa::{Isa, table_at};
use super::{active, fill, spill};
use crate::entropy::bank::{Bank, PROBABILITY_BITS};
use crate::entropy::token::{FIRST_BUCKET, FIRST_ESCAPED, LAST_WITHOUT_BITS, TOKENS};
use crate::kernels::portable::{CheckSums, ContextModel, MAX_LANES, Neighbourhood, Step, push_group};

/// Set in an index of [`rans_index`] if the symbol must be written as an escape.
const ESCAPED: u16 = 1 << 15;
/// Room for the words of a group, in words: a token and nine rounds of raw bits a lane.
const GROUP_WORDS: usize = 10 * MAX_LANES;
/// The token of an index.
const LAST_TOKEN: u32 = TOKENS as u32 - 1;
/// A bucket of magnitudes begins this far above a power of two.
const BUCKET_OFFSET: u32 = 5;

/// Symbols with their tables, ready for [`rans_encode`], and its buffers.
#[derive(Debug, Default, Clone)]
pub(crate) struct Coded {
    /// Per symbol `table * 32 + token`; some more at the end, for whole vectors to be read.
    indices: Vec<u16>,
    words: Vec<u16>,
    steps: Vec<Step>,
}

impl Coded {
    /// Makes room for this many symbols.
    fn resize(&mut self, symbols: usize) {
        self.indices.resize(symbols + 2 * MAX_LANES, 0);
    }

    /// Sum of the costs of the symbols, in 1/256 bit, or any number from `enough` on if it is more.
    #[inline(always)]
    pub fn cost<S: Isa>(&self, simd: S, gather: bool, symbols: &[i32], bank: &Bank, enough: u64) -> u64 {
        let costs = bank.costs();
        let mut sum = 0;
        for (at, symbols) in symbols.chunks(MAX_LANES).enumerate() {
            let indices = &self.indices[at * MAX_LANES..][..MAX_LANES];
            let mut run = S::u32s::splat(simd, 0);
            let mut largest = run;
            for pair in indices.chunks_exact(S::u16s::LEN) {
                let (low, high) = S::u16s::from_slice(simd, pair).widen();
                for index in [low, high] {
                    let cost = if S::GATHERS && gather {
                        table_at::<S, true>(simd, costs, index)
                    } else {
                        table_at::<S, false>(simd, costs, index)
                    };
                    // From this on: an escape, or a token without an interval.
                    largest = largest.max(cost).max(index << 8);
                    run += cost;
                }
            }
            sum += if symbols.len() == MAX_LANES && largest.reduce_max() < u32::from(ESCAPED) << 8 {
                u64::from(run.reduce_sum())
            } else {
                let cost = |(&index, &symbol): (&u16, &i32)| u64::from(bank.cost(table_of(index), symbol));
                indices.iter().zip(symbols).map(cost).sum::<u64>()
            };
            if sum >= enough {
                break;
            }
        }
        sum
    }
}

/// Fills in the indices of a chunk (its contexts, tables and tokens) and its check sums.
#[inline(always)]
pub(crate) fn rans_index<S: Isa>(
    simd: S,
    model: &ContextModel<'_>,
    symbols: &[i32],
    near: &mut Neighbourhood,
    coded: &mut Coded,
    sums: &mut CheckSums,
) {
    coded.resize(symbols.len());
    let indices = &mut coded.indices;
    near.start_chunk(model);
    let mut at = 0;
    for row in 0..symbols.len() / (model.columns * model.channels) {
        near.start_row(model.has_up(row));
        for column in 0..model.columns {
            for (run, of_run) in model.runs.iter().enumerate() {
                let count = (model.channels - run * MAX_LANES).min(MAX_LANES);
                let mut all = match symbols[at..].first_chunk() {
                    Some(&whole) => whole,
                    None => load_run(&symbols[at..at + count]),
                };
                for i in 0..MAX_LANES {
                    all[i] &= of_run.present[i];
                }
                sums.add(at as u32, &all);
                let tables = tables(simd, near, model, column, run);
                near.put(model, column, run, &all);
                let mut of = [0u16; MAX_LANES];
                for i in 0..MAX_LANES {
                    of[i] = index_of(all[i], tables[i]);
                }
                // What is written beyond a short run, the next one writes again; there is room at the end.
                indices[at..at + MAX_LANES].copy_from_slice(&of);
                at += count;
            }
        }
    }
}

#[inline(always)]
fn index_of(symbol: i32, table: u8) -> u16 {
    let magnitude = symbol.unsigned_abs();
    // The exponent of a bucket's number of values, from that of a float.
    let bucket = magnitude.clamp(FIRST_BUCKET as u32, FIRST_ESCAPED) - BUCKET_OFFSET;
    let class =
        if magnitude < FIRST_BUCKET as u32 { magnitude } else { ((bucket as i32 as f32).to_bits() >> 23) - 120 };
    let token = (2 * class - u32::from(symbol > 0)) as u16;
    let token = if magnitude < FIRST_ESCAPED { token } else { ESCAPED };
    token | (u16::from(table) * TOKENS as u16)
}

/// The tokens of a run of symbols.
#[inline(always)]
pub(crate) fn tokens_of(symbols: &[i32], tokens: &mut [u8; MAX_LANES]) {
    let symbols = load_run(symbols);
    for i in 0..MAX_LANES {
        let index = index_of(symbols[i], 0);
        tokens[i] = if index == ESCAPED { LAST_TOKEN as u8 } else { index as u8 };
    }
}

#[inline(always)]
fn table_of(index: u16) -> u8 {
    ((index & !ESCAPED) / TOKENS as u16) as u8
}

/// A chunk to encode: its symbols, and how they are coded.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Job<'a> {
    pub symbols: &'a [i32],
    pub channels: usize,
    pub lanes: usize,
    pub bank: &'a Bank,
    /// The state in which the decoder of each lane shall end.
    pub ends: [u32; MAX_LANES],
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
    let Job { symbols, channels, lanes, bank, ends } = *job;
    let Coded { indices, words, steps, .. } = coded;
    let width = S::u32s::LEN;
    let intervals = bank.intervals();
    let mut states = fill::<S, V>(simd, &ends);
    // Words are written from the end of the buffer to its beginning.
    let mut top = words.len();
    for position in (0..symbols.len() / channels).rev() {
        for first in (0..channels.div_ceil(lanes)).rev().map(|group| group * lanes) {
            let count = lanes.min(channels - first);
            let start = position * channels + first;
            if top < GROUP_WORDS {
                top += grow(words);
            }
            let indices = &indices[start..][..2 * MAX_LANES];
            let mut index = [S::u32s::splat(simd, 0); V];
            for (v, pair) in index.chunks_mut(2).enumerate() {
                let both = S::u16s::from_slice(simd, &indices[2 * v * width..][..2 * width]).widen();
                pair[0] = both.0;
                if let Some(second) = pair.get_mut(1) {
                    *second = both.1;
                }
            }
            let mut interval = [S::u32s::splat(simd, 0); V];
            let (mut escapes, mut raw) = (0, 0);
            for v in 0..V {
                interval[v] = table_at::<S, GATHER>(simd, intervals, index[v]);
                let mine = active(count, v * width, width);
                // A symbol without a token, or a token without an interval.
                let rare = (index[v] & u32::from(ESCAPED)).simd_gt(0) | (interval[v] >> 16).simd_eq(0);
                escapes |= rare.to_bitmask() & mine;
                raw |= (index[v] & LAST_TOKEN).simd_gt(u32::from(LAST_WITHOUT_BITS)).to_bitmask() & mine;
            }
            if escapes != 0 {
                let mut own = spill::<S, V>(&states);
                let group = &symbols[start..start + count];
                let tables: Run = std::array::from_fn(
                    #[inline(always)]
                    |i| table_of(indices[i]),
                );
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
            if raw != 0 {
                let mut group = [0; MAX_LANES];
                group[..count].copy_from_slice(&symbols[start..start + count]);
                let mut padded = [0; 2 * MAX_LANES];
                padded[..MAX_LANES].copy_from_slice(&group);
                top = raw_bits::<S, V>(simd, &mut states, &padded, words, top);
            }
            for v in (0..V).rev() {
                let old = states[v];
                let (frequency, begin) = (interval[v] >> 16, interval[v] & 0xffff);
                let mut need = (old >> (32 - PROBABILITY_BITS)).simd_ge(frequency);
                let mine = active(count, v * width, width);
                let whole = count >= (v + 1) * width;
                if !whole {
                    need &= S::mask32s::from_bitmask(simd, mine);
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

/// The rounds of raw bits of a group, the last one first; returns where the words then begin.
#[inline(always)]
fn raw_bits<S: Isa, const V: usize>(
    simd: S,
    states: &mut [S::u32s; V],
    group: &[i32; 2 * MAX_LANES],
    words: &mut [u16],
    mut top: usize,
) -> usize {
    let width = S::u32s::LEN;
    let (zero, four) = (S::u32s::splat(simd, 0), S::u32s::splat(simd, 4));
    let mut rest = [zero; V];
    let mut bits = [zero; V];
    for v in 0..V {
        let symbols = S::i32s::from_slice(simd, &group[v * width..(v + 1) * width]);
        let magnitude: S::u32s = symbols.abs().bitcast();
        let in_bucket = magnitude.simd_ge(FIRST_BUCKET as u32);
        let above = in_bucket.select(magnitude, zero + FIRST_BUCKET as u32) - BUCKET_OFFSET;
        let signed: S::i32s = above.bitcast();
        // The position of the highest bit, from a float's exponent.
        let high: S::u32s = signed.to_float::<S::f32s>().bitcast();
        let high = (high >> 23) - 127;
        bits[v] = in_bucket.select(high, zero);
        rest[v] = above - ((zero + 1) << high);
    }
    // At most eight bits: those above the lowest four, then the lowest four.
    for round in [1, 0] {
        for v in (0..V).rev() {
            let (taken, raw) = match round {
                1 => (bits[v].max(four) - 4, rest[v] >> 4),
                _ => (bits[v].min(four), rest[v] & 15),
            };
            let coded = taken.simd_gt(0);
            if !coded.any_true() {
                continue;
            }
            let old = states[v];
            let width_bits = (zero + PROBABILITY_BITS) - taken;
            let frequency = (zero + 1) << width_bits;
            let need = (old >> (32 - PROBABILITY_BITS)).simd_ge(frequency) & coded;
            top = simd.push_words(words, top, old, need);
            let state = need.select(old >> 16, old);
            let quotient = state >> width_bits;
            let place = (state & (frequency - 1)) + (raw << width_bits);
            states[v] = coded.select((quotient << PROBABILITY_BITS) + place, old);
        }
    }
    top
}

/// Doubles a buffer that is filled from its end; returns by how much.
#[cold]
fn grow(words: &mut Vec<u16>) -> usize {
    let (old, more) = (words.len(), words.len().max(4 * GROUP_WORDS));
    words.resize(old + more, 0);
    words.copy_within(..old, more);
    more
}

/// The state after a symbol of an interval, the old one being below `frequency` * 2^20.
///
/// The quotient is found in f32 and made exact: the reciprocal is 6 * 2^-24 of it too small, the four
/// roundings to nearest add or take at most 2^-24 each, and the quotient is below 2^20, so that the
/// product's integer part is the quotient or one less.
#[inline(always)]
pub(in crate::kernels::simd) fn advance<S: Isa>(
    simd: S,
    state: S::u32s,
    frequency: S::u32s,
    begin: S::u32s,
) -> S::u32s {
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
pub(in crate::kernels::simd) fn put_chunk(states: &[u32], words: &[u16], out: &mut Vec<u8>) {
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
