//! The choice among all that was measured, and when to change it.

use std::sync::Arc;

use crate::conditions::Conditions;
use crate::exit::Policy;
use crate::split::exits::{Passing, Readings};
use crate::split::goal::Rank;
use crate::split::{Action, Estimate, Goal, Measurements, Power, Stop, Work};

/// Which quantile of the bytes a deadline is held against.
const HIGH: f64 = 0.95;
/// The probability to meet a deadline is the mean of those of images of this many sizes, at equal distances in the order of
/// all sizes. With few, a deadline near one of the sizes would move many images in or out of time at once.
const PIECES: usize = 20;
/// A choice that is in time less often than this most likely misses its deadline, and is left without delay.
const LIKELY: f64 = 0.5;

/// When the planner leaves what it has chosen for what has become better.
///
/// It changes at once where its choice no longer does what is asked (falls to a link that is down, is not surely in time
/// where that is asked for, or most likely misses the deadline) and something else does it better. Else a change must gain
/// `margin`: it is made when something has gained as much for `patience` choices in a row, or at once for a gain of `step`.
///
/// Near a deadline small changes of the link move many answers in or out of time. So where the deadline counts, what would
/// not gain `margin` if the deadline were shorter by that share is not changed to at once, whatever it gains: a choice that
/// was left because it was late is taken up again when it has been better for a while, or has time to spare.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Hysteresis {
    /// Share of delay or energy that a change must bring.
    pub margin: f64,
    /// Choices in a row for which it must have done so.
    pub patience: u32,
    /// Share that is worth a change at once.
    pub step: f64,
}

impl Default for Hysteresis {
    /// A tenth for three choices, or half at once.
    fn default() -> Self {
        Hysteresis { margin: 0.1, patience: 3, step: 0.5 }
    }
}

/// Chooses where a network runs and what is sent, from [`Measurements`] and the conditions of the moment.
///
/// Copies share the measurements. [`Planner::choose`] takes time in proportion to the number of measured codings.
///
/// ```no_run
/// use std::sync::Arc;
/// use narrows::Conditions;
/// use narrows::split::{Goal, Measurements, Planner, Power};
///
/// let measured = Measurements::from_json(&std::fs::read("net.json")?)?;
/// let accuracy = measured.accuracy(narrows::split::Action::Local) - 0.005;
/// let mut planner = Planner::new(Arc::new(measured), Power::default(), Goal::Delay { accuracy });
/// let choice = planner.choose(&Conditions { bandwidth: 2e5, ..Conditions::default() });
/// println!("{}: {:.1} ms", planner.measurements().name(choice.action), 1e3 * choice.delay);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct Planner {
    measurements: Arc<Measurements>,
    candidates: Arc<[Candidate]>,
    power: Power,
    goal: Goal,
    hysteresis: Hysteresis,
    /// What was chosen last.
    current: Option<Action>,
    /// For how many choices in a row something has been better by the margin.
    lasted: u32,
    /// What the exits said of the measured images, by the policy that it was read with last.
    readings: Option<Arc<Readings>>,
}

/// Something that is better than the present choice: its place in the order of the goal, what it gains, and what it is.
type Found = Option<(Rank, f64, Estimate)>;

/// What does not depend on conditions.
#[derive(Debug, Clone, Copy)]
struct Candidate {
    action: Action,
    work: Work,
    bytes: f64,
    high_bytes: f64,
    /// Bytes of images whose share of larger ones is a half, one and a half and so on of as many parts.
    some_bytes: [f64; PIECES],
    accuracy: f64,
    /// Accuracy that early stops cost.
    stop_loss: f64,
    error: f64,
    /// Where the server may answer before all layers have come.
    stop: Option<Stop>,
    /// Where exits may answer on the way.
    passing: Option<Passing>,
}

impl Planner {
    /// A planner over all that was measured.
    pub fn new(measurements: Arc<Measurements>, power: Power, goal: Goal) -> Planner {
        let candidate = |action| {
            let coding = measurements.coding(action);
            Some(Candidate {
                action,
                work: measurements.work(action)?,
                bytes: coding.map_or(0.0, |coding| coding.mean_bytes()),
                high_bytes: coding.map_or(0.0, |coding| quantile(&coding.bytes, HIGH)),
                some_bytes: std::array::from_fn(|i| {
                    let share = (i as f64 + 0.5) / PIECES as f64;
                    coding.map_or(0.0, |coding| quantile(&coding.bytes, share))
                }),
                accuracy: measurements.accuracy(action),
                stop_loss: 0.0,
                error: measurements.accuracy_error(action),
                stop: None,
                passing: None,
            })
        };
        let candidates = measurements.actions().filter_map(candidate).collect();
        let hysteresis = Hysteresis::default();
        Planner { candidates, measurements, power, goal, hysteresis, current: None, lasted: 0, readings: None }
    }

    /// Only these actions, for a device that cannot do all. The first, [`Action::Local`] if it is there, stays if nothing else
    /// does.
    pub fn only(mut self, wanted: impl Fn(Action) -> bool) -> Planner {
        let kept: Vec<Candidate> = self.candidates.iter().filter(|one| wanted(one.action)).copied().collect();
        self.candidates = if kept.is_empty() { self.candidates.iter().take(1).copied().collect() } else { kept.into() };
        self.current = None;
        self
    }

    /// Layered streams are sent layer after layer, and the server answers as soon as it is sure enough
    /// ([`Measurements::stop`]): with the accuracy that the goal asks for, else with that of the whole stream.
    pub fn stopping(mut self) -> Planner {
        let stopping = |candidate: &Candidate| {
            let whole = self.measurements.accuracy(candidate.action);
            let floor = match self.goal {
                Goal::Delay { accuracy } | Goal::Energy { accuracy } => accuracy,
                Goal::Accuracy => whole,
            };
            let stop = self.measurements.stop(candidate.action, floor);
            let accuracy = stop.map_or(whole, |stop| stop.accuracy);
            Candidate { stop, accuracy, stop_loss: whole - accuracy, ..*candidate }
        };
        self.candidates = self.candidates.iter().map(stopping).collect();
        self
    }

    /// Exits on the way are asked: those of the measurements, by these policies, as they decide under these conditions.
    ///
    /// Called again, for other conditions, it takes little time: what the exits said of the images is read only once for all
    /// policies with the same temperatures.
    pub fn exiting<'a>(self, policy: impl Fn(Action) -> Option<&'a Policy>, conditions: &Conditions) -> Planner {
        self.with_exits(policy, conditions, false)
    }

    /// The same, where the goal is better served with exits than without them under these conditions: they take time
    /// themselves. [`Planner::asks`] says where that is.
    pub fn exiting_where_better<'a>(
        self,
        policy: impl Fn(Action) -> Option<&'a Policy>,
        conditions: &Conditions,
    ) -> Planner {
        self.with_exits(policy, conditions, true)
    }

    fn with_exits<'a>(
        mut self,
        policy: impl Fn(Action) -> Option<&'a Policy>,
        conditions: &Conditions,
        only_better: bool,
    ) -> Planner {
        let mut candidates = Vec::with_capacity(self.candidates.len());
        for candidate in self.candidates.iter() {
            let direct = Candidate { passing: None, ..*candidate };
            let passing = policy(candidate.action).and_then(|policy| {
                if !self.readings.as_ref().is_some_and(|known| known.are_by(policy)) {
                    self.readings = Some(Arc::new(Readings::new(&self.measurements, policy)));
                }
                self.measurements.passing(candidate.action, policy, self.readings.as_ref()?, conditions)
            });
            let asked = Candidate { passing, ..direct };
            let rank = |one: &Candidate| self.goal.rank(&self.estimate_of(one, conditions), conditions.deadline);
            candidates.push(if only_better && rank(&asked) >= rank(&direct) { direct } else { asked });
        }
        self.candidates = candidates.into();
        self
    }

    /// Whether the exits on the way to an action are asked.
    pub fn asks(&self, action: Action) -> bool {
        self.candidates.iter().any(|candidate| candidate.action == action && candidate.passing.is_some())
    }

    /// When the server may answer an action's stream early, if the planner is [`Planner::stopping`].
    pub fn stop(&self, action: Action) -> Option<Stop> {
        self.candidates.iter().find(|candidate| candidate.action == action)?.stop
    }

    /// With another hysteresis.
    pub fn hysteresis(mut self, hysteresis: Hysteresis) -> Planner {
        self.hysteresis = hysteresis;
        self
    }

    /// What it was made from.
    pub fn measurements(&self) -> &Arc<Measurements> {
        &self.measurements
    }

    /// What it looks for.
    pub fn goal(&self) -> Goal {
        self.goal
    }

    /// What each action would cost: local first, then the codecs of the input, then the cuts.
    pub fn candidates(&self, conditions: &Conditions) -> Vec<Estimate> {
        self.candidates.iter().map(|candidate| self.estimate_of(candidate, conditions)).collect()
    }

    /// What one action would cost; `None` if it is not among the candidates.
    pub fn estimate(&self, action: Action, conditions: &Conditions) -> Option<Estimate> {
        let candidate = self.candidates.iter().find(|candidate| candidate.action == action)?;
        Some(self.estimate_of(candidate, conditions))
    }

    /// The best action under these conditions, whatever was chosen before.
    pub fn best(&self, conditions: &Conditions) -> Estimate {
        let rank = |estimate: &Estimate| self.goal.rank(estimate, conditions.deadline);
        let estimates = self.candidates.iter().map(|candidate| self.estimate_of(candidate, conditions));
        let best = estimates.reduce(|best, other| if rank(&other) < rank(&best) { other } else { best });
        best.expect("there is always one")
    }

    /// The action to take now: the best one, or what was chosen before while that is nearly as good ([`Hysteresis`]).
    pub fn choose(&mut self, conditions: &Conditions) -> Estimate {
        let current = self.current.and_then(|action| self.estimate(action, conditions));
        let next = match current {
            Some(current) => self.change(&current, conditions),
            None => Some(self.best(conditions)),
        };
        match (next, current) {
            (None, Some(current)) => current,
            (next, _) => {
                let next = next.unwrap_or_else(|| self.best(conditions));
                (self.current, self.lasted) = (Some(next.action), 0);
                next
            }
        }
    }

    /// What it is time to change to; counts for how long something has been better.
    fn change(&mut self, current: &Estimate, conditions: &Conditions) -> Option<Estimate> {
        let Hysteresis { margin, patience, step } = self.hysteresis;
        let rank = |estimate: &Estimate, conditions: &Conditions| self.goal.rank(estimate, conditions.deadline);
        let now = rank(current, conditions);
        let bound = self.goal.has_deadline() && conditions.deadline.is_finite();
        let misses = bound && current.in_time < LIKELY;
        let shorter = Conditions { deadline: conditions.deadline / (1.0 + margin), ..*conditions };
        let gains = |estimate: &Estimate, conditions: &Conditions| {
            rank(estimate, conditions).gain_over(&now).filter(|&gain| gain >= margin)
        };
        // The best of all that gain enough, and of those that would with a shorter deadline too, with their gains.
        let (mut best, mut sure): (Found, Found) = (None, None);
        for candidate in self.candidates.iter() {
            let other = self.estimate_of(candidate, conditions);
            let Some(gain) = gains(&other, conditions) else { continue };
            let place = rank(&other, conditions);
            let is_first = |known: &Found| known.is_none_or(|(first, ..)| place < first);
            if is_first(&best) {
                best = Some((place, gain, other));
            }
            if is_first(&sure) && (!bound || gains(&self.estimate_of(candidate, &shorter), &shorter).is_some()) {
                sure = Some((place, gain, other));
            }
        }
        let Some((_, gain, next)) = best else {
            self.lasted = 0;
            return None;
        };
        if gain == f64::INFINITY || misses {
            return Some(next);
        }
        self.lasted = self.lasted.saturating_add(1);
        let (at_once, next) = sure.map_or((false, next), |(_, gain, next)| (gain >= step, next));
        (at_once || self.lasted >= patience).then_some(next)
    }

    fn estimate_of(&self, candidate: &Candidate, conditions: &Conditions) -> Estimate {
        let Candidate { action, work, bytes, high_bytes, some_bytes, accuracy, stop_loss, error, stop, passing } =
            *candidate;
        let work = Work { device: passing.map_or(work.device, |passing| passing.device), ..work };
        let delay = work.delay(bytes, conditions);
        // All is sent; the answer comes sooner.
        let delay = stop.map_or(delay, |stop| {
            let share = if delay.is_finite() { stop.share } else { 0.0 };
            delay - share * (delay - work.delay(stop.bytes, conditions)).max(0.0)
        });
        let in_time = some_bytes.map(|bytes| work.in_time(bytes, conditions)).iter().sum::<f64>() / PIECES as f64;
        let rest_right = passing.map_or(accuracy, |passing| (passing.rest_right - stop_loss).clamp(0.0, 1.0));
        let end = Estimate {
            action,
            delay,
            late: work.delay(high_bytes, &conditions.cautious()),
            in_time,
            energy: work.energy(bytes, conditions, &self.power),
            bytes,
            accuracy,
            error,
            right_in_time: in_time * (rest_right - error).max(0.0),
        };
        let Some(Passing { share, right, seconds, .. }) = passing.filter(|passing| passing.share > 0.0) else {
            return end;
        };
        let exit = Work { device: seconds, server: None };
        let in_time = exit.in_time(0.0, conditions);
        // Where all leave, nothing is sent over a link that is down.
        let mean = |exit: f64, end: f64| share * exit + if share < 1.0 { (1.0 - share) * end } else { 0.0 };
        Estimate {
            delay: mean(exit.delay(0.0, conditions), end.delay),
            in_time: mean(in_time, end.in_time),
            energy: mean(exit.energy(0.0, conditions, &self.power), end.energy),
            bytes: mean(0.0, end.bytes),
            accuracy: mean(right, rest_right),
            // What exits answer is as likely to be wrong on other images as it was on these.
            error: mean(0.0, error),
            right_in_time: mean(in_time * right, end.right_in_time),
            ..end
        }
    }
}

/// The least value that this share of all does not exceed; 0 of none.
fn quantile(values: &[u32], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    let place = ((values.len() as f64 * share).ceil() as usize).saturating_sub(1);
    sorted.get(place).map_or(0.0, |&value| f64::from(value))
}

#[cfg(test)]
mod tests;
