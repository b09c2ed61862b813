//! The GPU backend: the kernels as shaders, through [wgpu].
//!
//! Streams and decoded features are, bit for bit, what the portable kernels make; features that a synthesis network makes
//! are, within rounding. The modes `Profile` and `Plain` are
//! coded on the GPU; what crosses the bus is the feature (unless it lies in a [`FeatureBuffer`]), the streams, and a few
//! counters. The modes `Packed` and `Lossless` stay on the CPU: one is a copy, the other zstd.
//!
//! Which should I use? [`Encoder`] and [`Decoder`] here, if features already lie on the GPU, come in batches, or are
//! large. A chunk is coded by one workgroup, so a feature needs many chunks
//! ([`Encoder::chunks`]) or many neighbours in a batch to fill a GPU: each chunk costs its contexts and four bytes a lane.
//! Features smaller than [`Device::crossover`] are faster on the CPU. [`crate::Encoder::gpu`] and [`crate::Decoder::gpu`]
//! make that choice for features in the memory of the CPU.
//!
//! A device made by [`Device::request`] has the limits that every adapter has: 128 MiB in a buffer, so 32 Mi elements in a
//! feature or in a group of equal features that are coded side by side. [`Device::new`] takes a device with larger ones.
//!
//! The order of the passes, each a file of `shaders/`:
//!
//! ```text
//! encode:  feature_to_int, analysis, block_dct, channel_matrix, quantize, context, lanes_for, rans_encode, compact
//! decode:  rans_decode (context recomputed), dequantize, channel_matrix, block_idct, int_to_feature, synthesis
//! ```
//!
//! The networks of a profile are `convolve`, `convolve_float`, `normalise` and `shuffle`, a dispatch for each layer, for all
//! features of a group. They work on planes with channels last; `into_blocks` takes a latent to the transform,
//! `made_to_feature` what a synthesis made to the feature. An analysis network in floating point, whose symbols depend on
//! the machine, is not run on the GPU: [`Encoder`] refuses its profile, [`crate::Encoder::gpu`] goes on with the CPU.

mod attached;
mod bytes;
mod coder;
mod crossover;
mod decode;
mod device;
mod encode;
mod feature;
mod network;
#[cfg(test)]
mod network_tests;
mod params;
mod plain;
mod prepared;
mod probe;
mod recorder;
#[doc(hidden)]
pub mod shaders;
mod tables;
#[cfg(test)]
mod tests;
mod upload;

pub(crate) use attached::{AttachedDecoder, AttachedEncoder};
pub use bytes::{ByteBuffers, ByteCoder};
pub use decode::Decoder;
pub use device::{Device, DeviceInfo};
pub use encode::Encoder;
pub use feature::{FeatureBuffer, Source};
/// The crate that devices and buffers come from, in the version that is used here.
pub use wgpu;
