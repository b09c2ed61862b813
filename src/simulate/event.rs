//! What happens next.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

/// What can happen, to a device or to a request (its place among those that are under way).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// A device is asked.
    Asked { device: u32 },
    /// The device has computed an answer, or what it sends.
    Computed { request: u32 },
    /// The last byte has been sent.
    Sent { request: u32 },
    /// The request is at a server.
    Arrived { request: u32 },
    /// The server has answered.
    Served { request: u32 },
    /// The answer is at the device.
    Replied { request: u32 },
    /// The deadline has come.
    Due { request: u32 },
}

#[derive(Debug, Clone, Copy)]
struct Event {
    time: f64,
    /// Events of the same time happen in the order in which they were made.
    order: u64,
    what: What,
}

impl Ord for Event {
    fn cmp(&self, other: &Self) -> Ordering {
        // The heap gives its largest first, and the earliest is wanted.
        other.time.total_cmp(&self.time).then(other.order.cmp(&self.order))
    }
}

impl PartialOrd for Event {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Event {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Event {}

/// Events to come, the earliest first.
#[derive(Debug, Default)]
pub struct Events {
    heap: BinaryHeap<Event>,
    made: u64,
}

impl Events {
    /// Something will happen.
    pub fn push(&mut self, time: f64, what: What) {
        self.made += 1;
        self.heap.push(Event { time, order: self.made, what });
    }

    /// What happens next, and when.
    pub fn pop(&mut self) -> Option<(f64, What)> {
        self.heap.pop().map(|event| (event.time, event.what))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_earliest_comes_first_and_equals_in_order() {
        let mut events = Events::default();
        for (time, device) in [(2.0, 0), (1.0, 1), (2.0, 2), (0.5, 3), (1.0, 4)] {
            events.push(time, What::Asked { device });
        }
        let order: Vec<_> = std::iter::from_fn(|| events.pop()).collect();
        let expected = [(0.5, 3), (1.0, 1), (1.0, 4), (2.0, 0), (2.0, 2)];
        assert_eq!(order, expected.map(|(time, device)| (time, What::Asked { device })));
    }
}
