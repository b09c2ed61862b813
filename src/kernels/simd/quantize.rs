//! Quantiser and dequantiser: the portable arithmetic in u32, on vectors.

use fearless_simd::prelude::*;

use super::context::{Run, load_run, store_run, tables};
use super::isa::{Isa, table_at};
use crate::chunk::RDO_MAX;
use crate::entropy::bank::Bank;
use crate::entropy::token::TOKENS;
use crate::kernels::portable::{
    COEFFICIENT_MAX, ContextModel, DequantizerRun, Dequantizers, MAX_LANES, Neighbourhood, QuantizerRun, Quantizers,
    SYMBOL_MAX,
};
use crate::plan::Plan;

/// Channels at a time.
const RUN: usize = MAX_LANES;
/// Beyond this, a coefficient less any mean is out of range anyway.
const FAR: i32 = 1 << 20;

/// As [`portable::quantize`](crate::kernels::portable::quantize).
#[inline(always)]
pub(crate) fn quantize(coefficients: &[i32], active: &[u32], quantizers: &Quantizers, symbols: &mut [i32]) {
    let runs = active.chunks(RUN).zip(&quantizers.runs);
    for (symbols, (active, quantizer)) in symbols.chunks_mut(RUN).zip(runs) {
        let QuantizerRun { mean, multiplier, shift, offset } = quantizer;
        let mut values = take(coefficients, active);
        for i in 0..RUN {
            let centred = centre(values[i], mean[i]);
            let magnitude = ((centred.unsigned_abs() * multiplier[i] + offset[i]) >> (shift[i] & 31)) as i32;
            let magnitude = magnitude.min(SYMBOL_MAX);
            values[i] = if centred < 0 { -magnitude } else { magnitude };
        }
        store_run(&values, symbols);
    }
}

#[inline(always)]
fn centre(coefficient: i32, mean: i32) -> i32 {
    (coefficient.clamp(-FAR, FAR) - mean).clamp(-COEFFICIENT_MAX, COEFFICIENT_MAX)
}

/// The first of a run's active channels, if they lie side by side.
#[inline(always)]
fn side_by_side(active: &[u32]) -> Option<usize> {
    let (first, last) = (*active.first()?, *active.last()?);
    (last - first == active.len() as u32 - 1).then_some(first as usize)
}

/// The coefficients of a run, then zeros.
#[inline(always)]
fn take(coefficients: &[i32], active: &[u32]) -> [i32; RUN] {
    if let Some(first) = side_by_side(active) {
        return load_run(&coefficients[first..first + active.len()]);
    }
    let mut values = [0; RUN];
    for (value, &channel) in values.iter_mut().zip(active) {
        *value = coefficients[channel as usize];
    }
    values
}

/// As [`portable::dequantize`](crate::kernels::portable::dequantize).
#[inline(always)]
pub(crate) fn dequantize(symbols: &[i32], active: &[u32], dequantizers: &Dequantizers, coefficients: &mut [i32]) {
    let runs = active.chunks(RUN).zip(&dequantizers.runs);
    for (symbols, (active, dequantizer)) in symbols.chunks(RUN).zip(runs) {
        let DequantizerRun { mean, mantissa, shift, towards_zero } = dequantizer;
        let mut values = load_run(symbols);
        for i in 0..RUN {
            let magnitude = values[i].unsigned_abs().min(SYMBOL_MAX as u32);
            // The byte for magnitude 1, 2, or more.
            let towards_zero = (towards_zero[i] >> (8 * magnitude.clamp(1, 3) - 8)) & 255;
            let towards_zero = if magnitude == 0 { 0 } else { towards_zero };
            let scaled = ((magnitude << 4) - towards_zero) * mantissa[i];
            // Half up, without the carry that adding the half could lose.
            let halved = scaled >> (shift[i].wrapping_sub(1) & 31);
            let rounded = if shift[i] == 0 { scaled } else { (halved >> 1) + (halved & 1) };
            let rounded = rounded.min(COEFFICIENT_MAX as u32) as i32;
            values[i] = if values[i] < 0 { mean[i] - rounded } else { mean[i] + rounded };
        }
        match side_by_side(active) {
            Some(first) => store_run(&values, &mut coefficients[first..first + active.len()]),
            None => {
                for (&value, &channel) in values.iter().zip(active) {
                    coefficients[channel as usize] = value;
                }
            }
        }
    }
}

/// Rate-distortion optimised quantisation of a chunk: the symbol with the least squared error plus lambda
/// times bits, among the rounded one, the one below it in magnitude, and zero.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Decider<'a> {
    pub model: ContextModel<'a>,
    pub plan: &'a Plan,
    pub bank: &'a Bank,
    /// 1/4096 squared step per bit.
    pub lambda: u32,
}

impl Decider<'_> {
    /// Coefficients (all coder channels of each block) to symbols (active channels of each block).
    #[inline(always)]
    pub fn run<S: Isa>(
        &self,
        simd: S,
        gather: bool,
        coefficients: &[i32],
        symbols: &mut [i32],
        near: &mut Neighbourhood,
    ) {
        if S::GATHERS && gather {
            self.decide_all::<S, true>(simd, coefficients, symbols, near);
        } else {
            self.decide_all::<S, false>(simd, coefficients, symbols, near);
        }
    }

    #[inline(always)]
    fn decide_all<S: Isa, const GATHER: bool>(
        &self,
        simd: S,
        coefficients: &[i32],
        symbols: &mut [i32],
        near: &mut Neighbourhood,
    ) {
        let Decider { model, plan, .. } = self;
        let (channels, width) = (model.channels, plan.channels);
        if symbols.is_empty() {
            // Rows of no columns cannot be told apart.
            return;
        }
        near.start_chunk(model);
        let rows = coefficients.chunks_exact(width * model.columns);
        for (row, (coefficients, symbols)) in rows.zip(symbols.chunks_exact_mut(channels * model.columns)).enumerate() {
            near.start_row(model.has_up(row));
            let positions = coefficients.chunks_exact(width).zip(symbols.chunks_exact_mut(channels));
            for (column, (coefficients, symbols)) in positions.enumerate() {
                for (run, (symbols, active)) in symbols.chunks_mut(RUN).zip(plan.active.chunks(RUN)).enumerate() {
                    let tables = tables(simd, near, model, column, run);
                    let mut all = take(coefficients, active);
                    self.decide::<S, GATHER>(simd, &plan.quantizers.runs[run], &tables, &mut all);
                    all[symbols.len()..].fill(0);
                    store_run(&all, symbols);
                    near.put(model, column, run, &all);
                }
            }
        }
    }

    /// The coefficients of a run to its symbols.
    #[inline(always)]
    fn decide<S: Isa, const GATHER: bool>(&self, simd: S, run: &QuantizerRun, tables: &Run, values: &mut [i32; RUN]) {
        let QuantizerRun { mean, multiplier, shift, offset } = run;
        let mut sizes = [0u32; RUN];
        let mut rounded = [0u32; RUN];
        let mut index = [0u32; RUN];
        for i in 0..RUN {
            let centred = centre(values[i], mean[i]);
            let scaled = centred.unsigned_abs() * multiplier[i];
            sizes[i] = scaled >> (shift[i].wrapping_sub(8) & 31);
            rounded[i] = ((scaled + offset[i]) >> (shift[i] & 31)).min(SYMBOL_MAX as u32);
            index[i] = u32::from(tables[i]) * TOKENS as u32 + if centred < 0 { 16 } else { 0 };
            values[i] = if centred < 0 { -1 } else { 1 };
        }
        let costs = self.bank.decision_costs();
        let zero = S::u32s::splat(simd, 0);
        let lanes = S::u32s::LEN;
        for at in (0..RUN).step_by(lanes) {
            let high = S::u32s::from_slice(simd, &rounded[at..at + lanes]);
            if !high.simd_gt(0).any_true() {
                continue;
            }
            let size = S::u32s::from_slice(simd, &sizes[at..at + lanes]);
            let index = S::u32s::from_slice(simd, &index[at..at + lanes]);
            // Where no decision is made, any numbers will do.
            let own = high.min(RDO_MAX as u32);
            let below = own.max(1) - 1;
            let place = (size, costs, index, self.lambda);
            let loss_of_own = loss::<S, GATHER>(simd, own, place);
            let loss_of_below = loss::<S, GATHER>(simd, below, place);
            let loss_of_zero = loss::<S, GATHER>(simd, zero, place);
            // The first of equals.
            let lower = loss_of_below.simd_lt(loss_of_own);
            let (best, least) = (lower.select(below, own), lower.select(loss_of_below, loss_of_own));
            let best = loss_of_zero.simd_lt(least).select(zero, best);
            let decided = high.simd_gt(RDO_MAX as u32).select(high, best);
            decided.store_slice(&mut rounded[at..at + lanes]);
        }
        for i in 0..RUN {
            values[i] *= rounded[i] as i32;
        }
    }
}

/// The loss of a candidate for each of several values: sizes in 1/256 step, costs, where theirs begin, lambda.
#[inline(always)]
fn loss<S: Isa, const GATHER: bool>(
    simd: S,
    candidate: S::u32s,
    (size, costs, index, lambda): (S::u32s, &[u32], S::u32s, u32),
) -> S::u32s {
    let target = candidate << 8;
    let error = size.max(target) - size.min(target);
    let cost = table_at::<S, GATHER>(simd, costs, index + candidate);
    error * error + ((cost * lambda) >> 4)
}
