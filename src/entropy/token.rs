//! Symbols as tokens: a small alphabet for the tables, raw bits for the rest.
//!
//! A symbol s is coded as one token of a 32-letter alphabet, then by raw bits:
//!
//! | token | meaning | raw bits |
//! |---|---|---|
//! | 0 | s = 0 | 0 |
//! | 2c-1, 2c for class c = 1..8 | s = +c, -c | 0 |
//! | 2c-1, 2c for class c = 9..15 | abs(s) in a bucket of 2^(c-7) values, from `BUCKET_BASE[c]` on | c-7 |
//! | 31 | escape: a nibble n <= 8, then n nibbles of the zigzag of s, low nibble first | 4 + 4n |
//!
//! A token to which a table gives no probability is written as an escape.

/// Letters in the alphabet of every table.
pub const TOKENS: usize = 32;
/// The token that announces a length-prefixed symbol.
pub const ESCAPE: u8 = 31;
/// Classes of magnitude with a token of their own sign, class 0 being zero.
pub const CLASSES: usize = 16;
/// First class whose magnitudes need raw bits.
pub(crate) const FIRST_BUCKET: usize = 9;
/// Smallest magnitude of each class.
pub const BUCKET_BASE: [u32; CLASSES] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 13, 21, 37, 69, 133, 261];
/// First magnitude that has no class and always escapes.
pub const FIRST_ESCAPED: u32 = 517;

/// Raw bits that follow a token of this class.
#[inline]
pub fn class_bits(class: usize) -> u32 {
    if class < FIRST_BUCKET { 0 } else { class as u32 - 7 }
}

/// Token, raw bits and their number for a symbol; an escaped symbol gives ([`ESCAPE`], 0, 0).
#[inline]
pub fn token_of(symbol: i32) -> (u8, u32, u32) {
    let magnitude = symbol.unsigned_abs();
    if magnitude == 0 {
        return (0, 0, 0);
    }
    if magnitude >= FIRST_ESCAPED {
        return (ESCAPE, 0, 0);
    }
    let class = if magnitude < BUCKET_BASE[FIRST_BUCKET] {
        magnitude
    } else {
        // Buckets start at 2^k + 5 for k = 2..8 and hold 2^k values.
        (magnitude - 5).ilog2() + 7
    };
    let sign = u8::from(symbol < 0);
    (2 * class as u8 - 1 + sign, magnitude - BUCKET_BASE[class as usize], class_bits(class as usize))
}

/// The symbol of a token that is not the escape, given its raw bits.
#[inline]
pub fn symbol_of(token: u8, raw: u32) -> i32 {
    let class = usize::from(token).div_ceil(2);
    let magnitude = (BUCKET_BASE[class] + raw) as i32;
    if token != 0 && token.is_multiple_of(2) { -magnitude } else { magnitude }
}

/// Interleaves the signs: 0, -1, 1, -2, ... become 0, 1, 2, 3, ...
#[inline]
pub fn zigzag(symbol: i32) -> u32 {
    ((symbol << 1) ^ (symbol >> 31)) as u32
}

/// Inverse of [`zigzag`].
#[inline]
pub fn unzigzag(value: u32) -> i32 {
    (value >> 1) as i32 ^ -((value & 1) as i32)
}

/// Nibbles that hold a value: 0 for 0, 8 for the largest.
#[inline]
pub fn nibbles(value: u32) -> u32 {
    (32 - value.leading_zeros()).div_ceil(4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_symbol_comes_back_from_its_token() {
        for symbol in -2000..=2000 {
            let (token, raw, bits) = token_of(symbol);
            if symbol.unsigned_abs() >= FIRST_ESCAPED {
                assert_eq!(token, ESCAPE);
            } else {
                assert!(raw < 1 << bits, "{symbol}");
                assert_eq!(symbol_of(token, raw), symbol);
                assert_eq!(class_bits(usize::from(token).div_ceil(2)), bits);
            }
        }
    }

    #[test]
    fn zigzag_covers_i32() {
        for symbol in [0, -1, 1, i32::MIN, i32::MAX, 12345, -54321] {
            assert_eq!(unzigzag(zigzag(symbol)), symbol);
        }
        assert_eq!((nibbles(0), nibbles(15), nibbles(16), nibbles(u32::MAX)), (0, 1, 2, 8));
    }
}
