//! The kernels on SIMD processors, with the bytes of [`super::portable`].
//!
//! Each is one algorithm over the vectors of `fearless_simd`, or the portable loop itself, compiled
//! once for every instruction set; `dispatch!` chooses at run time. What these vectors cannot say
//! (gathers, products of pairs) is in `isa.rs`, which has the only unsafe code.

mod bytes;
mod context;
mod isa;
mod level;
mod quantize;
mod rans;
mod transform;

pub use bytes::ByteJob;
pub(crate) use bytes::{bytes_decode, bytes_encode, histogram};
pub(crate) use context::Neighbourhood;
pub(crate) use isa::Isa;
pub use level::Level;
pub(crate) use quantize::{Decider, dequantize, quantize};
pub(crate) use rans::{Coded, Job, Source, rans_decode, rans_encode, rans_index};
pub(crate) use transform::{PADDING, channel_matrix, feature_to_int, int_to_feature, pack_pairs, separable};

/// Whether table look-ups by gather instructions are the faster ones on this machine.
pub(crate) fn gathers_pay(_level: Level) -> bool {
    true
}

/// Runs an expression with the instructions of a level; `$simd` is its token.
///
/// What it calls must be `#[inline(always)]`.
macro_rules! dispatch {
    ($level:expr, $simd:ident => $body:expr) => {
        match $level.token() {
            #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
            Some(fearless_simd::Level::Avx512($simd)) => fearless_simd::Simd::vectorize(
                $simd,
                #[inline(always)]
                || $body,
            ),
            #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
            Some(fearless_simd::Level::Avx2($simd)) => fearless_simd::Simd::vectorize(
                $simd,
                #[inline(always)]
                || $body,
            ),
            #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
            Some(fearless_simd::Level::Sse4_2($simd)) => fearless_simd::Simd::vectorize(
                $simd,
                #[inline(always)]
                || $body,
            ),
            #[cfg(target_arch = "aarch64")]
            Some(fearless_simd::Level::Neon($simd)) => fearless_simd::Simd::vectorize(
                $simd,
                #[inline(always)]
                || $body,
            ),
            #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
            Some(fearless_simd::Level::WasmSimd128($simd)) => fearless_simd::Simd::vectorize(
                $simd,
                #[inline(always)]
                || $body,
            ),
            _ => unreachable!("a level is checked when a backend is made"),
        }
    };
}
pub(crate) use dispatch;
