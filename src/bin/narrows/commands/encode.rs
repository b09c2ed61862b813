//! `narrows encode`: a feature file becomes a stream.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::{ArgGroup, ValueEnum};
use narrows::{Clip, Encoder, Feature, Packed, Quality};
use serde_json::json;

use crate::args::{BackendArgs, load_profile};
use crate::files;
use crate::output::{self, is_pipe, note, print_json, shape_text, thousands, write};

const EXAMPLES: &str = "\
Examples:
  # at the profile's own operating point
  narrows encode f.npy --profile p.safetensors -o f.nrw
  # with steps twice as coarse
  narrows encode f.npy --profile p.safetensors --scale 2 -o f.nrw
  # in at most 1,200 bytes, header included
  narrows encode f.npy --profile p.safetensors --bytes 1200 -o f.nrw
  # without a profile, the noise 20 dB below the signal
  narrows encode f.npy --sqnr 20 -o f.nrw
  # always 4 bits per element
  narrows encode f.npy --packed 4 -o f.nrw
  # bit-exact, into a pipe
  narrows encode f.npy --lossless -o - | ssh server ...

With --profile, the stream is as small as the task allows. Without one, there are three modes:
one for any feature (uniform steps, built-in tables), one of a fixed size (--packed) and a
bit-exact one (--lossless).";

/// How `--packed` clips.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum ClipArg {
    /// Clip where the sum of clipping and rounding errors is least, for the spread of the values.
    Aciq,
    /// Do not clip: from the least to the largest value.
    Minmax,
}

/// Turn a feature into a stream.
///
/// With --profile, the stream is as small as the task allows. Without, there are a mode for any
/// feature (uniform steps, built-in tables), one of a fixed size (--packed) and a bit-exact one
/// (--lossless).
#[derive(Debug, clap::Args)]
#[command(
    after_help = EXAMPLES,
    group(ArgGroup::new("mode").args(["profile", "lossless", "packed"])),
    group(ArgGroup::new("quality").args(["scale", "bytes", "sqnr"]))
)]
pub struct Args {
    /// Feature to encode: .npy, .npz or .safetensors; `-` reads standard input.
    input: PathBuf,
    /// File to write the stream to; `-` writes standard output.
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Name of the array, if the file has several.
    #[arg(long, value_name = "NAME")]
    array: Option<String>,
    /// Profile made by `narrows fit`.
    #[arg(short, long, value_name = "FILE", help_heading = "Mode")]
    profile: Option<PathBuf>,
    /// Lossless (bit-exact) mode.
    #[arg(long, help_heading = "Mode")]
    lossless: bool,
    /// Fixed-size mode with this many bits per element, 1 to 8.
    #[arg(long, value_name = "BITS", value_parser = clap::value_parser!(u8).range(1..=8), help_heading = "Mode")]
    packed: Option<u8>,
    /// How --packed chooses its range.
    #[arg(long, value_enum, default_value = "aciq", requires = "packed", help_heading = "Mode")]
    clip: ClipArg,
    /// Quantiser step relative to the profile's own: 2 is coarser, 0.5 finer [default: 1].
    #[arg(long, value_name = "X", help_heading = "Quality", conflicts_with_all = ["lossless", "packed"])]
    scale: Option<f32>,
    /// Hard budget for the whole stream; if it is too small, the error says what the feature needs.
    #[arg(long, value_name = "N", help_heading = "Quality")]
    bytes: Option<usize>,
    /// Signal-to-quantisation-noise ratio to reach, in dB.
    #[arg(long, value_name = "DB", help_heading = "Quality", conflicts_with_all = ["lossless", "packed"])]
    sqnr: Option<f32>,
    /// Axis of the channels [default: 1, or 0 for [C,H,W] and [C]].
    #[arg(long, value_name = "AXIS", help_heading = "Axes and layout")]
    channel_axis: Option<usize>,
    /// Axis of independent items, or `none` [default: 0 if there are four axes or more].
    #[arg(long, value_name = "AXIS", value_parser = parse_axis, help_heading = "Axes and layout")]
    batch_axis: Option<BatchAxis>,
    /// Number of chunks, which decode independently [default: one per item].
    #[arg(long, value_name = "N", help_heading = "Axes and layout")]
    chunks: Option<usize>,
    /// Interleaved states of the entropy coder: 1, 2, 4, 8, 16 or 32 [default: by size].
    #[arg(long, value_name = "N", help_heading = "Axes and layout")]
    lanes: Option<usize>,
    /// End each chunk with a 32-bit checksum, which covers the header too.
    #[arg(long, help_heading = "Axes and layout")]
    checksums: bool,
    /// Plain rounding instead of rate-distortion optimised quantisation: faster, larger.
    #[arg(long, help_heading = "Quality")]
    no_rdo: bool,
    #[command(flatten)]
    backend: BackendArgs,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
}

/// `none` or the number of an axis.
#[derive(Debug, Clone, Copy)]
struct BatchAxis(Option<usize>);

fn parse_axis(text: &str) -> Result<BatchAxis, String> {
    match text {
        "none" => Ok(BatchAxis(None)),
        _ => text.parse().map(|axis| BatchAxis(Some(axis))).map_err(|_| "an axis is a number, or `none`".into()),
    }
}

/// Encodes.
pub fn run(args: &Args) -> Result<()> {
    if args.json && is_pipe(&args.output) {
        bail!("--json and `-o -` both want standard output: name a file with -o");
    }
    output::check(&args.output)?;
    output::check_apart(&args.output, [&args.input].into_iter().chain(&args.profile).map(PathBuf::as_path))?;
    let feature = files::read_one(&args.input, args.array.as_deref())?;
    let mut view = feature.view();
    if let Some(axis) = args.channel_axis {
        view = view.channel_axis(axis);
    }
    if let Some(BatchAxis(axis)) = args.batch_axis {
        view = view.batch_axis(axis);
    }
    let mut encoder = match (&args.profile, args.packed) {
        (Some(path), _) => Encoder::with_profile(load_profile(path)?),
        (None, Some(bits)) => {
            let clip = match args.clip {
                ClipArg::Aciq => Clip::Aciq,
                ClipArg::Minmax => Clip::MinMax,
            };
            Encoder::packed(Packed { bits, clip })
        }
        (None, None) if args.lossless => Encoder::lossless(),
        (None, None) => Encoder::plain(),
    };
    if !args.lossless {
        warn_not_finite(&feature)?;
    }
    encoder = encoder.rdo(!args.no_rdo).checksums(args.checksums).backend(args.backend.open()?);
    if let Some(chunks) = args.chunks {
        encoder = encoder.chunks(chunks);
    }
    if let Some(lanes) = args.lanes {
        encoder = encoder.lanes(lanes);
    }
    let quality = match (args.scale, args.bytes, args.sqnr) {
        (_, Some(bytes), _) => Quality::Bytes(bytes),
        (_, _, Some(sqnr)) => Quality::Sqnr(sqnr),
        (scale, None, None) => Quality::Scale(scale.unwrap_or(1.0)),
    };
    let stream = encoder.encode(view, quality).with_context(|| files::display(&args.input))?;
    write(&args.output, &stream)?;
    let raw = feature.shape().iter().product::<usize>() * feature.dtype().size();
    if args.json {
        return print_json(&json!({
            "shape": feature.shape(),
            "dtype": feature.dtype().name(),
            "raw_bytes": raw,
            "bytes": stream.len(),
        }));
    }
    note(format!(
        "{} {}: {} bytes -> {} bytes{}",
        shape_text(feature.shape()),
        feature.dtype().name(),
        thousands(raw as u64),
        thousands(stream.len() as u64),
        if stream.is_empty() { String::new() } else { format!(", 1/{:.1}", raw as f64 / stream.len() as f64) },
    ));
    Ok(())
}

/// Refuses a feature without a single number, and says what becomes of NaN and infinities.
fn warn_not_finite(feature: &Feature) -> Result<()> {
    let values = feature.to_f32();
    let bad = values.iter().filter(|x| !x.is_finite()).count();
    if bad > 0 && values.iter().all(|x| x.is_nan()) {
        bail!("every element of the feature is NaN; --lossless would keep them");
    }
    if bad > 0 {
        note(format!(
            "warning: {} of {} elements are NaN or infinite: NaN becomes 0, infinities are clamped",
            thousands(bad as u64),
            thousands(values.len() as u64)
        ));
    }
    Ok(())
}
