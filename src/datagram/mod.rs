//! Datagrams: a feature in parts that decode alone, for links that lose, repeat and reorder.
//!
//! A part holds the symbols of some coder channels of each block, spread so that what is lost with one part has
//! neighbours in others: coder channel number i among the active ones of the block in row y and column x is in part
//! (i + a x + b y) mod K, with a = max(1, K / 2) and b = max(1, K / 4). Symbols are coded with the tables of their channels, without
//! contexts, because neighbours may be lost. What does not arrive is concealed: see [`Concealment`].
//!
//! ```
//! use narrows::datagram::{Assembler, Concealment, Datagrams};
//! use narrows::{Encoder, Profile, Quality, fit::FitOptions};
//! use ndarray::ArrayD;
//! # use std::sync::Arc;
//! # fn head(i: usize) -> ArrayD<f32> {
//! #     ArrayD::from_shape_fn(vec![1, 8, 14, 14], |at| ((at[1] + at[2] * at[3] + i) as f32 * 0.3).sin())
//! # }
//! # let mut samples: Vec<_> = (0..32).map(head).collect();
//! # let profile = Arc::new(Profile::fit(&mut samples, None, &FitOptions::default(), &mut |_| {})?);
//! // On the device: datagrams of at most 200 bytes, at least four of them.
//! let options = Datagrams { number: 7, bytes: 200, parts: 4 };
//! let sent = Encoder::with_profile(profile.clone()).datagrams(&head(100), Quality::Scale(1.0), &options)?;
//!
//! // On the server: the second is lost, the others arrive in another order.
//! let mut assembler = Assembler::new(profile);
//! for (i, datagram) in sent.iter().enumerate().rev() {
//!     if i != 1 {
//!         assembler.push(datagram)?;
//!     }
//! }
//! assert_eq!(assembler.missing(7), Some(vec![1]));
//! let feature = assembler.take(7, Concealment::Neighbours)?;
//! assert_eq!(feature.shape(), [1, 8, 14, 14]);
//! # Ok::<(), narrows::Error>(())
//! ```

mod assemble;
mod conceal;
mod header;
mod pack;
mod request;

pub use assemble::{Assembler, Received};
pub use conceal::Concealment;
pub use request::Request;

pub(crate) use pack::{pack, split};

use crate::transform::Blocks;

/// How a feature becomes datagrams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Datagrams {
    /// Number of the feature, which all its datagrams carry: consecutive, with a wrap at 65,536.
    pub number: u16,
    /// Most bytes of a datagram. 1,200 pass almost everywhere in the Internet; LoRa has 51 to 222.
    pub bytes: usize,
    /// Parts at least, 1 to 255: more parts lose less at a time, and cost some fourteen bytes each.
    pub parts: usize,
}

impl Default for Datagrams {
    /// Number 0, 1,200 bytes, one part at least.
    fn default() -> Self {
        Datagrams { number: 0, bytes: 1200, parts: 1 }
    }
}

/// Most parts of a feature.
const MAX_PARTS: usize = 255;

/// Which part of how many each symbol is in.
#[derive(Debug, Clone, Copy)]
struct Spread {
    parts: usize,
    /// Block rows of a plane, and blocks of a row.
    plane_rows: usize,
    columns: usize,
}

impl Spread {
    fn new(parts: usize, blocks: &Blocks) -> Spread {
        Spread { parts, plane_rows: blocks.plane_rows.max(1), columns: blocks.columns.max(1) }
    }

    /// The part of the first active channel of a block; those of the others follow in turn.
    fn first(&self, block: usize) -> usize {
        let (row, column) = (block / self.columns % self.plane_rows, block % self.columns);
        (column * (self.parts / 2).max(1) + row * (self.parts / 4).max(1)) % self.parts
    }

    /// The active channels of a block that are in a part, of `channels`.
    fn channels(&self, part: usize, block: usize, channels: usize) -> impl Iterator<Item = usize> + use<> {
        ((part + self.parts - self.first(block)) % self.parts..channels).step_by(self.parts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_symbol_is_in_one_part_and_neighbours_are_in_others() {
        for parts in [1, 2, 3, 4, 7, 8, 20, 255] {
            let spread = Spread { parts, plane_rows: 5, columns: 6 };
            for block in 0..2 * 5 * 6 {
                let mut seen = [0; 50];
                for part in 0..parts {
                    spread.channels(part, block, 50).for_each(|channel| seen[channel] += 1);
                }
                assert_eq!(seen, [1; 50]);
            }
            if parts > 1 {
                assert!((0..5).all(|x| spread.first(x) != spread.first(x + 1)));
                assert!((0..4).all(|y| spread.first(6 * y) != spread.first(6 * y + 6)));
            }
        }
    }
}
