//! Streams that are sent to see how link and server are, whose answers nobody waits for.

use std::time::{Duration, Instant};

use narrows::Conditions;
use narrows::link::Reply;
use narrows::split::Action;
use tokio::task::JoinHandle;
use tonic::Status;

use super::Adaptive;
use crate::device::Device;
use crate::device::camera::{Sending, Work};

/// Time without a transfer after which a stream is sent to see how the link is.
const SILENCE: Duration = Duration::from_secs(1);
/// Streams that are sent before the first image, to see how the link is, and the longest time that one may take.
const GREETINGS: usize = 5;
const GREETING: Duration = Duration::from_secs(1);
/// An answer to a stream that was sent to see how the link is, or that came too late, is no longer waited for after this many
/// seconds: what it would tell of the link is old by then.
const LATEST: f64 = 3.0;

/// Something that was sent whose answer is not waited for: how long it takes tells how the link is.
pub(super) struct Probe {
    pub action: Action,
    pub sending: Sending,
    pub reply: Underway,
}

/// A request on its way. It is given up when this is dropped.
pub(super) struct Underway(pub JoinHandle<Result<Reply, Status>>);

impl Drop for Underway {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Adaptive {
    /// What would be sent if something were, and a stream of its kind: what that takes is what has to be known. None if
    /// nothing would be, however good the link became.
    fn probe(&self) -> Option<(Action, Vec<u8>)> {
        let conditions = Conditions { deadline: self.deadline, ..self.link.conditions() };
        // A perfect link to a server that is idle again.
        let server_speed = conditions.server_speed.max(1.0);
        let faster = Conditions { bandwidth: f64::INFINITY, round_trip: 0.0, wait: 0.0, server_speed, ..conditions };
        let action = match (self.planner.best(&faster).action, self.streams.best(&conditions).action) {
            (Action::Local, _) => return None,
            (_, action) => action,
        };
        let Action::Split { cut, coding } = action else { return None };
        Some((action, self.samples.get(&(cut, coding))?.clone()))
    }
}

impl Device<'_> {
    /// Sends some streams before the first image, so that the link is no stranger then.
    pub(in crate::device) fn greet(&mut self) {
        let Some(adaptive) = &mut self.adaptive else { return };
        let Some((action, stream)) = adaptive.probe() else { return };
        // To connect takes longer than to send.
        let (client, model) = (self.setup.client.clone(), self.setup.models[0].clone());
        let ready = self.runtime.block_on(async { tokio::time::timeout(GREETING, client.ready(&model)).await });
        // The device does without a server too.
        let greetings = if matches!(ready, Ok(Ok(()))) { GREETINGS } else { 0 };
        for _ in 0..greetings {
            let sending = Sending::new(&self.setup, 0, "stream", vec![stream.clone()]);
            let reply = self.runtime.block_on(async { tokio::time::timeout(GREETING, sending.reply()).await });
            match reply {
                Ok(Ok(reply)) => adaptive.observe(action, Some(sending.bytes()), &reply),
                Ok(Err(_)) | Err(_) => {
                    adaptive.stalled(action, &sending);
                    break;
                }
            }
        }
        adaptive.ask();
    }

    /// Sends a stream to see how the link is, if nothing has been sent for a while. The image has its answer by then, and
    /// that to the stream is not waited for.
    pub(super) fn look(&mut self, adaptive: &mut Adaptive, work: &mut Work) {
        work.delay = Some(work.due.elapsed().as_secs_f64());
        if adaptive.probe.is_some() || adaptive.last.elapsed() < SILENCE {
            return;
        }
        let Some((action, stream)) = adaptive.probe() else { return };
        let sending = Sending::new(&self.setup, 0, "stream", vec![stream]);
        work.record.payload += sending.bytes();
        let reply = self.send_off(&sending);
        adaptive.probe = Some(Probe { action, sending, reply });
        adaptive.last = Instant::now();
    }

    /// Sends something and leaves the answer to be picked up.
    pub(super) fn send_off(&self, sending: &Sending) -> Underway {
        let sending = sending.clone();
        Underway(self.runtime.spawn(async move { sending.reply().await }))
    }

    /// Learns from an answer that was not waited for, if it has come; gives it up if it does not.
    pub(super) fn heard(&mut self, adaptive: &mut Adaptive) {
        let Some(mut probe) = adaptive.probe.take() else { return };
        if probe.reply.0.is_finished() {
            if let Ok(Ok(reply)) = self.runtime.block_on(&mut probe.reply.0) {
                adaptive.observe(probe.action, probe.sending.timed(&reply), &reply);
            }
        } else if probe.sending.seconds() < LATEST {
            adaptive.probe = Some(probe);
        } else {
            adaptive.stalled(probe.action, &probe.sending);
        }
    }
}
