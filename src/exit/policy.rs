//! The policy: what is known, and the decision.

use crate::conditions::Conditions;
use crate::error::{Error, Result};
use crate::exit::costs::{Route, Weights};
use crate::exit::curves::{AtKnots, Curve, Worth, answers, going_on};
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
    /// Conditions are those that are expected, with their deviation: what going on costs is taken from them as they are, and
    /// whether an answer would be in time from [`Conditions::cautious`]. Conditions that are cautious already would make going
    /// on seem to cost more than it does, and more answers come from exits than the policy was certified for.
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
    /// that is chosen at the moment, for example. The exits must be the same, and what comes after them is taken to be right
    /// as often as on the route of the fit.
    pub fn decide_for(&self, exit: usize, reading: &Reading, conditions: &Conditions, route: &Route) -> Decision {
        match self.at(exit, conditions, route) {
            Some(at) if at.answers(reading) => Decision::Answer(reading.class),
            _ => Decision::Continue,
        }
    }

    /// The first exit on a route that answers, and its class, if the image comes to it in the expected time; the deadline counts
    /// from the input. `reading` is asked for what an exit says until one answers; `None` is no answer.
    pub fn first_answer(
        &self,
        conditions: &Conditions,
        route: &Route,
        reading: impl FnMut(usize) -> Option<Reading>,
    ) -> Option<(usize, usize)> {
        self.asked(conditions, route).first(reading)
    }

    /// What [`first_answer`](Self::first_answer) goes by, worked out once for many images.
    pub(crate) fn asked<'a>(&'a self, conditions: &Conditions, route: &'a Route) -> Asked<'a> {
        let at = |exit: usize| {
            let passed = conditions.on_device(route.until(exit)?);
            let now = Conditions { deadline: (conditions.deadline - passed).max(0.0), ..*conditions };
            self.at(exit, &now, route)
        };
        Asked { exits: (0..self.exits()).map(at).collect() }
    }

    /// How it is decided at an exit; `None` where it never answers.
    fn at<'a>(&'a self, exit: usize, conditions: &Conditions, route: &'a Route) -> Option<AtExit<'a>> {
        if route.exits.len() != self.exits() || conditions.checked().is_err() {
            return None;
        }
        let passed = route.until(exit)?;
        Some(match &self.rule {
            Rule::Never => return None,
            Rule::Priced { price, curves } => {
                let worth = Worth::new(route, &self.weights, conditions, *price, passed);
                let onward = going_on(curves, exit, &worth);
                AtExit::Worth { exit, curve: &curves[exit], priced: Box::new((onward, worth)) }
            }
            rule => AtExit::Rule { exit, rule },
        })
    }

    /// What [`read`](Self::read) goes by: policies that agree in it read the same logits alike.
    #[cfg(feature = "split")]
    pub(crate) fn reads_by(&self) -> (usize, &[f64]) {
        (self.classes, &self.sharpness)
    }

    /// Sets the weights that [`evaluate`](Self::evaluate) counts costs by; a policy that was fitted has those of its fit.
    ///
    /// # Errors
    /// `InvalidInput` if a weight or a power is negative, or no weight is above 0.
    pub fn weighing(self, weights: Weights) -> Result<Policy> {
        weights.check()?;
        Ok(Policy { weights, ..self })
    }

    /// The same policy on another route: another cut or coding, for example. What comes after the exits is taken to be right as
    /// often as on the route of the fit, and [`evidence`](Self::evidence) stays that of the fit.
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

/// How it is decided at one exit under given conditions.
enum AtExit<'a> {
    Rule {
        exit: usize,
        rule: &'a Rule,
    },
    /// What going on is worth at the points of the curve, and what answers are.
    Worth {
        exit: usize,
        curve: &'a Curve,
        priced: Box<(AtKnots, Worth<'a>)>,
    },
}

impl AtExit<'_> {
    fn answers(&self, reading: &Reading) -> bool {
        match self {
            AtExit::Rule { exit, rule } => rule.answers(*exit, reading),
            AtExit::Worth { exit, curve, priced } => answers(curve, *exit, reading.confidence, &priced.0, &priced.1),
        }
    }
}

/// How it is decided at all exits, for images that come to each in the expected time.
pub(crate) struct Asked<'a> {
    exits: Vec<Option<AtExit<'a>>>,
}

impl Asked<'_> {
    /// The first exit that answers, and its class.
    pub fn first(&self, mut reading: impl FnMut(usize) -> Option<Reading>) -> Option<(usize, usize)> {
        self.exits.iter().enumerate().find_map(|(exit, at)| {
            let at = at.as_ref()?;
            reading(exit).filter(|reading| at.answers(reading)).map(|reading| (exit, reading.class))
        })
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
