//! From symbols to a feature: dequantize -> inverse transform -> synthesis.

use std::sync::{Mutex, PoisonError};

use crate::bottleneck::Bottleneck;
use crate::chunk::ChunkReader;
use crate::error::Result;
use crate::kernels::Kernels;
use crate::kernels::portable::{Strip, power_of_two};
use crate::plain;
use crate::plan::Plan;
use crate::stream::{Frame, Source};
use crate::tensor::{Element, Feature, with_array};
use crate::transform::{self, TransformScratch};

/// Buffers of a worker that decodes.
#[derive(Debug, Default, Clone)]
pub(crate) struct Desk {
    reader: ChunkReader,
    transform: TransformScratch,
    coefficients: Vec<i32>,
    values: Vec<i16>,
    tile: Vec<i16>,
}

impl AsMut<ChunkReader> for Desk {
    fn as_mut(&mut self) -> &mut ChunkReader {
        &mut self.reader
    }
}

/// Makes `feature` that of a frame from symbols that `decode` hands to the function it is given, strip by strip: what is
/// made of a strip stays in a cache on its way to the feature.
///
/// # Errors
/// Those of `decode`; the feature is then zeros.
pub(crate) fn restore(
    frame: &Frame<'_>,
    plan: &Plan,
    (feature, bottleneck): (&mut Feature, &mut Bottleneck),
    kernels: Kernels,
    decode: impl FnOnce(&(dyn Fn(&Strip, &[i32], &mut Desk) + Sync)) -> Result<()>,
) -> Result<()> {
    feature.reshape(&frame.layout);
    let network = match &frame.source {
        Source::Profile(profile, quality) if profile.synthesis.is_some() => Some((profile, *quality)),
        _ => None,
    };
    let result = match network {
        None => {
            let out = Mutex::new(&mut *feature);
            decode(&|strip, symbols, desk| {
                desk.inverse(frame, plan, strip, symbols, kernels);
                // A thread that panicked has left nothing half done that matters here.
                desk.scatter(frame, strip, &mut out.lock().unwrap_or_else(PoisonError::into_inner), kernels);
            })
        }
        Some((profile, quality)) => {
            // Every value is written.
            bottleneck.latent.resize(frame.planes.latent.len(), 0.0);
            let out = Mutex::new(&mut bottleneck.latent[..]);
            let decoded = decode(&|strip, symbols, desk| {
                desk.inverse(frame, plan, strip, symbols, kernels);
                desk.put_latent(frame, strip, &mut out.lock().unwrap_or_else(PoisonError::into_inner));
            });
            decoded.and_then(|()| {
                let made = bottleneck.synthesise(&frame.planes, profile, quality, kernels)?;
                let shape = frame.layout.padded_shape();
                let shape = &shape[..frame.layout.dims().len()];
                with_array!(Feature, &mut *feature, array => {
                    if let Some(out) = array.as_slice_mut() {
                        frame.planes.feature.scatter_with(made, shape, out, Element::from_f32);
                    }
                });
                Ok(())
            })
        }
    };
    if result.is_err() {
        feature.clear();
    }
    result
}

impl Desk {
    /// Symbols -> dequantize -> inverse transform, of a strip.
    fn inverse(&mut self, frame: &Frame<'_>, plan: &Plan, strip: &Strip, symbols: &[i32], kernels: Kernels) {
        let Desk { transform, coefficients, values, .. } = self;
        let grid = &frame.planes.latent;
        let (lines, columns) = frame.blocks.area(grid, strip);
        // Every value is written.
        values.resize(lines.len() * columns.len() * grid.channels, 0);
        match &frame.source {
            Source::Profile(profile, _) => {
                transform::inverse(profile, grid, strip, plan, (symbols, values), transform, kernels);
            }
            Source::Plain(_) => plain::reconstruct(plan, symbols, grid.channels, values, coefficients, kernels),
        }
    }

    /// The values of a strip to their places in the latent.
    fn put_latent(&self, frame: &Frame<'_>, strip: &Strip, latent: &mut [f32]) {
        let grid = &frame.planes.latent;
        let (lines, columns) = frame.blocks.area(grid, strip);
        let scale = power_of_two(-frame.exponent());
        let width = columns.len() * grid.channels;
        for (line, values) in lines.zip(self.values.chunks_exact(width.max(1))) {
            let out = &mut latent[(line * grid.width + columns.start) * grid.channels..][..width];
            for (out, &value) in out.iter_mut().zip(values) {
                *out = f32::from(value) * scale;
            }
        }
    }

    /// The values of a strip to their places in the feature.
    fn scatter(&mut self, frame: &Frame<'_>, strip: &Strip, feature: &mut Feature, kernels: Kernels) {
        let grid = &frame.planes.feature;
        let (lines, columns) = frame.blocks.area(grid, strip);
        let shape = frame.layout.padded_shape();
        let shape = &shape[..frame.layout.dims().len()];
        let scale = power_of_two(-frame.exponent());
        let Desk { values, tile, .. } = self;
        // Whole lines lie one after the other.
        let (count, width) =
            if columns.len() == grid.width { (1, lines.len() * grid.width) } else { (lines.len(), columns.len()) };
        with_array!(Feature, feature, array => {
            if let Some(out) = array.as_slice_mut() {
                for line in 0..count {
                    let first = (lines.start + line) * grid.width + columns.start;
                    let values = &values[line * width * grid.channels..][..width * grid.channels];
                    grid.scatter_int(values, first..first + width, (shape, &mut *out), scale, tile, kernels);
                }
            }
        });
    }
}
