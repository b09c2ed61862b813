//! Workers that decode and run tails: threads of their own behind a bounded queue, so that the network's threads never wait.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tonic::Status;

use super::bounds::Bounds;
use super::metrics::Metrics;
use super::model::Model;
use super::retry::with_hint;
use super::tensors::{Data, Times};
use super::worker::Worker;

/// The scores of each item of a request, and how long they took.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub logits: Vec<Vec<f32>>,
    pub times: Times,
}

/// What becomes of a request.
pub(crate) type Outcome = Result<Answer, Status>;

/// A request in the queue.
pub(crate) struct Job {
    pub model: Arc<Model>,
    pub data: Data,
    pub queued: Instant,
    deadline: Instant,
    pub reply: oneshot::Sender<Outcome>,
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

/// What the workers share.
pub(crate) struct Shared {
    queue: Mutex<Queue>,
    wake: Condvar,
    pub bounds: Bounds,
    pub metrics: Metrics,
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

    /// Notes how long a job has taken a worker.
    pub fn took(&self, seconds: f64) {
        let mut queue = self.lock();
        queue.seconds = if queue.seconds == 0.0 { seconds } else { 0.9 * queue.seconds + 0.1 * seconds };
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
    pub fn take(&self) -> Option<Vec<Job>> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::{ArrayD, IxDyn};
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
        assert_eq!(good.blocking_recv().unwrap().unwrap().logits, [[1.0]]);
    }
}
