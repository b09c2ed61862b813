//! `narrows`: the command line of the codec for neural feature maps.

mod args;
mod bd;
mod codecs;
mod commands;
mod conditions;
mod device;
mod files;
mod fitting;
mod graph;
mod images;
mod logs;
mod lossy;
mod measure;
mod measured;
mod measurements;
mod measuring;
mod metrics;
mod model;
mod normalize;
mod output;
mod report;
mod study;
mod tails;
mod timing;
mod units;
mod wanted;
mod workers;

use std::io::ErrorKind;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use commands::{
    completions, decode, demo, encode, eval, exit, fit, inspect, loss, offload, plan, serve, shape, simulate,
};

const ABOUT: &str = "Codec for neural feature maps

Cut a network in two: the head runs on the device, the tail on a server. narrows encodes the
feature between them in as few bytes as it can, such that the tail still answers correctly: far
fewer than the compressed input would take.

Without a command, the demo runs. It needs no files and writes narrows-demo.html.";

const EXAMPLES: &str = "\
Words:
  cut      the tensor at which the network is split
  feature  the value of this tensor for one input
  profile  what both ends share in advance, fitted once to sample features
  stream   the encoded bytes of one feature

From a model to bytes in five steps:
  narrows inspect net.onnx
  narrows fit --model net.onnx --cut NAME --images photos --rows 1-400 --labels labels.csv \\
      --normalize imagenet -o net.profile.safetensors
  narrows eval --model net.onnx --cut NAME --images photos --rows 401-1000 --labels labels.csv \\
      --normalize imagenet --profile net.profile.safetensors --out report
  narrows encode feature.npy --profile net.profile.safetensors -o feature.nrw
  narrows decode feature.nrw --profile net.profile.safetensors -o decoded.npy

Exit status: 0 success, 1 failure (one line says why), 2 wrong usage.";

#[derive(Debug, Parser)]
#[command(name = "narrows", version, about = "Codec for neural feature maps", long_about = ABOUT, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Fit a profile to sample features of a cut.
    Fit(fit::Args),
    /// Turn a feature into a stream.
    Encode(encode::Args),
    /// Turn a stream back into a feature.
    Decode(decode::Args),
    /// Describe a stream, profile, feature file or model; list where a model can be cut.
    Inspect(inspect::Args),
    /// Measure bytes against accuracy, beside JPEG, WebP and PNG of the input.
    Eval(eval::Args),
    /// Measure accuracy over a link that loses datagrams.
    Loss(loss::Args),
    /// Find the best cut and coding for given conditions; draw delay over bandwidth.
    Plan(plan::Args),
    /// Fit a policy for early exits, and compare it with simpler rules.
    Exit(exit::Args),
    /// Serve the tail of a network over gRPC (Open Inference Protocol).
    Serve(serve::Args),
    /// Classify images with the help of a server: split, as JPEG or WebP, or on the device alone.
    Offload(offload::Args),
    /// Emulate a slow link: forward connections with limited bandwidth, delay and losses.
    Shape(shape::Args),
    /// Simulate a fleet of devices and its servers on changing links.
    Simulate(simulate::Args),
    /// Run the whole chain on a built-in network and 1,000 images (the default).
    Demo(demo::Args),
    /// Print a completion script for a shell.
    Completions(completions::Args),
}

fn run(cli: Cli) -> Result<()> {
    match cli.command {
        Some(Command::Fit(args)) => fit::run(&args),
        Some(Command::Encode(args)) => encode::run(&args),
        Some(Command::Decode(args)) => decode::run(&args),
        Some(Command::Inspect(args)) => inspect::run(&args),
        Some(Command::Eval(args)) => eval::run(&args),
        Some(Command::Loss(args)) => loss::run(&args),
        Some(Command::Plan(args)) => plan::run(&args),
        Some(Command::Exit(args)) => exit::run(&args),
        Some(Command::Serve(args)) => serve::run(&args),
        Some(Command::Offload(args)) => offload::run(&args),
        Some(Command::Shape(args)) => shape::run(&args),
        Some(Command::Simulate(args)) => simulate::run(&args),
        Some(Command::Demo(args)) => demo::run(&args),
        Some(Command::Completions(args)) => completions::run::<Cli>(&args),
        None => run(Cli::parse_from(["narrows", "demo"])),
    }
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match args::check_variable().and_then(|()| run(cli)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            output::note(format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// True if the reader of our output has gone away, as `head` does: that is its right.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let kinds = error.chain().filter_map(|cause| cause.downcast_ref::<std::io::Error>()).map(std::io::Error::kind);
    kinds.into_iter().any(|kind| kind == ErrorKind::BrokenPipe)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
