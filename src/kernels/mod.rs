//! The kernels: one name each, the same in every backend.
//!
//! [`portable`] is plain scalar Rust and defines what every other backend must produce, bit for bit.
//! [`simd`] is the same on vectors, `gpu` (with the feature of that name) the same as shaders.

#[cfg(feature = "gpu")]
pub mod gpu;
pub mod portable;
pub mod simd;

use crate::backend::Backend;
use crate::error::{Error, Result};
use crate::profile::ChannelPair;
use portable::{Dequantizers, Quantizers};
use simd::{Isa, Level, PADDING};

/// Which kernels run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kernels {
    Portable,
    Simd {
        level: Level,
        /// Whether tables are read by gather instructions.
        gather: bool,
    },
}

impl Kernels {
    /// The kernels of a backend.
    pub fn of(backend: &Backend) -> Result<Kernels> {
        match *backend {
            #[cfg(feature = "gpu")]
            Backend::Gpu(_) => Ok(Kernels::best()),
            Backend::Portable => Ok(Kernels::Portable),
            Backend::Simd(level) if level.is_available() => {
                Ok(Kernels::Simd { level, gather: simd::gathers_pay(level) })
            }
            Backend::Simd(level) => Err(Error::Backend(format!("this machine has no {level}").into())),
        }
    }

    /// The best kernels of this machine, or what `NARROWS_BACKEND` lowers them to.
    pub fn best() -> Kernels {
        Kernels::of(&Backend::detect()).unwrap_or(Kernels::Portable)
    }
}

/// Integer matrices of a block DCT: rows, columns, each with its shift.
pub(crate) type DctPair<'a> = ((&'a [i16], u32), (&'a [i16], u32));

/// The kernels that work on one block, so that a loop over blocks can be compiled for each instruction
/// set as a whole. Blocks, scratch and outputs of matrices have [`PADDING`] values beyond their end.
pub(crate) trait BlockKernels: Copy {
    fn block_dct(self, block: &mut [i16], channels: usize, dct: DctPair<'_>, scratch: &mut [i16]);
    fn block_idct(self, block: &mut [i16], channels: usize, dct: DctPair<'_>, scratch: &mut [i16]);
    /// The forward matrix of a pair, with `shift` in place of its own.
    fn forward_matrix(self, input: &[i16], channels: usize, pair: &ChannelPair, shift: u32, output: &mut [i32]);
    fn inverse_matrix(self, input: &[i16], channels: usize, pair: &ChannelPair, output: &mut [i32]);
    fn quantize(self, coefficients: &[i32], active: &[u32], quantizers: &Quantizers, symbols: &mut [i32]);
    fn dequantize(self, symbols: &[i32], active: &[u32], dequantizers: &Dequantizers, coefficients: &mut [i32]);
}

/// [`portable`]'s.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PortableBlocks;

impl BlockKernels for PortableBlocks {
    fn block_dct(self, block: &mut [i16], channels: usize, (rows, columns): DctPair<'_>, scratch: &mut [i16]) {
        let block = &mut block[..scratch.len() - PADDING];
        portable::block_dct(block, channels, rows, columns, scratch);
    }

    fn block_idct(self, block: &mut [i16], channels: usize, (rows, columns): DctPair<'_>, scratch: &mut [i16]) {
        let block = &mut block[..scratch.len() - PADDING];
        portable::block_idct(block, channels, rows, columns, scratch);
    }

    fn forward_matrix(self, input: &[i16], channels: usize, pair: &ChannelPair, shift: u32, output: &mut [i32]) {
        portable::channel_matrix(&input[..channels], &pair.forward, shift, &mut output[..channels]);
    }

    fn inverse_matrix(self, input: &[i16], channels: usize, pair: &ChannelPair, output: &mut [i32]) {
        portable::channel_matrix(&input[..channels], &pair.inverse, pair.inverse_shift, &mut output[..channels]);
    }

    fn quantize(self, coefficients: &[i32], active: &[u32], quantizers: &Quantizers, symbols: &mut [i32]) {
        portable::quantize(coefficients, active, quantizers, symbols);
    }

    fn dequantize(self, symbols: &[i32], active: &[u32], dequantizers: &Dequantizers, coefficients: &mut [i32]) {
        portable::dequantize(symbols, active, dequantizers, coefficients);
    }
}

/// [`simd`]'s, with the token of an instruction set.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SimdBlocks<S>(pub S);

impl<S: Isa> BlockKernels for SimdBlocks<S> {
    #[inline(always)]
    fn block_dct(self, block: &mut [i16], channels: usize, (rows, columns): DctPair<'_>, scratch: &mut [i16]) {
        simd::separable(self.0, block, channels, rows, columns, scratch, false);
    }

    #[inline(always)]
    fn block_idct(self, block: &mut [i16], channels: usize, (rows, columns): DctPair<'_>, scratch: &mut [i16]) {
        simd::separable(self.0, block, channels, rows, columns, scratch, true);
    }

    #[inline(always)]
    fn forward_matrix(self, input: &[i16], channels: usize, pair: &ChannelPair, shift: u32, output: &mut [i32]) {
        simd::channel_matrix(self.0, input, channels, &pair.forward_pairs, shift, output);
    }

    #[inline(always)]
    fn inverse_matrix(self, input: &[i16], channels: usize, pair: &ChannelPair, output: &mut [i32]) {
        simd::channel_matrix(self.0, input, channels, &pair.inverse_pairs, pair.inverse_shift, output);
    }

    #[inline(always)]
    fn quantize(self, coefficients: &[i32], active: &[u32], quantizers: &Quantizers, symbols: &mut [i32]) {
        simd::quantize(coefficients, active, quantizers, symbols);
    }

    #[inline(always)]
    fn dequantize(self, symbols: &[i32], active: &[u32], dequantizers: &Dequantizers, coefficients: &mut [i32]) {
        simd::dequantize(symbols, active, dequantizers, coefficients);
    }
}

/// Runs an expression with the block kernels of `$kernels`, compiled for their instruction set.
macro_rules! with_blocks {
    ($kernels:expr, $blocks:ident => $body:expr) => {
        match $kernels {
            $crate::kernels::Kernels::Portable => {
                let $blocks = $crate::kernels::PortableBlocks;
                $body
            }
            $crate::kernels::Kernels::Simd { level, .. } => $crate::kernels::simd::dispatch!(level, simd => {
                let $blocks = $crate::kernels::SimdBlocks(simd);
                $body
            }),
        }
    };
}
pub(crate) use with_blocks;
