//! The coders of other projects, and those of this one, each behind [`Coder`].

mod bytes;
mod constriction;
#[cfg(feature = "htscodecs")]
mod htscodecs;
#[cfg(feature = "charls")]
pub mod jpegls;

use crate::coder::Coder;

/// Every coder of this build.
pub fn all(level: Option<&str>) -> Vec<Box<dyn Coder>> {
    let mut list = Vec::new();
    crate::ours::add(&mut list, level);
    #[cfg(feature = "htscodecs")]
    htscodecs::add(&mut list);
    constriction::add(&mut list);
    bytes::add(&mut list);
    #[cfg(feature = "charls")]
    list.push(Box::new(jpegls::JpegLs::default()));
    list
}
