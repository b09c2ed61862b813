//! Requests one after the other on one call, and the layers of one stream. What they have in common is [named](super::named)
//! once.
//!
//! A message with the parameter `more` brings a layer of a stream, the bytes of its only `stream` element being appended to what
//! came before under the same id: with true more may come, with false it is the last one. After each layer the server answers
//! from what it has: if the most probable class has at least the probability in the parameter `threshold`, or no more is to
//! come, that is the answer, with the number of layers in its parameter `layers`; else the response has no outputs, its
//! parameter `more` is true, and `confidence` says what the probability was. A device that has its answer sends no more
//! layers; those that were on their way are passed over, until a stream begins anew under the same id.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::codegen::Bytes;
use tonic::{Code, Status, Streaming};

use super::bounds::ID;
use super::call::HINT;
use super::connections::Connection;
use super::door::{name, too_large};
use super::model::{Model, VERSION};
use super::named::Named;
use super::places::{For, Ticket};
use super::pool::Answer;
use super::proto::infer_parameter::ParameterChoice;
use super::proto::{InferParameter, ModelInferRequest, ModelInferResponse, ModelStreamInferResponse};
use super::retry::{final_now, hint};
use super::service::Service;
use super::tensors::{Data, confidence, set};
use crate::container::{Info, MAX_LAYERS};

/// Streams that may be incomplete at the same time on one call.
const OPEN: usize = 4;
/// Mistakes, one after the other, that end a call: who makes them learns nothing from the next one.
const MISTAKES: u32 = 16;

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
        let code = end.as_ref().err().map_or(Code::Ok, Status::code);
        service.metrics.ended.with_label_values(&[name(code)]).inc();
        let Err(status) = end else { return };
        // The place is free for another; the last word need not be taken at once, but what came before it was waited for too.
        let waited = match ticket.waits_since() {
            Some((since, For::Taking)) => since.elapsed(),
            _ => Duration::ZERO,
        };
        let connection = ticket.connection().cloned();
        drop(ticket);
        let left = service.bounds.stall.saturating_sub(waited);
        let told = tokio::time::timeout(left, sender.send(Err(status))).await;
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
    bytes: Bytes,
    layers: usize,
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
    let mut mistakes = 0;
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
        // What is kept and repeated of an id has a bound; with a longer one the request is refused.
        let id = request.id[..request.id.floor_char_boundary(ID)].to_string();
        let answered = answer(service, &mut request, &mut open, count, ticket).await;
        mistakes = match &answered {
            Err(status) if is_mistake(status.code()) => mistakes + 1,
            _ => 0,
        };
        let response = match answered {
            Ok(None) => continue,
            Ok(Some(response)) => ModelStreamInferResponse { infer_response: Some(response), ..Default::default() },
            Err(status) if mistakes == MISTAKES => {
                let text = format!("{MISTAKES} mistakes one after the other; the last: {}", status.message());
                return Err(Status::new(status.code(), text));
            }
            Err(status) => {
                open.remove(&id);
                let mut response = ModelInferResponse { id, ..Default::default() };
                if let Some(milliseconds) = hint(&status) {
                    set(&mut response, HINT, ParameterChoice::Int64Param(milliseconds));
                }
                ModelStreamInferResponse {
                    error_message: format!("{}: {}", name(status.code()), status.message()),
                    infer_response: Some(response),
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
        Code::OutOfRange => too_large(&status, TOO_LARGE),
        // The call was reset, or its connection broke.
        _ if std::error::Error::source(&status).is_some() => gone(),
        _ => status,
    }
}

/// What to do about a stream that is too large for a streaming call.
const TOO_LARGE: &str = "send it on a call of its own (ModelInfer), or serve with a larger --max-call-message";

/// Whether a request was refused for what it is.
fn is_mistake(code: Code) -> bool {
    matches!(code, Code::InvalidArgument | Code::NotFound | Code::FailedPrecondition | Code::Unimplemented)
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
    let place = service.gate.requests.enter(None, ticket.connection().map(Connection::begin)).await?;
    place.waits(None);
    let deadline = if ticket.has_deadline { place.deadline.min(ticket.deadline) } else { place.deadline };
    let more = flag(request, "more")?;
    let threshold = probability(request, "threshold")?.unwrap_or(service.threshold);
    let mut asked = service.read(request)?;
    let (model, data) = (asked.model.clone(), asked.take());
    let id = std::mem::take(&mut request.id);
    // A request without `more` is whole, whatever came before under its id.
    let Some(more) = more else {
        let answer = timed(service, &model, data, deadline).await?;
        return Ok(Some(asked.answer(id, &answer.logits, answer.times)));
    };
    if id.is_empty() {
        return Err(Status::invalid_argument("a layer without an id: the layers of a stream have one of their own"));
    }
    let layer = match data {
        Data::Bytes(mut items) if items.len() == 1 && asked.input == "stream" => items.remove(0),
        _ => return Err(Status::invalid_argument("layers come as one element of the input stream")),
    };
    if open.get(&id).is_some_and(|stream| stream.answered) {
        let begins_anew = Info::read(&layer).is_ok();
        if begins_anew || !more {
            open.remove(&id);
        }
        if !begins_anew {
            return Ok(None);
        }
    }
    let most = service.bounds.layers;
    let own = open.get(&id).map_or(0, |stream| stream.bytes.len());
    if own + layer.len() > most {
        let status = Status::resource_exhausted(format!("more than {most} bytes of layers on one call: {TOO_LARGE}"));
        return Err(final_now(status));
    }
    make_room(open, &id, most - layer.len());
    let begin = || Open { model, bytes: Bytes::new(), layers: 0, answered: false, touched: 0 };
    let stream = open.entry(id.clone()).or_insert_with(begin);
    stream.touched = count;
    stream.layers += 1;
    if stream.layers > MAX_LAYERS {
        return Err(Status::invalid_argument(format!("more than {MAX_LAYERS} layers in one stream")));
    }
    let model = stream.model.clone();
    asked.model = model.clone();
    // A copy: the layer itself is a part of its message, all of which it would keep. The worker reads the same one.
    stream.bytes = [&stream.bytes[..], &layer].concat().into();
    let data = Data::Bytes(vec![stream.bytes.clone()]);
    let answer = timed(service, &model, data, deadline).await?;
    let confidence = answer.logits.iter().map(|row| confidence(row)).fold(1.0, f64::min);
    if more && confidence < threshold {
        let (model_name, model_version) = (model.name.clone(), VERSION.into());
        let mut response = ModelInferResponse { model_name, model_version, id, ..Default::default() };
        set(&mut response, "more", ParameterChoice::BoolParam(true));
        set(&mut response, "confidence", ParameterChoice::DoubleParam(confidence));
        return Ok(Some(response));
    }
    let layers = stream.layers;
    if more {
        stream.answered = true;
        stream.bytes = Bytes::new();
    } else {
        open.remove(&id);
    }
    service.metrics.layers.with_label_values(&[&model.name, &layers.to_string()]).inc();
    let mut response = asked.answer(id, &answer.logits, answer.times);
    set(&mut response, "layers", ParameterChoice::Int64Param(layers as i64));
    set(&mut response, "confidence", ParameterChoice::DoubleParam(confidence));
    Ok(Some(response))
}

/// Forgets streams that are not coming back, those that were not heard of for longest, until one more fits, or one more
/// layer of one of them, beside so many bytes.
fn make_room(open: &mut HashMap<String, Open>, id: &str, most: usize) {
    loop {
        let bytes: usize = open.values().map(|stream| stream.bytes.len()).sum();
        if bytes <= most && (open.len() < OPEN || open.contains_key(id)) {
            return;
        }
        let others = open.iter().filter(|(other, _)| *other != id);
        let Some(oldest) = others.min_by_key(|(_, stream)| stream.touched).map(|(id, _)| id.clone()) else { return };
        open.remove(&oldest);
    }
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

fn flag(request: &ModelInferRequest, name: &str) -> Result<Option<bool>, Status> {
    match choice(request, name) {
        None => Ok(None),
        Some(ParameterChoice::BoolParam(value)) => Ok(Some(*value)),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::model::tests::none;

    #[test]
    fn streams_that_are_not_coming_back_make_room() {
        let stream = |touched: u64, bytes: usize| {
            let (model, bytes) = (Arc::new(none()), vec![0; bytes].into());
            (touched.to_string(), Open { model, bytes, layers: 1, answered: false, touched })
        };
        let left = |id: &str, most: usize, streams: &[(u64, usize)]| {
            let mut open: HashMap<_, _> = streams.iter().map(|&(touched, bytes)| stream(touched, bytes)).collect();
            make_room(&mut open, id, most);
            let mut left: Vec<u64> = open.values().map(|stream| stream.touched).collect();
            left.sort_unstable();
            left
        };
        let four = [(1, 10), (2, 10), (3, 10), (4, 10)];
        assert_eq!(left("5", 100, &four), [2, 3, 4]);
        assert_eq!(left("1", 100, &four), [1, 2, 3, 4]);
        assert_eq!(left("1", 25, &four), [1, 4]);
        assert_eq!(left("5", 0, &four), [0; 0]);
        assert_eq!(left("5", 30, &four[..3]), [1, 2, 3]);
    }
}
