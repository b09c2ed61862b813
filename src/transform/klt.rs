//! Channel transforms from second moments: the KLT and the task-weighted KLT.

/// A symmetric matrix's eigenvalues, descending, and eigenvectors as rows, by cyclic Jacobi rotations.
///
/// Plain IEEE arithmetic in a fixed order, so the same input gives the same output everywhere. Cost is
/// O(n^3) per sweep, some ten sweeps.
pub(crate) fn eigen(matrix: &[f64], n: usize) -> (Vec<f64>, Vec<f64>) {
    let mut a = matrix.to_vec();
    let mut v = vec![0.0; n * n];
    (0..n).for_each(|i| v[i * n + i] = 1.0);
    let scale: f64 = a.iter().map(|x| x * x).sum();
    for _sweep in 0..40 {
        let off: f64 =
            (0..n).flat_map(|i| (i + 1..n).map(move |j| (i, j))).map(|(i, j)| a[i * n + j] * a[i * n + j]).sum();
        if off <= 1e-24 * scale {
            break;
        }
        for p in 0..n {
            for q in p + 1..n {
                let apq = a[p * n + q];
                if apq * apq <= 1e-30 * (a[p * n + p] * a[q * n + q]).abs() {
                    continue;
                }
                let theta = (a[q * n + q] - a[p * n + p]) / (2.0 * apq);
                let t = theta.signum() / (theta.abs() + libm::sqrt(theta * theta + 1.0));
                let c = 1.0 / libm::sqrt(t * t + 1.0);
                let s = t * c;
                for k in 0..n {
                    let (x, y) = (a[k * n + p], a[k * n + q]);
                    a[k * n + p] = c * x - s * y;
                    a[k * n + q] = s * x + c * y;
                }
                rotate_rows(&mut a, n, p, q, c, s);
                rotate_rows(&mut v, n, p, q, c, s);
            }
        }
    }
    let mut order: Vec<usize> = (0..n).collect();
    order.sort_by(|&i, &j| a[j * n + j].total_cmp(&a[i * n + i]).then(i.cmp(&j)));
    let values = order.iter().map(|&i| a[i * n + i]).collect();
    let vectors = order.iter().flat_map(|&i| v[i * n..][..n].to_vec()).collect();
    (values, vectors)
}

fn rotate_rows(m: &mut [f64], n: usize, p: usize, q: usize, c: f64, s: f64) {
    let (head, tail) = m.split_at_mut(q * n);
    for (x, y) in head[p * n..][..n].iter_mut().zip(&mut tail[..n]) {
        (*x, *y) = (c * *x - s * *y, s * *x + c * *y);
    }
}

/// A basis of the channels: `forward` rows of unit norm, `inverse` such that inverse * forward = 1.
#[derive(Debug, Clone)]
pub(crate) struct Basis {
    pub forward: Vec<f64>,
    pub inverse: Vec<f64>,
}

/// The KLT of a covariance, or with a task metric the KLT of M^1/2 S M^1/2: the components are
/// uncorrelated and orthogonal in the metric.
///
/// `floor` (a fraction of the mean eigenvalue) is added to the metric's eigenvalues, so that it is
/// invertible and directions that the samples say do not matter are not trusted blindly.
pub(crate) fn basis(covariance: &[f64], metric: Option<&[f64]>, floor: f64, n: usize) -> Basis {
    let Some(metric) = metric else {
        let (_, vectors) = eigen(covariance, n);
        return Basis { inverse: transpose(&vectors, n), forward: vectors };
    };
    let (mut values, vectors) = eigen(metric, n);
    let mean = (values.iter().map(|value| value.max(0.0)).sum::<f64>() / n.max(1) as f64).max(1e-300);
    values.iter_mut().for_each(|value| *value = value.max(0.0) + floor * mean);
    let power = |exponent: f64| {
        let mut out = vec![0.0; n * n];
        for (value, vector) in values.iter().zip(vectors.chunks_exact(n)) {
            let weight = libm::pow(*value, exponent);
            for i in 0..n {
                for j in 0..n {
                    out[i * n + j] += weight * vector[i] * vector[j];
                }
            }
        }
        out
    };
    let (root, inverse_root) = (power(0.5), power(-0.5));
    let (_, vectors) = eigen(&product(&product(&root, covariance, n), &root, n), n);
    let mut forward = product(&vectors, &root, n);
    let mut inverse = product(&inverse_root, &transpose(&vectors, n), n);
    for i in 0..n {
        let norm = libm::sqrt(forward[i * n..][..n].iter().map(|x| x * x).sum::<f64>()).max(1e-300);
        forward[i * n..][..n].iter_mut().for_each(|x| *x /= norm);
        inverse.iter_mut().skip(i).step_by(n).for_each(|x| *x *= norm);
    }
    Basis { forward, inverse }
}

/// Row-major matrix product.
pub(crate) fn product(a: &[f64], b: &[f64], n: usize) -> Vec<f64> {
    let mut out = vec![0.0; n * n];
    for i in 0..n {
        for k in 0..n {
            let factor = a[i * n + k];
            for j in 0..n {
                out[i * n + j] += factor * b[k * n + j];
            }
        }
    }
    out
}

pub(crate) fn transpose(a: &[f64], n: usize) -> Vec<f64> {
    (0..n * n).map(|i| a[i % n * n + i / n]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spd(n: usize, seed: u64) -> Vec<f64> {
        let mut state = seed;
        let noise: Vec<f64> = (0..n * n)
            .map(|_| {
                state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                (state >> 40) as f64 / 16777216.0 - 0.5
            })
            .collect();
        product(&noise, &transpose(&noise, n), n)
    }

    fn assert_identity(m: &[f64], n: usize, tolerance: f64) {
        for (i, entry) in m.iter().enumerate() {
            let expected = f64::from(u8::from(i / n == i % n));
            assert!((entry - expected).abs() < tolerance, "{i}: {entry}");
        }
    }

    #[test]
    fn eigenvectors_are_orthonormal_and_diagonalise() {
        for n in [1, 2, 7, 33] {
            let matrix = spd(n, n as u64);
            let (values, vectors) = eigen(&matrix, n);
            assert!(values.windows(2).all(|pair| pair[0] >= pair[1]));
            assert_identity(&product(&vectors, &transpose(&vectors, n), n), n, 1e-9);
            let diagonal = product(&product(&vectors, &matrix, n), &transpose(&vectors, n), n);
            for i in 0..n * n {
                let expected = if i / n == i % n { values[i / n] } else { 0.0 };
                assert!((diagonal[i] - expected).abs() < 1e-8);
            }
        }
    }

    #[test]
    fn a_weighted_basis_inverts_and_decorrelates() {
        let n = 12;
        let (covariance, metric) = (spd(n, 3), spd(n, 5));
        let basis = basis(&covariance, Some(&metric), 0.01, n);
        assert_identity(&product(&basis.inverse, &basis.forward, n), n, 1e-8);
        let moved = product(&product(&basis.forward, &covariance, n), &transpose(&basis.forward, n), n);
        for i in 0..n {
            for j in 0..n {
                if i != j {
                    assert!(moved[i * n + j].abs() < 1e-8 * (moved[i * n + i] * moved[j * n + j]).sqrt().max(1.0));
                }
            }
        }
    }
}
