//! The definition of every kernel, in plain scalar Rust.
//!
//! Coding a feature visits them in this order; decoding in the reverse order.
//!
//! | kernel | effect |
//! |---|---|
//! | [`feature_to_int`], [`int_to_feature`] | f32 to i16 by one power-of-two multiply, and back |
//! | [`block_dct`], [`block_idct`] | separable DCT of one block, all channels at once |
//! | [`channel_matrix`] | one row of channels through an integer matrix |
//! | `convolve`, `shuffle`, `unshuffle`, `normalise` | layers of analysis and synthesis networks |
//! | [`quantize`], [`dequantize`] | coefficient to symbol and back |
//! | [`context`](Neighbourhood::context), [`run_context`](Neighbourhood::run_context) | context of each channel or run of a position, from symbols already coded |
//! | [`rans_encode`], [`rans_decode`] | symbols to bytes and back |
//! | `refine_encode`, `Refiner` | symbols to bytes and back, given coarser ones |
//! | [`bytes_encode`], [`bytes_decode`] | the same coder for bytes under one table |
//! | [`pack`], [`unpack`] | fixed-length fields to bytes and back |

mod bytes;
mod check;
mod context;
mod network;
mod pack;
mod quantize;
mod rans;
mod refine;
mod strip;
mod transform;

pub use bytes::{ByteTable, SYMBOLS, bytes_decode, bytes_encode, histogram};
pub(crate) use bytes::{decode_rest, has_unknown, put as put_byte, unknown_symbol};
pub use check::CheckSums;
pub use context::{
    CONTEXTS, ContextModel, ContextRule, MAGNITUDE_CAP, Neighbourhood, RUN_BITS, RunSums, RunTables, THRESHOLDS,
    run_class,
};
pub(crate) use network::{Convolution, Normalisation, Output, Plane, convolve, normalise, shuffle, unshuffle};
pub use pack::{pack, unpack};
pub use quantize::{
    COEFFICIENT_MAX, Dequantizer, Dequantizers, Quantizer, Quantizers, STEP_MAX, SYMBOL_MAX, dequantize,
    dequantize_one, quantize, quantize_one,
};
pub(crate) use quantize::{DequantizerRun, QuantizerRun, in_steps};
pub(crate) use rans::{LOWEST, Step, Words, decode_group, decode_raw, push_group};
pub use rans::{MAX_LANES, RansScratch, Source, rans_decode, rans_encode};
pub(crate) use refine::{Digits, NEW, RATIO, Refinement, Refiner, coarsen, refine_encode};
pub use strip::{Strip, Strips};
pub(crate) use transform::power_of_two;
pub use transform::{block_dct, block_idct, channel_matrix, feature_to_int, int_to_feature, round_shift, to_int};
#[cfg(feature = "gpu")]
pub(crate) use {
    check::CHECK_MULTIPLIER,
    context::{KEEP, PRIOR, RATIOS},
    quantize::OFFSET_BITS,
};
