//! The knob between bytes and accuracy.

use crate::error::{Error, Result};

/// How many bytes to spend on a feature.
///
/// Which should I use? `Scale` for a fixed trade-off (what `eval` sweeps); `Bytes` when a packet
/// or a deadline sets the size; `Sqnr` when there is no task to judge by, only the numbers.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum Quality {
    /// Quantiser step relative to the profile's own steps: 1 is the fitted operating point,
    /// 2 is coarser by a factor of two, 0.5 finer. Rounded to 1/32 octave.
    Scale(f32),
    /// A hard budget: the whole stream is at most this many bytes, and as good as that allows.
    Bytes(usize),
    /// A target signal-to-quantisation-noise ratio in dB, over all elements: the smallest stream
    /// found that reaches it.
    Sqnr(f32),
}

impl Default for Quality {
    fn default() -> Self {
        Quality::Scale(1.0)
    }
}

/// Quality steps per octave of the quantiser step.
pub const STEPS_PER_OCTAVE: i32 = 32;
/// Finest quality index: steps 2^-8 of the profile's own.
pub const FINEST: i32 = -8 * STEPS_PER_OCTAVE;
/// Coarsest quality index: steps 2^8 of the profile's own.
pub const COARSEST: i32 = 8 * STEPS_PER_OCTAVE;

/// Quality indices between two layers of a stream: 32 log2(3), rounded, for steps three times as large.
const LAYER_INDICES: i16 = 51;

/// The quality index of a layer, of which `above` are finer, from that of the finest.
pub(crate) fn of_layer(finest: i16, above: usize) -> i16 {
    finest.saturating_add(LAYER_INDICES.saturating_mul(above as i16))
}

/// The quality index (in 1/32 octave, 0 = the profile's own steps) nearest to a step scale.
pub(crate) fn index_of_scale(scale: f32) -> Option<i32> {
    if !(scale.is_finite() && scale > 0.0) {
        return None;
    }
    let index = libm::roundf(libm::log2f(scale) * STEPS_PER_OCTAVE as f32) as i32;
    Some(index.clamp(FINEST, COARSEST))
}

/// As [`index_of_scale`], for what a caller asked for.
///
/// # Errors
/// `InvalidInput` if the scale is no positive number.
pub(crate) fn scale_index(scale: f32) -> Result<i16> {
    let index = index_of_scale(scale)
        .ok_or_else(|| Error::invalid(format!("a quality scale must be a positive number, not {scale}")))?;
    Ok(index as i16)
}
