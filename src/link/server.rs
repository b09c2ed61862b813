//! A server of models.

use std::future::Future;
use std::sync::Arc;

use ndarray::{ArrayD, IxDyn};
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::bounds::Bounds;
use super::connections::Connections;
use super::door::Door;
use super::http;
use super::metrics::Metrics;
use super::model::{Model, Models};
use super::places::Gate;
use super::pool::Pool;
use super::service::Service;
use super::transport::Transport;
use crate::error::{Error, Result};

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
        Ok(Server { models: Models::new(models)?, bounds, metrics: Metrics::new()?, identity: None, threshold: 0.9 })
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
        for model in self.models.all() {
            let shape: Vec<usize> =
                std::iter::once(self.bounds.batch).chain(model.tail.shape().iter().copied()).collect();
            model.tail.run(&ArrayD::zeros(IxDyn(&shape)))?;
        }
        Ok(())
    }

    /// Bytes that connections and requests make it hold at most, see [`Bounds::memory`].
    pub fn memory(&self) -> u64 {
        self.bounds.memory(self.models.all().iter().map(|model| model.tail.classes()).max().unwrap_or(0))
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
    /// `InvalidInput` if certificate and key cannot be used, or the threshold is no probability.
    pub async fn run(
        self,
        listener: TcpListener,
        metrics: Option<TcpListener>,
        end: impl Future<Output = ()> + Send,
    ) -> Result<()> {
        let Server { models, bounds, metrics: counts, identity, threshold } = self;
        if !(0.0..=1.0).contains(&threshold) {
            return Err(Error::invalid(format!("threshold {threshold} is no probability")));
        }
        let transport = Transport::new(&bounds, identity.as_ref())?;
        let connections = Connections::new(&bounds, &counts);
        let (ready, readiness) = watch::channel(true);
        let (stop, stopped) = watch::channel(false);
        let service = Arc::new(Service {
            models,
            pool: Pool::start(&bounds, &counts),
            bounds: bounds.clone(),
            metrics: counts.clone(),
            gate: Gate::new(&bounds, &counts),
            ready: readiness.clone(),
            ending: stopped.clone(),
            threshold,
        });
        let door = Door::new(&service);
        let side = metrics.map(|listener| tokio::spawn(http::serve(listener, counts.clone(), readiness)));
        counts.ready.set(1);
        let ending = async {
            end.await;
            // The metrics may not be served, so that nobody listens.
            ready.send_replace(false);
            counts.ready.set(0);
            tracing::info!(in_flight = counts.in_flight.get(), "ending");
            tokio::time::sleep(bounds.drain).await;
            // First the word that no more is taken, then the time in which idle connections end.
            stop.send_replace(true);
            connections.end();
            tokio::time::sleep(bounds.grace).await;
        };
        tokio::select! {
            () = transport.run(listener, &connections, &door, stopped) => {}
            () = ending => {
                tracing::warn!(in_flight = counts.in_flight.get(), "some requests took longer than the time to end");
            }
        }
        drop(door);
        if let Some(side) = side {
            side.abort();
        }
        // The workers end with what they run, on a thread that may wait.
        let _ = tokio::task::spawn_blocking(move || drop(service)).await;
        tracing::info!("ended");
        Ok(())
    }
}
