//! What `eval` and `plan` measure: the flags, and what becomes of them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Result, bail};
use clap::ValueEnum;
use narrows::split::Measurements;
use narrows::{Backend, Profile};

use crate::args::{BackendArgs, ImageArgs, backend_text, load_profile};
use crate::codecs::{FeatureCodec, ImageCodec};
use crate::fitting::{FitArgs, fit_network, progress_bar};
use crate::images::{Images, Rows};
use crate::measure::{Job, Measured};
use crate::measurements::{measurements, processor};
use crate::model::{Cut, Exit, Network};
use crate::normalize::{Normalize, NormalizeArgs};
use crate::output::{note, write};

/// What narrows is compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Baseline {
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

/// The flags, but for model and cuts.
#[derive(Debug, clap::Args)]
pub struct MeasureArgs {
    /// Output of the network that is the answer [default: the first].
    #[arg(long, value_name = "NAME", help_heading = "Network")]
    model_output: Option<String>,
    /// Output of the network that is an early exit; may be given several times. Its logits are kept in the measurements.
    #[arg(long, value_name = "NAME", help_heading = "Network")]
    pub exit: Vec<String>,
    /// Profile for each --cut, in the same order; to compare two profiles, give a cut twice.
    #[arg(short, long, value_name = "FILE", conflicts_with = "fit_rows", help_heading = "Network")]
    pub profile: Vec<PathBuf>,
    #[command(flatten)]
    pub images: ImageArgs,
    /// Rows of the label file to measure on, for example 401-1000 [default: all].
    #[arg(long, value_name = "A-B", value_parser = Rows::parse, help_heading = "Images")]
    rows: Option<Rows>,
    /// Fit a profile for each cut on these rows first; they must not overlap --rows.
    #[arg(long, value_name = "A-B", value_parser = Rows::parse, help_heading = "Images")]
    fit_rows: Option<Rows>,
    #[command(flatten)]
    normalize: NormalizeArgs,
    #[command(flatten)]
    fit: FitArgs,
    /// Step scales to measure; smaller is finer.
    #[arg(long, value_name = "X,X,...", value_delimiter = ',', help_heading = "Measuring",
        default_values_t = [0.35, 0.5, 0.71, 1.0, 1.41, 2.0, 2.83, 4.0])]
    qualities: Vec<f32>,
    /// Also measure streams of this many layers, 2 to 4, truncated at the end of each layer.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(2..=4), help_heading = "Measuring")]
    layers: Option<u32>,
    /// Step scales of the finest layer; each coarser layer has steps three times as large.
    #[arg(long, value_name = "X,X,...", value_delimiter = ',', requires = "layers", help_heading = "Measuring",
        default_values_t = [0.35, 0.71])]
    layer_qualities: Vec<f32>,
    /// Codecs to compare with [default: jpeg,webp,png; for `eval` also features].
    #[arg(long, value_enum, value_name = "NAME,...", value_delimiter = ',', help_heading = "Measuring")]
    baselines: Vec<Baseline>,
    /// Plain rounding instead of rate-distortion optimised quantisation.
    #[arg(long, help_heading = "Measuring")]
    pub no_rdo: bool,
    #[command(flatten, next_help_heading = "Measuring")]
    backend: BackendArgs,
    /// Worker threads [default: one per core].
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true, help_heading = "Measuring")]
    threads: usize,
}

impl MeasureArgs {
    /// A flag that was given although it says how to measure, if there is one.
    pub fn given(&self) -> Option<&'static str> {
        [
            ("--model-output", self.model_output.is_some()),
            ("--exit", !self.exit.is_empty()),
            ("--profile", !self.profile.is_empty()),
            ("--images", self.images.images.is_some()),
            ("--labels", self.images.labels.is_some()),
            ("--rows", self.rows.is_some()),
            ("--fit-rows", self.fit_rows.is_some()),
            ("--layers", self.layers.is_some()),
            ("--baselines", !self.baselines.is_empty()),
            ("--no-rdo", self.no_rdo),
            ("--threads", self.threads != 0),
        ]
        .into_iter()
        .find_map(|(flag, given)| given.then_some(flag))
    }
}

/// A network with its images, cuts and profiles, ready to be measured.
pub struct Setup {
    pub network: Network,
    pub images: Box<dyn Images>,
    pub normalize: Normalize,
    pub cuts: Vec<Cut>,
    /// The profile of each cut, if it has one.
    pub profiles: Vec<Option<Arc<Profile>>>,
    pub exits: Vec<Exit>,
    pub backend: Backend,
    /// File name of the network.
    model: String,
}

impl Setup {
    /// Loads the network, opens images, reads or fits profiles. `choose` names the cuts; profiles that were fitted go to
    /// `out`.
    pub fn open(
        args: &MeasureArgs,
        model: &Path,
        out: Option<&Path>,
        choose: impl FnOnce(&Network, (usize, usize)) -> Result<Vec<Cut>>,
    ) -> Result<Setup> {
        for (flag, scales) in [("--qualities", &args.qualities), ("--layer-qualities", &args.layer_qualities)] {
            if let Some(bad) = scales.iter().find(|scale| !(scale.is_finite() && **scale > 0.0)) {
                bail!("{flag} takes positive step scales, not {bad}");
            }
        }
        let backend = args.backend.open()?;
        let network = Network::load(model, args.model_output.as_deref())?;
        let normalize = args.normalize.resolve()?;
        let images = args.images.open_labelled(&network, args.rows)?;
        let cuts = choose(&network, images.size())?;
        let exits = args.exit.iter().map(|name| network.exit(name)).collect::<Result<Vec<Exit>>>()?;
        let profiles = profiles(args, &network, &cuts, normalize, out)?;
        for (cut, profile) in cuts.iter().zip(&profiles) {
            if let Some(profile) = profile {
                check(cut, profile)?;
            }
        }
        if args.layers.is_some() && profiles.iter().any(Option::is_none) {
            bail!("--layers needs a profile for each cut: name them with --profile, or fit them with --fit-rows");
        }
        let model = model.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Ok(Setup { network, images, normalize, cuts, profiles, exits, backend, model })
    }

    /// What is to be measured; `baselines` where the flags name none.
    pub fn job(&self, args: &MeasureArgs, baselines: &[Baseline]) -> Job<'_> {
        let baselines = if args.baselines.is_empty() { baselines } else { &args.baselines };
        let codecs = |(cut, profile): (&Cut, _)| (cut.clone(), feature_codecs(args, baselines, profile, &self.backend));
        Job {
            network: &self.network,
            images: &*self.images,
            normalize: self.normalize,
            image_codecs: image_codecs(baselines),
            cuts: self.cuts.iter().zip(&self.profiles).map(codecs).collect(),
            exits: self.exits.clone(),
            threads: args.threads,
        }
    }

    /// Times the parts of a job, for the file of measurements. Without labels, accuracy is agreement.
    pub fn measurements(&self, args: &MeasureArgs, job: &Job<'_>, measured: &Measured) -> Result<Measurements> {
        let machine = format!("{}, one thread, backend {}", processor(), backend_text(&self.backend));
        let file = measurements(job, measured, &job.times(&progress_bar())?, &self.model, machine);
        Ok(if args.images.labels.is_some() { file } else { file.by_agreement() })
    }

    /// What was measured, on what, with what, in a sentence.
    pub fn about(&self, args: &MeasureArgs) -> String {
        let rows = args.rows.map_or("all rows".to_string(), |rows| format!("rows {rows}"));
        let fitted = match args.fit_rows {
            Some(rows) => format!("profiles fitted on rows {rows}"),
            None if args.profile.is_empty() => "no profile".to_string(),
            None => {
                let hashes = self.profiles.iter().flatten().map(|profile| format!("{:016x}", profile.hash()));
                format!("profiles {}", hashes.collect::<Vec<_>>().join(", "))
            }
        };
        let rdo = if args.no_rdo { ", no rate-distortion optimisation" } else { "" };
        format!("Measured on {rows}; {fitted}{rdo}; backend {}.", backend_text(&self.backend))
    }
}

/// The profile of each cut: read, fitted, or none.
fn profiles(
    args: &MeasureArgs,
    network: &Network,
    cuts: &[Cut],
    normalize: Normalize,
    out: Option<&Path>,
) -> Result<Vec<Option<Arc<Profile>>>> {
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
        let profile = fit_network(network, cut, &*images, normalize, None, &args.fit.options())?;
        if let Some(folder) = out {
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

fn feature_codecs(
    args: &MeasureArgs,
    baselines: &[Baseline],
    profile: &Option<Arc<Profile>>,
    backend: &Backend,
) -> Vec<FeatureCodec> {
    let mut codecs = Vec::new();
    if baselines.contains(&Baseline::Features) {
        codecs.extend([FeatureCodec::raw_f16(), FeatureCodec::min_max_zstd()]);
        codecs.extend([4, 2].map(|bits| FeatureCodec::packed(bits, true)));
    }
    let narrows = |&scale: &f32| FeatureCodec::narrows(profile.as_ref(), scale, !args.no_rdo);
    codecs.extend(args.qualities.iter().map(narrows));
    if let (Some(layers), Some(profile)) = (args.layers, profile) {
        let layer =
            |&scale| (1..=layers).map(move |layer| FeatureCodec::layer(profile, scale, !args.no_rdo, (layer, layers)));
        codecs.extend(args.layer_qualities.iter().flat_map(layer));
    }
    codecs.into_iter().map(|codec| codec.on(backend)).collect()
}
