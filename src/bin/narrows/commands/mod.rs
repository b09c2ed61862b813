//! The commands, one a file: each has its `Args` and a `run`.

pub mod completions;
pub mod decode;
pub mod demo;
pub mod encode;
pub mod eval;
pub mod exit;
pub mod fit;
pub mod inspect;
pub mod loss;
pub mod offload;
pub mod plan;
pub mod serve;
pub mod shape;
pub mod simulate;
