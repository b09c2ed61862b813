//! Measuring: every image through every codec, and what the network answers afterwards.
//!
//! The network runs once on the raw input and gives its answer and the features at all cuts. Then each
//! codec encodes and decodes, and the rest of the network runs on what came out. Images go through in
//! batches, batches to workers; samples are put back in order, so results do not depend on
//! the number of workers (but for the times).

use std::time::Instant;

use anyhow::{Context, Result};
use image::RgbImage;
use indicatif::ProgressBar;
use ndarray::ArrayD;

use crate::codecs::{FeatureCodec, ImageCodec};
use crate::images::Images;
use crate::metrics::{Point, Sample, argmax, confidence, divergence};
use crate::model::{Cut, Exit, Network, Pool, item, stack};
use crate::normalize::Normalize;
use crate::workers;

/// What to measure.
pub struct Job<'a> {
    /// The network.
    pub network: &'a Network,
    /// The images.
    pub images: &'a dyn Images,
    /// How pixels become input.
    pub normalize: Normalize,
    /// Codecs of the input.
    pub image_codecs: Vec<ImageCodec>,
    /// Cuts, and the codecs of the feature at each.
    pub cuts: Vec<(Cut, Vec<FeatureCodec>)>,
    /// Early exits, whose logits are kept.
    pub exits: Vec<Exit>,
    /// Workers; 0 for one a core.
    pub threads: usize,
}

/// What was measured.
pub struct Measured {
    /// Top-1 of the uncut network on the raw input.
    pub top1: f64,
    /// One point for each codec of the input, then for each cut and codec.
    pub points: Vec<Point>,
    /// The images.
    pub rows: Vec<Row>,
}

/// One image.
#[derive(Debug, Clone)]
pub struct Row {
    /// The right class.
    pub label: usize,
    /// The class that the uncut network gives for the raw input.
    pub answer: usize,
    /// Probability that it gives it.
    pub confidence: f32,
    /// Number of classes.
    pub classes: usize,
    /// Logits of each exit.
    pub exits: Vec<Vec<f32>>,
    /// Its samples, in the order of the points.
    pub samples: Vec<Sample>,
}

impl Job<'_> {
    /// Runs all images; the bar counts them.
    pub fn run(&self, bar: &ProgressBar) -> Result<Measured> {
        let count = self.images.len();
        bar.set_length(count as u64);
        let threads = workers::count(self.threads, count);
        let batch = self.network.batch(batch_size(self.images)?.min(count.div_ceil(threads)));
        let codecs = || self.cuts.iter().map(|(_, codecs)| codecs.clone()).collect::<Vec<Vec<FeatureCodec>>>();
        let states = workers::share(
            threads,
            (count, batch),
            || (codecs(), Vec::new()),
            |first, last, (codecs, rows), pool| {
                rows.push((first, self.batch(first, last, codecs, pool)?));
                bar.inc((last - first) as u64);
                Ok(())
            },
        )?;
        let mut batches: Vec<(usize, Vec<Row>)> = states.into_iter().flat_map(|(_, rows)| rows).collect();
        batches.sort_by_key(|&(first, _)| first);
        let rows: Vec<Row> = batches.into_iter().flat_map(|(_, rows)| rows).collect();
        bar.finish_and_clear();
        self.sum_up(rows)
    }

    fn sum_up(&self, rows: Vec<Row>) -> Result<Measured> {
        let column = |i: usize| rows.iter().map(|row| row.samples[i]).collect::<Vec<_>>();
        let first = self.images.pixels(0)?;
        let mut points = Vec::new();
        for codec in &self.image_codecs {
            let samples = column(points.len());
            points.push(Point::new(None, codec.name(), &codec.setting(), first.as_raw().len(), &samples));
        }
        for (cut, codecs) in &self.cuts {
            for codec in codecs {
                let samples = column(points.len());
                points.push(Point::new(Some(&cut.name), codec.name, &codec.setting_text(), cut.elements(), &samples));
            }
        }
        let correct = rows.iter().filter(|row| row.answer == row.label).count();
        Ok(Measured { top1: correct as f64 / rows.len().max(1) as f64, points, rows })
    }

    /// The samples of images `first..last`.
    fn batch(&self, first: usize, last: usize, codecs: &mut [Vec<FeatureCodec>], pool: &Pool) -> Result<Vec<Row>> {
        let images = (first..last).map(|i| self.images.pixels(i)).collect::<Result<Vec<RgbImage>>>()?;
        let cuts: Vec<&Cut> = self.cuts.iter().map(|(cut, _)| cut).collect();
        let exits: Vec<&Exit> = self.exits.iter().collect();
        let whole = self.network.run(&self.normalize.batch(&images)?, &cuts, &exits, pool)?;
        let (reference, features) = (whole.logits, whole.features);
        let row = |(i, logits): (usize, &Vec<f32>)| Row {
            label: self.images.label(first + i),
            answer: argmax(logits),
            confidence: confidence(logits),
            classes: logits.len(),
            exits: whole.exits.iter().map(|exit| exit[i].clone()).collect(),
            samples: Vec::new(),
        };
        let mut rows: Vec<Row> = reference.iter().enumerate().map(row).collect();
        let mut record = |costs: &[Cost], answers: &[Vec<f32>]| {
            for (i, row) in rows.iter_mut().enumerate() {
                let answer = argmax(&answers[i]);
                row.samples.push(Sample {
                    bytes: costs[i].bytes,
                    answer,
                    confidence: confidence(&answers[i]),
                    correct: answer == row.label,
                    agrees: answer == row.answer,
                    divergence: divergence(&reference[i], &answers[i]),
                    encode: costs[i].encode,
                    decode: costs[i].decode,
                });
            }
        };
        for codec in &self.image_codecs {
            let coded = images.iter().map(|image| {
                cost(|| codec.encode(image), |bytes| codec.decode(bytes, image.dimensions()))
                    .with_context(|| format!("{} {}", codec.name(), codec.setting()))
            });
            let (costs, decoded): (Vec<Cost>, Vec<RgbImage>) = coded.collect::<Result<Vec<_>>>()?.into_iter().unzip();
            if codec.is_lossless() && decoded == images {
                record(&costs, &reference);
            } else {
                record(&costs, &self.network.run(&self.normalize.batch(&decoded)?, &[], &[], pool)?.logits);
            }
        }
        for (((cut, _), codecs), features) in self.cuts.iter().zip(codecs).zip(&features) {
            let features: Vec<ArrayD<f32>> = (0..images.len()).map(|i| item(features, i)).collect();
            for codec in codecs {
                let name = format!("{} {} at {}", codec.name, codec.setting_text(), cut.name);
                let coded = features.iter().map(|feature| code(codec, feature).with_context(|| name.clone()));
                let (costs, decoded): (Vec<Cost>, Vec<ArrayD<f32>>) =
                    coded.collect::<Result<Vec<_>>>()?.into_iter().unzip();
                if codec.lossless && decoded == features {
                    record(&costs, &reference);
                } else {
                    record(&costs, &self.network.tail(&stack(&decoded)?, cut, pool)?);
                }
            }
        }
        Ok(rows)
    }
}

/// What sending one image or feature costs.
struct Cost {
    bytes: usize,
    encode: f64,
    decode: f64,
}

/// Encodes and decodes, with a clock beside it.
fn cost<T>(encode: impl FnOnce() -> Result<Vec<u8>>, decode: impl FnOnce(&[u8]) -> Result<T>) -> Result<(Cost, T)> {
    let start = Instant::now();
    let bytes = encode()?;
    let encoded = Instant::now();
    let decoded = decode(&bytes)?;
    let cost = Cost {
        bytes: bytes.len(),
        encode: (encoded - start).as_secs_f64() * 1e6,
        decode: encoded.elapsed().as_secs_f64() * 1e6,
    };
    Ok((cost, decoded))
}

fn code(codec: &mut FeatureCodec, feature: &ArrayD<f32>) -> Result<(Cost, ArrayD<f32>)> {
    let cell = std::cell::RefCell::new(codec);
    cost(|| cell.borrow_mut().encode(feature), |bytes| cell.borrow_mut().decode(bytes, feature.shape()))
}

/// Images to run at once: many small ones, few large ones.
fn batch_size(images: &dyn Images) -> Result<usize> {
    let pixels = images.pixels(0)?.as_raw().len();
    Ok((1_000_000 / pixels.max(1)).clamp(4, 64))
}
