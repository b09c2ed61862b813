//! Reading fields from bytes that are not trusted.

use crate::error::{Error, Result};

/// Appends a little-endian base-128 number.
pub(crate) fn put_varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// A cursor over bytes; every read is checked and knows its offset.
#[derive(Debug, Clone)]
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Reader { bytes, at: 0 }
    }

    /// Over a part of the bytes that is there; offsets stay those of all bytes.
    pub fn within(bytes: &'a [u8], part: std::ops::Range<usize>) -> Self {
        Reader { bytes: &bytes[..part.end], at: part.start }
    }

    /// Offset of the next byte.
    pub fn offset(&self) -> usize {
        self.at
    }

    /// The bytes not read yet.
    pub fn rest(&self) -> &'a [u8] {
        &self.bytes[self.at..]
    }

    /// The same with the bytes ending at an offset that is not before the next one.
    pub fn ending_at(self, end: usize) -> Self {
        Reader { bytes: &self.bytes[..end], at: self.at }
    }

    /// The `count` bytes from an offset on, if they are there.
    pub fn at(&self, offset: usize, count: usize) -> Option<&'a [u8]> {
        self.bytes.get(offset..)?.get(..count)
    }

    pub fn take(&mut self, count: usize, what: &'static str) -> Result<&'a [u8]> {
        let taken = self.rest().get(..count).ok_or(Error::truncated(what, self.bytes.len()))?;
        self.at += count;
        Ok(taken)
    }

    pub fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N]> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N, what)?);
        Ok(array)
    }

    pub fn u8(&mut self, what: &'static str) -> Result<u8> {
        Ok(self.array::<1>(what)?[0])
    }

    /// A base-128 number of at most 32 bits, in its shortest form.
    pub fn varint(&mut self, what: &'static str) -> Result<u32> {
        let start = self.at;
        let mut value = 0u64;
        for i in 0..5 {
            let byte = self.u8(what)?;
            value |= u64::from(byte & 0x7f) << (7 * i);
            if byte < 0x80 {
                if (byte == 0 && i > 0) || value > u64::from(u32::MAX) {
                    break;
                }
                return Ok(value as u32);
            }
        }
        Err(Error::corrupt(what, start))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_back_and_long_forms_are_refused() {
        for value in [0, 1, 127, 128, 300, 1 << 20, u32::MAX] {
            let mut bytes = Vec::new();
            put_varint(u64::from(value), &mut bytes);
            assert_eq!(Reader::new(&bytes).varint("a number"), Ok(value));
        }
        for bad in [&[0x80, 0][..], &[0xff, 0xff, 0xff, 0xff, 0x1f], &[0xff; 6]] {
            assert!(matches!(Reader::new(bad).varint("a number"), Err(Error::Corrupt { .. })));
        }
        assert!(matches!(Reader::new(&[0x80]).varint("a number"), Err(Error::Truncated { .. })));
    }
}
