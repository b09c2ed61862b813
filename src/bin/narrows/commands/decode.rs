//! `narrows decode`: a stream becomes a feature file.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use narrows::{Decoder, Dtype, Error, Limits};
use serde_json::json;

use crate::args::{BackendArgs, load_profile};
use crate::files::{self, Format};
use crate::output::{self, is_pipe, note, print_json, shape_text, write};

const EXAMPLES: &str = "\
Examples:
  narrows decode f.nrw --profile p.safetensors -o f.npy
  # with several profiles: the stream says which one it needs
  narrows decode f.nrw -p a.safetensors -p b.safetensors -o f.npy
  cat f.nrw | narrows decode - -p p.safetensors --format npy -o - > f.npy";

/// Turn a stream back into a feature.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Stream made by `narrows encode`; `-` reads standard input.
    input: PathBuf,
    /// File to write the feature to: .npy, .npz or .safetensors; `-` writes standard output.
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Profile that the stream was encoded with; may be given several times.
    #[arg(short, long, value_name = "FILE")]
    profile: Vec<PathBuf>,
    /// Format of the output, if not given by its file name [default for `-`: npy].
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// Refuse features larger than this, in bytes.
    #[arg(long, value_name = "N", default_value_t = Limits::default().output_bytes)]
    max_bytes: u64,
    /// Name of the array in .npz and .safetensors.
    #[arg(long, value_name = "NAME", default_value = "feature")]
    array: String,
    #[command(flatten)]
    backend: BackendArgs,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
}

/// Decodes.
pub fn run(args: &Args) -> Result<()> {
    if args.json && is_pipe(&args.output) {
        bail!("--json and `-o -` both want standard output: name a file with -o");
    }
    let format = match args.format {
        Some(format) => format,
        None if is_pipe(&args.output) => Format::Npy,
        None => Format::of_name(&args.output)?,
    };
    output::check(&args.output)?;
    output::check_apart(&args.output, [&args.input].into_iter().chain(&args.profile).map(PathBuf::as_path))?;
    let limits = Limits { output_bytes: args.max_bytes, ..Limits::default() };
    let mut decoder = Decoder::new().limits(limits).backend(args.backend.open()?);
    for path in &args.profile {
        decoder = decoder.profile(load_profile(path)?);
    }
    let bytes = files::read_bytes(&args.input)?;
    if files::is_feature(&bytes) {
        bail!("{} is a feature, not a stream: narrows encode makes streams", files::display(&args.input));
    }
    let feature = decoder
        .decode(&bytes)
        .map_err(|error| match error {
            Error::ProfileMismatch { given: None, .. } => anyhow::anyhow!("{error}: name it with --profile"),
            Error::LimitExceeded { what: "decoded bytes", .. } => anyhow::anyhow!("{error}: raise it with --max-bytes"),
            error => error.into(),
        })
        .with_context(|| files::display(&args.input))?;
    if feature.dtype() == Dtype::Bf16 && format != Format::Safetensors {
        bail!("the feature is bf16, which numpy files can not hold: write a .safetensors file");
    }
    write(&args.output, &files::to_bytes(&feature, format, &args.array)?)?;
    if args.json {
        return print_json(&json!({
            "shape": feature.shape(),
            "dtype": feature.dtype().name(),
            "bytes": bytes.len(),
        }));
    }
    note(format!("{} bytes -> {} {}", bytes.len(), shape_text(feature.shape()), feature.dtype().name()));
    Ok(())
}
