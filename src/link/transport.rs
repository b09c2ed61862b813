//! Connections under HTTP/2, with TLS or without: what one of them may hold in buffers, and how it is told that the server
//! ends.

use std::convert::Infallible;
use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};
use tonic::body::Body;

use super::bounds::{Bounds, HEADERS, PIECE};
use super::connections::{Connection, Connections, Guarded};
use super::door::Door;
use super::server::Identity;
use crate::error::{Error, Result};

/// Time between pings on a connection.
const PING: Duration = Duration::from_secs(30);
/// Streams that a peer may open and reset before they have been looked at ("rapid reset").
const RESETS: usize = 32;

/// How connections are served.
#[derive(Clone)]
pub(crate) struct Transport {
    http: http2::Builder<TokioExecutor>,
    tls: Option<TlsAcceptor>,
    handshake: Duration,
}

impl Transport {
    /// # Errors
    /// `InvalidInput` if certificate and key cannot be used.
    pub fn new(bounds: &Bounds, identity: Option<&Identity>) -> Result<Transport> {
        let mut http = http2::Builder::new(TokioExecutor::new());
        http.timer(TokioTimer::new())
            // One request whose message nobody reads leaves the others on its connection room.
            .initial_stream_window_size(bounds.window / 4)
            .initial_connection_window_size(bounds.window)
            .max_concurrent_streams(bounds.streams)
            .max_header_list_size(HEADERS)
            .max_send_buf_size(PIECE)
            .max_pending_accept_reset_streams(RESETS)
            .keep_alive_interval(PING)
            .keep_alive_timeout(bounds.stall);
        Ok(Transport { http, tls: identity.map(acceptor).transpose()?, handshake: bounds.first })
    }

    /// Serves connections until it is told to stop, and then until those that are open have ended.
    pub async fn run(
        &self,
        listener: TcpListener,
        connections: &Arc<Connections>,
        door: &Door,
        mut stop: watch::Receiver<bool>,
    ) {
        let mut open = JoinSet::new();
        loop {
            tokio::select! {
                biased;
                () = stopped(&mut stop) => break,
                Some(_) = open.join_next() => {}
                socket = connections.accept(&listener) => {
                    open.spawn(self.clone().serve(socket, door.clone(), stop.clone()));
                }
            }
        }
        drop(listener);
        while open.join_next().await.is_some() {}
    }

    async fn serve(self, socket: Guarded, door: Door, stop: watch::Receiver<bool>) {
        let connection = socket.connection().clone();
        let Some(tls) = &self.tls else { return self.speak(socket, connection, door, stop).await };
        match tokio::time::timeout(self.handshake, tls.accept(socket)).await {
            Ok(Ok(socket)) => self.speak(socket, connection, door, stop).await,
            Ok(Err(error)) => tracing::debug!(address = %connection.address, %error, "no TLS"),
            Err(_) => tracing::debug!(address = %connection.address, "no TLS in time"),
        }
    }

    async fn speak(
        &self,
        socket: impl AsyncRead + AsyncWrite + Unpin,
        connection: Arc<Connection>,
        door: Door,
        mut stop: watch::Receiver<bool>,
    ) {
        let address = connection.address;
        let service = service_fn(move |request: Request<Incoming>| {
            let (door, connection) = (door.clone(), connection.clone());
            async move { Ok::<_, Infallible>(door.answer(request.map(Body::new), &connection).await) }
        });
        let mut serving = std::pin::pin!(self.http.serve_connection(TokioIo::new(socket), service));
        let ended = tokio::select! {
            ended = serving.as_mut() => ended,
            () = stopped(&mut stop) => {
                // The peer is told to bring no more requests; those in flight are finished.
                serving.as_mut().graceful_shutdown();
                serving.await
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%address, %error, "a connection broke");
        }
    }
}

async fn stopped(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

fn acceptor(identity: &Identity) -> Result<TlsAcceptor> {
    let unusable = |error: &dyn Display| Error::invalid(format!("certificate and key cannot be used: {error}"));
    let provider = Arc::new(ring::default_provider());
    let chain = certificates(&identity.certificate).map_err(|error| unusable(&error))?;
    let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes()).map_err(|error| unusable(&error))?;
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| unusable(&error))?;
    let builder = match &identity.clients {
        None => builder.with_no_client_auth(),
        Some(clients) => {
            let mut roots = RootCertStore::empty();
            for root in certificates(clients).map_err(|error| unusable(&error))? {
                roots.add(root).map_err(|error| unusable(&error))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
            builder.with_client_cert_verifier(verifier.map_err(|error| unusable(&error))?)
        }
    };
    let mut config = builder.with_single_cert(chain, key).map_err(|error| unusable(&error))?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// The certificates in PEM; the error says what is wrong if there is none, or one is damaged.
pub(crate) fn certificates(pem: &str) -> std::result::Result<Vec<CertificateDer<'static>>, String> {
    let all = CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<std::result::Result<Vec<_>, _>>();
    match all {
        Ok(none) if none.is_empty() => Err("there is no certificate in the PEM".into()),
        Ok(all) => Ok(all),
        Err(error) => Err(error.to_string()),
    }
}
