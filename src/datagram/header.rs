//! The header of a datagram.

use crc32fast::Hasher;

use crate::container::{Layout, Reader};
use crate::datagram::MAX_COPIES;
use crate::error::{Error, Result};
use crate::kernels::portable::MAX_LANES;
use crate::limits::Limits;

const MAGIC: u8 = 0xf8;
const LANES_MASK: u8 = 0b0000_0111;
const HAS_LAYOUT: u8 = 0b0000_1000;
const COPIES_SHIFT: u32 = 4;
const VERSION_SHIFT: u32 = 6;

/// What a datagram says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Interleaved rANS states.
    pub lanes: usize,
    /// Number of the feature.
    pub feature: u16,
    /// The low 16 bits of the profile's hash.
    pub profile: u16,
    /// Quality index, as in streams.
    pub quality: i16,
    /// Number of the part, and of all parts.
    pub part: usize,
    pub parts: usize,
    /// How often copies are three times coarser than what they are copies of; 0 without copies.
    pub copies: u8,
    /// Shape and type, unless they are the profile's own.
    pub layout: Option<Layout>,
}

impl Header {
    pub fn write(&self, out: &mut Vec<u8>) {
        let layout = if self.layout.is_some() { HAS_LAYOUT } else { 0 };
        out.extend_from_slice(&[MAGIC, self.lanes.ilog2() as u8 | layout | self.copies << COPIES_SHIFT]);
        out.extend_from_slice(&self.feature.to_le_bytes());
        out.extend_from_slice(&self.profile.to_le_bytes());
        out.extend_from_slice(&self.quality.to_le_bytes());
        out.extend_from_slice(&[self.part as u8, self.parts as u8]);
        if let Some(layout) = &self.layout {
            layout.write(out);
        }
    }

    /// Reads and checks a header; the reader is left at the states.
    pub fn read(reader: &mut Reader<'_>, limits: &Limits) -> Result<Header> {
        let [magic, flags] = reader.array("the header of a datagram")?;
        if magic != MAGIC {
            return Err(Error::corrupt("not a narrows datagram: the first byte is not f8", 0));
        }
        if flags >> VERSION_SHIFT != 0 {
            return Err(Error::Unsupported { what: "a later version of the datagram format" });
        }
        let lanes = 1 << (flags & LANES_MASK);
        if lanes > MAX_LANES {
            return Err(Error::corrupt("more than 32 lanes", 1));
        }
        Limits::check("lanes", lanes as u64, limits.lanes)?;
        let mut field = || reader.array::<2>("the header of a datagram");
        let (feature, profile, quality) = (field()?, field()?, field()?);
        let offset = reader.offset();
        let [part, parts] = reader.array("the header of a datagram")?.map(usize::from);
        if part >= parts {
            return Err(Error::corrupt("the number of a part", offset));
        }
        let copies = flags >> COPIES_SHIFT & MAX_COPIES;
        if copies > 0 && parts == 1 {
            return Err(Error::corrupt("copies of the only part", 1));
        }
        let layout = if flags & HAS_LAYOUT != 0 { Some(Layout::read(reader)?) } else { None };
        if let Some(layout) = &layout {
            layout.check(limits)?;
        }
        Ok(Header {
            lanes,
            feature: u16::from_le_bytes(feature),
            profile: u16::from_le_bytes(profile),
            quality: i16::from_le_bytes(quality),
            part,
            parts,
            copies,
            layout,
        })
    }

    /// Whether another header is of the same feature, sent in the same way.
    pub fn is_with(&self, other: &Header) -> bool {
        Header { lanes: other.lanes, part: other.part, ..*self } == *other
    }

    /// What the check sums start from: a CRC-32 of the header, its lanes taken as 1, and the profile's hash.
    pub fn seed(&self, profile: u64) -> u32 {
        let mut bytes = Vec::with_capacity(64);
        Header { lanes: 1, ..*self }.write(&mut bytes);
        let mut hasher = Hasher::new();
        hasher.update(&bytes);
        hasher.update(&profile.to_le_bytes());
        hasher.finalize()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::{Axes, Dtype};

    #[test]
    fn every_field_comes_back_and_every_truncation_is_noticed() {
        let layout = Layout::new(Dtype::F16, Axes::default_for(4), &[1, 2, 3, 400]).unwrap();
        for (layout, copies) in [(None, 0), (Some(layout), 0), (None, 1), (Some(layout), 3)] {
            let header = Header {
                lanes: 8,
                feature: 65_535,
                profile: 0x1234,
                quality: -77,
                part: 3,
                parts: 255,
                copies,
                layout,
            };
            let mut bytes = Vec::new();
            header.write(&mut bytes);
            let read = |bytes: &[u8]| Header::read(&mut Reader::new(bytes), &Limits::default());
            assert_eq!(read(&bytes), Ok(header));
            for end in 0..bytes.len() {
                assert!(matches!(read(&bytes[..end]), Err(Error::Truncated { .. })), "{end}");
            }
            for (at, value) in [(0, 0xf7), (1, 6), (1, 7), (8, 255)] {
                let mut bad = bytes.clone();
                bad[at] = value;
                assert!(matches!(read(&bad), Err(Error::Corrupt { .. })), "{at} {value}");
            }
            for flag in [0x40, 0x80] {
                let mut bad = bytes.clone();
                bad[1] |= flag;
                assert!(matches!(read(&bad), Err(Error::Unsupported { .. })), "{flag}");
            }
            let mut alone = bytes.clone();
            alone[8..10].copy_from_slice(&[0, 1]);
            assert_eq!(read(&alone).is_err(), copies > 0);
        }
    }
}
