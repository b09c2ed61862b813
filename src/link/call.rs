//! A streaming call, from the device's side: parts out, answers in.

use std::time::Duration;

use prost::Message;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tonic::{Code, Status, Streaming};

use super::client::Reply;
use super::door::code;
use super::named::Named;
use super::proto::infer_parameter::ParameterChoice;
use super::proto::{InferTensorContents, ModelInferRequest, ModelInferResponse, ModelStreamInferResponse};
use super::retry::hinted;
use super::tensors::{Output, Times, argmax};

/// An open streaming call to one of the replicas.
pub(crate) struct Call {
    pub replica: usize,
    pub sender: mpsc::Sender<ModelInferRequest>,
    pub responses: Streaming<ModelStreamInferResponse>,
    /// What the last message on it named.
    pub named: Option<Named>,
}

/// What has been sent of the messages of one stream.
pub(crate) struct Sent {
    start: Instant,
    messages: usize,
    bytes: usize,
    opened: bool,
}

impl Sent {
    /// Nothing yet, on a call that is open.
    pub fn none() -> Sent {
        Sent { start: Instant::now(), messages: 0, bytes: 0, opened: false }
    }

    /// Nothing yet, on a call that is being opened.
    pub fn opening() -> Sent {
        Sent { opened: true, ..Sent::none() }
    }

    /// Sends a message, without what was named before on its call.
    pub fn send(
        &mut self,
        sender: &mpsc::Sender<ModelInferRequest>,
        named: &mut Option<Named>,
        message: &ModelInferRequest,
    ) -> std::result::Result<(), Status> {
        let message = Named::shorten(named, message.clone());
        let bytes = message.encoded_len();
        sender.try_send(message).map_err(|_| Status::unavailable("the call has ended"))?;
        self.messages += 1;
        self.bytes += bytes;
        Ok(())
    }
}

impl Call {
    /// Sends the messages that are not sent yet, until there is an answer. The next one is sent when the server has asked
    /// for more after all that were sent, or has said nothing for so long.
    pub async fn answer(
        &mut self,
        messages: &[ModelInferRequest],
        mut sent: Sent,
        patience: Duration,
    ) -> std::result::Result<Reply, Status> {
        if sent.messages == 0 {
            sent.send(&self.sender, &mut self.named, &messages[0])?;
        }
        let mut heard = 0;
        let answer = loop {
            let next = self.responses.message();
            let response = if let Some(later) = messages.get(sent.messages) {
                match tokio::time::timeout(patience, next).await {
                    Ok(response) => response,
                    Err(_) => {
                        sent.send(&self.sender, &mut self.named, later)?;
                        continue;
                    }
                }
            } else {
                next.await
            };
            let response = response.map_err(broken)?;
            let response = response.ok_or_else(|| Status::unavailable("the call ended without an answer"))?;
            let (error, response) = (response.error_message, response.infer_response.unwrap_or_default());
            if response.id != messages[0].id {
                // Of a request that was given up.
                continue;
            }
            if !error.is_empty() {
                return Err(said(&error, &response));
            }
            if !response.outputs.is_empty() {
                break response;
            }
            heard += 1;
            // A word that comes late is on a layer after which another one is on its way already.
            if let (Some(later), true) = (messages.get(sent.messages), heard == sent.messages) {
                sent.send(&self.sender, &mut self.named, later)?;
            }
        };
        let seconds = sent.start.elapsed().as_secs_f64();
        let layers = if messages.len() == 1 { 0 } else { sent.messages };
        Ok(Reply { seconds, opened: sent.opened, bytes: sent.bytes, layers, ..reply(&answer)? })
    }
}

/// A call that breaks says nothing of the request that was on it: it may be tried again on another.
fn broken(status: Status) -> Status {
    match status.code() {
        Code::Cancelled | Code::DeadlineExceeded | Code::Internal | Code::Unknown => {
            Status::unavailable(format!("the call broke: {}", status.message()))
        }
        _ => status,
    }
}

/// Parameter of a response with an error: after how many milliseconds the request may be tried again, -1 for never. On a call
/// of its own it would be in the metadata.
pub(crate) const HINT: &str = "retry_pushback_ms";

/// The status in the error message of a stream, `CODE: what is wrong`, and in the parameters of its response.
fn said(text: &str, response: &ModelInferResponse) -> Status {
    let known = text.split_once(": ").and_then(|(name, message)| Some((code(name)?, message)));
    let (code, message) = known.unwrap_or((Code::Unknown, text));
    let status = Status::new(code, message);
    match response.parameters.get(HINT).and_then(|value| value.parameter_choice.as_ref()) {
        Some(ParameterChoice::Int64Param(milliseconds)) => hinted(status, *milliseconds),
        _ => status,
    }
}

/// Reads classes, scores and times out of a response.
pub(crate) fn reply(response: &ModelInferResponse) -> std::result::Result<Reply, Status> {
    let scores = values(response, Output::Logits, f32::from_le_bytes, |contents| contents.fp32_contents.clone())?;
    let logits: Vec<Vec<f32>> = match scores {
        None => Vec::new(),
        Some(Values { values, shape }) => match shape[..] {
            [_, classes] => values.chunks(classes).map(<[f32]>::to_vec).collect(),
            _ => return Err(strange("its logits have no two axes")),
        },
    };
    let classes = match values(response, Output::Class, i64::from_le_bytes, |contents| contents.int64_contents.clone())?
    {
        None if logits.is_empty() => return Err(strange("it has neither class nor logits")),
        None => logits.iter().map(|row| argmax(row)).collect(),
        Some(Values { values, .. }) => {
            let classes = values.into_iter().map(usize::try_from).collect::<std::result::Result<_, _>>();
            classes.map_err(|_| strange("it has a class below 0"))?
        }
    };
    let seconds = |name: &str| match response.parameters.get(name).and_then(|value| value.parameter_choice.as_ref()) {
        Some(ParameterChoice::DoubleParam(seconds)) if *seconds >= 0.0 => *seconds,
        _ => 0.0,
    };
    let times = Times { queue: seconds("queue"), decode: seconds("decode"), tail: seconds("tail") };
    let used = match response.parameters.get("layers").and_then(|value| value.parameter_choice.as_ref()) {
        Some(ParameterChoice::Int64Param(layers)) => usize::try_from(*layers).unwrap_or(0),
        _ => 0,
    };
    Ok(Reply { classes, logits, times, attempts: 1, seconds: 0.0, opened: false, bytes: 0, layers: 0, used })
}

/// The numbers of an output.
struct Values<T> {
    values: Vec<T>,
    shape: Vec<usize>,
}

/// The numbers of an output, raw or listed in its contents, as many as its shape says. None if the response
/// has no such output.
fn values<T, const N: usize>(
    response: &ModelInferResponse,
    output: Output,
    number: fn([u8; N]) -> T,
    listed: fn(&InferTensorContents) -> Vec<T>,
) -> std::result::Result<Option<Values<T>>, Status> {
    let name = output.name();
    let Some(at) = response.outputs.iter().position(|output| output.name == name) else { return Ok(None) };
    let tensor = &response.outputs[at];
    let values: Vec<T> = match (response.raw_output_contents.get(at), &tensor.contents) {
        (Some(raw), _) => raw.as_chunks().0.iter().map(|&bytes| number(bytes)).collect(),
        (None, Some(contents)) => listed(contents),
        (None, None) => return Err(strange(&format!("its {name} has no data"))),
    };
    let shape: Vec<usize> = tensor.shape.iter().map(|&size| usize::try_from(size).unwrap_or(0)).collect();
    let count = shape.iter().try_fold(1usize, |product, &size| product.checked_mul(size));
    match count {
        Some(count) if count > 0 && count == values.len() => Ok(Some(Values { values, shape })),
        _ => Err(strange(&format!("its {name} has {} values, its shape says {:?}", values.len(), tensor.shape))),
    }
}

fn strange(what: &str) -> Status {
    Status::data_loss(format!("the server's answer is not understood: {what}"))
}

#[cfg(test)]
mod tests {
    use super::super::proto::model_infer_response::InferOutputTensor;
    use super::*;

    fn tensor(name: &str, shape: &[i64]) -> InferOutputTensor {
        InferOutputTensor { name: name.into(), shape: shape.to_vec(), ..Default::default() }
    }

    #[test]
    fn an_error_on_a_call_is_what_it_would_be_without_one() {
        let mut response = ModelInferResponse::default();
        let status = said("UNIMPLEMENTED: not: yet", &response);
        assert_eq!((status.code(), status.message()), (Code::Unimplemented, "not: yet"));
        // Of a server that does not name codes.
        let status = said("in vain: no such model", &response);
        assert_eq!((status.code(), status.message()), (Code::Unknown, "in vain: no such model"));
        assert_eq!(super::super::retry::hint(&status), None);
        super::super::tensors::set(&mut response, HINT, ParameterChoice::Int64Param(700));
        let status = said("RESOURCE_EXHAUSTED: full", &response);
        assert_eq!((status.code(), super::super::retry::hint(&status)), (Code::ResourceExhausted, Some(700)));
    }

    #[test]
    fn classes_come_alone_or_from_scores() {
        let contents = |outputs| ModelInferResponse { outputs, ..Default::default() };
        let mut class = contents(vec![tensor("class", &[2])]);
        class.raw_output_contents = vec![[3i64, 0].iter().flat_map(|class| class.to_le_bytes()).collect()];
        let read = reply(&class).unwrap();
        assert_eq!((read.classes, read.logits.len()), (vec![3, 0], 0));

        let fp32_contents = vec![0.5, 2.0, 1.0, -1.0];
        let mut logits = contents(vec![tensor("logits", &[2, 2])]);
        logits.outputs[0].contents = Some(InferTensorContents { fp32_contents, ..Default::default() });
        let read = reply(&logits).unwrap();
        assert_eq!((read.classes, read.logits), (vec![1, 0], vec![vec![0.5, 2.0], vec![1.0, -1.0]]));

        for shape in [&[2, 3][..], &[4], &[0, 4], &[-2, -2], &[i64::MAX, 4]] {
            logits.outputs[0].shape = shape.to_vec();
            assert_eq!(reply(&logits).unwrap_err().code(), Code::DataLoss, "{shape:?}");
        }
        class.raw_output_contents[0] = (-1i64).to_le_bytes().to_vec().into();
        class.outputs[0].shape = vec![1];
        assert!(reply(&class).unwrap_err().message().contains("below 0"));
        assert!(reply(&contents(Vec::new())).unwrap_err().message().contains("neither"));
    }
}
