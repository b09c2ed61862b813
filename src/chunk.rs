//! Chunks: runs of block rows that decode on their own.

use crate::container::{Header, Reader, chunk_ranges, put_varint};
use crate::entropy::bank::{Bank, COST_ONE_BIT};
use crate::error::{Error, Result};
use crate::kernels::portable::{
    ContextRule, MAX_LANES, Neighbours, Quantizer, RansScratch, RunSums, context, in_steps, quantize as quantize_one,
    rans_decode, rans_encode, run_context,
};
use crate::limits::Limits;
use crate::plan::Plan;

/// Largest magnitude for which rate decisions are made; larger ones are rounded.
pub(crate) const RDO_MAX: i32 = 15;
/// Payload bytes that a lane must be worth: its final state costs about three.
pub(crate) const BYTES_PER_LANE: usize = 300;

/// How the symbols of a feature are laid out and coded.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Coding<'a> {
    pub bank: &'a Bank,
    pub context: ContextRule,
    /// Block rows over all planes, of one plane, and blocks in a row.
    pub rows: usize,
    pub plane_rows: usize,
    pub columns: usize,
    pub chunks: usize,
    /// `None`: as many as the payload is worth.
    pub lanes: Option<usize>,
    /// 1/4096 squared step per bit; 0: no rate-distortion optimised quantisation.
    pub lambda: u16,
}

/// Buffers of [`encode`].
#[derive(Debug, Default, Clone)]
pub(crate) struct ChunkScratch {
    tables: Vec<u8>,
    rans: RansScratch,
    payload: Vec<u8>,
    lengths: Vec<usize>,
}

/// Number of chunks: what was asked for, else one for every batch item, within 1 and the rows.
pub(crate) fn count(asked: Option<usize>, items: usize, rows: usize) -> usize {
    asked.unwrap_or(items).clamp(1, rows.max(1)).min(Limits::default().chunks as usize)
}

impl Coding<'_> {
    /// Fills in the context of each channel of the run that begins at `before.len()` symbols of the
    /// chunk whose first row is `first_row`. Runs are visited in order; `sums` is kept between them.
    #[inline]
    pub fn contexts_of(&self, first_row: usize, plan: &Plan, before: &[i32], sums: &mut RunSums, out: &mut [u8]) {
        if self.context == ContextRule::None {
            out.fill(0);
            return;
        }
        let channels = plan.active.len();
        let (position, first) = (before.len() / channels, before.len() % channels);
        let row = position / self.columns;
        let has_up = row > 0 && !(first_row + row).is_multiple_of(self.plane_rows);
        let neighbours = Neighbours::at(position, self.columns, channels, has_up);
        if self.context == ContextRule::Neighbours {
            context(before, &neighbours, first, out);
            return;
        }
        let run = first / MAX_LANES;
        if run == 0 {
            *sums = RunSums::default();
        } else {
            sums.add(&before[before.len() - MAX_LANES..], plan.expected[run - 1]);
        }
        out.fill(run_context(before, &neighbours, (first, out.len()), sums, plan.expected[run]));
    }

    /// As [`Coding::contexts_of`], but fills in the tables.
    #[inline]
    fn tables_of(&self, first_row: usize, plan: &Plan, before: &[i32], sums: &mut RunSums, out: &mut [u8]) {
        self.contexts_of(first_row, plan, before, sums, out);
        let first = before.len() % plan.active.len();
        for (table, tables) in out.iter_mut().zip(&plan.tables[first..]) {
            *table = tables[usize::from(*table)];
        }
    }
}

/// Coefficients (all coder channels of each block) to symbols (active channels of each block).
pub(crate) fn quantize(coding: &Coding<'_>, plan: &Plan, coefficients: &[i32], symbols: &mut Vec<i32>) {
    let channels = plan.active.len();
    let width = plan.mask.len().max(1);
    symbols.clear();
    symbols.resize(coefficients.len() / width * channels, 0);
    if channels == 0 {
        return;
    }
    if coding.lambda == 0 {
        for (row, out) in coefficients.chunks_exact(width).zip(symbols.chunks_exact_mut(channels)) {
            for ((symbol, &channel), quantizer) in out.iter_mut().zip(&plan.active).zip(&plan.quantizers) {
                *symbol = quantize_one(row[channel as usize], quantizer);
            }
        }
        return;
    }
    let mut tables = [0; MAX_LANES];
    let mut sums = RunSums::default();
    for (first_row, end_row) in chunk_ranges(coding.rows, coding.chunks) {
        let positions = first_row * coding.columns..end_row * coding.columns;
        let rows = &coefficients[positions.start * width..positions.end * width];
        let chunk = &mut symbols[positions.start * channels..positions.end * channels];
        for (position, row) in rows.chunks_exact(width).enumerate() {
            for first in (0..channels).step_by(MAX_LANES) {
                let (before, rest) = chunk.split_at_mut(position * channels + first);
                let run = MAX_LANES.min(channels - first);
                coding.tables_of(first_row, plan, before, &mut sums, &mut tables[..run]);
                for i in 0..run {
                    let channel = plan.active[first + i] as usize;
                    let quantizer = &plan.quantizers[first + i];
                    rest[i] = decide(row[channel], quantizer, coding.bank, tables[i], coding.lambda);
                }
            }
        }
    }
}

/// The symbol with the least squared error plus lambda times bits, among the rounded one, the one
/// below it in magnitude, and zero.
fn decide(coefficient: i32, quantizer: &Quantizer, bank: &Bank, table: u8, lambda: u16) -> i32 {
    let rounded = quantize_one(coefficient, quantizer);
    let magnitude = rounded.abs();
    if magnitude == 0 || magnitude > RDO_MAX {
        return rounded;
    }
    let size = in_steps(coefficient, quantizer);
    let loss = |candidate: i32| {
        let error = u64::from(size.abs_diff(candidate.unsigned_abs() << 8));
        // Errors count 1/65536 squared step, costs 1/256 bit, lambda 1/4096 squared step a bit.
        error * error + ((u64::from(lambda) * u64::from(bank.cost(table, candidate))) >> 4)
    };
    let below = rounded - rounded.signum();
    [rounded, below, 0].into_iter().min_by_key(|&candidate| loss(candidate)).unwrap_or(rounded)
}

/// Writes a whole stream: header, chunk lengths, `params`, chunks.
pub(crate) fn encode(
    coding: &Coding<'_>,
    header: Header,
    params: &[u8],
    plan: &Plan,
    symbols: &[i32],
    scratch: &mut ChunkScratch,
    out: &mut Vec<u8>,
) -> Result<()> {
    let channels = plan.active.len();
    let mut sums = RunSums::default();
    scratch.tables.clear();
    scratch.tables.resize(symbols.len(), 0);
    scratch.payload.clear();
    scratch.lengths.clear();
    let ranges = || {
        chunk_ranges(coding.rows, coding.chunks)
            .map(|(first, end)| (first, first * coding.columns * channels..end * coding.columns * channels))
    };
    for (first_row, range) in ranges() {
        let (chunk, chunk_tables) = (&symbols[range.clone()], &mut scratch.tables[range]);
        for at in (0..chunk.len()).step_by(channels.max(1)) {
            for first in (0..channels).step_by(MAX_LANES) {
                let start = at + first;
                let end = start + MAX_LANES.min(channels - first);
                coding.tables_of(first_row, plan, &chunk[..start], &mut sums, &mut chunk_tables[start..end]);
            }
        }
    }
    let lanes = coding.lanes.unwrap_or_else(|| lanes_for(coding, channels, symbols, &scratch.tables));
    for (_, range) in ranges() {
        let start = scratch.payload.len();
        if !range.is_empty() {
            let (chunk, chunk_tables) = (&symbols[range.clone()], &scratch.tables[range]);
            rans_encode(chunk, chunk_tables, channels, lanes, coding.bank, &mut scratch.rans, &mut scratch.payload);
        }
        scratch.lengths.push(scratch.payload.len() - start);
    }
    Header { lanes, ..header }.write(out);
    for &length in &scratch.lengths[..scratch.lengths.len() - 1] {
        put_varint(length as u64, out);
    }
    out.extend_from_slice(params);
    out.extend_from_slice(&scratch.payload);
    Ok(())
}

/// As many lanes as cost about 1 % of the ideal length of a chunk.
fn lanes_for(coding: &Coding<'_>, channels: usize, symbols: &[i32], tables: &[u8]) -> usize {
    let cost: u64 =
        symbols.iter().zip(tables).map(|(&symbol, &table)| u64::from(coding.bank.cost(table, symbol))).sum();
    let bytes = (cost / u64::from(COST_ONE_BIT * 8)) as usize / coding.chunks;
    let worth = (bytes / BYTES_PER_LANE).clamp(1, MAX_LANES).min(channels.next_power_of_two());
    1 << worth.ilog2()
}

/// Lengths of all chunks but the last, read but not yet believed.
#[derive(Debug)]
pub(crate) struct Lengths {
    known: Vec<u32>,
}

#[cfg(feature = "gpu")]
impl Lengths {
    /// The length of a chunk; nothing for the last one, which has the rest.
    pub(crate) fn get(&self, chunk: usize) -> Option<usize> {
        self.known.get(chunk).map(|&length| length as usize)
    }
}

/// Reads the chunk lengths of a stream.
pub(crate) fn read_lengths(chunks: usize, reader: &mut Reader<'_>) -> Result<Lengths> {
    // Each length takes at least one byte: the bytes at hand bound the allocation.
    if reader.rest().len() < chunks - 1 {
        return Err(Error::truncated("the chunk lengths", reader.offset() + reader.rest().len()));
    }
    let known = (1..chunks).map(|_| reader.varint("the chunk lengths")).collect::<Result<_>>()?;
    Ok(Lengths { known })
}

/// Reads chunk lengths and chunks.
pub(crate) fn decode(coding: &Coding<'_>, mut reader: Reader<'_>, plan: &Plan, symbols: &mut Vec<i32>) -> Result<()> {
    let lengths = read_lengths(coding.chunks, &mut reader)?;
    decode_chunks(coding, lengths, reader, plan, symbols)
}

/// Reads chunks of known lengths, the last one taking the rest of the bytes.
pub(crate) fn decode_chunks(
    coding: &Coding<'_>,
    lengths: Lengths,
    mut reader: Reader<'_>,
    plan: &Plan,
    symbols: &mut Vec<i32>,
) -> Result<()> {
    let channels = plan.active.len();
    if coding.chunks > coding.rows.max(1) {
        return Err(Error::corrupt("more chunks than rows", reader.offset()));
    }
    symbols.clear();
    symbols.resize(coding.rows * coding.columns * channels, 0);
    let lanes = coding.lanes.unwrap_or(1);
    for (i, (first_row, end_row)) in chunk_ranges(coding.rows, coding.chunks).enumerate() {
        let offset = reader.offset();
        let length = lengths.known.get(i).map_or(reader.rest().len(), |&length| length as usize);
        let bytes = reader.take(length, "a chunk")?;
        let chunk = &mut symbols[first_row * coding.columns * channels..end_row * coding.columns * channels];
        if chunk.is_empty() {
            if !bytes.is_empty() {
                return Err(Error::corrupt("bytes in a chunk without symbols", offset));
            }
            continue;
        }
        let mut sums = RunSums::default();
        rans_decode(bytes, offset, chunk, channels, lanes, coding.bank, |before, out| {
            coding.tables_of(first_row, plan, before, &mut sums, out);
        })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::container::{Layout, Mode};
    use crate::kernels::portable::Dequantizer;
    use crate::tensor::{Axes, Dtype};
    use proptest::prelude::*;

    /// A plan with these levels, every context on the level itself.
    fn plan_of(levels: &[u8]) -> Plan {
        let mut plan = Plan::default();
        plan.clear(levels.len());
        for (channel, &level) in levels.iter().enumerate() {
            plan.push(channel, [level; 8], Quantizer::new(0, 32, 128), Dequantizer::new(0, 32, [0; 3]));
        }
        plan
    }

    proptest! {
        #[test]
        fn a_stream_is_within_one_percent_and_sixteen_bytes_of_the_ideal(
            levels in proptest::collection::vec(20..60u8, 1..80),
            positions in 1..400usize,
            seed in any::<u64>(),
        ) {
            // Symbols drawn from the tables themselves.
            let bank = Bank::builtin();
            let mut state = seed;
            let mut ideal = 0u64;
            let symbols: Vec<i32> = (0..positions * levels.len())
                .map(|i| {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    let table = levels[i % levels.len()];
                    let token = bank.token_at(table, (state >> 40) as u32 & 4095);
                    let symbol = if token == 31 { 700 } else { crate::entropy::token::symbol_of(token, 0) };
                    ideal += u64::from(bank.cost(table, symbol));
                    symbol
                })
                .collect();
            let plan = plan_of(&levels);
            let coding = Coding {
                bank: &bank,
                context: ContextRule::None,
                rows: 1,
                plane_rows: 1,
                columns: positions,
                chunks: 1,
                lanes: None,
                lambda: 0,
            };
            let layout = Layout::new(Dtype::F32, Axes::default_for(1), &[1]).unwrap();
            let header = Header { mode: Mode::Plain, lanes: 1, profile: None, layout: Some(layout), chunks: 1 };
            let mut out = Vec::new();
            encode(&coding, header, &[], &plan, &symbols, &mut ChunkScratch::default(), &mut out).unwrap();
            let mut reader = Reader::new(&out);
            let read = Header::read(&mut reader, &Limits::default()).unwrap();
            let payload = reader.rest().len() as f64;
            prop_assert!(payload <= ideal as f64 / 2048.0 * 1.01 + 16.0, "{payload} for {}", ideal as f64 / 2048.0);
            let mut back = Vec::new();
            decode(&Coding { lanes: Some(read.lanes), ..coding }, reader, &plan, &mut back).unwrap();
            prop_assert_eq!(back, symbols);
        }
    }
}
