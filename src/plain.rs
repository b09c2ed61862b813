//! Mode `Plain`: no profile. One step for all channels, the built-in bank, and for every channel a
//! scale index in the stream.

use std::sync::LazyLock;

use crate::chunk::{self, Coding, Outlook, Worker};
use crate::container::Reader;
use crate::entropy::bank::{Bank, TABLES};
use crate::entropy::token::{TOKENS, token_of};
use crate::error::{Error, Result};
use crate::kernels::portable::{
    CONTEXTS, ContextRule, Dequantizer, MAX_LANES, Quantizer, STEP_MAX, pack, round_shift, unpack,
};
use crate::kernels::simd::{self, dispatch};
use crate::kernels::{BlockKernels, Kernels, with_blocks};
use crate::plan::Plan;
use crate::tensor::Element;
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
pub(crate) fn exponent<T: Element>(values: impl Iterator<Item = T>) -> i32 {
    const INFINITE: u32 = f32::INFINITY.to_bits();
    // Magnitudes are ordered as their bits are.
    let magnitude = |value: T| match value.to_f32().abs().to_bits() {
        finite if finite < INFINITE => finite,
        _ => 0,
    };
    let largest = values.map(magnitude).fold(0, u32::max);
    exponent_of(f32::from_bits(largest).max(f32::MIN_POSITIVE))
}

/// The same from the largest finite magnitude, or the smallest normal float if that is larger.
pub(crate) fn exponent_of(largest: f32) -> i32 {
    let power = (largest.to_bits() >> 23) as i32 - 127;
    (14 - power).clamp(-126, 126)
}

/// The step index of quality index 0: about half the root mean square of the coefficients.
pub(crate) fn base_step(values: &[i16]) -> i32 {
    // At most 2^30 each.
    let square = |&value: &i16| u64::from((i32::from(value) * i32::from(value)) as u32);
    base_step_of(values.iter().map(square).sum(), values.len())
}

/// The same from the sum of the squares of that many integer values, which are coefficients without their fraction.
pub(crate) fn base_step_of(energy: u64, values: usize) -> i32 {
    let mean = (energy << (2 * COEFFICIENT_BITS)) as f64 / values.max(1) as f64;
    libm::round(16.0 * libm::log2(mean.max(1.0))) as i32
}

/// Buffers of [`plan`].
#[derive(Debug, Default, Clone)]
pub(crate) struct PlanScratch {
    worker: Worker,
    histograms: Vec<[u32; TOKENS]>,
}

/// Makes `plan` the plan of these coefficients (channels last, laid out as `shape` says) at a step index, and `params` the
/// bytes that say so. `symbols` is scratch too.
pub(crate) fn plan(
    plan: &mut Plan,
    params: &mut Vec<u8>,
    (symbols, workers, scratch): (&mut Vec<i32>, &mut Vec<Worker>, &mut PlanScratch),
    coefficients: &[i32],
    shape: &Coding<'_>,
    channels: usize,
    (exponent, step): (i32, i32),
) -> Kind {
    let step = step.clamp(0, STEP_MAX) as u16;
    let one_sided = coefficients.iter().fold(0, |least, &coefficient| least.min(coefficient)) == 0;
    let mut kind = Kind { one_sided, context: ContextRule::None };
    let shape = Coding { bank: kind.bank(), lambda: 0, lanes: None, ..*shape };
    // All channels, whatever their tables.
    plan.levels.clear();
    plan.levels.resize(channels, 1);
    set(plan, kind, step);
    chunk::quantize(&shape, plan, coefficients, symbols, workers);
    let PlanScratch { worker, histograms } = scratch;
    count_tokens(symbols, channels, histograms, shape.kernels);
    for (level, histogram) in plan.levels.iter_mut().zip(histograms) {
        *level = best_level(kind.bank(), histogram);
    }
    set(plan, kind, step);
    if plan.active.len() < channels {
        chunk::quantize(&shape, plan, coefficients, symbols, workers);
    }
    let without = chunk::cost(&shape, plan, symbols, worker);
    set(plan, Kind { context: ContextRule::Neighbours, ..kind }, step);
    if chunk::cost(&Coding { context: ContextRule::Neighbours, ..shape }, plan, symbols, worker) < without {
        kind.context = ContextRule::Neighbours;
    }
    describe(plan, params, kind, exponent, step);
    kind
}

/// Counts the tokens of the symbols of each channel.
fn count_tokens(symbols: &[i32], channels: usize, histograms: &mut Vec<[u32; TOKENS]>, kernels: Kernels) {
    histograms.clear();
    histograms.resize(channels, [0; TOKENS]);
    let mut tokens = [0u8; MAX_LANES];
    for row in symbols.chunks_exact(channels.max(1)) {
        for (symbols, histograms) in row.chunks(MAX_LANES).zip(histograms.chunks_mut(MAX_LANES)) {
            match kernels {
                Kernels::Simd { level, .. } => dispatch!(level, _simd => simd::tokens_of(symbols, &mut tokens)),
                Kernels::Portable => {
                    for (token, &symbol) in tokens.iter_mut().zip(symbols) {
                        *token = token_of(symbol).0;
                    }
                }
            }
            for (histogram, &token) in histograms.iter_mut().zip(&tokens) {
                histogram[usize::from(token) % TOKENS] += 1;
            }
        }
    }
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

pub(crate) fn table_of(level: u8, context: usize) -> u8 {
    (i32::from(level) + CONTEXT_OFFSETS[context]).clamp(1, TABLES as i32 - 1) as u8
}

/// The table that codes a channel in the fewest bits; 0 if all its symbols are zero.
pub(crate) fn best_level(bank: &Bank, histogram: &[u32; TOKENS]) -> u8 {
    if histogram[1..].iter().all(|&count| count == 0) {
        return 0;
    }
    let used = || histogram.iter().enumerate().filter(|&(_, &count)| count > 0);
    let bits = |table: usize| -> u64 {
        used().map(|(token, &count)| u64::from(count) * u64::from(bank.token_cost(table as u8, token as u8))).sum()
    };
    (1..TABLES).min_by_key(|&table| bits(table)).unwrap_or(1) as u8
}

/// The description of a plan, as it is in a stream.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Description<'s> {
    pub kind: Kind,
    pub exponent: i32,
    step: u16,
    /// Bits of a scale index.
    bits: u32,
    levels: &'s [u8],
}

impl<'s> Description<'s> {
    /// Reads and checks the description of this many channels.
    pub fn read(reader: &mut Reader<'s>, channels: usize) -> Result<Description<'s>> {
        let offset = reader.offset();
        let kind = Kind::from_code(reader.u8("the kind of a plain stream")?)
            .ok_or(Error::Unsupported { what: "the kind of a plain stream" })?;
        let exponent = i32::from(reader.u8("the exponent")? as i8);
        let step = u16::from_le_bytes(reader.array("the step")?);
        let bits = u32::from(reader.u8("the scale indices")?);
        if !(-126..=126).contains(&exponent) || i32::from(step) > STEP_MAX || bits > MAX_LEVEL_BITS {
            return Err(Error::corrupt("the exponent, the step or the width of the scale indices", offset));
        }
        let levels = reader.take((channels * bits as usize).div_ceil(8), "the scale indices")?;
        let description = Description { kind, exponent, step, bits, levels };
        let mut good = true;
        description.each_level(channels, |_, level| good &= usize::from(level) < TABLES);
        if good { Ok(description) } else { Err(Error::corrupt("a scale index", offset)) }
    }

    /// Calls `visit(channel, scale index)` for each channel, the silent ones (index 0) left out.
    fn each_level(&self, channels: usize, mut visit: impl FnMut(usize, u8)) {
        let mut fields = [0u8; 64];
        let bits = self.bits as usize;
        // 64 fields fill whole bytes at every width.
        for (i, bytes) in self.levels.chunks((8 * bits).max(1)).enumerate() {
            let fields = &mut fields[..64.min(channels - 64 * i)];
            unpack(bytes, self.bits, fields);
            let active = fields.iter().enumerate().filter(|&(_, &level)| level > 0);
            active.for_each(|(place, &level)| visit(64 * i + place, level));
        }
    }

    /// What is coded, without a plan.
    pub fn outlook(&self, channels: usize) -> Outlook {
        let mut outlook = Outlook::default();
        self.each_level(channels, |_, level| outlook.add(self.kind.bank(), &tables_of(self.kind, level)));
        outlook
    }

    /// Makes `plan` the one that is described.
    pub fn plan(&self, plan: &mut Plan, channels: usize) {
        plan.levels.clear();
        plan.levels.resize(channels, 0);
        let mut levels = std::mem::take(&mut plan.levels);
        self.each_level(channels, |channel, level| levels[channel] = level);
        plan.levels = levels;
        set(plan, self.kind, self.step);
    }
}

/// The tables of a level's contexts.
fn tables_of(kind: Kind, level: u8) -> [u8; CONTEXTS] {
    match kind.context {
        ContextRule::Neighbours => std::array::from_fn(|context| table_of(level, context)),
        _ => [level; CONTEXTS],
    }
}

/// Completes a plan of which `levels` holds the scale index of every channel, 0 for a silent one.
fn set(plan: &mut Plan, kind: Kind, step: u16) {
    let levels = std::mem::take(&mut plan.levels);
    plan.clear(levels.len());
    for (channel, &level) in levels.iter().enumerate().filter(|&(_, &level)| level > 0) {
        plan.push(
            channel,
            tables_of(kind, level),
            Quantizer::new(0, i32::from(step), ROUNDING),
            Dequantizer::new(0, i32::from(step), [0; 3]),
        );
    }
    plan.levels = levels;
}

/// Symbols to integer feature values, channels last, a row of `channels` for each of `values`; silent channels are zero.
pub(crate) fn reconstruct(
    plan: &Plan,
    symbols: &[i32],
    channels: usize,
    values: &mut [i16],
    coefficients: &mut Vec<i32>,
    kernels: Kernels,
) {
    let active = plan.active.len();
    if active == 0 || channels == 0 {
        values.fill(0);
        return;
    }
    coefficients.clear();
    coefficients.resize(channels, 0);
    with_blocks!(kernels, kernel => {
        for (row, out) in symbols.chunks_exact(active).zip(values.chunks_exact_mut(channels)) {
            kernel.dequantize(row, &plan.active, &plan.dequantizers, coefficients);
            for (value, &coefficient) in out.iter_mut().zip(coefficients.iter()) {
                *value = round_shift(coefficient, COEFFICIENT_BITS).clamp(-32_768, 32_767) as i16;
            }
        }
    });
}
