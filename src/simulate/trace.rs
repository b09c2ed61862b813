//! Traces of links and of servers' other load.

use crate::error::{Error, Result};
use crate::simulate::csv;
use crate::simulate::steps::Steps;

/// Bandwidth and round trip of a link over time, repeated for ever.
#[derive(Debug, Clone, PartialEq)]
pub struct Trace {
    /// Bits a second.
    pub bandwidth: Steps,
    /// Seconds there and back.
    pub round_trip: Steps,
}

impl Trace {
    /// A link that does not change: bits a second, and seconds there and back.
    pub fn constant(bandwidth: f64, round_trip: f64) -> Trace {
        Trace { bandwidth: Steps::constant(bandwidth), round_trip: Steps::constant(round_trip) }
    }

    /// Reads a CSV file with the header `seconds,bits_per_second` or `seconds,bits_per_second,round_trip_seconds`. Each line
    /// holds from its second until the next one. The last line says when all begins again: it has the values of the first.
    /// One line alone holds for ever.
    ///
    /// # Errors
    /// `InvalidInput` that names the line; `LimitExceeded` beyond a million lines.
    pub fn from_csv(text: &str, round_trip: f64) -> Result<Trace> {
        let rows = csv::read(text, &["seconds", "bits_per_second", "round_trip_seconds"], 2)?;
        let bandwidth = steps(&rows, 1)?;
        if bandwidth.mean() <= 0.0 {
            let (first, last) = (rows[0].0, rows[rows.len() - 1].0);
            return Err(Error::invalid(format!("lines {first} to {last}: the bandwidth is 0 throughout")));
        }
        let round_trip = if rows[0].1.len() == 3 { steps(&rows, 2)? } else { Steps::constant(round_trip) };
        Ok(Trace { bandwidth, round_trip })
    }

    /// When `bytes` that begin to be sent at `start` have all been sent; infinite if that never happens.
    pub fn sent(&self, start: f64, bytes: f64) -> f64 {
        self.bandwidth.reach(start, 8.0 * bytes)
    }
}

/// Reads the share of a server's time that others take, 0 to below 1, from a CSV file with the header `seconds,load`; the last
/// line says when all begins again, as in [`Trace::from_csv`].
///
/// # Errors
/// As [`Trace::from_csv`].
pub fn load_from_csv(text: &str) -> Result<Steps> {
    let rows = csv::read(text, &["seconds", "load"], 2)?;
    if let Some((line, row)) = rows.iter().find(|(_, row)| row[1] >= 1.0) {
        return Err(Error::invalid(format!("line {line}: a load of {}; loads are from 0 to below 1", row[1])));
    }
    steps(&rows, 1)
}

/// A column of rows that begin with their second, as steps.
fn steps(rows: &[(usize, Vec<f64>)], column: usize) -> Result<Steps> {
    let (top, first) = &rows[0];
    if first[0] != 0.0 {
        return Err(Error::invalid(format!("line {top}: the first second is {}, not 0", first[0])));
    }
    if let Some([(_, before), (line, row)]) = rows.array_windows().find(|[(_, a), (_, b)]| a[0] >= b[0]) {
        let (before, second) = (before[0], row[0]);
        return Err(Error::invalid(format!("line {line}: after second {before} comes {second}; seconds must ascend")));
    }
    let Some(((line, last), others)) = rows.split_last().filter(|(_, others)| !others.is_empty()) else {
        return Ok(Steps::constant(first[column]));
    };
    if last[1..] != first[1..] {
        let [last_text, first_text] = [last, first].map(|row| {
            let values: Vec<String> = row[1..].iter().map(f64::to_string).collect();
            values.join(",")
        });
        return Err(Error::invalid(format!(
            "line {line}: {last_text}; the last line says when all begins again, with the values of the first, {first_text}: let \
             such a line follow at the second at which this one ends"
        )));
    }
    let points: Vec<(f64, f64)> = others.iter().map(|(_, row)| (row[0], row[column])).collect();
    Steps::new(&points, last[0])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_a_trace() {
        let trace = Trace::from_csv("seconds,bits_per_second\n0,8000\n1,0\n2,4000\n3,8000\n", 0.04).unwrap();
        // 1,000 bytes in the first second, 500 in the third.
        assert_eq!([trace.sent(0.0, 1250.0), trace.sent(0.5, 750.0), trace.sent(1.5, 500.0)], [2.5, 2.5, 3.0]);
        assert_eq!((trace.bandwidth.period(), trace.round_trip.at(7.0), trace.bandwidth.mean()), (3.0, 0.04, 4000.0));
        let text = "seconds,bits_per_second,round_trip_seconds\n0,8000,0.1\n1,8000,0.2\n2,8000,0.1\n";
        assert_eq!(Trace::from_csv(text, 0.04).unwrap().round_trip.at(1.5), 0.2);
        assert_eq!(Trace::from_csv("0,8000\n", 0.04).unwrap(), Trace::constant(8000.0, 0.04));
        let load = load_from_csv("seconds,load\n0,0.5\n10,0.25\n40,0.5\n").unwrap();
        assert_eq!((load.period(), load.at(12.0), load.at(41.0)), (40.0, 0.25, 0.5));
    }

    #[test]
    fn files_that_are_no_trace_say_why_and_where() {
        let trace = |rows: &str| Trace::from_csv(rows, 0.0).map(|_| ());
        let load = |rows: &str| load_from_csv(rows).map(|_| ());
        for (result, words) in [
            (trace("seconds,bits_per_second\n\n1,5\n"), "line 3: the first second is 1, not 0"),
            (trace("seconds,bits_per_second\n0,5\n3,5\n3,6\n"), "line 4: after second 3 comes 3"),
            (trace("0,0\n3,0\n"), "lines 1 to 2: the bandwidth is 0 throughout"),
            (
                trace("0,1000000\n20,5\n"),
                "line 2: 5; the last line says when all begins again, with the values of the first, 1000000:",
            ),
            (trace("0,5,0.1\n20,9,0.1\n30,5,0.2\n"), "line 3: 5,0.2; the last line"),
            (load("seconds,load\n0,0\n5,1\n"), "line 3: a load of 1"),
            (load("0,0.5\n5,0\n"), "line 2: 0; the last line"),
        ] {
            let error = result.unwrap_err().to_string();
            assert!(error.contains(words), "{error} does not say {words}");
        }
    }
}
