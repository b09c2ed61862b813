//! What a device does with its images.

use crate::codecs::ImageCodec;

/// A way of answering.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// The whole network on the device.
    Local,
    /// The head on the device, always the same stream.
    Fixed,
    /// The image to the server, compressed.
    Image(ImageCodec),
    /// Whatever is best at the moment: a plan from measurements, exits, layers.
    Adaptive,
}

impl Policy {
    /// Parses `adaptive`, `local`, `fixed`, `jpeg:75`, `webp:70` or `png`.
    pub fn parse(text: &str) -> Result<Policy, String> {
        let wanted =
            || format!("{text:?} is no policy; there are: adaptive, local, fixed, jpeg:QUALITY, webp:QUALITY, png");
        match text.split_once(':') {
            None => match text {
                "adaptive" => Ok(Policy::Adaptive),
                "local" => Ok(Policy::Local),
                "fixed" => Ok(Policy::Fixed),
                "png" => Ok(Policy::Image(ImageCodec::Png)),
                _ => Err(wanted()),
            },
            Some((codec, quality)) => {
                let quality: u8 =
                    quality.parse().ok().filter(|quality| (1..=100).contains(quality)).ok_or_else(wanted)?;
                match codec {
                    "jpeg" => Ok(Policy::Image(ImageCodec::Jpeg(quality))),
                    "webp" => Ok(Policy::Image(ImageCodec::WebP(quality))),
                    _ => Err(wanted()),
                }
            }
        }
    }
}

impl std::fmt::Display for Policy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Policy::Adaptive => f.write_str("adaptive"),
            Policy::Local => f.write_str("local"),
            Policy::Fixed => f.write_str("fixed"),
            Policy::Image(ImageCodec::Jpeg(quality)) => write!(f, "jpeg:{quality}"),
            Policy::Image(ImageCodec::WebP(quality)) => write!(f, "webp:{quality}"),
            Policy::Image(_) => f.write_str("png"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_are_read_as_they_are_written() {
        for text in ["adaptive", "local", "fixed", "jpeg:75", "webp:1", "png"] {
            assert_eq!(Policy::parse(text).unwrap().to_string(), text);
        }
        for bad in ["", "jpeg", "jpeg:0", "jpeg:101", "gif:5", "fixed:1"] {
            assert!(Policy::parse(bad).unwrap_err().contains("webp:QUALITY"), "{bad}");
        }
    }
}
