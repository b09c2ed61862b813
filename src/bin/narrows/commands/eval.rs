//! `narrows eval`: bytes against accuracy on a real network.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use narrows::{Backend, Profile};
use ndarray::Axis;

use crate::codecs::FeatureCodec;
use crate::fitting::progress_bar;
use crate::measure::Job;
use crate::measuring::{Baseline, MeasureArgs, Setup};
use crate::model::Cut;
use crate::output::{self, note, print, print_json, write};
use crate::report::{FeaturePicture, Report};

const EXAMPLES: &str = "\
Examples:
  narrows eval --model net.onnx --cut NAME --profile p.safetensors --images photos \\
      --labels labels.csv --rows 401-1000 --normalize imagenet --out report
  # fit a profile for each cut first
  narrows eval --model net.onnx --cut A --cut B --fit-rows 1-400 --rows 401-1000 ...
  # only narrows, at four qualities
  narrows eval ... --baselines none --qualities 0.5,1,2,4
  # measurements for `plan`, `exit`, `offload` and `simulate`
  narrows eval ... --exit exit1 --exit exit2 --measurements net.json

Every point is measured on all images: encode, decode, and run the rest of the network on the
decoded feature. JPEG, WebP and PNG encode the input instead, after any resizing. Bytes include
all headers. Without a profile, narrows runs in its mode for any feature.";

/// Measure bytes against accuracy, beside JPEG, WebP and PNG of the input.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The network (.onnx).
    #[arg(long, value_name = "FILE", help_heading = "Network")]
    model: PathBuf,
    /// Tensor at which to cut the network; may be given several times. A wrong name lists all of them.
    #[arg(long, value_name = "NAME", required = true, help_heading = "Network")]
    cut: Vec<String>,
    #[command(flatten)]
    measuring: MeasureArgs,
    /// Folder for narrows.csv, narrows.json, narrows.html and fitted profiles.
    #[arg(long, value_name = "DIR", help_heading = "Output")]
    out: Option<PathBuf>,
    /// File for measurements, which `plan`, `exit`, `offload` and `simulate` read: bytes and answers of every image, and
    /// the times of all parts on one thread. Times are taken in a separate run; keep the machine idle.
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    measurements: Option<PathBuf>,
    /// Print the report as JSON in place of the table.
    #[arg(long, help_heading = "Output")]
    json: bool,
}

/// Measures.
pub fn run(args: &Args) -> Result<()> {
    let measuring = &args.measuring;
    if measuring.images.labels.is_none() {
        bail!("name the label file with --labels FILE: without labels there is no accuracy to measure");
    }
    if !measuring.profile.is_empty() && measuring.profile.len() != args.cut.len() {
        bail!("{} cuts and {} profiles: give one profile for each cut", args.cut.len(), measuring.profile.len());
    }
    if !measuring.exit.is_empty() && args.measurements.is_none() {
        bail!("the logits of an --exit go to the file of measurements: name it with --measurements FILE");
    }
    args.out.as_deref().map_or(Ok(()), output::check_folder)?;
    if let Some(path) = args.measurements.as_deref().filter(|path| path.parent() != args.out.as_deref()) {
        output::check(path)?;
    }
    let setup = Setup::open(measuring, &args.model, args.out.as_deref(), |network, size| {
        args.cut.iter().map(|name| network.cut(name, size)).collect()
    })?;
    let job = setup.job(measuring, &[Baseline::Jpeg, Baseline::Webp, Baseline::Png, Baseline::Features]);
    let bar = progress_bar();
    bar.set_message("measuring");
    let measured = job.run(&bar)?;
    let mut pictures = Vec::new();
    for (cut, profile) in setup.cuts.iter().zip(&setup.profiles) {
        pictures.extend(picture(&job, cut, profile.as_ref(), !measuring.no_rdo, &setup.backend)?);
    }
    let report = Report {
        title: format!("narrows: {}", args.model.file_name().unwrap_or_default().to_string_lossy()),
        about: vec![setup.about(measuring)],
        images: setup.images.len(),
        top1: measured.top1,
        points: measured.points.clone(),
        pictures,
    };
    // What took so long is shown before anything else can go wrong; the files are written also if nobody reads it.
    let printed = if args.json { print_json(&report.json()) } else { print(report.text()) };
    if let Some(folder) = &args.out {
        output::make_folder(folder)?;
        write(&folder.join("narrows.csv"), report.csv().as_bytes())?;
        write(&folder.join("narrows.json"), serde_json::to_string_pretty(&report.json())?.as_bytes())?;
        write(&folder.join("narrows.html"), report.html().as_bytes())?;
    }
    if let Some(path) = &args.measurements {
        let file = setup.measurements(measuring, &job, &measured)?;
        write(path, &file.to_json().with_context(|| path.display().to_string())?)?;
    }
    printed?;
    if let Some(folder) = &args.out {
        note(format!("report: {}", folder.join("narrows.html").display()));
    }
    Ok(())
}

/// The first image's feature at a cut, and what comes back at scale 1.
pub fn picture(
    job: &Job<'_>,
    cut: &Cut,
    profile: Option<&Arc<Profile>>,
    rdo: bool,
    backend: &Backend,
) -> Result<Option<FeaturePicture>> {
    let image = job.images.pixels(0)?;
    let batch = job.normalize.batch(std::slice::from_ref(&image))?;
    let before = job.network.head(&batch, cut, &None)?;
    let before = if before.ndim() == 0 { before } else { before.slice_axis(Axis(0), (0..1).into()).to_owned() };
    let mut codec = FeatureCodec::narrows(profile, 1.0, rdo).on(backend);
    let bytes = codec.encode(&before)?;
    let after = codec.decode(&bytes, before.shape())?;
    let name = format!("{} {}", codec.name, codec.setting);
    FeaturePicture::draw(&cut.name, name, bytes.len(), &image, &before, &after)
}
