//! Rate control: the quality that meets a byte budget or a target SQNR, by bisection.

use crate::error::{Error, Result};
use crate::quality::{COARSEST, FINEST, Quality};

/// The finest quality index whose stream fits the budget, found by bisection; streams grow as the
/// index falls, but not strictly, so what is kept is the largest stream seen that fits.
///
/// `at(index, out)` writes the stream of a quality index; `best` is scratch. What exceeds a limit of its own, as datagrams do
/// of which there can be no more, is over the budget too.
pub(crate) fn to_budget(
    budget: usize,
    best: &mut Vec<u8>,
    out: &mut Vec<u8>,
    mut at: impl FnMut(i16, &mut Vec<u8>) -> Result<()>,
) -> Result<()> {
    at(COARSEST as i16, out)?;
    within(Quality::Bytes(budget), out.len())?;
    bisect(
        COARSEST,
        FINEST - 1,
        best,
        out,
        |index, out| Ok(fitting(at(index, out))?.is_some() && out.len() <= budget),
    )?;
    Ok(())
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
    let mut at = |index: i16, out: &mut Vec<u8>| fitting(sqnr_at(index, out));
    let (finest, reached) = match at(FINEST as i16, out)? {
        Some(reached) => (FINEST, reached),
        None => finest(best, out, &mut at)?,
    };
    if reached < target {
        let (steps, instead) = match finest {
            FINEST => ("finest steps", "use the lossless mode"),
            _ => ("finest steps that fit", "allow more bytes"),
        };
        return Err(Error::invalid(format!(
            "an SQNR of {target} dB is out of reach for this feature: the {steps} give {reached:.1} dB; {instead}"
        )));
    }
    bisect(finest, COARSEST + 1, best, out, |index, out| Ok(at(index, out)?.is_some_and(|sqnr| sqnr >= target)))?;
    Ok(())
}

/// The finest quality index within limits, and its SQNR, where the finest of all exceeds one; `out` is left with its stream.
fn finest(
    best: &mut Vec<u8>,
    out: &mut Vec<u8>,
    mut at: impl FnMut(i16, &mut Vec<u8>) -> Result<Option<f32>>,
) -> Result<(i32, f32)> {
    let mut reached = f32::NEG_INFINITY;
    let mut accepts = |index: i16, out: &mut Vec<u8>| {
        let sqnr = at(index, out)?;
        reached = sqnr.unwrap_or(reached);
        Ok(sqnr.is_some())
    };
    if !accepts(COARSEST as i16, out)? {
        return Err(Error::invalid("the feature does not fit at any quality: allow more bytes"));
    }
    let index = bisect(COARSEST, FINEST, best, out, accepts)?;
    Ok((index, reached))
}

/// `None` in place of the error that a limit is exceeded.
fn fitting<T>(result: Result<T>) -> Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(Error::LimitExceeded { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The last acceptable quality index between one that is acceptable, of which `out` holds the stream,
/// and one that counts as not; `out` is left with the stream of the one that is given back.
fn bisect(
    mut accepted: i32,
    mut refused: i32,
    best: &mut Vec<u8>,
    out: &mut Vec<u8>,
    mut accepts: impl FnMut(i16, &mut Vec<u8>) -> Result<bool>,
) -> Result<i32> {
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
    Ok(accepted)
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
