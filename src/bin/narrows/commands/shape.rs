//! `narrows shape`: a narrow link in a process.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use anyhow::{Context, Result};
use narrows::link::{Shape, Shaped, Trace};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use crate::logs::LogArgs;
use crate::output::{note, print};
use crate::units;

const EXAMPLES: &str = "\
Examples:
  narrows shape --listen 127.0.0.1:0 --to 127.0.0.1:8001 --rate 1Mbit --delay 20ms
  narrows shape --listen 127.0.0.1:9000 --to 127.0.0.1:8001 --trace drop.csv --delay 20ms \\
      --loss 0.01

This is a TCP proxy. Each direction is one queue for all connections. Segments of at most 1,448
bytes, each with 52 bytes of headers, leave the queue at the current rate and arrive after the
delay. A lost segment is emulated by one that arrives a round trip later and holds up those
behind it; TCP itself sees no loss. The trace starts with the first connection.

Once the proxy listens, it prints one line on standard output: `listening ADDR`.";

/// Emulate a slow link: forward connections with limited bandwidth, delay and losses.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Address that devices connect to; port 0 takes a free one.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Address of the server, host:port.
    #[arg(long, value_name = "ADDR", value_parser = host_and_port)]
    to: String,
    /// Bandwidth in each direction, for example 1Mbit.
    #[arg(long, value_name = "RATE", value_parser = units::bandwidth, default_value = "1Mbit")]
    rate: f64,
    /// Bandwidth towards the server over time, in place of --rate: lines `seconds,bits_per_second`; the last one stays.
    #[arg(long, value_name = "CSV")]
    trace: Option<PathBuf>,
    /// Bandwidth from the server, if it differs from that towards it.
    #[arg(long, value_name = "RATE", value_parser = units::bandwidth)]
    down: Option<f64>,
    /// Delay in each direction: half the round trip.
    #[arg(long, value_name = "TIME", value_parser = units::duration, default_value = "20ms")]
    delay: Duration,
    /// Most bytes queued or in flight in each direction.
    #[arg(long, value_name = "N", default_value_t = 65_536)]
    buffer: usize,
    /// Share of segments that are lost, 0 to 1.
    #[arg(long, value_name = "P", default_value_t = 0.0)]
    loss: f64,
    /// Random seed of the losses.
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    #[command(flatten)]
    logs: LogArgs,
}

fn host_and_port(text: &str) -> Result<String, String> {
    let parts =
        text.rsplit_once(':').filter(|(host, port)| !host.is_empty() && port.parse().is_ok_and(|port: u16| port > 0));
    parts.map(|_| text.to_string()).ok_or_else(|| format!("{text:?} is no host:port, for example 127.0.0.1:8001"))
}

/// Passes on until it is told to end; then says how much went through.
pub fn run(args: &Args) -> Result<()> {
    args.logs.start()?;
    let constant = Trace::constant(args.rate)?;
    let up = match &args.trace {
        Some(path) => {
            let text =
                std::fs::read_to_string(path).with_context(|| format!("cannot read the trace {}", path.display()))?;
            Trace::from_csv(&text).with_context(|| format!("trace {}", path.display()))?
        }
        None => constant,
    };
    let down = args.down.map(Trace::constant).transpose()?.unwrap_or_else(|| up.clone());
    let Args { delay, buffer, loss, seed, .. } = *args;
    let shape = Shape { up, down, delay, buffer, loss, seed };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let passed = Arc::new(Shaped::default());
    runtime.block_on(async {
        let listener =
            TcpListener::bind(args.listen).await.with_context(|| format!("cannot listen on {}", args.listen))?;
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let line = format!("listening {}", listener.local_addr()?);
        let end = async {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        };
        let mut shaping = std::pin::pin!(shape.run(listener, args.to.clone(), passed.clone(), end));
        // Its first step refuses a link that cannot be, before anybody is told that it listens.
        tokio::select! {
            biased;
            ended = &mut shaping => return Ok(ended?),
            () = std::future::ready(()) => {}
        }
        print(line)?;
        Ok::<_, anyhow::Error>(shaping.await?)
    })?;
    let [up, down, lost] = [&passed.up, &passed.down, &passed.lost].map(|count| count.load(Relaxed));
    note(format!("{up} bytes up, {down} bytes down, {lost} segments lost"));
    Ok(())
}
