//! Symbols to chunks, and chunks to a stream.

use crate::chunk::Coding;
use crate::container::{CHECKSUM_BYTES, Head, Header, put_varint};
use crate::entropy::bank::COST_ONE_BIT;
use crate::error::Result;
use crate::kernels::Kernels;
use crate::kernels::portable::{CheckSums, ContextModel, MAX_LANES, Neighbourhood, RansScratch, rans_encode};
use crate::kernels::simd::{self, Coded, Job, dispatch};
use crate::plan::Plan;
use crate::threads;

/// Payload bytes that a lane must be worth: its final state costs about three.
pub(crate) const BYTES_PER_LANE: usize = 300;

/// Buffers of coding one chunk.
#[derive(Debug, Default, Clone)]
pub(crate) struct Worker {
    pub(super) tables: Vec<u8>,
    pub(super) rans: RansScratch,
    coded: Coded,
    pub(super) sums: CheckSums,
    pub near: Neighbourhood,
    pub cost: u64,
    pub payload: Vec<u8>,
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
    let jobs = || {
        let chunks = coding.chunk_rows().enumerate();
        chunks.map(|(chunk, rows)| (chunk, rows.start, &symbols[rows.start * width..rows.end * width]))
    };
    threads::each(jobs(), workers, symbols.len(), |(_, first_row, symbols), worker| {
        index_chunk(coding, plan, first_row, symbols, worker);
        Ok(())
    })?;
    let head = Head::of(&header, params, out);
    let seed = head.seed();
    let cost = workers.iter().map(|worker| worker.cost).sum();
    let lanes = lanes_for(coding, channels, cost);
    threads::each(jobs(), workers, symbols.len(), |(chunk, _, symbols), worker| {
        worker.payload.clear();
        code_chunk(coding, channels, lanes, seed.wrapping_add(chunk as u32), symbols, worker);
        if header.checksums {
            let checksum: [u8; CHECKSUM_BYTES] = head.checksum(chunk, lanes, &worker.payload);
            worker.payload.extend_from_slice(&checksum);
        }
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
pub(super) fn fill_tables(model: &ContextModel<'_>, symbols: &[i32], near: &mut Neighbourhood, tables: &mut Vec<u8>) {
    tables.clear();
    near.each_run(model, symbols, |run, contexts| {
        let by_context = &model.runs[run].tables;
        tables.extend(contexts.iter().enumerate().map(|(channel, &c)| by_context[usize::from(c)][channel]));
    });
}

/// What all symbols of a feature cost if they are one chunk, in 1/256 bit.
pub(crate) fn cost(coding: &Coding<'_>, plan: &Plan, symbols: &[i32], worker: &mut Worker) -> u64 {
    index(coding, plan, 0, symbols, worker, Some(u64::MAX));
    worker.cost
}

/// Finds contexts and tables of a chunk, and what its symbols cost if that decides the lanes.
pub(crate) fn index_chunk(coding: &Coding<'_>, plan: &Plan, first_row: usize, symbols: &[i32], worker: &mut Worker) {
    // From this on, the most lanes are worth it.
    let enough = (coding.chunks * MAX_LANES * BYTES_PER_LANE * 8) as u64 * u64::from(COST_ONE_BIT);
    index(coding, plan, first_row, symbols, worker, coding.lanes.is_none().then_some(enough));
}

/// Finds contexts and tables of a chunk, and up to `enough`, if that is given, what its symbols cost.
fn index(
    coding: &Coding<'_>,
    plan: &Plan,
    first_row: usize,
    symbols: &[i32],
    worker: &mut Worker,
    enough: Option<u64>,
) {
    let Worker { tables, coded, sums, near, cost, .. } = worker;
    *cost = 0;
    *sums = CheckSums::default();
    if symbols.is_empty() {
        return;
    }
    let model = coding.model(plan, first_row);
    match coding.kernels {
        Kernels::Portable => {
            fill_tables(&model, symbols, near, tables);
            sums.add_all(symbols, model.channels);
            if enough.is_some() {
                let cost_of = |(&symbol, &table): (&i32, &u8)| u64::from(coding.bank.cost(table, symbol));
                *cost = symbols.iter().zip(&*tables).map(cost_of).sum();
            }
        }
        Kernels::Simd { level, gather } => dispatch!(level, simd => {
            simd::rans_index(simd, &model, symbols, near, coded, sums);
            if let Some(enough) = enough {
                *cost = coded.cost(simd, gather, symbols, coding.bank, enough);
            }
        }),
    }
}

/// Codes a chunk that [`index_chunk`] has seen, at the end of the worker's payload.
pub(crate) fn code_chunk(
    coding: &Coding<'_>,
    channels: usize,
    lanes: usize,
    seed: u32,
    symbols: &[i32],
    worker: &mut Worker,
) {
    let Worker { tables, rans, coded, sums, payload, .. } = worker;
    if symbols.is_empty() {
        return;
    }
    let ends = sums.end_states(lanes, Some(seed));
    match coding.kernels {
        Kernels::Portable => rans_encode(symbols, tables, channels, &ends[..lanes], coding.bank, rans, payload),
        Kernels::Simd { level, gather } => {
            let job = Job { symbols, channels, lanes, bank: coding.bank, ends };
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chunk::{ChunkReader, Part, decode_chunk};
    use crate::container::{Layout, Mode, Reader};
    use crate::entropy::bank::Bank;
    use crate::kernels::portable::Dequantizer;
    use crate::kernels::portable::{ContextRule, Quantizer};
    use crate::limits::Limits;
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
            positions in 1..if cfg!(miri) { 8 } else { 400usize },
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
            let header = Header { layout: Some(layout), ..Header::new(Mode::Plain) };
            let mut out = Vec::new();
            encode(&coding, header, &[], &plan, &symbols, &mut Vec::new(), &mut out).unwrap();
            let mut reader = Reader::new(&out);
            let read = Header::read(&mut reader, &Limits::default()).unwrap();
            let payload = reader.rest().len() as f64;
            prop_assert!(payload <= ideal as f64 / 2048.0 * 1.01 + 16.0, "{payload} for {}", ideal as f64 / 2048.0);
            let mut back = Vec::new();
            let part = Part { number: 0, rows: 0..1, offset: reader.offset(), bytes: reader.rest() };
            let seed = Head::new(&out[..reader.offset()], &[]).seed();
            let coding = Coding { lanes: Some(read.lanes), ..coding };
            let sink = &mut |_: &_, symbols: &[i32]| back.extend_from_slice(symbols);
            decode_chunk(&coding, &plan, Some(seed), &part, &mut ChunkReader::default(), sink).unwrap();
            prop_assert_eq!(back, symbols);
        }
    }
}
