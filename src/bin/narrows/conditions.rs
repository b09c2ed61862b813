//! The flags that say what link, device and server are like.

use clap::Args;
use narrows::Conditions;
use narrows::split::Power;

use crate::units;

/// Link, device and server.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Conditions")]
pub struct ConditionArgs {
    /// Bandwidth from the device to the server in bits per second, for example 37.5k, 1M or 1.5G.
    #[arg(long, value_name = "BITS/S", value_parser = units::bandwidth, default_value = "1M")]
    pub bandwidth: f64,
    /// Round-trip time of the link, for example 40ms or 0.5s.
    #[arg(long, value_name = "TIME", value_parser = units::seconds, default_value = "40ms")]
    pub round_trip: f64,
    /// Time that a request waits in the server's queue.
    #[arg(long, value_name = "TIME", value_parser = units::seconds, default_value = "0ms")]
    pub server_wait: f64,
    /// Time after which an answer is useless [default: none].
    #[arg(long, value_name = "TIME", value_parser = units::deadline)]
    pub deadline: Option<f64>,
    /// Speed of the device relative to one thread of the machine that was measured on: 0.1 is ten times slower.
    #[arg(long, value_name = "X", value_parser = units::speed, default_value_t = 1.0)]
    pub device_speed: f64,
    /// Speed of the server, relative to the same.
    #[arg(long, value_name = "X", value_parser = units::speed, default_value_t = 1.0)]
    pub server_speed: f64,
}

/// What the device draws.
#[derive(Debug, Clone, Args)]
pub struct PowerArgs {
    /// Power of the device in watts: computing, sending, during the round trip, and waiting for the server [default:
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
                "--power takes four numbers, the watts while it computes, sends, waits over the round trip, and waits for the \
                 server, not {}",
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
            ..Conditions::default()
        }
    }
}
