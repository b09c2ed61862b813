//! The kernels on SIMD processors, with the bytes of [`super::portable`].
//!
//! Each is one algorithm over the vectors of `fearless_simd`, or the portable loop itself, compiled
//! once for every instruction set; `dispatch!` chooses at run time. What these vectors cannot say
//! (gathers, products of pairs) is in `isa.rs`, which has the only unsafe code.

#![allow(clippy::needless_range_loop, reason = "loops over arrays of known length by index are what vectorises")]

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use crate::error::Result;
use crate::kernels::portable::{self, ByteTable, MAX_LANES};

mod bytes;
mod context;
mod isa;
mod level;
mod network;
mod quantize;
mod rans;
mod transform;

pub use bytes::ByteJob;
pub(crate) use bytes::{bytes_decode, bytes_encode, histogram};
pub(crate) use isa::Isa;
pub use level::Level;
pub(crate) use network::{POSITIONS, convolve, pack_convolution};
pub(crate) use quantize::{Decider, dequantize, quantize};
pub(crate) use rans::{Coded, Job, rans_decode, rans_encode, rans_index, tokens_of};
pub(crate) use transform::{PADDING, channel_matrix, feature_to_int, int_to_feature, pack_pairs, separable};

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

/// Whether table look-ups by gather instructions are the faster ones on this machine: some processors
/// have them slow, or slowed down by a patch. Measured once for each level, in about 0.1 ms.
pub(crate) fn gathers_pay(level: Level) -> bool {
    static PAY: [OnceLock<bool>; Level::ALL.len()] = [const { OnceLock::new() }; Level::ALL.len()];
    *PAY[level as usize].get_or_init(|| {
        if !dispatch!(level, simd => has_gathers(simd)) {
            return false;
        }
        let symbols: Vec<u8> = (0..1u32 << 13).map(|i| (i.wrapping_mul(2_654_435_761) >> 30) as u8).collect();
        let table = ByteTable::from_histogram(&portable::histogram(&symbols));
        let (mut chunk, mut decoded) = (Vec::new(), vec![0; symbols.len()]);
        if portable::bytes_encode(&symbols, &table, MAX_LANES, &mut Vec::new(), &mut chunk).is_err() {
            return false;
        }
        let mut time = |gather: bool| {
            let once = |_| {
                let start = Instant::now();
                let jobs = &mut [ByteJob { bytes: &chunk, symbols: &mut decoded }];
                let done: Result<()> = dispatch!(level, simd => bytes_decode(simd, gather, jobs, &table));
                if done.is_ok() { start.elapsed() } else { Duration::MAX }
            };
            (0..5).map(once).min()
        };
        time(true) <= time(false)
    })
}

#[inline(always)]
fn has_gathers<S: Isa>(_: S) -> bool {
    S::GATHERS
}
