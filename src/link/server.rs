//! A server of models.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use ndarray::{ArrayD, IxDyn};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Certificate, ServerTlsConfig};

use super::bounds::{Bounds, HEADERS, QUESTION};
use super::connections::{Connections, Guarded};
use super::door::{Door, Gate};
use super::http;
use super::metrics::Metrics;
use super::model::{Model, Models};
use super::pool::Pool;
use super::proto::grpc_inference_service_server::GrpcInferenceServiceServer;
use super::service::Service;
use crate::error::{Error, Result};

/// Time between pings on a connection, and for their answer.
const PING: Duration = Duration::from_secs(30);
/// Streams that a peer may open and reset before they have been looked at ("rapid reset").
const RESETS: usize = 32;

/// Certificate and key of a server, in PEM.
#[derive(Clone)]
pub struct Identity {
    /// Its certificate, and those that lead to the root.
    pub certificate: String,
    /// Its private key.
    pub key: String,
    /// Root of the clients' certificates; if it is there, they must have one.
    pub clients: Option<String>,
}

/// A server of models over gRPC.
pub struct Server {
    models: Models,
    bounds: Bounds,
    metrics: Metrics,
    identity: Option<Identity>,
    threshold: f64,
    ready: Arc<AtomicBool>,
}

impl Server {
    /// A server of these models within these bounds.
    ///
    /// # Errors
    /// `InvalidInput` if there is no model, two have one name, or a bound is 0.
    pub fn new(models: Vec<Model>, bounds: Bounds) -> Result<Server> {
        let positive = [
            ("message", bounds.message),
            ("batch", bounds.batch),
            ("requests", bounds.requests),
            ("queue", bounds.queue),
            ("workers", bounds.workers),
            ("calls", bounds.calls),
            ("layers", bounds.layers),
            ("connections", bounds.connections),
            ("streams", bounds.streams as usize),
        ];
        if let Some((name, _)) = positive.into_iter().find(|&(_, value)| value == 0) {
            return Err(Error::invalid(format!("a server with a bound of 0: {name}")));
        }
        if bounds.window < 65_535 {
            return Err(Error::invalid("a window below 65,535 bytes, which HTTP/2 begins with"));
        }
        Ok(Server {
            models: Models::new(models)?,
            bounds,
            metrics: Metrics::new()?,
            identity: None,
            threshold: 0.9,
            ready: Arc::default(),
        })
    }

    /// Serves over TLS.
    pub fn identity(mut self, identity: Identity) -> Self {
        self.identity = Some(identity);
        self
    }

    /// Probability at which a layered stream is answered before all layers have come, if its client names none. Default 0.9.
    pub fn threshold(mut self, threshold: f64) -> Self {
        self.threshold = threshold;
        self
    }

    /// Runs each model once on a full batch of zeros, so that the first request finds it warm and memory is what it will be.
    ///
    /// # Errors
    /// As [`Tail::run`](super::Tail::run).
    pub fn warm(&self) -> Result<()> {
        for model in self.models.iter() {
            let shape: Vec<usize> =
                std::iter::once(self.bounds.batch).chain(model.tail.shape().iter().copied()).collect();
            model.tail.run(&ArrayD::zeros(IxDyn(&shape)))?;
        }
        Ok(())
    }

    /// Bytes that connections and requests make it hold at most, see [`Bounds::memory`].
    pub fn memory(&self) -> u64 {
        self.bounds.memory(self.models.iter().map(|model| model.tail.classes()).max().unwrap_or(0))
    }

    /// The metrics as text, as /metrics has them.
    pub fn metrics(&self) -> impl Fn() -> String + Send + Sync + 'static {
        let metrics = self.metrics.clone();
        move || metrics.text()
    }

    /// Serves until `end`: then it is not ready any more, finishes what is in flight and returns.
    ///
    /// `metrics`, if there is one, is where /metrics, /livez and /readyz are answered over HTTP.
    ///
    /// # Errors
    /// `InvalidInput` if certificate and key cannot be used.
    pub async fn run(
        self,
        listener: TcpListener,
        metrics: Option<TcpListener>,
        end: impl Future<Output = ()> + Send,
    ) -> Result<()> {
        let Server { models, bounds, metrics: counts, identity, threshold, ready } = self;
        let mut builder = tonic::transport::Server::builder()
            .initial_stream_window_size(bounds.window)
            .initial_connection_window_size(bounds.window)
            .max_concurrent_streams(bounds.streams)
            .http2_max_header_list_size(HEADERS)
            .http2_max_pending_accept_reset_streams(Some(RESETS))
            .http2_keepalive_interval(Some(PING))
            .http2_keepalive_timeout(Some(bounds.stall));
        if let Some(identity) = identity {
            let pair = tonic::transport::Identity::from_pem(&identity.certificate, &identity.key);
            let mut config = ServerTlsConfig::new().identity(pair).timeout(bounds.first);
            if let Some(root) = identity.clients {
                config = config.client_ca_root(Certificate::from_pem(root));
            }
            let unusable = |error| Error::invalid(format!("certificate and key cannot be used: {}", causes(&error)));
            builder = builder.tls_config(config).map_err(unusable)?;
        }
        let connections = Connections::new(&bounds, &counts);
        let gate = Gate::new(&bounds, &counts);
        let (stop, stopped) = watch::channel(false);
        let service = Arc::new(Service {
            models,
            pool: Pool::start(&bounds, &counts),
            bounds: bounds.clone(),
            metrics: counts.clone(),
            gate: gate.clone(),
            ready: ready.clone(),
            ending: stopped.clone(),
            threshold,
        });
        let calls = |most| GrpcInferenceServiceServer::new(service.clone()).max_decoding_message_size(most);
        let door = Door::new([bounds.message, bounds.layers, QUESTION].map(calls), gate, &bounds, &counts);
        let side = metrics.map(|listener| tokio::spawn(http::serve(listener, counts.clone(), ready.clone())));
        ready.store(true, Relaxed);
        counts.ready.set(1);
        let ending = async {
            end.await;
            ready.store(false, Relaxed);
            counts.ready.set(0);
            tracing::info!(in_flight = counts.in_flight.get(), "ending");
            tokio::time::sleep(bounds.drain).await;
            connections.end();
        };
        let incoming = incoming(listener, connections.clone());
        let mut wait = stopped;
        let serving = builder.add_service(door).serve_with_incoming_shutdown(incoming, async move {
            let _ = wait.wait_for(|stop| *stop).await;
        });
        let finish = async {
            ending.await;
            let _ = stop.send(true);
            tokio::time::sleep(bounds.grace).await;
        };
        let served = tokio::select! {
            served = serving => served.map_err(|error| Error::Backend(causes(&error).into())),
            () = finish => {
                tracing::warn!(in_flight = counts.in_flight.get(), "some requests took longer than the time to end");
                Ok(())
            }
        };
        if let Some(side) = side {
            side.abort();
        }
        // The workers end with what they run, on a thread that may wait.
        let _ = tokio::task::spawn_blocking(move || drop(service)).await;
        tracing::info!("ended");
        served
    }
}

/// Connections as they come. The listener closes when the stream is dropped.
fn incoming(listener: TcpListener, connections: Arc<Connections>) -> ReceiverStream<std::io::Result<Guarded>> {
    let (sender, receiver) = tokio::sync::mpsc::channel(1);
    tokio::spawn(async move {
        loop {
            let socket = tokio::select! {
                socket = connections.accept(&listener) => socket,
                () = sender.closed() => return,
            };
            if sender.send(Ok(socket)).await.is_err() {
                return;
            }
        }
    });
    ReceiverStream::new(receiver)
}

/// An error with all that led to it.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text += &format!(": {cause}");
        source = cause.source();
    }
    text
}
