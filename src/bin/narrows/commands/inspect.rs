//! `narrows inspect`: what a file is, without decoding it.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use narrows::{Axes, Cost, Info, Layout, Profile};
use serde_json::{Value, json};

use crate::args::load_profile;
use crate::files;
use crate::graph::Graph;
use crate::model::Network;
use crate::output::{print, print_json, shape_text, thousands};

const EXAMPLES: &str = "\
Examples:
  # where a network can be cut, with shapes and element counts
  narrows inspect net.onnx
  # mode, shape, quality and sizes of a stream
  narrows inspect f.nrw --profile p.safetensors
  # how a profile was fitted, and what else was tried
  narrows inspect p.safetensors";

/// Describe a stream, profile, feature file or ONNX model.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The file; `-` reads standard input.
    input: PathBuf,
    /// Profile of the stream, for the shape if the stream leaves it out.
    #[arg(short, long, value_name = "FILE")]
    profile: Option<PathBuf>,
    /// Output of the network that is the answer [default: the first].
    #[arg(long, value_name = "NAME")]
    model_output: Option<String>,
    /// Height and width of the network's input, if the model leaves them open.
    #[arg(long, value_name = "PIXELS", default_value_t = 224)]
    input_size: usize,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Inspects.
pub fn run(args: &Args) -> Result<()> {
    let bytes = files::read_bytes(&args.input)?;
    let name = files::display(&args.input);
    let (text, value) = describe(args, &bytes).with_context(|| name.clone())?;
    if args.json { print_json(&value) } else { print(format!("{name}: {}", text.trim_end())) }
}

fn describe(args: &Args, bytes: &[u8]) -> Result<(String, Value)> {
    if bytes[0] == 0xf7 {
        return stream(args, bytes);
    }
    match Profile::from_bytes(bytes) {
        Ok(profile) => return Ok(describe_profile(&profile, bytes.len())),
        Err(error) if is_profile(bytes) => bail!("a profile that can not be used: {error}"),
        Err(_) => {}
    }
    if bytes.starts_with(files::npy::MAGIC) || bytes.starts_with(b"PK") || bytes.get(8) == Some(&b'{') {
        return arrays(bytes);
    }
    if Graph::read(bytes, args.model_output.as_deref()).is_ok() || looks_like_onnx(args) {
        return model(args, bytes);
    }
    bail!("it is neither a narrows stream, a profile, a feature file nor an ONNX model");
}

/// True for a `.safetensors` file that `narrows fit` has written, whatever became of it.
fn is_profile(bytes: &[u8]) -> bool {
    let head = &bytes[..bytes.len().min(1 << 16)];
    bytes.get(8) == Some(&b'{') && head.windows(11).any(|window| window == b"\"narrows\":\"")
}

fn looks_like_onnx(args: &Args) -> bool {
    args.input.extension().is_some_and(|ending| ending == "onnx")
}

fn axes_text(axes: Axes) -> String {
    match axes.batch {
        Some(batch) => format!("channels on axis {}, items on axis {batch}", axes.channels),
        None => format!("channels on axis {}", axes.channels),
    }
}

fn layout_json(layout: &Layout) -> Value {
    json!({
        "shape": layout.dims(),
        "dtype": layout.dtype.name(),
        "channel_axis": layout.axes.channels,
        "batch_axis": layout.axes.batch,
    })
}

fn layout_text(layout: &Layout) -> String {
    format!("{} {}, {}", shape_text(&layout.shape()), layout.dtype.name(), axes_text(layout.axes))
}

fn stream(args: &Args, bytes: &[u8]) -> Result<(String, Value)> {
    let info = Info::read(bytes)?;
    let profile = args.profile.as_deref().map(load_profile).transpose()?;
    if let (Some(profile), Some(wanted)) = (&profile, info.profile)
        && profile.hash() != wanted
    {
        bail!("the stream was made with profile {wanted:016x}, but profile {:016x} was given", profile.hash());
    }
    let layout = info.layout.or(profile.map(|profile| *profile.layout()));
    let mut text = format!("a stream of {} bytes\n", thousands(bytes.len() as u64));
    text += &format!("  mode      {}, format version {}\n", info.mode.name(), info.version);
    text += &match &layout {
        Some(layout) => format!("  feature   {}\n", layout_text(layout)),
        None => "  feature   shape and type of the profile (name it with --profile)\n".to_string(),
    };
    if let Some(hash) = info.profile {
        text += &format!("  profile   {hash:016x}\n");
    }
    let scale = info.quality.map(|index| (f64::from(index) / 32.0).exp2());
    if let Some(scale) = scale {
        text += &format!("  quality   steps x{scale:.3} of the profile's\n");
    }
    let checksums = if info.checksums { ", with checksums" } else { "" };
    text += &format!("  coder     {} lanes, {} chunks{checksums}\n", info.lanes, info.chunks);
    text += &format!("  bytes     {} header, {} payload\n", info.header_bytes, info.payload_bytes);
    let value = json!({
        "kind": "stream",
        "bytes": bytes.len(),
        "version": info.version,
        "mode": info.mode.name(),
        "profile": info.profile.map(|hash| format!("{hash:016x}")),
        "scale": scale,
        "layout": layout.as_ref().map(layout_json),
        "lanes": info.lanes,
        "chunks": info.chunks,
        "checksums": info.checksums,
        "header_bytes": info.header_bytes,
        "payload_bytes": info.payload_bytes,
    });
    Ok((text, value))
}

fn describe_profile(profile: &Profile, bytes: usize) -> (String, Value) {
    let (rows, columns) = profile.block();
    let transform = match (profile.matrices(), rows * columns) {
        (0, 1) => "channels as they are".to_string(),
        (0, _) => format!("{rows}x{columns} block DCT"),
        (1, 1) => "channel matrix".to_string(),
        (1, _) => format!("channel matrix, {rows}x{columns} block DCT"),
        (count, _) => format!("{count} channel matrices by band, {rows}x{columns} block DCT"),
    };
    let mut text = format!("a profile of {} bytes\n", thousands(bytes as u64));
    text += &format!("  hash      {:016x}\n", profile.hash());
    text += &format!("  feature   {}\n", layout_text(profile.layout()));
    text += &format!("  transform {transform}\n");
    text += &format!("  coder     {} (component, band) channels\n", thousands(profile.coder_channels() as u64));
    let names = ["analysis", "synthesis"];
    let costs = profile.cost(profile.layout());
    for (name, cost) in names.into_iter().zip(costs) {
        if let Some(cost) = cost {
            let (macs, parameters) = (cost.macs as f64 / 1e6, thousands(cost.parameters));
            text +=
                &format!("  {name:<9} network of {macs:.2} million multiply-accumulates, {parameters} parameters\n");
        }
    }
    if !profile.is_exact() {
        text += "  note      the analysis network runs in floating point: streams may differ between machines\n";
    }
    if !profile.notes().is_empty() {
        text += "  how it was fitted:\n";
        for line in profile.notes().lines() {
            text += &format!("    {line}\n");
        }
    }
    let value = json!({
        "kind": "profile",
        "bytes": bytes,
        "hash": format!("{:016x}", profile.hash()),
        "layout": layout_json(profile.layout()),
        "block": [rows, columns],
        "matrices": profile.matrices(),
        "coder_channels": profile.coder_channels(),
        "analysis": cost_json(costs[0]),
        "synthesis": cost_json(costs[1]),
        "exact": profile.is_exact(),
        "notes": profile.notes(),
    });
    (text, value)
}

fn cost_json(cost: Option<Cost>) -> Value {
    cost.map_or(Value::Null, |cost| json!({ "macs": cost.macs, "parameters": cost.parameters }))
}

fn arrays(bytes: &[u8]) -> Result<(String, Value)> {
    let arrays = files::parse_all(bytes)?;
    let mut text = format!("{} of features\n", if arrays.len() == 1 { "one array" } else { "several arrays" });
    let mut list = Vec::new();
    for (name, feature) in &arrays {
        let (shape, dtype) = (feature.shape(), feature.dtype().name());
        text += &format!("  {}  {} {dtype}\n", name.as_deref().unwrap_or("(no name)"), shape_text(shape));
        list.push(json!({ "name": name, "shape": shape, "dtype": dtype }));
    }
    Ok((text, json!({ "kind": "arrays", "arrays": list })))
}

fn model(args: &Args, bytes: &[u8]) -> Result<(String, Value)> {
    let network = Network::from_bytes(bytes.to_vec(), args.model_output.as_deref())?;
    let size = network.input_size.unwrap_or((args.input_size, args.input_size));
    let cuts = network.cuts(size)?;
    let input = 3 * size.0 * size.1;
    let graph = &network.graph;
    let mut text = format!("an ONNX model, {} {}x{} -> {}\n", graph.input, size.0, size.1, graph.output);
    if graph.outputs.len() > 1 {
        text += &format!("  outputs   {} (choose with --model-output)\n", graph.outputs.join(", "));
    }
    text += &format!("  cuts      {} values alone separate input and output:\n", cuts.len());
    let width = cuts.iter().map(|cut| cut.name.chars().count()).max().unwrap_or(0);
    let mut list = Vec::new();
    for cut in &cuts {
        let elements = cut.elements();
        text += &format!(
            "    {:<width$}  {:>14}  {:>9} elements, {:>5.2} of the input\n",
            cut.name,
            shape_text(&cut.shape[1..]),
            thousands(elements as u64),
            elements as f64 / input as f64
        );
        list.push(json!({ "name": cut.name, "shape": cut.shape, "elements": elements }));
    }
    let value = json!({
        "kind": "model",
        "input": graph.input,
        "input_size": [size.0, size.1],
        "outputs": graph.outputs,
        "output": graph.output,
        "cuts": list,
    });
    Ok((text, value))
}
