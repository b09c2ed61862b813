//! Rate control: the quality that meets a byte budget or a target SQNR, by bisection.

use crate::error::{Error, Result};
use crate::quality::{COARSEST, FINEST, Quality};

/// The finest quality index whose stream fits the budget, found by bisection; streams grow as the
/// index falls, but not strictly, so what is kept is the largest stream seen that fits.
///
/// `at(index, out)` writes the stream of a quality index; `best` is scratch.
pub(crate) fn to_budget(
    budget: usize,
    best: &mut Vec<u8>,
    out: &mut Vec<u8>,
    mut at: impl FnMut(i16, &mut Vec<u8>) -> Result<()>,
) -> Result<()> {
    at(COARSEST as i16, out)?;
    within(Quality::Bytes(budget), out.len())?;
    bisect(COARSEST, FINEST - 1, best, out, |index, out| {
        at(index, out)?;
        Ok(out.len() <= budget)
    })
}

/// The coarsest quality index that reaches the target SQNR, by bisection.
///
/// `sqnr_at(index, out)` writes the stream of a quality index and gives its SQNR; `best` is scratch.
pub(crate) fn to_sqnr(
    target: f32,
    best: &mut Vec<u8>,
    out: &mut Vec<u8>,
    mut sqnr_at: impl FnMut(i16, &mut Vec<u8>) -> Result<f32>,
) -> Result<()> {
    if target.is_nan() {
        return Err(Error::invalid("the target SQNR is not a number"));
    }
    let reached = sqnr_at(FINEST as i16, out)?;
    if reached < target {
        return Err(Error::invalid(format!(
            "an SQNR of {target} dB is out of reach for this feature: the finest steps give {reached:.1} dB; \
             use the lossless mode"
        )));
    }
    bisect(FINEST, COARSEST + 1, best, out, |index, out| Ok(sqnr_at(index, out)? >= target))
}

/// The last acceptable quality index between one that is acceptable, of which `out` holds the stream,
/// and one that counts as not; `out` is left with the stream of the one that was found.
fn bisect(
    mut accepted: i32,
    mut refused: i32,
    best: &mut Vec<u8>,
    out: &mut Vec<u8>,
    mut accepts: impl FnMut(i16, &mut Vec<u8>) -> Result<bool>,
) -> Result<()> {
    best.clone_from(out);
    while (accepted - refused).abs() > 1 {
        let middle = (accepted + refused).div_euclid(2);
        if accepts(middle as i16, out)? {
            accepted = middle;
            best.clone_from(out);
        } else {
            refused = middle;
        }
    }
    out.clone_from(best);
    Ok(())
}

/// An error that says what was needed if a stream of this length is over a byte budget.
pub(crate) fn within(quality: Quality, length: usize) -> Result<()> {
    match quality {
        Quality::Bytes(budget) if length > budget => {
            Err(Error::LimitExceeded { what: "byte budget", needed: length as u64, limit: budget as u64 })
        }
        _ => Ok(()),
    }
}

/// Signal-to-noise ratio in dB over the finite elements.
pub(crate) fn sqnr(source: &[f32], decoded: impl Iterator<Item = f32>) -> f32 {
    let (mut signal, mut noise) = (0.0f64, 0.0f64);
    for (&x, value) in source.iter().zip(decoded) {
        if x.is_finite() {
            let error = f64::from(x) - f64::from(value);
            signal += f64::from(x) * f64::from(x);
            noise += error * error;
        }
    }
    if noise <= 0.0 {
        return f32::INFINITY;
    }
    (10.0 * libm::log10(signal / noise)) as f32
}
