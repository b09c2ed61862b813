//! Bounds on what bytes from strangers may ask for.

use crate::error::{Error, Result};

/// Bounds checked before anything is allocated on the word of a stream or a profile.
///
/// The defaults are finite and fit a server that decodes feature maps of ordinary networks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Largest decoded feature, in bytes of its own dtype. Default 256 MiB.
    pub output_bytes: u64,
    /// Most chunks in one stream. Default 65,536.
    pub chunks: u64,
    /// Most channels, and most coder channels (component, band) of a profile. Default 65,536.
    pub channels: u64,
    /// Largest profile file, in bytes. Default 256 MiB.
    pub profile_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { output_bytes: 256 << 20, chunks: 65_536, channels: 65_536, profile_bytes: 256 << 20 }
    }
}

impl Limits {
    pub(crate) fn check(what: &'static str, needed: u64, limit: u64) -> Result<()> {
        if needed > limit {
            return Err(Error::LimitExceeded { what, needed, limit });
        }
        Ok(())
    }
}

/// Product of sizes, or an error instead of an overflow.
pub(crate) fn checked_product(sizes: impl IntoIterator<Item = usize>) -> Result<usize> {
    let too_large = Error::LimitExceeded { what: "elements of a feature", needed: u64::MAX, limit: usize::MAX as u64 };
    sizes.into_iter().try_fold(1usize, |product, size| product.checked_mul(size)).ok_or(too_large)
}
