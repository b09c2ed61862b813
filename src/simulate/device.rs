//! A device: what it knows, and what it makes of it.

use rand::{Rng, SeedableRng};
use rand_distr::{Distribution, Exp1};
use rand_pcg::Pcg64Mcg;

use crate::conditions::Conditions;
use crate::exit::Reading;
use crate::simulate::request::Line;
use crate::simulate::scenario::{Arrivals, Scenario};
use crate::simulate::strategy::{Kind, Ways};
use crate::split::{LinkEstimate, Planner};

/// Seconds of silence after which a device that answers by itself sends a probe: without one it would never learn that link
/// or server have become better. Each probe that tells nothing new doubles them, up to the second.
const SILENCE: (f64, f64) = (1.0, 64.0);
/// A probe that is answered in less than this share of the time that was expected tells something new.
const NEWS: f64 = 0.5;

/// One device of the fleet.
#[derive(Debug)]
pub struct Device {
    random: Pcg64Mcg,
    /// Where in its trace it is at time 0.
    pub offset: f64,
    /// Whether it computes, and the requests that wait for it.
    pub busy: bool,
    pub waiting: Line,
    /// When its radio will be free.
    pub radio_free: f64,
    mind: Option<Mind>,
}

/// What a planning device knows.
#[derive(Debug)]
struct Mind {
    link: LinkEstimate,
    /// When it last had a reply, and how long it keeps silent after that.
    heard: f64,
    silence: f64,
    planner: Planner,
    /// Bytes that it has given to its radio and that are not sent.
    unsent: f64,
    /// The transfer under way, if there is one that has no reply yet.
    flight: Option<Flight>,
}

/// A transfer that has no reply yet.
#[derive(Debug, Clone, Copy)]
struct Flight {
    request: u32,
    bytes: f64,
    /// When it began.
    start: f64,
    /// Seconds that it was expected to take, and how many of them at the server.
    expected: f64,
    server: f64,
}

/// What a reply tells of the link and of the server.
#[derive(Debug, Clone, Copy)]
pub struct Reply {
    pub request: u32,
    pub probe: bool,
    pub bytes: f64,
    /// Seconds from the first byte sent to the reply, and those of them that the request waited at the server.
    pub seconds: f64,
    pub waited: f64,
    /// Seconds that the server's work took the measured machine, and that it took the server; none if it was refused.
    pub work: Option<(f64, f64)>,
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
                link: LinkEstimate::new(Conditions {
                    device_speed: scenario.device_speed,
                    server_speed: scenario.server_speed,
                    ..*first
                }),
                heard: 0.0,
                silence: SILENCE.0,
                planner: planner.as_ref().clone(),
                unsent: 0.0,
                flight: None,
            }),
        };
        Device { random, offset, busy: false, waiting: Line::EMPTY, radio_free: 0.0, mind }
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
                let conditions = mind.conditions(now, left);
                let action = mind.planner.choose(&conditions).action;
                (ways.place(action), conditions, *falls_back)
            }
            (Kind::Fixed(conditions), _) => (0, Conditions { deadline: left, ..*conditions }, false),
            (Kind::Planned { first, .. }, None) => (0, Conditions { deadline: left, ..*first }, false),
        };
        let chosen = &ways.all[way];
        let seconds = |work: f64| work / scenario.device_speed;
        let mut plan = Plan { way, answer: None, work: seconds(chosen.route.on_device()), fallback: None };
        let Some(policy) = &chosen.policy else { return plan };
        let until = |exit| seconds(chosen.route.until(exit).unwrap_or(f64::INFINITY));
        let reading = |exit: usize| readings.get(exit).map(|readings| readings[image]);
        plan.answer = policy.first_answer(&conditions, policy.route(), reading);
        if let Some((exit, _)) = plan.answer {
            plan.work = until(exit);
        } else if falls_back {
            let last = readings.len().checked_sub(1);
            plan.fallback = last.and_then(|exit| Some((until(exit), reading(exit)?.class)));
        }
        plan
    }

    /// The radio has been given the bytes of a request, which it begins to send at `start`. The server's work takes the
    /// measured machine `tail` seconds.
    pub fn sends(&mut self, request: u32, bytes: f64, tail: f64, start: f64) {
        if let Some(mind) = &mut self.mind {
            mind.unsent += bytes;
            let conditions = mind.link.conditions();
            let server = conditions.on_server(tail);
            let expected = conditions.transfer(bytes) + server;
            mind.flight.get_or_insert(Flight { request, bytes, start, expected, server });
        }
    }

    /// The radio has sent bytes.
    pub fn sent(&mut self, bytes: f64) {
        if let Some(mind) = &mut self.mind {
            mind.unsent -= bytes;
        }
    }

    /// A reply has come.
    pub fn replied(&mut self, now: f64, reply: &Reply) {
        let Some(mind) = &mut self.mind else { return };
        let served = reply.work.map_or(0.0, |(_, served)| served);
        mind.link.observe(reply.bytes as usize, (reply.seconds - reply.waited - served).max(0.0));
        mind.link.observe_wait(reply.waited);
        if let Some((measured, served)) = reply.work {
            mind.link.observe_server(measured, served);
        }
        let flight = mind.flight.take_if(|flight| flight.request == reply.request);
        let known = reply.probe && flight.is_some_and(|flight| reply.seconds >= NEWS * flight.expected);
        mind.silence = if known { (2.0 * mind.silence).min(SILENCE.1) } else { SILENCE.0 };
        mind.heard = now;
    }

    /// The way whose stream is to be sent as a probe, if it is time for one and the radio is free: what would be sent if
    /// something were. None where the device answers by itself however good link and server are.
    pub fn probe(&self, now: f64, ways: &Ways, scenario: &Scenario) -> Option<usize> {
        let (Kind::Planned { senders: Some(senders), .. }, Some(mind)) = (&ways.kind, &self.mind) else { return None };
        let due = self.radio_free <= now && mind.flight.is_none() && now - mind.heard > mind.silence;
        due.then(|| ways.place(senders.best(&mind.conditions(now, scenario.deadline)).action))
    }
}

impl Mind {
    /// The conditions as the device knows them.
    fn conditions(&self, now: f64, left: f64) -> Conditions {
        // A transfer that hangs is reckoned with but not taken note of: its reply will say what it took, and why.
        let mut link = self.link.clone();
        if let Some(Flight { bytes, start, server, .. }) = self.flight {
            link.stalled(bytes as usize, now - start - server);
        }
        let mut conditions = link.conditions();
        // What is not sent yet goes first.
        if self.unsent > 0.0 {
            conditions.wait += Conditions { round_trip: 0.0, ..conditions }.transfer(self.unsent);
        }
        Conditions { deadline: left, ..conditions }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::exit::Target;
    use crate::simulate::{Adaptive, Link, Prices, Steps, Strategy, Trace};
    use crate::split::{Action, Goal};

    #[test]
    fn time_at_the_server_says_nothing_of_the_link() {
        let measured = crate::split::tests::example();
        let scenario = Scenario {
            devices: 1,
            servers: 1,
            workers: 1,
            seconds: 100.0,
            warm_up: 0.0,
            rate: 1.0,
            arrivals: Arrivals::Poisson,
            link: Link::same(Trace::constant(1e6, 0.04)),
            load: Steps::constant(0.0),
            deadline: f64::INFINITY,
            device_speed: 1.0,
            server_speed: 2.0,
            power: Default::default(),
            prices: Prices { server_hour: 0.0, gigabyte: 0.0 },
            seed: 1,
        };
        let (fit, goal) = (Arc::new(measured.clone()), Goal::Accuracy);
        let adaptive = Adaptive::fit(&fit, scenario.power, goal, Target::loss(0.01), Conditions::default()).unwrap();
        let strategy = Strategy::Adaptive(Box::new(adaptive.only(|action| action != Action::Local)));
        let ways = Ways::of(&strategy, &measured, &scenario).unwrap();
        let mut device = Device::new(0, &scenario, &ways);
        let known = |device: &Device, now: f64| device.mind.as_ref().unwrap().conditions(now, f64::INFINITY);
        let before = known(&device, 0.0);
        assert_eq!(before.server_speed, 2.0);
        // 1,000 bytes take 48 ms; the server is expected to take 2 s for its work of 4 s.
        device.sends(0, 1000.0, 4.0, 1.0);
        device.sent(1000.0);
        assert_eq!(known(&device, 3.0), before);
        // Then it hangs, which is reckoned with for as long as it does, and the reply takes it back.
        let hanging = known(&device, 6.0);
        assert!(hanging.bandwidth < 0.1 * before.bandwidth, "{hanging:?}");
        (0..100).for_each(|_| assert_eq!(known(&device, 6.0), hanging));
        let reply =
            Reply { request: 0, probe: false, bytes: 1000.0, seconds: 8.048, waited: 4.0, work: Some((4.0, 4.0)) };
        device.replied(9.048, &reply);
        let after = known(&device, 9.048);
        assert!((after.transfer(1000.0) / before.transfer(1000.0) - 1.0).abs() < 1e-6, "{after:?}");
        assert!(after.wait > 1.0 && after.server_speed < 1.9, "{after:?}");
    }
}
