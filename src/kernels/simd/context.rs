//! Contexts from the magnitudes of the last two rows, a run of 32 channels at a time.

use fearless_simd::prelude::*;
use fearless_simd::u8x32;

use crate::kernels::portable::{
    CONTEXTS, ContextModel, ContextRule, MAGNITUDE_CAP, MAX_LANES, RUN_BITS, RunSums, THRESHOLDS, run_class,
};

/// Up to 32 values of a slice, then zeros. (A copy of known length is no call.)
#[inline(always)]
pub(crate) fn load_run(values: &[i32]) -> [i32; MAX_LANES] {
    if let Ok(whole) = values.try_into() {
        return whole;
    }
    let mut run = [0; MAX_LANES];
    run[..values.len()].copy_from_slice(values);
    run
}

/// The reverse of [`load_run`].
#[inline(always)]
pub(crate) fn store_run(run: &[i32; MAX_LANES], values: &mut [i32]) {
    match <&mut [i32; MAX_LANES]>::try_from(&mut *values) {
        Ok(whole) => *whole = *run,
        Err(_) => values.copy_from_slice(&run[..values.len()]),
    }
}

/// One byte for each channel of a run.
pub(crate) type Run = [u8; MAX_LANES];

/// Magnitudes of the symbols of the row that is being coded and of the row above, each with a position
/// of zeros before and after, runs padded with zeros.
#[derive(Debug, Default, Clone)]
pub(crate) struct Neighbourhood {
    here: Vec<u8>,
    above: Vec<u8>,
    /// Sums of the magnitudes of each run, for context rule `Runs`.
    sums_here: Vec<u16>,
    sums_above: Vec<u16>,
    has_up: bool,
    before: RunSums,
}

impl Neighbourhood {
    /// Forgets everything, for a new chunk.
    pub fn start_chunk(&mut self, model: &ContextModel<'_>) {
        let runs = (model.columns + 2) * model.runs.len();
        for bytes in [&mut self.here, &mut self.above] {
            bytes.clear();
            bytes.resize(if model.rule == ContextRule::Neighbours { runs * MAX_LANES } else { 0 }, 0);
        }
        for sums in [&mut self.sums_here, &mut self.sums_above] {
            sums.clear();
            sums.resize(if model.rule == ContextRule::Runs { runs } else { 0 }, 0);
        }
    }

    /// Begins a row; `has_up` if the one before is in the same plane and chunk.
    #[inline(always)]
    pub fn start_row(&mut self, has_up: bool) {
        std::mem::swap(&mut self.here, &mut self.above);
        std::mem::swap(&mut self.sums_here, &mut self.sums_above);
        if !has_up {
            self.above.fill(0);
            self.sums_above.fill(0);
        }
        self.has_up = has_up;
    }

    /// The tables of a run of channels of a position. Runs are visited in order, and [`put`](Self::put)
    /// between them.
    #[inline(always)]
    pub fn tables<S: Simd>(&mut self, simd: S, model: &ContextModel<'_>, column: usize, run: usize) -> Run {
        let tables = &model.runs[run].tables;
        match model.rule {
            ContextRule::None => tables[0],
            ContextRule::Neighbours => {
                let stride = model.runs.len() * MAX_LANES;
                let at = column * stride + run * MAX_LANES;
                let left = u8x32::from_slice(simd, &self.here[at..at + MAX_LANES]);
                let above = &self.above[at..at + 2 * stride + MAX_LANES];
                let up_left = u8x32::from_slice(simd, &above[..MAX_LANES]);
                let up = u8x32::from_slice(simd, &above[stride..stride + MAX_LANES]);
                let up_right = u8x32::from_slice(simd, &above[2 * stride..]);
                let sums = left + left + up + up + up_left + up_right;
                let mut chosen = u8x32::from_slice(simd, &tables[0]);
                for (&threshold, table) in THRESHOLDS.iter().zip(&tables[1..]) {
                    let table = u8x32::from_slice(simd, table);
                    chosen = sums.simd_ge(threshold as u8).select(table, chosen);
                }
                *chosen
            }
            ContextRule::Runs => {
                let runs = model.runs.len();
                let sum = |sums: &[u16], slot: usize| u32::from(sums[slot * runs + run]) << RUN_BITS;
                if run == 0 {
                    self.before = RunSums::default();
                } else {
                    let actual = u32::from(self.sums_here[(column + 1) * runs + run - 1]) << RUN_BITS;
                    self.before.add_sum(actual, model.runs[run - 1].expected);
                }
                let (has_left, has_right) = (column > 0, column + 1 < model.columns);
                let actual = 2 * (sum(&self.sums_here, column) + sum(&self.sums_above, column + 1))
                    + sum(&self.sums_above, column)
                    + sum(&self.sums_above, column + 2);
                let up = u32::from(self.has_up);
                let weight = 2 * (u32::from(has_left) + up) + up * (u32::from(has_left) + u32::from(has_right));
                let class = run_class(&self.before, actual, weight * model.runs[run].expected);
                tables[usize::from(class) % CONTEXTS]
            }
        }
    }

    /// Notes the symbols of a run (zeros beyond its channels) of a position.
    #[inline(always)]
    pub fn put(&mut self, model: &ContextModel<'_>, column: usize, run: usize, symbols: &[i32; MAX_LANES]) {
        let at = (column + 1) * model.runs.len() + run;
        match model.rule {
            ContextRule::None => {}
            ContextRule::Neighbours => {
                let out = &mut self.here[at * MAX_LANES..][..MAX_LANES];
                for (out, symbol) in out.iter_mut().zip(symbols) {
                    *out = symbol.unsigned_abs().min(MAGNITUDE_CAP) as u8;
                }
            }
            ContextRule::Runs => {
                let sum: u32 = symbols.iter().map(|symbol| symbol.unsigned_abs().min(MAGNITUDE_CAP)).sum();
                self.sums_here[at] = sum as u16;
            }
        }
    }
}
