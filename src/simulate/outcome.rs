//! What came of a simulation.

use crate::error::{Error, Result};
use crate::simulate::scenario::Scenario;

/// Parts of the simulated time that are counted apart.
const SLICES: usize = 120;
/// Points of the distribution of delays.
const POINTS: usize = 400;

/// What came of one strategy in one scenario. Shares are of all requests that were counted.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// Number of requests that were counted.
    pub requests: usize,
    /// Share with an answer at all; the others were given up because their deadline had passed.
    pub answered: f64,
    /// Mean seconds from request to answer, of those with an answer; infinite if there is none.
    pub mean_delay: f64,
    /// Seconds within which these shares have an answer: 0.5, 0.9, 0.99 and 0.999. Infinite where fewer ever have one.
    pub delays: [f64; 4],
    /// Share with an answer within the deadline.
    pub in_time: f64,
    /// Share of right answers.
    pub accuracy: f64,
    /// Share of right answers among those within the deadline.
    pub accuracy_in_time: f64,
    /// Share of right answers within the deadline.
    pub right_in_time: f64,
    /// Share answered on the device: at an exit, at the end of the network, or by the last exit at the deadline.
    pub on_device: f64,
    /// Share answered by the last exit because the deadline came before the server's answer.
    pub fell_back: f64,
    /// Mean bytes sent.
    pub bytes: f64,
    /// Mean joules of the device.
    pub energy: f64,
    /// Share of the workers' time in which they worked.
    pub utilisation: f64,
    /// Price of a million requests, servers and bytes: all servers for all of the time, idle or not.
    pub million: f64,
    /// The same if of the servers only that is paid for which was worked for these requests: a worker's hour costs its part of
    /// a server's.
    pub million_used: f64,
    /// Seconds within which evenly spaced shares from 0 to 1 have an answer.
    pub distribution: Vec<f64>,
    /// The same over time.
    pub slices: Vec<Slice>,
}

/// The requests of a part of the simulated time.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Slice {
    /// When it begins, in seconds.
    pub start: f64,
    /// Number of requests made in it.
    pub requests: usize,
    /// Share of them with an answer within the deadline.
    pub in_time: f64,
    /// Share of them with a right answer.
    pub accuracy: f64,
}

/// Where an answer came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    Device,
    FallBack,
    Server,
    Nowhere,
}

/// Counts as requests end.
#[derive(Debug)]
pub(super) struct Counts {
    delays: Vec<f32>,
    right: usize,
    in_time: usize,
    right_in_time: usize,
    on_device: usize,
    fell_back: usize,
    pub bytes: f64,
    pub energy: f64,
    /// Seconds in which workers worked.
    pub worked: f64,
    /// Seconds of work of the requests that are counted, other load left out.
    pub work: f64,
    /// Requests, in time, right.
    slices: Vec<[usize; 3]>,
}

impl Counts {
    pub fn new(scenario: &Scenario) -> Counts {
        Counts {
            delays: Vec::with_capacity((1.05 * scenario.expected()) as usize),
            right: 0,
            in_time: 0,
            right_in_time: 0,
            on_device: 0,
            fell_back: 0,
            bytes: 0.0,
            energy: 0.0,
            worked: 0.0,
            work: 0.0,
            slices: vec![[0; 3]; SLICES],
        }
    }

    /// A request that was made at `asked` ends.
    pub fn add(&mut self, asked: f64, delay: f64, right: bool, source: Source, scenario: &Scenario) {
        let in_time = delay <= scenario.deadline && source != Source::Nowhere;
        self.delays.push(if source == Source::Nowhere { f32::INFINITY } else { delay as f32 });
        self.right += usize::from(right);
        self.in_time += usize::from(in_time);
        self.right_in_time += usize::from(in_time && right);
        self.on_device += usize::from(matches!(source, Source::Device | Source::FallBack));
        self.fell_back += usize::from(source == Source::FallBack);
        let slice = ((asked / scenario.seconds * SLICES as f64) as usize).min(SLICES - 1);
        let slice = &mut self.slices[slice];
        slice[0] += 1;
        slice[1] += usize::from(in_time);
        slice[2] += usize::from(right);
    }

    /// Sums up.
    pub fn finish(mut self, scenario: &Scenario) -> Result<Outcome> {
        let requests = self.delays.len();
        if requests == 0 {
            let (expected, seconds) = (scenario.expected(), scenario.seconds - scenario.warm_up);
            return Err(Error::invalid(format!(
                "no request came in the {seconds} seconds that count, {expected:.3} are expected of the whole time: simulate a \
                 longer time, more devices or a higher rate"
            )));
        }
        let share = |count: usize| count as f64 / requests as f64;
        self.delays.sort_unstable_by(f32::total_cmp);
        let answered = self.delays.partition_point(|delay| delay.is_finite());
        let sum: f64 = self.delays[..answered].iter().map(|&delay| f64::from(delay)).sum();
        // The least delay that this share of all requests does not exceed.
        let quantile = |q: f64| {
            let place = ((requests as f64 * q).ceil() as usize).clamp(1, requests.max(1)) - 1;
            self.delays.get(place).map_or(f64::INFINITY, |&delay| f64::from(delay))
        };
        let hours = scenario.seconds / 3600.0 * scenario.servers as f64;
        let counted = (scenario.seconds - scenario.warm_up) / scenario.seconds;
        let used = self.work / 3600.0 / scenario.workers as f64;
        let million = |hours: f64| {
            let price = hours * scenario.prices.server_hour + self.bytes / 1e9 * scenario.prices.gigabyte;
            price / requests as f64 * 1e6
        };
        let workers = (scenario.servers * scenario.workers) as f64;
        let slice = |(i, &[requests, in_time, right]): (usize, &[usize; 3])| Slice {
            start: i as f64 * scenario.seconds / SLICES as f64,
            requests,
            in_time: in_time as f64 / requests.max(1) as f64,
            accuracy: right as f64 / requests.max(1) as f64,
        };
        Ok(Outcome {
            requests,
            answered: share(answered),
            mean_delay: if answered > 0 { sum / answered as f64 } else { f64::INFINITY },
            delays: [0.5, 0.9, 0.99, 0.999].map(quantile),
            in_time: share(self.in_time),
            accuracy: share(self.right),
            accuracy_in_time: self.right_in_time as f64 / self.in_time.max(1) as f64,
            right_in_time: share(self.right_in_time),
            on_device: share(self.on_device),
            fell_back: share(self.fell_back),
            bytes: self.bytes / requests.max(1) as f64,
            energy: self.energy / requests.max(1) as f64,
            utilisation: self.worked / (workers * scenario.seconds),
            million: million(hours * counted),
            million_used: million(used),
            distribution: (0..=POINTS).map(|i| quantile(i as f64 / POINTS as f64)).collect(),
            slices: self.slices.iter().enumerate().map(slice).filter(|slice| slice.requests > 0).collect(),
        })
    }
}
