//! The simulation itself: one event after the other.

use crate::error::{Error, Result};
use crate::exit::{Reading, Rest};
use crate::simulate::check;
use crate::simulate::device::{Device, Reply};
use crate::simulate::event::{Events, What};
use crate::simulate::outcome::{Counts, Outcome, Source};
use crate::simulate::request::{Line, Request, Requests};
use crate::simulate::scenario::Scenario;
use crate::simulate::steps::Steps;
use crate::simulate::strategy::{Strategy, Ways};
use crate::split::{Coding, Measurements};

/// One server.
#[derive(Debug, Clone)]
struct Server {
    free: usize,
    line: Line,
}

struct Engine<'a> {
    measured: &'a Measurements,
    scenario: &'a Scenario,
    ways: &'a Ways,
    /// [exit][image]
    readings: Vec<Vec<Reading>>,
    events: Events,
    devices: Vec<Device>,
    servers: Vec<Server>,
    turn: usize,
    requests: Requests,
    /// What others leave of a server's worker.
    left: Steps,
    counts: Counts,
}

/// Runs a strategy through a scenario. The images are those of `measured`; a strategy that was fitted should have been
/// fitted to others.
///
/// A million requests take about a second.
///
/// # Errors
/// `InvalidInput` if the measurements have no images or contradict themselves, the scenario makes no sense, no request came
/// that counts, or the strategy belongs to other measurements; `LimitExceeded` beyond 50 million requests.
pub fn simulate(measured: &Measurements, scenario: &Scenario, strategy: &Strategy) -> Result<Outcome> {
    scenario.check()?;
    check::measurements(measured)?;
    let ways = Ways::of(strategy, measured, scenario)?;
    let mut engine = Engine {
        measured,
        scenario,
        ways: &ways,
        readings: readings(measured, &ways)?,
        events: Events::default(),
        devices: (0..scenario.devices).map(|number| Device::new(number, scenario, &ways)).collect(),
        servers: vec![Server { free: scenario.workers, line: Line::EMPTY }; scenario.servers],
        turn: 0,
        requests: Requests::default(),
        left: scenario.load.map(|load| 1.0 - load),
        counts: Counts::new(scenario),
    };
    for (number, device) in engine.devices.iter_mut().enumerate() {
        let first = device.gap(scenario, true);
        if first < scenario.seconds {
            engine.events.push(first, What::Asked { device: number as u32 });
        }
    }
    while let Some((now, what)) = engine.events.pop() {
        match what {
            What::Asked { device } => engine.asked(device, now),
            What::Computed { request } => engine.computed(request, now),
            What::Sent { request } => engine.sent(request, now),
            What::Arrived { request } => engine.arrived(request, now),
            What::Served { request } => engine.served(request, now),
            What::Replied { request } => engine.replied(request, now),
            What::Due { request } => engine.due(request, now),
        }
    }
    engine.counts.finish(scenario)
}

/// What each exit says of each image, with the temperatures of the policies, which are those of the exits and the same in all.
fn readings(measured: &Measurements, ways: &Ways) -> Result<Vec<Vec<Reading>>> {
    let Some(policy) = ways.all.iter().find_map(|way| way.policy.as_ref()) else { return Ok(Vec::new()) };
    let read = |(exit, rows): (usize, &crate::split::Exit)| {
        let one = |(image, logits): (usize, &Vec<f32>)| {
            let reading = policy.read(exit, logits);
            reading.ok_or_else(|| Error::invalid(format!("{}, image {image}: logits that are not finite", rows.name)))
        };
        rows.logits.iter().enumerate().map(one).collect()
    };
    measured.exits.iter().enumerate().map(read).collect()
}

impl Engine<'_> {
    /// A device gets a request.
    fn asked(&mut self, number: u32, now: f64) {
        let device = &mut self.devices[number as usize];
        let next = now + device.gap(self.scenario, false);
        if next < self.scenario.seconds {
            self.events.push(next, What::Asked { device: number });
        }
        let image = device.image(self.measured.images());
        let place = self.requests.put(Request::new(number, image, now));
        let device = &mut self.devices[number as usize];
        if device.busy {
            self.requests.append(&mut device.waiting, place);
        } else {
            self.start(place, now);
        }
    }

    /// The device's processor turns to a request, or gives it up if it is late.
    fn start(&mut self, place: u32, now: f64) {
        let Request { device: number, image, asked, .. } = self.requests[place];
        let device = &mut self.devices[number as usize];
        if now - asked > self.scenario.deadline {
            device.busy = false;
            self.finish(place, now, false, Source::Nowhere);
            return;
        }
        device.busy = true;
        let plan = device.plan(now, now - asked, self.ways, self.scenario, &self.readings, image as usize);
        let label = self.measured.labels[image as usize] as usize;
        let way = &self.ways.all[plan.way];
        let request = &mut self.requests[place];
        request.way = plan.way as u32;
        let whole = matches!(way.route.rest, Rest::Device { .. });
        request.local = plan.answer.is_some() || whole;
        request.own_right = match (plan.answer, plan.fallback) {
            (Some((_, class)), _) => class == label,
            _ if whole => self.measured.answers[image as usize] as usize == label,
            (None, Some((_, class))) => class == label,
            (None, None) => false,
        };
        if let (None, Some((until, _)), false) = (plan.answer, plan.fallback, whole)
            && self.scenario.deadline.is_finite()
        {
            request.holds += 1;
            // Its own clock at the deadline: rounding must not make it late.
            self.events.push((asked + self.scenario.deadline).max(now + until), What::Due { request: place });
        }
        let local = request.local;
        self.spend(asked, self.scenario.power.compute * plan.work);
        self.events.push(now + plan.work, What::Computed { request: place });
        if local {
            self.probe(number, image, now);
        }
    }

    /// A device that answers by itself may send a stream all the same, to know link and server.
    fn probe(&mut self, number: u32, image: u32, now: f64) {
        if let Some(way) = self.devices[number as usize].probe(now, self.ways, self.scenario) {
            let probe = Request { way: way as u32, probe: true, ..Request::new(number, image, now) };
            let place = self.requests.put(probe);
            self.send(place, now);
        }
    }

    /// The device has computed: it answers, or gives the bytes to its radio, and turns to the next request.
    fn computed(&mut self, place: u32, now: f64) {
        let Request { device: number, local, own_right, .. } = self.requests[place];
        if local {
            self.finish(place, now, own_right, Source::Device);
        } else {
            self.send(place, now);
        }
        self.devices[number as usize].busy = false;
        while !self.devices[number as usize].busy {
            let line = &mut self.devices[number as usize].waiting;
            let Some(next) = self.requests.pull(line) else { break };
            self.start(next, now);
        }
    }

    fn send(&mut self, place: u32, now: f64) {
        let Request { device: number, asked, .. } = self.requests[place];
        let (bytes, tail) = (self.bytes(place), self.tail(place));
        let device = &mut self.devices[number as usize];
        let start = now.max(device.radio_free);
        let trace = self.scenario.link.trace(number as usize);
        let end = trace.sent(start + device.offset, bytes) - device.offset;
        if start - asked > self.scenario.deadline || !end.is_finite() {
            // Late before it is sent, or never sent at all.
            if start - asked <= self.scenario.deadline {
                device.radio_free = f64::INFINITY;
            }
            self.finish(place, now, false, Source::Nowhere);
            return;
        }
        device.radio_free = end;
        device.sends(place, bytes, tail, start);
        let request = &mut self.requests[place];
        (request.sent, request.gone) = (start, end);
        if asked >= self.scenario.warm_up {
            self.counts.bytes += bytes;
        }
        self.spend(asked, self.scenario.power.send * (end - start));
        self.events.push(end, What::Sent { request: place });
    }

    fn sent(&mut self, place: u32, now: f64) {
        let (bytes, number) = (self.bytes(place), self.requests[place].device as usize);
        let device = &mut self.devices[number];
        device.sent(bytes);
        let round_trip = self.scenario.link.trace(number).round_trip.at(now + device.offset);
        self.events.push(now + 0.5 * round_trip, What::Arrived { request: place });
    }

    /// A request comes to the server whose turn it is.
    fn arrived(&mut self, place: u32, now: f64) {
        let number = self.turn;
        self.turn = (self.turn + 1) % self.servers.len();
        let request = &mut self.requests[place];
        (request.arrived, request.server) = (now, number as u32);
        let server = &mut self.servers[number];
        if server.free > 0 {
            self.serve(place, now);
        } else {
            self.requests.append(&mut server.line, place);
        }
    }

    /// A worker that is free turns to a request, or refuses it if it is late; true if it works.
    fn serve(&mut self, place: u32, now: f64) -> bool {
        let work = self.tail(place) / self.scenario.server_speed;
        let request = &mut self.requests[place];
        request.waited = now - request.arrived;
        if now - request.asked > self.scenario.deadline {
            request.refused = true;
            self.reply(place, now);
            return false;
        }
        let done = self.left.reach(now, work);
        request.served = done - now;
        if request.asked >= self.scenario.warm_up {
            self.counts.work += work;
        }
        self.servers[request.server as usize].free -= 1;
        // What is worked off after the end is not of its time.
        let end = self.scenario.seconds;
        self.counts.worked += done.min(end) - now.min(end);
        self.events.push(done, What::Served { request: place });
        true
    }

    fn served(&mut self, place: u32, now: f64) {
        let number = self.requests[place].server as usize;
        self.servers[number].free += 1;
        self.reply(place, now);
        while let Some(next) = self.requests.pull(&mut self.servers[number].line) {
            if self.serve(next, now) {
                break;
            }
        }
    }

    /// The server sends its answer, which waits while the link is down.
    fn reply(&mut self, place: u32, now: f64) {
        let number = self.requests[place].device as usize;
        let (trace, offset) = (self.scenario.link.trace(number), self.devices[number].offset);
        let start = trace.bandwidth.rises(now + offset) - offset;
        if !start.is_finite() {
            self.finish(place, now, false, Source::Nowhere);
            return;
        }
        let round_trip = trace.round_trip.at(start + offset);
        self.events.push(start.max(now) + 0.5 * round_trip, What::Replied { request: place });
    }

    fn replied(&mut self, place: u32, now: f64) {
        let Request { device: number, image, asked, probe, sent, gone, waited, served, refused, .. } =
            self.requests[place];
        let work = (!refused).then(|| (self.tail(place), served));
        let bytes = self.bytes(place);
        let device = &mut self.devices[number as usize];
        device.replied(now, &Reply { request: place, probe, bytes, seconds: now - sent, waited, work });
        // Since the last byte: a round trip on the way, the rest at the server and before a link that is down.
        let round_trip = self.scenario.link.trace(number as usize).round_trip.at(now + device.offset);
        let power = self.scenario.power;
        self.spend(asked, power.receive * round_trip + power.idle * (now - gone - round_trip).max(0.0));
        if refused {
            self.finish(place, now, false, Source::Nowhere);
        } else {
            let answer = self.coding(place).map(|coding| coding.answers[image as usize]);
            self.finish(place, now, answer == Some(self.measured.labels[image as usize]), Source::Server);
        }
    }

    /// The deadline has come, and the server's answer has not.
    fn due(&mut self, place: u32, now: f64) {
        let right = self.requests[place].own_right;
        self.finish(place, now, right, Source::FallBack);
    }

    fn coding(&self, place: u32) -> Option<&Coding> {
        self.measured.coding(self.ways.all[self.requests[place].way as usize].action)
    }

    fn bytes(&self, place: u32) -> f64 {
        let image = self.requests[place].image as usize;
        self.coding(place).map_or(0.0, |coding| f64::from(coding.bytes[image]))
    }

    /// Seconds that the server's part takes the measured machine.
    fn tail(&self, place: u32) -> f64 {
        match self.ways.all[self.requests[place].way as usize].route.rest {
            Rest::Server { tail, .. } => tail,
            Rest::Device { .. } => 0.0,
        }
    }

    /// Energy of a request that was made at `asked`.
    fn spend(&mut self, asked: f64, joules: f64) {
        if asked >= self.scenario.warm_up {
            self.counts.energy += joules;
        }
    }

    /// One event of a request ends, and with it the request, which is counted once. One without an answer that will still
    /// fall back waits for that.
    fn finish(&mut self, place: u32, now: f64, right: bool, source: Source) {
        let request = &mut self.requests[place];
        if !(request.ended || request.probe || (source == Source::Nowhere && request.holds > 1)) {
            request.ended = true;
            let mut delay = now - request.asked;
            if source == Source::FallBack && delay - self.scenario.deadline < 1e-9 {
                delay = delay.min(self.scenario.deadline);
            }
            if request.asked >= self.scenario.warm_up {
                self.counts.add(request.asked, delay, right, source, self.scenario);
            }
        }
        self.requests.release(place);
    }
}
