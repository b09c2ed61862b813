//! Bounds on what untrusted bytes may ask for.

use crate::entropy::bank::TABLES;
use crate::error::{Error, Result};
use crate::kernels::portable::MAX_LANES;
use crate::tensor::MAX_RANK;

/// Bounds checked before anything is allocated on the word of a stream or a profile.
///
/// The defaults are finite and fit a server that decodes feature maps of ordinary networks. What the format itself
/// bounds (rank 8, 32 lanes, 104 tables) can be lowered here, not raised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Largest decoded feature, in bytes of its own dtype. Default 256 MiB.
    pub output_bytes: u64,
    /// Most bytes before the chunks of a stream, and of the header of a profile's file. Default 1 MiB.
    pub header_bytes: u64,
    /// Most axes. Default 8.
    pub rank: u64,
    /// Most chunks in one stream. Default 65,536.
    pub chunks: u64,
    /// Most channels, and most coder channels (component, band) of a profile. Default 65,536.
    pub channels: u64,
    /// Most interleaved states of a chunk. Default 32.
    pub lanes: u64,
    /// Most tables of a profile's bank, and most channel matrices of a profile. Default 256.
    pub tables: u64,
    /// Largest profile file, in bytes. Default 256 MiB.
    pub profile_bytes: u64,
    /// Most bytes of the values of a profile's network that live at the same time. Default 1 GiB.
    pub network_bytes: u64,
    /// Most multiply-accumulates of a profile's network for one feature. Default 2^38.
    pub network_macs: u64,
}

const _: () = assert!(MAX_RANK == 8 && MAX_LANES == 32 && TABLES <= 256);

impl Default for Limits {
    fn default() -> Self {
        Limits {
            output_bytes: 256 << 20,
            header_bytes: 1 << 20,
            rank: MAX_RANK as u64,
            chunks: 65_536,
            channels: 65_536,
            lanes: MAX_LANES as u64,
            tables: 256,
            profile_bytes: 256 << 20,
            network_bytes: 1 << 30,
            network_macs: 1 << 38,
        }
    }
}

impl Limits {
    /// For trusted input.
    pub(crate) const UNBOUNDED: Limits = Limits {
        output_bytes: u64::MAX,
        header_bytes: u64::MAX,
        rank: MAX_RANK as u64,
        chunks: u64::MAX,
        channels: u64::MAX,
        lanes: MAX_LANES as u64,
        tables: u64::MAX,
        profile_bytes: u64::MAX,
        network_bytes: u64::MAX,
        network_macs: u64::MAX,
    };

    pub(crate) fn check(what: &'static str, needed: u64, limit: u64) -> Result<()> {
        if needed > limit {
            return Err(Error::LimitExceeded { what, needed, limit });
        }
        Ok(())
    }

    /// The product of sizes, if it is within a limit and fits the address space.
    pub(crate) fn check_product(what: &'static str, sizes: impl IntoIterator<Item = u64>, limit: u64) -> Result<usize> {
        let limit = limit.min(isize::MAX as u64);
        let needed = sizes.into_iter().fold(1u64, u64::saturating_mul);
        Self::check(what, needed, limit)?;
        Ok(needed as usize)
    }
}

/// Product of sizes, or an error instead of an overflow.
pub(crate) fn checked_product(sizes: impl IntoIterator<Item = usize>) -> Result<usize> {
    Limits::check_product("elements of a feature", sizes.into_iter().map(|size| size as u64), u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_beyond_a_limit_or_the_address_space_are_errors() {
        assert_eq!(Limits::check_product("sizes", [1 << 20, 256], 256 << 20), Ok(256 << 20));
        for sizes in [[1 << 20, 257, 1, 1], [1 << 32, 1 << 32, 1 << 32, 2], [u64::MAX, u64::MAX, 0, 1]] {
            let result = Limits::check_product("sizes", sizes, 256 << 20);
            let zero = sizes.contains(&0);
            assert_eq!(result.is_ok(), zero, "{sizes:?}");
        }
        assert!(checked_product([usize::MAX, 2]).is_err());
        assert!(checked_product([1 << (usize::BITS - 2), 2]).is_err());
        assert_eq!(checked_product([3, 4, 5]), Ok(60));
    }
}
