//! Comparing rate curves: Bjontegaard's difference (BD-rate), and bytes at an equal accuracy.
//!
//! A curve is first reduced to its *front*: points that cost more bytes than another without being more
//! accurate would never be used, and are left out. That makes accuracy strictly increasing in bytes, so
//! the curve can be turned around: log(bytes) as a function of accuracy, drawn through the points as a
//! monotone piecewise cubic (PCHIP). BD-rate is the mean difference of two such functions over the
//! accuracies that both cover, as a percentage of bytes: -50 % is half the bytes at equal accuracy.

/// The front of a set of (bytes, accuracy) points: fewer bytes first, accuracy strictly increasing.
pub fn front(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let mut sorted: Vec<_> = points.iter().copied().filter(|p| p.0 > 0.0 && p.1.is_finite()).collect();
    sorted.sort_by(|a, b| a.0.total_cmp(&b.0).then(b.1.total_cmp(&a.1)));
    let mut best = f64::NEG_INFINITY;
    sorted.retain(|&(_, accuracy)| {
        let better = accuracy > best;
        best = best.max(accuracy);
        better
    });
    sorted
}

/// Least width of the common range, a point of accuracy: on fewer images than that is, a BD-rate is noise.
const LEAST_RANGE: f64 = 0.01;

/// A BD-rate and the range of accuracy that it is over.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BdRate {
    /// Difference in bytes, in percent; negative: fewer. None where the range is narrower than a point.
    pub percent: Option<f64>,
    /// Lowest accuracy that both curves reach.
    pub low: f64,
    /// Highest accuracy that both curves reach.
    pub high: f64,
}

/// BD-rate of `test` against `reference`, both (bytes, accuracy) points; `None` if either has fewer than
/// two points on its front, or if they have no accuracies in common.
pub fn bd_rate(test: &[(f64, f64)], reference: &[(f64, f64)]) -> Option<BdRate> {
    let [test, reference] = [test, reference].map(|points| Pchip::log_rate(&front(points)));
    let (test, reference) = (test?, reference?);
    let low = test.low().max(reference.low());
    let high = test.high().min(reference.high());
    if high <= low {
        return None;
    }
    let difference = (test.integral(low, high) - reference.integral(low, high)) / (high - low);
    // What is a point wide may be a little less in floats.
    let wide = high - low >= LEAST_RANGE - 1e-9;
    Some(BdRate { percent: wide.then(|| difference.exp_m1() * 100.0), low, high })
}

/// Bytes that a curve needs for an accuracy.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum BytesAt {
    /// Between two measured points, linear in log(bytes).
    About(f64),
    /// The cheapest measured point is already better.
    AtMost(f64),
    /// No measured point is as good.
    OutOfReach,
}

/// Bytes at which a curve of (bytes, accuracy) points reaches an accuracy.
pub fn bytes_at(points: &[(f64, f64)], accuracy: f64) -> BytesAt {
    let front = front(points);
    match front.iter().position(|&(_, reached)| reached >= accuracy) {
        None => BytesAt::OutOfReach,
        Some(0) if front[0].1 > accuracy => BytesAt::AtMost(front[0].0),
        Some(0) => BytesAt::About(front[0].0),
        Some(i) => {
            let ((a, low), (b, high)) = (front[i - 1], front[i]);
            let t = (accuracy - low) / (high - low);
            BytesAt::About((a.ln() + t * (b.ln() - a.ln())).exp())
        }
    }
}

/// A monotone piecewise cubic through points (Fritsch and Butland's slopes).
struct Pchip {
    x: Vec<f64>,
    y: Vec<f64>,
    slope: Vec<f64>,
}

impl Pchip {
    /// log(bytes) over accuracy, through the points of a front.
    fn log_rate(front: &[(f64, f64)]) -> Option<Pchip> {
        if front.len() < 2 {
            return None;
        }
        let x: Vec<f64> = front.iter().map(|p| p.1).collect();
        let y: Vec<f64> = front.iter().map(|p| p.0.ln()).collect();
        let width: Vec<f64> = x.windows(2).map(|pair| pair[1] - pair[0]).collect();
        let secant: Vec<f64> = y.windows(2).zip(&width).map(|(pair, width)| (pair[1] - pair[0]) / width).collect();
        let last = secant.len() - 1;
        let mut slope = vec![secant[0]; x.len()];
        if last > 0 {
            slope[0] = end_slope(width[0], width[1], secant[0], secant[1]);
            slope[last + 1] = end_slope(width[last], width[last - 1], secant[last], secant[last - 1]);
            for i in 1..=last {
                let (before, after) = (secant[i - 1], secant[i]);
                let (w1, w2) = (2.0 * width[i] + width[i - 1], width[i] + 2.0 * width[i - 1]);
                slope[i] = if before * after <= 0.0 { 0.0 } else { (w1 + w2) / (w1 / before + w2 / after) };
            }
        }
        Some(Pchip { x, y, slope })
    }

    fn low(&self) -> f64 {
        self.x[0]
    }

    fn high(&self) -> f64 {
        self.x[self.x.len() - 1]
    }

    /// Value within piece `i`.
    fn at(&self, i: usize, x: f64) -> f64 {
        let width = self.x[i + 1] - self.x[i];
        let t = (x - self.x[i]) / width;
        let (t2, t3) = (t * t, t * t * t);
        self.y[i] * (2.0 * t3 - 3.0 * t2 + 1.0)
            + self.slope[i] * width * (t3 - 2.0 * t2 + t)
            + self.y[i + 1] * (3.0 * t2 - 2.0 * t3)
            + self.slope[i + 1] * width * (t3 - t2)
    }

    /// Integral from `low` to `high`, both within the range. Simpson's rule is exact for cubics.
    fn integral(&self, low: f64, high: f64) -> f64 {
        let pieces = 0..self.x.len() - 1;
        let parts = pieces.map(|i| {
            let (a, b) = (self.x[i].max(low), self.x[i + 1].min(high));
            if b <= a {
                return 0.0;
            }
            (b - a) / 6.0 * (self.at(i, a) + 4.0 * self.at(i, (a + b) / 2.0) + self.at(i, b))
        });
        parts.sum()
    }
}

/// Slope at an end of the curve: a three-point formula, limited so that the curve stays monotone.
fn end_slope(width: f64, next_width: f64, secant: f64, next_secant: f64) -> f64 {
    let slope = ((2.0 * width + next_width) * secant - width * next_secant) / (width + next_width);
    if slope * secant <= 0.0 {
        0.0
    } else if secant * next_secant <= 0.0 && slope.abs() > 3.0 * secant.abs() {
        3.0 * secant
    } else {
        slope
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const JPEG: [(f64, f64); 5] = [(1000.0, 0.3), (2000.0, 0.5), (4000.0, 0.7), (8000.0, 0.8), (16000.0, 0.85)];

    #[test]
    fn half_the_bytes_everywhere_is_minus_fifty_percent() {
        let half = JPEG.map(|(bytes, accuracy)| (bytes / 2.0, accuracy));
        let bd = bd_rate(&half, &JPEG).unwrap();
        assert!((bd.percent.unwrap() + 50.0).abs() < 1e-9, "{bd:?}");
        assert_eq!((bd.low, bd.high), (0.3, 0.85));
        let twice = bd_rate(&JPEG, &half).unwrap();
        assert!((twice.percent.unwrap() - 100.0).abs() < 1e-9, "{twice:?}");
    }

    #[test]
    fn only_the_common_range_counts() {
        // Straight lines in log(bytes): the mean difference over 0.5..0.9 is that at the middle.
        let line = |from: f64, to: f64, bytes: fn(f64) -> f64| {
            (0..5).map(|i| from + (to - from) * f64::from(i) / 4.0).map(|x| (bytes(x), x)).collect::<Vec<_>>()
        };
        let a = line(0.5, 1.0, |x| (5.0 + x).exp());
        let b = line(0.1, 0.9, |x| (5.0 + 2.0 * x).exp());
        let bd = bd_rate(&a, &b).unwrap();
        assert!((bd.low, bd.high) == (0.5, 0.9));
        assert!((bd.percent.unwrap() - (-0.7f64).exp_m1() * 100.0).abs() < 1e-9, "{bd:?}");
        assert_eq!(bd_rate(&line(0.1, 0.2, |x| x), &line(0.3, 0.4, |x| x)), None);
        assert_eq!(bd_rate(&a[..1], &b), None);
    }

    #[test]
    fn one_image_of_many_is_no_range() {
        let curve = |high: f64| [(100.0, 0.5), (200.0, high)];
        let over = |high: f64| bd_rate(&curve(high), &[(400.0, 0.5), (900.0, 0.9)]).unwrap();
        assert_eq!(over(0.503), BdRate { percent: None, low: 0.5, high: 0.503 });
        assert!(over(0.51).percent.is_some());
    }

    #[test]
    fn the_cubic_is_the_one_worked_out_by_hand() {
        // Secants 1, 1/4, 5/2 over widths 1, 2, 1 give the slopes 5/4, 3/7, 1/2, 13/4.
        let points = [(1f64.exp(), 0.0), (2f64.exp(), 1.0), (2.5f64.exp(), 3.0), (5f64.exp(), 4.0)];
        let curve = Pchip::log_rate(&points).unwrap();
        for (slope, expected) in curve.slope.iter().zip([5.0 / 4.0, 3.0 / 7.0, 1.0 / 2.0, 13.0 / 4.0]) {
            assert!((slope - expected).abs() < 1e-12, "{slope} {expected}");
        }
        let pieces = [
            1.5 + (5.0 / 4.0 - 3.0 / 7.0) / 12.0,
            4.5 + 4.0 * (3.0 / 7.0 - 0.5) / 12.0,
            3.75 + (0.5 - 13.0 / 4.0) / 12.0,
        ];
        assert!((curve.integral(0.0, 4.0) - pieces.iter().sum::<f64>()).abs() < 1e-12);
        assert!((curve.at(1, 2.0) - (2.25 + (3.0 / 7.0 - 0.5) / 4.0)).abs() < 1e-12);
    }

    #[test]
    fn points_that_nobody_would_use_are_left_out() {
        let points = [(400.0, 0.8), (100.0, 0.5), (200.0, 0.7), (300.0, 0.6), (300.0, 0.65), (500.0, 0.8)];
        assert_eq!(front(&points), [(100.0, 0.5), (200.0, 0.7), (400.0, 0.8)]);
    }

    #[test]
    fn bytes_at_an_accuracy() {
        let points = [(100.0, 0.5), (400.0, 0.9)];
        assert_eq!(bytes_at(&points, 0.5), BytesAt::About(100.0));
        assert_eq!(bytes_at(&points, 0.4), BytesAt::AtMost(100.0));
        assert_eq!(bytes_at(&points, 0.95), BytesAt::OutOfReach);
        let BytesAt::About(bytes) = bytes_at(&points, 0.7) else { panic!() };
        assert!((bytes - 200.0).abs() < 1e-9);
        assert_eq!(bytes_at(&[], 0.5), BytesAt::OutOfReach);
    }
}
