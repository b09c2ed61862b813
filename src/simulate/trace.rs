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

    /// Reads a CSV file with the header `seconds,bits_per_second` or `seconds,bits_per_second,round_trip_seconds`: each
    /// line holds from its second until the next one, the last as long as the one before it; then all begins again.
    ///
    /// # Errors
    /// `InvalidInput` that names line and column; `LimitExceeded` beyond a million lines.
    pub fn from_csv(text: &str, round_trip: f64) -> Result<Trace> {
        let rows = csv::read(text, &["seconds", "bits_per_second", "round_trip_seconds"], 2)?;
        let bandwidth = Steps::new(&points(&rows, 1)?)?;
        if bandwidth.mean() <= 0.0 {
            return Err(Error::invalid("the bandwidth of the trace is 0 throughout"));
        }
        let round_trip = if rows[0].len() == 3 { Steps::new(&points(&rows, 2)?)? } else { Steps::constant(round_trip) };
        Ok(Trace { bandwidth, round_trip })
    }

    /// When `bytes` that begin to be sent at `start` have all been sent; infinite if that never happens.
    pub fn sent(&self, start: f64, bytes: f64) -> f64 {
        self.bandwidth.reach(start, 8.0 * bytes)
    }
}

/// Reads the share of a server's time that others take, 0 to below 1, from a CSV file with the header `seconds,load`.
///
/// # Errors
/// As [`Trace::from_csv`].
pub fn load_from_csv(text: &str) -> Result<Steps> {
    let rows = csv::read(text, &["seconds", "load"], 2)?;
    if let Some(row) = rows.iter().position(|row| row[1] >= 1.0) {
        let (at, load) = (rows[row][0], rows[row][1]);
        return Err(Error::invalid(format!("at {at} seconds: a load of {load}; loads are from 0 to below 1")));
    }
    Steps::new(&points(&rows, 1)?)
}

/// (seconds, value) of a column; the times must ascend from 0.
fn points(rows: &[Vec<f64>], column: usize) -> Result<Vec<(f64, f64)>> {
    if rows[0][0] != 0.0 {
        return Err(Error::invalid(format!("the first line is at {} seconds, not at 0", rows[0][0])));
    }
    if let Some(pair) = rows.windows(2).find(|pair| pair[0][0] >= pair[1][0]) {
        return Err(Error::invalid(format!("after {} seconds comes {}: times must ascend", pair[0][0], pair[1][0])));
    }
    Ok(rows.iter().map(|row| (row[0], row[column])).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_a_trace() {
        let trace = Trace::from_csv("seconds,bits_per_second\n0,8000\n1,0\n2,4000\n", 0.04).unwrap();
        // 1,000 bytes in the first second, 500 in the third.
        assert_eq!([trace.sent(0.0, 1250.0), trace.sent(0.5, 750.0), trace.sent(1.5, 500.0)], [2.5, 2.5, 3.0]);
        assert_eq!((trace.round_trip.at(7.0), trace.bandwidth.mean()), (0.04, 4000.0));
        let text = "seconds,bits_per_second,round_trip_seconds\n0,8000,0.1\n1,8000,0.2\n";
        assert_eq!(Trace::from_csv(text, 0.04).unwrap().round_trip.at(1.5), 0.2);
        assert_eq!(load_from_csv("seconds,load\n0,0.5\n10,0.25\n").unwrap().at(12.0), 0.25);
    }

    #[test]
    fn files_that_are_no_trace_say_why() {
        let bandwidth =
            |rows: &str| Trace::from_csv(&format!("seconds,bits_per_second\n{rows}"), 0.0).unwrap_err().to_string();
        assert!(bandwidth("1,5\n").contains("at 1 seconds, not at 0"));
        assert!(bandwidth("0,5\n3,5\n3,6\n").contains("after 3 seconds comes 3"));
        assert!(bandwidth("0,0\n3,0\n").contains("0 throughout"));
        let error = load_from_csv("seconds,load\n0,0\n5,1\n").unwrap_err().to_string();
        assert!(error.contains("at 5 seconds: a load of 1"), "{error}");
    }
}
