//! How often exits are right at a confidence, and what going on is worth there.

use crate::conditions::Conditions;
use crate::exit::costs::{Route, Weights};
use crate::exit::isotonic::{interpolate, isotonic};
use crate::exit::softmax::Reading;

/// Most points of a curve.
pub const KNOTS: usize = 24;
/// Fewest images for each point, where there are enough for two.
const IMAGES: usize = 32;

/// A number for each point of a curve; only the first ones are used if it has fewer.
pub type AtKnots = [f64; KNOTS];

/// What confidence means at one exit.
#[derive(Debug, Clone, PartialEq)]
pub struct Curve {
    /// Confidences, strictly ascending: the points of the others.
    pub confidence: Vec<f64>,
    /// Probability that the exit is right.
    pub right: Vec<f64>,
    /// Probability that the next exit is right; empty at the last.
    pub next_right: Vec<f64>,
    /// Probability that what comes after the last exit is right.
    pub rest_right: Vec<f64>,
    /// From each point, the probabilities of the points of the next exit; empty at the last.
    pub next: Vec<Vec<f64>>,
}

/// Fits the curves of all exits from readings [image][exit], whether each exit is right [image][exit], and whether the rest
/// is.
///
/// Decisions hang on small differences between the exit and what comes after it, which are known far better than either:
/// images that both get right, or both wrong, say nothing of them. So the differences are fitted, image by image, and never
/// rise with confidence: the surer an exit is, the less there is to gain.
pub fn fit_curves(readings: &[Vec<Reading>], right: &[Vec<bool>], rest_right: &[bool]) -> Vec<Curve> {
    let exits = readings.first().map_or(0, Vec::len);
    let bins: Vec<Bins> = (0..exits).map(|exit| Bins::of(readings.iter().map(|row| row[exit].confidence))).collect();
    let one = |exit: usize| {
        let Bins { confidence, images, of } = &bins[exit];
        let mean = |value: &dyn Fn(usize) -> f64| {
            let mut sums = vec![0.0; images.len()];
            of.iter().enumerate().for_each(|(image, &bin)| sums[bin] += value(image));
            sums.iter().zip(images).map(|(sum, images)| sum / images).collect::<Vec<f64>>()
        };
        let count = |is: bool| f64::from(u8::from(is));
        let own = isotonic(&mean(&|image| count(right[image][exit])), images);
        // Falling differences are rising ones of the other sign.
        let after = |is: &dyn Fn(usize) -> bool| -> Vec<f64> {
            let lead = isotonic(&mean(&|image| count(right[image][exit]) - count(is(image))), images);
            own.iter().zip(lead).map(|(own, lead)| (own - lead).clamp(0.0, 1.0)).collect()
        };
        let (mut next, mut next_right) = (Vec::new(), Vec::new());
        if let Some(to) = bins.get(exit + 1) {
            next = vec![vec![0.0; to.images.len()]; images.len()];
            of.iter().zip(&to.of).for_each(|(&from, &to)| next[from][to] += 1.0 / images[from]);
            next_right = after(&|image| right[image][exit + 1]);
        }
        let rest_right = after(&|image| rest_right[image]);
        Curve { confidence: confidence.clone(), right: own, next_right, rest_right, next }
    };
    (0..exits).map(one).collect()
}

/// Confidences in groups of about equal numbers.
struct Bins {
    /// Mean of each group.
    confidence: Vec<f64>,
    /// Images in each.
    images: Vec<f64>,
    /// The group of each image.
    of: Vec<usize>,
}

impl Bins {
    fn of(values: impl Iterator<Item = f64>) -> Bins {
        let values: Vec<f64> = values.collect();
        let mut order: Vec<usize> = (0..values.len()).collect();
        order.sort_by(|&a, &b| values[a].total_cmp(&values[b]));
        let size = values.len().div_ceil((values.len() / IMAGES).clamp(1, KNOTS));
        let mut bins = Bins { confidence: Vec::new(), images: Vec::new(), of: vec![0; values.len()] };
        let mut at = 0;
        while at < order.len() {
            let mut end = (at + size).min(order.len());
            // Equal confidences stay together, so that means ascend strictly.
            while end < order.len() && values[order[end]] == values[order[end - 1]] {
                end += 1;
            }
            let group = &order[at..end];
            let mean = group.iter().map(|&image| values[image]).sum::<f64>() / group.len() as f64;
            // Sums of nearly equal numbers may round to the same mean: such groups become one.
            if bins.confidence.last().is_none_or(|&last| mean > last) {
                bins.confidence.push(mean);
                bins.images.push(0.0);
            }
            let bin = bins.images.len() - 1;
            bins.images[bin] += group.len() as f64;
            group.iter().for_each(|&image| bins.of[image] = bin);
            at = end;
        }
        bins
    }
}

/// Prices of answers and the conditions: what turns a probability to be right into what an answer is worth.
///
/// What an answer costs is what it costs on average, so that a policy takes exits as often as where it was fitted. Whether
/// it is in time is asked of cautious conditions, since most answers must be.
pub struct Worth<'a> {
    route: &'a Route,
    weights: &'a Weights,
    /// For costs.
    expected: Conditions,
    /// For the deadline.
    cautious: Conditions,
    /// Accuracy that a unit of cost is worth.
    price: f64,
    /// Seconds after the input by which an answer must be there, under cautious conditions.
    due: f64,
}

impl<'a> Worth<'a> {
    /// The deadline of the conditions counts from when `passed` seconds of work, as the measured machine takes them, are done.
    pub fn new(route: &'a Route, weights: &'a Weights, conditions: &Conditions, price: f64, passed: f64) -> Worth<'a> {
        let cautious = conditions.cautious();
        let due = conditions.deadline + cautious.on_device(passed);
        Worth { route, weights, expected: *conditions, cautious, price, due }
    }

    /// What an answer at an exit is worth, if it is right with this probability.
    pub fn at_exit(&self, exit: usize, right: f64) -> f64 {
        let power = &self.weights.power;
        let spent = |conditions| self.route.at_exit(exit, conditions, power).expect("an exit of the route");
        let in_time = spent(&self.cautious).delay <= self.due;
        (if in_time { right } else { 0.0 }) - self.price * self.weights.cost(&spent(&self.expected))
    }

    /// What the answer of the rest is worth, as a function of its probability to be right.
    fn at_rest(&self) -> impl Fn(f64) -> f64 + use<> {
        let power = &self.weights.power;
        let spent = self.route.at_rest(&self.expected, power);
        let slow = self.route.slow(&self.cautious, power);
        let in_time = slow <= self.due && slow.is_finite();
        let cost = if self.price > 0.0 { self.price * self.weights.cost(&spent) } else { 0.0 };
        move |right: f64| if in_time { right.max(0.0) - cost } else { -cost }
    }
}

/// What going on from an exit is worth at each point of its curve, by backward induction from the last exit.
///
/// The chain from exit to exit knows only the last confidence, so what it says of images that came from one point is off by
/// a little; it is shifted there to what those images showed, of the next exit and of the rest.
pub fn going_on(curves: &[Curve], exit: usize, worth: &Worth<'_>) -> AtKnots {
    let at_rest = worth.at_rest();
    let last = curves.len() - 1;
    let mut value = [0.0; KNOTS];
    for (value, &right) in value.iter_mut().zip(&curves[last].rest_right) {
        *value = at_rest(right);
    }
    // What a probability to be right is worth at the rest, 1 if it is in time and 0 if it is not.
    let in_time = at_rest(1.0) - at_rest(0.0);
    for from in (exit..last).rev() {
        let (curve, after) = (&curves[from], &curves[from + 1]);
        let mut here = [0.0; KNOTS];
        for (k, here) in here.iter_mut().enumerate().take(curve.confidence.len()) {
            let row = &curve.next[k];
            let mean = |of: &[f64]| row.iter().zip(of).map(|(share, right)| share * right).sum::<f64>();
            let shift_next = curve.next_right[k] - mean(&after.right);
            let shift_rest = in_time * (curve.rest_right[k] - mean(&after.rest_right));
            // At the exit after this one the better of answering and going on is taken.
            for ((&share, &right), &onward) in row.iter().zip(&after.right).zip(&value) {
                if share > 0.0 {
                    let answer = worth.at_exit(from + 1, (right + shift_next).max(0.0));
                    *here += share * answer.max(onward + shift_rest);
                }
            }
        }
        value = here;
    }
    value
}

/// Whether answering at an exit is worth at least as much as going on, which is worth `onward` at the points of the curve.
pub fn answers(curve: &Curve, exit: usize, confidence: f64, onward: &AtKnots, worth: &Worth<'_>) -> bool {
    let stay = worth.at_exit(exit, interpolate(&curve.confidence, &curve.right, confidence));
    stay >= interpolate(&curve.confidence, &onward[..curve.confidence.len()], confidence)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::costs::{Rest, Stage};

    #[test]
    fn groups_ascend_and_hold_every_image() {
        for values in [vec![0.5; 100], (0..1000).map(|i| f64::from(i % 70) / 70.0).collect(), vec![0.2, 0.1]] {
            let bins = Bins::of(values.iter().copied());
            assert!(bins.confidence.windows(2).all(|pair| pair[0] < pair[1]));
            assert_eq!(bins.images.iter().sum::<f64>() as usize, values.len());
            assert!(bins.images.len() <= KNOTS && bins.of.iter().all(|&bin| bin < bins.images.len()));
        }
    }

    /// Two exits with two confidences each, worked out by hand.
    #[test]
    fn backward_induction_takes_the_better_way() {
        let confidence = vec![0.5, 0.9];
        let first = Curve {
            confidence: confidence.clone(),
            right: vec![0.4, 0.8],
            next_right: vec![0.7, 0.86],
            rest_right: vec![0.875, 0.935],
            next: vec![vec![0.5, 0.5], vec![0.1, 0.9]],
        };
        let last = Curve {
            confidence,
            right: vec![0.5, 0.9],
            next_right: Vec::new(),
            rest_right: vec![0.8, 0.95],
            next: Vec::new(),
        };
        let mut curves = [first, last];
        let stage = |seconds| Stage { seconds, extra: 0.0 };
        let route = Route { exits: vec![stage(0.1), stage(0.2)], rest: Rest::Device { seconds: 0.4 } };
        let weights = Weights::default();
        let conditions = Conditions::default();
        let worth = Worth::new(&route, &weights, &conditions, 1.0, 0.0);
        let last = going_on(&curves, 1, &worth);
        assert!((last[0] - 0.4).abs() < 1e-12 && (last[1] - 0.55).abs() < 1e-12);
        // At the second exit: unsure goes on for 0.4 rather than 0.3, sure answers for 0.7 rather than 0.55.
        let first = going_on(&curves, 0, &worth);
        assert!((first[0] - (0.5 * 0.4 + 0.5 * 0.7)).abs() < 1e-12 && (first[1] - (0.04 + 0.63)).abs() < 1e-12);
        assert!(answers(&curves[0], 0, 0.95, &first, &worth) && !answers(&curves[0], 0, 0.5, &first, &worth));
        // Images from the unsure point turn out better at the second exit than the chain says: by 0.1, sure or not.
        curves[0].next_right[0] += 0.1;
        assert!((going_on(&curves, 0, &worth)[0] - (0.5 * 0.4 + 0.5 * 0.8)).abs() < 1e-12);
        curves[0].next_right[0] -= 0.1;
        // Nothing but the first exit is in time: it answers whatever it says.
        let late = Worth::new(&route, &weights, &Conditions { deadline: 0.15, ..conditions }, 1.0, 0.0);
        let onward = going_on(&curves, 0, &late);
        assert!(answers(&curves[0], 0, 0.0, &onward, &late));
    }
}
