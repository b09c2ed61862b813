//! Datagrams: a feature in parts that decode alone, for links that lose, repeat and reorder.
//!
//! A part holds the symbols of some coder channels of each block, spread so that what is lost with one part has
//! neighbours in others: coder channel number i among the active ones of the block in row y and column x is in part
//! (i + a x + b y) mod K, with b = max(1, K / 4) and a the least number from 3 K / 8 on that is relatively prime to K. Symbols
//! are coded with the tables of their channels, without contexts, because neighbours may be lost. What does not arrive is
//! concealed: see [`Concealment`].
//!
//! A datagram may also carry a coarse copy of the part K / 2 after its own ([`Datagrams::copies`]; multiple description coding,
//! see Goyal 2001), so that most of a lost part is known coarsely.
//!
//! Which should I use? No copies below some 5 % of loss, or where lost datagrams are sent again; else copies three times
//! coarser at a coarser quality, which keeps the bytes: the more is lost, the more they save (benches/RESULTS.md has how much,
//! for two networks).
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
//! let options = Datagrams { number: 7, bytes: 200, parts: 4, copies: 0 };
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
//! let feature = assembler.take(7, Concealment::default())?;
//! assert_eq!(feature.shape(), [1, 8, 14, 14]);
//! # Ok::<(), narrows::Error>(())
//! ```

mod assemble;
mod conceal;
mod contents;
mod header;
mod pack;
mod request;

pub use assemble::{Assembler, Received};
pub use conceal::Concealment;
pub use request::Request;

pub(crate) use pack::{pack, split};

/// How a feature becomes datagrams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Datagrams {
    /// Number of the feature, which all its datagrams carry: consecutive, with a wrap at 65,536.
    pub number: u16,
    /// Most bytes of a datagram. 1,200 pass almost everywhere in the Internet; LoRa has 51 to 222.
    pub bytes: usize,
    /// Parts at least, 1 to 255: more parts lose less at a time, and cost some fourteen bytes each.
    pub parts: usize,
    /// Each datagram also holds the symbols of another part, quantised coarser by a factor of 3 (1), 9 (2) or 27 (3); 0 for no
    /// copies. Coarser copies cost fewer bytes. A single part has none.
    pub copies: u8,
}

impl Default for Datagrams {
    /// Number 0, 1,200 bytes, one part at least, no copies.
    fn default() -> Self {
        Datagrams { number: 0, bytes: 1200, parts: 1, copies: 0 }
    }
}

/// Most parts of a feature.
const MAX_PARTS: usize = 255;
/// Coarsest copies.
const MAX_COPIES: u8 = 3;
