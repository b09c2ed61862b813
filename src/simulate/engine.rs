//! The simulation itself: one event after the other.

use crate::error::{Error, Result};
use crate::exit::{Reading, Rest};
use crate::simulate::device::{Device, NONE};
use crate::simulate::event::{Events, What};
use crate::simulate::outcome::{Counts, Outcome, Source};
use crate::simulate::scenario::Scenario;
use crate::simulate::strategy::{Strategy, Ways};
use crate::split::Measurements;

/// A request that is under way.
#[derive(Debug, Clone, Copy)]
struct Request {
    device: u32,
    image: u32,
    way: u32,
    /// The next one that waits in the same line.
    next: u32,
    server: u32,
    /// Events to come that name it: its place is free again when there are none.
    holds: u8,
    /// Its answer has been counted.
    ended: bool,
    /// The server refused it, for it was late.
    refused: bool,
    /// The answer on the device, or the one it would fall back on, is right.
    own_right: bool,
    /// The device answers.
    local: bool,
    asked: f64,
    /// When it began to be sent, when it came to the server, how long it waited and was worked on there.
    sent: f64,
    arrived: f64,
    waited: f64,
    served: f64,
}

/// One server.
#[derive(Debug, Clone)]
struct Server {
    free: usize,
    /// Requests in line: first and last of a list.
    line: (u32, u32),
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
    requests: Vec<Request>,
    free: Vec<u32>,
    counts: Counts,
}

/// Runs a strategy through a scenario. The images are those of `measured`; a strategy that was fitted should have been
/// fitted to others.
///
/// A million requests take about a second.
///
/// # Errors
/// `InvalidInput` if the measurements have no images, the scenario makes no sense, or the strategy belongs to other
/// measurements; `LimitExceeded` beyond 50 million requests.
pub fn simulate(measured: &Measurements, scenario: &Scenario, strategy: &Strategy) -> Result<Outcome> {
    scenario.check()?;
    if measured.images() == 0 {
        return Err(Error::invalid("measurements without images: there is nothing to simulate with"));
    }
    let ways = Ways::of(strategy, measured)?;
    let mut engine = Engine {
        measured,
        scenario,
        ways: &ways,
        readings: readings(measured, &ways)?,
        events: Events::default(),
        devices: (0..scenario.devices).map(|number| Device::new(number, scenario, &ways)).collect(),
        servers: vec![Server { free: scenario.workers, line: (NONE, NONE) }; scenario.servers],
        turn: 0,
        requests: Vec::new(),
        free: Vec::new(),
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
            What::Probed { device } => engine.devices[device as usize].probed(now),
            What::Due { request } => engine.due(request, now),
        }
    }
    Ok(engine.counts.finish(scenario))
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
        let request = Request {
            device: number,
            image,
            way: 0,
            next: NONE,
            server: 0,
            holds: 1,
            ended: false,
            refused: false,
            own_right: false,
            local: false,
            asked: now,
            sent: 0.0,
            arrived: 0.0,
            waited: 0.0,
            served: 0.0,
        };
        let place = self.put(request);
        let device = &mut self.devices[number as usize];
        if device.busy {
            let line = &mut device.waiting;
            append(&mut self.requests, line, place);
        } else {
            self.start(place, now);
        }
    }

    /// The device's processor turns to a request, or gives it up if it is late.
    fn start(&mut self, place: u32, now: f64) {
        let Request { device: number, image, asked, .. } = self.requests[place as usize];
        let device = &mut self.devices[number as usize];
        if now - asked > self.scenario.deadline {
            device.busy = false;
            self.end(place, now, false, Source::Nowhere);
            self.release(place);
            return;
        }
        device.busy = true;
        let plan = device.plan(now, now - asked, self.ways, self.scenario, &self.readings, image as usize);
        let label = self.measured.labels[image as usize] as usize;
        let way = &self.ways.all[plan.way];
        let request = &mut self.requests[place as usize];
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
            self.probe(number, asked, now);
        }
    }

    /// A device that answers by itself may send a probe, to know its link.
    fn probe(&mut self, number: u32, asked: f64, now: f64) {
        let device = &mut self.devices[number as usize];
        let Some(bytes) = device.probe(now) else { return };
        let trace = self.scenario.link.trace(number as usize);
        let end = trace.sent(now + device.offset, bytes) - device.offset;
        if !end.is_finite() {
            return; // and it waits for the reply for ever
        }
        device.radio_free = end;
        let round_trip = trace.round_trip.at(end + device.offset);
        self.events.push(end + round_trip, What::Probed { device: number });
        let power = self.scenario.power;
        self.spend(asked, power.send * (end - now) + power.receive * round_trip);
        if asked >= self.scenario.warm_up {
            self.counts.bytes += bytes;
        }
    }

    /// The device has computed: it answers, or gives the bytes to its radio, and turns to the next request.
    fn computed(&mut self, place: u32, now: f64) {
        let Request { device: number, image, asked, local, own_right, way, .. } = self.requests[place as usize];
        if local {
            self.end(place, now, own_right, Source::Device);
            self.release(place);
        } else {
            self.send(place, number, image, asked, way, now);
        }
        let device = &mut self.devices[number as usize];
        device.busy = false;
        while !self.devices[number as usize].busy {
            let line = &mut self.devices[number as usize].waiting;
            let Some(next) = pull(&mut self.requests, line) else { break };
            self.start(next, now);
        }
    }

    fn send(&mut self, place: u32, number: u32, image: u32, asked: f64, way: u32, now: f64) {
        let coding = self.measured.coding(self.ways.all[way as usize].action);
        let bytes = coding.map_or(0.0, |coding| f64::from(coding.bytes[image as usize]));
        let device = &mut self.devices[number as usize];
        let start = now.max(device.radio_free);
        let trace = self.scenario.link.trace(number as usize);
        let end = trace.sent(start + device.offset, bytes) - device.offset;
        if start - asked > self.scenario.deadline || !end.is_finite() {
            // Late before it is sent, or never sent at all.
            if start - asked <= self.scenario.deadline {
                device.radio_free = f64::INFINITY;
            }
            self.end(place, now, false, Source::Nowhere);
            self.release(place);
            return;
        }
        device.radio_free = end;
        device.sends(place, bytes, start);
        self.requests[place as usize].sent = start;
        if asked >= self.scenario.warm_up {
            self.counts.bytes += bytes;
        }
        self.spend(asked, self.scenario.power.send * (end - start));
        self.events.push(end, What::Sent { request: place });
    }

    fn sent(&mut self, place: u32, now: f64) {
        let request = &self.requests[place as usize];
        let bytes = self.bytes(request);
        let device = &mut self.devices[request.device as usize];
        device.sent(bytes);
        let round_trip = self.scenario.link.trace(request.device as usize).round_trip.at(now + device.offset);
        self.events.push(now + 0.5 * round_trip, What::Arrived { request: place });
    }

    /// A request comes to the server whose turn it is.
    fn arrived(&mut self, place: u32, now: f64) {
        let number = self.turn;
        self.turn = (self.turn + 1) % self.servers.len();
        let request = &mut self.requests[place as usize];
        (request.arrived, request.server) = (now, number as u32);
        let server = &mut self.servers[number];
        if server.free > 0 {
            self.serve(place, now);
        } else {
            append(&mut self.requests, &mut server.line, place);
        }
    }

    /// A worker that is free turns to a request, or refuses it if it is late; true if it works.
    fn serve(&mut self, place: u32, now: f64) -> bool {
        let request = &mut self.requests[place as usize];
        request.waited = now - request.arrived;
        if now - request.asked > self.scenario.deadline {
            request.refused = true;
            self.reply(place, now);
            return false;
        }
        let Rest::Server { tail, .. } = self.ways.all[request.way as usize].route.rest else { return false };
        let served = tail / (self.scenario.server_speed * (1.0 - self.scenario.load.at(now)));
        request.served = served;
        self.servers[request.server as usize].free -= 1;
        // What is worked off after the end is not of its time.
        let end = self.scenario.seconds;
        self.counts.worked += (now + served).min(end) - now.min(end);
        self.events.push(now + served, What::Served { request: place });
        true
    }

    fn served(&mut self, place: u32, now: f64) {
        let number = self.requests[place as usize].server as usize;
        self.servers[number].free += 1;
        self.reply(place, now);
        while let Some(next) = pull(&mut self.requests, &mut self.servers[number].line) {
            if self.serve(next, now) {
                break;
            }
        }
    }

    fn reply(&mut self, place: u32, now: f64) {
        let device = self.requests[place as usize].device as usize;
        let round_trip = self.scenario.link.trace(device).round_trip.at(now + self.devices[device].offset);
        self.events.push(now + 0.5 * round_trip, What::Replied { request: place });
    }

    fn replied(&mut self, place: u32, now: f64) {
        let request = self.requests[place as usize];
        let Request { image, asked, sent, waited, served, refused, .. } = request;
        let bytes = self.bytes(&request);
        let device = &mut self.devices[request.device as usize];
        device.replied(now, place, bytes, (now - sent - waited - served).max(0.0), waited);
        // Since the last byte: a round trip on the way, the rest at the server.
        let trace = self.scenario.link.trace(request.device as usize);
        let round_trip = trace.round_trip.at(now + device.offset);
        let power = self.scenario.power;
        self.spend(asked, power.receive * round_trip + power.idle * (waited + served));
        if refused {
            self.end(place, now, false, Source::Nowhere);
        } else {
            let coding = self.measured.coding(self.ways.all[request.way as usize].action);
            let answer = coding.map(|coding| coding.answers[image as usize]);
            self.end(place, now, answer == Some(self.measured.labels[image as usize]), Source::Server);
        }
        self.release(place);
    }

    /// The deadline has come, and the server's answer has not.
    fn due(&mut self, place: u32, now: f64) {
        let right = self.requests[place as usize].own_right;
        self.end(place, now, right, Source::FallBack);
        self.release(place);
    }

    fn bytes(&self, request: &Request) -> f64 {
        let coding = self.measured.coding(self.ways.all[request.way as usize].action);
        coding.map_or(0.0, |coding| f64::from(coding.bytes[request.image as usize]))
    }

    /// Energy of a request that was made at `asked`.
    fn spend(&mut self, asked: f64, joules: f64) {
        if asked >= self.scenario.warm_up {
            self.counts.energy += joules;
        }
    }

    /// Counts a request, once. One without an answer that will still fall back waits for that.
    fn end(&mut self, place: u32, now: f64, right: bool, source: Source) {
        let request = &mut self.requests[place as usize];
        if request.ended || (source == Source::Nowhere && request.holds > 1) {
            return;
        }
        request.ended = true;
        let mut delay = now - request.asked;
        if source == Source::FallBack && delay - self.scenario.deadline < 1e-9 {
            delay = delay.min(self.scenario.deadline);
        }
        if request.asked >= self.scenario.warm_up {
            self.counts.add(request.asked, delay, right, source, self.scenario);
        }
    }

    /// A place for a request.
    fn put(&mut self, request: Request) -> u32 {
        match self.free.pop() {
            Some(place) => {
                self.requests[place as usize] = request;
                place
            }
            None => {
                self.requests.push(request);
                self.requests.len() as u32 - 1
            }
        }
    }

    /// One event less to come for a request.
    fn release(&mut self, place: u32) {
        let request = &mut self.requests[place as usize];
        request.holds -= 1;
        if request.holds == 0 {
            self.free.push(place);
        }
    }
}

/// Puts a request at the end of a line.
fn append(requests: &mut [Request], line: &mut (u32, u32), place: u32) {
    requests[place as usize].next = NONE;
    if line.1 == NONE {
        line.0 = place;
    } else {
        requests[line.1 as usize].next = place;
    }
    line.1 = place;
}

/// Takes the first request of a line.
fn pull(requests: &mut [Request], line: &mut (u32, u32)) -> Option<u32> {
    let place = line.0;
    if place == NONE {
        return None;
    }
    line.0 = requests[place as usize].next;
    if line.0 == NONE {
        line.1 = NONE;
    }
    Some(place)
}
