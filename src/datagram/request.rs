//! Asking for parts again.

use crate::container::Reader;
use crate::error::{Error, Result};

const MAGIC: u8 = 0xf9;

/// The parts of a feature that a receiver asks for once more: a message of 4 to 35 bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Number of the feature.
    pub feature: u16,
    /// Numbers of the parts.
    pub parts: Vec<u8>,
}

impl Request {
    /// As bytes: f9, the feature's number in two bytes, and a bit for each part, low bits first.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = vec![MAGIC];
        bytes.extend_from_slice(&self.feature.to_le_bytes());
        let last = self.parts.iter().copied().max().unwrap_or(0);
        bytes.resize(4 + usize::from(last) / 8, 0);
        for &part in &self.parts {
            bytes[3 + usize::from(part) / 8] |= 1 << (part % 8);
        }
        bytes
    }

    /// From bytes.
    ///
    /// # Errors
    /// `Truncated` or `Corrupt` for what is no request.
    pub fn from_bytes(bytes: &[u8]) -> Result<Request> {
        let mut reader = Reader::new(bytes);
        let [magic] = reader.array("a request")?;
        if magic != MAGIC {
            return Err(Error::corrupt("not a request for datagrams: the first byte is not f9", 0));
        }
        let feature = u16::from_le_bytes(reader.array("a request")?);
        let bits = reader.rest();
        if bits.len() > 32 {
            return Err(Error::corrupt("a request for more parts than there are", 3));
        }
        let parts =
            (0..=u8::MAX).filter(|&part| bits.get(usize::from(part) / 8).is_some_and(|b| b >> (part % 8) & 1 == 1));
        Ok(Request { feature, parts: parts.collect() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_come_back() {
        for parts in [vec![], vec![0], vec![3, 7, 8, 254], (0..=254).collect()] {
            let request = Request { feature: 513, parts };
            let bytes = request.to_bytes();
            assert!(bytes.len() <= 36);
            assert_eq!(Request::from_bytes(&bytes), Ok(request));
        }
        assert!(Request::from_bytes(&[0xf9, 0]).is_err());
        assert!(Request::from_bytes(&[0xf7, 0, 0, 1]).is_err());
        assert!(Request::from_bytes(&[[0xf9; 3].as_slice(), &[0; 33]].concat()).is_err());
    }
}
