//! Requests that are under way: places that are used again, and the lines in which they wait.

use std::ops::{Index, IndexMut};

/// No request.
pub const NONE: u32 = u32::MAX;

/// A request that is under way.
#[derive(Debug, Clone, Copy)]
pub struct Request {
    pub device: u32,
    pub image: u32,
    pub way: u32,
    /// The next one that waits in the same line.
    pub next: u32,
    pub server: u32,
    /// Events to come that name it: its place is free again when there are none.
    pub holds: u8,
    /// Its answer is not waited for, and it is not counted: it only tells the device how link and server are.
    pub probe: bool,
    /// Its answer has been counted.
    pub ended: bool,
    /// The server refused it, for it was late.
    pub refused: bool,
    /// The answer on the device, or the one it would fall back on, is right.
    pub own_right: bool,
    /// The device answers.
    pub local: bool,
    pub asked: f64,
    /// When its first byte was sent, and its last.
    pub sent: f64,
    pub gone: f64,
    /// When it came to the server, how long it waited and was worked on there.
    pub arrived: f64,
    pub waited: f64,
    pub served: f64,
}

impl Request {
    /// A request that a device is asked at a time, with one event to come.
    pub fn new(device: u32, image: u32, asked: f64) -> Request {
        Request {
            device,
            image,
            way: 0,
            next: NONE,
            server: 0,
            holds: 1,
            probe: false,
            ended: false,
            refused: false,
            own_right: false,
            local: false,
            asked,
            sent: 0.0,
            gone: 0.0,
            arrived: 0.0,
            waited: 0.0,
            served: 0.0,
        }
    }
}

/// Requests that wait for the same: the first and the last.
#[derive(Debug, Clone, Copy)]
pub struct Line(u32, u32);

impl Line {
    pub const EMPTY: Line = Line(NONE, NONE);
}

/// All requests under way, by their places.
#[derive(Debug, Default)]
pub struct Requests {
    all: Vec<Request>,
    free: Vec<u32>,
}

impl Requests {
    /// A place for a request.
    pub fn put(&mut self, request: Request) -> u32 {
        match self.free.pop() {
            Some(place) => {
                self[place] = request;
                place
            }
            None => {
                self.all.push(request);
                self.all.len() as u32 - 1
            }
        }
    }

    /// One event less to come for a request.
    pub fn release(&mut self, place: u32) {
        let request = &mut self[place];
        request.holds -= 1;
        if request.holds == 0 {
            self.free.push(place);
        }
    }

    /// Puts a request at the end of a line.
    pub fn append(&mut self, line: &mut Line, place: u32) {
        self[place].next = NONE;
        if line.1 == NONE {
            line.0 = place;
        } else {
            self[line.1].next = place;
        }
        line.1 = place;
    }

    /// Takes the first request of a line.
    pub fn pull(&mut self, line: &mut Line) -> Option<u32> {
        let place = line.0;
        if place == NONE {
            return None;
        }
        line.0 = self[place].next;
        if line.0 == NONE {
            line.1 = NONE;
        }
        Some(place)
    }
}

impl Index<u32> for Requests {
    type Output = Request;

    fn index(&self, place: u32) -> &Request {
        &self.all[place as usize]
    }
}

impl IndexMut<u32> for Requests {
    fn index_mut(&mut self, place: u32) -> &mut Request {
        &mut self.all[place as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_keep_their_order_and_places_are_used_again() {
        let mut requests = Requests::default();
        let mut line = Line::EMPTY;
        assert_eq!(requests.pull(&mut line), None);
        let places = [3, 1, 2].map(|device| requests.put(Request::new(device, 0, 0.0)));
        places.iter().for_each(|&place| requests.append(&mut line, place));
        let devices = |requests: &mut Requests, line: &mut Line| {
            std::iter::from_fn(|| requests.pull(line).map(|place| requests[place].device)).collect::<Vec<_>>()
        };
        assert_eq!(devices(&mut requests, &mut line), [3, 1, 2]);
        requests[places[1]].holds += 1;
        requests.release(places[1]);
        requests.release(places[2]);
        assert_eq!(requests.put(Request::new(9, 0, 0.0)), places[2]);
        assert_eq!(requests.put(Request::new(9, 0, 0.0)), 3);
    }
}
