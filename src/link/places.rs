//! Places for requests, answers and streaming calls: who has one, and who gives it to another when all are taken.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use prometheus::IntGauge;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tonic::Status;

use super::bounds::Bounds;
use super::connections::{Busy, Connection, Holder};
use super::metrics::Metrics;
use super::retry::with_hint;

/// Time in which a place that was taken back is free.
const HANDOVER: Duration = Duration::from_millis(100);
/// Time after which one that has lost its place may come again.
const COME_AGAIN: Duration = Duration::from_millis(200);
/// Longest time that a client's own deadline is away.
const FAR: Duration = Duration::from_secs(365 * 24 * 3600);

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
    words: Words,
    taken: Mutex<Vec<Weak<Ticket>>>,
    /// Most time for a request; for a call as long as its client says.
    time: Option<Duration>,
    patience: Duration,
    count: IntGauge,
}

/// What is said of places.
#[derive(Clone, Copy)]
struct Words {
    /// Of so many that are taken: all of them.
    taken: &'static str,
    /// Why one was taken back.
    lost: &'static str,
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
    lost: &'static str,
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
        let mut waits = self.waits.lock().unwrap_or_else(PoisonError::into_inner);
        let before = waits.map(|(_, what)| what);
        *waits = what.map(|what| (Instant::now(), what));
        let Some(busy) = &self.busy else { return };
        let connection = busy.connection();
        if before.is_none() != what.is_none() {
            connection.works(what.is_none());
        }
        // That a message is waited for is no progress, unless one was read before.
        if before.is_none() || what != Some(For::Message) {
            connection.progress();
        }
    }

    /// Since when the client is being waited for, and for what.
    pub fn waits_since(&self) -> Option<(Instant, For)> {
        *self.waits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The connection that the request came by.
    pub fn connection(&self) -> Option<&Arc<Connection>> {
        self.busy.as_ref().map(Busy::connection)
    }

    /// Ends the connection: its peer does not take what is sent to it.
    pub fn cut(&self) {
        if let Some(connection) = self.connection() {
            connection.cut();
        }
    }

    /// Waits until the place is taken back; the status says why.
    pub async fn evicted(&self) -> Status {
        self.evicted.notified().await;
        with_hint(Status::resource_exhausted(format!("{}: try again", self.lost)), COME_AGAIN)
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        // Its work is done, however it was.
        if self.waits_since().is_none() {
            self.waits(Some(For::Taking));
        }
        self.count.dec();
    }
}

impl Gate {
    pub fn new(bounds: &Bounds, metrics: &Metrics) -> Arc<Gate> {
        let places = |most: usize, count: &IntGauge, words: Words| Places {
            free: Arc::new(Semaphore::new(most)),
            most,
            words,
            taken: Mutex::default(),
            time: None,
            patience: bounds.patience,
            count: count.clone(),
        };
        let requests =
            Words { taken: "requests are in flight", lost: "the message came too slowly, and its place was needed" };
        let answers = Words { taken: "answers are not taken yet", lost: "the answer was not taken" };
        let calls = Words {
            taken: "streaming calls are open",
            lost: "no message came on the call for a while, and its place was needed",
        };
        let requests = Places { time: Some(bounds.request), ..places(bounds.requests, &metrics.in_flight, requests) };
        // Most answers are taken at once: who takes none need not be waited for.
        let answers = Places { patience: Duration::ZERO, ..places(bounds.requests, &metrics.untaken, answers) };
        Arc::new(Gate { requests, answers, calls: places(bounds.calls, &metrics.open_calls, calls) })
    }
}

impl Places {
    /// A place; if there is none, that of a client which has been waited for longer than patience allows, or which has
    /// more places than this one. It begins with being waited for.
    pub async fn enter(&self, timeout: Option<Duration>, busy: Option<Busy>) -> Result<Arc<Ticket>, Status> {
        let place = match self.free.clone().try_acquire_owned() {
            Ok(place) => Some(place),
            Err(_) if self.evict(busy.as_ref().map(Busy::connection)) => {
                let place = tokio::time::timeout(HANDOVER, self.free.clone().acquire_owned()).await;
                place.ok().and_then(Result::ok)
            }
            Err(_) => None,
        };
        let Some(place) = place else {
            let status = Status::resource_exhausted(format!("{} {}: try again later", self.most, self.words.taken));
            return Err(with_hint(status, Duration::from_millis(50)));
        };
        let now = Instant::now();
        let time = self.time.into_iter().chain(timeout).min().unwrap_or(FAR).min(FAR);
        let ticket = Arc::new(Ticket {
            deadline: now + time,
            has_deadline: timeout.is_some(),
            waits: Mutex::new(Some((now, For::Message))),
            evicted: Notify::new(),
            lost: self.words.lost,
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

    /// Takes a place back for a client; true if there was one to take.
    fn evict(&self, newcomer: Option<&Arc<Connection>>) -> bool {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let all: Vec<(usize, Arc<Ticket>)> =
            taken.iter().enumerate().filter_map(|(i, ticket)| Some((i, ticket.upgrade()?))).collect();
        let shares = Shares::of(all.iter().filter_map(|(_, ticket)| ticket.connection()));
        let waiting = all.iter().filter_map(|(i, ticket)| {
            let (since, what) = ticket.waits_since()?;
            let owner = ticket.connection();
            let late = since.elapsed() >= self.patience;
            (late || shares.unfair(newcomer, owner)).then(|| (shares.of_both(owner), since, what, *i, ticket))
        });
        let Some((.., what, i, ticket)) = waiting.min_by_key(|(share, since, ..)| (Reverse(*share), *since)) else {
            return false;
        };
        taken.swap_remove(i);
        ticket.evicted.notify_one();
        // HTTP/2 keeps an answer until the peer takes it or its connection ends.
        if what == For::Taking {
            ticket.cut();
        }
        true
    }
}

/// How many places each address and each connection has.
#[derive(Default)]
struct Shares {
    holders: HashMap<Holder, usize>,
    connections: HashMap<u64, usize>,
}

impl Shares {
    fn of<'a>(connections: impl Iterator<Item = &'a Arc<Connection>>) -> Shares {
        let mut shares = Shares::default();
        for connection in connections {
            *shares.holders.entry(connection.holder).or_default() += 1;
            *shares.connections.entry(connection.id).or_default() += 1;
        }
        shares
    }

    /// Those of an address, and of a connection.
    fn of_both(&self, connection: Option<&Arc<Connection>>) -> (usize, usize) {
        let of = |connection: &Arc<Connection>| {
            let holder = self.holders.get(&connection.holder);
            (holder.copied().unwrap_or(0), self.connections.get(&connection.id).copied().unwrap_or(0))
        };
        connection.map_or((0, 0), of)
    }

    /// Whether one that comes would still have fewer places than the owner of one: as an address, or as a connection of
    /// an address that has no more.
    fn unfair(&self, newcomer: Option<&Arc<Connection>>, owner: Option<&Arc<Connection>>) -> bool {
        let ((address, connection), (most, longest)) = (self.of_both(newcomer), self.of_both(owner));
        newcomer.is_some() && (address + 1 < most || address <= most && connection + 1 < longest)
    }
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;
    use crate::link::connections::Connections;

    #[tokio::test]
    async fn one_connection_does_not_hold_all_calls() {
        let bounds = Bounds { calls: 4, patience: Duration::from_secs(3600), ..Bounds::default() };
        let metrics = Metrics::new().unwrap();
        let gate = Gate::new(&bounds, &metrics);
        let connections = Connections::new(&bounds, &metrics);
        let open = |last: u8| connections.enter(([127, 0, 0, last], 1).into()).unwrap();
        let (greedy, other) = (open(1), open(1));
        let mut waiting = Vec::new();
        let mut all = Vec::new();
        for _ in 0..4 {
            let call = gate.calls.enter(None, Some(greedy.begin())).await.unwrap();
            all.push(Arc::downgrade(&call));
            waiting.push(tokio::spawn(async move {
                let status = call.evicted().await;
                drop(call);
                status
            }));
        }
        // It gives to the other connection of its address until both have two.
        let mut held = Vec::new();
        for given in [true, true, false] {
            let call = gate.calls.enter(None, Some(other.begin())).await;
            match &call {
                Ok(_) => assert!(given),
                Err(status) => {
                    assert!(!given && status.message().starts_with("4 streaming calls are open"), "{status}")
                }
            }
            held.extend(call);
        }
        assert_eq!(all.iter().filter(|call| call.strong_count() > 0).count(), 2);
        // And another address has its first one: from the connection of the two that have most, both having two.
        held.iter().for_each(|call| call.waits(None));
        gate.calls.enter(None, Some(open(2).begin())).await.unwrap();
        assert_eq!(all.iter().filter(|call| call.strong_count() > 0).count(), 1);
        // What the server works for stays.
        all.iter().filter_map(Weak::upgrade).for_each(|call| call.waits(None));
        let status = gate.calls.enter(None, Some(open(3).begin())).await.err();
        assert!(status.is_none_or(|status| status.message().contains("streaming calls")));
        for (i, call) in waiting.into_iter().enumerate() {
            match i {
                0..3 => assert!(call.await.unwrap().message().starts_with("no message came on the call")),
                _ => call.abort(),
            }
        }
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
