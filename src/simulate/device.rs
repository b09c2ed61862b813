//! A device: what it knows, and what it makes of it.

use rand::{Rng, SeedableRng};
use rand_distr::{Distribution, Exp1};
use rand_pcg::Pcg64Mcg;

use crate::conditions::Conditions;
use crate::exit::{Decision, Reading};
use crate::simulate::scenario::{Arrivals, Scenario};
use crate::simulate::strategy::{Kind, Ways};
use crate::split::{LinkEstimate, Planner};

/// Seconds of silence after which a device that answers by itself sends a probe, and its bytes: without one it would never
/// learn that its link has become better.
const SILENCE: f64 = 10.0;
const PROBE: f64 = 256.0;

/// No request.
pub const NONE: u32 = u32::MAX;

/// One device of the fleet.
#[derive(Debug)]
pub struct Device {
    random: Pcg64Mcg,
    /// Where in its trace it is at time 0.
    pub offset: f64,
    /// Whether it computes, and the requests that wait for it: first and last of a list.
    pub busy: bool,
    pub waiting: (u32, u32),
    /// When its radio will be free.
    pub radio_free: f64,
    mind: Option<Mind>,
}

/// What a planning device knows.
#[derive(Debug)]
struct Mind {
    link: LinkEstimate,
    /// When it last had a reply.
    heard: f64,
    planner: Planner,
    /// Bytes that it has given to its radio and that are not sent.
    unsent: f64,
    /// A transfer under way that has no reply yet: request, bytes, and when it began.
    flight: Option<(u32, f64, f64)>,
}

/// What a device will do with a request.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Plan {
    /// Which of the ways.
    pub way: usize,
    /// The exit that answers, and its class; `None` if the end of the way does.
    pub answer: Option<(usize, usize)>,
    /// Seconds of computing.
    pub work: f64,
    /// Seconds until the last exit's logits are there, and the class that it would answer, if the device falls back on it.
    pub fallback: Option<(f64, usize)>,
}

impl Device {
    pub fn new(number: usize, scenario: &Scenario, ways: &Ways) -> Device {
        let seed = scenario.seed.wrapping_add((number as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let mut random = Pcg64Mcg::seed_from_u64(seed);
        let offset = scenario.link.offset(number, &mut random);
        let mind = match &ways.kind {
            Kind::Fixed(_) => None,
            Kind::Planned { planner, first, .. } => Some(Mind {
                link: LinkEstimate::new(*first),
                heard: 0.0,
                planner: planner.as_ref().clone(),
                unsent: 0.0,
                flight: None,
            }),
        };
        Device { random, offset, busy: false, waiting: (NONE, NONE), radio_free: 0.0, mind }
    }

    /// Seconds until the first request, or from one to the next.
    pub fn gap(&mut self, scenario: &Scenario, first: bool) -> f64 {
        match scenario.arrivals {
            Arrivals::Poisson => {
                let one: f64 = Exp1.sample(&mut self.random);
                one / scenario.rate
            }
            Arrivals::Periodic if first => self.random.random::<f64>() / scenario.rate,
            Arrivals::Periodic => 1.0 / scenario.rate,
        }
    }

    /// The image of a request.
    pub fn image(&mut self, images: usize) -> u32 {
        self.random.random_range(0..images as u32)
    }

    /// Decides what to do with a request that is `waited` seconds old, by the readings of its exits.
    pub fn plan(
        &mut self,
        now: f64,
        waited: f64,
        ways: &Ways,
        scenario: &Scenario,
        readings: &[Vec<Reading>],
        image: usize,
    ) -> Plan {
        let left = (scenario.deadline - waited).max(0.0);
        let (way, conditions, falls_back) = match (&ways.kind, &mut self.mind) {
            (Kind::Planned { falls_back, .. }, Some(mind)) => {
                let conditions = mind.conditions(now, left, scenario);
                let action = mind.planner.choose(&conditions).action;
                let conditions = if left.is_finite() { conditions.cautious() } else { conditions };
                (ways.place(action), conditions, *falls_back)
            }
            (Kind::Fixed(conditions), _) => (0, Conditions { deadline: left, ..*conditions }, false),
            (Kind::Planned { first, .. }, None) => (0, Conditions { deadline: left, ..*first }, false),
        };
        let chosen = &ways.all[way];
        let seconds = |work: f64| work / scenario.device_speed;
        let mut plan = Plan { way, answer: None, work: seconds(chosen.route.on_device()), fallback: None };
        let Some(policy) = &chosen.policy else { return plan };
        for (exit, readings) in readings.iter().enumerate() {
            let (reading, until) = (&readings[image], seconds(chosen.route.until(exit).unwrap_or(f64::INFINITY)));
            let now = Conditions { deadline: (left - until).max(0.0), ..conditions };
            if let Decision::Answer(class) = policy.decide_for(exit, reading, &now, policy.route()) {
                return Plan { answer: Some((exit, class)), work: until, ..plan };
            }
            plan.fallback = falls_back.then_some((until, reading.class));
        }
        plan
    }

    /// The radio has been given bytes, which it begins to send at `start`.
    pub fn sends(&mut self, request: u32, bytes: f64, start: f64) {
        if let Some(mind) = &mut self.mind {
            mind.unsent += bytes;
            mind.flight.get_or_insert((request, bytes, start));
        }
    }

    /// The radio has sent bytes.
    pub fn sent(&mut self, bytes: f64) {
        if let Some(mind) = &mut self.mind {
            mind.unsent -= bytes;
        }
    }

    /// A reply has come: seconds from the first byte sent to the reply, those of the server taken off, and the seconds that
    /// the server says the request waited there.
    pub fn replied(&mut self, now: f64, request: u32, bytes: f64, seconds: f64, waited: f64) {
        if let Some(mind) = &mut self.mind {
            mind.heard = now;
            mind.link.observe(bytes as usize, seconds);
            mind.link.observe_wait(waited);
            mind.flight.take_if(|flight| flight.0 == request);
        }
    }
}

impl Device {
    /// The bytes of a probe, if it is time for one and the radio is free: it is sent at once.
    pub fn probe(&mut self, now: f64) -> Option<f64> {
        let free = self.radio_free <= now;
        let mind = self.mind.as_mut().filter(|mind| free && mind.flight.is_none() && now - mind.heard > SILENCE)?;
        mind.flight = Some((NONE, PROBE, now));
        Some(PROBE)
    }

    /// The reply to a probe has come.
    pub fn probed(&mut self, now: f64) {
        if let Some(mind) = &mut self.mind
            && let Some((_, bytes, start)) = mind.flight.take_if(|flight| flight.0 == NONE)
        {
            mind.heard = now;
            mind.link.observe(bytes as usize, now - start);
        }
    }
}

impl Mind {
    /// The conditions as the device knows them.
    fn conditions(&mut self, now: f64, left: f64, scenario: &Scenario) -> Conditions {
        if let Some((_, bytes, start)) = self.flight {
            self.link.stalled(bytes as usize, now - start);
        }
        let mut conditions = self.link.conditions();
        // What is not sent yet goes first.
        if self.unsent > 0.0 {
            conditions.wait += Conditions { round_trip: 0.0, ..conditions }.transfer(self.unsent);
        }
        conditions.deadline = left;
        conditions.device_speed = scenario.device_speed;
        conditions.server_speed = scenario.server_speed;
        conditions
    }
}
