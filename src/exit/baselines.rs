//! The rules that the literature starts from, as policies of the same kind.
//!
//! Thresholds are chosen on all images of the validation set for the same target, by the least mean cost. They do not look
//! at the conditions afterwards: that is what they are compared for.

use crate::conditions::Conditions;
use crate::error::{Error, Result};
use crate::exit::bound::{Tally, Target};
use crate::exit::costs::{Route, Weights};
use crate::exit::fit::{Rows, check, evidence};
use crate::exit::policy::{Evidence, Policy, Rule};
use crate::exit::samples::Samples;
use crate::exit::softmax::Reading;

/// Thresholds that are tried at each exit: quantiles of what it says.
const LEVELS: usize = 64;
/// Rounds over the exits at most; each can only lower the cost.
const ROUNDS: usize = 16;

impl Policy {
    /// Always goes on: what offloading without exits does, but for the time that the exits take.
    ///
    /// # Errors
    /// `InvalidInput` if there are fewer than two classes, or the route is not what it should be.
    pub fn never(classes: usize, route: Route) -> Result<Policy> {
        Policy::plain(classes, route, Rule::Never)
    }

    /// Always answers at one exit.
    ///
    /// # Errors
    /// As [`Policy::never`], or if the route has no such exit.
    pub fn always(exit: usize, classes: usize, route: Route) -> Result<Policy> {
        if exit >= route.exits.len() {
            return Err(Error::invalid(format!("no exit {exit} among {}", route.exits.len())));
        }
        Policy::plain(classes, route, Rule::Always(exit))
    }

    fn plain(classes: usize, route: Route, rule: Rule) -> Result<Policy> {
        route.check()?;
        if classes < 2 {
            return Err(Error::invalid(format!("a policy needs two classes or more, not {classes}")));
        }
        let evidence = Evidence { images: 0, accuracy: 0.0, rest_accuracy: 0.0, met: false };
        let sharpness = vec![1.0; route.exits.len()];
        Ok(Policy { classes, route, weights: Weights::default(), sharpness, rule, evidence })
    }

    /// One threshold on the largest probability, the same at every exit.
    ///
    /// # Errors
    /// As [`Policy::fit`].
    pub fn single_threshold(
        samples: &Samples<'_>,
        route: Route,
        weights: Weights,
        conditions: &Conditions,
        target: Target,
    ) -> Result<Policy> {
        fit(samples, route, weights, conditions, target, true, Score::Probability)
    }

    /// A threshold on the largest probability for each exit.
    ///
    /// # Errors
    /// As [`Policy::fit`].
    pub fn max_probability(
        samples: &Samples<'_>,
        route: Route,
        weights: Weights,
        conditions: &Conditions,
        target: Target,
    ) -> Result<Policy> {
        fit(samples, route, weights, conditions, target, false, Score::Probability)
    }

    /// A threshold on the entropy for each exit, the rule of BranchyNet (Teerapittayanon et al. 2016).
    ///
    /// # Errors
    /// As [`Policy::fit`].
    pub fn entropy(
        samples: &Samples<'_>,
        route: Route,
        weights: Weights,
        conditions: &Conditions,
        target: Target,
    ) -> Result<Policy> {
        fit(samples, route, weights, conditions, target, false, Score::Entropy)
    }
}

/// What a threshold is held against. Higher is surer.
#[derive(Clone, Copy, PartialEq)]
enum Score {
    Probability,
    Entropy,
}

impl Score {
    fn of(self, reading: &Reading) -> f64 {
        match self {
            Score::Probability => reading.confidence,
            Score::Entropy => -reading.entropy,
        }
    }
}

fn fit(
    samples: &Samples<'_>,
    route: Route,
    weights: Weights,
    conditions: &Conditions,
    target: Target,
    single: bool,
    score: Score,
) -> Result<Policy> {
    check(samples, &route, &weights, conditions)?;
    target.check()?;
    let exits = samples.exits.len();
    let sharpness = vec![1.0; exits];
    let readings = samples.readings(&sharpness);
    let rows = Rows::of(samples, &readings);
    let scores: Vec<Vec<f64>> =
        readings.iter().map(|row| row.iter().map(|reading| score.of(reading)).collect()).collect();
    let power = &weights.power;
    let exit_cost: Vec<f64> =
        (0..exits).filter_map(|exit| Some(weights.cost(&route.at_exit(exit, conditions, power)?))).collect();
    let rest_cost = weights.cost(&route.at_rest(conditions, power));
    // Tally and summed cost of thresholds.
    let judge = |least: &[f64]| {
        let (mut tally, mut cost) = (Tally::default(), 0.0);
        for (image, row) in scores.iter().enumerate() {
            let exit = row.iter().zip(least).position(|(score, least)| score >= least);
            rows.add(&mut tally, image, exit);
            cost += exit.map_or(rest_cost, |exit| exit_cost[exit]);
        }
        (tally, cost)
    };
    let levels = |exit: Option<usize>| -> Vec<f64> {
        let mut values: Vec<f64> = match exit {
            Some(exit) => scores.iter().map(|row| row[exit]).collect(),
            None => scores.iter().flatten().copied().collect(),
        };
        values.sort_by(f64::total_cmp);
        (0..LEVELS).map(|level| values[level * (values.len() - 1) / (LEVELS - 1)]).collect()
    };
    let none = vec![f64::INFINITY; exits];
    let mut best = (none.clone(), judge(&none));
    let met_without = target.holds(&best.1.0);
    let attempt = |thresholds: Vec<f64>, best: &mut (Vec<f64>, (Tally, f64))| {
        let judged = judge(&thresholds);
        let better = target.holds(&judged.0) && judged.1 < best.1.1;
        if better {
            *best = (thresholds, judged);
        }
        better
    };
    for level in levels(None) {
        attempt(vec![level; exits], &mut best);
    }
    if !single {
        // From the best common threshold, and from none at all: one exit after the other, until nothing is gained.
        let starts = [best.0.clone(), none];
        for start in starts {
            let mut here = (start.clone(), judge(&start));
            for _ in 0..ROUNDS {
                let mut gained = false;
                for exit in 0..exits {
                    for level in levels(Some(exit)) {
                        let mut thresholds = here.0.clone();
                        thresholds[exit] = level;
                        gained |= attempt(thresholds, &mut here);
                    }
                }
                if !gained {
                    break;
                }
            }
            if here.1.1 < best.1.1 && target.holds(&here.1.0) {
                best = here;
            }
        }
    }
    let (thresholds, (tally, _)) = best;
    let rule = match score {
        Score::Probability => Rule::Probability(thresholds),
        Score::Entropy => Rule::Entropy(thresholds.into_iter().map(|least| -least).collect()),
    };
    let evidence = evidence(&tally, met_without || target.holds(&tally));
    Ok(Policy { classes: samples.classes(), route, weights, sharpness, rule, evidence })
}
