//! Arguments that say what link, device and server are like, and what the device draws.

use anyhow::{Result, bail};
use clap::Args;
use narrows::Conditions;
use narrows::exit::Power;

/// Link, device and server.
#[derive(Debug, Args)]
#[command(next_help_heading = "Conditions")]
pub struct ConditionArgs {
    /// Bits a second from the device to the server; k, M or G may follow.
    #[arg(long, value_name = "BITS", value_parser = parse_bandwidth, default_value = "1M")]
    pub bandwidth: f64,
    /// Time of an empty message there and back; in seconds, or with ms or s.
    #[arg(long, value_name = "TIME", value_parser = parse_time, default_value = "40ms")]
    pub round_trip: f64,
    /// Time until an answer is worth nothing [default: none].
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    pub deadline: Option<f64>,
    /// Speed of the device, 1 being the machine of the measurements.
    #[arg(long, value_name = "X", default_value_t = 1.0)]
    pub device_speed: f64,
    /// Speed of the server, 1 being the machine of the measurements.
    #[arg(long, value_name = "X", default_value_t = 1.0)]
    pub server_speed: f64,
}

impl ConditionArgs {
    /// As conditions, with no wait at the server.
    pub fn conditions(&self) -> Result<Conditions> {
        let conditions = Conditions {
            bandwidth: self.bandwidth,
            round_trip: self.round_trip,
            wait: 0.0,
            deadline: self.deadline.unwrap_or(f64::INFINITY),
            device_speed: self.device_speed,
            server_speed: self.server_speed,
        };
        conditions.checked()?;
        Ok(conditions)
    }
}

/// What the device draws.
#[derive(Debug, Args)]
#[command(next_help_heading = "Energy, in watts above rest (defaults: one core of a Raspberry Pi 4, an LTE radio)")]
pub struct PowerArgs {
    /// While the device computes.
    #[arg(long, value_name = "W", default_value_t = Power::default().compute)]
    pub watts_compute: f64,
    /// While it sends.
    #[arg(long, value_name = "W", default_value_t = Power::default().send)]
    pub watts_send: f64,
    /// While it receives.
    #[arg(long, value_name = "W", default_value_t = Power::default().receive)]
    pub watts_receive: f64,
    /// While it waits for an answer.
    #[arg(long, value_name = "W", default_value_t = Power::default().idle)]
    pub watts_idle: f64,
}

impl PowerArgs {
    /// As power.
    pub fn power(&self) -> Power {
        let PowerArgs { watts_compute, watts_send, watts_receive, watts_idle } = *self;
        Power { compute: watts_compute, send: watts_send, receive: watts_receive, idle: watts_idle }
    }
}

/// `1M`, `37.5k`, `250000`: bits a second.
pub fn parse_bandwidth(text: &str) -> Result<f64> {
    let (number, unit) = split_unit(text);
    let factor = match unit {
        "" => 1.0,
        "k" | "kbit" | "kbit/s" => 1e3,
        "M" | "Mbit" | "Mbit/s" => 1e6,
        "G" | "Gbit" | "Gbit/s" => 1e9,
        _ => bail!("{text} is no bandwidth: write bits a second as 250000, 37.5k, 1M or 1G"),
    };
    match number.parse::<f64>() {
        Ok(bits) if bits.is_finite() && bits > 0.0 => Ok(bits * factor),
        _ => bail!("{text} is no bandwidth: write bits a second as 250000, 37.5k, 1M or 1G"),
    }
}

/// `0.04`, `40ms`, `2s`: seconds.
pub fn parse_time(text: &str) -> Result<f64> {
    let (number, unit) = split_unit(text);
    let factor = match unit {
        "" | "s" => 1.0,
        "ms" => 1e-3,
        "us" | "µs" => 1e-6,
        _ => bail!("{text} is no time: write seconds as 0.04, or 40ms, or 2s"),
    };
    match number.parse::<f64>() {
        Ok(time) if time.is_finite() && time >= 0.0 => Ok(time * factor),
        _ => bail!("{text} is no time: write seconds as 0.04, or 40ms, or 2s"),
    }
}

/// A number and what follows it.
fn split_unit(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !(c.is_ascii_digit() || c == '.' || c == '-')).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    (number, unit.trim())
}

/// `1 Mbit/s`, `37.5 kbit/s`.
pub fn bandwidth_text(bits: f64) -> String {
    let (value, unit) = match bits {
        bits if bits >= 1e9 => (bits / 1e9, "Gbit/s"),
        bits if bits >= 1e6 => (bits / 1e6, "Mbit/s"),
        bits if bits >= 1e3 => (bits / 1e3, "kbit/s"),
        bits => (bits, "bit/s"),
    };
    format!("{} {unit}", (value * 1000.0).round() / 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_understood() {
        let bits = ["250000", "37.5k", "1M", "2.5 Mbit/s"].map(|text| parse_bandwidth(text).unwrap());
        assert_eq!(bits, [250_000.0, 37_500.0, 1e6, 2.5e6]);
        assert_eq!(["0.04", "40ms", "2s"].map(|text| parse_time(text).unwrap()), [0.04, 0.04, 2.0]);
        for bad in ["", "M", "-1", "0", "1m", "1e", "NaN"] {
            assert!(parse_bandwidth(bad).is_err(), "{bad}");
        }
        assert!(parse_time("-1").is_err() && parse_time("40 min").is_err() && parse_time("").is_err());
        assert_eq!([1e6, 37_500.0, 12.0].map(bandwidth_text), ["1 Mbit/s", "37.5 kbit/s", "12 bit/s"]);
    }
}
