//! The flags that say what the device draws.

use clap::Args;
use narrows::exit::Power;

/// What the device draws.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Energy: watts beyond what the device draws anyway (default: Raspberry Pi 4, LTE modem)")]
pub struct PowerArgs {
    /// While the device computes.
    #[arg(long, value_name = "W", default_value_t = Power::default().compute)]
    watts_compute: f64,
    /// While it sends.
    #[arg(long, value_name = "W", default_value_t = Power::default().send)]
    watts_send: f64,
    /// While its radio waits for the answer and gets it.
    #[arg(long, value_name = "W", default_value_t = Power::default().receive)]
    watts_receive: f64,
    /// While the server works.
    #[arg(long, value_name = "W", default_value_t = Power::default().idle)]
    watts_idle: f64,
}

impl PowerArgs {
    /// What the flags say.
    pub fn power(&self) -> Power {
        let PowerArgs { watts_compute, watts_send, watts_receive, watts_idle } = *self;
        Power { compute: watts_compute, send: watts_send, receive: watts_receive, idle: watts_idle }
    }
}
