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
    /// Accuracy that may be lost against the uncut network, in percentage points.
    #[arg(long, value_name = "POINTS", value_parser = units::points, default_value_t = 0.5)]
    pub loss: f64,
    /// What to optimise. delay: the least delay of all that lose at most --loss; energy: the least energy of the device
    /// of all that lose at most --loss and meet --deadline; accuracy: the most answers that are right and within
    /// --deadline, regardless of --loss [default: accuracy if there is a deadline, else delay].
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
