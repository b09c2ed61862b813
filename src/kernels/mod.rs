//! The kernels: one name each, the same in every backend.
//!
//! [`portable`] is plain scalar Rust and defines what every other backend must produce, bit for bit.

pub mod portable;
