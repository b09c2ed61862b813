//! Doors for the fuzz targets (`fuzz/`) to stages that have no public function of their own.

use crate::chunk;
use crate::container::{Header, Reader};
use crate::error::Result;
use crate::limits::Limits;

/// Reads a header: how many bytes it took, and the bytes that say the same.
pub fn header(bytes: &[u8], limits: &Limits) -> Result<(usize, Vec<u8>)> {
    let mut reader = Reader::new(bytes);
    let header = Header::read(&mut reader, limits)?;
    let mut written = Vec::new();
    header.write(&mut written);
    Ok((reader.offset(), written))
}

/// Reads the lengths of `chunks` chunks (at least 1), which are not told here: how many bytes they took.
pub fn chunk_lengths(chunks: usize, bytes: &[u8]) -> Result<usize> {
    let mut reader = Reader::new(bytes);
    chunk::read_lengths(chunks, &mut reader)?;
    Ok(reader.offset())
}
