//! Logits to an answer and how sure it is.

/// What the logits of one exit say.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Reading {
    /// The class of the largest logit, the first of several.
    pub class: usize,
    /// Its probability, 0 to 1.
    pub confidence: f64,
    /// Entropy of the probabilities of all classes in nats, 0 to the logarithm of their number.
    pub entropy: f64,
}

impl Reading {
    /// Reads logits, multiplied by `sharpness` (one over the temperature) before the softmax. `None` if there are none, or
    /// if one is not finite: nothing can be said then.
    pub fn of(logits: &[f32], sharpness: f64) -> Option<Reading> {
        let mut class = 0;
        for (i, &value) in logits.iter().enumerate() {
            if !value.is_finite() {
                return None;
            }
            if value > logits[class] {
                class = i;
            }
        }
        let largest = f64::from(*logits.get(class)?);
        // With x = sharpness (z - largest) and s the sum of exp(x): p = exp(x) / s, and the entropy is ln s - sum(p x).
        let (mut sum, mut weighted) = (0.0, 0.0);
        for &value in logits {
            let x = sharpness * (f64::from(value) - largest);
            let e = x.exp();
            sum += e;
            weighted += if e > 0.0 { e * x } else { 0.0 };
        }
        Some(Reading { class, confidence: 1.0 / sum, entropy: (sum.ln() - weighted / sum).max(0.0) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_probabilities_are_read() {
        let reading = Reading::of(&[0.7f32.ln(), 0.2f32.ln(), 0.1f32.ln()], 1.0).unwrap();
        let entropy = -(0.7f64 * 0.7f64.ln() + 0.2 * 0.2f64.ln() + 0.1 * 0.1f64.ln());
        assert_eq!(reading.class, 0);
        assert!((reading.confidence - 0.7).abs() < 1e-6 && (reading.entropy - entropy).abs() < 1e-6);
        let flat = Reading::of(&[5.0; 8], 3.0).unwrap();
        assert!((flat.confidence - 0.125).abs() < 1e-12 && (flat.entropy - 8f64.ln()).abs() < 1e-12);
    }

    #[test]
    fn what_is_not_finite_is_not_read() {
        assert_eq!(Reading::of(&[], 1.0), None);
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            assert_eq!(Reading::of(&[1.0, bad, 0.0], 1.0), None);
        }
        let far = Reading::of(&[f32::MAX, f32::MIN], 1e3).unwrap();
        assert_eq!((far.class, far.confidence, far.entropy), (0, 1.0, 0.0));
    }
}
