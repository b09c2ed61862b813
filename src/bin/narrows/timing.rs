//! Times on one thread, one image at a time: what plans stand on.
//!
//! Apart from the run that measures bytes and answers, whose workers disturb each other: here nothing else runs, and each
//! part is timed once an image in turns, so that a slow spell of the machine meets all parts alike. Medians are kept.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use indicatif::ProgressBar;
use ndarray::ArrayD;
use rten::ThreadPool;

use crate::codecs::{FeatureCodec, ImageCodec};
use crate::measure::Job;
use crate::metrics::median;
use crate::model::{Exit, Pool};

/// Images to time, spread over all.
const IMAGES: usize = 30;
/// Rounds without the clock first: caches, buffers, the choice of kernels.
const WARM_UP: usize = 2;
/// After this long no further image is begun, once there are [`FEWEST`].
const ENOUGH: Duration = Duration::from_secs(90);
/// Fewest images to time, where there are that many.
const FEWEST: usize = 5;

/// Median seconds of one image on one thread.
#[derive(Debug, Clone, PartialEq)]
pub struct Times {
    /// The whole network.
    pub whole: f64,
    /// Encoding and decoding by each codec of the input.
    pub inputs: Vec<CodecTimes>,
    /// Each cut.
    pub cuts: Vec<CutTimes>,
    /// For each exit: all that leads to it, and the part of that which the answer does not need.
    pub exits: Vec<(f64, f64)>,
}

/// Seconds of one codec.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CodecTimes {
    /// To encode.
    pub encode: f64,
    /// To decode.
    pub decode: f64,
}

/// Seconds at one cut.
#[derive(Debug, Clone, PartialEq)]
pub struct CutTimes {
    /// The head.
    pub head: f64,
    /// The tail.
    pub tail: f64,
    /// The codecs there.
    pub codecs: Vec<CodecTimes>,
}

impl Job<'_> {
    /// Times all parts; the bar counts the images.
    pub fn times(&self, bar: &ProgressBar) -> Result<Times> {
        let one = rayon::ThreadPoolBuilder::new().num_threads(1).build().context("a pool of one thread")?;
        one.install(|| self.times_here(bar))
    }

    fn times_here(&self, bar: &ProgressBar) -> Result<Times> {
        let pool = Some(Arc::new(ThreadPool::with_num_threads(1)));
        let mut codecs: Vec<Vec<FeatureCodec>> = self.cuts.iter().map(|(_, codecs)| codecs.clone()).collect();
        for _ in 0..WARM_UP {
            self.round(0, &mut codecs, &pool, &mut Clock::default())?;
        }
        let count = self.images.len().min(IMAGES);
        bar.set_length(count as u64);
        bar.set_message("timing on one thread");
        let mut clock = Clock::default();
        let start = Instant::now();
        for i in 0..count {
            self.round(i * self.images.len() / count, &mut codecs, &pool, &mut clock)?;
            bar.inc(1);
            if i + 1 >= FEWEST && start.elapsed() > ENOUGH {
                break;
            }
        }
        bar.finish_and_clear();
        Ok(self.read(clock))
    }

    /// Every part once on one image.
    fn round(&self, image: usize, codecs: &mut [Vec<FeatureCodec>], pool: &Pool, clock: &mut Clock) -> Result<()> {
        clock.begin();
        let pixels = self.images.pixels(image)?;
        let batch = self.normalize.batch(std::slice::from_ref(&pixels))?;
        clock.time(|| self.network.run(&batch, &[], &[], pool))?;
        for &codec in &self.image_codecs {
            let bytes = clock.time(|| ImageCodec::encode(codec, &pixels))?;
            clock.time(|| codec.decode(&bytes, pixels.dimensions()))?;
        }
        for ((cut, _), codecs) in self.cuts.iter().zip(codecs) {
            let feature: ArrayD<f32> = clock.time(|| self.network.head(&batch, cut, pool))?;
            clock.time(|| self.network.tail(&feature, cut, pool))?;
            for codec in codecs {
                let bytes = clock.time(|| codec.encode(&feature))?;
                clock.time(|| codec.decode(&bytes, feature.shape()))?;
            }
        }
        for exit in &self.exits {
            clock.time(|| self.network.run_to_exit(&batch, exit, pool))?;
            self.time_branch(&batch, exit, pool, clock).with_context(|| format!("timing exit {}", exit.name))?;
        }
        Ok(())
    }

    fn time_branch(&self, batch: &ArrayD<f32>, exit: &Exit, pool: &Pool, clock: &mut Clock) -> Result<()> {
        let from = self.network.branching(batch, exit, pool)?;
        clock.time(|| self.network.branch(&from, exit, pool))?;
        Ok(())
    }

    /// The medians, in the order of [`Job::round`].
    fn read(&self, clock: Clock) -> Times {
        let mut parts = clock.parts.into_iter().map(median);
        let mut next = || parts.next().unwrap_or(0.0);
        let whole = next();
        let codec = |next: &mut dyn FnMut() -> f64| CodecTimes { encode: next(), decode: next() };
        let inputs = self.image_codecs.iter().map(|_| codec(&mut next)).collect();
        let cuts = self.cuts.iter().map(|(_, codecs)| CutTimes {
            head: next(),
            tail: next(),
            codecs: codecs.iter().map(|_| codec(&mut next)).collect(),
        });
        let cuts = cuts.collect();
        let exits = self.exits.iter().map(|_| (next(), next())).collect();
        Times { whole, inputs, cuts, exits }
    }
}

/// The seconds of each part, one list a part; parts come in the same order in every round.
#[derive(Default)]
struct Clock {
    parts: Vec<Vec<f64>>,
    at: usize,
}

impl Clock {
    /// A new round.
    fn begin(&mut self) {
        self.at = 0;
    }

    /// Runs and times the next part.
    fn time<T>(&mut self, part: impl FnOnce() -> Result<T>) -> Result<T> {
        let start = Instant::now();
        let result = part()?;
        let seconds = start.elapsed().as_secs_f64();
        if self.at == self.parts.len() {
            self.parts.push(Vec::new());
        }
        self.parts[self.at].push(seconds);
        self.at += 1;
        Ok(result)
    }
}
