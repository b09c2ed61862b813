//! `narrows eval`: bytes against accuracy on a real network.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use narrows::{Backend, Profile};
use ndarray::Axis;

use crate::args::{BackendArgs, ImageArgs, backend_text, load_profile};
use crate::codecs::{FeatureCodec, ImageCodec};
use crate::fitting::{FitArgs, fit_network, progress_bar};
use crate::images::{Images, Rows};
use crate::measure::Job;
use crate::measurements::{measurements, processor};
use crate::model::{Cut, Exit, Network};
use crate::normalize::{Normalize, NormalizeArgs};
use crate::output::{note, print, print_json, write};
use crate::report::{FeaturePicture, Report};

const EXAMPLES: &str = "\
Examples:
  narrows eval --model net.onnx --cut NAME --profile p.safetensors --images photos \\
      --labels labels.csv --rows 401-1000 --normalize imagenet --out report
  narrows eval --model net.onnx --cut A --cut B --fit-rows 1-400 --rows 401-1000 ...    fits first
  narrows eval ... --baselines none --qualities 0.5,1,2,4                               only narrows
  narrows eval ... --exit exit1 --exit exit2 --measurements net.json    for `plan` and `simulate`

Every point is measured by sending all images: encode, decode, and the rest of the network on what came
out. JPEG, WebP and PNG send the input instead, after any resizing. Bytes have all headers in. Without a
profile, narrows runs in its mode for any feature.";

/// What narrows is compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Baseline {
    /// JPEG of the input, 4:2:0, optimised Huffman tables.
    Jpeg,
    /// WebP of the input, lossy, method 6.
    Webp,
    /// PNG of the input.
    Png,
    /// The feature as f16, as u8 with zstd, and packed to 4 and 2 bits by the ACIQ rule with zstd.
    Features,
    /// Nothing.
    None,
}

/// Measure bytes against accuracy, beside JPEG, WebP and PNG of the input.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The network (.onnx).
    #[arg(long, value_name = "FILE", help_heading = "Network")]
    model: PathBuf,
    /// Tensor at which it is cut; may be given several times. A wrong name lists all that there are.
    #[arg(long, value_name = "NAME", required = true, help_heading = "Network")]
    cut: Vec<String>,
    /// Output that is the answer [default: the first].
    #[arg(long, value_name = "NAME", help_heading = "Network")]
    model_output: Option<String>,
    /// Output of the model that is an early exit; may be given several times. Its logits go to the file of --measurements.
    #[arg(long, value_name = "NAME", requires = "measurements", help_heading = "Network")]
    exit: Vec<String>,
    /// Profile of each cut, in the order of the cuts; a cut may be given twice, with two profiles.
    #[arg(short, long, value_name = "FILE", conflicts_with = "fit_rows", help_heading = "Network")]
    profile: Vec<PathBuf>,
    #[command(flatten)]
    images: ImageArgs,
    /// Rows of the label file to measure on, for example 401-1000 [default: all].
    #[arg(long, value_name = "A-B", value_parser = Rows::parse, help_heading = "Images")]
    rows: Option<Rows>,
    /// Fit a profile for each cut on these rows first; keep them apart from --rows.
    #[arg(long, value_name = "A-B", value_parser = Rows::parse, help_heading = "Images")]
    fit_rows: Option<Rows>,
    #[command(flatten)]
    normalize: NormalizeArgs,
    #[command(flatten)]
    fit: FitArgs,
    /// Step scales to measure: smaller is finer.
    #[arg(long, value_name = "X,X,...", value_delimiter = ',', help_heading = "Measuring",
        default_values_t = [0.35, 0.5, 0.71, 1.0, 1.41, 2.0, 2.83, 4.0])]
    qualities: Vec<f32>,
    /// What to compare with.
    #[arg(long, value_enum, value_name = "NAME,...", value_delimiter = ',', help_heading = "Measuring",
        default_values = ["jpeg", "webp", "png", "features"])]
    baselines: Vec<Baseline>,
    /// Plain rounding instead of rate-distortion optimised quantisation.
    #[arg(long, help_heading = "Measuring")]
    no_rdo: bool,
    #[command(flatten, next_help_heading = "Measuring")]
    backend: BackendArgs,
    /// Workers [default: one a core].
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true, help_heading = "Measuring")]
    threads: usize,
    /// Folder for narrows.csv, narrows.json, narrows.html and the profiles that were fitted.
    #[arg(long, value_name = "DIR", help_heading = "Output")]
    out: Option<PathBuf>,
    /// File for the bytes and answers of every image and the times of every part on one thread: what `plan` and
    /// `simulate` read. The times are taken in a run of their own, so keep the machine quiet.
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    measurements: Option<PathBuf>,
    /// Print the report as JSON in place of the table.
    #[arg(long, help_heading = "Output")]
    json: bool,
}

/// Measures.
pub fn run(args: &Args) -> Result<()> {
    if args.images.labels.is_none() {
        bail!("name the label file with --labels FILE: without labels there is no accuracy to measure");
    }
    if !args.profile.is_empty() && args.profile.len() != args.cut.len() {
        bail!("{} cuts and {} profiles: give one profile for each cut", args.cut.len(), args.profile.len());
    }
    if let Some(bad) = args.qualities.iter().find(|scale| !(scale.is_finite() && **scale > 0.0)) {
        bail!("--qualities takes positive step scales, not {bad}");
    }
    let backend = args.backend.open()?;
    let network = Network::load(&args.model, args.model_output.as_deref())?;
    let normalize = args.normalize.resolve()?;
    let images = args.images.open(&network, args.rows)?;
    let cuts = args.cut.iter().map(|name| network.cut(name, images.size)).collect::<Result<Vec<Cut>>>()?;
    let exits = args.exit.iter().map(|name| network.exit(name)).collect::<Result<Vec<Exit>>>()?;
    let profiles = profiles(args, &network, &cuts, normalize)?;
    for (cut, profile) in cuts.iter().zip(&profiles) {
        if let Some(profile) = profile {
            check(cut, profile)?;
        }
    }
    let job = Job {
        network: &network,
        images: &images,
        normalize,
        image_codecs: image_codecs(&args.baselines),
        cuts: cuts
            .iter()
            .zip(&profiles)
            .map(|(cut, profile)| (cut.clone(), feature_codecs(args, profile, &backend)))
            .collect(),
        exits,
        threads: args.threads,
    };
    let bar = progress_bar();
    bar.set_message("measuring");
    let measured = job.run(&bar)?;
    if let Some(path) = &args.measurements {
        let name = args.model.file_name().unwrap_or_default().to_string_lossy();
        let machine = format!("{}, one thread, backend {}", processor(), backend_text(&backend));
        let file = measurements(&job, &measured, &job.times(&progress_bar())?, &name, machine);
        write(path, &file.to_json().with_context(|| format!("{}", path.display()))?)?;
    }
    let mut pictures = Vec::new();
    for (cut, profile) in cuts.iter().zip(&profiles) {
        pictures.extend(picture(&job, cut, profile.as_ref(), !args.no_rdo, &backend)?);
    }
    let report = Report {
        title: format!("narrows: {}", args.model.file_name().unwrap_or_default().to_string_lossy()),
        about: about(args, &profiles, &backend),
        images: images.len(),
        top1: measured.top1,
        points: measured.points,
        pictures,
    };
    if let Some(folder) = &args.out {
        std::fs::create_dir_all(folder).with_context(|| format!("cannot make the folder {}", folder.display()))?;
        write(&folder.join("narrows.csv"), report.csv().as_bytes())?;
        write(&folder.join("narrows.json"), serde_json::to_string_pretty(&report.json())?.as_bytes())?;
        write(&folder.join("narrows.html"), report.html().as_bytes())?;
    }
    if args.json {
        print_json(&report.json())?
    } else {
        print(report.text())?
    }
    if let Some(folder) = &args.out {
        note(format!("report: {}", folder.join("narrows.html").display()));
    }
    Ok(())
}

/// The profile of each cut: read, fitted, or none.
fn profiles(args: &Args, network: &Network, cuts: &[Cut], normalize: Normalize) -> Result<Vec<Option<Arc<Profile>>>> {
    if !args.profile.is_empty() {
        return args.profile.iter().map(|path| load_profile(path).map(Some)).collect();
    }
    let Some(rows) = args.fit_rows else { return Ok(vec![None; cuts.len()]) };
    if Rows::overlap(Some(rows), args.rows) {
        note(
            "warning: some rows are fitted on and measured too, which flatters narrows: keep --fit-rows and --rows apart",
        );
    }
    let images = args.images.open(network, Some(rows))?;
    let fit = |(i, cut): (usize, &Cut)| {
        note(format!("fitting at {} on rows {rows}", cut.name));
        let profile = fit_network(network, cut, &images, normalize, None, &args.fit.options())?;
        if let Some(folder) = &args.out {
            std::fs::create_dir_all(folder)?;
            write(&folder.join(format!("profile{}.safetensors", i + 1)), &profile.to_bytes())?;
        }
        Ok(Some(Arc::new(profile)))
    };
    cuts.iter().enumerate().map(fit).collect()
}

/// A profile made at another cut would only show as bad numbers.
fn check(cut: &Cut, profile: &Profile) -> Result<()> {
    if profile.layout().shape() != cut.shape {
        bail!(
            "profile {:016x} was fitted on features {:?}, those at {} are {:?}",
            profile.hash(),
            profile.layout().shape(),
            cut.name,
            cut.shape
        );
    }
    Ok(())
}

fn image_codecs(baselines: &[Baseline]) -> Vec<ImageCodec> {
    let mut codecs = Vec::new();
    if baselines.contains(&Baseline::Png) {
        codecs.extend([ImageCodec::Raw, ImageCodec::Png]);
    }
    if baselines.contains(&Baseline::Jpeg) {
        codecs.extend([5, 10, 20, 30, 50, 75, 90, 95].map(ImageCodec::Jpeg));
    }
    if baselines.contains(&Baseline::Webp) {
        codecs.extend([1, 5, 10, 20, 40, 70, 90].map(ImageCodec::WebP));
    }
    codecs
}

fn feature_codecs(args: &Args, profile: &Option<Arc<Profile>>, backend: &Backend) -> Vec<FeatureCodec> {
    let mut codecs = Vec::new();
    if args.baselines.contains(&Baseline::Features) {
        codecs.extend([FeatureCodec::raw_f16(), FeatureCodec::min_max_zstd()]);
        codecs.extend([4, 2].map(|bits| FeatureCodec::packed(bits, true)));
    }
    let narrows = |&scale: &f32| FeatureCodec::narrows(profile.as_ref(), scale, !args.no_rdo);
    codecs.extend(args.qualities.iter().map(narrows));
    codecs.into_iter().map(|codec| codec.on(backend)).collect()
}

fn about(args: &Args, profiles: &[Option<Arc<Profile>>], backend: &Backend) -> Vec<String> {
    let rows = args.rows.map_or("all rows".to_string(), |rows| format!("rows {rows}"));
    let fitted = match args.fit_rows {
        Some(rows) => format!("profiles fitted on rows {rows}"),
        None if args.profile.is_empty() => "no profile".to_string(),
        None => {
            let hashes: Vec<String> =
                profiles.iter().flatten().map(|profile| format!("{:016x}", profile.hash())).collect();
            format!("profiles {}", hashes.join(", "))
        }
    };
    let rdo = if args.no_rdo { ", no rate-distortion optimisation" } else { "" };
    vec![format!("Measured on {rows}; {fitted}{rdo}; backend {}.", backend_text(backend))]
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
