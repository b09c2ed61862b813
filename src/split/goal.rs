//! What a choice is to be good at.

use crate::split::Action;

/// What the planner looks for. Every goal passes over actions that would take for ever while another does not.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Goal {
    /// The least mean delay of all that are as accurate as this; if none is, the most accurate.
    Delay {
        /// Share of right answers, 0 to 1.
        accuracy: f64,
    },
    /// The least energy of all that are as accurate as this and surely meet the deadline; if none does, of those that are
    /// accurate the one that most likely meets it; if none is, the most accurate. When the deadline has passed, the fastest of
    /// all: that answer is worth nothing, but the next input waits.
    Energy {
        /// Share of right answers, 0 to 1.
        accuracy: f64,
    },
    /// The most answers that are right and in time ([`Estimate::right_in_time`]); of what differs by less than measurements
    /// can tell, the fastest.
    Accuracy,
}

/// What an action is expected to cost under given conditions.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Estimate {
    /// What would be done.
    pub action: Action,
    /// Mean seconds from the input to the answer.
    pub delay: f64,
    /// The same with caution, for an image whose bytes are at the 95th percentile ([`Conditions::cautious`]).
    ///
    /// [`Conditions::cautious`]: crate::Conditions::cautious
    pub late: f64,
    /// Probability to meet the deadline, over the bytes of the measured images and the conditions' deviation.
    pub in_time: f64,
    /// Joules of the device.
    pub energy: f64,
    /// Mean bytes sent.
    pub bytes: f64,
    /// Share of right answers, where no exit answers before.
    pub accuracy: f64,
    /// Share of answers, those of exits counted, that are right and in time. What is sent is taken to be right a standard
    /// error less often than was measured, or what was lucky on the measured images would be chosen.
    pub right_in_time: f64,
}

/// Shares are means of some hundred images: what differs by less is the same.
const EQUAL: f64 = 1e-9;
/// Shares of answers are chosen by in steps of this.
const GRAIN: f64 = 0.002;
/// Share of delay or energy that all answers are worth: half a point a tenth.
const WORTH: f64 = 20.0;

/// Place of an estimate in the order of a goal, the least first: how well it does what is asked, then two quantities.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub(crate) struct Rank {
    class: u8,
    first: f64,
    second: f64,
    /// The first is a share of answers, negated so that more is less.
    share: bool,
}

impl Goal {
    /// The place of an estimate, for this deadline in seconds.
    pub(crate) fn rank(&self, estimate: &Estimate, deadline: f64) -> Rank {
        let Estimate { delay, late, in_time, energy, accuracy, right_in_time, .. } = *estimate;
        let rank = |class, first, second| Rank { class, first, second, share: false };
        let share =
            |class, first: f64, second| Rank { class, first: -(first / GRAIN).round() * GRAIN, second, share: true };
        if delay == f64::INFINITY {
            return share(9, accuracy, 0.0);
        }
        match *self {
            Goal::Energy { .. } if deadline <= 0.0 => rank(1, delay, energy),
            Goal::Delay { accuracy: floor } | Goal::Energy { accuracy: floor } if accuracy < floor - EQUAL => {
                share(8, accuracy, delay)
            }
            Goal::Delay { .. } => rank(0, delay, -accuracy),
            Goal::Energy { .. } if late <= deadline => rank(0, energy, delay),
            Goal::Energy { .. } => share(1, in_time, delay),
            Goal::Accuracy => share(0, right_in_time, delay),
        }
    }

    /// True if what is chosen has to meet the deadline surely.
    pub(crate) fn is_bound_by_deadline(&self) -> bool {
        matches!(self, Goal::Energy { .. })
    }
}

impl Rank {
    /// How much better `self` is than `other`: a share of what `other` costs, or what the accuracy is worth. Doing what is asked
    /// is worth everything.
    pub(crate) fn gain_over(&self, other: &Rank) -> Gain {
        if self.class != other.class {
            return if self.class < other.class { Gain::Kind } else { Gain::Share(0.0) };
        }
        let share = |own: f64, other: f64| if other > own { (other - own) / other } else { 0.0 };
        match self.share {
            true if self.first + EQUAL < other.first => Gain::Share(WORTH * (other.first - self.first)),
            true => Gain::Share(share(self.second, other.second)),
            false => Gain::Share(share(self.first, other.first)),
        }
    }
}

/// What changing to another action would bring.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Gain {
    /// The present action does not do what is asked, the other does.
    Kind,
    /// A share of delay or energy, or worth as much.
    Share(f64),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn estimate(delay: f64, energy: f64, accuracy: f64) -> Estimate {
        let (in_time, bytes, right_in_time) = (1.0, 0.0, accuracy);
        Estimate { action: Action::Local, delay, late: 1.5 * delay, in_time, energy, bytes, accuracy, right_in_time }
    }

    fn best(goal: Goal, deadline: f64, estimates: &[Estimate]) -> usize {
        let likely = |one: &Estimate| {
            let in_time = (deadline / one.late).min(1.0);
            Estimate { in_time, right_in_time: in_time * one.accuracy, ..*one }
        };
        let rank = |one: &Estimate| goal.rank(&likely(one), deadline);
        let ranks: Vec<Rank> = estimates.iter().map(rank).collect();
        (0..ranks.len()).reduce(|best, i| if ranks[i] < ranks[best] { i } else { best }).unwrap()
    }

    #[test]
    fn each_goal_finds_its_own() {
        let all =
            [estimate(1.0, 9.0, 0.9), estimate(2.0, 1.0, 0.8), estimate(4.0, 5.0, 0.95), estimate(8.0, 2.0, 0.95)];
        for (goal, deadline, expected) in [
            (Goal::Delay { accuracy: 0.0 }, 0.1, 0),
            (Goal::Delay { accuracy: 0.95 }, 0.1, 2),
            (Goal::Delay { accuracy: 0.99 }, 0.1, 2),
            (Goal::Energy { accuracy: 0.0 }, 100.0, 1),
            (Goal::Energy { accuracy: 0.9 }, 100.0, 3),
            (Goal::Energy { accuracy: 0.9 }, 2.0, 0),
            (Goal::Energy { accuracy: 0.9 }, 1.0, 0),
            (Goal::Energy { accuracy: 0.99 }, 100.0, 2),
            (Goal::Energy { accuracy: 0.95 }, 1.0, 2),
            (Goal::Energy { accuracy: 0.95 }, 0.0, 0),
            (Goal::Accuracy, 100.0, 2),
            (Goal::Accuracy, 5.9, 2),
            (Goal::Accuracy, 5.0, 0),
            (Goal::Accuracy, 1.0, 0),
        ] {
            assert_eq!(best(goal, deadline, &all), expected, "{goal:?} within {deadline}");
        }
    }

    #[test]
    fn what_measurements_cannot_tell_apart_is_chosen_by_delay() {
        assert_eq!(best(Goal::Accuracy, 100.0, &[estimate(1.0, 1.0, 0.9005), estimate(0.5, 1.0, 0.8995)]), 1);
        assert_eq!(best(Goal::Accuracy, 100.0, &[estimate(1.0, 1.0, 0.91), estimate(0.5, 1.0, 0.9)]), 0);
    }

    #[test]
    fn half_a_point_is_worth_a_tenth_of_the_delay() {
        let rank = |estimate: &Estimate| Goal::Accuracy.rank(estimate, 100.0);
        let gain = rank(&estimate(2.0, 1.0, 0.91)).gain_over(&rank(&estimate(1.0, 1.0, 0.9)));
        assert!(matches!(gain, Gain::Share(share) if (share - 0.2).abs() < 1e-9), "{gain:?}");
        let gain = rank(&estimate(1.0, 1.0, 0.9)).gain_over(&rank(&estimate(2.0, 1.0, 0.9)));
        assert_eq!(gain, Gain::Share(0.5));
    }

    #[test]
    fn no_goal_waits_for_ever() {
        let all = [estimate(f64::INFINITY, f64::INFINITY, 0.99), estimate(2.0, 1.0, 0.5)];
        for goal in [Goal::Delay { accuracy: 0.9 }, Goal::Energy { accuracy: 0.9 }, Goal::Accuracy] {
            assert_eq!(best(goal, f64::INFINITY, &all), 1, "{goal:?}");
        }
    }
}
