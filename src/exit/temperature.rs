//! Temperatures: how far the logits of an exit must be scaled for its probabilities to be true.

use crate::error::{Error, Result};

/// The sharpness, one over the temperature, is searched between 1 / WIDEST and WIDEST.
const WIDEST: f64 = 1024.0;
/// How often the interval of its logarithm is halved: it is 20 octaves wide, and less than 1e-16 in the end.
const STEPS: usize = 60;

/// The temperature that minimises the mean negative log-likelihood of the labels (Guo et al. 2017, section 4.2), between
/// 1/1024 and 1024.
///
/// The negative log-likelihood is convex in one over the temperature, so its derivative has at most one zero, which is found
/// by bisection. If the logits are right on every image, the likelihood grows without end as the temperature falls to 0; if
/// they tell nothing about the labels, as it rises. The result is then near one of the bounds.
///
/// # Errors
/// `InvalidInput` if there are no images, a logit is not finite, or a label is not a class.
pub fn fit_temperature(logits: &[Vec<f32>], labels: &[u32]) -> Result<f64> {
    if logits.is_empty() || logits.len() != labels.len() {
        return Err(Error::invalid(format!("{} rows of logits for {} labels", logits.len(), labels.len())));
    }
    for (i, (row, &label)) in logits.iter().zip(labels).enumerate() {
        if label as usize >= row.len() || row.iter().any(|value| !value.is_finite()) {
            return Err(Error::invalid(format!("image {i}: label {label} of {} logits, or one not finite", row.len())));
        }
    }
    let (mut low, mut high) = (-WIDEST.ln(), WIDEST.ln());
    for _ in 0..STEPS {
        let middle = 0.5 * (low + high);
        if slope(logits, labels, middle.exp()) < 0.0 { low = middle } else { high = middle }
    }
    Ok((-0.5 * (low + high)).exp())
}

/// Derivative of the negative log-likelihood by the sharpness: the sum of E[z] - z of the label.
fn slope(logits: &[Vec<f32>], labels: &[u32], sharpness: f64) -> f64 {
    let one = |(row, &label): (&Vec<f32>, &u32)| {
        let largest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let (mut sum, mut mean) = (0.0, 0.0);
        for &value in row {
            let z = f64::from(value) - f64::from(largest);
            let e = (sharpness * z).exp();
            sum += e;
            mean += e * z;
        }
        mean / sum - (f64::from(row[label as usize]) - f64::from(largest))
    };
    logits.iter().zip(labels).map(one).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::tests::Draws;

    /// Logits of which the labels were drawn, times `scale`.
    fn drawn(scale: f64, images: usize) -> (Vec<Vec<f32>>, Vec<u32>) {
        let mut draws = Draws::new(7);
        let one = |_| {
            let logits: Vec<f64> = (0..5).map(|_| 2.0 * draws.normal()).collect();
            let label = draws.category(&logits);
            (logits.iter().map(|&z| (scale * z) as f32).collect(), label)
        };
        (0..images).map(one).unzip()
    }

    #[test]
    fn a_known_scale_is_recovered() {
        for scale in [0.05, 0.5, 1.0, 4.0, 100.0] {
            let (logits, labels) = drawn(scale, 20_000);
            let temperature = fit_temperature(&logits, &labels).unwrap();
            assert!((temperature / scale - 1.0).abs() < 0.05, "{scale}: {temperature}");
        }
    }

    #[test]
    fn logits_without_a_best_temperature_end_at_the_bounds() {
        let right = fit_temperature(&[vec![1.0, 0.0], vec![0.0, 2.0]], &[0, 1]).unwrap();
        let wrong = fit_temperature(&[vec![1.0, 0.0], vec![0.0, 2.0]], &[1, 0]).unwrap();
        assert!(right < 2.0 / WIDEST && (wrong / WIDEST - 1.0).abs() < 1e-6, "{right} {wrong}");
    }

    #[test]
    fn what_can_not_be_fitted_is_an_error() {
        assert!(fit_temperature(&[], &[]).is_err());
        assert!(fit_temperature(&[vec![1.0, 0.0]], &[2]).is_err());
        assert!(fit_temperature(&[vec![1.0, f32::NAN]], &[0]).is_err());
        assert!(fit_temperature(&[vec![]], &[0]).is_err());
    }
}
