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
    /// The least energy of all that are as accurate as this and meet the deadline; if none meets it, the fastest of those
    /// that are accurate; if none is, the most accurate.
    Energy {
        /// Share of right answers, 0 to 1.
        accuracy: f64,
    },
    /// The best accuracy of all that meet the deadline; if none does, the fastest.
    Accuracy,
}

/// What an action is expected to cost under given conditions.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Estimate {
    /// What would be done.
    pub action: Action,
    /// Mean seconds from the input to the answer.
    pub delay: f64,
    /// The same for an image whose bytes are at the 95th percentile: what a deadline is held against.
    pub late: f64,
    /// Joules of the device.
    pub energy: f64,
    /// Mean bytes sent.
    pub bytes: f64,
    /// Share of right answers.
    pub accuracy: f64,
}

/// Shares are means of some hundred images: what differs by less is the same.
const EQUAL: f64 = 1e-9;

/// Place of an estimate in the order of a goal, the least first: how well it does what is asked, then two quantities.
/// Accuracies are negated, so that more is less: a quantity below 0 is one.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub(crate) struct Rank {
    class: u8,
    first: f64,
    second: f64,
}

impl Goal {
    /// The place of an estimate, for this deadline in seconds.
    pub(crate) fn rank(&self, estimate: &Estimate, deadline: f64) -> Rank {
        let Estimate { delay, late, energy, accuracy, .. } = *estimate;
        let rank = |class, first, second| Rank { class, first, second };
        if delay == f64::INFINITY {
            return rank(9, -accuracy, 0.0);
        }
        let in_time = late <= deadline;
        match *self {
            Goal::Delay { accuracy: floor } | Goal::Energy { accuracy: floor } if accuracy < floor - EQUAL => {
                rank(8, -accuracy, delay)
            }
            Goal::Delay { .. } => rank(0, delay, -accuracy),
            Goal::Energy { .. } if in_time => rank(0, energy, delay),
            Goal::Energy { .. } => rank(1, delay, energy),
            Goal::Accuracy if in_time => rank(0, -accuracy, delay),
            Goal::Accuracy => rank(1, late, -accuracy),
        }
    }

    /// True if the deadline counts.
    pub(crate) fn is_bound_by_deadline(&self) -> bool {
        !matches!(self, Goal::Delay { .. })
    }
}

impl Rank {
    /// How much better `self` is than `other`: a share of what `other` costs. Doing better what is asked is worth
    /// everything, so is a better accuracy where that is looked for.
    pub(crate) fn gain_over(&self, other: &Rank) -> Gain {
        if self.class != other.class {
            return if self.class < other.class { Gain::Kind } else { Gain::Share(0.0) };
        }
        let share = |own: f64, other: f64| if other > own { (other - own) / other } else { 0.0 };
        match self.first < 0.0 || other.first < 0.0 {
            true if self.first + EQUAL < other.first => Gain::Accuracy,
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
    /// A better accuracy.
    Accuracy,
    /// A share of delay or energy, 0 to 1.
    Share(f64),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn estimate(delay: f64, energy: f64, accuracy: f64) -> Estimate {
        Estimate { action: Action::Local, delay, late: 1.5 * delay, energy, bytes: 0.0, accuracy }
    }

    fn best(goal: Goal, deadline: f64, estimates: &[Estimate]) -> usize {
        let ranks: Vec<Rank> = estimates.iter().map(|estimate| goal.rank(estimate, deadline)).collect();
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
            (Goal::Accuracy, 100.0, 2),
            (Goal::Accuracy, 5.9, 0),
            (Goal::Accuracy, 1.0, 0),
        ] {
            assert_eq!(best(goal, deadline, &all), expected, "{goal:?} within {deadline}");
        }
    }

    #[test]
    fn no_goal_waits_for_ever() {
        let all = [estimate(f64::INFINITY, f64::INFINITY, 0.99), estimate(2.0, 1.0, 0.5)];
        for goal in [Goal::Delay { accuracy: 0.9 }, Goal::Energy { accuracy: 0.9 }, Goal::Accuracy] {
            assert_eq!(best(goal, f64::INFINITY, &all), 1, "{goal:?}");
        }
    }
}
