//! Split computing: what was measured of a network's cuts, and what follows from it.

mod exits;
mod measurements;

pub use measurements::{Coding, Cut, Exit, Measurements};
