//! The flags that say what is looked for.

use clap::{Args, ValueEnum};
use narrows::split::Goal;

use crate::units;

/// What is to be best.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Wanted {
    Delay,
    Energy,
    Accuracy,
}

/// What is looked for, and what it may cost in accuracy.
#[derive(Debug, Clone, Args)]
pub struct GoalArgs {
    /// Points of accuracy that answers may lose against the uncut network.
    #[arg(long, value_name = "POINTS", value_parser = units::points, default_value_t = 0.5)]
    pub loss: f64,
    /// What is looked for: among all that is accurate enough the least delay, or the least energy of the device within
    /// --deadline; or accuracy, the most answers that are right and within --deadline, whatever --loss says [default:
    /// accuracy if there is a deadline, else delay].
    #[arg(long, value_name = "NAME", value_enum)]
    goal: Option<Wanted>,
}

impl Wanted {
    /// The goal, where answers have to be as accurate as this, 0 to 1.
    pub fn goal(self, accuracy: f64) -> Goal {
        match self {
            Wanted::Delay => Goal::Delay { accuracy },
            Wanted::Energy => Goal::Energy { accuracy },
            Wanted::Accuracy => Goal::Accuracy,
        }
    }
}

impl GoalArgs {
    /// What is looked for where there is a deadline, or none.
    pub fn wanted(&self, deadline: bool) -> Wanted {
        self.goal.unwrap_or(if deadline { Wanted::Accuracy } else { Wanted::Delay })
    }

    /// The accuracy to reach, where that of the uncut network is known.
    pub fn accuracy(&self, uncut: f64) -> f64 {
        uncut - self.loss / 100.0
    }
}
