//! A picture of a feature before and after: its strongest channels as tiles.

use anyhow::Result;
use image::{ExtendedColorType, ImageEncoder, Rgb, RgbImage};
use ndarray::{ArrayD, ArrayView2, Axis, Ix3};

/// Most channels that are shown.
const TILES: usize = 16;
/// Tiles in a row.
const COLUMNS: usize = 8;

/// One feature before and after, and what it took.
pub struct FeaturePicture {
    /// Where the network was cut.
    pub cut: String,
    /// Codec and setting.
    pub codec: String,
    /// Bytes of the stream.
    pub bytes: usize,
    /// Bytes of the feature as f32.
    pub raw_bytes: usize,
    /// The image, as a PNG file.
    pub input: Vec<u8>,
    /// The channels before, as a PNG file.
    pub before: Vec<u8>,
    /// The channels after.
    pub after: Vec<u8>,
    /// Number of channels shown, and of all.
    pub channels: (usize, usize),
}

impl FeaturePicture {
    /// Draws a feature [1, C, H, W] and what came back; other ranks have no picture.
    pub fn draw(
        cut: &str,
        codec: String,
        bytes: usize,
        image: &RgbImage,
        before: &ArrayD<f32>,
        after: &ArrayD<f32>,
    ) -> Result<Option<FeaturePicture>> {
        let maps = |feature: &ArrayD<f32>| {
            feature.ndim().eq(&4).then(|| feature.index_axis(Axis(0), 0).to_owned().into_dimensionality::<Ix3>())
        };
        let (Some(Ok(old)), Some(Ok(new))) = (maps(before), maps(after)) else { return Ok(None) };
        // The strongest channels, in their own order.
        let mut order: Vec<(f32, usize)> =
            old.outer_iter().map(|map| spread(map)).enumerate().map(|(i, spread)| (spread, i)).collect();
        order.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        let mut chosen: Vec<usize> = order.iter().take(TILES).map(|&(_, i)| i).collect();
        chosen.sort_unstable();
        let pairs: Vec<_> = chosen.iter().map(|&i| (old.index_axis(Axis(0), i), new.index_axis(Axis(0), i))).collect();
        let ranges: Vec<(f32, f32)> = pairs
            .iter()
            .map(|(map, _)| map.iter().fold((f32::INFINITY, f32::NEG_INFINITY), |(a, b), &x| (a.min(x), b.max(x))))
            .collect();
        Ok(Some(FeaturePicture {
            cut: cut.to_string(),
            codec,
            bytes,
            raw_bytes: before.len() * 4,
            input: png(image)?,
            before: png(&tiles(&pairs.iter().map(|pair| pair.0).collect::<Vec<_>>(), &ranges))?,
            after: png(&tiles(&pairs.iter().map(|pair| pair.1).collect::<Vec<_>>(), &ranges))?,
            channels: (chosen.len(), old.len_of(Axis(0))),
        }))
    }
}

fn spread(map: ArrayView2<'_, f32>) -> f32 {
    let mean = map.mean().unwrap_or(0.0);
    map.iter().map(|x| (x - mean) * (x - mean)).sum()
}

/// Maps side by side with a pixel between them, each in its own range.
fn tiles(maps: &[ArrayView2<'_, f32>], ranges: &[(f32, f32)]) -> RgbImage {
    let (height, width) = maps.first().map_or((1, 1), |map| map.dim());
    let columns = COLUMNS.min(maps.len()).max(1);
    let rows = maps.len().div_ceil(columns);
    let mut image = RgbImage::from_pixel(
        (columns * (width + 1) - 1) as u32,
        (rows.max(1) * (height + 1) - 1) as u32,
        Rgb([128, 128, 128]),
    );
    for (i, (map, &(low, high))) in maps.iter().zip(ranges).enumerate() {
        let (top, left) = ((i / columns) * (height + 1), (i % columns) * (width + 1));
        for ((y, x), &value) in map.indexed_iter() {
            let share = if high > low { (value - low) / (high - low) } else { 0.0 };
            image.put_pixel((left + x) as u32, (top + y) as u32, colour(share));
        }
    }
    image
}

/// Dark blue over green to yellow, equal steps in lightness.
fn colour(share: f32) -> Rgb<u8> {
    const STOPS: [[f32; 3]; 5] =
        [[24.0, 15.0, 62.0], [54.0, 72.0, 140.0], [32.0, 140.0, 141.0], [100.0, 200.0, 98.0], [250.0, 231.0, 60.0]];
    let at = share.clamp(0.0, 1.0) * (STOPS.len() - 1) as f32;
    let stop = (at as usize).min(STOPS.len() - 2);
    let t = at - stop as f32;
    Rgb([0, 1, 2].map(|i| (STOPS[stop][i] + t * (STOPS[stop + 1][i] - STOPS[stop][i])) as u8))
}

fn png(image: &RgbImage) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    image::codecs::png::PngEncoder::new(&mut bytes).write_image(
        image.as_raw(),
        image.width(),
        image.height(),
        ExtendedColorType::Rgb8,
    )?;
    Ok(bytes)
}

/// Bytes as the text of a `data:` address.
pub fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let value = group.iter().fold(0u32, |value, &byte| value << 8 | u32::from(byte)) << (8 * (3 - group.len()));
        for digit in 0..4 {
            let index = value >> (18 - 6 * digit) & 63;
            text.push(if digit > group.len() { '=' } else { char::from(DIGITS[index as usize]) });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::IxDyn;

    #[test]
    fn base64_of_known_texts() {
        let texts = ["", "f", "fo", "foo", "foob", "fooba", "foobar"].map(|text| base64(text.as_bytes()));
        assert_eq!(texts, ["", "Zg==", "Zm8=", "Zm9v", "Zm9vYg==", "Zm9vYmE=", "Zm9vYmFy"]);
    }

    #[test]
    fn features_with_maps_have_a_picture() {
        let image = RgbImage::new(8, 8);
        let draw = |shape: &[usize]| {
            let feature = ArrayD::from_shape_fn(IxDyn(shape), |i| i[shape.len() - 1] as f32);
            FeaturePicture::draw("cut", "narrows".into(), 9, &image, &feature, &feature).unwrap()
        };
        assert_eq!(draw(&[1, 20, 4, 4]).map(|picture| picture.channels), Some((16, 20)));
        assert!(draw(&[1, 3, 4, 4]).is_some());
        assert!(draw(&[1, 10]).is_none());
    }
}
