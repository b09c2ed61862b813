//! Coefficients to symbols, a chunk at a time: each to the nearest, or to the one that is worth its bits.

use crate::chunk::{Coding, Worker, split};
use crate::entropy::bank::Bank;
use crate::kernels::portable::{MAX_LANES, Quantizer, in_steps, quantize_one};
use crate::kernels::simd::{Decider, dispatch};
use crate::kernels::{BlockKernels, Kernels, with_blocks};
use crate::plan::Plan;
use crate::threads;

/// Largest magnitude for which rate decisions are made; larger ones are rounded.
pub(crate) const RDO_MAX: i32 = 15;

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
    let _ = threads::each_sharing(jobs, (workers, usize::MAX), coefficients.len(), |(rows, symbols), worker| {
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
    let (near, mut tables) = (&mut worker.near, [0; MAX_LANES]);
    near.start_chunk(&model);
    for (position, (row, symbols)) in positions.zip(symbols.chunks_exact_mut(channels)).enumerate() {
        let column = position % model.columns;
        if column == 0 {
            near.start_row(model.has_up(position / model.columns));
        }
        for (run, symbols) in symbols.chunks_mut(MAX_LANES).enumerate() {
            near.tables(&model, column, run, &mut tables[..symbols.len()]);
            let mut decided = [0; MAX_LANES];
            for (i, decided) in decided[..symbols.len()].iter_mut().enumerate() {
                let channel = plan.active[run * MAX_LANES + i] as usize;
                let quantizer = plan.quantizers.get(run * MAX_LANES + i);
                *decided = decide(row[channel], &quantizer, coding.bank, tables[i], coding.lambda);
            }
            symbols.copy_from_slice(&decided[..symbols.len()]);
            near.put(&model, column, run, &decided);
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
