//! Measures: every answer is checked first, then the coders take turns, so that a slow spell of the machine hits all.

use std::time::{Duration, Instant};

use crate::{
    coder::{Coder, Layout},
    data::Case,
};

/// How long and how often.
#[derive(Clone, Copy)]
pub struct Effort {
    /// Turns of every coder; the median is reported.
    pub repeats: usize,
    /// The time of one turn in one direction. It ends earlier when every message was coded once, never before one was.
    pub turn: Duration,
}

/// One row of the table.
pub struct Row {
    /// The data set.
    pub data: String,
    /// The size of a message.
    pub size: String,
    /// The coder.
    pub coder: String,
    /// True for the coders of this project.
    pub ours: bool,
    /// Bits per symbol, headers included.
    pub bits: f64,
    /// The bytes of the streams over the empirical order-0 entropy, less one.
    pub over: f64,
    /// Symbols per second.
    pub encode: f64,
    /// Symbols per second.
    pub decode: f64,
}

/// A coder at work on a case.
struct Runner<'a> {
    coder: &'a mut dyn Coder,
    messages: &'a [Vec<u8>],
    streams: Vec<Vec<u8>>,
    /// The next message to encode and to decode: turns go on where the one before ended.
    at: [usize; 2],
    speeds: [Vec<f64>; 2],
}

/// The middle of an odd number of values.
pub fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

impl<'a> Runner<'a> {
    /// Encodes and decodes every message once and compares.
    fn new(coder: &'a mut dyn Coder, case: &'a Case) -> Runner<'a> {
        coder.prepare(case);
        let messages = match coder.layout() {
            Layout::Planar if case.shape.is_some() => &case.planar,
            _ => &case.messages,
        };
        let mut streams = Vec::with_capacity(messages.len());
        let mut stream = Vec::new();
        for message in messages {
            stream.clear();
            coder.encode(message, &mut stream);
            streams.push(stream.as_slice().to_vec());
        }
        let batch = coder.batch();
        let mut symbols = vec![Vec::new(); batch];
        for (streams, messages) in streams.chunks(batch).zip(messages.chunks(batch)) {
            for symbols in &mut symbols {
                symbols.clear();
                symbols.resize(messages[0].len(), 0xaa);
            }
            coder.decode_batch(streams, &mut symbols[..streams.len()]);
            assert!(symbols.iter().zip(messages).all(|(a, b)| a == b), "{} gave back other symbols", coder.name());
        }
        Runner { coder, messages, streams, at: [0; 2], speeds: Default::default() }
    }

    /// One turn in each direction.
    fn turn(&mut self, time: Duration) {
        let length = self.messages[0].len();
        let batch = self.coder.batch().min(self.messages.len());
        // The clock is read once for so many batches: reading it costs as much as some dozen symbols.
        let step = ((64 << 10) / (length * batch)).max(1);

        let mut stream = Vec::with_capacity(length * 2 + 4096);
        let (mut done, start) = (0, Instant::now());
        while done == 0 || done < self.messages.len() && start.elapsed() < time {
            for _ in 0..step * batch {
                let message = &self.messages[self.at[0]];
                self.at[0] = (self.at[0] + 1) % self.messages.len();
                stream.clear();
                self.coder.encode(message, &mut stream);
            }
            done += step * batch;
        }
        self.speeds[0].push((done * length) as f64 / start.elapsed().as_secs_f64());
        std::hint::black_box(&stream);

        let mut symbols = vec![vec![0; length]; batch];
        let (mut done, start) = (0, Instant::now());
        while done == 0 || done < self.streams.len() && start.elapsed() < time {
            for _ in 0..step {
                if self.at[1] + batch > self.streams.len() {
                    self.at[1] = 0;
                }
                self.coder.decode_batch(&self.streams[self.at[1]..self.at[1] + batch], &mut symbols);
                self.at[1] += batch;
            }
            done += step * batch;
        }
        self.speeds[1].push((done * length) as f64 / start.elapsed().as_secs_f64());
        std::hint::black_box(&symbols);
    }

    /// What the table says of it.
    fn row(mut self, case: &Case) -> Row {
        let bits = self.streams.iter().map(Vec::len).sum::<usize>() as f64 * 8.0;
        Row {
            data: case.data.clone(),
            size: case.size.clone(),
            coder: self.coder.name(),
            ours: self.coder.ours(),
            bits: bits / case.symbols() as f64,
            over: bits / case.entropy_bits() - 1.0,
            encode: median(&mut self.speeds[0]),
            decode: median(&mut self.speeds[1]),
        }
    }
}

/// The rows of one case, in the order of the coders.
pub fn measure(coders: &mut [Box<dyn Coder>], case: &Case, effort: Effort) -> Vec<Row> {
    let fitting = coders.iter_mut().filter(|c| c.fits(case));
    let mut runners: Vec<Runner> = fitting.map(|c| Runner::new(c.as_mut(), case)).collect();
    for _ in 0..effort.repeats {
        for runner in &mut runners {
            runner.turn(effort.turn);
        }
    }
    runners.into_iter().map(|r| r.row(case)).collect()
}
