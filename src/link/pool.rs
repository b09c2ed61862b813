//! Workers that decode and run tails: threads of their own behind a bounded queue, so that the network's threads never wait.

use std::collections::{HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ndarray::{ArrayD, ArrayViewD, Axis, IxDyn};
use tokio::sync::oneshot;
use tonic::Status;

use super::bounds::Bounds;
use super::metrics::Metrics;
use super::model::{Accepts, Model};
use super::retry::with_hint;
use super::tensors::{Data, Times};
use crate::codec::Decoder;
use crate::error::Error;
use crate::limits::Limits;

/// The scores of each item of a request, and how long they took.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub logits: Vec<Vec<f32>>,
    pub times: Times,
}

type Outcome = Result<Answer, Status>;

struct Job {
    model: Arc<Model>,
    data: Data,
    queued: Instant,
    deadline: Instant,
    reply: oneshot::Sender<Outcome>,
}

impl Job {
    /// Why nobody waits for this job any more, if that is so.
    fn stale(&self, now: Instant) -> Option<&'static str> {
        if self.reply.is_closed() {
            Some("gone")
        } else if self.deadline <= now {
            Some("expired")
        } else {
            None
        }
    }
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    closed: bool,
    /// Seconds that a job takes a worker, as a moving mean.
    seconds: f64,
}

struct Shared {
    queue: Mutex<Queue>,
    wake: Condvar,
    bounds: Bounds,
    metrics: Metrics,
}

/// The workers of a server. Dropping it lets them finish what is queued, and waits for them.
pub(crate) struct Pool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
}

impl Pool {
    /// Starts the workers.
    pub fn start(bounds: &Bounds, metrics: &Metrics) -> Pool {
        let queue = Mutex::new(Queue::default());
        let shared = Arc::new(Shared { queue, wake: Condvar::new(), bounds: bounds.clone(), metrics: metrics.clone() });
        let start = |_| {
            let shared = shared.clone();
            std::thread::spawn(move || Worker::new(shared).run())
        };
        let workers = (0..bounds.workers.max(1)).map(start).collect();
        Pool { shared, workers }
    }

    /// Queues a request; its answer comes through the receiver. Dropping that takes the request back.
    ///
    /// # Errors
    /// `RESOURCE_EXHAUSTED`, with the time in which a place should be free, if the queue is full.
    pub fn submit(
        &self,
        model: Arc<Model>,
        data: Data,
        deadline: Instant,
    ) -> Result<oneshot::Receiver<Outcome>, Status> {
        let (reply, receiver) = oneshot::channel();
        let now = Instant::now();
        let mut queue = self.shared.lock();
        if queue.jobs.len() >= self.shared.bounds.queue {
            self.shared.purge(&mut queue, now);
        }
        if queue.jobs.len() >= self.shared.bounds.queue {
            let wait = queue.seconds * queue.jobs.len() as f64 / self.shared.bounds.workers.max(1) as f64;
            let status = Status::resource_exhausted(format!(
                "{} requests are waiting already: try again later, or another replica",
                queue.jobs.len()
            ));
            return Err(with_hint(status, Duration::from_secs_f64(wait.clamp(0.005, 10.0))));
        }
        queue.jobs.push_back(Job { model, data, queued: now, deadline, reply });
        self.shared.metrics.queue.set(queue.jobs.len() as i64);
        drop(queue);
        self.shared.wake.notify_one();
        Ok(receiver)
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.wake.notify_all();
        for worker in self.workers.drain(..) {
            // A worker catches the panics of what it runs.
            let _ = worker.join();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes jobs out that nobody waits for.
    fn purge(&self, queue: &mut Queue, now: Instant) {
        for job in std::mem::take(&mut queue.jobs) {
            match job.stale(now) {
                Some(reason) => self.refuse(job, reason),
                None => queue.jobs.push_back(job),
            }
        }
    }

    fn refuse(&self, job: Job, reason: &'static str) {
        self.metrics.dropped.with_label_values(&[reason]).inc();
        // If the receiver is gone, so is the client.
        let _ =
            job.reply.send(Err(Status::deadline_exceeded("the deadline passed while the request waited for its turn")));
    }

    /// Waits for a job, and takes with it those for the same model that one run of the tail can hold too. `None` at the end.
    fn take(&self) -> Option<Vec<Job>> {
        let mut queue = self.lock();
        loop {
            self.purge(&mut queue, Instant::now());
            if let Some(first) = queue.jobs.pop_front() {
                let mut jobs = vec![first];
                let mut items = jobs[0].data.items();
                while let Some(next) = queue.jobs.front() {
                    items += next.data.items();
                    if !Arc::ptr_eq(&next.model, &jobs[0].model) || items > self.bounds.batch {
                        break;
                    }
                    jobs.extend(queue.jobs.pop_front());
                }
                self.metrics.queue.set(queue.jobs.len() as i64);
                return Some(jobs);
            }
            self.metrics.queue.set(0);
            if queue.closed {
                return None;
            }
            queue = self.wake.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// One thread, with a decoder for each model: it keeps its buffers.
struct Worker {
    shared: Arc<Shared>,
    decoders: HashMap<String, Decoder>,
}

/// A job that has been decoded.
struct Decoded {
    batch: ArrayD<f32>,
    times: Times,
    reply: oneshot::Sender<Outcome>,
}

impl Worker {
    fn new(shared: Arc<Shared>) -> Worker {
        Worker { shared, decoders: HashMap::new() }
    }

    fn run(mut self) {
        while let Some(jobs) = self.shared.take() {
            let started = Instant::now();
            let count = jobs.len();
            self.serve(jobs);
            let seconds = started.elapsed().as_secs_f64() / count as f64;
            let mut queue = self.shared.lock();
            queue.seconds = if queue.seconds == 0.0 { seconds } else { 0.9 * queue.seconds + 0.1 * seconds };
        }
    }

    fn serve(&mut self, jobs: Vec<Job>) {
        let model = jobs[0].model.clone();
        let mut decoded = Vec::with_capacity(jobs.len());
        for job in jobs {
            let started = Instant::now();
            let queue = started.duration_since(job.queued).as_secs_f64();
            match self.decode(&model, job.data) {
                Ok(batch) => {
                    let times = Times { queue, decode: started.elapsed().as_secs_f64(), tail: 0.0 };
                    decoded.push(Decoded { batch, times, reply: job.reply });
                }
                Err(status) => {
                    // If the receiver is gone, so is the client.
                    let _ = job.reply.send(Err(status));
                }
            }
        }
        if decoded.is_empty() {
            return;
        }
        let started = Instant::now();
        let outcome = answers(&model, &decoded);
        let tail = started.elapsed().as_secs_f64();
        let metrics = &self.shared.metrics;
        let rows: usize = decoded.iter().map(|job| job.batch.shape()[0]).sum();
        metrics.batch.observe(rows as f64);
        if let Err(status) = &outcome {
            tracing::error!(model = model.name, error = status.message(), "the tail failed");
        }
        let mut rest = outcome.map(Vec::into_iter);
        for Decoded { batch, times, reply } in decoded {
            let times = Times { tail, ..times };
            for (stage, seconds) in [("queue", times.queue), ("decode", times.decode), ("tail", times.tail)] {
                metrics.stage_seconds.with_label_values(&[&model.name, stage]).observe(seconds);
            }
            let answer = match &mut rest {
                Ok(rows) => Ok(Answer { logits: rows.by_ref().take(batch.shape()[0]).collect(), times }),
                Err(status) => Err(status.clone()),
            };
            if let Ok(answer) = &answer {
                metrics.items.with_label_values(&[&model.name]).inc_by(answer.logits.len() as u64);
            }
            let _ = reply.send(answer);
        }
    }

    /// The batch `[n, ...]` that a request means.
    fn decode(&mut self, model: &Arc<Model>, data: Data) -> Result<ArrayD<f32>, Status> {
        let items = match data {
            Data::Floats(array) => return Ok(array),
            Data::Bytes(items) => items,
        };
        let most = self.shared.bounds.batch;
        let mut parts = Vec::with_capacity(items.len());
        let mut rows = 0;
        for bytes in &items {
            let part = guarded("decoding", || match model.accepts {
                Accepts::Images => model.tail.image(bytes),
                Accepts::Features(_) => Ok(self.decoder(model).decode(bytes)?.to_f32()),
            })
            .map_err(|status| explained(status, model))?;
            let item = model.tail.shape();
            if part.shape().len() != item.len() + 1 || part.shape()[1..] != *item || part.shape()[0] == 0 {
                let (given, wanted) = (part.shape().to_vec(), item.to_vec());
                return Err(Status::invalid_argument(format!(
                    "a feature of shape {given:?} came out, model {} takes [n, ...] with {wanted:?} behind it",
                    model.name
                )));
            }
            rows += part.shape()[0];
            if rows > most {
                return Err(Status::invalid_argument(format!("more than {most} items at once: send several requests")));
            }
            parts.push(part);
        }
        join(&parts)
    }

    fn decoder(&mut self, model: &Model) -> &mut Decoder {
        let most = self.shared.bounds.batch;
        self.decoders.entry(model.name.clone()).or_insert_with(|| {
            let elements: usize = model.tail.shape().iter().product();
            let limits = Limits { output_bytes: 4 * (most * elements) as u64, ..Limits::default() };
            model
                .profiles()
                .iter()
                .fold(Decoder::new().limits(limits), |decoder, profile| decoder.profile(profile.clone()))
        })
    }
}

/// Runs the tail on the batches of several requests at once.
fn answers(model: &Model, jobs: &[Decoded]) -> Result<Vec<Vec<f32>>, Status> {
    let logits = match jobs {
        [one] => guarded("the network", || model.tail.run(&one.batch))?,
        many => {
            let views: Vec<ArrayViewD<'_, f32>> = many.iter().map(|job| job.batch.view()).collect();
            let batch = concatenated(&views)?;
            guarded("the network", || model.tail.run(&batch))?
        }
    };
    let rows: usize = jobs.iter().map(|job| job.batch.shape()[0]).sum();
    if logits.len() != rows || logits.iter().any(|row| row.len() != model.tail.classes()) {
        return Err(Status::internal(format!("the network gave {} answers for {rows} items", logits.len())));
    }
    Ok(logits)
}

fn join(parts: &[ArrayD<f32>]) -> Result<ArrayD<f32>, Status> {
    let views: Vec<ArrayViewD<'_, f32>> = parts.iter().map(|part| part.view()).collect();
    match views.as_slice() {
        [] => Ok(ArrayD::zeros(IxDyn(&[0]))),
        views => concatenated(views),
    }
}

fn concatenated(views: &[ArrayViewD<'_, f32>]) -> Result<ArrayD<f32>, Status> {
    let joined = ndarray::concatenate(Axis(0), views).map_err(|error| Status::internal(error.to_string()))?;
    Ok(if joined.is_standard_layout() { joined } else { joined.as_standard_layout().into_owned() })
}

/// Runs what is not ours; a panic in it is an error of this one request.
fn guarded<T>(what: &str, run: impl FnOnce() -> crate::Result<T>) -> Result<T, Status> {
    catch_unwind(AssertUnwindSafe(run))
        .unwrap_or_else(|_| Err(Error::Backend(format!("{what} stopped").into())))
        .map_err(|error| status_of(&error))
}

/// The gRPC status of an error.
pub(crate) fn status_of(error: &Error) -> Status {
    let message = error.to_string();
    match error {
        Error::InvalidInput(_) | Error::Corrupt { .. } | Error::Truncated { .. } | Error::LimitExceeded { .. } => {
            Status::invalid_argument(message)
        }
        Error::ProfileMismatch { .. } => Status::failed_precondition(message),
        Error::Unsupported { .. } => Status::unimplemented(message),
        Error::Backend(_) => Status::internal(message),
    }
}

/// Names the profiles that a model has, where a stream was made with another.
fn explained(status: Status, model: &Model) -> Status {
    if status.code() != tonic::Code::FailedPrecondition {
        return status;
    }
    let (name, hashes) = (&model.name, model.hashes().join(", "));
    Status::failed_precondition(format!("{}; model {name} has: {hashes}", status.message()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    /// Answers each item with its first number, once it is let.
    struct Gate(Mutex<mpsc::Receiver<()>>, Mutex<Vec<usize>>);

    impl crate::link::Tail for Gate {
        fn shape(&self) -> &[usize] {
            &[2]
        }

        fn classes(&self) -> usize {
            1
        }

        fn run(&self, batch: &ArrayD<f32>) -> crate::Result<Vec<Vec<f32>>> {
            self.0.lock().unwrap().recv().unwrap();
            self.1.lock().unwrap().push(batch.shape()[0]);
            assert!(batch[[0, 0]] >= 0.0, "negative");
            Ok(batch.outer_iter().map(|row| vec![row[[0]]]).collect())
        }
    }

    fn floats(value: f32) -> Data {
        Data::Floats(ArrayD::from_elem(IxDyn(&[1, 2]), value))
    }

    fn start(queue: usize, batch: usize) -> (Pool, Arc<Model>, Arc<Gate>, mpsc::Sender<()>) {
        let (open, gate) = mpsc::channel();
        let gate = Arc::new(Gate(Mutex::new(gate), Mutex::default()));
        let bounds = Bounds { queue, batch, workers: 1, ..Bounds::default() };
        let pool = Pool::start(&bounds, &Metrics::new().unwrap());
        (pool, Arc::new(Model::tail("m", Vec::new(), gate.clone())), gate, open)
    }

    /// Waits until the one worker has taken what is queued.
    fn settle(pool: &Pool) {
        while !pool.shared.lock().jobs.is_empty() {
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_full_queue_refuses_and_a_batch_empties_it() {
        let (pool, model, gate, open) = start(2, 2);
        let later = Instant::now() + Duration::from_secs(600);
        let first = pool.submit(model.clone(), floats(1.0), later).unwrap();
        settle(&pool);
        let second = pool.submit(model.clone(), floats(2.0), later).unwrap();
        let third = pool.submit(model.clone(), floats(3.0), later).unwrap();
        let refused = pool.submit(model.clone(), floats(4.0), later).unwrap_err();
        assert_eq!(refused.code(), tonic::Code::ResourceExhausted);
        assert!(refused.metadata().get("grpc-retry-pushback-ms").is_some());
        open.send(()).unwrap();
        open.send(()).unwrap();
        for (receiver, wanted) in [(first, 1.0), (second, 2.0), (third, 3.0)] {
            assert_eq!(receiver.blocking_recv().unwrap().unwrap().logits, [[wanted]]);
        }
        assert_eq!(*gate.1.lock().unwrap(), [1, 2]);
    }

    #[test]
    fn work_that_nobody_waits_for_is_not_run() {
        let (pool, model, gate, open) = start(3, 1);
        let later = Instant::now() + Duration::from_secs(600);
        let first = pool.submit(model.clone(), floats(1.0), later).unwrap();
        settle(&pool);
        let expired = pool.submit(model.clone(), floats(2.0), Instant::now()).unwrap();
        drop(pool.submit(model.clone(), floats(3.0), later).unwrap());
        let last = pool.submit(model.clone(), floats(4.0), later).unwrap();
        // The queue is full, but two of its jobs are stale.
        let more = pool.submit(model.clone(), floats(5.0), later).unwrap();
        (0..3).for_each(|_| open.send(()).unwrap());
        assert_eq!(expired.blocking_recv().unwrap().unwrap_err().code(), tonic::Code::DeadlineExceeded);
        for (receiver, wanted) in [(first, 1.0), (last, 4.0), (more, 5.0)] {
            assert_eq!(receiver.blocking_recv().unwrap().unwrap().logits, [[wanted]]);
        }
        assert_eq!(gate.1.lock().unwrap().len(), 3);
        assert_eq!(pool.shared.metrics.dropped.with_label_values(&["gone"]).get(), 1);
    }

    #[test]
    fn a_panic_is_the_error_of_one_request() {
        let (pool, model, _, open) = start(4, 1);
        let later = Instant::now() + Duration::from_secs(600);
        let bad = pool.submit(model.clone(), floats(-1.0), later).unwrap();
        let good = pool.submit(model.clone(), floats(1.0), later).unwrap();
        (0..2).for_each(|_| open.send(()).unwrap());
        assert_eq!(bad.blocking_recv().unwrap().unwrap_err().code(), tonic::Code::Internal);
        // The mutex in the test's own tail may be poisoned by its panic; an answer comes in any case.
        assert!(good.blocking_recv().is_ok());
    }
}
