//! What is compared: ways to send the input, and ways to send the feature at a cut.

use std::fmt::Write as _;
use std::sync::Arc;

use anyhow::{Context, Result, anyhow, bail};
use half::f16;
use image::codecs::png::{CompressionType, FilterType, PngEncoder};
use image::{ExtendedColorType, ImageEncoder, RgbImage};
use jpeg_encoder::{ChromaSubsamplingMethod, ColorType, SamplingFactor};
use narrows::{Backend, Clip, Decoder, Encoder, Info, Packed, Profile, Quality};
use ndarray::ArrayD;

use crate::images;

/// Level of zstd for the baselines: the strongest ordinary one.
const ZSTD_LEVEL: i32 = 19;

/// A way to send the pixels of the input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImageCodec {
    /// The pixels as they are.
    Raw,
    /// Lossless, strongest compression.
    Png,
    /// Baseline JPEG, 4:2:0, optimised Huffman tables.
    Jpeg(u8),
    /// Lossy WebP, method 6.
    WebP(u8),
}

impl ImageCodec {
    /// Name of the codec.
    pub fn name(self) -> &'static str {
        match self {
            ImageCodec::Raw => "raw RGB",
            ImageCodec::Png => "PNG",
            ImageCodec::Jpeg(_) => "JPEG",
            ImageCodec::WebP(_) => "WebP",
        }
    }

    /// Its setting.
    pub fn setting(self) -> String {
        match self {
            ImageCodec::Raw | ImageCodec::Png => String::new(),
            ImageCodec::Jpeg(quality) | ImageCodec::WebP(quality) => format!("q{quality}"),
        }
    }

    /// True if the pixels come back exactly.
    pub fn is_lossless(self) -> bool {
        matches!(self, ImageCodec::Raw | ImageCodec::Png)
    }

    /// Pixels to bytes.
    pub fn encode(self, image: &RgbImage) -> Result<Vec<u8>> {
        let (width, height) = image.dimensions();
        let mut bytes = Vec::new();
        match self {
            ImageCodec::Raw => bytes.extend_from_slice(image.as_raw()),
            ImageCodec::Png => {
                PngEncoder::new_with_quality(&mut bytes, CompressionType::Best, FilterType::Adaptive).write_image(
                    image.as_raw(),
                    width,
                    height,
                    ExtendedColorType::Rgb8,
                )?;
            }
            ImageCodec::Jpeg(quality) => {
                let mut encoder = jpeg_encoder::Encoder::new(&mut bytes, quality);
                encoder.set_sampling_factor(SamplingFactor::R_4_2_0);
                encoder.set_chroma_subsampling_method(ChromaSubsamplingMethod::Average);
                encoder.set_optimized_huffman_tables(true);
                let side = |length: u32| u16::try_from(length).context("JPEG has at most 65535 pixels a side");
                encoder.encode(image.as_raw(), side(width)?, side(height)?, ColorType::Rgb)?;
            }
            ImageCodec::WebP(quality) => {
                let mut config = webp::WebPConfig::new().map_err(|()| anyhow!("libwebp does not start"))?;
                config.quality = f32::from(quality);
                config.method = 6;
                let encoder = webp::Encoder::from_rgb(image.as_raw(), width, height);
                let memory = encoder.encode_advanced(&config).map_err(|error| anyhow!("WebP: {error:?}"))?;
                bytes.extend_from_slice(&memory);
            }
        }
        Ok(bytes)
    }

    /// Bytes back to pixels of this size.
    pub fn decode(self, bytes: &[u8], (width, height): (u32, u32)) -> Result<RgbImage> {
        let image = match self {
            ImageCodec::Raw => RgbImage::from_raw(width, height, bytes.to_vec()),
            ImageCodec::Png | ImageCodec::Jpeg(_) => Some(images::decode(bytes)?),
            ImageCodec::WebP(_) => {
                let decoded = webp::Decoder::new(bytes).decode().context("libwebp refuses its own bytes")?;
                RgbImage::from_raw(decoded.width(), decoded.height(), decoded.to_vec())
            }
        };
        image.filter(|image| image.dimensions() == (width, height)).context("the decoded image has another size")
    }
}

/// A way to send a feature. It holds its buffers: each worker has its own.
#[derive(Debug, Clone)]
pub struct FeatureCodec {
    /// Name of the codec.
    pub name: &'static str,
    /// Its setting.
    pub setting: String,
    /// True if the feature comes back exactly.
    pub lossless: bool,
    /// Step scale, of narrows.
    pub scale: Option<f32>,
    /// Content hash of the profile, of narrows with one.
    pub profile: Option<u64>,
    /// Which layer of how many, of a stream of several that is cut off where this one ends.
    pub layer: Option<(u32, u32)>,
    method: Method,
}

#[derive(Debug, Clone)]
enum Method {
    F32,
    F16,
    MinMax,
    Stream { encoder: Box<Encoder>, decoder: Box<Decoder>, quality: Quality, zstd: bool },
}

impl FeatureCodec {
    fn new(name: &'static str, setting: String, lossless: bool, method: Method) -> Self {
        FeatureCodec { name, setting, lossless, scale: None, profile: None, layer: None, method }
    }

    fn stream(name: &'static str, setting: String, encoder: Encoder, quality: Quality) -> Self {
        let (encoder, decoder) = (Box::new(encoder), Box::new(Decoder::new()));
        Self::new(name, setting, false, Method::Stream { encoder, decoder, quality, zstd: false })
    }

    /// Four bytes an element.
    pub fn raw_f32() -> Self {
        Self::new("raw f32", String::new(), true, Method::F32)
    }

    /// Two bytes an element.
    pub fn raw_f16() -> Self {
        Self::new("raw f16", String::new(), false, Method::F16)
    }

    /// One byte an element between the feature's least and largest value, then zstd.
    pub fn min_max_zstd() -> Self {
        Self::new("u8 min-max + zstd", String::new(), false, Method::MinMax)
    }

    /// `narrows` in mode packed: fixed bits an element, clipped by the ACIQ rule; on top of it zstd, or not.
    pub fn packed(bits: u8, zstd: bool) -> Self {
        let name = if zstd { "ACIQ packed + zstd" } else { "narrows packed" };
        let encoder = Encoder::packed(Packed { bits, clip: Clip::Aciq });
        let mut codec = Self::stream(name, format!("{bits}-bit"), encoder, Quality::default());
        if let Method::Stream { zstd: layer, .. } = &mut codec.method {
            *layer = zstd;
        }
        codec
    }

    /// `narrows` in mode lossless.
    pub fn lossless() -> Self {
        let codec = Self::stream("narrows lossless", String::new(), Encoder::lossless(), Quality::default());
        FeatureCodec { lossless: true, ..codec }
    }

    /// `narrows` at a step scale, with a profile (trained, if it has networks) or without.
    pub fn narrows(profile: Option<&Arc<Profile>>, scale: f32, rdo: bool) -> Self {
        let (name, encoder, decoder) = match profile {
            Some(profile) => {
                let decoder = Decoder::new().profile(profile.clone());
                let name = if profile.has_networks() { "narrows trained" } else { "narrows" };
                (name, Encoder::with_profile(profile.clone()), decoder)
            }
            None => ("narrows plain", Encoder::plain(), Decoder::new()),
        };
        let method = Method::Stream {
            encoder: Box::new(encoder.rdo(rdo)),
            decoder: Box::new(decoder),
            quality: Quality::Scale(scale),
            zstd: false,
        };
        let hash = profile.map(|profile| profile.hash());
        FeatureCodec { scale: Some(scale), profile: hash, ..Self::new(name, scale_text(scale), false, method) }
    }

    /// `narrows` in layers: a stream of all of them, the finest at a step scale, cut off where `layer` of how many ends.
    pub fn layer(profile: &Arc<Profile>, scale: f32, rdo: bool, layer: (u32, u32)) -> Self {
        let mut codec = Self::narrows(Some(profile), scale, rdo);
        if let Method::Stream { encoder, .. } = &mut codec.method {
            **encoder = encoder.as_ref().clone().layers(layer.1 as usize);
        }
        codec.name = if profile.has_networks() { "narrows trained layered" } else { "narrows layered" };
        FeatureCodec { layer: Some(layer), ..codec }
    }

    /// Setting and layer, for example `x0.5 layer 1/2`.
    pub fn setting_text(&self) -> String {
        match self.layer {
            Some((layer, of)) => format!("{} layer {layer}/{of}", self.setting),
            None => self.setting.clone(),
        }
    }

    /// The same codec with its kernels on a backend.
    pub fn on(mut self, backend: &Backend) -> Self {
        if let Method::Stream { encoder, decoder, .. } = &mut self.method {
            **encoder = encoder.as_ref().clone().backend(backend.clone());
            **decoder = decoder.as_ref().clone().backend(backend.clone());
        }
        self
    }

    /// Feature to bytes.
    pub fn encode(&mut self, feature: &ArrayD<f32>) -> Result<Vec<u8>> {
        Ok(match &mut self.method {
            Method::F32 => feature.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Method::F16 => feature.iter().flat_map(|&x| f16::from_f32(x).to_le_bytes()).collect(),
            Method::MinMax => {
                let low = feature.iter().copied().fold(f32::INFINITY, f32::min);
                let high = feature.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                let scale = if high > low { 255.0 / (high - low) } else { 0.0 };
                let levels: Vec<u8> = feature.iter().map(|x| ((x - low) * scale).round() as u8).collect();
                let mut bytes = [low.to_le_bytes(), high.to_le_bytes()].concat();
                bytes.extend(zstd::bulk::compress(&levels, ZSTD_LEVEL)?);
                bytes
            }
            Method::Stream { encoder, quality, zstd, .. } => {
                let mut stream = encoder.encode(feature, *quality)?;
                if let Some((layer, _)) = self.layer {
                    // A stream that is replaced by a shorter lossless one has no layers: all of it is needed.
                    let ends = Info::read(&stream)?.layers;
                    stream.truncate(*ends.get(layer as usize - 1).unwrap_or(&stream.len()));
                }
                if *zstd { zstd::bulk::compress(&stream, ZSTD_LEVEL)? } else { stream }
            }
        })
    }

    /// Bytes back to a feature of this shape.
    pub fn decode(&mut self, bytes: &[u8], shape: &[usize]) -> Result<ArrayD<f32>> {
        let elements: usize = shape.iter().product();
        let values: Vec<f32> = match &mut self.method {
            Method::F32 => bytes.as_chunks().0.iter().map(|&element| f32::from_le_bytes(element)).collect(),
            Method::F16 => bytes.as_chunks().0.iter().map(|&element| f16::from_le_bytes(element).to_f32()).collect(),
            Method::MinMax => {
                let (range, rest) = bytes.split_at_checked(8).context("the range is cut off")?;
                let [low, high] =
                    [0, 4].map(|at| f32::from_le_bytes([range[at], range[at + 1], range[at + 2], range[at + 3]]));
                let step = (high - low) / 255.0;
                let levels = zstd::bulk::decompress(rest, elements)?;
                levels.iter().map(|&level| low + f32::from(level) * step).collect()
            }
            Method::Stream { decoder, zstd, .. } => {
                let feature = if *zstd {
                    decoder.decode(&zstd::bulk::decompress(bytes, 4 * elements + 1024)?)?
                } else {
                    decoder.decode(bytes)?
                };
                let narrows::Feature::F32(array) = feature else { bail!("the decoded feature is not f32") };
                if array.shape() != shape {
                    bail!("the decoded feature has another shape");
                }
                return Ok(array);
            }
        };
        Ok(ArrayD::from_shape_vec(shape, values)?)
    }
}

/// A step scale without needless digits: `1.41`.
fn scale_text(scale: f32) -> String {
    let mut text = String::from("x");
    let _ = write!(text, "{scale:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::IxDyn;

    #[test]
    fn image_codecs_bring_images_back() {
        // Enough texture that the Huffman tables of the JPEG are dense.
        let image =
            RgbImage::from_fn(32, 24, |x, y| image::Rgb([x as u8 * 4, y as u8 * 4, (x * x * 7 + y * 13) as u8 / 4]));
        for codec in [ImageCodec::Raw, ImageCodec::Png, ImageCodec::Jpeg(90), ImageCodec::WebP(90)] {
            let bytes = codec.encode(&image).unwrap();
            let decoded = codec.decode(&bytes, (32, 24)).unwrap();
            if codec.is_lossless() {
                assert_eq!(decoded, image);
            }
            let error: u64 = decoded.as_raw().iter().zip(image.as_raw()).map(|(&a, &b)| u64::from(a.abs_diff(b))).sum();
            assert!(error < 6 * 32 * 24 * 3, "{}: {error}", codec.name());
        }
    }

    #[test]
    fn feature_codecs_bring_features_back() {
        let feature = ArrayD::from_shape_fn(IxDyn(&[1, 8, 6, 6]), |i| ((i[1] * 7 + i[2] * 3 + i[3]) as f32).sin());
        let codecs = [
            FeatureCodec::raw_f32(),
            FeatureCodec::raw_f16(),
            FeatureCodec::min_max_zstd(),
            FeatureCodec::packed(4, true),
            FeatureCodec::packed(8, false),
            FeatureCodec::lossless(),
            FeatureCodec::narrows(None, 0.5, true),
        ];
        for mut codec in codecs {
            let bytes = codec.encode(&feature).unwrap();
            let decoded = codec.decode(&bytes, feature.shape()).unwrap();
            if codec.lossless {
                assert_eq!(decoded, feature, "{}", codec.name);
            }
            let error = (&decoded - &feature).iter().fold(0.0f32, |worst, x| worst.max(x.abs()));
            assert!(error < 0.5, "{} {error}", codec.name);
        }
    }

    #[test]
    fn scales_have_no_needless_digits() {
        assert_eq!([1.0, 0.5, 1.41, 2.83, 10.0].map(scale_text), ["x1", "x0.5", "x1.41", "x2.83", "x10"]);
    }
}
