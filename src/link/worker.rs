//! One worker: decodes the requests that it has taken from the queue, and runs the tail on all of them at once.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use ndarray::{ArrayD, ArrayViewD, Axis, IxDyn};
use tokio::sync::oneshot;
use tonic::Status;

use super::model::{Accepts, Model};
use super::pool::{Answer, Job, Outcome, Shared};
use super::tensors::{Data, Times};
use crate::codec::Decoder;
use crate::error::Error;
use crate::limits::Limits;

/// One thread, with a decoder for each model: it keeps its buffers. Two models may have one name, where one of them is
/// only passed streams by another, so that they are told apart by where they are: they live as long as the server.
pub(crate) struct Worker {
    shared: Arc<Shared>,
    decoders: HashMap<usize, Decoder>,
}

/// A job that has been decoded.
struct Decoded {
    batch: ArrayD<f32>,
    times: Times,
    reply: oneshot::Sender<Outcome>,
}

impl Worker {
    pub fn new(shared: Arc<Shared>) -> Worker {
        Worker { shared, decoders: HashMap::new() }
    }

    pub fn run(mut self) {
        while let Some(jobs) = self.shared.take() {
            let started = Instant::now();
            let count = jobs.len();
            self.serve(jobs);
            self.shared.took(started.elapsed().as_secs_f64() / count as f64);
        }
    }

    /// Decodes jobs for one model, and runs its tail on as many of them at once as it may: how many items a stream holds is
    /// known when it is decoded.
    fn serve(&mut self, jobs: Vec<Job>) {
        let model = jobs[0].model.clone();
        let mut decoded: Vec<Decoded> = Vec::with_capacity(jobs.len());
        for job in jobs {
            let started = Instant::now();
            let queue = started.duration_since(job.queued).as_secs_f64();
            match self.decode(&model, job.data) {
                Ok(batch) => {
                    let rows: usize =
                        decoded.iter().map(|job| &job.batch).chain([&batch]).map(|batch| batch.shape()[0]).sum();
                    if rows > self.shared.bounds.batch {
                        self.run_all(&model, std::mem::take(&mut decoded));
                    }
                    let times = Times { queue, decode: started.elapsed().as_secs_f64(), tail: 0.0 };
                    decoded.push(Decoded { batch, times, reply: job.reply });
                }
                Err(status) => {
                    // If the receiver is gone, so is the client.
                    let _ = job.reply.send(Err(status));
                }
            }
        }
        if !decoded.is_empty() {
            self.run_all(&model, decoded);
        }
    }

    /// Runs the tail on what was decoded, and answers.
    fn run_all(&self, model: &Model, decoded: Vec<Decoded>) {
        let started = Instant::now();
        let outcome = answers(model, &decoded);
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

    fn decoder(&mut self, model: &Arc<Model>) -> &mut Decoder {
        let most = self.shared.bounds.batch;
        self.decoders.entry(Arc::as_ptr(model).addr()).or_insert_with(|| {
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
fn status_of(error: &Error) -> Status {
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
