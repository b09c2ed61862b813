//! What a choice is to be good at.

use crate::split::Action;

/// What the planner looks for. Every goal passes over actions that would take for ever while another does not.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Goal {
    /// The least mean delay of all that were measured to be as accurate as this; if none is, the most accurate.
    /// The deadline does not count.
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
    /// Share of right answers, those of exits counted.
    pub accuracy: f64,
    /// Standard error of the difference to the accuracy of the uncut network, 0 for [`Action::Local`]: what is closer to a floor of
    /// accuracy than this may be above it by luck. It falls with the square root of the number of measured images.
    pub error: f64,
    /// Share of answers, those of exits counted, that are right and in time. What is sent is taken to be right a standard
    /// error less often than was measured, or what was lucky on the measured images would be chosen.
    pub right_in_time: f64,
}

/// Two shares of images that differ by less than this are equal: the difference is rounding.
const EQUAL: f64 = 1e-9;
/// Shares of answers are rounded to multiples of this before they are compared: a fifth of a point is less than the
/// measured images can tell.
const GRAIN: f64 = 0.002;
/// What accuracy is worth in delay: a share of right answers that is higher by x counts as much as a delay that is shorter by
/// this times x, as a share of it. Half a point counts as a tenth of the delay.
const WORTH: f64 = 20.0;

/// How well an estimate does what a goal asks, the best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Class {
    /// It does what is asked.
    Meets,
    /// It is as accurate as is asked, and not surely in time, or the deadline has passed.
    Late,
    /// It is not as accurate as is asked.
    Inaccurate,
    /// Its answer never comes.
    Never,
}

/// Place of an estimate in the order of a goal, the least first: how well it does what is asked, then two quantities.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub(crate) struct Rank {
    class: Class,
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
            return share(Class::Never, accuracy, 0.0);
        }
        match *self {
            Goal::Energy { .. } if deadline <= 0.0 => rank(Class::Late, delay, energy),
            Goal::Delay { accuracy: floor } | Goal::Energy { accuracy: floor } if accuracy < floor - EQUAL => {
                share(Class::Inaccurate, accuracy, delay)
            }
            Goal::Delay { .. } => rank(Class::Meets, delay, -accuracy),
            Goal::Energy { .. } if late <= deadline => rank(Class::Meets, energy, delay),
            Goal::Energy { .. } => share(Class::Late, in_time, delay),
            Goal::Accuracy => share(Class::Meets, right_in_time, delay),
        }
    }

    /// True if the deadline counts for what is chosen.
    pub(crate) fn has_deadline(&self) -> bool {
        !matches!(self, Goal::Delay { .. })
    }
}

impl Rank {
    /// How much better `self` is than `other`, as a share of delay or energy; infinite where `other` does not do what is asked
    /// and `self` does it better. `None` if it is not better.
    ///
    /// Where a share of answers is compared first, what is gained in it counts by [`WORTH`], and what is gained in the delay
    /// beside it is added. A longer delay takes nothing away: answers are what is asked for, and the better choice would
    /// never be taken.
    pub(crate) fn gain_over(&self, other: &Rank) -> Option<f64> {
        if self >= other {
            return None;
        }
        if self.class < other.class {
            return Some(f64::INFINITY);
        }
        let share = |own: f64, other: f64| if other > own { (other - own) / other } else { 0.0 };
        Some(match self.share {
            true => WORTH * (other.first - self.first) + share(self.second, other.second),
            false => share(self.first, other.first),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn estimate(delay: f64, energy: f64, accuracy: f64) -> Estimate {
        let (in_time, bytes, right_in_time, error) = (1.0, 0.0, accuracy, 0.0);
        Estimate {
            action: Action::Local,
            delay,
            late: 1.5 * delay,
            in_time,
            energy,
            bytes,
            accuracy,
            error,
            right_in_time,
        }
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
        let gain = |own: Estimate, other: Estimate| rank(&own).gain_over(&rank(&other));
        let near = |gain: Option<f64>, expected: f64| gain.is_some_and(|gain| (gain - expected).abs() < 1e-9);
        assert!(near(gain(estimate(2.0, 1.0, 0.91), estimate(1.0, 1.0, 0.9)), 0.2));
        assert!(near(gain(estimate(1.0, 1.0, 0.9), estimate(2.0, 1.0, 0.9)), 0.5));
        // Both at once are worth both.
        assert!(near(gain(estimate(1.0, 1.0, 0.91), estimate(2.0, 1.0, 0.9)), 0.7));
        // However much sooner it is, what is right less often is not better.
        assert_eq!(gain(estimate(0.01, 1.0, 0.9), estimate(2.0, 1.0, 0.91)), None);
        assert_eq!(gain(estimate(1.0, 1.0, 0.9), estimate(1.0, 1.0, 0.9)), None);
        let floor = Goal::Delay { accuracy: 0.9 };
        let (enough, not) = (floor.rank(&estimate(9.0, 1.0, 0.9), 1.0), floor.rank(&estimate(1.0, 1.0, 0.8), 1.0));
        assert_eq!((enough.gain_over(&not), not.gain_over(&enough)), (Some(f64::INFINITY), None));
    }

    #[test]
    fn no_goal_waits_for_ever() {
        let all = [estimate(f64::INFINITY, f64::INFINITY, 0.99), estimate(2.0, 1.0, 0.5)];
        for goal in [Goal::Delay { accuracy: 0.9 }, Goal::Energy { accuracy: 0.9 }, Goal::Accuracy] {
            assert_eq!(best(goal, f64::INFINITY, &all), 1, "{goal:?}");
        }
    }
}
