//! Functions of time that are constant between steps, and begin again after their period.

use crate::error::{Error, Result};

/// A function of time with steps, repeated for ever.
#[derive(Debug, Clone, PartialEq)]
pub struct Steps {
    /// Seconds at which each value begins, from 0, strictly ascending.
    starts: Vec<f64>,
    values: Vec<f64>,
    /// Integral from 0 to each start, and over the whole period.
    sums: Vec<f64>,
    /// Seconds after which it repeats; infinite for a constant.
    period: f64,
}

impl Steps {
    /// A constant.
    pub fn constant(value: f64) -> Steps {
        Steps::summed(vec![0.0], vec![value], f64::INFINITY)
    }

    /// Values that begin at these seconds, the first at 0; after `period` seconds all begins again.
    ///
    /// # Errors
    /// `InvalidInput` if there is none, times do not ascend from 0 to below the period, or one of them, a value or the period
    /// is negative or not finite.
    pub fn new(points: &[(f64, f64)], period: f64) -> Result<Steps> {
        let (starts, values): (Vec<f64>, Vec<f64>) = points.iter().copied().unzip();
        if starts.first() != Some(&0.0) || starts.windows(2).any(|pair| pair[0] >= pair[1]) {
            return Err(Error::invalid("the times of a trace must ascend from 0"));
        }
        if starts.iter().chain(&values).any(|value| !(value.is_finite() && *value >= 0.0)) {
            return Err(Error::invalid("a value of a trace is negative or not finite"));
        }
        let last = starts[starts.len() - 1];
        if !(period.is_finite() && period > last) {
            return Err(Error::invalid(format!("a trace that repeats after {period} seconds has a step at {last}")));
        }
        Ok(Steps::summed(starts, values, period))
    }

    fn summed(starts: Vec<f64>, values: Vec<f64>, period: f64) -> Steps {
        let mut sums = vec![0.0];
        for (step, value) in values.iter().enumerate() {
            let end = starts.get(step + 1).copied().unwrap_or(period);
            sums.push(sums[step] + (end - starts[step]) * value);
        }
        Steps { starts, values, sums, period }
    }

    /// The same steps with other values.
    pub(super) fn map(&self, value: impl Fn(f64) -> f64) -> Steps {
        let values = self.values.iter().map(|&old| value(old)).collect();
        Steps::summed(self.starts.clone(), values, self.period)
    }

    /// True if this holds for each value.
    pub(super) fn all(&self, holds: impl Fn(f64) -> bool) -> bool {
        self.values.iter().all(|&value| holds(value))
    }

    /// Seconds after which it repeats; infinite for a constant.
    pub fn period(&self) -> f64 {
        self.period
    }

    /// The mean over a period.
    pub fn mean(&self) -> f64 {
        if self.period.is_finite() { self.sums[self.values.len()] / self.period } else { self.values[0] }
    }

    /// The value at a time of 0 or more.
    pub fn at(&self, time: f64) -> f64 {
        self.values[self.place(self.within(time))]
    }

    /// Share of the time in which the value is 0.
    pub fn share_at_zero(&self) -> f64 {
        if self.period == f64::INFINITY {
            return f64::from(u8::from(self.values[0] == 0.0));
        }
        let ends = self.starts[1..].iter().copied().chain([self.period]);
        let steps = self.starts.iter().zip(ends).zip(&self.values).filter(|(_, value)| **value == 0.0);
        steps.map(|((start, end), _)| end - start).sum::<f64>() / self.period
    }

    /// The first moment from `start` on at which the value is above 0; infinite if there is none.
    pub fn rises(&self, start: f64) -> f64 {
        let within = self.within(start);
        let at = self.place(within);
        if self.values[at] > 0.0 {
            return start;
        }
        let above = |&step: &usize| self.values[step] > 0.0;
        let count = self.values.len();
        match ((at + 1..count).find(above), (0..at).find(above)) {
            (Some(step), _) => start - within + self.starts[step],
            (None, Some(step)) => start - within + self.period + self.starts[step],
            (None, None) => f64::INFINITY,
        }
    }

    /// When the integral from `start` on reaches an amount; infinite if it never does.
    pub fn reach(&self, start: f64, amount: f64) -> f64 {
        if amount <= 0.0 {
            return start;
        }
        if amount == f64::INFINITY {
            return f64::INFINITY;
        }
        if self.period == f64::INFINITY {
            return start + amount / self.values[0];
        }
        let whole = self.sums[self.values.len()];
        if whole <= 0.0 {
            return f64::INFINITY;
        }
        let begin = self.within(start);
        let at = self.place(begin);
        let before = self.sums[at] + (begin - self.starts[at]) * self.values[at];
        // From the beginning of this period: whole periods, then the place within one.
        let wanted = before + amount;
        let mut periods = (wanted / whole).floor();
        let mut rest = wanted - periods * whole;
        if rest <= 0.0 {
            // Exactly at the end of a period: it was reached in the one before.
            periods -= 1.0;
            rest += whole;
        }
        let step = self.sums.partition_point(|&sum| sum < rest).clamp(1, self.values.len()) - 1;
        let within = self.starts[step] + (rest - self.sums[step]) / self.values[step];
        start - begin + periods * self.period + within
    }

    fn within(&self, time: f64) -> f64 {
        if self.period.is_finite() { time.rem_euclid(self.period) } else { 0.0 }
    }

    fn place(&self, within: f64) -> usize {
        self.starts.partition_point(|&start| start <= within).max(1) - 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn values_repeat_after_the_period() {
        let steps = Steps::new(&[(0.0, 10.0), (1.0, 0.0), (3.0, 4.0)], 5.0).unwrap();
        assert_eq!(steps.period(), 5.0);
        assert_eq!(
            [0.0, 0.9, 1.0, 2.9, 3.0, 4.9, 5.0, 6.0].map(|t| steps.at(t)),
            [10.0, 10.0, 0.0, 0.0, 4.0, 4.0, 10.0, 0.0]
        );
        assert_eq!((steps.mean(), steps.share_at_zero()), (18.0 / 5.0, 0.4));
        assert_eq!([0.5, 1.0, 2.5, 3.0, 11.5].map(|start| steps.rises(start)), [0.5, 3.0, 3.0, 3.0, 13.0]);
        let late = Steps::new(&[(0.0, 0.0), (1.0, 2.0), (2.0, 0.0)], 4.0).unwrap();
        assert_eq!([0.0, 2.5, 6.5].map(|start| late.rises(start)), [1.0, 5.0, 9.0]);
        assert_eq!(steps.map(|value| 10.0 - value).at(3.5), 6.0);
        // Within a step, over the gap, into the next period, over several.
        let reach = [(0.0, 5.0), (0.0, 10.0), (0.5, 6.0), (4.0, 9.0), (0.0, 36.0), (0.0, 37.0), (2.0, 0.0)];
        assert_eq!(reach.map(|(start, amount)| steps.reach(start, amount)), [0.5, 1.0, 3.25, 5.5, 10.0, 10.1, 2.0]);
    }

    #[test]
    fn constants_and_silence() {
        assert_eq!(Steps::constant(8.0).reach(3.0, 4.0), 3.5);
        assert_eq!(Steps::constant(0.0).reach(3.0, 4.0), f64::INFINITY);
        let silent = Steps::new(&[(0.0, 0.0), (1.0, 0.0)], 2.0).unwrap();
        assert_eq!([silent.reach(0.0, 1.0), silent.rises(0.5), Steps::constant(0.0).rises(0.5)], [f64::INFINITY; 3]);
        assert_eq!((silent.share_at_zero(), Steps::constant(0.0).share_at_zero()), (1.0, 1.0));
        let one = Steps::new(&[(0.0, 3.0)], 10.0).unwrap();
        assert_eq!((one.mean(), one.reach(7.0, 30.0), one.reach(7.0, f64::INFINITY)), (3.0, 17.0, f64::INFINITY));
        assert_eq!(Steps::constant(3.0).map(|value| value + 1.0), Steps::constant(4.0));
        for bad in [&[][..], &[(1.0, 1.0)], &[(0.0, 1.0), (0.0, 1.0)], &[(0.0, -1.0)], &[(0.0, f64::NAN)]] {
            assert!(Steps::new(bad, 9.0).is_err(), "{bad:?}");
        }
        for period in [0.0, 1.0, f64::NAN, f64::INFINITY] {
            assert!(Steps::new(&[(0.0, 1.0), (1.0, 2.0)], period).is_err(), "{period}");
        }
    }

    proptest! {
        /// The integral up to where an amount is reached is that amount.
        #[test]
        fn reaching_integrates(
            steps in prop::collection::vec((0.01f64..3.0, prop_oneof![Just(0.0), 0.1f64..50.0]), 2..12),
            start in 0.0f64..40.0,
            amount in 0.01f64..500.0,
        ) {
            let mut time = 0.0;
            let points: Vec<(f64, f64)> = steps.iter().map(|&(length, value)| { let at = time; time += length; (at, value) }).collect();
            let steps = Steps::new(&points, time).unwrap();
            let end = steps.reach(start, amount);
            if steps.mean() == 0.0 {
                prop_assert_eq!(end, f64::INFINITY);
            } else {
                // Step by step from the first period on.
                let upto = |time: f64| {
                    let mut sum = 0.0;
                    let mut at = 0.0;
                    for &(first, value) in points.iter().cycle() {
                        let next = points.iter().map(|point| point.0).find(|&other| other > first).unwrap_or(steps.period());
                        let end = (at + next - first).min(time);
                        sum += (end - at) * value;
                        at = end;
                        if at >= time {
                            return sum;
                        }
                    }
                    sum
                };
                let sum = upto(end) - upto(start);
                prop_assert!((sum - amount).abs() < 1e-6 * (amount + upto(end)), "{} {}", sum, amount);
                prop_assert!(steps.reach(start, 0.5 * amount) <= end);
            }
        }
    }
}
