//! Encoder and decoder: the path of one feature, top to bottom.
//!
//! ```text
//! encode:  feature -> integers -> analysis -> transform -> quantize -> context -> rans_encode -> container
//! decode:  container -> rans_decode (context recomputed) -> dequantize -> inverse transform -> synthesis -> feature
//! ```

mod decoder;
mod encoder;
mod restore;

use std::sync::Arc;

use crate::error::Result;
use crate::profile::Profile;
use crate::quality::Quality;
use crate::tensor::{Feature, FeatureView};

pub use decoder::Decoder;
pub use encoder::Encoder;
pub(crate) use restore::{Desk, restore};

/// Encodes one feature: with a profile if there is one, else in mode [`Mode::Plain`](crate::Mode::Plain).
///
/// Makes a new [`Encoder`] each time; keep one where features come in numbers.
///
/// # Errors
/// As [`Encoder::encode`].
pub fn encode<'a>(
    feature: impl Into<FeatureView<'a>>,
    profile: Option<&Arc<Profile>>,
    quality: Quality,
) -> Result<Vec<u8>> {
    let mut encoder = match profile {
        Some(profile) => Encoder::with_profile(profile.clone()),
        None => Encoder::plain(),
    };
    encoder.encode(feature, quality)
}

/// Decodes one stream of any mode; those of mode [`Mode::Profile`](crate::Mode::Profile) need their profile.
///
/// # Errors
/// As [`Decoder::decode`].
pub fn decode(bytes: &[u8], profile: Option<&Arc<Profile>>) -> Result<Feature> {
    let mut decoder = Decoder::new();
    if let Some(profile) = profile {
        decoder = decoder.profile(profile.clone());
    }
    decoder.decode(bytes)
}
