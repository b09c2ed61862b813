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
    /// Where going on leads from each point: to each point of the next exit with these probabilities; at the last exit, the
    /// one probability that the rest is right.
    pub next: Vec<Vec<f64>>,
}

/// Fits the curves of all exits from readings [image][exit], whether each exit is right [image][exit], and whether the rest
/// is.
pub fn fit_curves(readings: &[Vec<Reading>], right: &[Vec<bool>], rest_right: &[bool]) -> Vec<Curve> {
    let exits = readings.first().map_or(0, Vec::len);
    let bins: Vec<Bins> = (0..exits).map(|exit| Bins::of(readings.iter().map(|row| row[exit].confidence))).collect();
    let one = |exit: usize| {
        let Bins { confidence, images, of } = &bins[exit];
        let share = |is: &dyn Fn(usize) -> bool| {
            let mut sums = vec![0.0; images.len()];
            for (image, &bin) in of.iter().enumerate() {
                sums[bin] += f64::from(u8::from(is(image)));
            }
            let means: Vec<f64> = sums.iter().zip(images).map(|(sum, images)| sum / images).collect();
            isotonic(&means, images)
        };
        let next = match bins.get(exit + 1) {
            None => share(&|image| rest_right[image]).into_iter().map(|p| vec![p]).collect(),
            Some(after) => {
                let mut rows = vec![vec![0.0; after.images.len()]; images.len()];
                for (&from, &to) in of.iter().zip(&after.of) {
                    rows[from][to] += 1.0 / images[from];
                }
                rows
            }
        };
        Curve { confidence: confidence.clone(), right: share(&|image| right[image][exit]), next }
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
pub struct Worth<'a> {
    pub route: &'a Route,
    pub weights: &'a Weights,
    pub conditions: &'a Conditions,
    /// Accuracy that a unit of cost is worth.
    pub price: f64,
    /// Seconds after the input by which an answer must be there.
    pub due: f64,
}

impl Worth<'_> {
    /// What an answer at an exit is worth, if it is right with this probability.
    pub fn at_exit(&self, exit: usize, right: f64) -> f64 {
        let spent = self.route.at_exit(exit, self.conditions, &self.weights.power);
        (if spent.delay <= self.due { right } else { 0.0 }) - self.price * self.weights.cost(&spent)
    }

    /// What the answer of the rest is worth, if it is right with each of these probabilities in turn.
    fn at_rest<'b>(&self, right: impl Iterator<Item = f64> + 'b) -> impl Iterator<Item = f64> + 'b {
        let power = &self.weights.power;
        let spent = self.route.at_rest(self.conditions, power);
        let slow = self.route.slow(self.conditions, power);
        let in_time = slow <= self.due && slow.is_finite();
        let cost = if self.price > 0.0 { self.price * self.weights.cost(&spent) } else { 0.0 };
        right.map(move |right| if in_time { right - cost } else { -cost })
    }
}

/// What going on from an exit is worth at each point of its curve, by backward induction from the last exit.
pub fn going_on(curves: &[Curve], exit: usize, worth: &Worth<'_>) -> AtKnots {
    let mut value = [0.0; KNOTS];
    let last = curves.len() - 1;
    for (value, right) in value.iter_mut().zip(worth.at_rest(curves[last].next.iter().map(|row| row[0]))) {
        *value = right;
    }
    for from in (exit..last).rev() {
        // At the exit after this one the better of answering and going on is taken.
        let (curve, after) = (&curves[from], &curves[from + 1]);
        for (value, &right) in value.iter_mut().zip(&after.right) {
            *value = value.max(worth.at_exit(from + 1, right));
        }
        let mut here = [0.0; KNOTS];
        for (here, row) in here.iter_mut().zip(&curve.next) {
            *here = row.iter().zip(&value).map(|(&share, &value)| if share > 0.0 { share * value } else { 0.0 }).sum();
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
        let curve = |right: [f64; 2], next: [Vec<f64>; 2]| Curve {
            confidence: vec![0.5, 0.9],
            right: right.to_vec(),
            next: next.to_vec(),
        };
        let curves = [curve([0.4, 0.8], [vec![0.5, 0.5], vec![0.1, 0.9]]), curve([0.5, 0.9], [vec![0.8], vec![0.95]])];
        let stage = |seconds| Stage { seconds, extra: 0.0 };
        let route = Route { exits: vec![stage(0.1), stage(0.2)], rest: Rest::Device { seconds: 0.4 } };
        let weights = Weights::default();
        let conditions = Conditions::default();
        let worth = Worth { route: &route, weights: &weights, conditions: &conditions, price: 1.0, due: f64::INFINITY };
        let last = going_on(&curves, 1, &worth);
        assert!((last[0] - 0.4).abs() < 1e-12 && (last[1] - 0.55).abs() < 1e-12);
        // At the second exit: unsure goes on for 0.4 rather than 0.3, sure answers for 0.7 rather than 0.55.
        let first = going_on(&curves, 0, &worth);
        assert!((first[0] - (0.5 * 0.4 + 0.5 * 0.7)).abs() < 1e-12 && (first[1] - (0.04 + 0.63)).abs() < 1e-12);
        assert!(answers(&curves[0], 0, 0.95, &first, &worth) && !answers(&curves[0], 0, 0.5, &first, &worth));
        // Nothing but the first exit is in time: it answers whatever it says.
        let late = Worth { due: 0.15, ..worth };
        let onward = going_on(&curves, 0, &late);
        assert!(answers(&curves[0], 0, 0.0, &onward, &late));
    }
}
