//! How pixels become the numbers that a network wants.

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};
use image::RgbImage;
use ndarray::{ArrayD, IxDyn};

/// A usual normalisation by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Preset {
    /// (RGB / 255 - (.485 .456 .406)) / (.229 .224 .225): torchvision, most ImageNet models.
    Imagenet,
    /// (RGB / 255 - (.4914 .4822 .4465)) / (.2470 .2435 .2616): many CIFAR-10 models, the demo.
    Cifar10,
    /// (RGB - 127) / 128: EfficientNet-Lite.
    Lite,
    /// RGB / 255.
    Unit,
    /// RGB unchanged, 0 to 255.
    None,
}

/// The flags that say how pixels become input: a preset, or any part of it.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Input of the network: (pixel * scale - mean) / std, pixels 0 to 255")]
pub struct NormalizeArgs {
    /// A common normalisation, by name.
    #[arg(long, value_enum, value_name = "NAME")]
    normalize: Option<Preset>,
    /// Factor for the pixels, a number or a fraction such as 1/255.
    #[arg(long, value_name = "X", value_parser = parse_ratio)]
    scale: Option<f32>,
    /// Mean to subtract: one number, or one each for R,G,B.
    #[arg(long, value_name = "R,G,B", value_delimiter = ',', allow_negative_numbers = true)]
    mean: Vec<f32>,
    /// Standard deviation to divide by: one number, or one each for R,G,B.
    #[arg(long, value_name = "R,G,B", value_delimiter = ',')]
    std: Vec<f32>,
}

fn parse_ratio(text: &str) -> Result<f32, String> {
    let number = |text: &str| text.trim().parse::<f32>().map_err(|_| format!("{text} is not a number"));
    let ratio = match text.split_once('/') {
        Some((a, b)) => number(a)? / number(b)?,
        None => number(text)?,
    };
    if ratio.is_finite() && ratio > 0.0 { Ok(ratio) } else { Err(format!("{text:?} is no factor above 0")) }
}

/// (pixel * scale - mean) / std, by channel.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Normalize {
    scale: f32,
    mean: [f32; 3],
    std: [f32; 3],
}

impl Preset {
    /// What the preset does.
    pub fn normalize(self) -> Normalize {
        let (scale, mean, std) = match self {
            Preset::Imagenet => (1.0 / 255.0, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
            Preset::Cifar10 => (1.0 / 255.0, [0.4914, 0.4822, 0.4465], [0.2470, 0.2435, 0.2616]),
            Preset::Lite => (1.0, [127.0; 3], [128.0; 3]),
            Preset::Unit => (1.0 / 255.0, [0.0; 3], [1.0; 3]),
            Preset::None => (1.0, [0.0; 3], [1.0; 3]),
        };
        Normalize { scale, mean, std }
    }
}

impl NormalizeArgs {
    /// The normalisation that the flags ask for. None given is an error: guessing wrong would only
    /// show as poor accuracy.
    pub fn resolve(&self) -> Result<Normalize> {
        let any = self.scale.is_some() || !self.mean.is_empty() || !self.std.is_empty();
        let mut normalize = match self.normalize {
            Some(preset) => preset.normalize(),
            None if any => Preset::None.normalize(),
            None => bail!(
                "say how pixels become the input of the network: --normalize imagenet, cifar10, lite, unit or none, \
                 or --scale, --mean and --std"
            ),
        };
        if let Some(scale) = self.scale {
            normalize.scale = scale;
        }
        normalize.mean = three("--mean", &self.mean, normalize.mean)?;
        normalize.std = three("--std", &self.std, normalize.std)?;
        if normalize.std.contains(&0.0) {
            bail!("--std must not be zero");
        }
        Ok(normalize)
    }
}

fn three(flag: &str, values: &[f32], default: [f32; 3]) -> Result<[f32; 3]> {
    match *values {
        [] => Ok(default),
        [x] => Ok([x; 3]),
        [r, g, b] => Ok([r, g, b]),
        _ => bail!("{flag} takes one number or three, not {}", values.len()),
    }
}

impl Normalize {
    /// Images of equal size as one input [n, 3, h, w].
    pub fn batch(&self, images: &[RgbImage]) -> Result<ArrayD<f32>> {
        let (width, height) = images.first().map_or((0, 0), RgbImage::dimensions);
        let plane = (width * height) as usize;
        let mut values = Vec::with_capacity(images.len() * 3 * plane);
        for image in images {
            if image.dimensions() != (width, height) {
                bail!("images of different sizes in one batch");
            }
            for channel in 0..3 {
                let (mean, std) = (self.mean[channel], self.std[channel]);
                let pixels = image.as_raw().iter().skip(channel).step_by(3);
                values.extend(pixels.map(|&pixel| (f32::from(pixel) * self.scale - mean) / std));
            }
        }
        Ok(ArrayD::from_shape_vec(IxDyn(&[images.len(), 3, height as usize, width as usize]), values)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pixels_become_planes_by_channel() {
        let image = RgbImage::from_raw(2, 1, vec![0, 127, 255, 127, 0, 127]).unwrap();
        let batch = Preset::Lite.normalize().batch(&[image]).unwrap();
        assert_eq!(batch.shape(), [1, 3, 1, 2]);
        let (low, high) = (-127.0 / 128.0, 1.0);
        assert_eq!(batch.into_raw_vec_and_offset().0, [low, 0.0, 0.0, low, high, 0.0]);
    }

    #[test]
    fn ratios_are_numbers() {
        assert_eq!(parse_ratio("1/255"), Ok(1.0 / 255.0));
        assert_eq!(parse_ratio("0.5"), Ok(0.5));
        assert!(parse_ratio("one").is_err());
    }
}
