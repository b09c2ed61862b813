//! What one way of sending costs and what it does to the answers.

use serde_json::{Value, json};

/// What was measured on one image.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sample {
    /// Bytes sent.
    pub bytes: usize,
    /// The class that comes out.
    pub answer: usize,
    /// Probability that the network gives it.
    pub confidence: f32,
    /// The answer is the label.
    pub correct: bool,
    /// The answer is that of the uncut network on the raw input.
    pub agrees: bool,
    /// Kullback-Leibler divergence from the answer of the uncut network, in nats.
    pub divergence: f64,
    /// Microseconds to encode.
    pub encode: f64,
    /// Microseconds to decode.
    pub decode: f64,
}

/// Mean, spread and tail of the bytes sent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bytes {
    /// Mean.
    pub mean: f64,
    /// Standard deviation.
    pub std: f64,
    /// The least value that 99 % of the images do not exceed.
    pub p99: usize,
    /// Largest.
    pub max: usize,
}

/// One setting of one codec over all images.
#[derive(Debug, Clone, PartialEq)]
pub struct Point {
    /// Where the network is cut; `None` if the input itself is sent.
    pub cut: Option<String>,
    /// Name of the codec.
    pub codec: String,
    /// Its setting, empty if it has none.
    pub setting: String,
    /// Bytes per image, all headers in.
    pub bytes: Bytes,
    /// Bits per element of what is sent: pixels by channel, or elements of the feature.
    pub bits_per_element: f64,
    /// Share of images whose answer is the label.
    pub top1: f64,
    /// Share of images whose answer is that of the uncut network.
    pub agreement: f64,
    /// Mean divergence from the uncut network, in nats.
    pub divergence: f64,
    /// Median microseconds to encode.
    pub encode: f64,
    /// Median microseconds to decode.
    pub decode: f64,
}

impl Point {
    /// Sums up the samples of all images; `elements` is how many numbers each image or feature has.
    pub fn new(cut: Option<&str>, codec: &str, setting: &str, elements: usize, samples: &[Sample]) -> Point {
        let count = samples.len().max(1) as f64;
        let mean = |value: fn(&Sample) -> f64| samples.iter().map(value).sum::<f64>() / count;
        let mean_bytes = mean(|sample| sample.bytes as f64);
        let squares: f64 = samples.iter().map(|sample| (sample.bytes as f64 - mean_bytes).powi(2)).sum();
        let mut sizes: Vec<usize> = samples.iter().map(|sample| sample.bytes).collect();
        sizes.sort_unstable();
        Point {
            cut: cut.map(str::to_string),
            codec: codec.to_string(),
            setting: setting.to_string(),
            bytes: Bytes {
                mean: mean_bytes,
                std: (squares / count).sqrt(),
                p99: sizes.get((sizes.len() * 99).div_ceil(100).saturating_sub(1)).copied().unwrap_or(0),
                max: sizes.last().copied().unwrap_or(0),
            },
            bits_per_element: mean_bytes * 8.0 / elements.max(1) as f64,
            top1: mean(|sample| f64::from(sample.correct)),
            agreement: mean(|sample| f64::from(sample.agrees)),
            divergence: mean(|sample| sample.divergence),
            encode: median(samples.iter().map(|sample| sample.encode).collect()),
            decode: median(samples.iter().map(|sample| sample.decode).collect()),
        }
    }

    /// Codec and setting, for example `JPEG q50`.
    pub fn name(&self) -> String {
        format!("{} {}", self.codec, self.setting).trim_end().to_string()
    }

    /// The point as JSON.
    pub fn json(&self) -> Value {
        json!({
            "cut": self.cut,
            "codec": self.codec,
            "setting": self.setting,
            "bytes": {
                "mean": self.bytes.mean, "std": self.bytes.std, "p99": self.bytes.p99, "max": self.bytes.max,
            },
            "bits_per_element": self.bits_per_element,
            "top1": self.top1,
            "agreement": self.agreement,
            "kl_nats": self.divergence,
            "encode_us_median": self.encode,
            "decode_us_median": self.decode,
        })
    }
}

/// The middle value; the mean of the two in the middle; 0 of none.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => 0.0,
        odd if odd % 2 == 1 => values[middle],
        _ => (values[middle - 1] + values[middle]) / 2.0,
    }
}

/// Index of the largest value, the first of several.
pub fn argmax(logits: &[f32]) -> usize {
    let mut best = 0;
    for (i, &value) in logits.iter().enumerate() {
        if value > logits[best] || logits[best].is_nan() {
            best = i;
        }
    }
    best
}

/// The largest probability of the softmax.
pub fn confidence(logits: &[f32]) -> f32 {
    log_softmax(logits).into_iter().fold(0.0, |most: f64, x| most.max(x.exp())) as f32
}

/// Kullback-Leibler divergence of the softmax of `other` from that of `reference`, in nats.
pub fn divergence(reference: &[f32], other: &[f32]) -> f64 {
    let (reference, other) = (log_softmax(reference), log_softmax(other));
    let terms = reference.iter().zip(&other).map(|(&p, &q)| if p.exp() > 0.0 { p.exp() * (p - q) } else { 0.0 });
    terms.sum::<f64>().max(0.0)
}

fn log_softmax(logits: &[f32]) -> Vec<f64> {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|&x| f64::from(x - max).exp()).sum();
    logits.iter().map(|&x| f64::from(x - max) - sum.ln()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn divergence_of_known_distributions() {
        let logits = |p: f32| [p.ln(), (1.0 - p).ln()];
        let expected = 0.5 * (0.5f64 / 0.9).ln() + 0.5 * (0.5f64 / 0.1).ln();
        assert!((divergence(&logits(0.5), &logits(0.9)) - expected).abs() < 1e-6);
        assert_eq!(divergence(&[3.0, 1.0], &[13.0, 11.0]), 0.0);
        assert!(divergence(&[1000.0, -1000.0], &[0.0, 0.0]).is_finite());
        assert!((confidence(&logits(0.8)) - 0.8).abs() < 1e-6 && confidence(&[1e4, -1e4]) == 1.0);
    }

    #[test]
    fn a_point_sums_up_its_samples() {
        let sample = |bytes, correct| Sample {
            bytes,
            answer: 0,
            confidence: 1.0,
            correct,
            agrees: true,
            divergence: 0.25,
            encode: bytes as f64,
            decode: 1.0,
        };
        let samples: Vec<_> = (1..=200).map(|i| sample(i, i % 4 == 0)).collect();
        let point = Point::new(None, "JPEG", "q50", 8, &samples);
        assert_eq!((point.bytes.mean, point.bytes.p99, point.bytes.max), (100.5, 198, 200));
        assert_eq!((point.bits_per_element, point.top1, point.agreement), (100.5, 0.25, 1.0));
        assert_eq!((point.encode, point.divergence), (100.5, 0.25));
        assert_eq!(point.name(), "JPEG q50");
    }

    #[test]
    fn the_first_largest_logit_is_the_answer() {
        assert_eq!(argmax(&[1.0, 3.0, 3.0]), 1);
        assert_eq!(argmax(&[f32::NAN, 1.0]), 1);
        assert_eq!(argmax(&[]), 0);
    }
}
