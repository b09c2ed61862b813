//! The door: what comes in is counted, has a place and a time, or is told to come again. An answer has a place too, until its
//! client has taken it.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::body::{Frame, SizeHint};
use tokio::time::Instant;
use tonic::body::Body;
use tonic::codegen::http::{HeaderMap, Request, Response};
use tonic::codegen::{Bytes, Service as _};
use tonic::{Code, Status};

use super::bounds::{Bounds, PIECE, QUESTION};
use super::connections::{Connection, Owed};
use super::metrics::Metrics;
use super::places::{For, Gate, Ticket};
use super::proto::grpc_inference_service_server::GrpcInferenceServiceServer;
use super::proto::health::health_server::HealthServer;
use super::retry::final_now;
use super::service::Service;

/// So much before the deadline the answer that it has passed is sent.
const EARLY: Duration = Duration::from_millis(2);

/// The body of an answer, which has a place and which its connection owes until the peer has taken it.
struct Answered {
    body: Body,
    /// What is left of a frame.
    rest: Bytes,
    owed: Owed,
    ticket: Arc<Ticket>,
}

impl Answered {
    fn body(body: Body, connection: &Arc<Connection>, ticket: Arc<Ticket>) -> Body {
        let answered = Answered { body, rest: Bytes::new(), owed: connection.owes(), ticket };
        answered.progress();
        Body::new(answered)
    }

    fn progress(&self) {
        self.owed.taken();
        self.ticket.waits(Some(For::Taking));
    }
}

impl hyper::body::Body for Answered {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.get_mut();
        this.progress();
        if this.rest.is_empty() {
            let Some(frame) = ready!(Pin::new(&mut this.body).poll_frame(cx)?) else { return Poll::Ready(None) };
            match frame.into_data() {
                Ok(data) => this.rest = data,
                Err(other) => return Poll::Ready(Some(Ok(other))),
            }
        }
        let piece = this.rest.split_to(this.rest.len().min(PIECE));
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

/// The service behind its door.
#[derive(Clone)]
pub(crate) struct Door {
    /// The same service with limits on messages: for requests, for streaming calls, and for questions.
    requests: GrpcInferenceServiceServer<Arc<Service>>,
    calls: GrpcInferenceServiceServer<Arc<Service>>,
    questions: GrpcInferenceServiceServer<Arc<Service>>,
    health: HealthServer<Arc<Service>>,
    gate: Arc<Gate>,
    bounds: Arc<Bounds>,
    metrics: Metrics,
}

impl Door {
    pub fn new(service: &Arc<Service>) -> Door {
        let [requests, calls, questions] = [service.bounds.message, service.bounds.layers, QUESTION]
            .map(|most| GrpcInferenceServiceServer::new(service.clone()).max_decoding_message_size(most));
        let health = HealthServer::new(service.clone()).max_decoding_message_size(QUESTION);
        let (gate, bounds, metrics) = (service.gate.clone(), service.bounds.clone().into(), service.metrics.clone());
        Door { requests, calls, questions, health, gate, bounds, metrics }
    }

    /// Answers a request that came by a connection.
    pub async fn answer(&self, request: Request<Body>, connection: &Arc<Connection>) -> Response<Body> {
        let started = Instant::now();
        let method = method(request.uri().path());
        let response = match self.admitted(request, method, connection).await {
            Ok(response) => told(response, method),
            Err(status) => status.into_http(),
        };
        let code = response.headers().get(Status::GRPC_STATUS);
        let code = code.map_or(Code::Ok, |code| Code::from_bytes(code.as_bytes()));
        if code != Code::Ok {
            tracing::debug!(address = %connection.address, method, code = name(code), "not answered");
        }
        self.metrics.calls.with_label_values(&[method, name(code)]).inc();
        self.metrics.call_seconds.with_label_values(&[method]).observe(started.elapsed().as_secs_f64());
        response
    }

    /// Runs a request in its place and its time.
    async fn admitted(
        &self,
        mut request: Request<Body>,
        method: &str,
        connection: &Arc<Connection>,
    ) -> Result<Response<Body>, Status> {
        let timeout = timeout(request.headers());
        let places = match method {
            "ModelInfer" => &self.gate.requests,
            "ModelStreamInfer" | "Watch" => &self.gate.calls,
            "other" => return Err(Status::unimplemented("no such method: see docs/serving.md")),
            _ => return self.asked(request, method, timeout, connection).await,
        };
        let ticket = places.enter(timeout, Some(connection.begin())).await?;
        request.extensions_mut().insert(ticket.clone());
        let time = ticket.deadline.checked_sub(EARLY).unwrap_or(ticket.deadline);
        let answer = async {
            match method {
                "ModelInfer" => self.requests.clone().call(request).await,
                "Watch" => self.health.clone().call(request).await,
                _ => self.calls.clone().call(request).await,
            }
        };
        let response: Response<Body> = tokio::select! {
            biased;
            response = answer => response.unwrap_or_else(|never| match never {}),
            status = ticket.evicted() => return Err(status),
            () = tokio::time::sleep_until(time) => {
                return Err(Status::deadline_exceeded("the answer was not ready in the time that there was"));
            }
        };
        // The answers of a streaming call are in the place of the call.
        if method != "ModelInfer" || response.headers().contains_key(Status::GRPC_STATUS) {
            return Ok(response);
        }
        let place = self.gate.answers.enter(None, Some(connection.begin())).await?;
        Ok(response.map(|body| Answered::body(body, connection, place)))
    }

    /// Answers a question. It and what is said to it are small, and it is answered when the server is full too; its
    /// message does not keep the connection from idling, and comes at once or not at all.
    async fn asked(
        &self,
        request: Request<Body>,
        method: &str,
        timeout: Option<Duration>,
        connection: &Arc<Connection>,
    ) -> Result<Response<Body>, Status> {
        let time = timeout.unwrap_or(self.bounds.patience).min(self.bounds.patience);
        let answer = async {
            match method {
                "Check" => self.health.clone().call(request).await,
                _ => self.questions.clone().call(request).await,
            }
        };
        match tokio::time::timeout(time, answer).await {
            Ok(response) => {
                connection.progress();
                response.map_err(|never| match never {})
            }
            Err(_) => Err(Status::deadline_exceeded("the request did not come in its time")),
        }
    }
}

/// A message that was too large gets the code that gRPC has for it, and says what to do.
fn told(response: Response<Body>, method: &str) -> Response<Body> {
    let Some(status) = Status::from_header_map(response.headers()) else { return response };
    match status.code() {
        Code::OutOfRange => match method {
            "ModelInfer" => too_large(&status, "send fewer items at once, or serve with a larger --max-message"),
            _ => too_large(&status, "questions are short"),
        }
        .into_http(),
        _ => response,
    }
}

/// The status for a message that was too large, of the one that `tonic` has for it: it will be so the next time too.
pub(crate) fn too_large(status: &Status, advice: &str) -> Status {
    final_now(Status::resource_exhausted(format!("{}: {advice}", status.message())))
}

/// The time that a client gives, in the header of gRPC's protocol.
fn timeout(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get("grpc-timeout")?.to_str().ok()?;
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let number: u64 = number.parse().ok().filter(|_| number.len() <= 8)?;
    Some(match unit {
        "H" => Duration::from_secs(3600 * number),
        "M" => Duration::from_secs(60 * number),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    })
}

/// The method in a path, if it is one of ours: what strangers write is no label of a metric.
fn method(path: &str) -> &'static str {
    const HEALTH: [&str; 2] = ["Check", "Watch"];
    const METHODS: [&str; 7] = [
        "ServerLive",
        "ServerReady",
        "ModelReady",
        "ServerMetadata",
        "ModelMetadata",
        "ModelInfer",
        "ModelStreamInfer",
    ];
    let method = match path.strip_prefix('/').and_then(|path| path.split_once('/')) {
        Some(("inference.GRPCInferenceService", name)) => METHODS.into_iter().find(|method| *method == name),
        Some(("grpc.health.v1.Health", name)) => HEALTH.into_iter().find(|method| *method == name),
        _ => None,
    };
    method.unwrap_or("other")
}

/// The name of a code, as gRPC's documents have it.
pub(crate) fn name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

/// The code of a name: the inverse of [`name`].
pub(crate) fn code(text: &str) -> Option<Code> {
    (0..=16).map(Code::from_i32).find(|code| name(*code) == text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_are_read_as_the_protocol_has_them() {
        let timeout =
            |text: &str| timeout(&[("grpc-timeout".parse().unwrap(), text.parse().unwrap())].into_iter().collect());
        assert_eq!(timeout("150m"), Some(Duration::from_millis(150)));
        assert_eq!(timeout("2S"), Some(Duration::from_secs(2)));
        assert_eq!(timeout("99999999H"), Some(Duration::from_secs(99_999_999 * 3600)));
        for bad in ["", "m", "1", "1x", "-1m", "123456789n", "1 m"] {
            assert_eq!(timeout(bad), None, "{bad}");
        }
    }

    #[test]
    fn labels_are_our_own() {
        assert_eq!(method("/inference.GRPCInferenceService/ModelInfer"), "ModelInfer");
        assert_eq!(method("/grpc.health.v1.Health/Watch"), "Watch");
        for other in
            ["/inference.GRPCInferenceService/../../x", "/x/ModelInfer", "/grpc.health.v1.Health/ModelInfer", "", "/"]
        {
            assert_eq!(method(other), "other", "{other}");
        }
    }

    #[test]
    fn codes_have_names() {
        for i in 0..=16 {
            assert_eq!(code(name(Code::from_i32(i))), Some(Code::from_i32(i)));
        }
        assert_eq!(code("RESOURCE EXHAUSTED"), None);
    }
}
