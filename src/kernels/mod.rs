//! The kernels: one name each, the same in every backend.
//!
//! [`portable`] is plain scalar Rust and defines what every other backend must produce, bit for bit.
//! `gpu` (with the feature of that name) is the same as shaders.

#[cfg(feature = "gpu")]
pub mod gpu;
pub mod portable;
