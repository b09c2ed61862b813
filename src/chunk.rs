//! Chunks: runs of block rows that decode on their own.

use std::ops::Range;

use crate::container::{Header, Reader, chunk_range, put_varint};
use crate::entropy::bank::{Bank, COST_ONE_BIT};
use crate::error::{Error, Result};
use crate::kernels::portable::{
    ContextModel, ContextRule, MAX_LANES, Quantizer, RansScratch, RunSums, in_steps, quantize_one, rans_decode,
    rans_encode, tables_of,
};
use crate::kernels::simd::{self, Coded, Decider, Job, Neighbourhood, Source, dispatch};
use crate::kernels::{BlockKernels, Kernels, with_blocks};
use crate::limits::Limits;
use crate::plan::Plan;
use crate::threads;

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
    pub kernels: Kernels,
}

/// Buffers of coding one chunk.
#[derive(Debug, Default, Clone)]
pub(crate) struct Worker {
    tables: Vec<u8>,
    rans: RansScratch,
    coded: Coded,
    near: Neighbourhood,
    pub cost: u64,
    pub payload: Vec<u8>,
}

/// Number of chunks: what was asked for, else one for every batch item, within 1 and the rows.
pub(crate) fn count(asked: Option<usize>, items: usize, rows: usize) -> usize {
    asked.unwrap_or(items).clamp(1, rows.max(1)).min(Limits::default().chunks as usize)
}

impl Coding<'_> {
    /// What the contexts of the chunk whose first row this is are made from.
    pub fn model<'a>(&self, plan: &'a Plan, first_row: usize) -> ContextModel<'a> {
        ContextModel {
            rule: self.context,
            columns: self.columns,
            plane_rows: self.plane_rows,
            first_row,
            channels: plan.active.len(),
            runs: &plan.runs,
        }
    }

    /// Rows of each chunk.
    pub fn chunk_rows(&self) -> impl ExactSizeIterator<Item = Range<usize>> + use<> {
        let (rows, chunks) = (self.rows, self.chunks);
        (0..chunks).map(move |chunk| chunk_range(rows, chunks, chunk))
    }
}

/// Splits what holds `width` values for each row of a coding into the parts of its chunks.
pub(crate) fn split<T>(
    mut values: &mut [T],
    width: usize,
    rows: impl ExactSizeIterator<Item = Range<usize>>,
) -> impl ExactSizeIterator<Item = (Range<usize>, &mut [T])> {
    rows.map(move |rows| {
        let (part, rest) = std::mem::take(&mut values).split_at_mut(rows.len() * width);
        values = rest;
        (rows, part)
    })
}

/// Coefficients (all coder channels of each block) to symbols (active channels of each block).
pub(crate) fn quantize(
    coding: &Coding<'_>,
    plan: &Plan,
    coefficients: &[i32],
    symbols: &mut Vec<i32>,
    workers: &mut Vec<Worker>,
) {
    let channels = plan.active.len();
    // Every symbol is written.
    symbols.resize(coding.rows * coding.columns * channels, 0);
    if channels == 0 {
        return;
    }
    let jobs = split(symbols, coding.columns * channels, coding.chunk_rows());
    // Quantising cannot fail.
    let _ = threads::each_sharing(jobs, workers, coefficients.len(), |(rows, symbols), worker| {
        let width = coding.columns * plan.channels;
        quantize_chunk(coding, plan, rows.start, &coefficients[rows.start * width..rows.end * width], symbols, worker);
        Ok(())
    });
}

fn quantize_chunk(
    coding: &Coding<'_>,
    plan: &Plan,
    first_row: usize,
    coefficients: &[i32],
    symbols: &mut [i32],
    worker: &mut Worker,
) {
    let channels = plan.active.len();
    let positions = coefficients.chunks_exact(plan.channels);
    if coding.lambda == 0 {
        with_blocks!(coding.kernels, blocks => {
            for (row, out) in positions.zip(symbols.chunks_exact_mut(channels)) {
                blocks.quantize(row, &plan.active, &plan.quantizers, out);
            }
        });
        return;
    }
    let model = coding.model(plan, first_row);
    if let Kernels::Simd { level, gather } = coding.kernels {
        let decider = Decider { model, plan, bank: coding.bank, lambda: u32::from(coding.lambda) };
        dispatch!(level, simd => decider.run(simd, gather, coefficients, symbols, &mut worker.near));
        return;
    }
    let mut tables = [0; MAX_LANES];
    let mut sums = RunSums::default();
    for (position, row) in positions.enumerate() {
        for first in (0..channels).step_by(MAX_LANES) {
            let (before, rest) = symbols.split_at_mut(position * channels + first);
            let run = MAX_LANES.min(channels - first);
            tables_of(&model, before, &mut sums, &mut tables[..run]);
            for i in 0..run {
                let channel = plan.active[first + i] as usize;
                let quantizer = plan.quantizers.get(first + i);
                rest[i] = decide(row[channel], &quantizer, coding.bank, tables[i], coding.lambda);
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
    workers: &mut Vec<Worker>,
    out: &mut Vec<u8>,
) -> Result<()> {
    let channels = plan.active.len();
    workers.resize_with(coding.chunks.max(workers.len()), Worker::default);
    let workers = &mut workers[..coding.chunks];
    let width = coding.columns * channels;
    let jobs = || coding.chunk_rows().map(|rows| (rows.start, &symbols[rows.start * width..rows.end * width]));
    threads::each(jobs(), workers, symbols.len(), |(first_row, symbols), worker| {
        index_chunk(coding, plan, first_row, symbols, worker);
        Ok(())
    })?;
    let cost = workers.iter().map(|worker| worker.cost).sum();
    let lanes = lanes_for(coding, channels, cost);
    threads::each(jobs(), workers, symbols.len(), |(_, symbols), worker| {
        worker.payload.clear();
        code_chunk(coding, channels, lanes, symbols, worker);
        Ok(())
    })?;
    Header { lanes, ..header }.write(out);
    for worker in &workers[..coding.chunks - 1] {
        put_varint(worker.payload.len() as u64, out);
    }
    out.extend_from_slice(params);
    workers.iter().for_each(|worker| out.extend_from_slice(&worker.payload));
    Ok(())
}

/// The table of each symbol of a chunk.
fn fill_tables(model: &ContextModel<'_>, symbols: &[i32], tables: &mut [u8]) {
    let mut sums = RunSums::default();
    for at in (0..symbols.len()).step_by(model.channels) {
        for first in (0..model.channels).step_by(MAX_LANES) {
            let start = at + first;
            let end = start + MAX_LANES.min(model.channels - first);
            tables_of(model, &symbols[..start], &mut sums, &mut tables[start..end]);
        }
    }
}

/// Finds contexts and tables of a chunk, and what its symbols cost if that decides the lanes.
pub(crate) fn index_chunk(coding: &Coding<'_>, plan: &Plan, first_row: usize, symbols: &[i32], worker: &mut Worker) {
    let Worker { tables, coded, cost, .. } = worker;
    *cost = 0;
    if symbols.is_empty() {
        return;
    }
    let model = coding.model(plan, first_row);
    match coding.kernels {
        Kernels::Portable => {
            tables.clear();
            tables.resize(symbols.len(), 0);
            fill_tables(&model, symbols, tables);
            if coding.lanes.is_none() {
                let cost_of = |(&symbol, &table): (&i32, &u8)| u64::from(coding.bank.cost(table, symbol));
                *cost = symbols.iter().zip(&*tables).map(cost_of).sum();
            }
        }
        Kernels::Simd { level, gather } => dispatch!(level, simd => {
            simd::rans_index(simd, &model, symbols, coded);
            if coding.lanes.is_none() {
                // From this on, the most lanes are worth it.
                let enough = (coding.chunks * MAX_LANES * BYTES_PER_LANE * 8) as u64 * u64::from(COST_ONE_BIT);
                *cost = coded.cost(simd, gather, symbols, coding.bank, enough);
            }
        }),
    }
}

/// Codes a chunk that [`index_chunk`] has seen, at the end of the worker's payload.
pub(crate) fn code_chunk(coding: &Coding<'_>, channels: usize, lanes: usize, symbols: &[i32], worker: &mut Worker) {
    let Worker { tables, rans, coded, payload, .. } = worker;
    if symbols.is_empty() {
        return;
    }
    match coding.kernels {
        Kernels::Portable => rans_encode(symbols, tables, channels, lanes, coding.bank, rans, payload),
        Kernels::Simd { level, gather } => {
            let job = Job { symbols, channels, lanes, bank: coding.bank };
            dispatch!(level, simd => simd::rans_encode(simd, gather, &job, coded, payload));
        }
    }
}

/// What was asked for, or as many lanes as cost about 1 % of the ideal length of a chunk, from the cost of
/// all symbols.
pub(crate) fn lanes_for(coding: &Coding<'_>, channels: usize, cost: u64) -> usize {
    coding.lanes.unwrap_or_else(|| {
        let bytes = (cost / u64::from(COST_ONE_BIT * 8)) as usize / coding.chunks;
        let worth = (bytes / BYTES_PER_LANE).clamp(1, MAX_LANES).min(channels.next_power_of_two());
        1 << worth.ilog2()
    })
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
pub(crate) fn decode(
    coding: &Coding<'_>,
    mut reader: Reader<'_>,
    plan: &Plan,
    symbols: &mut Vec<i32>,
    workers: &mut Vec<Worker>,
) -> Result<()> {
    let lengths = read_lengths(coding.chunks, &mut reader)?;
    decode_chunks(coding, lengths, reader, plan, symbols, workers)
}

/// Reads chunks of known lengths, the last one taking the rest of the bytes.
pub(crate) fn decode_chunks(
    coding: &Coding<'_>,
    lengths: Lengths,
    mut reader: Reader<'_>,
    plan: &Plan,
    symbols: &mut Vec<i32>,
    workers: &mut Vec<Worker>,
) -> Result<()> {
    let channels = plan.active.len();
    if coding.chunks > coding.rows.max(1) {
        return Err(Error::corrupt("more chunks than rows", reader.offset()));
    }
    // Every symbol is written, or the stream is refused.
    let width = coding.columns * channels;
    symbols.resize(coding.rows * width, 0);
    let size = symbols.len();
    // A chunk that is too short is an error only if those before it are good.
    let mut lengths = lengths.known.iter();
    let jobs = split(symbols, width, coding.chunk_rows()).map(|(rows, symbols)| {
        let offset = reader.offset();
        let length = lengths.next().map_or(reader.rest().len(), |&length| length as usize);
        (rows.start, symbols, offset, reader.take(length, "a chunk"))
    });
    threads::each_sharing(jobs, workers, size, |(first_row, symbols, offset, bytes), worker| {
        decode_chunk(coding, plan, first_row, (bytes?, offset), symbols, worker)
    })
}

pub(crate) fn decode_chunk(
    coding: &Coding<'_>,
    plan: &Plan,
    first_row: usize,
    (bytes, offset): (&[u8], usize),
    symbols: &mut [i32],
    worker: &mut Worker,
) -> Result<()> {
    if symbols.is_empty() {
        return if bytes.is_empty() { Ok(()) } else { Err(Error::corrupt("bytes in a chunk without symbols", offset)) };
    }
    let lanes = coding.lanes.unwrap_or(1);
    let model = coding.model(plan, first_row);
    match coding.kernels {
        Kernels::Portable => {
            let mut sums = RunSums::default();
            rans_decode(bytes, offset, symbols, model.channels, lanes, coding.bank, |before, out| {
                tables_of(&model, before, &mut sums, out);
            })
        }
        Kernels::Simd { level, gather } => {
            let source = Source { bytes, offset, lanes, bank: coding.bank, model };
            dispatch!(level, simd => simd::rans_decode(simd, gather, &source, symbols, &mut worker.near))
        }
    }
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
                kernels: Kernels::Portable,
            };
            let layout = Layout::new(Dtype::F32, Axes::default_for(1), &[1]).unwrap();
            let header = Header { mode: Mode::Plain, lanes: 1, profile: None, layout: Some(layout), chunks: 1 };
            let mut out = Vec::new();
            encode(&coding, header, &[], &plan, &symbols, &mut Vec::new(), &mut out).unwrap();
            let mut reader = Reader::new(&out);
            let read = Header::read(&mut reader, &Limits::default()).unwrap();
            let payload = reader.rest().len() as f64;
            prop_assert!(payload <= ideal as f64 / 2048.0 * 1.01 + 16.0, "{payload} for {}", ideal as f64 / 2048.0);
            let mut back = Vec::new();
            let scratch = &mut Vec::new();
            decode(&Coding { lanes: Some(read.lanes), ..coding }, reader, &plan, &mut back, scratch).unwrap();
            prop_assert_eq!(back, symbols);
        }
    }
}
