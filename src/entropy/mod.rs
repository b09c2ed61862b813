//! Entropy coding: tokens, the bank of tables, and (in [`crate::kernels`]) the interleaved rANS coder.

pub mod bank;
mod builtin;
pub mod token;
