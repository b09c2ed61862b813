//! From which size on a feature is faster on the GPU.

use std::time::{Duration, Instant};

use ndarray::Array3;

use crate::error::Result;
use crate::kernels::gpu::{Decoder, Device, Encoder, Source};
use crate::quality::Quality;

/// Sides of the maps that are tried, of [`CHANNELS`] channels: 4 Ki to 1 Mi elements.
const SIDES: [usize; 5] = [8, 16, 32, 64, 128];
const CHANNELS: usize = 64;
/// Once a size takes this long, larger ones are not tried.
const PATIENCE: Duration = Duration::from_millis(250);

impl Device {
    /// The number of elements below which a feature is faster on the CPU; `usize::MAX` if all that were tried are.
    ///
    /// Measured when it is first asked for, then remembered by the device and its clones: maps of 64 channels and up to
    /// 2^20 elements are encoded and decoded in mode `Plain`, a chunk for every row, from and to the memory of the CPU,
    /// here and there. Features that lie on the GPU, and batches, pay off earlier. It takes up to some seconds on a
    /// software driver, most of it the compilation of pipelines.
    ///
    /// # Errors
    /// `Backend` if the GPU fails.
    pub fn crossover(&self) -> Result<usize> {
        let (encoder, mut decoder) = (crate::Encoder::plain(), crate::Decoder::new());
        self.crossover_with(|feature| {
            let stream = encoder.clone().chunks(feature.shape()[1]).encode(feature, Quality::default())?;
            decoder.decode(&stream)?;
            Ok(())
        })
    }

    /// As [`Device::crossover`], against what `on_cpu` does with a feature instead of this crate's own encoder and
    /// decoder. The first measurement of a device counts, whichever it was.
    ///
    /// # Errors
    /// As [`Device::crossover`], and those of `on_cpu`.
    pub fn crossover_with(&self, mut on_cpu: impl FnMut(&Array3<f32>) -> Result<()>) -> Result<usize> {
        if let Some(&known) = self.crossover_cell().get() {
            return Ok(known);
        }
        let mut decoder = Decoder::new(self);
        for side in SIDES {
            let feature = Array3::from_shape_fn((CHANNELS, side, side), |(c, y, x)| {
                let rough = (c * 7919 + y * 104_729 + x * 1_299_709) % 1009;
                (rough as f32 / 504.5 - 1.0).powi(5) * 3.0
            });
            let mut encoder = Encoder::plain(self).chunks(side);
            let mut on_gpu = |feature: &Array3<f32>| {
                let streams = encoder.encode_on_gpu(&[Source::from(feature)], Quality::default())?;
                streams.iter().try_for_each(|stream| decoder.decode(stream).map(|_| ()))
            };
            let there = best_of(&feature, &mut on_gpu)?;
            let here = best_of(&feature, &mut on_cpu)?;
            if there < here {
                return Ok(*self.crossover_cell().get_or_init(|| feature.len()));
            }
            if there > PATIENCE {
                break;
            }
        }
        Ok(*self.crossover_cell().get_or_init(|| usize::MAX))
    }
}

/// The shortest of three runs, after one that is not counted.
fn best_of(feature: &Array3<f32>, run: &mut impl FnMut(&Array3<f32>) -> Result<()>) -> Result<Duration> {
    run(feature)?;
    let mut best = Duration::MAX;
    for _ in 0..3 {
        let start = Instant::now();
        run(feature)?;
        best = best.min(start.elapsed());
    }
    Ok(best)
}
