//! Open connections: how many there are, how long they may idle, and which one gives way when all places are taken.
//!
//! A connection is guarded at its socket, below TLS and HTTP/2, so that nothing a peer sends or leaves out matters: it must
//! bring a request in time, and take what is sent to it: bytes at the socket, and answers, which HTTP/2 lets it hold off
//! while its socket takes all. When all places are taken, one that idles makes room for a new one: first those that have
//! brought nothing yet, then those of the address that has most. If none idles, one goes all of whose requests have
//! waited for their client for too long; an address that has fewer connections than another need not wait for that.
//! Those that the server is working for stay.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, Sleep, sleep_until};

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
    /// When the server began to end, in milliseconds since it began; `u64::MAX` before.
    ended: AtomicU64,
    bounds: Bounds,
    metrics: Metrics,
}

/// Whose a connection is, as far as its address says: an IPv6 network of 64 bits is one holder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Holder(IpAddr);

impl Holder {
    fn of(address: IpAddr) -> Holder {
        match address.to_canonical() {
            IpAddr::V6(address) => Holder(IpAddr::V6((address.to_bits() >> 64 << 64).into())),
            address => Holder(address),
        }
    }
}

/// One open connection.
pub(crate) struct Connection {
    pub id: u64,
    pub address: SocketAddr,
    pub holder: Holder,
    /// Requests in flight.
    busy: AtomicUsize,
    /// Those of them that do not wait for the client.
    working: AtomicUsize,
    /// True once it has brought a request, all of it.
    used: AtomicBool,
    /// When it last brought a request or took a part of an answer, or was opened, in milliseconds since the server began.
    since: AtomicU64,
    /// True if it has done so since it last was given time for a request that it begins.
    fresh: AtomicBool,
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
            ended: AtomicU64::new(u64::MAX),
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
    pub fn enter(self: &Arc<Self>, address: SocketAddr) -> Option<Arc<Connection>> {
        let holder = Holder::of(address.ip());
        let mut open = self.lock();
        if open.len() >= self.bounds.connections {
            let Some(victim) = self.victim(&open, holder) else {
                self.metrics.closed.with_label_values(&["full"]).inc();
                return None;
            };
            // Its place is free at once; its socket closes when its task is woken.
            open.remove(&victim.id);
            victim.evicted.store(true, Relaxed);
            victim.wake();
            self.metrics.closed.with_label_values(&["evicted"]).inc();
        }
        let connection = Arc::new(Connection {
            id: self.next.fetch_add(1, Relaxed),
            address,
            holder,
            busy: AtomicUsize::new(0),
            working: AtomicUsize::new(0),
            used: AtomicBool::new(false),
            since: AtomicU64::new(self.now()),
            fresh: AtomicBool::new(true),
            evicted: AtomicBool::new(false),
            owed: Mutex::default(),
            waker: Mutex::default(),
            table: self.clone(),
        });
        open.insert(connection.id, connection.clone());
        self.metrics.connections.set(open.len() as i64);
        Some(connection)
    }

    /// The connection that gives way to a new one of a holder, if one does.
    fn victim(&self, open: &HashMap<u64, Arc<Connection>>, holder: Holder) -> Option<Arc<Connection>> {
        let mut held: HashMap<Holder, usize> = HashMap::new();
        for connection in open.values() {
            *held.entry(connection.holder).or_default() += 1;
        }
        let most = |connection: &Connection| Reverse(held[&connection.holder]);
        let since = |connection: &Connection| connection.since.load(Relaxed);
        let idle = open.values().filter(|one| one.busy.load(Relaxed) == 0);
        let idle = idle.min_by_key(|one| (one.used.load(Relaxed), most(one), since(one)));
        let own = held.get(&holder).copied().unwrap_or(0);
        let late = self.now().checked_sub(self.bounds.patience.as_millis() as u64);
        let waiting = || {
            open.values()
                .filter(|one| one.working.load(Relaxed) == 0)
                .filter(|one| late.is_some_and(|late| since(one) <= late) || own + 1 < held[&one.holder])
                .min_by_key(|one| (most(one), since(one)))
        };
        idle.or_else(waiting).cloned()
    }

    /// Lets idle connections end soon.
    pub fn end(&self) {
        self.ended.store(self.now(), Relaxed);
        self.lock().values().for_each(|connection| connection.wake());
    }

    /// Accepts for ever.
    pub async fn accept(self: &Arc<Self>, listener: &TcpListener) -> Guarded {
        loop {
            match listener.accept().await {
                Ok((socket, peer)) => {
                    if let Some(connection) = self.enter(peer) {
                        // It only makes answers late if it fails.
                        let _ = socket.set_nodelay(true);
                        return Guarded::new(socket, connection);
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
        if self.busy.fetch_add(1, Relaxed) == 0 && self.fresh.swap(false, Relaxed) {
            // It has the time of patience for its message, but not again and again for requests that it only begins.
            self.since.store(self.table.now(), Relaxed);
        }
        Busy(self.clone())
    }

    /// Notes that the client has done its part: it brought a request, all of it, or took some of an answer.
    pub fn progress(&self) {
        self.since.store(self.table.now(), Relaxed);
        self.used.store(true, Relaxed);
        self.fresh.store(true, Relaxed);
    }

    /// Notes that the server has begun to work for a request on it, or ceased to.
    pub fn works(&self, works: bool) {
        match works {
            true => self.working.fetch_add(1, Relaxed),
            false => self.working.fetch_sub(1, Relaxed),
        };
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
        let since = self.since.load(Relaxed);
        let (since, time) = match self.table.ended.load(Relaxed) {
            u64::MAX if self.used.load(Relaxed) => (since, bounds.idle),
            u64::MAX => (since, bounds.first),
            ended => (since.max(ended), LAST.min(bounds.first)),
        };
        self.table.epoch + Duration::from_millis(since) + time
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

/// A socket that ends when its time is over.
pub(crate) struct Guarded {
    socket: TcpStream,
    connection: Arc<Connection>,
    timer: Pin<Box<Sleep>>,
    stalled: Option<Instant>,
}

impl Guarded {
    fn new(socket: TcpStream, connection: Arc<Connection>) -> Guarded {
        let timer = Box::pin(sleep_until(connection.limit()));
        Guarded { socket, connection, timer, stalled: None }
    }

    pub fn connection(&self) -> &Arc<Connection> {
        &self.connection
    }

    /// An error if the connection has to end; otherwise its task is woken when that may be so.
    fn watch(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        let connection = &self.connection;
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
        let table = &self.connection.table;
        let mut open = table.lock();
        open.remove(&self.connection.id);
        table.metrics.connections.set(open.len() as i64);
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
        this.connection.table.metrics.received.inc_by(received as u64);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Guarded {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let result = Pin::new(&mut this.socket).poll_write(cx, bytes);
        let sent = ready!(this.written(cx, result))?;
        this.connection.table.metrics.sent.inc_by(sent as u64);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Result;

    /// A table with places for three.
    fn table(patience: Duration) -> Result<Arc<Connections>> {
        Ok(Connections::new(&Bounds { connections: 3, patience, ..Bounds::default() }, &Metrics::new()?))
    }

    fn address(last: u8) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, last], 1))
    }

    const LONG: Duration = Duration::from_secs(3600);

    #[test]
    fn what_idles_gives_way_first_what_has_brought_nothing() {
        let table = table(LONG).unwrap();
        let [used, silent, other] = [1, 1, 2].map(|last| table.enter(address(last)).unwrap());
        used.progress();
        other.progress();
        // However long the others have idled.
        silent.since.store(1000, Relaxed);
        table.enter(address(3)).unwrap();
        assert!(silent.evicted.load(Relaxed) && !used.evicted.load(Relaxed) && !other.evicted.load(Relaxed));
    }

    #[test]
    fn the_address_that_has_most_gives_way_first() {
        let table = table(LONG).unwrap();
        let [other, first, second] = [2, 1, 1].map(|last| table.enter(address(last)).unwrap());
        other.since.store(0, Relaxed);
        [&first, &second, &other].iter().for_each(|one| one.used.store(true, Relaxed));
        first.since.store(1, Relaxed);
        second.since.store(2, Relaxed);
        table.enter(address(3)).unwrap();
        assert!(first.evicted.load(Relaxed) && !other.evicted.load(Relaxed));
    }

    #[test]
    fn requests_that_wait_for_their_client_hold_a_connection_for_so_long() {
        for (patience, gives) in [(LONG, false), (Duration::ZERO, true)] {
            let table = table(patience).unwrap();
            let open = [1, 1, 1].map(|last| table.enter(address(last)).unwrap());
            let _busy = open.each_ref().map(Connection::begin);
            // The server works for two of them; their own address cannot take the place of the third at once.
            open[0].works(true);
            open[1].works(true);
            assert_eq!(table.enter(address(1)).is_some(), gives);
            assert_eq!(open.each_ref().map(|one| one.evicted.load(Relaxed)), [false, false, gives]);
        }
    }

    #[test]
    fn an_address_that_has_fewer_does_not_wait_for_those_that_have_more() {
        let table = table(LONG).unwrap();
        let open = [1, 1, 1].map(|last| table.enter(address(last)).unwrap());
        let _busy = open.each_ref().map(Connection::begin);
        open[0].works(true);
        let two = table.enter(address(2)).unwrap();
        assert!(!open[0].evicted.load(Relaxed));
        // Two to one: a third address may have one too, and then all have the same.
        let _busy = two.begin();
        let three = table.enter(address(3)).unwrap();
        let _busy = three.begin();
        assert!(!two.evicted.load(Relaxed) && !open[0].evicted.load(Relaxed));
        assert!(table.enter(address(4)).is_none());
    }

    #[test]
    fn requests_that_are_only_begun_win_no_time() {
        let table = table(LONG).unwrap();
        let connection = table.enter(address(1)).unwrap();
        let began = |connection: &Arc<Connection>| {
            connection.since.store(u64::MAX, Relaxed);
            drop(connection.begin());
            connection.since.load(Relaxed) != u64::MAX
        };
        assert!(began(&connection) && !began(&connection));
        connection.progress();
        assert!(began(&connection) && !began(&connection));
    }

    #[test]
    fn networks_of_ipv6_are_one_holder() {
        let of = |text: &str| Holder::of(text.parse().unwrap());
        assert_eq!(of("2001:db8:0:1::1"), of("2001:db8:0:1:ffff::2"));
        assert_ne!(of("2001:db8:0:1::1"), of("2001:db8:0:2::1"));
        assert_eq!(of("::ffff:10.0.0.1"), of("10.0.0.1"));
        assert_ne!(of("10.0.0.1"), of("10.0.0.2"));
    }
}
