//! Quantiser and dequantiser: the portable arithmetic in u32, on vectors.

use fearless_simd::prelude::*;

use super::context::{Neighbourhood, Run};
use super::isa::{Isa, table_at};
use crate::chunk::RDO_MAX;
use crate::entropy::bank::Bank;
use crate::entropy::token::TOKENS;
use crate::kernels::portable::{COEFFICIENT_MAX, ContextModel, Dequantizers, MAX_LANES, Quantizers, SYMBOL_MAX};
use crate::plan::Plan;

/// Channels at a time.
const RUN: usize = MAX_LANES;
/// Beyond this, a coefficient less any mean is out of range anyway.
const FAR: i32 = 1 << 20;

/// As [`portable::quantize`](crate::kernels::portable::quantize).
#[inline(always)]
pub(crate) fn quantize(coefficients: &[i32], active: &[u32], quantizers: &Quantizers, symbols: &mut [i32]) {
    let Quantizers { mean, multiplier, shift, offset } = quantizers;
    for (symbol, &channel) in symbols.iter_mut().zip(active) {
        *symbol = coefficients[channel as usize];
    }
    let fields = mean.chunks(RUN).zip(multiplier.chunks(RUN)).zip(shift.chunks(RUN)).zip(offset.chunks(RUN));
    for (run, (((mean, multiplier), shift), offset)) in symbols.chunks_mut(RUN).zip(fields) {
        let fields = mean.iter().zip(multiplier).zip(shift).zip(offset);
        for (symbol, (((&mean, &multiplier), &shift), &offset)) in run.iter_mut().zip(fields) {
            let centred = ((*symbol).clamp(-FAR, FAR) - mean).clamp(-COEFFICIENT_MAX, COEFFICIENT_MAX);
            let magnitude =
                ((centred.unsigned_abs() * multiplier + offset) >> (shift & 31)).min(SYMBOL_MAX as u32) as i32;
            *symbol = if centred < 0 { -magnitude } else { magnitude };
        }
    }
}

/// As [`portable::dequantize`](crate::kernels::portable::dequantize).
#[inline(always)]
pub(crate) fn dequantize(symbols: &[i32], active: &[u32], dequantizers: &Dequantizers, coefficients: &mut [i32]) {
    let Dequantizers { mean, mantissa, shift, towards_zero } = dequantizers;
    let fields = mean.chunks(RUN).zip(mantissa.chunks(RUN)).zip(shift.chunks(RUN)).zip(towards_zero.chunks(RUN));
    for ((run, active), (((mean, mantissa), shift), towards_zero)) in
        symbols.chunks(RUN).zip(active.chunks(RUN)).zip(fields)
    {
        let mut sizes = [0i32; RUN];
        let fields = mean.iter().zip(mantissa).zip(shift).zip(towards_zero);
        for ((size, &symbol), (((&mean, &mantissa), &shift), &towards_zero)) in sizes.iter_mut().zip(run).zip(fields) {
            let magnitude = symbol.unsigned_abs().min(SYMBOL_MAX as u32);
            let towards_zero = match magnitude {
                0 => 0,
                1 => towards_zero & 255,
                2 => (towards_zero >> 8) & 255,
                _ => towards_zero >> 16,
            };
            let scaled = ((magnitude << 4) - towards_zero) * mantissa;
            // Half up, without the carry that adding the half could lose.
            let halved = scaled >> (shift.wrapping_sub(1) & 31);
            let rounded = if shift == 0 { scaled } else { (halved >> 1) + (halved & 1) };
            let rounded = rounded.min(COEFFICIENT_MAX as u32) as i32;
            *size = if symbol < 0 { mean - rounded } else { mean + rounded };
        }
        for (&size, &channel) in sizes.iter().zip(active) {
            coefficients[channel as usize] = size;
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
        near.start_chunk(model);
        let rows = coefficients.chunks_exact(width * model.columns);
        for (row, (coefficients, symbols)) in rows.zip(symbols.chunks_exact_mut(channels * model.columns)).enumerate() {
            near.start_row(model.has_up(row));
            let positions = coefficients.chunks_exact(width).zip(symbols.chunks_exact_mut(channels));
            for (column, (coefficients, symbols)) in positions.enumerate() {
                for (run, (symbols, active)) in symbols.chunks_mut(RUN).zip(plan.active.chunks(RUN)).enumerate() {
                    let tables = near.tables(simd, model, column, run);
                    let mut all = [0; RUN];
                    for (value, &channel) in all.iter_mut().zip(active) {
                        *value = coefficients[channel as usize];
                    }
                    self.decide::<S, GATHER>(simd, run * RUN, &tables, &mut all);
                    all[symbols.len()..].fill(0);
                    symbols.copy_from_slice(&all[..symbols.len()]);
                    near.put(model, column, run, &all);
                }
            }
        }
    }

    /// The coefficients of a run to its symbols.
    #[inline(always)]
    fn decide<S: Isa, const GATHER: bool>(&self, simd: S, first: usize, tables: &Run, values: &mut [i32; RUN]) {
        let Quantizers { mean, multiplier, shift, offset } = &self.plan.quantizers;
        let count = RUN.min(mean.len() - first);
        let mut sizes = [0u32; RUN];
        let mut rounded = [0u32; RUN];
        let mut index = [0u32; RUN];
        let fields = mean[first..].iter().zip(&multiplier[first..]).zip(&shift[first..]).zip(&offset[first..]);
        for (i, (((&mean, &multiplier), &shift), &offset)) in fields.take(count).enumerate() {
            let centred = (values[i].clamp(-FAR, FAR) - mean).clamp(-COEFFICIENT_MAX, COEFFICIENT_MAX);
            let scaled = centred.unsigned_abs() * multiplier;
            sizes[i] = scaled >> ((shift - 8) & 31);
            rounded[i] = ((scaled + offset) >> (shift & 31)).min(SYMBOL_MAX as u32);
            let negative = u32::from(centred < 0);
            values[i] = if centred < 0 { -1 } else { 1 };
            index[i] = u32::from(tables[i]) * TOKENS as u32 + 16 * negative;
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
            let loss = [own, below, zero].map(
                #[inline(always)]
                |candidate| {
                    let target = candidate << 8;
                    let error = size.max(target) - size.min(target);
                    let cost = table_at::<S, GATHER>(simd, costs, index + candidate);
                    error * error + ((cost * self.lambda) >> 4)
                },
            );
            // The first of equals.
            let lower = loss[1].simd_lt(loss[0]);
            let (best, least) = (lower.select(below, own), lower.select(loss[1], loss[0]));
            let best = loss[2].simd_lt(least).select(zero, best);
            let decided = high.simd_gt(RDO_MAX as u32).select(high, best);
            decided.store_slice(&mut rounded[at..at + lanes]);
        }
        for (value, &magnitude) in values.iter_mut().zip(&rounded) {
            *value *= magnitude as i32;
        }
    }
}
