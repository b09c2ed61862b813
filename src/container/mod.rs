//! The container: bytes to validated structs and back. FORMAT.md describes every field.

mod head;
mod header;
mod layers;
mod varint;

pub(crate) use head::{CHECKSUM_BYTES, Head};
pub(crate) use header::chunk_range;
pub use header::{Header, Info, Layout, MAX_LAYERS, Mode};
pub(crate) use layers::{Layer, Layers};
pub(crate) use varint::{Reader, put_varint};
