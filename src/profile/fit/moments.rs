//! First and second moments of features and of gradients, per band of a block DCT.

use crate::error::Result;
use crate::geometry::Grid;
use crate::transform::{Blocks, dct};

/// A block DCT in floating point, all channels at once.
pub(crate) struct FloatDct {
    pub block: (usize, usize),
    rows: Vec<f64>,
    columns: Vec<f64>,
}

impl FloatDct {
    pub fn new(block: (usize, usize)) -> FloatDct {
        FloatDct { block, rows: dct::exact(block.0), columns: dct::exact(block.1) }
    }

    /// Calls `visit(block, band coefficients)` with `bands * channels` values for every block.
    pub fn visit(&self, grid: &Grid, values: &[f32], mut visit: impl FnMut(usize, &[f64])) {
        let blocks = Blocks::new(grid, self.block);
        let channels = grid.channels;
        let pixels = self.block.0 * self.block.1;
        let mut block = vec![0.0; pixels * channels];
        let mut other = block.clone();
        for index in 0..blocks.count() {
            blocks.pixels(grid, index / blocks.columns, index % blocks.columns, |pixel, line, column, _| {
                let position = line * grid.width + column;
                let from = &values[position * channels..][..channels];
                for (to, &x) in block[pixel * channels..][..channels].iter_mut().zip(from) {
                    *to = f64::from(x);
                }
            });
            self.apply(&mut block, &mut other, channels, false);
            visit(index, &block);
        }
    }

    /// The values (channels last) of which `coefficients(block, out)` are the coefficients; the grid
    /// must be a whole number of blocks for this to be exact, what lies outside is dropped.
    pub fn inverse(&self, grid: &Grid, mut coefficients: impl FnMut(usize, &mut [f64])) -> Vec<f32> {
        let blocks = Blocks::new(grid, self.block);
        let channels = grid.channels;
        let mut values = vec![0.0; grid.len()];
        let mut block = vec![0.0; self.block.0 * self.block.1 * channels];
        let mut other = block.clone();
        for index in 0..blocks.count() {
            coefficients(index, &mut block);
            self.apply(&mut block, &mut other, channels, true);
            blocks.pixels(grid, index / blocks.columns, index % blocks.columns, |pixel, line, column, inside| {
                let position = line * grid.width + column;
                if inside {
                    let to = &mut values[position * channels..][..channels];
                    for (to, &x) in to.iter_mut().zip(&block[pixel * channels..][..channels]) {
                        *to = x as f32;
                    }
                }
            });
        }
        values
    }

    fn apply(&self, block: &mut [f64], other: &mut [f64], channels: usize, transpose: bool) {
        let (rows, columns) = self.block;
        if rows * columns == 1 {
            return;
        }
        pass(&self.rows, rows, 1, columns * channels, transpose, block, other);
        pass(&self.columns, columns, rows, channels, transpose, other, block);
    }
}

fn pass(matrix: &[f64], side: usize, groups: usize, width: usize, transpose: bool, from: &[f64], to: &mut [f64]) {
    for group in 0..groups {
        let base = group * side * width;
        for u in 0..side {
            let out = &mut to[base + u * width..][..width];
            out.fill(0.0);
            for y in 0..side {
                let factor = if transpose { matrix[y * side + u] } else { matrix[u * side + y] };
                for (out, &x) in out.iter_mut().zip(&from[base + y * width..][..width]) {
                    *out += factor * x;
                }
            }
        }
    }
}

/// Sums of y y' per band, for vectors y of one value per channel.
#[derive(Debug, Clone)]
pub(crate) struct SecondMoments {
    pub channels: usize,
    /// Per band, row-major, upper triangle.
    sums: Vec<f64>,
    pub count: f64,
}

impl SecondMoments {
    pub fn new(bands: usize, channels: usize) -> Self {
        SecondMoments { channels, sums: vec![0.0; bands * channels * channels], count: 0.0 }
    }

    /// Adds the coefficients of one block, all bands.
    pub fn add(&mut self, coefficients: &[f64]) {
        let n = self.channels;
        for (y, sums) in coefficients.chunks_exact(n).zip(self.sums.chunks_exact_mut(n * n)) {
            for (i, &a) in y.iter().enumerate() {
                if a == 0.0 {
                    continue;
                }
                for (sum, &b) in sums[i * n + i..(i + 1) * n].iter_mut().zip(&y[i..]) {
                    *sum += a * b;
                }
            }
        }
        self.count += 1.0;
    }

    /// The mean of y y' of one band as a full symmetric matrix.
    pub fn band(&self, band: usize) -> Vec<f64> {
        let n = self.channels;
        let sums = &self.sums[band * n * n..][..n * n];
        let count = self.count.max(1.0);
        (0..n * n).map(|i| sums[(i / n).min(i % n) * n + (i / n).max(i % n)] / count).collect()
    }
}

/// Moments of the features at one block size.
#[derive(Debug, Clone)]
pub(crate) struct Moments {
    pub block: (usize, usize),
    /// Mean coefficient, per band and channel.
    pub mean: Vec<f64>,
    pub second: SecondMoments,
    /// Curvature of the task loss per band, if known.
    pub metric: Option<Vec<Vec<f64>>>,
    /// Largest norm of one band's channels in one block.
    pub largest_norm: f64,
    /// Smallest and largest value of each channel.
    pub range: Vec<[f32; 2]>,
}

impl Moments {
    pub fn new(block: (usize, usize), channels: usize) -> Moments {
        let bands = block.0 * block.1;
        Moments {
            block,
            mean: vec![0.0; bands * channels],
            second: SecondMoments::new(bands, channels),
            metric: None,
            largest_norm: 0.0,
            range: vec![[f32::MAX, f32::MIN]; channels],
        }
    }

    pub fn bands(&self) -> usize {
        self.block.0 * self.block.1
    }

    /// Adds one feature.
    pub fn add(&mut self, dct: &FloatDct, grid: &Grid, values: &[f32]) {
        for row in values.chunks_exact(grid.channels) {
            for (range, &x) in self.range.iter_mut().zip(row) {
                *range = [range[0].min(x), range[1].max(x)];
            }
        }
        dct.visit(grid, values, |_, coefficients| {
            self.second.add(coefficients);
            for (sum, &y) in self.mean.iter_mut().zip(coefficients) {
                *sum += y;
            }
            for y in coefficients.chunks_exact(grid.channels) {
                let norm: f64 = y.iter().map(|y| y * y).sum();
                self.largest_norm = self.largest_norm.max(libm::sqrt(norm));
            }
        });
    }

    /// Turns sums into means; call it once, after the last feature.
    pub fn finish(&mut self) {
        let count = self.second.count.max(1.0);
        self.mean.iter_mut().for_each(|sum| *sum /= count);
    }

    /// Covariance between the channels of one band.
    pub fn covariance(&self, band: usize) -> Vec<f64> {
        let n = self.second.channels;
        let mean = &self.mean[band * n..][..n];
        let mut covariance = self.second.band(band);
        for (i, value) in covariance.iter_mut().enumerate() {
            *value -= mean[i / n] * mean[i % n];
        }
        covariance
    }
}

/// Gathers the moments of the features, and of their gradients if asked to, that `visit` walks through.
pub(crate) fn gather(
    grid: &Grid,
    block: (usize, usize),
    mut visit: impl FnMut(&mut dyn FnMut(&[f32], &[Vec<f32>]) -> Result<()>) -> Result<()>,
) -> Result<Moments> {
    let dct = FloatDct::new(block);
    let mut moments = Moments::new(block, grid.channels);
    let mut gradients = SecondMoments::new(moments.bands(), grid.channels);
    visit(&mut |values, samples| {
        moments.add(&dct, grid, values);
        for gradient in samples {
            dct.visit(grid, gradient, |_, coefficients| gradients.add(coefficients));
        }
        Ok(())
    })?;
    moments.finish();
    if gradients.count > 0.0 {
        moments.metric = Some((0..moments.bands()).map(|band| gradients.band(band)).collect());
    }
    Ok(moments)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::container::Layout;
    use crate::tensor::{Axes, Dtype};

    #[test]
    fn a_feature_comes_back_from_its_bands() {
        let layout = Layout::new(Dtype::F32, Axes::default_for(3), &[3, 8, 12]).unwrap();
        let grid = Grid::new(&layout);
        let values: Vec<f32> = (0..grid.len()).map(|i| (i as f32 * 0.7).sin()).collect();
        let dct = FloatDct::new((4, 6));
        let mut coefficients = Vec::new();
        dct.visit(&grid, &values, |_, block| coefficients.push(block.to_vec()));
        let energy: f64 = coefficients.iter().flatten().map(|y| y * y).sum();
        let expected: f64 = values.iter().map(|&x| f64::from(x) * f64::from(x)).sum();
        assert!((energy - expected).abs() < 1e-6 * expected);
        let back = dct.inverse(&grid, |block, out| out.copy_from_slice(&coefficients[block]));
        for (a, b) in back.iter().zip(&values) {
            assert!((a - b).abs() < 1e-5);
        }
    }
}
