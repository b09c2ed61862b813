//! Codec for neural feature maps.
//!
//! A network is cut in two: the head runs on the device, the tail on an edge server. `narrows` encodes
//! the feature at the cut in as few bytes as it can, such that the tail still answers correctly.
//!
//! ```
//! use narrows::{Encoder, Quality, decode};
//! use ndarray::Array4;
//!
//! let feature = Array4::from_shape_fn((1, 8, 14, 14), |(_, c, y, x)| ((c + y * x) as f32).sin());
//! let stream = Encoder::plain().encode(&feature, Quality::Sqnr(20.0))?;
//! assert!(stream.len() < feature.len());
//! let decoded = decode(&stream, None)?;
//! assert_eq!(decoded.shape(), feature.shape());
//! # Ok::<(), narrows::Error>(())
//! ```
//!
//! With a [`Profile`] fitted to samples of the feature ([`fit`]) streams are many times smaller.
//!
//! | module | feature | for |
//! |---|---|---|
//! | the root, [`fit`], [`raw`] | none | encoders, decoders, profiles and their fit; the entropy coder alone |
//! | [`datagram`] | none | a feature in parts that decode independently, for links that lose packets |
//! | `gpu` | `gpu` | encoding and decoding on a GPU, with the same bytes |
//! | `exit` | `exit` | early exits: calibration, a policy fitted to a target accuracy |
//! | `split` | `split` | measurements, a planner for cut and coding, estimates of the link |
//! | `link` | `link` | a server of tails and its client over gRPC (Open Inference Protocol) |
//! | `simulate` | `simulate` | a fleet of devices and servers on changing links |
//! | none | `rayon` | chunks and batch items on a thread pool |
//! | none | `cli` (default) | the command line; a program that links the crate sets `default-features = false` |
// Processors without any of the vectors have the portable kernels alone, and no use for much of what serves the others.
#![cfg_attr(
    not(any(
        target_arch = "x86",
        target_arch = "x86_64",
        target_arch = "aarch64",
        all(target_arch = "wasm32", target_feature = "simd128")
    )),
    allow(unused)
)]

mod backend;
mod bottleneck;
mod chunk;
mod codec;
#[cfg(feature = "exit")]
mod conditions;
mod container;
mod entropy;
mod error;
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing;
mod geometry;
mod kernels;
mod layers;
mod limits;
mod lossless;
mod network;
mod packed;
mod plain;
mod plan;
#[cfg(feature = "exit")]
mod power;
mod profile;
mod quality;
mod rate;
mod stream;
mod tensor;
mod threads;
mod transform;

pub use backend::{Backend, Level};
pub use codec::{Decoder, Encoder, decode, encode};
pub use container::{Info, Layout, Mode};
pub use error::{Error, Result};
pub use limits::Limits;
pub use network::Cost;
pub use packed::{Clip, Packed};
pub use profile::{Profile, fit};
pub use quality::Quality;
pub use tensor::{Axes, Dtype, Element, Feature, FeatureView, MAX_RANK};

#[cfg(feature = "exit")]
pub use conditions::{Conditions, Deviation};
#[cfg(feature = "gpu")]
pub use kernels::gpu;

/// The examples of README.md, compiled and run.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

pub mod datagram;
#[cfg(feature = "exit")]
pub mod exit;
#[cfg(feature = "link")]
pub mod link;
pub mod raw;
#[cfg(feature = "simulate")]
pub mod simulate;
#[cfg(feature = "split")]
pub mod split;
