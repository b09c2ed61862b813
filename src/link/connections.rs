//! Open connections: how many there are, how long they may idle, and which one gives way when all places are taken.
//!
//! A connection is guarded at its socket, below TLS and HTTP/2, so that nothing a peer sends or leaves out matters: it must
//! bring a request in time, and take what is sent to it: bytes at the socket, and answers, which HTTP/2 lets it hold off
//! while its socket takes all. When all places are taken, the connection that has brought none, or
//! that has idled longest, makes room for a new one; those with a request in flight stay.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, Sleep, sleep_until};
use tonic::transport::server::Connected;

use super::bounds::Bounds;
use super::metrics::Metrics;

/// Time in which idle connections end once the server does.
const LAST: Duration = Duration::from_millis(500);
/// Time after which a failed accept is tried again: most likely there are no file descriptors left.
const ACCEPT_AGAIN: Duration = Duration::from_millis(20);

/// All open connections of a server.
pub(crate) struct Connections {
    open: Mutex<HashMap<u64, Arc<Connection>>>,
    next: AtomicU64,
    epoch: Instant,
    ending: AtomicBool,
    bounds: Bounds,
    metrics: Metrics,
}

/// One open connection.
pub(crate) struct Connection {
    id: u64,
    /// Requests in flight.
    busy: AtomicUsize,
    /// Requests so far.
    requests: AtomicU64,
    /// When the last request ended, or the connection was opened, in milliseconds since the server began.
    since: AtomicU64,
    /// Set when it must give way.
    evicted: AtomicBool,
    /// Answers that the peer has not taken yet, and since when nothing of them.
    owed: Mutex<HashMap<u64, Instant>>,
    waker: Mutex<Option<Waker>>,
    table: Arc<Connections>,
}

impl Connections {
    pub fn new(bounds: &Bounds, metrics: &Metrics) -> Arc<Connections> {
        Arc::new(Connections {
            open: Mutex::default(),
            next: AtomicU64::new(0),
            epoch: Instant::now(),
            ending: AtomicBool::new(false),
            bounds: bounds.clone(),
            metrics: metrics.clone(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Arc<Connection>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> u64 {
        self.epoch.elapsed().as_millis() as u64
    }

    /// A place for a new connection, if there is one or one can be made.
    fn enter(self: &Arc<Self>) -> Option<Arc<Connection>> {
        let mut open = self.lock();
        if open.len() >= self.bounds.connections {
            let idle = open.values().filter(|connection| connection.busy.load(Relaxed) == 0);
            let Some(longest) =
                idle.min_by_key(|one| (one.requests.load(Relaxed) > 0, one.since.load(Relaxed))).cloned()
            else {
                self.metrics.closed.with_label_values(&["full"]).inc();
                return None;
            };
            // Its place is free at once; its socket closes when its task is woken.
            open.remove(&longest.id);
            longest.evicted.store(true, Relaxed);
            longest.wake();
            self.metrics.closed.with_label_values(&["evicted"]).inc();
        }
        let connection = Arc::new(Connection {
            id: self.next.fetch_add(1, Relaxed),
            busy: AtomicUsize::new(0),
            requests: AtomicU64::new(0),
            since: AtomicU64::new(self.now()),
            evicted: AtomicBool::new(false),
            owed: Mutex::default(),
            waker: Mutex::default(),
            table: self.clone(),
        });
        open.insert(connection.id, connection.clone());
        self.metrics.connections.set(open.len() as i64);
        Some(connection)
    }

    /// Lets idle connections end soon.
    pub fn end(&self) {
        self.ending.store(true, Relaxed);
        self.lock().values().for_each(|connection| connection.wake());
    }

    /// Accepts for ever.
    pub async fn accept(self: &Arc<Self>, listener: &TcpListener) -> Guarded {
        loop {
            match listener.accept().await {
                Ok((socket, peer)) => {
                    if let Some(connection) = self.enter() {
                        // It only makes answers late if it fails.
                        let _ = socket.set_nodelay(true);
                        return Guarded::new(socket, peer, connection);
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection was not accepted");
                    tokio::time::sleep(ACCEPT_AGAIN).await;
                }
            }
        }
    }
}

impl Connection {
    /// Marks a request in flight until the result is dropped.
    pub fn begin(self: &Arc<Self>) -> Busy {
        self.busy.fetch_add(1, Relaxed);
        self.requests.fetch_add(1, Relaxed);
        Busy(self.clone())
    }

    /// Marks an answer that the peer has to take, until the result is dropped.
    pub fn owes(self: &Arc<Self>) -> Owed {
        let id = self.table.next.fetch_add(1, Relaxed);
        self.owed().insert(id, Instant::now());
        Owed { id, connection: self.clone() }
    }

    /// Ends the connection: its peer does not take what is sent to it.
    pub fn cut(&self) {
        if !self.evicted.swap(true, Relaxed) {
            self.table.metrics.closed.with_label_values(&["stalled"]).inc();
        }
        self.wake();
    }

    fn owed(&self) -> MutexGuard<'_, HashMap<u64, Instant>> {
        self.owed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self) {
        if let Some(waker) = self.waker.lock().unwrap_or_else(PoisonError::into_inner).take() {
            waker.wake();
        }
    }

    /// When the connection has idled for too long.
    fn limit(&self) -> Instant {
        let bounds = &self.table.bounds;
        if self.busy.load(Relaxed) > 0 {
            return Instant::now() + bounds.idle;
        }
        let time = match self.requests.load(Relaxed) {
            _ if self.table.ending.load(Relaxed) => LAST.min(bounds.first),
            0 => bounds.first,
            _ => bounds.idle,
        };
        self.table.epoch + Duration::from_millis(self.since.load(Relaxed)) + time
    }
}

/// A request in flight on a connection.
pub(crate) struct Busy(Arc<Connection>);

impl Busy {
    /// The connection that the request came by.
    pub fn connection(&self) -> &Arc<Connection> {
        &self.0
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.since.store(self.0.table.now(), Relaxed);
        if self.0.busy.fetch_sub(1, Relaxed) == 1 {
            // The time from which it idles has changed.
            self.0.wake();
        }
    }
}

/// An answer that the peer has not taken yet.
pub(crate) struct Owed {
    id: u64,
    connection: Arc<Connection>,
}

impl Owed {
    /// Says that the peer has taken a part of it.
    pub fn taken(&self) {
        self.connection.owed().insert(self.id, Instant::now());
    }
}

impl Drop for Owed {
    fn drop(&mut self) {
        self.connection.owed().remove(&self.id);
    }
}

/// What requests know of the connection that they came by.
#[derive(Clone)]
pub(crate) struct Peer {
    pub address: SocketAddr,
    pub connection: Arc<Connection>,
}

/// A socket that ends when its time is over.
pub(crate) struct Guarded {
    socket: TcpStream,
    peer: Peer,
    timer: Pin<Box<Sleep>>,
    stalled: Option<Instant>,
}

impl Guarded {
    fn new(socket: TcpStream, address: SocketAddr, connection: Arc<Connection>) -> Guarded {
        let timer = Box::pin(sleep_until(connection.limit()));
        Guarded { socket, peer: Peer { address, connection }, timer, stalled: None }
    }

    /// An error if the connection has to end; otherwise its task is woken when that may be so.
    fn watch(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        let connection = &self.peer.connection;
        *connection.waker.lock().unwrap_or_else(PoisonError::into_inner) = Some(cx.waker().clone());
        loop {
            if connection.evicted.load(Relaxed) {
                return Err(io::Error::new(io::ErrorKind::ConnectionAborted, "another connection needs the place"));
            }
            let stalled = self.stalled.into_iter().chain(connection.owed().values().copied()).min();
            let stalled = stalled.map(|since| since + connection.table.bounds.stall);
            let limit = connection.limit();
            let limit = stalled.map_or(limit, |stalled| limit.min(stalled));
            if self.timer.deadline() != limit {
                self.timer.as_mut().reset(limit);
            }
            if self.timer.as_mut().poll(cx).is_pending() {
                return Ok(());
            }
            if limit <= Instant::now() {
                let reason = if stalled == Some(limit) { "stalled" } else { "idle" };
                connection.table.metrics.closed.with_label_values(&[reason]).inc();
                return Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    format!("the connection was {reason} for too long"),
                ));
            }
        }
    }

    fn written<T>(&mut self, cx: &mut Context<'_>, result: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        match result {
            Poll::Ready(result) => {
                self.stalled = None;
                Poll::Ready(result)
            }
            Poll::Pending => {
                self.stalled.get_or_insert_with(Instant::now);
                self.watch(cx)?;
                Poll::Pending
            }
        }
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        let table = &self.peer.connection.table;
        let mut open = table.lock();
        open.remove(&self.peer.connection.id);
        table.metrics.connections.set(open.len() as i64);
    }
}

impl Connected for Guarded {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl AsyncRead for Guarded {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        let Poll::Ready(result) = Pin::new(&mut this.socket).poll_read(cx, buffer) else {
            this.watch(cx)?;
            return Poll::Pending;
        };
        result?;
        let received = buffer.filled().len() - before;
        this.peer.connection.table.metrics.received.inc_by(received as u64);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Guarded {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let result = Pin::new(&mut this.socket).poll_write(cx, bytes);
        let sent = ready!(this.written(cx, result))?;
        this.peer.connection.table.metrics.sent.inc_by(sent as u64);
        Poll::Ready(Ok(sent))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let result = Pin::new(&mut this.socket).poll_flush(cx);
        this.written(cx, result)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let result = Pin::new(&mut this.socket).poll_shutdown(cx);
        this.written(cx, result)
    }
}
