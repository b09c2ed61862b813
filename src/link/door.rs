//! The door: what comes in is counted, has a place and a time, or is told to come again. An answer has a place too, until its
//! client has taken it.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::body::{Frame, SizeHint};
use prometheus::IntGauge;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tonic::body::Body;
use tonic::codegen::http::{HeaderMap, Request, Response};
use tonic::codegen::{BoxFuture, Bytes, Service};
use tonic::server::NamedService;
use tonic::transport::server::TlsConnectInfo;
use tonic::{Code, Status};

use super::bounds::Bounds;
use super::connections::{Busy, Connection, Owed, Peer};
use super::metrics::Metrics;
use super::retry::with_hint;

/// Time in which a place that was taken back is free.
const HANDOVER: Duration = Duration::from_millis(100);
/// So much before the deadline the answer that it has passed is sent.
const EARLY: Duration = Duration::from_millis(2);
/// Longest time that a client's own deadline is away.
const FAR: Duration = Duration::from_secs(365 * 24 * 3600);
/// Bytes of an answer that are given to HTTP/2 at once: that the next ones are asked for shows that the peer takes them.
const PIECE: usize = 4 << 10;

/// The places of a server: for requests, for answers, and for open streaming calls.
pub(crate) struct Gate {
    /// For requests that are being received, wait or run.
    pub requests: Places,
    /// For answers that are not taken yet.
    pub answers: Places,
    /// For streaming calls.
    pub calls: Places,
}

/// A number of places.
pub(crate) struct Places {
    free: Arc<Semaphore>,
    most: usize,
    taken: Mutex<Vec<Weak<Ticket>>>,
    /// Most time for a request; for a call as long as its client says.
    time: Option<Duration>,
    patience: Duration,
    count: IntGauge,
}

/// The place of one request or call.
pub(crate) struct Ticket {
    /// When its time is over.
    pub deadline: Instant,
    /// True if the request said so itself.
    pub has_deadline: bool,
    /// Since when the client is being waited for; `None` while it is not.
    waits: Mutex<Option<(Instant, For)>>,
    evicted: Notify,
    count: IntGauge,
    _place: OwnedSemaphorePermit,
    busy: Option<Busy>,
}

/// What a client is waited for.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum For {
    /// To send the rest of a message, or the next one.
    Message,
    /// To take an answer.
    Taking,
}

impl Ticket {
    /// Says what the client is waited for from now on, if for anything: such a request may lose its place.
    pub fn waits(&self, what: Option<For>) {
        *self.waits.lock().unwrap_or_else(PoisonError::into_inner) = what.map(|what| (Instant::now(), what));
    }

    fn waits_since(&self) -> Option<(Instant, For)> {
        *self.waits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The connection that the request came by.
    pub fn connection(&self) -> Option<Arc<Connection>> {
        self.busy.as_ref().map(|busy| busy.connection().clone())
    }

    /// Waits until the place is taken back; the status says why.
    pub async fn evicted(&self) -> Status {
        self.evicted.notified().await;
        with_hint(
            Status::resource_exhausted("the message came too slowly, and the place was needed: try again"),
            Duration::from_secs(1),
        )
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.count.dec();
    }
}

impl Gate {
    pub fn new(bounds: &Bounds, metrics: &Metrics) -> Arc<Gate> {
        let places = |most: usize, count: &IntGauge| Places {
            free: Arc::new(Semaphore::new(most)),
            most,
            taken: Mutex::default(),
            time: None,
            patience: bounds.patience,
            count: count.clone(),
        };
        let requests = Places { time: Some(bounds.request), ..places(bounds.requests, &metrics.in_flight) };
        // Most answers are taken at once: who takes none need not be waited for.
        let answers = Places { patience: Duration::ZERO, ..places(bounds.requests, &metrics.untaken) };
        Arc::new(Gate { requests, answers, calls: places(bounds.calls, &metrics.open_calls) })
    }
}

impl Places {
    /// A place; if there is none, that of the client which has been waited for longest, if for longer than patience allows.
    pub async fn enter(&self, timeout: Option<Duration>, busy: Option<Busy>) -> Result<Arc<Ticket>, Status> {
        let place = match self.free.clone().try_acquire_owned() {
            Ok(place) => Some(place),
            Err(_) if self.evict() => {
                let place = tokio::time::timeout(HANDOVER, self.free.clone().acquire_owned()).await;
                place.ok().and_then(Result::ok)
            }
            Err(_) => None,
        };
        let Some(place) = place else {
            let most = self.most;
            let status = Status::resource_exhausted(format!("{most} requests are in flight: try again later"));
            return Err(with_hint(status, Duration::from_millis(50)));
        };
        let now = Instant::now();
        let time = self.time.into_iter().chain(timeout).min().unwrap_or(FAR).min(FAR);
        let ticket = Arc::new(Ticket {
            deadline: now + time,
            has_deadline: timeout.is_some(),
            waits: Mutex::new(Some((now, For::Message))),
            evicted: Notify::new(),
            count: self.count.clone(),
            _place: place,
            busy,
        });
        self.count.inc();
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.retain(|ticket| ticket.strong_count() > 0);
        taken.push(Arc::downgrade(&ticket));
        Ok(ticket)
    }

    /// Takes a place back; true if there was one to take.
    fn evict(&self) -> bool {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let waiting = taken.iter().enumerate().filter_map(|(i, ticket)| {
            let ticket = ticket.upgrade()?;
            let (since, what) = ticket.waits_since()?;
            Some((since, what, i, ticket))
        });
        let longest = waiting.min_by_key(|(since, ..)| *since).filter(|(since, ..)| since.elapsed() >= self.patience);
        let Some((_, what, i, ticket)) = longest else { return false };
        taken.swap_remove(i);
        ticket.evicted.notify_one();
        // HTTP/2 keeps an answer until the peer takes it or its connection ends.
        if let (For::Taking, Some(connection)) = (what, ticket.connection()) {
            connection.cut();
        }
        true
    }
}

/// The body of an answer, which has a place and which its connection owes until the peer has taken it.
struct Answered {
    body: Body,
    /// What is left of a frame.
    rest: Bytes,
    owed: Option<Owed>,
    ticket: Arc<Ticket>,
}

impl Answered {
    fn body(body: Body, connection: Option<&Arc<Connection>>, ticket: Arc<Ticket>) -> Body {
        let answered = Answered { body, rest: Bytes::new(), owed: connection.map(Connection::owes), ticket };
        answered.progress();
        Body::new(answered)
    }

    fn progress(&self) {
        if let Some(owed) = &self.owed {
            owed.taken();
        }
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

/// A service behind a door.
#[derive(Clone)]
pub(crate) struct Door<S> {
    inner: S,
    streaming: S,
    questions: S,
    gate: Arc<Gate>,
    bounds: Arc<Bounds>,
    metrics: Metrics,
}

impl<S> Door<S> {
    /// A door before a service, and the same with other limits on messages for streaming calls and for questions.
    pub fn new([inner, streaming, questions]: [S; 3], gate: Arc<Gate>, bounds: &Bounds, metrics: &Metrics) -> Self {
        Door { inner, streaming, questions, gate, bounds: Arc::new(bounds.clone()), metrics: metrics.clone() }
    }
}

impl<S: NamedService> NamedService for Door<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<Request<Body>> for Door<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Response<Body>, Infallible>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let mut door = self.clone();
        // The service that is ready is the one that is called; the others are always ready.
        std::mem::swap(&mut door.inner, &mut self.inner);
        Box::pin(async move {
            let started = Instant::now();
            let method = method(request.uri().path());
            let address = peer(&request).map(|peer| peer.address);
            let response = match door.admitted(request, method).await {
                Ok(response) => told(response),
                Err(status) => status.into_http(),
            };
            let code = response.headers().get(Status::GRPC_STATUS);
            let code = code.map_or(Code::Ok, |code| Code::from_bytes(code.as_bytes()));
            if code != Code::Ok {
                tracing::debug!(?address, method, code = name(code), "not answered");
            }
            door.metrics.calls.with_label_values(&[method, name(code)]).inc();
            door.metrics.call_seconds.with_label_values(&[method]).observe(started.elapsed().as_secs_f64());
            Ok(response)
        })
    }
}

impl<S> Door<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
{
    /// Runs a request in its place and its time.
    async fn admitted(&mut self, mut request: Request<Body>, method: &str) -> Result<Response<Body>, Status> {
        let connection = peer(&request).map(|peer| peer.connection.clone());
        let busy = connection.as_ref().map(Connection::begin);
        let timeout = timeout(request.headers());
        let (ticket, service) = match method {
            "ModelInfer" => (self.gate.requests.enter(timeout, busy).await?, &mut self.inner),
            "ModelStreamInfer" => (self.gate.calls.enter(timeout, busy).await?, &mut self.streaming),
            _ => {
                // Questions and what is said to them are small, and they are answered when the server is full too.
                let time = timeout.unwrap_or(self.bounds.request).min(self.bounds.request);
                return match tokio::time::timeout(time, self.questions.call(request)).await {
                    Ok(response) => response.map_err(|never| match never {}),
                    Err(_) => Err(Status::deadline_exceeded("the request did not come in its time")),
                };
            }
        };
        request.extensions_mut().insert(ticket.clone());
        let time = ticket.deadline.checked_sub(EARLY).unwrap_or(ticket.deadline);
        let response: Response<Body> = tokio::select! {
            biased;
            response = service.call(request) => response.unwrap_or_else(|never| match never {}),
            status = ticket.evicted() => return Err(status),
            () = tokio::time::sleep_until(time) => {
                return Err(Status::deadline_exceeded("the answer was not ready in the time that there was"));
            }
        };
        // The answers of a streaming call are in the place of the call.
        if method != "ModelInfer" || response.headers().contains_key(Status::GRPC_STATUS) {
            return Ok(response);
        }
        let place = self.gate.answers.enter(None, connection.as_ref().map(Connection::begin)).await?;
        Ok(response.map(|body| Answered::body(body, connection.as_ref(), place)))
    }
}

/// The peer of a request, with TLS or without.
pub(crate) fn peer<T>(request: &Request<T>) -> Option<&Peer> {
    let extensions = request.extensions();
    extensions.get::<Peer>().or_else(|| Some(extensions.get::<TlsConnectInfo<Peer>>()?.get_ref()))
}

/// A message that was too large gets the code that gRPC has for it, and says what to do.
fn told(response: Response<Body>) -> Response<Body> {
    let Some(status) = Status::from_header_map(response.headers()) else { return response };
    match status.code() {
        Code::OutOfRange => too_large(&status).into_http(),
        _ => response,
    }
}

/// The status for a message that was too large, of the one that `tonic` has for it.
pub(crate) fn too_large(status: &Status) -> Status {
    Status::resource_exhausted(format!("{}: send fewer items at once", status.message()))
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
    const METHODS: [&str; 7] = [
        "ServerLive",
        "ServerReady",
        "ModelReady",
        "ServerMetadata",
        "ModelMetadata",
        "ModelInfer",
        "ModelStreamInfer",
    ];
    let name = path.rsplit('/').next().unwrap_or_default();
    METHODS.into_iter().find(|method| *method == name).unwrap_or("other")
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
        assert_eq!(method("/inference.GRPCInferenceService/../../x"), "other");
    }

    #[tokio::test]
    async fn a_slow_request_gives_its_place_to_another() {
        for (patience, gives) in [(Duration::from_secs(3600), false), (Duration::ZERO, true)] {
            let gate = Gate::new(&Bounds { requests: 2, patience, ..Bounds::default() }, &Metrics::new().unwrap());
            let gate = &gate.requests;
            let read = gate.enter(None, None).await.unwrap();
            read.waits(None);
            let slow = gate.enter(None, None).await.unwrap();
            let waits = tokio::spawn(async move {
                let status = slow.evicted().await;
                drop(slow);
                status
            });
            let third = gate.enter(None, None).await;
            assert_eq!(third.is_ok(), gives);
            assert_eq!(gate.count.get(), 2);
            let fourth = gate.enter(None, None).await;
            // The first has been read: it stays. The third is the slow one now, but nobody drops it here.
            assert_eq!(fourth.err().map(|status| status.code()), Some(Code::ResourceExhausted));
            if gives {
                assert_eq!(waits.await.unwrap().code(), Code::ResourceExhausted);
            }
        }
    }
}
