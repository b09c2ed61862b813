//! The device of `narrows offload`: what it does with each image, and what came of it.

mod adaptive;
mod camera;
mod pace;
mod policy;
mod record;

pub use adaptive::{Adaptive, Known};
pub use camera::{Device, Setup};
pub use pace::{Pace, Part};
pub use policy::Policy;
pub use record::{Record, SKIPPED, Summary, csv, table};
