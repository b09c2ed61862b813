//! Choosing among candidates by bytes at equal task distortion.

use std::sync::Arc;

use ndarray::ArrayD;

use super::draft::{Candidate, Channels, FLOOR, Groups, band_groups, draft};
use super::metric::{self, BATCH, divergence, run_batch, softmax, tensor};
use super::moments::{FloatDct, Moments, gather};
use super::target::{FAN, MOST_POINTS, Point, at_line, interpolate, next_index};
use super::{FitOptions, Reporter, Samples, Tail, Transforms, Weights, channels_last, tables, values};
use crate::codec::{Decoder, Encoder};
use crate::container::Layout;
use crate::error::{Error, Result};
use crate::geometry::Grid;
use crate::kernels::Kernels;
use crate::kernels::portable::power_of_two;
use crate::kernels::portable::{ContextRule, to_int};
use crate::profile::{MAX_BLOCK, Profile};
use crate::quality::Quality;
use crate::tensor::FeatureView;
use crate::transform::{self, Blocks, Kept, TransformScratch};

/// Values that the samples kept in memory for the search may hold together.
const CACHED_VALUES: usize = 48 << 20;
/// Most samples that a candidate's tables are fitted on.
const TABLE_SAMPLES: usize = 192;
/// Largest number of moments (bands x channels^2) that is gathered.
const MOST_MOMENTS: usize = 1 << 24;
/// Most channels of which a KLT is tried.
const MOST_KLT_CHANNELS: usize = 1024;
/// Most entries of all channel matrices of a profile beyond one per octave of bands.
const MOST_MATRIX_ENTRIES: usize = 1 << 18;
/// Most coder channels with a neighbour context.
const MOST_CONTEXT_CHANNELS: usize = 8192;
/// Quality indices between anchors, and the anchors, counted in these from quality 0: from the finest
/// quality there is (so that a channel is silent at all qualities only if it is at that) up to a step
/// eight times the fitted one.
const ANCHOR_SPACING: i16 = 16;
const ANCHORS: std::ops::RangeInclusive<i16> = -16..=6;

/// A candidate takes the place of a simpler one only if it needs fewer than this share of its bytes.
const WORTH_IT: f64 = 0.995;

/// How task distortion is measured.
enum Meter {
    /// Answers of the tail to the selection's features.
    Tail(Vec<Vec<f64>>),
    /// Gradient samples at the selection's features.
    Gradients(Vec<Vec<Vec<f32>>>),
    /// Energy of the selection's features.
    Energy(f64),
}

/// A candidate's cost at the target distortion.
struct Scored {
    candidate: Candidate,
    bytes: f64,
    /// Quality index at which its draft reaches the target.
    index: i32,
}

pub(crate) struct Search<'a, 'r> {
    samples: &'a mut (dyn Samples + 'a),
    tail: Option<&'a mut (dyn Tail + 'a)>,
    options: &'a FitOptions,
    layout: Layout,
    grid: Grid,
    reporter: &'a mut Reporter<'r>,
    /// Samples that moments and tables are fitted on during the search, and those that select.
    fitting: Vec<usize>,
    selection: Vec<usize>,
    fitting_values: Vec<Vec<f32>>,
    selection_values: Vec<Vec<f32>>,
    meter: Meter,
    weights: Weights,
}

impl<'a, 'r> Search<'a, 'r> {
    pub fn new(
        samples: &'a mut (dyn Samples + 'a),
        mut tail: Option<&'a mut (dyn Tail + 'a)>,
        options: &'a FitOptions,
        layout: Layout,
        reporter: &'a mut Reporter<'r>,
    ) -> Result<Self> {
        let grid = Grid::new(&layout);
        let count = samples.len();
        let has_gradients = !samples.gradients(0)?.is_empty();
        let weights = match options.weights {
            Weights::Auto if has_gradients => Weights::Gradients,
            Weights::Auto if tail.is_some() => Weights::Probe,
            Weights::Auto => Weights::Unweighted,
            Weights::Gradients if !has_gradients => {
                return Err(Error::invalid("weights from gradients were asked for, but the samples have none"));
            }
            Weights::Probe if tail.is_none() => {
                return Err(Error::invalid("weights from probing were asked for, but there is no tail to probe"));
            }
            weights => weights,
        };
        // Every fourth sample selects.
        let cached = CACHED_VALUES / grid.len().max(1);
        let thin = |all: Vec<usize>, most: usize| -> Vec<usize> {
            let most = most.clamp(2, all.len());
            (0..most).map(|i| all[i * all.len() / most]).collect()
        };
        let fitting: Vec<usize> = (0..count).filter(|i| i % 4 != 3).collect();
        let selection = thin((0..count).filter(|i| i % 4 == 3).collect(), options.selection.min(cached / 3));
        let tabled = thin(fitting.clone(), TABLE_SAMPLES.min(cached * 2 / 3));
        let mut load = |indices: &[usize], stage: &str| -> Result<Vec<Vec<f32>>> {
            let mut all = Vec::new();
            for (i, &index) in indices.iter().enumerate() {
                reporter.progress(stage, i, indices.len());
                all.push(values(&samples.feature(index)?, &layout, index)?);
            }
            Ok(all)
        };
        let fitting_values = load(&tabled, "loading samples")?;
        let selection_values = load(&selection, "loading samples")?;
        if fitting_values.iter().chain(&selection_values).flatten().all(|&x| x == 0.0) {
            return Err(Error::invalid("the sample features hold no finite value other than zero"));
        }
        let meter = if let Some(tail) = &mut tail {
            let mut answers = Vec::new();
            for batch in selection_values.chunks(BATCH) {
                let batch: Vec<_> = batch.iter().map(|values| tensor(values, &layout, &grid)).collect();
                answers.extend(run_batch(*tail, &batch)?.iter().map(|logits| softmax(logits)));
            }
            Meter::Tail(answers)
        } else if has_gradients {
            let mut all = Vec::new();
            for &index in &selection {
                let gradients = samples.gradients(index)?;
                check_gradients(&gradients, &layout, index)?;
                all.push(gradients.iter().map(|gradient| channels_last(gradient, &layout)).collect());
            }
            Meter::Gradients(all)
        } else {
            let energy = |values: &Vec<f32>| values.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>();
            Meter::Energy(selection_values.iter().map(energy).sum::<f64>() / selection_values.len() as f64)
        };
        Ok(Search {
            samples,
            tail,
            options,
            layout,
            grid,
            reporter,
            fitting,
            selection,
            fitting_values,
            selection_values,
            meter,
            weights,
        })
    }

    /// Tries the candidates, then fits the best one to all samples.
    pub fn run(mut self) -> Result<Profile> {
        let measure = match self.meter {
            Meter::Tail(_) => "KL divergence of the tail's answer, in nats",
            Meter::Gradients(_) => "KL divergence predicted from gradient samples, in nats",
            Meter::Energy(_) => "squared error relative to the energy",
        };
        let weights = match self.weights {
            Weights::Gradients => "gradient samples",
            Weights::Probe => "probing the tail",
            _ => "none",
        };
        self.reporter.note(&format!(
            "{} samples of shape {:?}; {} fit, {} select; task weights: {weights}; bytes are compared at {measure}, of {}",
            self.samples.len(),
            self.layout.dims(),
            self.fitting.len(),
            self.selection.len(),
            self.options.target
        ));
        let fitting = self.fitting.clone();
        let mut known: Vec<Moments> = Vec::new();
        let mut best: Option<Scored> = None;

        // Transform and block size.
        let weighted = self.weights != Weights::Unweighted;
        let klt = self.options.transforms == Transforms::All && self.grid.channels <= MOST_KLT_CHANNELS;
        for block in self.blocks() {
            known.push(self.moments(block, &fitting)?);
            let Some(moments) = known.last() else { continue };
            let base = Candidate {
                block,
                channels: Channels::Identity,
                groups: Groups::One,
                floor: FLOOR,
                exponent: if weighted { 0.5 } else { 0.0 },
                rounding: 128,
                centroids: false,
                lambda: 0,
                context: ContextRule::None,
            };
            let mut candidates = Vec::new();
            if block == (1, 1) {
                candidates.push(base);
                candidates.push(Candidate { context: ContextRule::Neighbours, ..base });
            }
            if klt {
                let channels = if weighted { Channels::Weighted } else { Channels::Klt };
                let klt = Candidate { channels, ..base };
                if weighted && block == (1, 1) {
                    candidates.push(Candidate { channels: Channels::Klt, ..base });
                }
                candidates.push(klt);
                if block != (1, 1) {
                    candidates.push(Candidate { groups: Groups::Octaves, ..klt });
                    let entries = self.grid.channels * self.grid.channels;
                    if entries * (block.0 + block.1) <= MOST_MATRIX_ENTRIES {
                        candidates.push(Candidate { groups: Groups::Diagonals, ..klt });
                    }
                    if entries * block.0 * block.1 <= MOST_MATRIX_ENTRIES && block.0 * block.1 <= 256 {
                        candidates.push(Candidate { groups: Groups::Bands, ..klt });
                    }
                }
            } else if block != (1, 1) {
                candidates.push(base);
            }
            let moments = moments.clone();
            for candidate in candidates {
                let scored = self.score(&moments, candidate, best.as_ref())?;
                best = better(best, scored);
            }
        }
        let Some(mut best) = best else { return Err(Error::invalid("no block size is left to try")) };
        let moments = known
            .iter()
            .find(|moments| moments.block == best.candidate.block)
            .cloned()
            .ok_or_else(|| Error::invalid("no moments for the chosen block size"))?;

        // The rest, one choice at a time.
        if weighted {
            let floors = |base: Candidate| [0.1, 0.4].map(|floor| Candidate { floor, ..base }).to_vec();
            self.improve(&moments, &mut best, floors)?;
            let exponents = |base| [0.35, 0.42, 0.58].map(|exponent| Candidate { exponent, ..base }).to_vec();
            self.improve(&moments, &mut best, exponents)?;
        }
        self.improve(&moments, &mut best, |base| {
            [ContextRule::Neighbours, ContextRule::Runs].map(|context| Candidate { context, ..base }).to_vec()
        })?;
        self.improve(&moments, &mut best, |base| {
            let lambdas = [60, 120, 240].map(|lambda| Candidate { lambda, ..base });
            let roundings = [112, 96].map(|rounding| Candidate { rounding, ..base });
            [&lambdas[..], &roundings[..]].concat()
        })?;
        self.improve(&moments, &mut best, |base| vec![Candidate { centroids: true, ..base }])?;

        self.reporter.note(&format!("chosen: {}; {:.0} bytes at the target", best.candidate, best.bytes));
        self.finish(&best)
    }

    /// Takes the best of some variants of the best candidate so far, if one is better.
    fn improve(
        &mut self,
        moments: &Moments,
        best: &mut Scored,
        vary: impl Fn(Candidate) -> Vec<Candidate>,
    ) -> Result<()> {
        let base = best.candidate;
        for candidate in vary(base).into_iter().filter(|candidate| *candidate != base) {
            let too_many = moments.bands() * self.grid.channels > MOST_CONTEXT_CHANNELS;
            if candidate.context == ContextRule::Neighbours && too_many {
                continue;
            }
            let scored = self.score(moments, candidate, Some(best))?;
            if scored.bytes < best.bytes * WORTH_IT {
                *best = scored;
            }
        }
        Ok(())
    }

    /// Block sizes to try: none, then divisors of the map near 8, twice that, and the whole map if small.
    fn blocks(&self) -> Vec<(usize, usize)> {
        let (height, width) = (self.grid.height, self.grid.width);
        let allowed = |&(rows, columns): &(usize, usize)| {
            let bands = rows * columns;
            rows <= MAX_BLOCK
                && columns <= MAX_BLOCK
                && bands * self.grid.channels <= 65_536
                && bands * self.grid.channels * self.grid.channels <= MOST_MOMENTS
        };
        let square = |side: usize| (side.min(height), side.min(width));
        let mut blocks: Vec<(usize, usize)> = match &self.options.blocks {
            Some(sides) => sides.iter().map(|&side| square(side.max(1))).collect(),
            None if self.options.transforms == Transforms::Identity => vec![(1, 1)],
            None => {
                // The side near 8 that pads least, then that near 14.
                let padding = |side: usize| {
                    let grown = |length: usize| length.div_ceil(side) * side;
                    grown(height) * grown(width) - height * width
                };
                let near = |sides: std::ops::RangeInclusive<usize>, ideal: usize| {
                    sides.min_by_key(|&side| (padding(side), side.abs_diff(ideal))).map(square)
                };
                [Some((1, 1)), near(6..=9, 8), near(12..=16, 14)].into_iter().flatten().collect()
            }
        };
        let mut seen = Vec::new();
        blocks.retain(|block| {
            allowed(block) && !seen.contains(block) && {
                seen.push(*block);
                true
            }
        });
        blocks
    }

    /// Moments and task metric at a block size, over these samples.
    fn moments(&mut self, block: (usize, usize), indices: &[usize]) -> Result<Moments> {
        let Search { samples, layout, grid, reporter, weights, .. } = self;
        let use_gradients = *weights == Weights::Gradients;
        let mut moments = gather(grid, block, |add| {
            for (i, &index) in indices.iter().enumerate() {
                reporter.progress("gathering moments", i, indices.len());
                let feature = values(&samples.feature(index)?, layout, index)?;
                let mut gradients = Vec::new();
                if use_gradients {
                    let all = samples.gradients(index)?;
                    check_gradients(&all, layout, index)?;
                    gradients.extend(all.iter().map(|gradient| channels_last(gradient, layout)));
                }
                add(&feature, &gradients)?;
            }
            Ok(())
        })?;
        if *weights == Weights::Probe
            && let Some(tail) = &mut self.tail
        {
            let groups = band_groups(Groups::Octaves, block);
            let dct = FloatDct::new(block);
            let metric = metric::probe(*tail, &self.fitting_values, &self.layout, &dct, &groups, self.reporter)?;
            moments.metric = Some(metric);
        }
        Ok(moments)
    }

    /// Finds the bytes of a candidate at the target distortion.
    fn score(&mut self, moments: &Moments, candidate: Candidate, best: Option<&Scored>) -> Result<Scored> {
        let profile = draft(self.layout, moments, &candidate)?;
        let coefficients = self.coefficients(&profile);
        let start = best.map_or(0, |best| if similar(&best.candidate, &candidate) { best.index } else { 0 });
        let (bytes, index) = self.at_target(&profile, &coefficients, candidate.centroids, start)?;
        self.reporter.note(&format!("{bytes:8.0} bytes: {candidate}"));
        Ok(Scored { candidate, bytes, index })
    }

    /// Bytes and quality index at which a draft reaches the target, near `start` if that is near it.
    ///
    /// Distortion is measured at several qualities around it and averaged by a line, for it is noisy;
    /// drafts that start alike are measured at the same qualities.
    fn at_target(
        &mut self,
        profile: &Profile,
        coefficients: &[Vec<i32>],
        centroids: bool,
        start: i32,
    ) -> Result<(f64, i32)> {
        let target = libm::log(self.options.target);
        let mut points: Vec<(i32, Point)> = Vec::new();
        let mut centre = start;
        for _ in 0..3 {
            for offset in FAN {
                let index = centre + offset;
                if points.iter().all(|(at, _)| *at != index) {
                    points.push((index, self.point(profile, coefficients, index, centroids)?));
                }
                // Too far away for a line: close in first.
                if let Some(next) = next_index(&points, target).filter(|next| (next - centre).abs() > 48) {
                    centre = next;
                    let mut next = Some(next);
                    while let Some(index) = next.filter(|_| points.len() < MOST_POINTS) {
                        points.push((index, self.point(profile, coefficients, index, centroids)?));
                        next = next_index(&points, target);
                    }
                    centre = interpolate(&points, target).unwrap_or(centre);
                }
            }
            let (bytes, index) = at_line(&points, centre, target);
            if (index - centre).abs() <= 20 || points.len() >= MOST_POINTS {
                return Ok((bytes, index));
            }
            centre = index;
        }
        Ok(at_line(&points, centre, target))
    }

    /// Coefficients of the cached samples under a draft's transform.
    fn coefficients(&self, profile: &Profile) -> Vec<Vec<i32>> {
        let mut scratch = TransformScratch::default();
        self.fitting_values.iter().map(|values| coefficients_of(profile, &self.grid, values, &mut scratch)).collect()
    }

    /// Fits tables at one quality of a draft, codes the selection, and measures.
    fn point(&mut self, profile: &Profile, coefficients: &[Vec<i32>], index: i32, centroids: bool) -> Result<Point> {
        let mut profile = profile.clone();
        shift_steps(&mut profile, index);
        tables::fit(&mut profile, &self.grid, &[0], centroids, self.reporter, |_, visit, _| {
            coefficients.iter().for_each(|coefficients| visit(coefficients, None));
            Ok(())
        })?;
        let profile = Arc::new(profile);
        let mut encoder = Encoder::with_profile(profile.clone());
        let mut decoder = Decoder::new().profile(profile);
        let mut bytes = 0;
        let mut decoded = Vec::with_capacity(self.selection_values.len());
        for values in &self.selection_values {
            let feature = tensor(values, &self.layout, &self.grid);
            let view = FeatureView::from(&feature).with_axes(self.layout.axes);
            let stream = encoder.encode(view, Quality::Scale(1.0))?;
            bytes += stream.len();
            decoded.push(decoder.decode(&stream)?.to_f32());
        }
        let count = decoded.len() as f64;
        let distortion = match &self.meter {
            Meter::Tail(answers) => {
                let Some(tail) = &mut self.tail else { return Err(Error::invalid("the tail is missing")) };
                let mut sum = 0.0;
                for (batch, answers) in decoded.chunks(BATCH).zip(answers.chunks(BATCH)) {
                    let logits = run_batch(*tail, batch)?;
                    sum += logits.iter().zip(answers).map(|(logits, p)| divergence(p, logits)).sum::<f64>();
                }
                sum / count
            }
            Meter::Gradients(gradients) => {
                let mut sum = 0.0;
                for ((values, decoded), gradients) in self.selection_values.iter().zip(&decoded).zip(gradients) {
                    let decoded = channels_last(decoded, &self.layout);
                    for gradient in gradients {
                        let dot: f64 = gradient
                            .iter()
                            .zip(values.iter().zip(&decoded))
                            .map(|(&g, (&x, &y))| f64::from(g) * (f64::from(y) - f64::from(x)))
                            .sum();
                        sum += 0.5 * dot * dot / gradients.len() as f64;
                    }
                }
                sum / count
            }
            Meter::Energy(energy) => {
                let mut sum = 0.0;
                for (values, decoded) in self.selection_values.iter().zip(&decoded) {
                    let decoded = channels_last(decoded, &self.layout);
                    sum += values
                        .iter()
                        .zip(&decoded)
                        .map(|(&x, &y)| libm::pow(f64::from(y) - f64::from(x), 2.0))
                        .sum::<f64>();
                }
                sum / count / energy
            }
        };
        Ok(Point { bytes: bytes as f64 / count, distortion })
    }

    /// Fits the winner to all samples, at all anchors.
    fn finish(mut self, best: &Scored) -> Result<Profile> {
        let all: Vec<usize> = (0..self.samples.len()).collect();
        let moments = self.moments(best.candidate.block, &all)?;
        let mut profile = draft(self.layout, &moments, &best.candidate)?;
        // All samples move the steps a little against those of the search: find the target again.
        let coefficients = self.coefficients(&profile);
        let (_, index) = self.at_target(&profile, &coefficients, best.candidate.centroids, best.index)?;
        shift_steps(&mut profile, index);
        let anchors = anchors();
        let Search { samples, layout, grid, reporter, .. } = &mut self;
        let mut scratch = TransformScratch::default();
        tables::fit(&mut profile, grid, &anchors, best.candidate.centroids, reporter, |profile, visit, reporter| {
            for index in 0..samples.len() {
                reporter.progress("fitting tables", index, samples.len());
                let values = values(&samples.feature(index)?, layout, index)?;
                visit(&coefficients_of(profile, grid, &values, &mut scratch), None);
            }
            Ok(())
        })?;
        profile.notes = self.reporter.notes.clone();
        profile.hash = profile.content_hash();
        profile.validate(&crate::limits::Limits::default())?;
        Ok(profile)
    }
}

/// Refuses gradients of another shape than the samples'.
fn check_gradients(gradients: &[ArrayD<f32>], layout: &Layout, index: usize) -> Result<()> {
    let same = |shape: &[usize]| shape == &layout.padded_shape()[..layout.dims().len()];
    match gradients.iter().find(|gradient| !same(gradient.shape())) {
        Some(other) => Err(Error::invalid(format!(
            "a gradient of sample {index} has shape {:?}, the samples have {:?}",
            other.shape(),
            layout.dims()
        ))),
        None => Ok(()),
    }
}

fn coefficients_of(profile: &Profile, grid: &Grid, values: &[f32], scratch: &mut TransformScratch) -> Vec<i32> {
    let scale = power_of_two(profile.exponent);
    let integers: Vec<i16> = values.iter().map(|&x| to_int(x, scale)).collect();
    let blocks = Blocks::new(grid, profile.block());
    let mut coefficients = vec![0; blocks.count() * profile.coder_channels()];
    let sink = Kept(&mut coefficients);
    transform::forward(profile, grid, 0..blocks.rows, &integers, sink, scratch, Kernels::best());
    coefficients
}

/// The quality indices at which tables are fitted.
pub(crate) fn anchors() -> Vec<i16> {
    ANCHORS.map(|i| i * ANCHOR_SPACING).collect()
}

fn shift_steps(profile: &mut Profile, index: i32) {
    for step in &mut profile.steps {
        *step = (i32::from(*step) + index).clamp(0, 4095) as u16;
    }
}

/// True if two candidates' drafts have their operating points at about the same quality index.
fn similar(a: &Candidate, b: &Candidate) -> bool {
    a.block == b.block && a.channels == b.channels && a.exponent == b.exponent && a.floor == b.floor
}

fn better(best: Option<Scored>, scored: Scored) -> Option<Scored> {
    match best {
        Some(best) if best.bytes * WORTH_IT <= scored.bytes => Some(best),
        _ => Some(scored),
    }
}
