//! What ties chunks to their stream: the seed of their final states, and their checksums.

use crc32fast::Hasher;

use crate::container::header::{Header, LANES_MASK};
use crate::container::varint::Reader;
use crate::error::{Error, Result};

/// CRC-32 of the bytes of a stream that are not in its chunks; the number of lanes and the lengths of the
/// chunks, which an encoder knows last, are left out.
#[derive(Debug, Clone)]
pub(crate) struct Head {
    hasher: Hasher,
}

/// Bytes of a checksum.
pub(crate) const CHECKSUM_BYTES: usize = 4;

impl Head {
    /// The head of a stream that begins with these bytes (up to the chunk lengths) and has these parameters.
    pub fn new(header: &[u8], params: &[u8]) -> Head {
        let mut hasher = Hasher::new();
        if let [magic, flags, rest @ ..] = header {
            hasher.update(&[*magic, flags & !LANES_MASK]);
            hasher.update(rest);
        }
        hasher.update(params);
        Head { hasher }
    }

    /// The head of a stream that is being written; `scratch` is emptied.
    pub fn of(header: &Header, params: &[u8], scratch: &mut Vec<u8>) -> Head {
        scratch.clear();
        header.write(scratch);
        let head = Head::new(scratch, params);
        scratch.clear();
        head
    }

    /// Ends a stream of mode `Packed` or `Lossless`, whose body begins at `start`, in its checksum, if it shall have one.
    pub fn seal(header: &Header, start: usize, out: &mut Vec<u8>) {
        if header.checksums {
            let checksum = Head::new(&out[..start], &[]).checksum(0, header.lanes, &out[start..]);
            out.extend_from_slice(&checksum);
        }
    }

    /// Checks the checksum of such a stream, and gives the body without it.
    pub fn unseal<'s>(bytes: &'s [u8], header: &Header, reader: Reader<'s>) -> Result<Reader<'s>> {
        if !header.checksums {
            return Ok(reader);
        }
        let start = reader.offset();
        let end = reader.rest().len().checked_sub(CHECKSUM_BYTES).map(|body| start + body);
        let end = end.ok_or(Error::truncated("the checksum", bytes.len()))?;
        if Head::new(&bytes[..start], &[]).checksum(0, header.lanes, &bytes[start..end]) != bytes[end..] {
            return Err(Error::corrupt("the checksum of the stream does not match", start));
        }
        Ok(reader.ending_at(end))
    }

    /// What the sums of a chunk start from, before its number is added.
    pub fn seed(&self) -> u32 {
        self.hasher.clone().finalize()
    }

    /// The checksum of a chunk.
    pub fn checksum(&self, chunk: usize, lanes: usize, bytes: &[u8]) -> [u8; CHECKSUM_BYTES] {
        let mut hasher = self.hasher.clone();
        hasher.update(&(chunk as u32).to_le_bytes());
        hasher.update(&[lanes as u8]);
        hasher.update(bytes);
        hasher.finalize().to_le_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::container::Mode;

    #[test]
    fn the_seed_is_a_crc_of_all_but_the_lanes() {
        // The check value of CRC-32.
        let mut hasher = Hasher::new();
        hasher.update(b"123456789");
        assert_eq!(hasher.finalize(), 0xcbf4_3926);
        let seed = |lanes| Head::of(&Header { lanes, ..Header::new(Mode::Plain) }, b"params", &mut Vec::new()).seed();
        assert_eq!(seed(1), seed(32));
        assert_ne!(seed(1), Head::of(&Header::new(Mode::Plain), b"parans", &mut Vec::new()).seed());
    }
}
