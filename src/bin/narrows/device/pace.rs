//! The time that work takes on a slower device: done here, and then waited for.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::metrics::median;

/// Runs that the usual time is taken from.
const RUNS: usize = 101;

/// A part of the device's work. Numbers are places in the measurements, the last ones of `Head` and `Rest` how many exits have
/// been asked: what comes after them is less.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Part {
    /// From the image, or the exit before, to an exit.
    Exit(usize),
    /// To a cut.
    Head(usize, usize),
    /// Encoding the feature at a cut with a coding.
    Encode(usize, usize),
    /// Compressing the image.
    Image,
    /// From a cut, or from the image, to the end of the network.
    Rest(Option<usize>, usize),
}

/// Times work as a device of some speed would take it.
///
/// A part takes what it usually takes on this machine, the median of its last runs, divided by the speed; longer only where
/// this machine itself needs longer. What disturbs this machine now and then is so not stretched with the work.
#[derive(Debug)]
pub struct Pace {
    speed: f64,
    seen: HashMap<Part, VecDeque<f64>>,
}

impl Pace {
    /// The pace of a device of this speed, relative to this machine.
    pub fn new(speed: f64) -> Pace {
        Pace { speed, seen: HashMap::new() }
    }

    /// Does work and waits until the device would have done it. The result, and the seconds of both.
    pub fn time<T>(&mut self, part: Part, work: impl FnOnce() -> Result<T>) -> Result<(T, f64)> {
        let start = Instant::now();
        let result = work()?;
        let own = start.elapsed().as_secs_f64();
        if self.speed < 1.0 {
            let seconds = self.usual(part, own) / self.speed;
            std::thread::sleep(Duration::from_secs_f64((seconds - own).max(0.0)));
        }
        Ok((result, start.elapsed().as_secs_f64()))
    }

    /// Does work to learn what it usually takes, without waiting.
    pub fn learn<T>(&mut self, part: Part, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let start = Instant::now();
        let result = work()?;
        self.usual(part, start.elapsed().as_secs_f64());
        Ok(result)
    }

    fn usual(&mut self, part: Part, own: f64) -> f64 {
        let runs = self.seen.entry(part).or_default();
        if runs.len() == RUNS {
            runs.pop_front();
        }
        runs.push_back(own);
        median(runs.make_contiguous().to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_takes_its_usual_time() {
        let mut pace = Pace::new(0.5);
        let usual: Vec<f64> = [4.0, 2.0, 3.0, 90.0, 3.0].map(|own| pace.usual(Part::Image, own)).to_vec();
        assert_eq!(usual, [4.0, 3.0, 3.0, 3.5, 3.0]);
        assert_eq!(pace.usual(Part::Head(0, 0), 7.0), 7.0);
        // Old runs are forgotten.
        for _ in 0..RUNS {
            pace.usual(Part::Image, 1.0);
        }
        assert_eq!(pace.usual(Part::Image, 50.0), 1.0);
    }

    #[test]
    fn a_slower_device_takes_longer() {
        let work = || {
            std::thread::sleep(Duration::from_millis(5));
            Ok(7)
        };
        let (result, seconds) = Pace::new(0.25).time(Part::Rest(None, 0), work).unwrap();
        assert!(result == 7 && seconds >= 0.020, "{seconds}");
    }
}
