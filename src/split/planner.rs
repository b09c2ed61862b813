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
mod tests {
    use super::*;
    use crate::conditions::Deviation;
    use crate::split::tests::example;
    use proptest::prelude::*;

    fn planner(goal: Goal) -> Planner {
        Planner::new(Arc::new(example()), Power::default(), goal)
    }

    fn conditions() -> impl Strategy<Value = Conditions> {
        let exponent = |low: f64, high: f64| (low..high).prop_map(|x| 10f64.powf(x));
        let bandwidth = prop_oneof![9 => exponent(2.0, 10.0), 1 => Just(0.0), 1 => Just(f64::INFINITY)];
        let deadline = prop_oneof![exponent(-3.0, 2.0), Just(f64::INFINITY), Just(0.0)];
        (bandwidth, 0.0..2.0, 0.0..2.0, deadline, exponent(-3.0, 2.0), exponent(-3.0, 2.0)).prop_map(
            |(bandwidth, round_trip, wait, deadline, device_speed, server_speed)| Conditions {
                bandwidth,
                round_trip,
                wait,
                deadline,
                device_speed,
                server_speed,
                ..Conditions::default()
            },
        )
    }

    fn goals() -> impl Strategy<Value = Goal> {
        let floor = 0.0..1.1;
        prop_oneof![
            floor.clone().prop_map(|accuracy| Goal::Delay { accuracy }),
            floor.prop_map(|accuracy| Goal::Energy { accuracy }),
            Just(Goal::Accuracy)
        ]
    }

    proptest! {
        #[test]
        fn delay_grows_with_all_that_gets_worse(base in conditions(), factor in 1.0..10.0) {
            let planner = planner(Goal::Accuracy);
            let worse = [
                Conditions { bandwidth: base.bandwidth / factor, ..base },
                Conditions { round_trip: base.round_trip * factor, ..base },
                Conditions { wait: base.wait * factor, ..base },
                Conditions { device_speed: base.device_speed / factor, ..base },
                Conditions { server_speed: base.server_speed / factor, ..base },
            ];
            for worse in worse {
                for (good, bad) in planner.candidates(&base).iter().zip(planner.candidates(&worse)) {
                    prop_assert!(bad.delay >= good.delay && bad.late >= good.late && bad.energy >= good.energy);
                    prop_assert!(bad.late >= bad.delay || bad.bytes == 0.0);
                }
            }
        }

        #[test]
        fn the_first_choice_is_the_least_of_all(base in conditions(), goal in goals()) {
            let mut planner = planner(goal);
            let chosen = planner.choose(&base);
            let rank = |estimate: &Estimate| goal.rank(estimate, base.deadline);
            for other in planner.candidates(&base) {
                prop_assert!(rank(&chosen) <= rank(&other), "{chosen:?} {other:?}");
                prop_assert!(!other.delay.is_nan() && !other.late.is_nan() && !other.energy.is_nan());
            }
            prop_assert!(chosen.delay.is_finite());
        }

        #[test]
        fn without_hysteresis_every_choice_is_the_best(all in prop::collection::vec(conditions(), 2..20), goal in goals()) {
            let mut planner = planner(goal).hysteresis(Hysteresis { margin: 0.0, patience: 0, step: 0.0 });
            for conditions in all {
                let (chosen, best) = (planner.choose(&conditions), planner.best(&conditions));
                let rank = |estimate: &Estimate| goal.rank(estimate, conditions.deadline);
                prop_assert_eq!(rank(&chosen), rank(&best));
            }
        }
    }

    #[test]
    fn what_may_be_in_time_is_tried_where_nothing_surely_is() {
        // Local is late, for certain; a stream would be in time if the link kept to what is expected of it.
        let whole = example().whole;
        let deviation = Deviation { link: 5.0, ..Deviation::default() };
        let conditions = Conditions { deadline: 9.0 * whole, device_speed: 0.1, deviation, ..Conditions::default() };
        for goal in [Goal::Accuracy, Goal::Energy { accuracy: 0.95 }] {
            let chosen = planner(goal).choose(&conditions);
            assert!(chosen.late > conditions.deadline && chosen.delay < conditions.deadline, "{goal:?} {chosen:?}");
            assert!(0.5 < chosen.in_time && chosen.in_time < 1.0, "{goal:?} {chosen:?}");
            // With more time the device is sure.
            let more = Conditions { deadline: 11.0 * whole, ..conditions };
            assert_eq!(planner(goal).choose(&more).action, Action::Local);
        }
        // Where the deadline does not count, the mean does.
        let chosen = planner(Goal::Delay { accuracy: 0.0 }).choose(&conditions);
        let sure = Conditions { deviation: Deviation::default(), ..conditions };
        assert_eq!(chosen.action, planner(Goal::Delay { accuracy: 0.0 }).choose(&sure).action);
    }

    #[test]
    fn what_was_lucky_on_few_images_is_not_chosen() {
        let mut measured = example();
        // Right on all images, two of which the network itself answers wrongly, and of one more.
        measured.answers = (0..20).map(|i| u32::from(i >= 18)).collect();
        measured.inputs[0].answers = (0..20).map(|i| u32::from(i == 0)).collect();
        assert!(measured.accuracy(Action::Input { coding: 0 }) > measured.accuracy(Action::Local));
        let planner = Planner::new(Arc::new(measured), Power::default(), Goal::Accuracy);
        let best = planner.best(&Conditions::default());
        // 19 of 20 with a standard error of sqrt((3 - 1 / 20) / 20) / sqrt(20) against 18 of 20 with none.
        let lucky = planner.estimate(Action::Input { coding: 0 }, &Conditions::default()).unwrap();
        assert!((lucky.right_in_time - (0.95 - (0.15f64 - 0.0025).sqrt() / 20f64.sqrt())).abs() < 1e-12, "{lucky:?}");
        assert!(best.right_in_time > lucky.right_in_time && best.accuracy <= lucky.accuracy, "{best:?}");
    }

    #[test]
    fn what_is_late_anyway_is_not_made_later() {
        // The input is sent while that is in time, then the link drops, and nothing is.
        for goal in [Goal::Energy { accuracy: 0.85 }, Goal::Accuracy] {
            let mut planner = planner(goal);
            let good = Conditions { bandwidth: 1e7, deadline: 0.3, device_speed: 0.01, ..Conditions::default() };
            let first = planner.choose(&good).action;
            assert!(matches!(first, Action::Input { .. }), "{goal:?}");
            // Something else takes less time, though more than half.
            let bad = Conditions { bandwidth: 1e5, deadline: 0.01, device_speed: 0.1, ..good };
            let (chosen, late) = (planner.choose(&bad), planner.estimate(first, &bad).unwrap());
            assert!(chosen.action != first && chosen.action == planner.best(&bad).action, "{goal:?} {chosen:?}");
            assert!(0.5 * late.delay < chosen.delay && chosen.delay < late.delay || goal == Goal::Accuracy);
        }
    }

    #[test]
    fn exits_answer_what_would_be_late() {
        use crate::split::Exit;
        let mut measured = example();
        // Right on half of the images; on the others it says nothing.
        let logits = (0..20).map(|i| if i < 10 { vec![9.0, 0.0] } else { vec![f32::NAN; 2] }).collect();
        measured.exits.push(Exit { name: "exit".into(), seconds: 0.02, extra: 0.003, logits });
        let action = Action::Split { cut: 0, coding: 0 };
        let sure = Conditions::default();
        let policy = Policy::always(0, 2, measured.exit_route(action).unwrap()).unwrap();
        let alone = Planner::new(Arc::new(measured), Power::default(), Goal::Accuracy);
        let exiting = alone.clone().exiting(|of| (of == action).then_some(&policy), &sure);
        let of = |planner: &Planner, conditions: &Conditions| planner.estimate(action, conditions).unwrap();
        let share = of(&exiting, &sure).bytes / of(&alone, &sure).bytes;
        assert!((share - 0.5).abs() < 1e-9, "{share}");
        // Half after 20 ms; the others take 3 ms more than without the exit.
        let (with, without) = (of(&exiting, &sure), of(&alone, &sure));
        assert!((with.delay - (0.01 + 0.5 * (without.delay + 0.003))).abs() < 1e-9, "{with:?} {without:?}");
        assert!((with.late - without.late - 0.003).abs() < 1e-9);
        // The exit is right on the half that it answers, what is sent on 9 of the other 10: nothing is lost. An exit that is
        // wrong on all that it answers leaves those 9.
        assert!(
            (with.accuracy - 0.95).abs() < 1e-12 && (without.accuracy - 0.95).abs() < 1e-12,
            "{with:?} {without:?}"
        );
        let mut misled = alone.measurements().as_ref().clone();
        misled.exits[0].logits.iter_mut().for_each(|logits| logits.reverse());
        let misled = Planner::new(Arc::new(misled), Power::default(), Goal::Accuracy);
        let misled = of(&misled.exiting(|of| (of == action).then_some(&policy), &sure), &sure);
        assert!((misled.accuracy - 0.45).abs() < 1e-12 && (misled.right_in_time - 0.45).abs() < 1e-12, "{misled:?}");
        // A link that is too slow loses the half that is sent, 9 of 10 of which are right.
        let slow = Conditions { bandwidth: 1e3, deadline: 0.5, ..sure };
        assert_eq!(
            [of(&exiting, &slow), of(&alone, &slow)].map(|one| (one.in_time, one.right_in_time)),
            [(0.5, 0.5), (0.0, 0.0)]
        );
        // Other actions have no exits.
        assert_eq!(exiting.estimate(Action::Local, &sure), alone.estimate(Action::Local, &sure));
    }

    /// Bandwidths around `middle` by a factor of at most `1 + spread`, always the same.
    fn jitter(middle: f64, spread: f64, count: usize) -> impl Iterator<Item = Conditions> {
        let mut state = 1u32;
        (0..count).map(move |_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let share = f64::from(state >> 8) / f64::from(1 << 24) * 2.0 - 1.0;
            Conditions { bandwidth: middle * (1.0 + spread * share), ..Conditions::default() }
        })
    }

    fn switches(planner: &mut Planner, all: impl Iterator<Item = Conditions>) -> usize {
        let actions: Vec<Action> = all.map(|conditions| planner.choose(&conditions).action).collect();
        actions.windows(2).filter(|pair| pair[0] != pair[1]).count()
    }

    #[test]
    fn jitter_around_a_crossover_makes_no_flapping() {
        let goal = Goal::Delay { accuracy: 0.9 };
        let with = |c: Conditions| Conditions { device_speed: 0.4, ..c };
        let middle = crossover(goal, with);
        let mut free = planner(goal).hysteresis(Hysteresis { margin: 0.0, patience: 0, step: 0.0 });
        let flapping = switches(&mut free, jitter(middle, 0.3, 500).map(with));
        let settled = switches(&mut planner(goal), jitter(middle, 0.3, 500).map(with));
        assert!(flapping > 100, "{flapping}");
        assert!(settled <= 2, "{settled}");
    }

    /// A bandwidth at which the best action changes.
    fn crossover(goal: Goal, with: impl Fn(Conditions) -> Conditions) -> f64 {
        let planner = planner(goal);
        let action = |bandwidth: f64| planner.best(&with(Conditions { bandwidth, ..Conditions::default() })).action;
        let all: Vec<f64> = (0..400).map(|i| 10f64.powf(3.0 + f64::from(i) / 100.0)).collect();
        let at = all.windows(2).find(|pair| action(pair[0]) != action(pair[1])).expect("no crossover");
        (at[0] * at[1]).sqrt()
    }

    /// Conditions under which two codecs of the input meet the deadline for most images, and how the better one is found.
    fn near_a_deadline() -> (Conditions, f64) {
        let base = Conditions { deadline: 0.16, device_speed: 0.5, ..Conditions::default() };
        let planner = planner(Goal::Accuracy);
        let best = |bandwidth: f64| planner.best(&Conditions { bandwidth, ..base });
        let all: Vec<f64> = (0..200).map(|i| 10f64.powf(6.8 + 0.005 * f64::from(i))).collect();
        let at = all.windows(2).find(|pair| best(pair[0]).action != best(pair[1]).action).expect("no crossover");
        for bandwidth in at {
            assert!(best(*bandwidth).in_time > 0.8, "{:?}", best(*bandwidth));
        }
        (base, (at[0] * at[1]).sqrt())
    }

    #[test]
    fn jitter_around_a_deadline_makes_no_flapping() {
        let (base, middle) = near_a_deadline();
        let with = |c: Conditions| Conditions { bandwidth: c.bandwidth, ..base };
        let free = || planner(Goal::Accuracy).hysteresis(Hysteresis { margin: 0.0, patience: 0, step: 0.0 });
        let flapping = switches(&mut free(), jitter(middle, 0.08, 500).map(with));
        // Each jump of the link is taken for certain here: some leave the better codec for one that most likely is in time.
        let settled = switches(&mut planner(Goal::Accuracy), jitter(middle, 0.08, 500).map(with));
        assert!(flapping > 200 && settled * 8 < flapping, "{settled} {flapping}");
        // A device knows how far off its link is.
        let known = || {
            let mut link = crate::split::LinkEstimate::new(Conditions { bandwidth: middle, ..base });
            jitter(middle, 0.2, 500).map(move |conditions| {
                link.observe(20_000, Conditions { round_trip: base.round_trip, ..conditions }.transfer(20_000.0));
                Conditions { bandwidth: link.conditions().bandwidth, deviation: link.conditions().deviation, ..base }
            })
        };
        let (settled, flapping) = (switches(&mut planner(Goal::Accuracy), known()), switches(&mut free(), known()));
        assert!(flapping > 50 && settled * 8 < flapping, "{settled} {flapping}");
    }

    #[test]
    fn what_most_likely_misses_its_deadline_is_left_at_once_and_taken_up_again_with_time_to_spare() {
        let (base, middle) = near_a_deadline();
        let at = |factor: f64| Conditions { bandwidth: factor * middle, ..base };
        let mut planner = planner(Goal::Accuracy);
        let first = planner.choose(&at(1.5));
        assert_eq!((first.action, first.in_time), (Action::Input { coding: 0 }, 1.0));
        // In time for fewer than half of the images.
        assert!(planner.estimate(first.action, &at(0.8)).unwrap().in_time < 0.5);
        let second = planner.choose(&at(0.8)).action;
        assert_eq!(second, Action::Input { coding: 1 });
        // A little better than at the crossover is no reason to go back at once; with time to spare is.
        assert_eq!(planner.choose(&at(1.2)).action, second);
        assert_eq!(planner.best(&at(1.2)).action, first.action);
        assert_eq!(planner.choose(&at(100.0)).action, first.action);
        // What lasts is believed without time to spare.
        assert_eq!(planner.choose(&at(0.8)).action, second);
        let places = (1..100).find(|_| planner.choose(&at(1.2)).action == first.action);
        assert_eq!(places, Some(3));
    }

    #[test]
    fn what_has_time_to_spare_is_found_behind_what_has_none() {
        let mut measured = example();
        measured.cuts.clear();
        measured.inputs.truncate(2);
        measured.whole = 0.05;
        for (coding, (encode, decode)) in measured.inputs.iter_mut().zip([(0.005, 0.035), (0.010, 0.010)]) {
            (coding.encode, coding.decode, coding.answers) = (encode, decode, measured.answers.clone());
        }
        let power = Power { compute: 10.0, send: 0.0, receive: 0.0, idle: 0.0 };
        let mut planner = Planner::new(Arc::new(measured), power, Goal::Energy { accuracy: 0.9 });
        let conditions = |bandwidth| Conditions {
            bandwidth,
            round_trip: 0.0,
            deadline: 0.1,
            device_speed: 0.5,
            ..Conditions::default()
        };
        // 1 J and 100 ms on the device; 0.1 J and 95 ms, or 0.2 J and 80 ms, at the server.
        assert_eq!(planner.choose(&conditions(0.0)).action, Action::Local);
        let link = conditions(f64::INFINITY);
        let costs: Vec<_> = planner.candidates(&link).iter().map(|one| (one.energy, one.late)).collect();
        for (cost, expected) in costs.iter().zip([(1.0, 0.1), (0.1, 0.095), (0.2, 0.08)]) {
            assert!((cost.0 - expected.0).abs() < 1e-9 && (cost.1 - expected.1).abs() < 1e-9, "{costs:?}");
        }
        assert_eq!(planner.choose(&link).action, Action::Input { coding: 1 });
    }

    #[test]
    fn a_better_choice_is_taken_however_little_more_often_it_is_right() {
        // Right on three images of 500 more, of which one and a half are a standard error, and 30 times as fast.
        let mut measured = example();
        let answers = |wrong: usize| (0..500).map(|i| u32::from(i < wrong)).collect::<Vec<u32>>();
        measured.labels = vec![0; 500];
        measured.answers = answers(50);
        measured.cuts.clear();
        measured.inputs.truncate(1);
        let coding = &mut measured.inputs[0];
        (coding.answers, coding.bytes, coding.confidence) = (answers(47), vec![1; 500], vec![0.9; 500]);
        measured.confidence = vec![0.9; 500];
        let mut planner = Planner::new(Arc::new(measured), Power::default(), Goal::Accuracy);
        let slow = Conditions { device_speed: 0.02, bandwidth: 0.0, round_trip: 0.0, ..Conditions::default() };
        assert_eq!(planner.choose(&slow).action, Action::Local);
        let link = Conditions { bandwidth: 1e9, ..slow };
        let best = planner.best(&link);
        assert_eq!(best.action, Action::Input { coding: 0 });
        assert!(best.right_in_time > 0.902 && best.right_in_time < 0.903, "{best:?}");
        assert_eq!(planner.choose(&link).action, best.action);
    }

    #[test]
    fn a_goal_without_a_deadline_is_patient_whatever_is_in_time() {
        let goal = Goal::Delay { accuracy: 0.9 };
        let with = |c: Conditions| Conditions { device_speed: 0.4, deadline: 0.001, ..c };
        let middle = crossover(goal, with);
        let at = |bandwidth| with(Conditions { bandwidth, ..Conditions::default() });
        let mut planner = planner(goal);
        let before = planner.choose(&at(middle / 2.0));
        assert_eq!(before.in_time, 0.0);
        for _ in 0..10 {
            assert_ne!(planner.best(&at(middle * 4.0)).action, before.action);
            assert_eq!(planner.choose(&at(middle * 4.0)).action, before.action);
            assert_eq!(planner.choose(&at(middle / 2.0)).action, before.action);
        }
    }

    #[test]
    fn a_real_step_is_followed_at_once() {
        let slow = |bandwidth| Conditions { bandwidth, device_speed: 0.2, ..Conditions::default() };
        // JPEG is right on 18 of 20 images, with a standard error of one.
        let mut planner = planner(Goal::Delay { accuracy: 0.85 });
        assert_eq!(planner.choose(&slow(1e8)).action, Action::Input { coding: 1 });
        assert_eq!(planner.choose(&slow(0.0)).action, Action::Local);
        assert_eq!(planner.choose(&slow(1e8)).action, Action::Input { coding: 1 });
    }

    #[test]
    fn a_small_gain_is_followed_when_it_has_lasted() {
        let goal = Goal::Delay { accuracy: 0.9 };
        let with = |c: Conditions| Conditions { device_speed: 0.4, ..c };
        let middle = crossover(goal, with);
        let mut planner = planner(goal);
        let at = |bandwidth| with(Conditions { bandwidth, ..Conditions::default() });
        let before = planner.choose(&at(middle / 2.0)).action;
        let actions: Vec<Action> = (0..4).map(|_| planner.choose(&at(middle * 4.0)).action).collect();
        assert_eq!(actions[..2], [before; 2]);
        assert_ne!(actions[2], before);
        assert_eq!(actions[2], actions[3]);
    }

    #[test]
    fn early_answers_are_counted_where_they_come() {
        let measured = Arc::new(crate::split::stop::tests::layered());
        let goal = Goal::Delay { accuracy: 0.7 };
        let plain = Planner::new(measured.clone(), Power::default(), goal);
        let stopping = plain.clone().stopping();
        let slow = Conditions { bandwidth: 1e4, ..Conditions::default() };
        let action = |coding| Action::Split { cut: 0, coding };
        let (whole, early) = (plain.estimate(action(2), &slow).unwrap(), stopping.estimate(action(2), &slow).unwrap());
        let stop = stopping.stop(action(2)).unwrap();
        assert_eq!((early.accuracy, whole.accuracy), (stop.accuracy, 0.9));
        assert!(early.accuracy >= 0.7 && early.accuracy < 0.9, "{early:?}");
        // All is sent, so that bytes and energy are the same; those that are answered early have fewer bytes before it.
        assert_eq!((early.bytes, early.energy, early.late), (whole.bytes, whole.energy, whole.late));
        let sooner = stop.share * (whole.bytes - stop.bytes) * 8.0 / slow.bandwidth;
        assert!((whole.delay - early.delay - sooner).abs() < 1e-9 && sooner > 0.0, "{early:?} {whole:?}");
        // Nothing comes over a link that is down, and a base layer has nothing to stop.
        let down = Conditions { bandwidth: 0.0, ..slow };
        assert_eq!(stopping.estimate(action(2), &down).unwrap().delay, f64::INFINITY);
        assert_eq!((stopping.stop(action(0)), plain.stop(action(2))), (None, None));
        assert_eq!(stopping.estimate(action(0), &slow), plain.estimate(action(0), &slow));
    }

    #[test]
    fn a_device_that_cannot_do_all_is_given_what_it_can() {
        let all = planner(Goal::Accuracy);
        assert_eq!(all.candidates(&Conditions::default()).len(), 6);
        let splits = all.clone().only(|action| matches!(action, Action::Split { .. }));
        assert_eq!(splits.candidates(&Conditions::default()).len(), 2);
        assert_eq!(splits.estimate(Action::Local, &Conditions::default()), None);
        assert_eq!(all.only(|_| false).best(&Conditions::default()).action, Action::Local);
    }
}
