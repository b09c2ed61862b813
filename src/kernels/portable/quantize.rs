//! Coefficients to symbols and back, in integers.
//!
//! Steps are named by an index n in 1/32 octave: step(n) = `POWERS[n % 32]` * 2^(n / 32 - 12), in
//! coefficient units, so that 0.5 <= step < 65,536.

use super::rans::MAX_LANES;

/// Largest magnitude of a coefficient less its mean.
pub const COEFFICIENT_MAX: i32 = (1 << 17) - 1;
/// Largest magnitude of a symbol that stands for a coefficient; larger ones count as this one.
pub const SYMBOL_MAX: i32 = 65_535;
/// Step indices run from 0 to this.
pub const STEP_MAX: i32 = 17 * 32 - 1;
/// Fractional bits of reconstruction offsets: they count sixteenths of a step.
pub(crate) const OFFSET_BITS: u32 = 4;

/// round(2048 * 2^(i / 32)).
pub const POWERS: [u16; 32] = [
    2048, 2093, 2139, 2186, 2233, 2282, 2332, 2383, 2435, 2489, 2543, 2599, 2656, 2714, 2774, 2834, 2896, 2960, 3025,
    3091, 3158, 3228, 3298, 3371, 3444, 3520, 3597, 3676, 3756, 3838, 3922, 4008,
];

/// How one channel's coefficients become symbols.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Quantizer {
    /// Integer mean of the coefficient.
    pub mean: i32,
    /// About 2^shift / step.
    multiplier: u32,
    shift: u32,
    /// Rounding offset, shifted up.
    offset: u32,
}

/// How one channel's symbols become coefficients.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Dequantizer {
    /// Integer mean of the coefficient.
    pub mean: i32,
    mantissa: u32,
    shift: u32,
    /// How far towards zero symbols of magnitude 1, 2 and more are moved, in 1/16 step.
    towards_zero: [u8; 3],
}

impl Quantizer {
    /// A quantiser with step index `step` (clamped to 0..=543) and a rounding offset in 1/256 step.
    pub fn new(mean: i32, step: i32, rounding: u8) -> Quantizer {
        let step = step.clamp(0, STEP_MAX) as u32;
        let mantissa = u32::from(POWERS[(step % 32) as usize]);
        let shift = step / 32 + 13;
        Quantizer {
            mean,
            multiplier: ((1 << 25) + mantissa / 2) / mantissa,
            shift,
            offset: u32::from(rounding) << (shift - 8),
        }
    }
}

#[cfg(feature = "gpu")]
impl Quantizer {
    /// Multiplier, shift and rounding offset.
    pub(crate) fn parts(&self) -> (u32, u32, u32) {
        (self.multiplier, self.shift, self.offset)
    }
}

#[cfg(feature = "gpu")]
impl Dequantizer {
    /// Mantissa, shift and offsets towards zero.
    pub(crate) fn parts(&self) -> (u32, u32, [u8; 3]) {
        (self.mantissa, self.shift, self.towards_zero)
    }
}

impl Dequantizer {
    /// The dequantiser of step index `step`; offsets towards zero in 1/16 step, at most 15.
    pub fn new(mean: i32, step: i32, towards_zero: [u8; 3]) -> Dequantizer {
        let step = step.clamp(0, STEP_MAX) as u32;
        Dequantizer {
            mean,
            mantissa: u32::from(POWERS[(step % 32) as usize]),
            shift: OFFSET_BITS + 12 - step / 32,
            towards_zero: towards_zero.map(|offset| offset.min(15)),
        }
    }
}

/// Quantisers of a row of channels, in runs of 32, field by field, so that vectors of them can be loaded.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Quantizers {
    pub(crate) runs: Vec<QuantizerRun>,
    len: usize,
}

/// Quantisers of a run of channels; zeros beyond the last.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct QuantizerRun {
    pub mean: [i32; MAX_LANES],
    pub multiplier: [u32; MAX_LANES],
    pub shift: [u32; MAX_LANES],
    pub offset: [u32; MAX_LANES],
}

impl Quantizers {
    /// Empties the row.
    pub fn clear(&mut self) {
        self.runs.clear();
        self.len = 0;
    }

    /// Adds a channel.
    pub fn push(&mut self, quantizer: Quantizer) {
        let place = self.len % MAX_LANES;
        if place == 0 {
            self.runs.push(QuantizerRun::default());
        }
        if let Some(run) = self.runs.last_mut() {
            run.mean[place] = quantizer.mean;
            run.multiplier[place] = quantizer.multiplier;
            run.shift[place] = quantizer.shift;
            run.offset[place] = quantizer.offset;
        }
        self.len += 1;
    }

    /// The quantiser of a channel.
    #[inline]
    pub fn get(&self, channel: usize) -> Quantizer {
        let (run, place) = (&self.runs[channel / MAX_LANES], channel % MAX_LANES);
        Quantizer {
            mean: run.mean[place],
            multiplier: run.multiplier[place],
            shift: run.shift[place],
            offset: run.offset[place],
        }
    }
}

/// Dequantisers of a row of channels, in runs of 32, field by field.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Dequantizers {
    pub(crate) runs: Vec<DequantizerRun>,
    len: usize,
}

/// Dequantisers of a run of channels; zeros beyond the last.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct DequantizerRun {
    pub mean: [i32; MAX_LANES],
    pub mantissa: [u32; MAX_LANES],
    pub shift: [u32; MAX_LANES],
    /// In 1/16 step, for magnitude 1 in the low byte, then 2, then more.
    pub towards_zero: [u32; MAX_LANES],
}

impl Dequantizers {
    /// Empties the row.
    pub fn clear(&mut self) {
        self.runs.clear();
        self.len = 0;
    }

    /// Adds a channel.
    pub fn push(&mut self, dequantizer: Dequantizer) {
        let place = self.len % MAX_LANES;
        if place == 0 {
            self.runs.push(DequantizerRun::default());
        }
        let [one, two, more] = dequantizer.towards_zero;
        if let Some(run) = self.runs.last_mut() {
            run.mean[place] = dequantizer.mean;
            run.mantissa[place] = dequantizer.mantissa;
            run.shift[place] = dequantizer.shift;
            run.towards_zero[place] = u32::from_le_bytes([one, two, more, 0]);
        }
        self.len += 1;
    }

    /// The dequantiser of a channel.
    #[inline]
    pub fn get(&self, channel: usize) -> Dequantizer {
        let (run, place) = (&self.runs[channel / MAX_LANES], channel % MAX_LANES);
        let [one, two, more, _] = run.towards_zero[place].to_le_bytes();
        Dequantizer {
            mean: run.mean[place],
            mantissa: run.mantissa[place],
            shift: run.shift[place],
            towards_zero: [one, two, more],
        }
    }
}

/// One position: the coefficients of all coder channels to the symbols of the active ones.
pub fn quantize(coefficients: &[i32], active: &[u32], quantizers: &Quantizers, symbols: &mut [i32]) {
    for (i, (symbol, &channel)) in symbols.iter_mut().zip(active).enumerate() {
        *symbol = quantize_one(coefficients[channel as usize], &quantizers.get(i));
    }
}

/// One position: the symbols of the active channels to their coefficients; others are left alone.
pub fn dequantize(symbols: &[i32], active: &[u32], dequantizers: &Dequantizers, coefficients: &mut [i32]) {
    for (i, (&symbol, &channel)) in symbols.iter().zip(active).enumerate() {
        coefficients[channel as usize] = dequantize_one(symbol, &dequantizers.get(i));
    }
}

/// The symbol of a coefficient.
#[inline]
pub fn quantize_one(coefficient: i32, quantizer: &Quantizer) -> i32 {
    let centred = coefficient.saturating_sub(quantizer.mean).clamp(-COEFFICIENT_MAX, COEFFICIENT_MAX);
    let scaled = centred.unsigned_abs() * quantizer.multiplier;
    let magnitude = ((scaled + quantizer.offset) >> quantizer.shift).min(SYMBOL_MAX as u32) as i32;
    if centred < 0 { -magnitude } else { magnitude }
}

/// The magnitude of a coefficient less its mean in 1/256 step, for rate decisions.
#[inline]
pub(crate) fn in_steps(coefficient: i32, quantizer: &Quantizer) -> u32 {
    let centred = coefficient.saturating_sub(quantizer.mean).clamp(-COEFFICIENT_MAX, COEFFICIENT_MAX);
    (centred.unsigned_abs() * quantizer.multiplier) >> (quantizer.shift - 8)
}

/// The coefficient that a symbol stands for.
#[inline]
pub fn dequantize_one(symbol: i32, dequantizer: &Dequantizer) -> i32 {
    if symbol == 0 {
        return dequantizer.mean;
    }
    let magnitude = symbol.unsigned_abs().min(SYMBOL_MAX as u32);
    let towards_zero = u32::from(dequantizer.towards_zero[magnitude.min(3) as usize - 1]);
    let scaled = ((magnitude << OFFSET_BITS) - towards_zero) * dequantizer.mantissa;
    let half = (1u32 << dequantizer.shift) >> 1;
    let size = ((u64::from(scaled) + u64::from(half)) >> dequantizer.shift).min(COEFFICIENT_MAX as u64) as i32;
    if symbol < 0 { dequantizer.mean - size } else { dequantizer.mean + size }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn powers_are_rounded_exponentials() {
        for (i, &power) in POWERS.iter().enumerate() {
            assert_eq!(f64::from(power), (2048.0 * 2f64.powf(i as f64 / 32.0)).round());
        }
    }

    #[test]
    fn error_is_at_most_about_half_a_step() {
        for step in 0..=STEP_MAX {
            let size = 2f64.powf(f64::from(step) / 32.0 - 1.0);
            let quantizer = Quantizer::new(100, step, 128);
            let dequantizer = Dequantizer::new(100, step, [0; 3]);
            for i in 0..400 {
                let coefficient = (i * 7919 % 200_001) - 100_000;
                let symbol = quantize_one(coefficient, &quantizer);
                if symbol.abs() == SYMBOL_MAX {
                    continue;
                }
                let error = f64::from(dequantize_one(symbol, &dequantizer) - coefficient).abs();
                assert!(
                    error <= 0.5 * size + 1.0 + 1e-3 * f64::from(coefficient.abs()),
                    "{step} {coefficient} {error}"
                );
            }
        }
    }

    #[test]
    fn extremes_neither_overflow_nor_change_sign() {
        for step in [0, 31, 32, 300, STEP_MAX] {
            for mean in [-COEFFICIENT_MAX, 0, COEFFICIENT_MAX] {
                let quantizer = Quantizer::new(mean, step, 128);
                let dequantizer = Dequantizer::new(mean, step, [15; 3]);
                for coefficient in [i32::MIN, -1, 0, 1, i32::MAX] {
                    let symbol = quantize_one(coefficient, &quantizer);
                    assert!(symbol.abs() <= SYMBOL_MAX);
                    dequantize_one(symbol, &dequantizer);
                }
                assert!(
                    dequantize_one(i32::MAX, &dequantizer) >= mean && dequantize_one(i32::MIN, &dequantizer) <= mean
                );
            }
        }
    }
}
