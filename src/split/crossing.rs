//! Where two actions take equally long.

use crate::conditions::Conditions;
use crate::split::{Estimate, Measurements};

/// The bandwidth, in bits a second, at which two actions have the same mean delay, all else as in `conditions`; `None`
/// if one of them is faster at every bandwidth.
///
/// A delay is a constant and the bits over the bandwidth, so two of them meet once at most: below it the one that sends
/// fewer bytes is faster, above it the other.
pub fn crossing(measurements: &Measurements, a: &Estimate, b: &Estimate, conditions: &Conditions) -> Option<f64> {
    let unlimited = Conditions { bandwidth: f64::INFINITY, ..*conditions };
    let constant = |one: &Estimate| Some(measurements.work(one.action)?.delay(one.bytes, &unlimited));
    let bandwidth = (a.bytes - b.bytes) * 8.0 / (constant(b)? - constant(a)?);
    (bandwidth > 0.0 && bandwidth.is_finite()).then_some(bandwidth)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::split::tests::example;
    use crate::split::{Action, Goal, Planner, Power};
    use std::sync::Arc;

    #[test]
    fn at_a_crossing_both_take_equally_long() {
        let planner = Planner::new(Arc::new(example()), Power::default(), Goal::Accuracy);
        let base = Conditions { device_speed: 0.3, wait: 0.01, ..Conditions::default() };
        let all = planner.candidates(&base);
        let mut found = 0;
        for (a, b) in all.iter().flat_map(|a| all.iter().map(move |b| (a, b))) {
            let Some(bandwidth) = crossing(planner.measurements(), a, b, &base) else { continue };
            found += 1;
            let delay =
                |action: Action, bandwidth| planner.estimate(action, &Conditions { bandwidth, ..base }).unwrap().delay;
            let (one, other) = (delay(a.action, bandwidth), delay(b.action, bandwidth));
            assert!((one - other).abs() < 1e-9 * one, "{a:?} {b:?}");
            let fewer = if a.bytes < b.bytes { (a, b) } else { (b, a) };
            assert!(delay(fewer.0.action, bandwidth / 2.0) < delay(fewer.1.action, bandwidth / 2.0));
        }
        assert!(found > 4, "{found}");
        assert_eq!(crossing(planner.measurements(), &all[0], &all[0], &base), None);
    }
}
