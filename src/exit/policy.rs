//! The policy: what is known, and the decision.

use crate::conditions::Conditions;
use crate::error::{Error, Result};
use crate::exit::costs::{Route, Weights};
use crate::exit::curves::{Curve, Worth, answers, going_on};
use crate::exit::softmax::Reading;

/// What to do at an exit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Answer this class and stop.
    Answer(usize),
    /// Go on: to the next exit, or after the last to the rest.
    Continue,
}

/// Decides at early exits whether to answer; see the [module](crate::exit).
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    pub(super) classes: usize,
    pub(super) route: Route,
    pub(super) weights: Weights,
    /// One over the temperature of each exit.
    pub(super) sharpness: Vec<f64>,
    pub(super) rule: Rule,
    pub(super) evidence: Evidence,
}

/// How it is decided.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Rule {
    /// By what answering and going on are worth.
    Priced { price: f64, curves: Vec<Curve> },
    /// Never at an exit.
    Never,
    /// Always at this exit.
    Always(usize),
    /// Where the largest probability is this or more, for each exit.
    Probability(Vec<f64>),
    /// Where the entropy is this or less in nats, for each exit.
    Entropy(Vec<f64>),
}

/// What is known of a policy from the images that it was chosen on.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Evidence {
    /// Number of these images.
    pub images: usize,
    /// Share of them that it answers right.
    pub accuracy: f64,
    /// The same of always going on.
    pub rest_accuracy: f64,
    /// Whether the target holds with the certainty asked for. If not, the policy is the most accurate one of its kind.
    pub met: bool,
}

impl Policy {
    /// What to do at an exit (from 0) with these logits, under these conditions, the deadline counted from now.
    ///
    /// Logits that say nothing (none, too few, one not finite) are no answer: `Continue`. So is an exit that the policy
    /// does not know, and a condition that is no number.
    pub fn decide(&self, exit: usize, logits: &[f32], conditions: &Conditions) -> Decision {
        match self.read(exit, logits) {
            Some(reading) => self.decide_for(exit, &reading, conditions, &self.route),
            None => Decision::Continue,
        }
    }

    /// What logits say at an exit, its temperature applied. `None` where [`decide`](Self::decide) could only go on.
    pub fn read(&self, exit: usize, logits: &[f32]) -> Option<Reading> {
        let sharpness = *self.sharpness.get(exit)?;
        if logits.len() != self.classes {
            return None;
        }
        Reading::of(logits, sharpness)
    }

    /// The decision on what was [read](Self::read), on another route than the policy was fitted for: another cut or coding
    /// that is chosen at the moment, for example. The end of it is taken to be right as often; the exits must be the same.
    pub fn decide_for(&self, exit: usize, reading: &Reading, conditions: &Conditions, route: &Route) -> Decision {
        if exit >= self.exits() || route.exits.len() != self.exits() || conditions.checked().is_err() {
            return Decision::Continue;
        }
        let answer = match &self.rule {
            Rule::Priced { price, curves } => {
                let due = conditions.deadline + conditions.on_device(route.until(exit));
                let worth = Worth { route, weights: &self.weights, conditions, price: *price, due };
                let onward = going_on(curves, exit, &worth);
                answers(&curves[exit], exit, reading.confidence, &onward, &worth)
            }
            rule => rule.answers(exit, reading),
        };
        if answer { Decision::Answer(reading.class) } else { Decision::Continue }
    }

    /// Sets the weights that [`evaluate`](Self::evaluate) counts costs by; a policy that was fitted has those of its fit.
    ///
    /// # Errors
    /// `InvalidInput` if a weight or a power is negative, or no weight is above 0.
    pub fn weighing(self, weights: Weights) -> Result<Policy> {
        weights.check()?;
        Ok(Policy { weights, ..self })
    }

    /// The same policy on another route: another cut or coding, for example. The end of it is taken to be right as often,
    /// and [`evidence`](Self::evidence) stays that of the route it was fitted for.
    ///
    /// # Errors
    /// `InvalidInput` if the route has another number of exits, not in the order of the network, or a time of it is negative
    /// or not finite.
    pub fn along(self, route: Route) -> Result<Policy> {
        route.check()?;
        if route.exits.len() != self.exits() {
            let (own, other) = (self.exits(), route.exits.len());
            return Err(Error::invalid(format!("a policy of {own} exits on a route of {other}")));
        }
        Ok(Policy { route, ..self })
    }

    /// Number of exits.
    pub fn exits(&self) -> usize {
        self.sharpness.len()
    }

    /// The temperature of an exit; 1 if the policy has none or does not know it.
    pub fn temperature(&self, exit: usize) -> f64 {
        self.sharpness.get(exit).map_or(1.0, |sharpness| 1.0 / sharpness)
    }

    /// The way of an image that it was fitted for.
    pub fn route(&self) -> &Route {
        &self.route
    }

    /// What costs are counted by.
    pub fn weights(&self) -> &Weights {
        &self.weights
    }

    /// What is known of it.
    pub fn evidence(&self) -> &Evidence {
        &self.evidence
    }

    /// Accuracy that a unit of cost is worth to it, if it decides by what answers are worth.
    pub fn price(&self) -> Option<f64> {
        if let Rule::Priced { price, .. } = self.rule { Some(price) } else { None }
    }
}

impl Rule {
    /// The rules that look at nothing but the exit.
    pub(super) fn answers(&self, exit: usize, reading: &Reading) -> bool {
        match self {
            Rule::Priced { .. } | Rule::Never => false,
            Rule::Always(at) => *at == exit,
            Rule::Probability(least) => reading.confidence >= least[exit],
            Rule::Entropy(most) => reading.entropy <= most[exit],
        }
    }
}
