//! A streaming call, from the device's side: parts out, answers in.

use std::time::Duration;

use prost::Message;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tonic::{Code, Status, Streaming};

use super::client::Reply;
use super::proto::infer_parameter::ParameterChoice;
use super::proto::{ModelInferRequest, ModelInferResponse, ModelStreamInferResponse};
use super::tensors::Times;

/// An open streaming call to one of the replicas.
pub(crate) struct Call {
    pub replica: usize,
    pub sender: mpsc::Sender<ModelInferRequest>,
    pub responses: Streaming<ModelStreamInferResponse>,
}

impl Call {
    /// Sends messages until there is an answer. The next one is sent when the server asks for more, or has said nothing for
    /// so long.
    pub async fn answer(
        &mut self,
        messages: &[ModelInferRequest],
        patience: Duration,
    ) -> std::result::Result<Reply, Status> {
        let start = Instant::now();
        let (mut sent, mut bytes) = (0, 0);
        let answer = loop {
            if sent == 0 {
                bytes += self.send(&messages[sent])?;
                sent += 1;
            }
            let next = self.responses.message();
            let response = if sent < messages.len() {
                match tokio::time::timeout(patience, next).await {
                    Ok(response) => response,
                    Err(_) => {
                        bytes += self.send(&messages[sent])?;
                        sent += 1;
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
                return Err(said(&error));
            }
            if !response.outputs.is_empty() {
                break response;
            }
            if sent < messages.len() {
                bytes += self.send(&messages[sent])?;
                sent += 1;
            }
        };
        let seconds = start.elapsed().as_secs_f64();
        let layers = if messages.len() == 1 { 0 } else { sent };
        Ok(Reply { seconds, bytes, layers, ..reply(&answer)? })
    }

    fn send(&self, message: &ModelInferRequest) -> std::result::Result<usize, Status> {
        let bytes = message.encoded_len();
        self.sender.try_send(message.clone()).map_err(|_| Status::unavailable("the call has ended"))?;
        Ok(bytes)
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

/// The status in the error message of a stream, `CODE: what is wrong`.
fn said(text: &str) -> Status {
    let (code, message) = text.split_once(": ").unwrap_or(("", text));
    match code {
        "RESOURCE_EXHAUSTED" => Status::resource_exhausted(message),
        "UNAVAILABLE" => Status::unavailable(message),
        "DEADLINE_EXCEEDED" => Status::deadline_exceeded(message),
        "FAILED_PRECONDITION" => Status::failed_precondition(message),
        "NOT_FOUND" => Status::not_found(message),
        "INTERNAL" => Status::internal(message),
        _ => Status::invalid_argument(message),
    }
}

/// Reads scores and times out of a response.
pub(crate) fn reply(response: &ModelInferResponse) -> std::result::Result<Reply, Status> {
    let strange = |what: &str| Status::data_loss(format!("the server's answer is not understood: {what}"));
    let logits = response.outputs.iter().position(|output| output.name == "logits");
    let at = logits.ok_or_else(|| strange("it has no logits"))?;
    let tensor = &response.outputs[at];
    let values: Vec<f32> = match (response.raw_output_contents.get(at), &tensor.contents) {
        (Some(raw), _) => raw.as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect(),
        (None, Some(contents)) => contents.fp32_contents.clone(),
        (None, None) => return Err(strange("its logits have no data")),
    };
    let [rows, classes] = tensor.shape[..] else { return Err(strange("its logits have no two axes")) };
    let (rows, classes) = (usize::try_from(rows).unwrap_or(0), usize::try_from(classes).unwrap_or(0));
    if rows == 0 || classes == 0 || rows.checked_mul(classes) != Some(values.len()) {
        return Err(strange("its logits are not as many as their shape says"));
    }
    let seconds = |name: &str| match response.parameters.get(name).and_then(|value| value.parameter_choice.as_ref()) {
        Some(ParameterChoice::DoubleParam(seconds)) if *seconds >= 0.0 => *seconds,
        _ => 0.0,
    };
    Ok(Reply {
        logits: values.chunks(classes).map(<[f32]>::to_vec).collect(),
        times: Times { queue: seconds("queue"), decode: seconds("decode"), tail: seconds("tail") },
        attempts: 1,
        seconds: 0.0,
        bytes: 0,
        layers: 0,
    })
}
