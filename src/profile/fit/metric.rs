//! The task metric by probing: perturb the feature, watch the logits.

use ndarray::ArrayD;

use super::moments::FloatDct;
use super::{Reporter, Tail};
use crate::container::Layout;
use crate::error::{Error, Result};
use crate::geometry::Grid;
use crate::transform::Blocks;

/// Tail runs that probing may take in all.
const MOST_RUNS: usize = 12_288;
/// Features that the tail is given at a time.
pub(crate) const BATCH: usize = 16;
/// Size of a perturbation relative to the root mean square of the coefficients it is added to.
const AMPLITUDE: f64 = 0.25;

/// Deterministic pseudo-random numbers (SplitMix64).
pub(crate) struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn sign(&mut self) -> f64 {
        if self.next() & 1 == 0 { 1.0 } else { -1.0 }
    }
}

/// softmax(logits), in f64.
pub(crate) fn softmax(logits: &[f32]) -> Vec<f64> {
    let largest = logits.iter().fold(f32::MIN, |a, &b| a.max(b));
    let exponentials: Vec<f64> = logits.iter().map(|&z| libm::exp(f64::from(z) - f64::from(largest))).collect();
    let sum: f64 = exponentials.iter().sum();
    exponentials.iter().map(|e| e / sum).collect()
}

/// KL divergence in nats from the answer `p` to softmax(logits).
pub(crate) fn divergence(p: &[f64], logits: &[f32]) -> f64 {
    let q = softmax(logits);
    let term = |(&p, &q): (&f64, &f64)| if p > 0.0 { p * libm::log(p / q.max(1e-300)) } else { 0.0 };
    p.iter().zip(&q).map(term).sum::<f64>().max(0.0)
}

/// What changed in the answer `p` when the logits moved from `before` to `after`: a vector whose
/// squared norm is twice the KL divergence, to second order.
fn response(p: &[f64], before: &[f32], after: &[f32], amplitude: f64) -> Vec<f64> {
    let moved = || after.iter().zip(before).map(|(&a, &b)| f64::from(a) - f64::from(b));
    let mean: f64 = p.iter().zip(moved()).map(|(p, z)| p * z).sum();
    p.iter().zip(moved()).map(|(p, z)| libm::sqrt(*p) * (z - mean) / amplitude).collect()
}

/// A layout-shaped tensor from values with channels last.
pub(crate) fn tensor(values: &[f32], layout: &Layout, grid: &Grid) -> ArrayD<f32> {
    let shape = layout.shape();
    let mut array = ArrayD::zeros(shape.as_slice());
    if let Some(out) = array.as_slice_mut() {
        grid.scatter(values, &shape, out);
    }
    array
}

/// Curvature of the KL divergence per band, from probes at some of `features` (channels last).
///
/// Every channel is perturbed with the same signs on all coefficients of a group of bands: the inner
/// products of the responses are then, in the mean over signs, the metric between channels in that
/// group. One perturbation of each band, with signs of their own in every channel, gives the band's
/// weight within its group.
pub(crate) fn probe(
    tail: &mut dyn Tail,
    features: &[Vec<f32>],
    layout: &Layout,
    dct: &FloatDct,
    band_group: &[u8],
    reporter: &mut Reporter<'_>,
) -> Result<Vec<Vec<f64>>> {
    let grid = Grid::new(layout);
    let (channels, bands) = (grid.channels, band_group.len());
    let groups = band_group.iter().max().map_or(1, |&last| usize::from(last) + 1);
    let per_feature = groups * channels + bands;
    let probed = (MOST_RUNS / per_feature).clamp(4, 64).min(features.len());
    let positions = Blocks::new(&grid, dct.block).count();
    let mut random = Random(0x6e61_7272_6f77_7321);
    let mut metric = vec![vec![0.0; channels * channels]; groups];
    let mut weights = vec![0.0; bands];
    for step in 0..probed {
        reporter.progress("probing the tail", step, probed);
        let values = &features[step * features.len() / probed];
        let before = one(tail, tensor(values, layout, &grid))?;
        let p = softmax(&before);
        let mut energy = vec![0.0; bands];
        dct.visit(&grid, values, |_, coefficients| {
            for (energy, y) in energy.iter_mut().zip(coefficients.chunks_exact(channels)) {
                *energy += y.iter().map(|y| y * y).sum::<f64>();
            }
        });
        let amplitude = |in_group: &dyn Fn(usize) -> bool| {
            let chosen = || (0..bands).filter(|&band| in_group(band));
            let mean =
                chosen().map(|band| energy[band]).sum::<f64>() / (chosen().count() * positions * channels) as f64;
            (AMPLITUDE * libm::sqrt(mean)).max(1e-6)
        };
        for (group, metric) in metric.iter_mut().enumerate() {
            let size = amplitude(&|band| usize::from(band_group[band]) == group);
            let signs: Vec<f64> = (0..positions * bands).map(|_| size * random.sign()).collect();
            let pattern = dct.inverse(&grid.single_channel(), |block, out| {
                for (band, out) in out.iter_mut().enumerate() {
                    let inside = usize::from(band_group[band]) == group;
                    *out = if inside { signs[block * bands + band] } else { 0.0 };
                }
            });
            let mut responses = Vec::with_capacity(channels);
            run(
                tail,
                channels,
                |channel| {
                    let mut moved = values.clone();
                    for (row, &delta) in moved.chunks_exact_mut(channels).zip(&pattern) {
                        row[channel] += delta;
                    }
                    tensor(&moved, layout, &grid)
                },
                |after| responses.push(response(&p, &before, after, size)),
            )?;
            for i in 0..channels {
                for j in i..channels {
                    let dot: f64 = responses[i].iter().zip(&responses[j]).map(|(a, b)| a * b).sum();
                    metric[i * channels + j] += dot;
                    if i != j {
                        metric[j * channels + i] += dot;
                    }
                }
            }
        }
        let sizes: Vec<f64> = (0..bands).map(|band| amplitude(&|other| other == band)).collect();
        let mut band = 0;
        run(
            tail,
            bands,
            |band| {
                let delta = dct.inverse(&grid, |_, out| {
                    out.fill(0.0);
                    out[band * channels..][..channels].iter_mut().for_each(|y| *y = sizes[band] * random.sign());
                });
                let moved: Vec<f32> = values.iter().zip(&delta).map(|(x, d)| x + d).collect();
                tensor(&moved, layout, &grid)
            },
            |after| {
                weights[band] += response(&p, &before, after, sizes[band]).iter().map(|r| r * r).sum::<f64>();
                band += 1;
            },
        )?;
    }
    reporter.progress("probing the tail", probed, probed);
    // Per coefficient: a group's probes moved all its bands in all blocks at once.
    let in_group = |group: usize| (0..bands).filter(move |&band| usize::from(band_group[band]) == group);
    Ok((0..bands)
        .map(|band| {
            let group = usize::from(band_group[band]);
            let members = in_group(group).count() as f64;
            let mean = in_group(group).map(|band| weights[band]).sum::<f64>() / members;
            let share = if mean > 0.0 { weights[band] / mean } else { 1.0 };
            let scale = share / (members * positions as f64 * probed as f64);
            metric[group].iter().map(|m| m * scale).collect()
        })
        .collect())
}

fn one(tail: &mut dyn Tail, feature: ArrayD<f32>) -> Result<Vec<f32>> {
    let mut logits = run_batch(tail, &[feature])?;
    logits.pop().ok_or_else(|| Error::invalid("the tail gave no logits"))
}

pub(crate) fn run_batch(tail: &mut dyn Tail, batch: &[ArrayD<f32>]) -> Result<Vec<Vec<f32>>> {
    let logits = tail.logits(batch)?;
    let same = logits.iter().all(|row| row.len() == logits[0].len() && row.iter().all(|z| z.is_finite()));
    if logits.len() != batch.len() || !same || logits[0].is_empty() {
        return Err(Error::invalid(format!(
            "the tail must give one row of finite logits for each of {} features; it gave {} rows",
            batch.len(),
            logits.len()
        )));
    }
    Ok(logits)
}

/// Runs the tail on `count` features in batches.
fn run(
    tail: &mut dyn Tail,
    count: usize,
    mut feature: impl FnMut(usize) -> ArrayD<f32>,
    mut take: impl FnMut(&[f32]),
) -> Result<()> {
    for start in (0..count).step_by(BATCH) {
        let batch: Vec<_> = (start..count.min(start + BATCH)).map(&mut feature).collect();
        run_batch(tail, &batch)?.iter().for_each(|logits| take(logits));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::{Axes, Dtype};

    #[test]
    fn probing_finds_what_a_tail_looks_at() {
        // The answer hangs on the means of channel 0 and, a tenth as much, of channel 1.
        let layout = Layout::new(Dtype::F32, Axes::default_for(3), &[3, 4, 4]).unwrap();
        let mut tail = |features: &[ArrayD<f32>]| -> Result<Vec<Vec<f32>>> {
            let mean = |f: &ArrayD<f32>, c: usize| f.iter().skip(16 * c).take(16).sum::<f32>() / 16.0;
            Ok(features.iter().map(|f| vec![mean(f, 0) + 0.1 * mean(f, 1), 0.0]).collect())
        };
        let mut random = Random(7);
        let mut noise = move || (random.next() >> 40) as f32 / 16_777_216.0 - 0.5;
        let features: Vec<Vec<f32>> = (0..24).map(|_| (0..48).map(|_| noise()).collect()).collect();
        let mut events = |_: super::super::FitEvent<'_>| {};
        let mut reporter = Reporter { events: &mut events, notes: String::new() };
        let groups = [0, 1, 1, 1];
        let dct = FloatDct::new((2, 2));
        let metric = probe(&mut tail, &features, &layout, &dct, &groups, &mut reporter).unwrap();
        let dc = &metric[0];
        assert!(dc[0] > 0.0);
        assert!((dc[1] / dc[0] - 0.1).abs() < 0.01 && (dc[4] / dc[0] - 0.01).abs() < 0.002, "{dc:?}");
        assert!(dc[8].abs() < 1e-9 * dc[0] && dc[2].abs() < 1e-6 * dc[0]);
        for band in &metric[1..] {
            assert!(band.iter().all(|entry| entry.abs() < 1e-3 * dc[0]), "{band:?}");
        }
    }

    #[test]
    fn divergence_is_zero_for_equal_answers_only() {
        let logits = [1.0, 2.0, -3.0];
        assert_eq!(divergence(&softmax(&logits), &logits), 0.0);
        assert!(divergence(&softmax(&logits), &[2.0, 1.0, -3.0]) > 0.1);
        // Half the squared response is the divergence of a small move.
        let after = [1.01, 1.98, -3.0];
        let p = softmax(&logits);
        let energy: f64 = response(&p, &logits, &after, 1.0).iter().map(|r| r * r).sum();
        assert!((energy / 2.0 / divergence(&p, &after) - 1.0).abs() < 0.05);
    }
}
