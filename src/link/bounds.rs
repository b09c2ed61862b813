//! What a server admits.

use std::time::Duration;

/// Bounds of a server: what it holds at the same time, and for how long.
///
/// What strangers can make it hold is [`Bounds::memory`] at most, beside what it needs when idle.
#[derive(Debug, Clone, PartialEq)]
pub struct Bounds {
    /// Largest message, in bytes. Default 4 MiB.
    pub message: usize,
    /// Items (features or images) of one request, and of one run of a tail. Default 16.
    pub batch: usize,
    /// Requests that are being received, wait or run. Default 64.
    pub requests: usize,
    /// Requests that wait for a worker, of those. Default 32.
    pub queue: usize,
    /// Threads that decode and run tails. Default: one for each processor.
    pub workers: usize,
    /// Open streaming calls. Default 256.
    pub calls: usize,
    /// Largest message on a streaming call, in bytes, and most bytes of all the layers that it keeps. Default 256 KiB.
    pub layers: usize,
    /// Open connections. Default 512.
    pub connections: usize,
    /// Requests in flight on one connection. Default 32.
    pub streams: u32,
    /// Bytes that a connection may send before they are asked for; each request on it a quarter of them. Default 256 KiB.
    pub window: u32,
    /// Time for a connection to send its first request, for a handshake to end and for HTTP headers. Default 10 s.
    pub first: Duration,
    /// Time that a connection may be idle, or a streaming call without a message. Default 5 min.
    pub idle: Duration,
    /// Time that a peer may take nothing of what is sent to it, at its socket or of an answer. Default 10 s.
    pub stall: Duration,
    /// Time for one request, from its headers to its answer; its own deadline may be sooner. Default 10 s.
    pub request: Duration,
    /// Time after which a request whose body has not come or whose answer is not taken, or a call without a message, gives
    /// its place to another if all are taken; and for the message of a question about the server or a model. Default 1 s.
    pub patience: Duration,
    /// Time for requests in flight to end when the server does. Default 30 s.
    pub grace: Duration,
    /// Time between the word that the server is not ready and its end, so that load balancers hear it. Default 0.
    pub drain: Duration,
}

/// Bytes of the headers of one request.
pub(crate) const HEADERS: u32 = 8 << 10;
/// Largest message of a call that asks about the server or a model.
pub(crate) const QUESTION: usize = 4 << 10;
/// What one such call holds: its message, the buffer that it is received in, its answer.
const ASKING: u64 = 16 << 10;
/// Bytes of an answer that are given to HTTP/2 at once, which keeps no more of one than twice as many: that the next ones
/// are asked for shows that the peer takes them.
pub(crate) const PIECE: usize = 4 << 10;
/// Longest id of a request.
pub(crate) const ID: usize = 256;
/// Bytes that one connection holds in buffers beside its window and its headers: socket, HTTP/2 and TLS.
const CONNECTION: u64 = 128 << 10;
/// Copies of a message that live at the same time: as received (its buffer may be twice as long), and as a tensor.
const COPIES: u64 = 3;
/// What the decoded form of a message takes beside its data, see [`wire`](super::wire).
pub(crate) const STRUCTURE: usize = 64 << 10;

impl Default for Bounds {
    fn default() -> Self {
        Bounds {
            message: 4 << 20,
            batch: 16,
            requests: 64,
            queue: 32,
            workers: std::thread::available_parallelism().map_or(1, usize::from),
            calls: 256,
            layers: 256 << 10,
            connections: 512,
            streams: 32,
            window: 256 << 10,
            first: Duration::from_secs(10),
            idle: Duration::from_secs(300),
            stall: Duration::from_secs(10),
            request: Duration::from_secs(10),
            patience: Duration::from_secs(1),
            grace: Duration::from_secs(30),
            drain: Duration::ZERO,
        }
    }
}

impl Bounds {
    /// Bytes that connections and requests make the server hold at most, whatever they are:
    ///
    /// ```text
    /// connections * (window + streams * 32 KiB + 128 KiB)
    ///     + requests * (3 * message + 64 KiB + 4 * answer) + calls * (3 * layers + 64 KiB + 4 * answer)
    /// ```
    ///
    /// with `answer = batch * (4 * classes + 8) + 1 KiB`, the scores and classes of all items of the model that has the most
    /// `classes`. Beside it are the models, and for each worker what it needs to decode and run `batch` items.
    pub fn memory(&self, classes: usize) -> u64 {
        let streams = u64::from(self.streams) * (u64::from(HEADERS) + ASKING + 2 * PIECE as u64);
        let connection = u64::from(self.window) + streams + CONNECTION;
        let answer = self.batch as u64 * (4 * classes as u64 + 8) + 1024;
        // One that is being made, one that is not taken, and each as a message and in its buffer.
        let message = |bytes: usize| COPIES * bytes as u64 + STRUCTURE as u64 + 4 * answer;
        self.connections as u64 * connection
            + self.requests as u64 * message(self.message)
            + self.calls as u64 * message(self.layers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_the_sum_of_what_is_admitted() {
        let bounds = Bounds { message: 1000, requests: 2, calls: 6, layers: 100, ..Bounds::default() };
        let bounds = Bounds { connections: 3, streams: 4, window: 5, ..bounds };
        let answer = 4 * (16 * (4 * 10 + 8) + 1024);
        let requests = 2 * (3 * 1000 + 65_536 + answer) + 6 * (3 * 100 + 65_536 + answer);
        assert_eq!(bounds.memory(10), 3 * (5 + 4 * 32_768 + 131_072) + requests);
    }
}
