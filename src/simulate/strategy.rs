//! What devices do.

use std::sync::Arc;

use crate::conditions::Conditions;
use crate::error::{Error, Result};
use crate::exit::{Policy, Route, Target, Weights};
use crate::power::Power;
use crate::simulate::scenario::Scenario;
use crate::split::{Action, Goal, Measurements, Planner};

/// What every device of a fleet does with its requests.
#[derive(Debug, Clone)]
pub enum Strategy {
    /// Always the same action, whatever the link is like; with a policy, early exits by it, under the conditions that it is
    /// told once and for all.
    Fixed {
        /// What is done.
        action: Action,
        /// The exits' policy and its conditions.
        exits: Option<Box<(Policy, Conditions)>>,
    },
    /// What is best by what the device knows.
    Adaptive(Box<Adaptive>),
}

/// Plans for each request anew, by the link as the device has seen it, with early exits.
#[derive(Debug, Clone)]
pub struct Adaptive {
    /// Chooses the action.
    planner: Planner,
    /// Decides at the exits on the way to each action that computes a head.
    policies: Vec<(Action, Policy)>,
    /// What devices assume before their first transfer.
    first: Conditions,
    /// Whether the last exit's answer is given when the deadline comes before the server's.
    falls_back: bool,
}

impl Adaptive {
    /// Devices that plan from these measurements, whose images are others than those of the simulation, with a policy for the
    /// exits on the way to each action: fitted under the conditions `first`, which are also what devices assume before
    /// their first transfer.
    ///
    /// # Errors
    /// As [`Policy::fit`].
    pub fn fit(
        measured: &Arc<Measurements>,
        power: Power,
        goal: Goal,
        target: Target,
        first: Conditions,
    ) -> Result<Adaptive> {
        let planner = Planner::new(measured.clone(), power, goal);
        let mut policies = Vec::new();
        let weights = Weights { power, ..Weights::default() };
        // The deadline is a matter of the moment, not of the price of accuracy.
        let conditions = Conditions { deadline: f64::INFINITY, ..first };
        for action in measured.actions().filter(|action| !matches!(action, Action::Input { .. })) {
            let known = measured.exit_samples(action).zip(measured.exit_route(action));
            let Some((samples, route)) = known.filter(|(samples, _)| !samples.exits.is_empty()) else { continue };
            policies.push((action, Policy::fit(&samples, route, weights, &conditions, target)?));
        }
        let policy = |action| policies.iter().find(|(of, _)| *of == action).map(|(_, policy)| policy);
        let planner = planner.exiting(policy, &conditions);
        Ok(Adaptive { planner, policies, first, falls_back: false })
    }

    /// Whether a device gives its last exit's answer when the deadline comes before the server's; not if not set.
    pub fn falling_back(self, falls_back: bool) -> Adaptive {
        Adaptive { falls_back, ..self }
    }

    /// Only these actions.
    pub fn only(self, wanted: impl Fn(Action) -> bool) -> Adaptive {
        Adaptive { planner: self.planner.only(wanted), ..self }
    }
}

/// One action with all that is known of it beforehand.
#[derive(Debug)]
pub(super) struct Way {
    pub action: Action,
    pub route: Route,
    pub policy: Option<Policy>,
}

/// A strategy, ready to run.
#[derive(Debug)]
pub(super) struct Ways {
    pub all: Vec<Way>,
    pub kind: Kind,
}

/// How the way of a request is found.
#[derive(Debug)]
pub(super) enum Kind {
    /// The only one; conditions for its policy.
    Fixed(Conditions),
    /// By a planner; conditions that are assumed at first. The senders choose among all that sends something; there are none
    /// where the device alone is best however good link and server are.
    Planned { planner: Box<Planner>, senders: Option<Box<Planner>>, first: Conditions, falls_back: bool },
}

impl Ways {
    /// Finds all that a strategy may do among what was measured.
    pub fn of(strategy: &Strategy, measured: &Measurements, scenario: &Scenario) -> Result<Ways> {
        let none =
            || Error::invalid("the strategy was made for other measurements: it has an action that these have not");
        let way = |action: Action, policy: Option<&Policy>| -> Result<Way> {
            if policy.is_some_and(|policy| policy.exits() != measured.exits.len()) {
                return Err(none());
            }
            let route = if policy.is_some() { measured.exit_route(action) } else { measured.direct_route(action) };
            Ok(Way { action, route: route.ok_or_else(none)?, policy: policy.cloned() })
        };
        match strategy {
            Strategy::Fixed { action, exits } => {
                let policy = exits.as_ref().map(|exits| &exits.0);
                let conditions = exits.as_ref().map_or(Conditions::default(), |exits| exits.1);
                Ok(Ways { all: vec![way(*action, policy)?], kind: Kind::Fixed(conditions) })
            }
            Strategy::Adaptive(adaptive) => {
                let Adaptive { planner, policies, first, falls_back } = adaptive.as_ref();
                let policy = |action| policies.iter().find(|(of, _)| *of == action).map(|(_, policy)| policy);
                let all = planner.candidates(first).into_iter().map(|one| way(one.action, policy(one.action)));
                let all = all.collect::<Result<_>>()?;
                let senders =
                    sends(planner, scenario).then(|| Box::new(planner.clone().only(|action| action != Action::Local)));
                let (planner, first) = (Box::new(planner.clone()), *first);
                Ok(Ways { all, kind: Kind::Planned { planner, senders, first, falls_back: *falls_back } })
            }
        }
    }

    /// The way of an action.
    pub fn place(&self, action: Action) -> usize {
        self.all.iter().position(|way| way.action == action).unwrap_or(0)
    }
}

/// Whether anything would be sent on a perfect link to a server that nobody else uses.
fn sends(planner: &Planner, scenario: &Scenario) -> bool {
    let perfect = Conditions {
        bandwidth: f64::INFINITY,
        round_trip: 0.0,
        deadline: scenario.deadline,
        device_speed: scenario.device_speed,
        server_speed: scenario.server_speed,
        ..Conditions::default()
    };
    planner.best(&perfect).action != Action::Local
}
