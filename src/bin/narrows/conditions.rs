//! The flags that say what link, device and server are like.

use clap::Args;
use narrows::Conditions;
use narrows::split::Power;

/// Link, device and server.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Conditions")]
pub struct ConditionArgs {
    /// Bits a second from the device to the server, for example 37.5k, 1M or 1.5G.
    #[arg(long, value_name = "BITS/S", value_parser = parse_bandwidth, default_value = "1M")]
    pub bandwidth: f64,
    /// Time of an empty message there and back, for example 40ms or 0.5s.
    #[arg(long, value_name = "TIME", value_parser = parse_seconds, default_value = "40ms")]
    pub round_trip: f64,
    /// Time that a request waits at the server before its turn.
    #[arg(long, value_name = "TIME", value_parser = parse_seconds, default_value = "0ms")]
    pub server_wait: f64,
    /// Time after which the answer is worth nothing [default: none].
    #[arg(long, value_name = "TIME", value_parser = parse_seconds)]
    pub deadline: Option<f64>,
    /// Speed of the device, where 1 is one thread of the machine that times were measured on: 0.1 is ten times slower.
    #[arg(long, value_name = "X", value_parser = parse_speed, default_value_t = 1.0)]
    pub device_speed: f64,
    /// Speed of the server, likewise.
    #[arg(long, value_name = "X", value_parser = parse_speed, default_value_t = 1.0)]
    pub server_speed: f64,
}

/// What the device draws.
#[derive(Debug, Clone, Args)]
pub struct PowerArgs {
    /// Watts of the device while it computes, sends, waits over the round trip, and waits for the server [default:
    /// 3.2,1.73,1.29,1.06, a small board with an LTE modem].
    #[arg(long, value_name = "W,W,W,W", value_delimiter = ',', num_args = 1, value_parser = parse_watts)]
    power: Vec<f64>,
}

impl PowerArgs {
    /// The watts that the flag gives, or the default.
    pub fn power(&self) -> anyhow::Result<Power> {
        match self.power[..] {
            [] => Ok(Power::default()),
            [compute, send, receive, idle] => Ok(Power { compute, send, receive, idle }),
            _ => anyhow::bail!(
                "--power takes four numbers, for computing, sending, receiving and waiting, not {}",
                self.power.len()
            ),
        }
    }
}

fn parse_watts(text: &str) -> Result<f64, String> {
    let watts = text.parse().ok().filter(|watts: &f64| watts.is_finite() && *watts >= 0.0);
    watts.ok_or(format!("{text:?} is no power: watts, 0 or more"))
}

impl ConditionArgs {
    /// The conditions that the flags describe.
    pub fn conditions(&self) -> Conditions {
        Conditions {
            bandwidth: self.bandwidth,
            round_trip: self.round_trip,
            wait: self.server_wait,
            deadline: self.deadline.unwrap_or(f64::INFINITY),
            device_speed: self.device_speed,
            server_speed: self.server_speed,
        }
    }
}

/// `37.5k`, `1M`, `1Mbit`, `2.5Mbit/s`, `64000`.
pub fn parse_bandwidth(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix("/s").unwrap_or(text);
    let number = number.strip_suffix("bit").or(text.strip_suffix("bps")).unwrap_or(text).trim_end();
    let (number, factor) = match number.chars().last() {
        Some('k' | 'K') => (&number[..number.len() - 1], 1e3),
        Some('M') => (&number[..number.len() - 1], 1e6),
        Some('G') => (&number[..number.len() - 1], 1e9),
        _ => (number, 1.0),
    };
    let value = number.trim().parse::<f64>().ok().map(|value| value * factor);
    let wanted = || format!("{text:?} is no bandwidth; write bits a second, for example 37.5k or 1M");
    value.filter(|value| value.is_finite() && *value > 0.0).ok_or_else(wanted)
}

/// `40ms`, `0.5s`, `200us`; 0 needs no unit.
pub fn parse_seconds(text: &str) -> Result<f64, String> {
    // Divided, not multiplied: 200us is then the number that 0.0002s is.
    let units = [("ms", 1e3), ("us", 1e6), ("µs", 1e6), ("s", 1.0)];
    let found = units.iter().find_map(|&(unit, parts)| Some((text.strip_suffix(unit)?, parts)));
    let (number, parts) = found.unwrap_or((text, if text.trim() == "0" { 1.0 } else { f64::NAN }));
    let value = number.trim().parse::<f64>().ok().map(|value| value / parts);
    let wanted = || format!("{text:?} is no time; write it with its unit, for example 40ms or 0.5s");
    value.filter(|value| value.is_finite() && *value >= 0.0).ok_or_else(wanted)
}

fn parse_speed(text: &str) -> Result<f64, String> {
    let value = text.trim().parse::<f64>().ok();
    let wanted = || format!("{text:?} is no speed; write a factor above 0, for example 0.2");
    value.filter(|value| value.is_finite() && *value > 0.0).ok_or_else(wanted)
}

/// A bandwidth for people: `37.5 kbit/s`.
pub fn bandwidth_text(bits: f64) -> String {
    let (value, unit) = match bits {
        _ if bits >= 0.9995e9 => (bits / 1e9, "Gbit/s"),
        _ if bits >= 0.9995e6 => (bits / 1e6, "Mbit/s"),
        _ if bits >= 0.9995e3 => (bits / 1e3, "kbit/s"),
        _ => (bits, "bit/s"),
    };
    format!("{} {unit}", three_digits(value))
}

/// A time for people: `12.3 ms`.
pub fn seconds_text(seconds: f64) -> String {
    match seconds {
        _ if seconds == f64::INFINITY => "never".into(),
        _ if seconds >= 0.9995 => format!("{} s", three_digits(seconds)),
        _ if seconds >= 0.9995e-3 || seconds == 0.0 => format!("{} ms", three_digits(seconds * 1e3)),
        _ => format!("{} µs", three_digits(seconds * 1e6)),
    }
}

/// Three digits that count, without needless zeros: `1230`, `12.3`, `0.123`.
fn three_digits(value: f64) -> String {
    let digits = if value <= 0.0 { 0 } else { (2 - value.log10().floor() as i32).clamp(0, 6) as usize };
    let text = format!("{value:.digits$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_string() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bandwidths_and_times_are_read_and_written() {
        let read = ["37.5k", "1Mbit", "2.5 Mbit/s", "64000", "1G", "300bps"].map(|text| parse_bandwidth(text).unwrap());
        assert_eq!(read, [37_500.0, 1e6, 2.5e6, 64_000.0, 1e9, 300.0]);
        let read = ["40ms", "0.5s", "200us", "0", "1 s"].map(|text| parse_seconds(text).unwrap());
        assert_eq!(read, [0.04, 0.5, 0.0002, 0.0, 1.0]);
        for bad in ["", "fast", "1T", "-1M", "0", "M", "µ"] {
            assert!(parse_bandwidth(bad).is_err(), "{bad:?}");
        }
        for bad in ["", "40", "ms", "-1ms", "infs"] {
            assert!(parse_seconds(bad).is_err(), "{bad:?}");
        }
        assert_eq!(
            [37_500.0, 1e6, 123_456_789.0, 999.96].map(bandwidth_text),
            ["37.5 kbit/s", "1 Mbit/s", "123 Mbit/s", "1 kbit/s"]
        );
        assert_eq!([0.04, 1.234, 0.000_056_7, 0.0].map(seconds_text), ["40 ms", "1.23 s", "56.7 µs", "0 ms"]);
        assert_eq!(seconds_text(f64::INFINITY), "never");
    }
}
