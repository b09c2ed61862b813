//! Decoding.

use fearless_simd::prelude::*;

use super::super::context::tables;
use super::super::isa::{Isa, look_up_bytes, table_at};
use super::{active, fill, spill};
use crate::entropy::bank::{Bank, PROBABILITY_BITS, TOTAL};
use crate::entropy::token::{ESCAPE, LAST_WITHOUT_BITS, TOKENS};
use crate::error::Result;
use crate::kernels::portable::{
    CheckSums, LOWEST, MAX_LANES, Neighbourhood, Source, Strip, Words, decode_group, decode_raw,
};

/// Bytes that must be left for a round of words to be read without care.
const SLACK: usize = 4 * MAX_LANES;

/// As [`portable::rans_decode`](crate::kernels::portable::rans_decode).
#[inline(always)]
pub(crate) fn rans_decode<S: Isa>(
    simd: S,
    gather: bool,
    source: &Source<'_>,
    near: &mut Neighbourhood,
    symbols: &mut Vec<i32>,
    sink: &mut dyn FnMut(&Strip, &[i32]),
) -> Result<()> {
    match (source.lanes / S::u32s::LEN, S::GATHERS && gather) {
        (2, true) => decode::<S, 2, true>(simd, source, near, symbols, sink),
        (4, true) if S::u32s::LEN <= 8 => decode::<S, 4, true>(simd, source, near, symbols, sink),
        (1, true) => decode::<S, 1, true>(simd, source, near, symbols, sink),
        (0, true) if 2 * source.lanes == S::u32s::LEN => decode::<S, 1, true>(simd, source, near, symbols, sink),
        (1, false) => decode::<S, 1, false>(simd, source, near, symbols, sink),
        (2, false) => decode::<S, 2, false>(simd, source, near, symbols, sink),
        (4, false) if S::u32s::LEN <= 8 => decode::<S, 4, false>(simd, source, near, symbols, sink),
        (8, false) if S::u32s::LEN <= 4 => decode::<S, 8, false>(simd, source, near, symbols, sink),
        // Vectors would be almost empty.
        _ => decode::<S, 0, false>(simd, source, near, symbols, sink),
    }
}

/// With V vectors of states, or 0 for one lane after the other.
#[inline(always)]
fn decode<S: Isa, const V: usize, const GATHER: bool>(
    simd: S,
    source: &Source<'_>,
    near: &mut Neighbourhood,
    symbols: &mut Vec<i32>,
    sink: &mut dyn FnMut(&Strip, &[i32]),
) -> Result<()> {
    let Source { bytes, offset, lanes, bank, ref model, ref strips, seed } = *source;
    let mut own = [LOWEST; MAX_LANES];
    let mut words = Words::open(bytes, offset, &mut own[..lanes])?;
    let mut states = fill::<S, V>(simd, &own);
    near.start_chunk(model);
    let channels = model.channels;
    // Longer than a run, for whole vectors to be read and written.
    let mut decoded = [0i32; 2 * MAX_LANES];
    let mut wide = [0u32; 2 * MAX_LANES];
    let (mut sums, mut number) = (CheckSums::default(), 0u32);
    symbols.resize(source.strip_symbols(), 0);
    for strip in strips.clone() {
        let mut at = 0;
        for (row, column) in strip.places() {
            if column == 0 {
                near.start_row(model.has_up(row - model.first_row));
            }
            for run in 0..model.runs.len() {
                let tables = tables(simd, near, model, column, run);
                let count = (channels - run * MAX_LANES).min(MAX_LANES);
                for i in 0..MAX_LANES {
                    wide[i] = u32::from(tables[i]) << PROBABILITY_BITS;
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
                    let (tokens, has_raw) =
                        vectors::<S, V, GATHER>(simd, &mut states, &mut words, tables, group, bank, out);
                    if has_raw {
                        if !has_escape::<S, V>(&tokens) && bytes.len() - words.at >= 2 * SLACK {
                            raw_bits::<S, V>(simd, &tokens, &mut states, &mut words, group, out);
                        } else {
                            own = spill::<S, V>(&states);
                            let tokens = spill::<S, V>(&tokens).map(|token| token as u8);
                            decode_raw(&mut out[..group], &tokens, &mut own, &mut words)?;
                            states = fill::<S, V>(simd, &own);
                        }
                    }
                }
                if count < MAX_LANES {
                    decoded[count..].fill(0);
                }
                let all = decoded.first_chunk().unwrap_or(&[0; MAX_LANES]);
                // What is written beyond a short run, the next one writes again; there is room at the end.
                symbols[at..at + MAX_LANES].copy_from_slice(all);
                sums.add(number, all);
                near.put(model, column, run, all);
                at += count;
                number = number.wrapping_add(count as u32);
            }
        }
        sink(&strip, &symbols[..at]);
    }
    if V > 0 {
        own = spill::<S, V>(&states);
    }
    words.close(&own[..lanes], &sums.end_states(lanes, seed)[..lanes])
}

#[inline(always)]
fn has_escape<S: Isa, const V: usize>(tokens: &[S::u32s; V]) -> bool {
    let mut any = false;
    for token in tokens {
        any |= token.simd_eq(u32::from(ESCAPE)).any_true();
    }
    any
}

/// The tokens of a group, and their symbols without raw bits; gives back the tokens and whether raw bits follow.
#[inline(always)]
fn vectors<S: Isa, const V: usize, const GATHER: bool>(
    simd: S,
    states: &mut [S::u32s; V],
    words: &mut Words<'_>,
    tables: &[u32],
    count: usize,
    bank: &Bank,
    out: &mut [i32],
) -> ([S::u32s; V], bool) {
    let width = S::u32s::LEN;
    let mut tokens = [S::u32s::splat(simd, 0); V];
    let mut largest = S::u32s::splat(simd, 0);
    for v in 0..V {
        let old = states[v];
        let table = S::u32s::from_slice(simd, &tables[v * width..][..width]);
        let slot = old & (TOTAL - 1);
        let at = table | slot;
        let token = if GATHER { simd.gather_bytes(bank.slots(), at) } else { look_up_bytes(simd, bank.slots(), at) };
        let interval =
            table_at::<S, GATHER>(simd, bank.intervals(), (table >> (PROBABILITY_BITS - TOKENS.ilog2())) | token);
        let new = (interval >> 16) * (old >> PROBABILITY_BITS) + slot - (interval & 0xffff);
        let mut need = new.simd_lt(LOWEST);
        let whole = count >= (v + 1) * width;
        let mine = active(count, v * width, width);
        if !whole {
            need &= S::mask32s::from_bitmask(simd, mine);
        }
        let next: S::u16s = S::u8s::from_slice(simd, &words.bytes[words.at..][..4 * width]).bitcast();
        let next = next.widen().0.expand(need);
        let bits = need.to_bitmask();
        words.at += 2 * bits.count_ones() as usize;
        let new = need.select((new << 16) | next, new);
        states[v] = if whole { new } else { S::mask32s::from_bitmask(simd, mine).select(new, old) };
        let token =
            if whole { token } else { S::mask32s::from_bitmask(simd, mine).select(token, S::u32s::splat(simd, 0)) };
        largest = largest.max(token);
        // Odd tokens are positive, even ones negative.
        let magnitude = (token + 1) >> 1;
        let sign = (token & 1) - 1;
        let symbol: S::i32s = ((magnitude ^ sign) - sign).bitcast();
        symbol.store_slice(&mut out[v * width..][..width]);
        tokens[v] = token;
    }
    (tokens, largest.simd_gt(u32::from(LAST_WITHOUT_BITS)).any_true())
}

/// The rounds of raw bits of a group without escapes: at most two.
#[inline(always)]
fn raw_bits<S: Isa, const V: usize>(
    simd: S,
    tokens: &[S::u32s; V],
    states: &mut [S::u32s; V],
    words: &mut Words<'_>,
    count: usize,
    out: &mut [i32],
) {
    let width = S::u32s::LEN;
    let (zero, four) = (S::u32s::splat(simd, 0), S::u32s::splat(simd, 4));
    let mut raw = [zero; V];
    let mut bits = [zero; V];
    for (bits, &token) in bits.iter_mut().zip(tokens) {
        *bits = ((token + 1) >> 1).max(zero + 7) - 7;
        *bits = token.simd_gt(u32::from(LAST_WITHOUT_BITS)).select(*bits, zero);
    }
    for round in 0..2 {
        for v in 0..V {
            let taken = if round == 0 { bits[v].min(four) } else { bits[v].max(four) - 4 };
            let coded = taken.simd_gt(0);
            if !coded.any_true() {
                continue;
            }
            let old = states[v];
            let width_bits = (zero + PROBABILITY_BITS) - taken;
            let frequency = (zero + 1) << width_bits;
            let slot = old & (TOTAL - 1);
            raw[v] |= coded.select(slot >> width_bits, zero) << (4 * round);
            let new = ((old >> PROBABILITY_BITS) << width_bits) + (slot & (frequency - 1));
            let need = new.simd_lt(LOWEST) & coded;
            let next: S::u16s = S::u8s::from_slice(simd, &words.bytes[words.at..words.at + 4 * width]).bitcast();
            let next = next.widen().0.expand(need);
            words.at += 2 * need.to_bitmask().count_ones() as usize;
            states[v] = coded.select(need.select((new << 16) | next, new), old);
        }
    }
    for v in 0..V {
        // Buckets begin five above a power of two.
        let magnitude = ((zero + 1) << bits[v]) + raw[v] + 5;
        let sign = (tokens[v] & 1) - 1;
        let symbol: S::i32s = ((magnitude ^ sign) - sign).bitcast();
        let old = S::i32s::from_slice(simd, &out[v * width..(v + 1) * width]);
        let inside = S::mask32s::from_bitmask(simd, active(count, v * width, width));
        let inside = inside & bits[v].simd_gt(0);
        inside.select(symbol, old).store_slice(&mut out[v * width..(v + 1) * width]);
    }
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
