//! A narrow link in a process: a TCP proxy with a bandwidth, a delay and losses, for machines on which the kernel's own
//! traffic control is not to be had.
//!
//! Each direction is one queue for all connections. Data leaves it in segments of at most 1,448 bytes, each with 52 bytes of
//! headers, at the bandwidth of the moment, and arrives one delay later. What TCP would do about a lost segment is
//! emulated, not done: it arrives one round trip later, and what follows it on its connection waits for it. Connections
//! are set up without delay, acknowledgements take no bandwidth, and congestion control does not see the losses.

use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rand_pcg::Pcg32;
use rand_pcg::rand_core::RngCore;
use tokio::io::AsyncWriteExt;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::{Instant, sleep_until};

use crate::error::{Error, Result};

/// Bytes of one segment.
const SEGMENT: usize = 1448;
/// Bytes of the headers of one segment: IPv4, TCP with timestamps.
const HEADERS: usize = 52;
/// What stands for ever, where a link is down to the end of its trace.
const FOR_EVER: Duration = Duration::from_secs(365 * 24 * 3600);

/// Bits a second over time, piecewise constant; the last value holds for ever.
#[derive(Debug, Clone, PartialEq)]
pub struct Trace(Vec<(f64, f64)>);

impl Trace {
    /// Always the same.
    pub fn constant(rate: f64) -> Result<Trace> {
        Trace::new(vec![(0.0, rate)])
    }

    /// Steps of (second from which it holds, bits a second).
    ///
    /// # Errors
    /// `InvalidInput` if there are none, the first is not at 0, times do not rise, or a rate is no number from 0 up.
    pub fn new(steps: Vec<(f64, f64)>) -> Result<Trace> {
        let rising = steps.windows(2).all(|pair| pair[0].0 < pair[1].0);
        if steps.first().is_none_or(|first| first.0 != 0.0) || !rising || steps.iter().any(|step| !step.0.is_finite()) {
            return Err(Error::invalid("a bandwidth trace whose seconds do not rise from 0"));
        }
        if let Some((_, rate)) = steps.iter().find(|(_, rate)| rate.is_nan() || *rate < 0.0) {
            return Err(Error::invalid(format!("a bandwidth trace with {rate} bits a second")));
        }
        Ok(Trace(steps))
    }

    /// Reads lines `seconds,bits_per_second`; a first line that is no numbers is a header.
    ///
    /// # Errors
    /// `InvalidInput` that names the line that is not so; as [`Trace::new`].
    pub fn from_csv(text: &str) -> Result<Trace> {
        let mut steps = Vec::new();
        for (i, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            let numbers = line.split_once(',').map(|(a, b)| (a.trim().parse::<f64>(), b.trim().parse::<f64>()));
            match numbers {
                Some((Ok(second), Ok(rate))) => steps.push((second, rate)),
                _ if i == 0 => {}
                _ => {
                    return Err(Error::invalid(format!(
                        "bandwidth trace, line {}: not `seconds,bits_per_second`",
                        i + 1
                    )));
                }
            }
        }
        Trace::new(steps)
    }

    /// When so many bits are through that begin at `second`; infinite if never.
    fn through(&self, mut second: f64, mut bits: f64) -> f64 {
        let mut at = self.0.partition_point(|step| step.0 <= second).saturating_sub(1);
        loop {
            let rate = self.0[at].1;
            let Some(next) = self.0.get(at + 1) else { return second + bits / rate };
            let room = rate * (next.0 - second);
            if bits <= room && rate > 0.0 {
                return second + bits / rate;
            }
            bits -= room;
            second = next.0;
            at += 1;
        }
    }
}

/// A shaped link.
#[derive(Debug, Clone, PartialEq)]
pub struct Shape {
    /// Bandwidth towards the server.
    pub up: Trace,
    /// Bandwidth back.
    pub down: Trace,
    /// Time on the way, in each direction.
    pub delay: Duration,
    /// Bytes that each direction holds, queued and on the way; senders wait for more.
    pub buffer: usize,
    /// Share of segments that are lost.
    pub loss: f64,
    /// Seed of the losses.
    pub seed: u64,
}

/// What went through a shaped link.
#[derive(Debug, Default)]
pub struct Shaped {
    /// Bytes towards the server.
    pub up: AtomicU64,
    /// Bytes back.
    pub down: AtomicU64,
    /// Segments that were lost.
    pub lost: AtomicU64,
}

impl Shape {
    /// Passes connections on to `to` until `end`; `passed` counts what goes through. The trace begins with the first
    /// connection.
    ///
    /// # Errors
    /// `InvalidInput` if the loss is not from 0 to below 1 or the buffer holds no segment.
    pub async fn run(
        &self,
        listener: TcpListener,
        to: String,
        passed: Arc<Shaped>,
        end: impl Future<Output = ()>,
    ) -> Result<()> {
        if !(0.0..1.0).contains(&self.loss) {
            return Err(Error::invalid(format!("a loss of {}: it is a share from 0 to below 1", self.loss)));
        }
        if self.buffer < SEGMENT {
            return Err(Error::invalid(format!(
                "a buffer of {} bytes does not hold one segment of {SEGMENT}",
                self.buffer
            )));
        }
        let mut lanes: Option<[Arc<Lane>; 2]> = None;
        let mut end = std::pin::pin!(end);
        loop {
            let socket = tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok((socket, _)) => socket,
                    Err(error) => {
                        tracing::warn!(%error, "a connection was not accepted");
                        tokio::time::sleep(Duration::from_millis(20)).await;
                        continue;
                    }
                },
                () = &mut end => return Ok(()),
            };
            let [up, down] = lanes.get_or_insert_with(|| {
                let start = Instant::now();
                [(&self.up, 0), (&self.down, 1)].map(|(trace, stream)| Arc::new(Lane::new(self, trace, start, stream)))
            });
            let (up, down, to, passed) = (up.clone(), down.clone(), to.clone(), passed.clone());
            tokio::spawn(async move {
                let server = match TcpStream::connect(&to).await {
                    Ok(server) => server,
                    Err(error) => {
                        tracing::warn!(%error, to, "the server is not reached");
                        return;
                    }
                };
                // Without it, only small segments would come later.
                let _ = (socket.set_nodelay(true), server.set_nodelay(true));
                let (from_device, to_device) = socket.into_split();
                let (from_server, to_server) = server.into_split();
                let counted = passed.clone();
                let up = tokio::spawn(async move { up.pass(from_device, to_server, &counted.up, &counted.lost).await });
                down.pass(from_server, to_device, &passed.down, &passed.lost).await;
                let _ = up.await;
            });
        }
    }
}

/// One direction.
struct Lane {
    trace: Trace,
    start: Instant,
    delay: Duration,
    loss: f64,
    room: Arc<Semaphore>,
    state: Mutex<State>,
}

struct State {
    /// Second at which the queue is empty.
    free: f64,
    random: Pcg32,
}

/// Data with the time at which it arrives.
type Segment = (Instant, Vec<u8>, OwnedSemaphorePermit);

impl Lane {
    fn new(shape: &Shape, trace: &Trace, start: Instant, stream: u64) -> Lane {
        let state = Mutex::new(State { free: 0.0, random: Pcg32::new(shape.seed, stream) });
        let room = Arc::new(Semaphore::new(shape.buffer.min(Semaphore::MAX_PERMITS)));
        Lane { trace: trace.clone(), start, delay: shape.delay, loss: shape.loss, room, state }
    }

    /// When a segment that comes now arrives at the other end, and whether it was lost on the way.
    fn arrival(&self, bytes: usize) -> (Instant, bool) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.start.elapsed().as_secs_f64();
        state.free = self.trace.through(now.max(state.free), ((bytes + HEADERS) * 8) as f64);
        let lost = f64::from(state.random.next_u32()) < self.loss * f64::from(u32::MAX);
        let delay = if lost { 3 * self.delay } else { self.delay };
        let way = if state.free.is_finite() { Duration::from_secs_f64(state.free) + delay } else { FOR_EVER };
        (self.start + way, lost)
    }

    /// Passes on what comes from one socket to another.
    async fn pass(&self, from: OwnedReadHalf, to: OwnedWriteHalf, passed: &AtomicU64, lost: &AtomicU64) {
        let (sender, receiver) = mpsc::unbounded_channel();
        let deliver = tokio::spawn(deliver(receiver, to));
        let mut buffer = [0; SEGMENT];
        loop {
            // Room is for what has come: a connection that idles holds none.
            if from.readable().await.is_err() {
                break;
            }
            let Ok(mut room) = self.room.clone().acquire_many_owned(SEGMENT as u32).await else { break };
            let count = match from.try_read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => continue,
                Err(_) => break,
            };
            drop(room.split(SEGMENT - count));
            passed.fetch_add(count as u64, Relaxed);
            let (arrival, was_lost) = self.arrival(count);
            lost.fetch_add(was_lost.into(), Relaxed);
            if sender.send((arrival, buffer[..count].to_vec(), room)).is_err() {
                break;
            }
        }
        drop(sender);
        let _ = deliver.await;
    }
}

/// Writes segments when they arrive, in their order; then closes.
async fn deliver(mut segments: mpsc::UnboundedReceiver<Segment>, mut to: OwnedWriteHalf) {
    while let Some((arrival, bytes, room)) = segments.recv().await {
        sleep_until(arrival).await;
        drop(room);
        if to.write_all(&bytes).await.is_err() {
            return;
        }
    }
    let _ = to.shutdown().await;
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::*;

    #[test]
    fn bits_take_the_time_of_the_rates_they_meet() {
        let trace = Trace::from_csv("seconds,bits_per_second\n0,1000\n1,0\n2,100\n").unwrap();
        assert_eq!(trace.through(0.0, 500.0), 0.5);
        assert_eq!(trace.through(0.5, 500.0), 1.0);
        assert_eq!(trace.through(0.5, 600.0), 3.0);
        assert_eq!(trace.through(1.5, 100.0), 3.0);
        assert_eq!(trace.through(10.0, 100.0), 11.0);
        let down = Trace::new(vec![(0.0, 8.0), (1.0, 0.0)]).unwrap();
        assert_eq!(down.through(0.0, 9.0), f64::INFINITY);
    }

    #[test]
    fn traces_that_are_none_are_refused() {
        for (text, word) in [
            ("", "rise"),
            ("1,5", "rise"),
            ("0,5\n0,6", "rise"),
            ("0,-5", "-5"),
            ("0,nan", "NaN"),
            ("0,5\nx,6", "line 2"),
            ("0,5\n1", "line 2"),
        ] {
            let error = Trace::from_csv(text).unwrap_err().to_string();
            assert!(error.contains(word), "{text}: {error}");
        }
    }

    /// Sends bytes through a link to a server that says how many came; the time until it has said so.
    async fn round(shape: Shape, bytes: usize) -> (f64, Arc<Shaped>) {
        let (server, listener) =
            (TcpListener::bind("127.0.0.1:0").await.unwrap(), TcpListener::bind("127.0.0.1:0").await.unwrap());
        let (to, at) = (server.local_addr().unwrap().to_string(), listener.local_addr().unwrap());
        tokio::spawn(async move {
            let (mut socket, _) = server.accept().await.unwrap();
            let mut all = vec![0; bytes];
            socket.read_exact(&mut all).await.unwrap();
            assert!(all.iter().all(|&byte| byte == 7));
            socket.write_all(&[1]).await.unwrap();
        });
        let passed = Arc::new(Shaped::default());
        let counted = passed.clone();
        tokio::spawn(async move { shape.run(listener, to, counted, std::future::pending()).await });
        let mut socket = TcpStream::connect(at).await.unwrap();
        let start = Instant::now();
        socket.write_all(&vec![7; bytes]).await.unwrap();
        socket.read_exact(&mut [0]).await.unwrap();
        (start.elapsed().as_secs_f64(), passed)
    }

    #[tokio::test]
    async fn a_link_takes_at_least_its_time() {
        let rate = Trace::constant(1e6).unwrap();
        let delay = Duration::from_millis(20);
        let shape = Shape { up: rate.clone(), down: rate, delay, buffer: 4096, loss: 0.0, seed: 1 };
        let (seconds, passed) = round(shape, 14_480).await;
        // Ten segments or more of 12 ms, two delays, and the answer.
        assert!(seconds >= 0.16, "{seconds}");
        assert_eq!((passed.up.load(Relaxed), passed.down.load(Relaxed)), (14_480, 1));
    }

    #[tokio::test]
    async fn connections_that_idle_hold_no_room() {
        let (server, listener) =
            (TcpListener::bind("127.0.0.1:0").await.unwrap(), TcpListener::bind("127.0.0.1:0").await.unwrap());
        let (to, at) = (server.local_addr().unwrap().to_string(), listener.local_addr().unwrap());
        tokio::spawn(async move {
            let mut held = Vec::new();
            loop {
                let (mut socket, _) = server.accept().await.unwrap();
                held.push(tokio::spawn(async move {
                    let mut byte = [0];
                    while socket.read_exact(&mut byte).await.is_ok() {
                        socket.write_all(&byte).await.unwrap();
                    }
                }));
            }
        });
        let rate = Trace::constant(1e9).unwrap();
        let shape = Shape { up: rate.clone(), down: rate, delay: Duration::ZERO, buffer: SEGMENT, loss: 0.0, seed: 1 };
        tokio::spawn(async move { shape.run(listener, to, Arc::default(), std::future::pending()).await });
        let mut sockets = Vec::new();
        for _ in 0..3 {
            let mut socket = TcpStream::connect(at).await.unwrap();
            socket.write_all(&[7]).await.unwrap();
            let answer = tokio::time::timeout(Duration::from_secs(20), socket.read_exact(&mut [0])).await;
            assert!(answer.is_ok(), "the idle ones hold it up");
            sockets.push(socket);
        }
    }

    #[tokio::test]
    async fn losses_come_later_and_nothing_is_missing() {
        let rate = Trace::constant(1e9).unwrap();
        let delay = Duration::from_millis(10);
        let shape = Shape { up: rate.clone(), down: rate, delay, buffer: 1 << 20, loss: 0.5, seed: 1 };
        let (seconds, passed) = round(shape, 100_000).await;
        assert!(passed.lost.load(Relaxed) > 10);
        assert!(seconds >= 0.04, "{seconds}");
    }
}
