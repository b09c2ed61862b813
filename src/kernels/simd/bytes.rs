//! The one-table coder on vectors. Two chunks are coded in lockstep: while the lanes of one wait for
//! their table, those of the other compute.

use fearless_simd::prelude::*;

use super::isa::{Isa, table_at};
use crate::entropy::bank::{PROBABILITY_BITS, TOTAL};
use crate::error::Result;
use crate::kernels::portable::{
    self, ByteTable, LOWEST, MAX_LANES, SYMBOLS, Words, decode_rest, has_unknown, put_byte, unknown_symbol,
};

/// Bytes that a vector of words may be read beyond the words that are needed.
const SLACK: usize = 4 * MAX_LANES;

/// One chunk to decode: its bytes, and where its symbols go.
#[derive(Debug)]
pub struct ByteJob<'a> {
    /// The chunk.
    pub bytes: &'a [u8],
    /// As many symbols as it has.
    pub symbols: &'a mut [u8],
}

/// A chunk that is being decoded, with V vectors of states.
struct Decoding<'a, S: Isa, const V: usize> {
    words: Words<'a>,
    states: [S::u32s; V],
    symbols: &'a mut [u8],
}

impl<'a, S: Isa, const V: usize> Decoding<'a, S, V> {
    #[inline(always)]
    fn new(simd: S, job: &'a mut ByteJob<'_>) -> Result<Self> {
        let mut own = [LOWEST; MAX_LANES];
        let words = Words::open(job.bytes, 0, &mut own)?;
        let states = std::array::from_fn(
            #[inline(always)]
            |v| S::u32s::from_slice(simd, &own[v * S::u32s::LEN..][..S::u32s::LEN]),
        );
        Ok(Decoding { words, states, symbols: job.symbols })
    }

    /// Whether the next groups need no care.
    #[inline(always)]
    fn is_easy(&self, at: usize) -> bool {
        at + MAX_LANES <= self.symbols.len() && self.words.bytes.len() - self.words.at >= SLACK
    }

    #[inline(always)]
    fn group<const GATHER: bool>(&mut self, simd: S, table: &ByteTable, at: usize) {
        let width = S::u32s::LEN;
        let mut slots = [S::u32s::splat(simd, 0); V];
        for (state, slot) in self.states.iter_mut().zip(&mut slots) {
            let index = *state & (TOTAL - 1);
            let entry = table_at::<S, GATHER>(simd, &*table.slots, index);
            let new = ((entry >> 8) & (TOTAL - 1)) * (*state >> PROBABILITY_BITS) + (entry >> 20);
            let need = new.simd_lt(LOWEST);
            let next: S::u16s = S::u8s::from_slice(simd, &self.words.bytes[self.words.at..][..4 * width]).bitcast();
            let next = next.widen().0.expand(need);
            self.words.at += 2 * need.to_bitmask().count_ones() as usize;
            *state = need.select((new << 16) | next, new);
            *slot = entry & 255;
        }
        let out = &mut self.symbols[at..at + MAX_LANES];
        for (out, four) in out.chunks_mut(4 * width).zip(slots.chunks(4)) {
            let low: S::u16s = four[0].narrow(four[1 % four.len()]);
            let high = if four.len() == 4 { four[2].narrow(four[3]) } else { low };
            let all: S::u8s = low.narrow(high);
            out.copy_from_slice(&all.as_slice()[..out.len()]);
        }
    }

    #[inline(always)]
    fn finish(mut self, table: &ByteTable, at: usize) -> Result<()> {
        let mut own = [0; MAX_LANES];
        for (own, states) in own.chunks_exact_mut(S::u32s::LEN).zip(&self.states) {
            states.store_slice(own);
        }
        decode_rest(&mut self.symbols[at..], table, &mut own, &mut self.words)?;
        self.words.close(&own, &[LOWEST; MAX_LANES])
    }
}

/// As [`portable::bytes_decode`](crate::kernels::portable::bytes_decode) with 32 lanes, one or two chunks
/// at a time.
#[inline(always)]
pub(crate) fn bytes_decode<S: Isa>(simd: S, gather: bool, jobs: &mut [ByteJob<'_>], table: &ByteTable) -> Result<()> {
    match (S::u32s::LEN, S::GATHERS && gather) {
        (16, true) => decode::<S, 2, true>(simd, jobs, table),
        (8, true) => decode::<S, 4, true>(simd, jobs, table),
        (16, false) => decode::<S, 2, false>(simd, jobs, table),
        (8, false) => decode::<S, 4, false>(simd, jobs, table),
        _ => decode::<S, 8, false>(simd, jobs, table),
    }
}

#[inline(always)]
fn decode<S: Isa, const V: usize, const GATHER: bool>(
    simd: S,
    jobs: &mut [ByteJob<'_>],
    table: &ByteTable,
) -> Result<()> {
    for pair in jobs.chunks_mut(2) {
        match pair {
            [first, second] => {
                let mut first = Decoding::<S, V>::new(simd, first)?;
                let mut second = Decoding::<S, V>::new(simd, second)?;
                let mut at = 0;
                while first.is_easy(at) && second.is_easy(at) {
                    first.group::<GATHER>(simd, table, at);
                    second.group::<GATHER>(simd, table, at);
                    at += MAX_LANES;
                }
                for mut one in [(first, at), (second, at)] {
                    while one.0.is_easy(one.1) {
                        one.0.group::<GATHER>(simd, table, one.1);
                        one.1 += MAX_LANES;
                    }
                    one.0.finish(table, one.1)?;
                }
            }
            [one] => {
                let mut one = Decoding::<S, V>::new(simd, one)?;
                let mut at = 0;
                while one.is_easy(at) {
                    one.group::<GATHER>(simd, table, at);
                    at += MAX_LANES;
                }
                one.finish(table, at)?;
            }
            _ => {}
        }
    }
    Ok(())
}

/// As [`portable::histogram`](crate::kernels::portable::histogram): a few different symbols are counted by
/// comparing vectors with each of them.
#[inline(always)]
pub(crate) fn histogram<S: Isa>(simd: S, symbols: &[u8]) -> [u32; SYMBOLS] {
    let width = S::u8s::LEN;
    let largest = symbols.iter().fold(0, |largest, &symbol| largest.max(symbol));
    if usize::from(largest) >= width {
        return portable::histogram(symbols);
    }
    let mut counts = [0; SYMBOLS];
    let whole = symbols.len() / width * width;
    symbols[whole..].iter().for_each(|&symbol| counts[usize::from(symbol)] += 1);
    let (zero, one) = (S::u8s::splat(simd, 0), S::u8s::splat(simd, 1));
    // As many vectors as a byte can count.
    for part in symbols[..whole].chunks(255 * width) {
        for first in (0..=largest).step_by(4) {
            let mut sums = [zero; 4];
            let letters: [S::u8s; 4] = std::array::from_fn(
                #[inline(always)]
                |i| S::u8s::splat(simd, first + i as u8),
            );
            for vector in part.chunks_exact(width) {
                let vector = S::u8s::from_slice(simd, vector);
                for (sum, &letter) in sums.iter_mut().zip(&letters) {
                    *sum += vector.simd_eq(letter).select(one, zero);
                }
            }
            for (count, sum) in counts[usize::from(first)..].iter_mut().zip(&sums) {
                *count += sum.as_slice().iter().map(|&lane| u32::from(lane)).sum::<u32>();
            }
        }
    }
    counts
}

/// As [`portable::bytes_encode`](crate::kernels::portable::bytes_encode) with 32 lanes.
#[inline(always)]
pub(crate) fn bytes_encode<S: Isa>(
    simd: S,
    gather: bool,
    symbols: &[u8],
    table: &ByteTable,
    words: &mut Vec<u16>,
    out: &mut Vec<u8>,
) -> Result<()> {
    let begin = out.len();
    let known = match (S::u32s::LEN, S::GATHERS && gather) {
        (16, true) => encode::<S, 2, true>(simd, symbols, table, words, out),
        (8, true) => encode::<S, 4, true>(simd, symbols, table, words, out),
        (16, false) => encode::<S, 2, false>(simd, symbols, table, words, out),
        (8, false) => encode::<S, 4, false>(simd, symbols, table, words, out),
        _ => encode::<S, 8, false>(simd, symbols, table, words, out),
    };
    if !known {
        out.truncate(begin);
        return Err(unknown_symbol());
    }
    Ok(())
}

/// Gives false if the table has no frequency for some symbol.
#[inline(always)]
fn encode<S: Isa, const V: usize, const GATHER: bool>(
    simd: S,
    symbols: &[u8],
    table: &ByteTable,
    words: &mut Vec<u16>,
    out: &mut Vec<u8>,
) -> bool {
    let width = S::u32s::LEN;
    // A symbol gives up one word at most; words are written from the end of the buffer.
    words.resize(symbols.len() + MAX_LANES, 0);
    let mut top = words.len();
    let whole = symbols.len() / MAX_LANES * MAX_LANES;
    if has_unknown(&symbols[whole..], table) {
        return false;
    }
    let mut least = S::u32s::splat(simd, u32::MAX);
    let mut own = [LOWEST; MAX_LANES];
    for (lane, &symbol) in symbols[whole..].iter().enumerate().rev() {
        put_byte(symbol, table, &mut own[lane], |word| {
            top -= 1;
            words[top] = word;
        });
    }
    let mut states: [S::u32s; V] = std::array::from_fn(
        #[inline(always)]
        |v| S::u32s::from_slice(simd, &own[v * width..][..width]),
    );
    for start in (0..whole).step_by(MAX_LANES).rev() {
        let mut bytes = [0u8; 2 * MAX_LANES];
        bytes[..MAX_LANES].copy_from_slice(&symbols[start..start + MAX_LANES]);
        let mut index = [S::u32s::splat(simd, 0); V];
        for (four, bytes) in index.chunks_mut(4).zip(bytes.chunks(4 * width)) {
            let (low, high) = S::u8s::from_slice(simd, bytes).widen();
            let (low, high) = (low.widen(), high.widen());
            for (index, wide) in four.iter_mut().zip([low.0, low.1, high.0, high.1]) {
                *index = wide;
            }
        }
        for v in (0..V).rev() {
            let old = states[v];
            let interval = table_at::<S, GATHER>(simd, &table.intervals, index[v]);
            let (frequency, begin) = (interval >> 16, interval & 0xffff);
            least = least.min(frequency);
            let need = (old >> (32 - PROBABILITY_BITS)).simd_ge(frequency);
            top = simd.push_words(words, top, old, need);
            let state = need.select(old >> 16, old);
            states[v] = super::rans::advance(simd, state, frequency, begin);
        }
    }
    for (own, states) in own.chunks_exact_mut(width).zip(&states) {
        states.store_slice(own);
    }
    super::rans::put_chunk(&own, &words[top..], out);
    least.reduce_min() > 0
}
