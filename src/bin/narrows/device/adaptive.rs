//! Policy `adaptive`: for each image what is best at the moment.
//!
//! The planner chooses among what was measured, for the conditions that past transfers let expect and the time that is
//! left. Exits on the way may answer first. What is sent and not answered in time is answered on the device: by the tail if
//! there is time for it, else by the last exit that was passed. While nothing is sent, a stream now and then tells whether
//! the link has become better.

mod probe;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use image::RgbImage;
use narrows::exit::{Decision, Policy as ExitPolicy, Weights};
use narrows::link::{Layer, Reply};
use narrows::split::{Action, Goal, Hysteresis, LinkEstimate, Measurements, Planner, Power, layers_by_deadline};
use narrows::{Conditions, Encoder, Profile, Quality};
use ndarray::ArrayD;
use tonic::Status;

use crate::codecs::ImageCodec;
use crate::device::camera::{Sending, WARM_UP, Work, layers_of};
use crate::device::{Device, Pace, Part, Setup};
use crate::metrics::argmax;
use crate::model::{Cut, Exit, Network, Pool, Stages};
use probe::Probe;

/// Time after which it is worked out anew, for the conditions of then, what exits answer and whether asking them pays.
const BELIEF: Duration = Duration::from_secs(1);
/// Share of delay or energy that another choice must save before it is changed to. It is half of what planners take if not
/// told: the estimates that a deadline is compared with are cautious already.
const CHANGE: f64 = 0.05;
/// The device's own answer, and what the server is expected to answer, are to be there this many seconds before the deadline.
const MARGIN: f64 = 0.005;
/// The server's word on a layer is waited for at most this many seconds before the next one is sent.
const LONGEST: f64 = 60.0;

/// What policy `adaptive` is made from.
pub struct Known {
    /// What was measured of the network.
    pub measured: Measurements,
    /// Decides at exits, if there is one.
    pub exits: Option<ExitPolicy>,
    /// Profiles of the cuts.
    pub profiles: Vec<Arc<Profile>>,
    /// Whether the server runs the whole network too.
    pub images: bool,
    /// What is looked for.
    pub goal: Goal,
    /// What the device draws.
    pub power: Power,
    /// Link, device, server and deadline as they are assumed at first.
    pub conditions: Conditions,
}

/// The state of policy `adaptive`.
pub struct Adaptive {
    measured: Arc<Measurements>,
    planner: Planner,
    /// Among streams alone.
    streams: Planner,
    link: LinkEstimate,
    policy: Option<Arc<ExitPolicy>>,
    /// When it was worked out last what exits answer.
    asked: Instant,
    exits: Vec<Exit>,
    cuts: Vec<Cut>,
    encoders: HashMap<(usize, usize), Encoder>,
    deadline: f64,
    last: Instant,
    /// A stream of each coding, made while warming up: sent to see how the link is, it costs no work.
    samples: HashMap<(usize, usize), Vec<u8>>,
    probe: Option<Probe>,
}

impl Adaptive {
    /// Prepares encoders for what can be sent.
    pub fn new(known: Known, network: &Network, size: (usize, usize)) -> Result<Adaptive> {
        let Known { measured, exits: policy, profiles, images, goal, power, conditions } = known;
        let cuts = measured.cuts.iter().map(|cut| network.cut(&cut.name, size)).collect::<Result<Vec<Cut>>>()?;
        let mut encoders = HashMap::new();
        for (i, cut) in measured.cuts.iter().enumerate() {
            for (j, coding) in cut.codings.iter().enumerate() {
                let profile = profiles.iter().find(|one| coding.profile == Some(format!("{:016x}", one.hash())));
                if let (Some(profile), Some(_)) = (profile, coding.scale) {
                    let layers = coding.layer.map_or(1, |(_, of)| of as usize);
                    encoders.insert((i, j), Encoder::with_profile(profile.clone()).layers(layers));
                }
            }
        }
        if encoders.is_empty() {
            let codings = measured.cuts.iter().flat_map(|cut| &cut.codings);
            let mut measured: Vec<&str> = codings.filter_map(|coding| coding.profile.as_deref()).collect();
            measured.dedup();
            let given: Vec<String> = profiles.iter().map(|profile| format!("{:016x}", profile.hash())).collect();
            match (measured.as_slice(), given.as_slice()) {
                ([], _) => {
                    bail!("no profile was measured: measure with `narrows eval --profile FILE --measurements FILE`")
                }
                (measured, []) => bail!(
                    "policy adaptive sends with the profiles that were measured, {}: name their files with --profile",
                    measured.join(", ")
                ),
                (measured, given) => {
                    bail!(
                        "none of the profiles given ({}) was measured; those are {}",
                        given.join(", "),
                        measured.join(", ")
                    )
                }
            }
        }
        let weighed = |policy: ExitPolicy| {
            let weights = Weights { power, ..*policy.weights() };
            policy.weighing(weights)
        };
        let policy = policy.map(weighed).transpose()?;
        let exits = match &policy {
            Some(policy) if policy.exits() != measured.exits.len() => {
                bail!("the policy is for {} exits, {} were measured", policy.exits(), measured.exits.len())
            }
            Some(_) => measured.exits.iter().map(|exit| network.exit(&exit.name)).collect::<Result<_>>()?,
            None => Vec::new(),
        };
        let way = measured.exit_samples(Action::Local).zip(measured.exit_route(Action::Local));
        if let (Some(policy), Some((samples, route))) = (&policy, way) {
            let along = policy.clone().along(route);
            along
                .and_then(|policy| policy.evaluate(&samples, &Conditions::default()))
                .context("policy for the exits")?;
        }
        let measured = Arc::new(measured);
        let can = |action| match action {
            Action::Local => true,
            Action::Input { .. } => images && measured.coding(action).and_then(image_codec).is_some(),
            Action::Split { cut, coding } => encoders.contains_key(&(cut, coding)),
        };
        let planner = Planner::new(measured.clone(), power, goal).only(can).stopping();
        let planner = planner.hysteresis(Hysteresis { margin: CHANGE, ..Hysteresis::default() });
        let mut adaptive = Adaptive {
            measured,
            streams: planner.clone(),
            planner,
            link: LinkEstimate::new(conditions),
            policy: policy.map(Arc::new),
            asked: Instant::now(),
            exits,
            cuts,
            encoders,
            deadline: conditions.deadline,
            last: Instant::now(),
            samples: HashMap::new(),
            probe: None,
        };
        adaptive.ask();
        Ok(adaptive)
    }

    /// Runs every part, and learns what each usually takes.
    pub fn warm(&mut self, setup: &Setup, pixels: &RgbImage, pool: &Pool, pace: &mut Pace) -> Result<()> {
        let network = &setup.network;
        for round in 0..WARM_UP {
            // The first round is not what it usually takes.
            let mut unused = Pace::new(1.0);
            let pace = if round == 0 { &mut unused } else { &mut *pace };
            let mut stages = network.begin(setup.normalize.batch(std::slice::from_ref(pixels))?);
            let mut passed = stages.clone();
            for (i, exit) in self.exits.iter().enumerate() {
                pace.learn(Part::Exit(i), || network.to_exit(&mut passed, exit, pool))?;
            }
            // From the image, and from where the exits have come.
            let asked = self.exits.len();
            for (asked, stages) in [(0, &stages), (asked, &passed)] {
                pace.learn(Part::Rest(None, asked), || network.to_end(stages, pool))?;
                for i in 0..self.cuts.len() {
                    let mut stages = stages.clone();
                    pace.learn(Part::Head(i, asked), || network.to_cut(&mut stages, &self.cuts[i], pool))?;
                }
            }
            for i in 0..self.cuts.len() {
                let feature = network.to_cut(&mut stages, &self.cuts[i], pool)?;
                for j in 0..self.measured.cuts[i].codings.len() {
                    if self.encoders.contains_key(&(i, j)) {
                        let stream = pace.learn(Part::Encode(i, j), || self.encode(&feature, i, j))?;
                        self.samples.insert((i, j), stream.concat());
                    }
                }
                pace.learn(Part::Rest(Some(i), 0), || network.to_end(&stages, pool))?;
            }
        }
        Ok(())
    }

    /// What is to be expected now, with `left` seconds to go.
    fn conditions(&self, left: f64) -> Conditions {
        Conditions { deadline: left.max(0.0), ..self.link.conditions() }
    }

    /// Works out what exits answer under the present conditions, and on the way to which actions it is better to ask them:
    /// they take time themselves.
    fn ask(&mut self) {
        if let Some(policy) = &self.policy {
            let conditions = self.conditions(self.deadline);
            self.planner = self.planner.clone().exiting_where_better(|_| Some(policy.as_ref()), &conditions);
        }
        self.streams = self.planner.clone().only(|action| matches!(action, Action::Split { .. }));
        self.asked = Instant::now();
    }

    /// The layers of a stream as a coding has it.
    fn encode(&mut self, feature: &ArrayD<f32>, cut: usize, coding: usize) -> Result<Vec<Vec<u8>>> {
        let encoder = self.encoders.get_mut(&(cut, coding)).context("a coding without its profile")?;
        let coding = &self.measured.cuts[cut].codings[coding];
        let stream = encoder.encode(feature, Quality::Scale(coding.scale.unwrap_or(1.0)))?;
        let mut parts = layers_of(&stream)?;
        if let Some((layer, _)) = coding.layer {
            parts.truncate(layer as usize);
        }
        Ok(parts)
    }

    /// What of a stream's layers is sent: as many as are answered in time under cautious conditions, where the deadline
    /// counts, and at least the base layer. Those that the server is not asked about one by one are one part.
    fn parts(&self, action: Action, mut layers: Vec<Vec<u8>>, left: f64) -> Vec<Vec<u8>> {
        if !matches!(self.planner.goal(), Goal::Delay { .. }) {
            let server = self.measured.work(action).and_then(|work| work.server).unwrap_or(0.0);
            layers.truncate(in_time(&layers, &self.conditions(left - MARGIN).cautious(), server));
        }
        if self.planner.stop(action).is_some() { layers } else { vec![layers.concat()] }
    }

    /// How the parts of a stream are sent: all of them at once where a soon answer is looked for, else as late as the
    /// deadline allows, for what is not sent costs nothing.
    fn layers(&self, action: Action, parts: &[Vec<u8>], left: f64) -> Option<Layer> {
        let threshold = Some(self.planner.stop(action)?.threshold);
        let patience = match self.planner.goal() {
            Goal::Delay { .. } => 0.0,
            Goal::Energy { .. } | Goal::Accuracy => {
                let conditions = self.conditions(left).cautious();
                let server = conditions.on_server(self.measured.work(action)?.server?);
                let later: usize = parts.iter().skip(1).map(Vec::len).sum();
                let spare =
                    (left - MARGIN - conditions.transfer(later as f64) - server) / (parts.len() - 1).max(1) as f64;
                // The word on the base layer is not there before.
                let word = self.link.conditions().transfer(parts.first()?.len() as f64) + server;
                if spare >= word { spare.min(LONGEST) } else { 0.0 }
            }
        };
        Some(Layer { threshold, patience: Duration::from_secs_f64(patience) })
    }

    /// Learns from the answer to an action; `bytes` are those that its time tells of.
    fn observe(&mut self, action: Action, bytes: Option<usize>, reply: &Reply) {
        let times = &reply.times;
        // A call that had to be opened may have waited for a connection.
        if let Some(bytes) = bytes.filter(|_| reply.attempts == 1 && !reply.opened) {
            self.link.observe(bytes, (reply.seconds - times.queue - times.decode - times.tail).max(0.0));
        }
        self.link.observe_wait(times.queue);
        if let Some(work) = self.measured.work(action).and_then(|work| work.server) {
            self.link.observe_server(work, times.decode + times.tail);
        }
        self.last = Instant::now();
    }

    /// Learns from what has no answer yet, less the server's part of the time as it is expected.
    fn stalled(&mut self, action: Action, sending: &Sending) {
        let server = self.measured.work(action).and_then(|work| work.server).unwrap_or(0.0);
        let server = self.link.conditions().on_server(server);
        self.link.stalled(sending.bytes(), sending.busy() - server);
    }
}

/// How many layers the server answers by the deadline of the conditions, at least one; `server` are its seconds of work.
fn in_time(layers: &[Vec<u8>], conditions: &Conditions, server: f64) -> usize {
    let ends = layers.iter().scan(0, |end, layer| {
        *end += layer.len();
        Some(*end)
    });
    layers_by_deadline(&ends.collect::<Vec<usize>>(), conditions, server).max(1)
}

impl Device<'_> {
    /// Answers an image as is best now.
    pub(super) fn adapt(&mut self, pixels: &RgbImage, work: &mut Work) -> Result<()> {
        let mut adaptive = self.adaptive.take().context("policy adaptive without measurements")?;
        let result = self.adapt_with(&mut adaptive, pixels, work);
        // The image has its answer: what takes time now is not counted for it.
        work.delay.get_or_insert_with(|| work.due.elapsed().as_secs_f64());
        if adaptive.policy.is_some() && adaptive.asked.elapsed() >= BELIEF {
            adaptive.ask();
        }
        self.adaptive = Some(adaptive);
        result
    }

    fn adapt_with(&mut self, adaptive: &mut Adaptive, pixels: &RgbImage, work: &mut Work) -> Result<()> {
        self.heard(adaptive);
        let due = work.due;
        let left = |adaptive: &Adaptive| adaptive.deadline - due.elapsed().as_secs_f64();
        let conditions = adaptive.conditions(left(adaptive));
        let choice = adaptive.planner.choose(&conditions).action;
        let policy = adaptive.policy.clone().filter(|_| adaptive.planner.asks(choice));
        let mut stages = self.setup.network.begin(self.setup.normalize.batch(std::slice::from_ref(pixels))?);
        // Exits on the way.
        let mut passed: Option<usize> = None;
        if let (Some(policy), Some(route)) = (policy, adaptive.measured.exit_route(choice)) {
            for (i, exit) in adaptive.exits.iter().enumerate() {
                let (network, pool) = (&self.setup.network, &self.pool);
                let (logits, seconds) = self.pace.time(Part::Exit(i), || network.to_exit(&mut stages, exit, pool))?;
                work.record.device += seconds;
                work.asked = i + 1;
                if i == 0 {
                    adaptive.link.observe_device(adaptive.measured.exits[i].seconds, seconds);
                }
                let logits = logits.first().context("the exit gave no answer")?;
                passed = Some(argmax(logits));
                let conditions = adaptive.conditions(left(adaptive));
                let Some(reading) = policy.read(i, logits) else { continue };
                if let Decision::Answer(class) = policy.decide_for(i, &reading, &conditions, &route) {
                    work.record.from = exit.name.clone();
                    work.record.answer = Some(class);
                    self.look(adaptive, work);
                    return Ok(());
                }
            }
        }
        match choice {
            Action::Local => {
                let seconds = self.finish(&stages, None, work)?;
                if passed.is_none() {
                    adaptive.link.observe_device(adaptive.measured.whole, seconds);
                }
                work.record.from = "local".into();
                self.look(adaptive, work);
                Ok(())
            }
            Action::Input { .. } => {
                let codec = adaptive.measured.coding(choice).and_then(image_codec).context("no such codec")?;
                let (bytes, seconds) = self.pace.time(Part::Image, || codec.encode(pixels))?;
                work.record.encode += seconds;
                work.record.from = "image".into();
                let local = adaptive.measured.whole;
                let sending = Sending::new(&self.setup, 1, "image", vec![bytes]);
                self.wait(adaptive, choice, sending, (&stages, local, passed), work)
            }
            Action::Split { cut, coding } => {
                let before = work.record.device;
                let layers = self.stream(adaptive, &mut stages, (cut, coding), work)?;
                if passed.is_none() {
                    adaptive.link.observe_device(adaptive.measured.cuts[cut].head, work.record.device - before);
                }
                work.record.from = "split".into();
                let local = adaptive.measured.cuts[cut].tail;
                let parts = adaptive.parts(choice, layers, left(adaptive));
                let layers = adaptive.layers(choice, &parts, left(adaptive));
                let sending = Sending::new(&self.setup, 0, "stream", parts).layers(layers);
                self.wait(adaptive, choice, sending, (&stages, local, passed), work)
            }
        }
    }

    /// Goes on to a cut and encodes the feature there.
    fn stream(
        &mut self,
        adaptive: &mut Adaptive,
        stages: &mut Stages,
        (cut, coding): (usize, usize),
        work: &mut Work,
    ) -> Result<Vec<Vec<u8>>> {
        let (network, pool, at) = (&self.setup.network, &self.pool, adaptive.cuts[cut].clone());
        let (feature, seconds) = self.pace.time(Part::Head(cut, work.asked), || network.to_cut(stages, &at, pool))?;
        work.record.device += seconds;
        let (parts, seconds) = self.pace.time(Part::Encode(cut, coding), || adaptive.encode(&feature, cut, coding))?;
        work.record.encode += seconds;
        Ok(parts)
    }

    /// Waits for an answer, and has one of its own where it does not come in time. `local` is what the rest of the network
    /// took on the measured machine, `passed` the class at the last exit.
    fn wait(
        &mut self,
        adaptive: &mut Adaptive,
        action: Action,
        sending: Sending,
        (stages, local, passed): (&Stages, f64, Option<usize>),
        work: &mut Work,
    ) -> Result<()> {
        let left = adaptive.deadline - work.due.elapsed().as_secs_f64() - MARGIN;
        let rest = 1.25 * adaptive.link.conditions().on_device(local);
        let answer = {
            let conditions = adaptive.conditions(left).cautious();
            let server = adaptive.measured.work(action).and_then(|work| work.server).unwrap_or(0.0);
            conditions.transfer(sending.bytes() as f64) + conditions.on_server(server)
        };
        // The device answers itself where it still can in time: by the tail, which takes its time, or by the exit that was
        // passed, whose answer is there. Where neither would be in time, what is expected is waited for.
        let patience = match passed {
            _ if left - rest >= answer => left - rest,
            Some(_) => left.max(0.0),
            None => left.max(answer),
        };
        // A time that is too long for a clock is no limit.
        let patience = Duration::try_from_secs_f64(patience).ok();
        let mut underway = self.send_off(&sending);
        let reply = self.runtime.block_on(async {
            match patience {
                Some(patience) => tokio::time::timeout(patience, &mut underway.0).await.ok(),
                None => Some((&mut underway.0).await),
            }
        });
        match reply.map(|reply| reply.unwrap_or_else(|_| Err(Status::unavailable("the request has gone")))) {
            Some(Ok(reply)) => {
                adaptive.observe(action, sending.timed(&reply), &reply);
                sending.keep(Ok(reply), work);
                return Ok(());
            }
            Some(Err(status)) => {
                // No server answers: the device does.
                sending.keep(Err(status), work);
                work.record.error = None;
            }
            None => {
                work.record.link += sending.seconds();
                work.record.payload += sending.sent();
                adaptive.stalled(action, &sending);
                // When the answer does come, it tells more. One such is enough to go on.
                adaptive.probe.get_or_insert(Probe { action, sending, reply: underway });
            }
        }
        adaptive.last = Instant::now();
        let left = adaptive.deadline - work.due.elapsed().as_secs_f64();
        match passed.filter(|_| left < adaptive.link.conditions().on_device(local)) {
            Some(class) => {
                work.record.answer = Some(class);
                work.record.from += ", then exit";
            }
            None => {
                let from = match action {
                    Action::Split { cut, .. } => Some(cut),
                    _ => None,
                };
                self.finish(stages, from, work)?;
                work.record.from += ", then local";
            }
        }
        Ok(())
    }

    /// Runs the network to its end on the device; how many seconds it took.
    fn finish(&mut self, stages: &Stages, from: Option<usize>, work: &mut Work) -> Result<f64> {
        let network = &self.setup.network;
        let part = Part::Rest(from, if from.is_some() { 0 } else { work.asked });
        let (logits, seconds) = self.pace.time(part, || network.to_end(stages, &self.pool))?;
        work.record.device += seconds;
        work.record.answer = logits.first().map(|logits| argmax(logits));
        Ok(seconds)
    }
}

/// The codec of a measured coding of the input, if the server takes what it makes.
fn image_codec(coding: &narrows::split::Coding) -> Option<ImageCodec> {
    let codecs = (1..=100).flat_map(|quality| [ImageCodec::Jpeg(quality), ImageCodec::WebP(quality)]);
    codecs.chain([ImageCodec::Png]).find(|codec| codec.name() == coding.codec && codec.setting() == coding.setting)
}

#[cfg(test)]
mod tests {
    use super::*;
    use narrows::Deviation;

    #[test]
    fn layers_that_would_be_late_are_left_out_but_for_the_base() {
        // A byte a millisecond, a second there and back and one at the server: the layers end after 2.1, 2.3 and 2.6 s.
        let layers = [100, 200, 300].map(|bytes| vec![0; bytes]);
        let conditions = Conditions { bandwidth: 8000.0, round_trip: 1.0, ..Conditions::default() };
        let sent = |deadline: f64, link: f64| {
            let deviation = Deviation { link, ..Deviation::default() };
            in_time(&layers, &Conditions { deadline, deviation, ..conditions }.cautious(), 1.0)
        };
        assert_eq!(
            [f64::INFINITY, 2.61, 2.59, 2.31, 2.29, 2.0, 0.0].map(|left| sent(left, 0.0)),
            [3, 3, 2, 2, 1, 1, 1]
        );
        // A link that is off by a fifth may take half as long again: 2.65, 2.95 and 3.4 s.
        assert_eq!([3.41, 3.39, 2.94].map(|left| sent(left, 0.2)), [3, 2, 1]);
    }
}
