//! Requests one after the other on one call, and the layers of one stream. What they have in common is [named](super::named)
//! once.
//!
//! A message with the parameter `more` set to true brings the next layer of a stream, the bytes of its only `stream` element
//! being appended to what came before under the same id. After each layer the server answers from what it has: if the most
//! probable class has at least the probability in the parameter `threshold`, or no more is to come, that is the answer, with
//! the number of layers in its parameter `layers`; else the response has no outputs, its parameter `more` is true, and
//! `confidence` says what the probability was. A device that has its answer sends no more layers; those that were on their
//! way are passed over.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::door::{For, Ticket, name, too_large};
use super::model::Model;
use super::named::Named;
use super::pool::Answer;
use super::proto::infer_parameter::ParameterChoice;
use super::proto::{InferParameter, ModelInferRequest, ModelInferResponse, ModelStreamInferResponse};
use super::service::Service;
use super::tensors::{Data, confidence, set};

/// Streams that may be incomplete at the same time on one call.
const OPEN: usize = 4;
/// Layers of one stream.
const LAYERS: u32 = 64;

type Sender = mpsc::Sender<Result<ModelStreamInferResponse, Status>>;

/// Answers until the client has said all, in the background; the stream of the answers.
pub(crate) fn serve(
    service: Arc<Service>,
    messages: Streaming<ModelInferRequest>,
    ticket: Arc<Ticket>,
) -> ReceiverStream<Result<ModelStreamInferResponse, Status>> {
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(async move {
        let end = tokio::select! {
            end = answer_all(&service, messages, &sender, &ticket) => end,
            // What it waits for is not run for a client that has gone.
            () = sender.closed() => Err(gone()),
            status = ticket.evicted() => Err(status),
        };
        let code = end.as_ref().err().map_or(tonic::Code::Ok, Status::code);
        service.metrics.ended.with_label_values(&[name(code)]).inc();
        let Err(status) = end else { return };
        // The place is free for another; the last word need not be taken at once.
        let connection = ticket.connection();
        drop(ticket);
        let told = tokio::time::timeout(service.bounds.stall, sender.send(Err(status))).await;
        if let (Err(_), Some(connection)) = (told, connection) {
            connection.cut();
        }
    });
    ReceiverStream::new(receiver)
}

/// A stream of which layers have come.
struct Open {
    /// What its first layer names.
    model: Arc<Model>,
    bytes: Vec<u8>,
    layers: u32,
    answered: bool,
    touched: u64,
}

async fn answer_all(
    service: &Service,
    mut messages: Streaming<ModelInferRequest>,
    sender: &Sender,
    ticket: &Ticket,
) -> Result<(), Status> {
    let mut open: HashMap<String, Open> = HashMap::new();
    let mut named = None;
    let mut ending = service.ending.clone();
    for count in 0.. {
        ticket.waits(Some(For::Message));
        let idle = Instant::now() + service.bounds.idle;
        let (limit, late) = match ticket.has_deadline && ticket.deadline < idle {
            true => (ticket.deadline, "the deadline of the call has passed"),
            false => (idle, "no message came in time"),
        };
        let message = tokio::select! {
            message = messages.message() => message.map_err(received)?,
            _ = ending.wait_for(|ending| *ending) => {
                return Err(Status::unavailable("the server is ending: try another replica"));
            }
            () = tokio::time::sleep_until(limit) => {
                return Err(Status::deadline_exceeded(late));
            }
        };
        let Some(mut request) = message else { return Ok(()) };
        ticket.waits(None);
        Named::complete(&mut named, &mut request);
        let id = request.id.clone();
        let response = match answer(service, &mut request, &mut open, count, ticket).await {
            Ok(None) => continue,
            Ok(Some(response)) => ModelStreamInferResponse { infer_response: Some(response), ..Default::default() },
            Err(status) => {
                open.remove(&id);
                ModelStreamInferResponse {
                    error_message: format!("{}: {}", name(status.code()), status.message()),
                    infer_response: Some(ModelInferResponse { id, ..Default::default() }),
                }
            }
        };
        ticket.waits(Some(For::Taking));
        match tokio::time::timeout(service.bounds.stall, sender.send(Ok(response))).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return Err(gone()),
            Err(_) => return Err(Status::deadline_exceeded("the answers are not read")),
        }
    }
    Ok(())
}

/// The status of a message that could not be received.
fn received(status: Status) -> Status {
    match status.code() {
        tonic::Code::OutOfRange => too_large(&status),
        // The call was reset, or its connection broke.
        _ if std::error::Error::source(&status).is_some() => gone(),
        _ => status,
    }
}

fn gone() -> Status {
    Status::cancelled("the client has gone")
}

/// The response to one message, if it needs one.
async fn answer(
    service: &Service,
    request: &mut ModelInferRequest,
    open: &mut HashMap<String, Open>,
    count: u64,
    ticket: &Ticket,
) -> Result<Option<ModelInferResponse>, Status> {
    let place = service.gate.requests.enter(None, None).await?;
    place.waits(None);
    let deadline = if ticket.has_deadline { place.deadline.min(ticket.deadline) } else { place.deadline };
    let more = flag(request, "more")?;
    let threshold = probability(request, "threshold")?.unwrap_or(service.threshold);
    let mut asked = service.read(request)?;
    let (model, data) = (asked.model.clone(), asked.take());
    let id = std::mem::take(&mut request.id);
    if !more && !open.contains_key(&id) {
        let answer = timed(service, &model, data, deadline).await?;
        return Ok(Some(asked.answer(id, &answer.logits, answer.times)));
    }
    let layer = match data {
        Data::Bytes(mut items) if items.len() == 1 && asked.input == "stream" => items.remove(0),
        _ => return Err(Status::invalid_argument("layers come as one element of the input stream")),
    };
    if !open.contains_key(&id) && open.len() >= OPEN {
        // The one that was not heard of for longest is not coming back.
        let oldest = open.iter().min_by_key(|(_, stream)| stream.touched).map(|(id, _)| id.clone());
        oldest.and_then(|id| open.remove(&id));
    }
    let begin = || Open { model, bytes: Vec::new(), layers: 0, answered: false, touched: 0 };
    let stream = open.entry(id.clone()).or_insert_with(begin);
    stream.touched = count;
    let model = stream.model.clone();
    asked.model = model.clone();
    if stream.answered {
        if !more {
            open.remove(&id);
        }
        return Ok(None);
    }
    stream.layers += 1;
    let most = service.bounds.layers / OPEN;
    if stream.bytes.len() + layer.len() > most || stream.layers > LAYERS {
        return Err(Status::invalid_argument(format!("more than {most} bytes or {LAYERS} layers in one stream")));
    }
    stream.bytes.extend_from_slice(&layer);
    let data = Data::Bytes(vec![stream.bytes.clone().into()]);
    let answer = timed(service, &model, data, deadline).await?;
    let confidence = answer.logits.iter().map(|row| confidence(row)).fold(1.0, f64::min);
    if more && confidence < threshold {
        let mut response = ModelInferResponse { model_name: model.name.clone(), id, ..Default::default() };
        set(&mut response, "more", ParameterChoice::BoolParam(true));
        set(&mut response, "confidence", ParameterChoice::DoubleParam(confidence));
        return Ok(Some(response));
    }
    let layers = stream.layers;
    if more {
        stream.answered = true;
        stream.bytes = Vec::new();
    } else {
        open.remove(&id);
    }
    service.metrics.layers.with_label_values(&[&model.name, &layers.to_string()]).inc();
    let mut response = asked.answer(id, &answer.logits, answer.times);
    set(&mut response, "layers", ParameterChoice::Int64Param(layers.into()));
    set(&mut response, "confidence", ParameterChoice::DoubleParam(confidence));
    Ok(Some(response))
}

async fn timed(service: &Service, model: &Arc<Model>, data: Data, deadline: Instant) -> Result<Answer, Status> {
    let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
    match tokio::time::timeout(left, service.run(model, data, deadline)).await {
        Ok(answer) => answer,
        Err(_) => Err(Status::deadline_exceeded("the answer was not ready in the time that there was")),
    }
}

fn choice<'a>(request: &'a ModelInferRequest, name: &str) -> Option<&'a ParameterChoice> {
    match request.parameters.get(name) {
        Some(InferParameter { parameter_choice }) => parameter_choice.as_ref(),
        None => None,
    }
}

fn flag(request: &ModelInferRequest, name: &str) -> Result<bool, Status> {
    match choice(request, name) {
        None => Ok(false),
        Some(ParameterChoice::BoolParam(value)) => Ok(*value),
        Some(_) => Err(Status::invalid_argument(format!("parameter {name} is not a bool_param"))),
    }
}

fn probability(request: &ModelInferRequest, name: &str) -> Result<Option<f64>, Status> {
    match choice(request, name) {
        None => Ok(None),
        Some(ParameterChoice::DoubleParam(value)) if (0.0..=1.0).contains(value) => Ok(Some(*value)),
        Some(_) => Err(Status::invalid_argument(format!("parameter {name} is not a double_param between 0 and 1"))),
    }
}
