//! `narrows fit`: sample features become a profile.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use narrows::Profile;
use narrows::fit::Samples;
use serde_json::json;

use crate::args::ImageArgs;
use crate::fitting::{FitArgs, FitSamples, fit_network, progress_bar, show};
use crate::images::Rows;
use crate::model::Network;
use crate::normalize::NormalizeArgs;
use crate::output::{self, note, print_json, shape_text, thousands, write};

const EXAMPLES: &str = "\
Examples:
  narrows fit --model net.onnx --cut NAME --images photos --labels labels.csv --rows 1-400 \\
      --normalize imagenet -o net.profile.safetensors
  # from one file of features, whose first axis counts the samples
  narrows fit features.npy --batch -o net.profile.safetensors
  narrows fit samples/*.npy --gradients g.npy -o net.profile.safetensors

A few hundred inputs of the kind that the network will see are enough; labels are not used.
What was tried and what was chosen is printed, and kept in the profile (`narrows inspect`).

With a model, the tail is probed to find which parts of the feature matter to its answer
(--weights probe). Gradient samples can say so instead: an array [samples * k, ...] with k
consecutive rows per sample. With neither, every element counts the same, and streams are much
larger at equal accuracy.

Never fit on the data that you measure with.";

/// Fit a profile to sample features of a cut.
///
/// Some hundreds of inputs of the kind that the network will see are enough. Labels are not used. What
/// was tried and why it was chosen is printed, and kept in the profile (see `narrows inspect`).
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Sample features in place of a model: .npy, .npz or .safetensors files, one feature per array.
    #[arg(conflicts_with_all = ["model", "cut", "images"])]
    features: Vec<PathBuf>,
    /// File to write the profile to (.safetensors).
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Treat the first axis of the single .npy file as the sample index; samples are read one by one.
    #[arg(long, requires = "features")]
    batch: bool,
    /// The network (.onnx).
    #[arg(long, value_name = "FILE", requires = "cut", help_heading = "Network")]
    model: Option<PathBuf>,
    /// Tensor at which to cut the network; a wrong name lists all of them.
    #[arg(long, value_name = "NAME", requires = "model", help_heading = "Network")]
    cut: Option<String>,
    /// Output of the network that is the answer [default: the first].
    #[arg(long, value_name = "NAME", help_heading = "Network")]
    model_output: Option<String>,
    #[command(flatten)]
    images: ImageArgs,
    /// Rows of the label file to fit on, for example 1-400 [default: all].
    #[arg(long, value_name = "A-B", value_parser = Rows::parse, help_heading = "Images")]
    rows: Option<Rows>,
    #[command(flatten)]
    normalize: NormalizeArgs,
    #[command(flatten)]
    fit: FitArgs,
    /// Keep the transform, steps and networks of this profile and fit only its tables, as trained drafts require.
    #[arg(long, value_name = "FILE", conflicts_with = "gradients", help_heading = "Fitting")]
    refit: Option<PathBuf>,
    /// Gradient samples of the answer at the features: .npy [samples * k, ...], read row by row.
    #[arg(long, value_name = "FILE", help_heading = "Fitting")]
    gradients: Option<PathBuf>,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
}

/// Fits.
pub fn run(args: &Args) -> Result<()> {
    output::check(&args.output)?;
    let files = [&args.model, &args.gradients, &args.refit, &args.images.labels];
    let files = files.into_iter().flatten().chain(&args.features).map(PathBuf::as_path);
    output::check_apart(&args.output, files)?;
    let options = args.fit.options();
    let (profile, samples) = match (&args.model, &args.cut) {
        _ if args.refit.is_some() => refit(args)?,
        (Some(model), Some(cut)) => {
            let network = Network::load(model, args.model_output.as_deref())?;
            let normalize = args.normalize.resolve()?;
            let images = args.images.open(&network, args.rows)?;
            let cut = network.cut(cut, images.size())?;
            let gradients = args.gradients.as_deref();
            (fit_network(&network, &cut, &*images, normalize, gradients, &options)?, images.len())
        }
        _ if args.features.is_empty() => {
            bail!("give a model (--model, --cut, --images) or files with sample features; see narrows fit --help")
        }
        _ => {
            let mut samples = FitSamples::from_files(&args.features, args.batch)?;
            if samples.len() == 1 && !args.batch {
                note("note: this is one sample; if its first axis counts samples, say --batch");
            }
            if let Some(path) = &args.gradients {
                samples = samples.with_gradients(path)?;
            }
            let bar = progress_bar();
            let profile = Profile::fit(&mut samples, None, &options, &mut |event| show(&bar, event));
            bar.finish_and_clear();
            (profile.context("fitting")?, samples.len())
        }
    };
    let bytes = profile.to_bytes();
    write(&args.output, &bytes)?;
    if args.json {
        return print_json(&json!({
            "profile": args.output,
            "hash": format!("{:016x}", profile.hash()),
            "bytes": bytes.len(),
            "samples": samples,
            "shape": profile.layout().dims(),
            "block": [profile.block().0, profile.block().1],
            "matrices": profile.matrices(),
            "notes": profile.notes(),
        }));
    }
    costs(&profile);
    note(format!(
        "{}: profile {:016x} for {} {}, {} bytes, fitted on {samples} features",
        args.output.display(),
        profile.hash(),
        shape_text(&profile.layout().shape()),
        profile.layout().dtype.name(),
        thousands(bytes.len() as u64),
    ));
    Ok(())
}

/// Tables for a profile that is given.
fn refit(args: &Args) -> Result<(Profile, usize)> {
    let path = args.refit.as_deref().context("--refit names no file")?;
    let bytes = std::fs::read(path).with_context(|| format!("reading {}", path.display()))?;
    let draft = Profile::assemble(&bytes).with_context(|| format!("reading {}", path.display()))?;
    let bar = progress_bar();
    let mut samples = match (&args.model, &args.cut) {
        (Some(model), Some(cut)) => {
            let network = Network::load(model, args.model_output.as_deref())?;
            let images = args.images.open(&network, args.rows)?;
            let cut = network.cut(cut, images.size())?;
            FitSamples::from_network(&network, &cut, &*images, args.normalize.resolve()?, &bar)?
        }
        _ if args.features.is_empty() => bail!("--refit needs a model with images, or files with sample features"),
        _ => FitSamples::from_files(&args.features, args.batch)?,
    };
    let profile = draft.refit(&mut samples, &mut |event| show(&bar, event));
    bar.finish_and_clear();
    Ok((profile.context("fitting tables")?, samples.len()))
}

/// What the networks of a profile cost, if it has any.
fn costs(profile: &Profile) {
    for (name, cost) in ["analysis", "synthesis"].into_iter().zip(profile.cost(profile.layout())) {
        if let Some(cost) = cost {
            note(format!(
                "{name} network: {:.2} million multiply-accumulates, {} parameters",
                cost.macs as f64 / 1e6,
                thousands(cost.parameters)
            ));
        }
    }
}
