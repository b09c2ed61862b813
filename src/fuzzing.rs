//! Doors for the fuzz targets (`fuzz/`) to stages that have no public function of their own.

use crate::chunk::Parts;
use crate::container::{Header, Mode, Reader};
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
    let parts = Parts::read(&Header { chunks, ..Header::new(Mode::Plain) }, &mut reader)?;
    // The chunks themselves: whatever their lengths claim, they are in order and in the bytes.
    let mut end = reader.offset();
    for part in parts.iter(chunks).map_while(Result::ok) {
        assert!(part.offset == end && part.offset + part.bytes.len() <= bytes.len());
        end += part.bytes.len();
    }
    Ok(reader.offset())
}
