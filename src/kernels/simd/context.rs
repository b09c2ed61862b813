//! Contexts, a run of 32 channels at a time.

use fearless_simd::prelude::*;
use fearless_simd::u8x32;

use crate::kernels::portable::{CONTEXTS, ContextModel, ContextRule, MAX_LANES, Neighbourhood, THRESHOLDS};

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

/// The tables of a run of channels of a position: as [`Neighbourhood::tables`], those beyond the run's channels being 0.
#[inline(always)]
pub(crate) fn tables<S: Simd>(
    simd: S,
    near: &mut Neighbourhood,
    model: &ContextModel<'_>,
    column: usize,
    run: usize,
) -> Run {
    let tables = &model.runs[run].tables;
    match model.rule {
        ContextRule::None => tables[0],
        ContextRule::Neighbours => {
            let [left, up, up_right] = near.around(model, column, run);
            let (left, up) = (u8x32::from_slice(simd, left), u8x32::from_slice(simd, up));
            let up_right = u8x32::from_slice(simd, up_right);
            let corner = u8x32::from_slice(simd, &near.corner[run * MAX_LANES..][..MAX_LANES]);
            let sums = left + left + up + up + corner + up_right;
            let mut chosen = u8x32::from_slice(simd, &tables[0]);
            for (&threshold, table) in THRESHOLDS.iter().zip(&tables[1..]) {
                let table = u8x32::from_slice(simd, table);
                chosen = sums.simd_ge(threshold as u8).select(table, chosen);
            }
            *chosen
        }
        ContextRule::Runs => tables[usize::from(near.run_context(model, column, run)) % CONTEXTS],
    }
}
