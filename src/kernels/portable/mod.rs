//! The definition of every kernel, in plain scalar Rust.
//!
//! Coding a feature visits them in this order; decoding in the reverse order.
//!
//! | kernel | effect |
//! |---|---|
//! | [`feature_to_int`] | f32 to i16 by one power-of-two multiply |
//! | [`block_dct`], [`block_idct`] | separable DCT of one block, all channels at once |
//! | [`channel_matrix`] | one row of channels through an integer matrix |
//! | [`quantize`], [`dequantize`] | coefficient to symbol and back |
//! | [`context`], [`run_context`] | context of each channel or run of a position, from symbols already coded |
//! | [`rans_encode`], [`rans_decode`] | symbols to bytes and back |
//! | [`pack`], [`unpack`] | fixed-length fields to bytes and back |

mod context;
mod pack;
mod quantize;
mod rans;
mod transform;

pub use context::{CONTEXTS, ContextRule, Neighbours, RUN_BITS, RunSums, context, run_context};
pub use pack::{pack, unpack};
pub(crate) use quantize::in_steps;
pub use quantize::{COEFFICIENT_MAX, Dequantizer, Quantizer, STEP_MAX, dequantize, quantize};
pub use rans::{MAX_LANES, RansScratch, rans_decode, rans_encode};
pub use transform::{block_dct, block_idct, channel_matrix, feature_to_int, round_shift};
#[cfg(feature = "gpu")]
pub(crate) use {
    context::{CAP, KEEP, PRIOR, RATIOS, THRESHOLDS},
    quantize::{OFFSET_BITS, SYMBOL_MAX},
    rans::LOWEST,
};
