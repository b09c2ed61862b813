//! A device with a camera: head, encoder, link.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use image::RgbImage;
use narrows::link::{Client, Layer, Reply};
use narrows::{Encoder, Info, Quality};
use ndarray::ArrayD;
use rten::ThreadPool;
use tokio::runtime::Runtime;
use tonic::codegen::Bytes;
use tonic::{Code, Status};

use crate::codecs::ImageCodec;
use crate::device::{Adaptive, Pace, Part, Policy, Record, SKIPPED};
use crate::images::Images;
use crate::metrics::argmax;
use crate::model::{Cut, Network, Pool};
use crate::normalize::Normalize;
use crate::output::{INTERRUPTED, note};

/// Runs of each part before the first image.
pub(super) const WARM_UP: usize = 6;

/// Time without a server after which it is said that one is waited for.
const LONG: Duration = Duration::from_secs(2);

/// What a device is made of.
pub struct Setup {
    /// The network, of which it runs the head.
    pub network: Network,
    /// Where it is cut.
    pub cut: Option<Cut>,
    /// How pixels become input.
    pub normalize: Normalize,
    /// Encoder of the feature.
    pub encoder: Encoder,
    /// Its quality.
    pub quality: Quality,
    /// The link.
    pub client: Client,
    /// Its addresses, for errors.
    pub servers: String,
    /// Names of the models at the server: that of the tail, that of the whole network.
    pub models: [String; 2],
    /// Speed of the device relative to this machine, at most 1.
    pub speed: f64,
    /// How layers are sent, of streams with layers.
    pub layers: Layer,
}

/// A device.
pub struct Device<'a> {
    pub(super) setup: Setup,
    images: &'a dyn Images,
    labelled: bool,
    pub(super) runtime: Runtime,
    pub(super) pool: Pool,
    pub(super) pace: Pace,
    pub(super) adaptive: Option<Adaptive>,
}

/// What it knows of one image while it works on it.
pub(super) struct Work {
    pub record: Record,
    pub due: Instant,
    /// Seconds until its answer, if something else was done after that.
    pub delay: Option<f64>,
    /// Exits that were asked.
    pub asked: usize,
}

impl<'a> Device<'a> {
    /// A device with these images; `labelled` says whether their classes mean anything.
    pub fn new(setup: Setup, images: &'a dyn Images, labelled: bool, runtime: Runtime) -> Device<'a> {
        let pool = Some(Arc::new(ThreadPool::with_num_threads(1)));
        let pace = Pace::new(setup.speed);
        Device { setup, images, labelled, runtime, pool, pace, adaptive: None }
    }

    /// The same device with what policy `adaptive` goes by.
    pub fn adaptive(mut self, adaptive: Option<Adaptive>) -> Device<'a> {
        self.adaptive = adaptive;
        self
    }

    /// Answers image after image. With an interval, image `i` is due `i` intervals after the first, and its delay counts from
    /// then, also if the device is still busy with those before it. One that is `stale` by then is skipped.
    pub fn run(
        &mut self,
        policy: Policy,
        (interval, stale): (Option<Duration>, Option<Duration>),
        seen: &mut dyn FnMut(&Record),
    ) -> Result<Vec<Record>> {
        self.warm(policy)?;
        let start = Instant::now();
        let mut records = Vec::with_capacity(self.images.len());
        let client = self.setup.client.clone();
        // What goes out between two images is counted for the first of them.
        let mut before = client.traffic().0;
        let mut sent = |records: &mut Vec<Record>| {
            let now = client.traffic().0;
            if let Some(last) = records.last_mut() {
                last.wire = now - before;
            }
            before = now;
        };
        let interrupted = self.interrupted();
        for i in 0..self.images.len() {
            if interrupted.load(Ordering::Relaxed) {
                break;
            }
            let pixels = self.images.pixels(i)?;
            let due = match interval {
                Some(interval) => start + interval * i as u32,
                None => Instant::now(),
            };
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            sent(&mut records);
            let mut work = Work { record: self.record(i), due, delay: None, asked: 0 };
            match stale.is_some_and(|stale| due.elapsed() >= stale) {
                true => work.record.from = SKIPPED.into(),
                false => self.answer(policy, &pixels, &mut work)?,
            }
            work.record.delay = work.delay.unwrap_or_else(|| work.due.elapsed().as_secs_f64());
            seen(&work.record);
            records.push(work.record);
        }
        sent(&mut records);
        Ok(records)
    }

    /// Becomes true when the user interrupts: what was measured until then is kept. A second time ends the program.
    fn interrupted(&self) -> Arc<AtomicBool> {
        let interrupted = Arc::new(AtomicBool::new(false));
        let told = interrupted.clone();
        self.runtime.spawn(async move {
            while tokio::signal::ctrl_c().await.is_ok() {
                if told.swap(true, Ordering::Relaxed) {
                    std::process::exit(INTERRUPTED);
                }
            }
        });
        interrupted
    }

    /// The first run of each part takes longer than all others, and a device that has run for a while has had it.
    fn warm(&mut self, policy: Policy) -> Result<()> {
        let pixels = self.images.pixels(0)?;
        if let (Policy::Adaptive, Some(adaptive)) = (policy, &mut self.adaptive) {
            adaptive.warm(&self.setup, &pixels, &self.pool, &mut self.pace)?;
            self.greet();
        }
        for round in 0..WARM_UP {
            // The first round is not what it usually takes.
            let mut unused = Pace::new(1.0);
            let pace = if round == 0 { &mut unused } else { &mut self.pace };
            let Setup { network, normalize, cut, encoder, quality, .. } = &mut self.setup;
            let input = || normalize.batch(std::slice::from_ref(&pixels));
            match (policy, cut) {
                (Policy::Local, _) => {
                    pace.learn(Part::Rest(None, 0), || network.run(&input()?, &[], &[], &self.pool))?;
                }
                (Policy::Fixed, Some(cut)) => {
                    let feature = pace.learn(Part::Head(0, 0), || network.head(&input()?, cut, &self.pool))?;
                    pace.learn(Part::Encode(0, 0), || Ok(encoder.encode(&feature, *quality)?))?;
                }
                (Policy::Image(codec), _) => drop(pace.learn(Part::Image, || codec.encode(&pixels))?),
                _ => {}
            }
        }
        let model = &self.setup.models[usize::from(matches!(policy, Policy::Image(_)))];
        // The adaptive one does without a server too.
        if !matches!(policy, Policy::Local | Policy::Adaptive) {
            let Setup { client, servers, .. } = &self.setup;
            let ready = self.runtime.block_on(async {
                let mut ready = std::pin::pin!(client.ready(model));
                match tokio::time::timeout(LONG, &mut ready).await {
                    Ok(ready) => ready,
                    Err(_) => {
                        note(format!("waiting for {servers}"));
                        ready.await
                    }
                }
            });
            ready.map_err(|status| {
                let todo = match (status.code(), &self.setup.cut) {
                    (Code::NotFound, Some(cut)) if policy == Policy::Fixed => format!("--cut {}", cut.name),
                    (Code::NotFound, _) => "--whole".into(),
                    _ => return anyhow::anyhow!("model {model} at {}: {}", self.setup.servers, text(&status)),
                };
                anyhow::anyhow!(
                    "model {model} at {}: {}; start the server with `narrows serve {todo}`, or say with --name what it calls \
                     the network",
                    self.setup.servers,
                    text(&status)
                )
            })?;
        }
        Ok(())
    }

    fn record(&self, i: usize) -> Record {
        Record {
            image: i,
            label: self.labelled.then(|| self.images.label(i)),
            answer: None,
            from: String::new(),
            delay: 0.0,
            device: 0.0,
            encode: 0.0,
            link: 0.0,
            server: [0.0; 3],
            payload: 0,
            wire: 0,
            layers: 0,
            attempts: 0,
            error: None,
        }
    }

    fn answer(&mut self, policy: Policy, pixels: &RgbImage, work: &mut Work) -> Result<()> {
        match policy {
            Policy::Local => self.local(pixels, work),
            Policy::Fixed => self.split(pixels, work),
            Policy::Image(codec) => self.image(codec, pixels, work),
            Policy::Adaptive => self.adapt(pixels, work),
        }
    }

    /// The whole network on the device.
    fn local(&mut self, pixels: &RgbImage, work: &mut Work) -> Result<()> {
        let Setup { network, normalize, .. } = &self.setup;
        let run = || network.run(&normalize.batch(std::slice::from_ref(pixels))?, &[], &[], &self.pool);
        let (answers, seconds) = self.pace.time(Part::Rest(None, 0), run)?;
        work.record.device += seconds;
        work.record.from = "local".into();
        work.record.answer = answers.logits.first().map(|logits| argmax(logits));
        Ok(())
    }

    /// The image to the server.
    fn image(&mut self, codec: ImageCodec, pixels: &RgbImage, work: &mut Work) -> Result<()> {
        let (bytes, seconds) = self.pace.time(Part::Image, || codec.encode(pixels))?;
        work.record.encode += seconds;
        work.record.from = "image".into();
        self.send(1, "image", vec![bytes], work);
        Ok(())
    }

    /// Head and encoder on the device, the tail at the server.
    fn split(&mut self, pixels: &RgbImage, work: &mut Work) -> Result<()> {
        let Setup { network, cut, normalize, encoder, quality, .. } = &mut self.setup;
        let cut = cut.as_ref().context("name the cut with --cut NAME")?;
        let head = || network.head(&normalize.batch(std::slice::from_ref(pixels))?, cut, &self.pool);
        let (feature, seconds): (ArrayD<f32>, f64) = self.pace.time(Part::Head(0, 0), head)?;
        work.record.device += seconds;
        let (stream, seconds) = self.pace.time(Part::Encode(0, 0), || Ok(encoder.encode(&feature, *quality)?))?;
        work.record.encode += seconds;
        work.record.from = "split".into();
        self.send(0, "stream", layers_of(&stream)?, work);
        Ok(())
    }

    /// Sends what was encoded, all of it or layer by layer, and keeps the answer.
    fn send(&mut self, model: usize, input: &str, parts: Vec<Vec<u8>>, work: &mut Work) {
        let sending = Sending::new(&self.setup, model, input, parts);
        let reply = self.runtime.block_on(sending.reply());
        sending.keep(reply, work);
    }
}

/// One message on its way.
#[derive(Clone)]
pub(super) struct Sending {
    client: Client,
    model: String,
    input: String,
    parts: Vec<Bytes>,
    layers: Layer,
    start: Instant,
}

impl Sending {
    pub fn new(setup: &Setup, model: usize, input: &str, parts: Vec<Vec<u8>>) -> Sending {
        Sending {
            client: setup.client.clone(),
            model: setup.models[model].clone(),
            input: input.into(),
            parts: parts.into_iter().map(Into::into).collect(),
            layers: setup.layers,
            start: Instant::now(),
        }
    }

    /// The same, with another way to send layers.
    pub fn layers(self, layers: Option<Layer>) -> Sending {
        Sending { layers: layers.unwrap_or(self.layers), ..self }
    }

    /// Bytes that took the time of an answer. None if the server's word on a layer was waited for before the next one was sent:
    /// part of the time was no transfer then.
    pub fn timed(&self, reply: &Reply) -> Option<usize> {
        let bytes = |parts: usize| self.parts.iter().take(parts).map(Bytes::len).sum();
        match (reply.layers, reply.used) {
            (0, _) => Some(self.bytes()),
            (_, used) if used <= 1 || self.layers.patience.is_zero() => Some(bytes(used)),
            _ => None,
        }
    }

    /// Bytes that have gone out so far, if no answer has come: with a patience, one more part each time that it has passed.
    pub fn sent(&self) -> usize {
        let patience = self.layers.patience.as_secs_f64();
        let parts = if patience > 0.0 { 1 + (self.seconds() / patience) as usize } else { self.parts.len() };
        self.parts.iter().take(parts).map(Bytes::len).sum()
    }

    /// Bytes of all parts.
    pub fn bytes(&self) -> usize {
        self.parts.iter().map(Bytes::len).sum()
    }

    /// Seconds since it began, less those in which a word on a layer may have been waited for and nothing was sent.
    pub fn busy(&self) -> f64 {
        let pauses = self.parts.len().saturating_sub(1) as f64;
        (self.seconds() - pauses * self.layers.patience.as_secs_f64()).max(0.0)
    }

    /// Seconds since it began.
    pub fn seconds(&self) -> f64 {
        self.start.elapsed().as_secs_f64()
    }

    pub async fn reply(&self) -> Result<Reply, Status> {
        self.client.stream(&self.model, &self.input, &self.parts, self.layers).await
    }

    /// Notes in the record what came of it.
    pub fn keep(&self, reply: Result<Reply, Status>, work: &mut Work) {
        work.record.link += self.seconds();
        match reply {
            Ok(Reply { classes, times, attempts, layers, .. }) => {
                let parts = if layers == 0 { self.parts.len() } else { layers };
                work.record.payload += self.parts.iter().take(parts).map(Bytes::len).sum::<usize>();
                work.record.server = [times.queue, times.decode, times.tail];
                work.record.attempts = attempts;
                work.record.layers = layers;
                work.record.answer = classes.first().copied();
            }
            Err(status) => {
                work.record.payload += self.bytes();
                work.record.error = Some(text(&status));
            }
        }
    }
}

fn text(status: &Status) -> String {
    format!("{:?}: {}", status.code(), status.message())
}

/// The layers of a stream, or all of it if it has none.
pub(super) fn layers_of(stream: &[u8]) -> Result<Vec<Vec<u8>>> {
    let ends = Info::read(stream)?.layers;
    let begins = std::iter::once(0).chain(ends.iter().copied());
    Ok(begins.zip(&ends).map(|(from, &end)| stream[from..end].to_vec()).collect())
}
