//! `narrows completions`: scripts for shells.

use anyhow::Result;
use clap::CommandFactory;
use clap_complete::Shell;

use crate::output::print;

/// Print a completion script for a shell.
///
/// For bash, for example: narrows completions bash > ~/.local/share/bash-completion/completions/narrows
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The shell.
    shell: Shell,
}

/// Prints the script.
pub fn run<C: CommandFactory>(args: &Args) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut C::command(), "narrows", &mut script);
    print(String::from_utf8_lossy(&script).trim_end())
}
