//! Quantiser and dequantiser: the portable arithmetic in u32, on vectors.

use crate::kernels::portable::{COEFFICIENT_MAX, Dequantizers, Quantizers, SYMBOL_MAX};

/// Channels at a time.
const RUN: usize = 32;
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

/// As [`portable::dequantize`](crate::kernels::portable::dequantize). `scratch` is kept between calls.
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
