//! Isotonic regression, and values between its points.

/// The values that never fall and are nearest to those given by weighted squares: pool adjacent violators (Ayer et al., *An
/// empirical distribution function for sampling with incomplete information*, 1955). Weights must be above 0.
pub fn isotonic(values: &[f64], weights: &[f64]) -> Vec<f64> {
    // Runs of equal results: mean, weight, length.
    let mut runs: Vec<(f64, f64, usize)> = Vec::with_capacity(values.len());
    for (&value, &weight) in values.iter().zip(weights) {
        let mut run = (value, weight, 1);
        while let Some(&(mean, weight, length)) = runs.last().filter(|last| last.0 > run.0) {
            runs.pop();
            let sum = weight + run.1;
            run = ((mean * weight + run.0 * run.1) / sum, sum, length + run.2);
        }
        runs.push(run);
    }
    runs.into_iter().flat_map(|(mean, _, length)| std::iter::repeat_n(mean, length)).collect()
}

/// The value at `x` of the line through the points (`xs` ascending, `ys`), level beyond its ends.
pub fn interpolate(xs: &[f64], ys: &[f64], x: f64) -> f64 {
    let right = xs.partition_point(|&knot| knot <= x);
    if right == 0 {
        return ys[0];
    }
    if right >= xs.len().min(ys.len()) {
        return ys[xs.len().min(ys.len()) - 1];
    }
    let (low, high) = (ys[right - 1], ys[right]);
    if low == high {
        return low; // infinities too
    }
    low + (high - low) * (x - xs[right - 1]) / (xs[right] - xs[right - 1])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn violators_are_pooled() {
        assert_eq!(isotonic(&[1.0, 3.0, 2.0, 4.0], &[1.0; 4]), [1.0, 2.5, 2.5, 4.0]);
        assert_eq!(isotonic(&[3.0, 2.0, 1.0], &[1.0, 1.0, 2.0]), [1.75; 3]);
        assert!(isotonic(&[], &[]).is_empty());
    }

    #[test]
    fn between_points_a_line() {
        let (xs, ys) = ([0.0, 1.0, 3.0], [2.0, 4.0, 0.0]);
        let at = [-1.0, 0.0, 0.5, 1.0, 2.0, 3.0, 9.0].map(|x| interpolate(&xs, &ys, x));
        assert_eq!(at, [2.0, 2.0, 3.0, 4.0, 2.0, 0.0, 0.0]);
    }

    proptest! {
        /// It never falls, keeps the weighted mean, and no constant shift of a run would be nearer.
        #[test]
        fn isotonic_is_a_projection(pairs in prop::collection::vec((0.0f64..1.0, 0.1f64..3.0), 1..40)) {
            let (values, weights): (Vec<f64>, Vec<f64>) = pairs.into_iter().unzip();
            let fitted = isotonic(&values, &weights);
            prop_assert_eq!(fitted.len(), values.len());
            prop_assert!(fitted.windows(2).all(|pair| pair[0] <= pair[1]));
            let dot = |a: &[f64]| a.iter().zip(&weights).map(|(a, w)| a * w).sum::<f64>();
            prop_assert!((dot(&fitted) - dot(&values)).abs() < 1e-9);
            // The residual of a projection on a cone is orthogonal to the projection.
            let residual: f64 = fitted.iter().zip(&values).zip(&weights).map(|((f, v), w)| w * f * (v - f)).sum();
            prop_assert!(residual.abs() < 1e-9);
        }
    }
}
