//! Logs of the commands that run for long: on standard error.

use std::io::IsTerminal;

use anyhow::{Result, anyhow};
use clap::Args;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

/// How much is logged, and in which form.
#[derive(Debug, Args)]
#[command(next_help_heading = "Logs")]
pub struct LogArgs {
    /// Log level: error, warn, info, debug (each request), or a filter of tracing-subscriber. Protocol errors of peers in
    /// HTTP/2 are logged only with h2=warn.
    #[arg(long, value_name = "LEVEL", value_parser = filter, default_value = "info")]
    log: String,
    /// Log one JSON object per line.
    #[arg(long)]
    log_json: bool,
}

/// A filter as it is written. A word that is no level would be taken for the name of a module, and nothing logged.
fn filter(text: &str) -> Result<String, String> {
    let is_level = |word: &str| word.parse::<LevelFilter>().is_ok();
    let words = text.split(',').map(str::trim);
    if let Some(word) = words.filter(|word| !word.contains(['=', '[', ']', '}', ':'])).find(|word| !is_level(word)) {
        return Err(format!(
            "{word:?} is no level: error, warn, info, debug, trace or off, or a filter such as h2=warn"
        ));
    }
    EnvFilter::try_new(text).map(|_| text.to_string()).map_err(|error| error.to_string())
}

impl LogArgs {
    /// Logs from now on.
    pub fn start(&self) -> Result<()> {
        // Strangers shall not fill the logs.
        let filter = format!("h2=off,{}", self.log);
        let filter = EnvFilter::try_new(filter).map_err(|error| anyhow!("--log {}: {error}", self.log))?;
        let terminal = std::io::stderr().is_terminal();
        let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(terminal);
        let started = if self.log_json { logs.json().try_init() } else { logs.try_init() };
        started.map_err(|error| anyhow!("logs: {error}"))
    }
}
