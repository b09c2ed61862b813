//! Mode `Plain`: no profile. One step for all channels, the built-in bank, and for every channel a
//! scale index in the stream.

use std::sync::LazyLock;

use crate::container::Reader;
use crate::entropy::bank::{Bank, TABLES};
use crate::entropy::token::{TOKENS, token_of};
use crate::error::{Error, Result};
use crate::geometry::Grid;
use crate::kernels::portable::{
    CONTEXTS, ContextRule, Dequantizer, MAX_LANES, Neighbours, Quantizer, STEP_MAX, context, dequantize_one, pack,
    quantize_one, round_shift, unpack,
};
use crate::plan::Plan;
use crate::transform::COEFFICIENT_BITS;

/// What a context adds to the scale index of its channel; part of the format.
pub(crate) const CONTEXT_OFFSETS: [i32; CONTEXTS] = [-10, -8, 0, 0, 4, 6, 8, 11];
/// Lagrangian of this mode's rate-distortion optimised quantisation.
pub(crate) const LAMBDA: u16 = 300;
/// Rounding offset, in 1/256 step.
pub(crate) const ROUNDING: u8 = 128;
/// Widest field of a packed scale index.
const MAX_LEVEL_BITS: u32 = 7;

/// Flag of a stream without negative values: it is coded with the one-sided built-in bank.
const ONE_SIDED: u8 = 0b01;
/// Flag of a stream whose tables depend on the neighbour context.
const NEIGHBOURS: u8 = 0b10;

/// How one feature is coded in this mode.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Kind {
    pub one_sided: bool,
    pub context: ContextRule,
}

impl Kind {
    /// The built-in bank for this kind of feature.
    pub fn bank(self) -> &'static Bank {
        static TWO_SIDED: LazyLock<Bank> = LazyLock::new(Bank::builtin);
        static ONE_SIDED: LazyLock<Bank> = LazyLock::new(Bank::builtin_one_sided);
        if self.one_sided { &ONE_SIDED } else { &TWO_SIDED }
    }

    fn code(self) -> u8 {
        let sided = if self.one_sided { ONE_SIDED } else { 0 };
        sided | if self.context == ContextRule::Neighbours { NEIGHBOURS } else { 0 }
    }

    fn from_code(code: u8) -> Option<Kind> {
        let context = if code & NEIGHBOURS == 0 { ContextRule::None } else { ContextRule::Neighbours };
        (code & !(ONE_SIDED | NEIGHBOURS) == 0).then_some(Kind { one_sided: code & ONE_SIDED != 0, context })
    }
}

/// The largest exponent (within -126 ..= 126) at which every finite value stays within i16.
pub(crate) fn exponent(values: &[f32]) -> i32 {
    let finite = values.iter().filter(|value| value.is_finite());
    exponent_of(finite.fold(f32::MIN_POSITIVE, |largest, value| largest.max(value.abs())))
}

/// The same from the largest finite magnitude, or the smallest normal float if that is larger.
pub(crate) fn exponent_of(largest: f32) -> i32 {
    let power = (largest.to_bits() >> 23) as i32 - 127;
    (14 - power).clamp(-126, 126)
}

/// The step index of quality index 0: about half the root mean square of the coefficients.
pub(crate) fn base_step(coefficients: &[i32]) -> i32 {
    let energy: f64 = coefficients.iter().map(|&c| f64::from(c) * f64::from(c)).sum();
    base_step_of(energy, coefficients.len())
}

/// The same from the sum of the squares of that many coefficients.
pub(crate) fn base_step_of(energy: f64, coefficients: usize) -> i32 {
    let mean = energy / coefficients.max(1) as f64;
    libm::round(16.0 * libm::log2(mean.max(1.0))) as i32
}

/// Makes `plan` the plan of these coefficients (channels last, rows of `grid.width` positions) at a
/// step index, and `params` the bytes that say so. `symbols` is scratch.
pub(crate) fn plan(
    plan: &mut Plan,
    params: &mut Vec<u8>,
    symbols: &mut Vec<i32>,
    coefficients: &[i32],
    grid: &Grid,
    exponent: i32,
    step: i32,
) -> Kind {
    let channels = grid.channels;
    let step = step.clamp(0, STEP_MAX) as u16;
    let quantizer = Quantizer::new(0, i32::from(step), ROUNDING);
    symbols.clear();
    symbols.extend(coefficients.iter().map(|&coefficient| quantize_one(coefficient, &quantizer)));
    let one_sided = coefficients.iter().all(|&coefficient| coefficient >= 0);
    let kind = Kind { one_sided, context: ContextRule::None };
    plan.levels.clear();
    for channel in 0..channels {
        let mut histogram = [0u32; TOKENS];
        for &symbol in symbols[channel.min(symbols.len())..].iter().step_by(channels) {
            histogram[usize::from(token_of(symbol).0)] += 1;
        }
        plan.levels.push(best_level(kind.bank(), &histogram));
    }
    let context = cheaper_context(kind.bank(), symbols, grid, &plan.levels);
    let kind = Kind { context, ..kind };
    describe(plan, params, kind, exponent, step);
    kind
}

/// Writes `params`, and completes the plan, of which `levels` holds the scale index of every channel.
pub(crate) fn describe(plan: &mut Plan, params: &mut Vec<u8>, kind: Kind, exponent: i32, step: u16) {
    params.clear();
    params.push(kind.code());
    params.push(exponent as i8 as u8);
    params.extend_from_slice(&step.to_le_bytes());
    let largest = plan.levels.iter().copied().max().unwrap_or(0);
    let bits = 8 - largest.leading_zeros();
    params.push(bits as u8);
    if bits > 0 {
        pack(&plan.levels, bits, params);
    }
    set(plan, kind, step);
}

/// The context rule that codes these symbols in fewer bits.
fn cheaper_context(bank: &Bank, symbols: &[i32], grid: &Grid, levels: &[u8]) -> ContextRule {
    let channels = grid.channels;
    let (mut without, mut with) = (0u64, 0u64);
    let mut contexts = [0; MAX_LANES];
    for (position, row) in symbols.chunks_exact(channels.max(1)).enumerate() {
        let has_up = !(position / grid.width).is_multiple_of(grid.height);
        let neighbours = Neighbours::at(position, grid.width, channels, has_up);
        for (first, run) in row.chunks(MAX_LANES).enumerate() {
            let first = first * MAX_LANES;
            context(symbols, &neighbours, first, &mut contexts[..run.len()]);
            for ((&symbol, &level), &context) in run.iter().zip(&levels[first..]).zip(&contexts) {
                if level > 0 {
                    without += u64::from(bank.cost(level, symbol));
                    with += u64::from(bank.cost(table_of(level, usize::from(context)), symbol));
                }
            }
        }
    }
    if with < without { ContextRule::Neighbours } else { ContextRule::None }
}

pub(crate) fn table_of(level: u8, context: usize) -> u8 {
    (i32::from(level) + CONTEXT_OFFSETS[context]).clamp(1, TABLES as i32 - 1) as u8
}

/// The table that codes a channel in the fewest bits; 0 if all its symbols are zero.
pub(crate) fn best_level(bank: &Bank, histogram: &[u32; TOKENS]) -> u8 {
    if histogram[1..].iter().all(|&count| count == 0) {
        return 0;
    }
    let bits = |table: usize| -> u64 {
        let cost = |token: usize| u64::from(bank.token_cost(table as u8, token as u8));
        histogram.iter().enumerate().map(|(token, &count)| u64::from(count) * cost(token)).sum()
    };
    (1..TABLES).min_by_key(|&table| bits(table)).unwrap_or(1) as u8
}

/// Reads the description of a plan; returns it with the exponent.
pub(crate) fn read(reader: &mut Reader<'_>, plan: &mut Plan, channels: usize) -> Result<(Kind, i32)> {
    let offset = reader.offset();
    let kind = Kind::from_code(reader.u8("the kind of a plain stream")?)
        .ok_or(Error::Unsupported { what: "the kind of a plain stream" })?;
    let exponent = i32::from(reader.u8("the exponent")? as i8);
    let step = u16::from_le_bytes(reader.array("the step")?);
    let bits = u32::from(reader.u8("the scale indices")?);
    if !(-126..=126).contains(&exponent) || i32::from(step) > STEP_MAX || bits > MAX_LEVEL_BITS {
        return Err(Error::corrupt("the exponent, the step or the width of the scale indices", offset));
    }
    plan.levels.clear();
    plan.levels.resize(channels, 0);
    if bits > 0 {
        let bytes = reader.take((channels * bits as usize).div_ceil(8), "the scale indices")?;
        unpack(bytes, bits, &mut plan.levels);
    }
    if plan.levels.iter().any(|&level| usize::from(level) >= TABLES) {
        return Err(Error::corrupt("a scale index", offset));
    }
    set(plan, kind, step);
    Ok((kind, exponent))
}

/// Completes a plan of which `levels` holds the scale index of every channel, 0 for a silent one.
fn set(plan: &mut Plan, kind: Kind, step: u16) {
    let levels = std::mem::take(&mut plan.levels);
    plan.clear(levels.len());
    for (channel, &level) in levels.iter().enumerate().filter(|&(_, &level)| level > 0) {
        let tables = match kind.context {
            ContextRule::Neighbours => std::array::from_fn(|context| table_of(level, context)),
            _ => [level; CONTEXTS],
        };
        plan.push(
            channel,
            tables,
            Quantizer::new(0, i32::from(step), ROUNDING),
            Dequantizer::new(0, i32::from(step), [0; 3]),
        );
    }
    plan.levels = levels;
}

/// Symbols to integer feature values, channels last; silent channels are zero.
pub(crate) fn reconstruct(plan: &Plan, symbols: &[i32], grid: &Grid, values: &mut Vec<i16>) {
    values.clear();
    values.resize(grid.len(), 0);
    let active = plan.active.len();
    if active == 0 {
        return;
    }
    for (row, out) in symbols.chunks_exact(active).zip(values.chunks_exact_mut(grid.channels)) {
        for (i, (&symbol, &channel)) in row.iter().zip(&plan.active).enumerate() {
            let value = round_shift(dequantize_one(symbol, &plan.dequantizers.get(i)), COEFFICIENT_BITS);
            out[channel as usize] = value.clamp(-32_768, 32_767) as i16;
        }
    }
}
