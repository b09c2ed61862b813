//! The DCT matrix of a block's side.

use crate::profile::Dct;

/// The orthonormal DCT-II of `side` points, rows being frequencies, in as many fractional bits (at
/// most 14) as keep the absolute sum of every row and column within 65,535.
pub(crate) fn matrix(side: usize) -> Dct {
    let exact = exact(side);
    let shift = (0..=14)
        .rev()
        .find(|&shift| largest_sum(&exact, side) * f64::from(1u32 << shift) + side as f64 <= 65_535.0)
        .unwrap_or(0);
    let scale = f64::from(1u32 << shift);
    Dct { matrix: exact.iter().map(|&entry| libm::rint(entry * scale) as i16).collect(), shift }
}

/// The same matrix in floating point, row-major.
pub(crate) fn exact(side: usize) -> Vec<f64> {
    let n = side as f64;
    (0..side * side)
        .map(|i| {
            let (frequency, point) = ((i / side) as f64, (i % side) as f64);
            let norm = libm::sqrt(if i < side { 1.0 } else { 2.0 } / n);
            norm * libm::cos(std::f64::consts::PI * (point + 0.5) * frequency / n)
        })
        .collect()
}

/// Largest sum of absolute values over a row or a column of a square matrix.
pub(crate) fn largest_sum(matrix: &[f64], side: usize) -> f64 {
    (0..side)
        .flat_map(|i| {
            let row: f64 = matrix[i * side..][..side].iter().map(|x| x.abs()).sum();
            let column: f64 = matrix[i..].iter().step_by(side).map(|x| x.abs()).sum();
            [row, column]
        })
        .fold(0.0, f64::max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_side_is_orthonormal_and_within_its_bound() {
        for side in 1..=64 {
            let dct = matrix(side);
            let scale = f64::from(1u32 << dct.shift);
            for i in 0..side {
                let sum: u32 = dct.matrix[i * side..][..side].iter().map(|&x| u32::from(x.unsigned_abs())).sum();
                assert!(sum <= 65_535, "{side}");
                for j in 0..side {
                    let dot: f64 = (0..side)
                        .map(|k| f64::from(dct.matrix[i * side + k]) * f64::from(dct.matrix[j * side + k]))
                        .sum();
                    let expected = f64::from(u8::from(i == j));
                    assert!((dot / scale / scale - expected).abs() < 2e-3, "{side} {i} {j}");
                }
            }
        }
    }
}
