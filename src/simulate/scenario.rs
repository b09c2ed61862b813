//! What is simulated.

use rand::{Rng, SeedableRng};
use rand_pcg::Pcg64Mcg;

use crate::error::{Error, Result};
use crate::power::Power;
use crate::simulate::generate::Generator;
use crate::simulate::steps::Steps;
use crate::simulate::trace::Trace;

/// Most devices, most workers of all servers, and most requests that are expected of all devices.
const MAX_NUMBER: usize = 1_000_000;
const MAX_REQUESTS: f64 = 5e7;
/// Speeds that a device or a server can have.
const SPEEDS: (f64, f64) = (1e-9, 1e9);
/// Traces that are drawn for a fleet, and seconds of each: every device has one of them, from a place of its own on.
const DRAWN: (usize, f64) = (16, 1800.0);

/// A fleet, its links and its servers.
#[derive(Debug, Clone, PartialEq)]
pub struct Scenario {
    /// Number of devices. Each computes one request at a time, and sends one at a time.
    pub devices: usize,
    /// Number of servers; requests go to them in turn.
    pub servers: usize,
    /// Requests that each server works on at a time; the others wait in line.
    pub workers: usize,
    /// Seconds for which requests are made. All that are made are followed to their end.
    pub seconds: f64,
    /// Seconds at the beginning of which requests are not counted.
    pub warm_up: f64,
    /// Requests a second of each device, on average.
    pub rate: f64,
    /// How they come.
    pub arrivals: Arrivals,
    /// The links.
    pub link: Link,
    /// Share of the servers' time that others take, 0 to below 1.
    pub load: Steps,
    /// Seconds after which an answer is worth nothing; infinite for no deadline.
    pub deadline: f64,
    /// Speed of the devices, 1 being the measured machine.
    pub device_speed: f64,
    /// Speed of a server's worker.
    pub server_speed: f64,
    /// What a device draws.
    pub power: Power,
    /// What it costs to run.
    pub prices: Prices,
    /// All that is drawn depends on this alone.
    pub seed: u64,
}

/// How requests come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrivals {
    /// At random, independently.
    Poisson,
    /// By a clock, each device's with a phase of its own.
    Periodic,
}

/// Prices, in any currency.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Prices {
    /// An hour of one server, idle or not.
    pub server_hour: f64,
    /// A gigabyte sent (10^9 bytes).
    pub gigabyte: f64,
}

/// The links of a fleet.
#[derive(Debug, Clone, PartialEq)]
pub struct Link {
    /// Device `i` has trace `i` modulo their number.
    traces: Vec<Trace>,
    /// Whether each device begins at a place of its own in its trace, or all at the first.
    shifted: bool,
}

impl Link {
    /// One link for all devices, each of which is at a place of its own in it.
    pub fn shifted(trace: Trace) -> Link {
        Link { traces: vec![trace], shifted: true }
    }

    /// One link for all devices, which changes for all at the same time.
    pub fn same(trace: Trace) -> Link {
        Link { traces: vec![trace], shifted: false }
    }

    /// Links of a kind, drawn: 16 of half an hour each.
    ///
    /// # Errors
    /// As [`Generator::trace`].
    pub fn drawn(generator: Generator, round_trip: f64, seed: u64) -> Result<Link> {
        let mut random = Pcg64Mcg::seed_from_u64(seed ^ 0x6c69_6e6b);
        let traces = (0..DRAWN.0).map(|_| generator.trace(DRAWN.1, round_trip, &mut random));
        Ok(Link { traces: traces.collect::<Result<_>>()?, shifted: true })
    }

    /// The mean bandwidth of all traces, in bits a second.
    pub fn mean_bandwidth(&self) -> f64 {
        self.traces.iter().map(|trace| trace.bandwidth.mean()).sum::<f64>() / self.traces.len() as f64
    }

    /// The mean round trip of all traces, in seconds.
    pub fn mean_round_trip(&self) -> f64 {
        self.traces.iter().map(|trace| trace.round_trip.mean()).sum::<f64>() / self.traces.len() as f64
    }

    /// Share of the time in which a link is down, the mean of all traces.
    pub fn down(&self) -> f64 {
        self.traces.iter().map(|trace| trace.bandwidth.share_at_zero()).sum::<f64>() / self.traces.len() as f64
    }

    /// The first trace: what a plot can show.
    pub fn first(&self) -> &Trace {
        &self.traces[0]
    }

    /// Whether all devices see the same at the same time.
    pub fn is_same(&self) -> bool {
        !self.shifted && self.traces.len() == 1
    }

    /// The trace of a device.
    pub(super) fn trace(&self, device: usize) -> &Trace {
        &self.traces[device % self.traces.len()]
    }

    /// Where in its trace a device begins, in seconds.
    pub(super) fn offset(&self, device: usize, random: &mut Pcg64Mcg) -> f64 {
        let period = self.trace(device).bandwidth.period();
        // Drawn in any case, so that requests do not depend on the kind of link.
        let share: f64 = random.random();
        if self.shifted && period.is_finite() { share * period } else { 0.0 }
    }
}

impl Scenario {
    /// Requests that are expected of the whole fleet.
    pub fn expected(&self) -> f64 {
        self.devices as f64 * self.rate * self.seconds
    }

    /// Checks that it can be simulated.
    pub(super) fn check(&self) -> Result<()> {
        let invalid = |message: String| Err(Error::invalid(message));
        let (devices, servers, workers) = (self.devices, self.servers, self.workers);
        let all_workers = servers.saturating_mul(workers);
        if [devices, all_workers].iter().any(|number| !(1..=MAX_NUMBER).contains(number)) {
            return invalid(format!(
                "{devices} devices, {servers} servers of {workers} workers: 1 or more, devices and all workers up to a million"
            ));
        }
        for (name, value) in [("time", self.seconds), ("rate", self.rate)] {
            if !(value.is_finite() && value > 0.0) {
                return invalid(format!("a {name} of {value}"));
            }
        }
        for (name, value) in [("device speed", self.device_speed), ("server speed", self.server_speed)] {
            if !(SPEEDS.0..=SPEEDS.1).contains(&value) {
                return invalid(format!("a {name} of {value}; speeds are from {} to {}", SPEEDS.0, SPEEDS.1));
            }
        }
        if !self.load.all(|load| (0.0..1.0).contains(&load)) {
            return invalid("a load of the servers that is not from 0 to below 1".into());
        }
        for Trace { bandwidth, round_trip } in &self.link.traces {
            if !(bandwidth.all(|bits| bits >= 0.0) && round_trip.all(|seconds| seconds.is_finite() && seconds >= 0.0)) {
                return invalid("a link with a bandwidth or a round trip that is no number from 0 up".into());
            }
        }
        let (Power { compute, send, receive, idle }, Prices { server_hour, gigabyte }) = (self.power, self.prices);
        for value in [compute, send, receive, idle, server_hour, gigabyte, self.warm_up] {
            if !(value.is_finite() && value >= 0.0) {
                return invalid(format!("{value} for a power, a price or the time to warm up"));
            }
        }
        if self.deadline.is_nan() || self.deadline <= 0.0 {
            return invalid(format!("a deadline of {} seconds: it is above 0", self.deadline));
        }
        if self.warm_up >= self.seconds {
            let (warm_up, seconds) = (self.warm_up, self.seconds);
            return invalid(format!("{warm_up} of {seconds} seconds to warm up: none are left that count"));
        }
        if self.expected() > MAX_REQUESTS {
            let (needed, limit) = (self.expected() as u64, MAX_REQUESTS as u64);
            return Err(Error::LimitExceeded { what: "requests of a simulation", needed, limit });
        }
        Ok(())
    }
}
