//! Samples and tails for `Profile::fit`: features of a network, or of files, without holding them all.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use indicatif::{ProgressBar, ProgressStyle};
use narrows::fit::{FitEvent, FitOptions, Samples, Tail, Weights};
use narrows::{Error, Feature, Profile};
use ndarray::{ArrayD, IxDyn};

use crate::files;
use crate::files::rows::NpyRows;
use crate::images::Images;
use crate::model::{Cut, Network, stack};
use crate::normalize::Normalize;
use crate::output::note;
use crate::units;

/// Images or features to run at once while fitting.
const BATCH: usize = 16;

/// Gradient samples from a `.npy` file [n * k, ...]: k rows for each feature.
pub struct Gradients {
    rows: NpyRows,
    each: usize,
}

impl Gradients {
    /// Opens the file for `count` features of this shape.
    pub fn open(path: &Path, count: usize, shape: &[usize]) -> Result<Gradients> {
        let rows = NpyRows::open(path)?;
        let (own, wanted): (usize, usize) = (rows.row_shape().iter().product(), shape.iter().product());
        if own != wanted {
            bail!(
                "{}: a gradient has {own} elements {:?}, a feature {wanted} {shape:?}",
                path.display(),
                rows.row_shape()
            );
        }
        if count == 0 || rows.len() == 0 || rows.len() % count != 0 {
            bail!(
                "{}: {} gradients can not be shared out among {count} features: a multiple of {count} is wanted",
                path.display(),
                rows.len()
            );
        }
        Ok(Gradients { each: rows.len() / count, rows })
    }

    fn of(&mut self, i: usize, shape: &[usize]) -> Result<Vec<ArrayD<f32>>> {
        (i * self.each..(i + 1) * self.each).map(|row| Ok(self.rows.row(row, shape)?.to_f32())).collect()
    }
}

/// Where the features to fit on come from.
enum Source {
    /// Written one after the other to a temporary file.
    Spool { file: File, count: usize, shape: Vec<usize> },
    /// The rows of a `.npy` file.
    Rows(NpyRows),
    /// One feature a file.
    Files(Vec<PathBuf>),
    /// The arrays of one file.
    Arrays(Vec<Feature>),
}

/// Features to fit on, with gradients if there are any.
pub struct FitSamples {
    source: Source,
    gradients: Option<Gradients>,
}

impl FitSamples {
    /// Runs the head on all images and keeps the features in a temporary file.
    pub fn from_network(
        network: &Network,
        cut: &Cut,
        images: &dyn Images,
        normalize: Normalize,
        bar: &ProgressBar,
    ) -> Result<FitSamples> {
        let unwritable = "cannot write a temporary file for the features (see TMPDIR)";
        let mut file = tempfile::tempfile().context(unwritable)?;
        bar.set_length(images.len() as u64);
        bar.set_message("running the head");
        for first in (0..images.len()).step_by(network.batch(BATCH)) {
            let last = (first + network.batch(BATCH)).min(images.len());
            let pixels = (first..last).map(|i| images.pixels(i)).collect::<Result<Vec<_>>>()?;
            let features = network.head(&normalize.batch(&pixels)?, cut, &None)?;
            let bytes: Vec<u8> = features.iter().flat_map(|x| x.to_le_bytes()).collect();
            file.write_all(&bytes).context(unwritable)?;
            bar.inc((last - first) as u64);
        }
        let source = Source::Spool { file, count: images.len(), shape: cut.shape.clone() };
        Ok(FitSamples { source, gradients: None })
    }

    /// Features in files: the rows of one `.npy` (`batch`), the arrays of one file, or one array a file.
    pub fn from_files(paths: &[PathBuf], batch: bool) -> Result<FitSamples> {
        let source = match paths {
            [path] if batch => {
                let rows =
                    NpyRows::open(path).context("--batch wants one .npy file whose first axis counts features")?;
                Source::Rows(rows)
            }
            _ if batch => bail!("--batch wants one .npy file whose first axis counts features"),
            [path] => Source::Arrays(files::read_all(path)?.into_iter().map(|(_, feature)| feature).collect()),
            paths => Source::Files(paths.to_vec()),
        };
        Ok(FitSamples { source, gradients: None })
    }

    /// Adds gradient samples from a file.
    pub fn with_gradients(mut self, path: &Path) -> Result<FitSamples> {
        let shape = self.feature(0)?.shape().to_vec();
        self.gradients = Some(Gradients::open(path, self.len(), &shape)?);
        Ok(self)
    }

    fn read(&mut self, i: usize) -> Result<Feature> {
        match &mut self.source {
            Source::Spool { file, shape, .. } => {
                let mut bytes = vec![0; shape.iter().product::<usize>() * 4];
                file.seek(SeekFrom::Start(i as u64 * bytes.len() as u64))?;
                file.read_exact(&mut bytes).context("the temporary file of features")?;
                let values = bytes.as_chunks().0.iter().map(|&element| f32::from_le_bytes(element)).collect();
                Ok(Feature::F32(ArrayD::from_shape_vec(IxDyn(shape), values)?))
            }
            Source::Rows(rows) => {
                let shape = [&[1], rows.row_shape()].concat();
                rows.row(i, &shape)
            }
            Source::Files(paths) => files::read_one(&paths[i], None),
            Source::Arrays(features) => Ok(features[i].clone()),
        }
    }
}

impl Samples for FitSamples {
    fn len(&self) -> usize {
        match &self.source {
            Source::Spool { count, .. } => *count,
            Source::Rows(rows) => rows.len(),
            Source::Files(paths) => paths.len(),
            Source::Arrays(features) => features.len(),
        }
    }

    fn feature(&mut self, i: usize) -> narrows::Result<Feature> {
        self.read(i).map_err(library_error)
    }

    fn gradients(&mut self, i: usize) -> narrows::Result<Vec<ArrayD<f32>>> {
        if self.gradients.is_none() {
            return Ok(Vec::new());
        }
        let shape = self.feature(i)?.shape().to_vec();
        self.gradients.as_mut().map_or(Ok(Vec::new()), |gradients| gradients.of(i, &shape)).map_err(library_error)
    }
}

/// The tail of a network, for probing.
pub struct NetworkTail<'a> {
    /// The network.
    pub network: &'a Network,
    /// Where it is cut.
    pub cut: &'a Cut,
}

impl Tail for NetworkTail<'_> {
    fn logits(&mut self, features: &[ArrayD<f32>]) -> narrows::Result<Vec<Vec<f32>>> {
        let mut logits = Vec::with_capacity(features.len());
        for batch in features.chunks(self.network.batch(BATCH)) {
            let batch = stack(batch).map_err(library_error)?;
            logits.extend(self.network.tail(&batch, self.cut, &None).map_err(library_error)?);
        }
        Ok(logits)
    }
}

fn library_error(error: anyhow::Error) -> Error {
    Error::InvalidInput(format!("{error:#}").into())
}

/// A progress bar on standard error; silent where that is not a terminal.
pub fn progress_bar() -> ProgressBar {
    let style = ProgressStyle::with_template("{msg:24} {wide_bar} {pos}/{len} {eta}");
    ProgressBar::no_length().with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

/// Shows what `fit` reports: progress on the bar, and what it tried as lines on standard error.
pub fn show(bar: &ProgressBar, event: FitEvent<'_>) {
    match event {
        FitEvent::Progress { stage, done, total } => {
            if bar.message() != stage {
                bar.set_message(stage.to_string());
            }
            bar.set_length(total as u64);
            bar.set_position(done as u64);
        }
        FitEvent::Note(text) => bar.suspend(|| note(text)),
        _ => {}
    }
}

/// Flags of a fit, shared by `fit` and `eval`.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Fitting")]
pub struct FitArgs {
    /// Source of the task weights, which say how much each part of the feature matters to the answer.
    #[arg(long, value_enum, default_value = "auto")]
    pub weights: WeightsArg,
    /// Block sizes of the DCT to try [default: by the size of the feature].
    #[arg(long, value_name = "N,N,...", value_delimiter = ',')]
    pub blocks: Vec<usize>,
    /// Operating point of the profile at scale 1: KL divergence from the uncut network, in nats.
    #[arg(long, value_name = "NATS", value_parser = units::positive)]
    pub target: Option<f64>,
}

/// Names for [`Weights`].
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
pub enum WeightsArg {
    /// Gradients if given, else probing if there is a model, else none.
    Auto,
    /// No weights: every element counts the same.
    None,
    /// Gradient samples from --gradients.
    Gradients,
    /// The tail's answers to small perturbations of the feature.
    Probe,
}

impl FitArgs {
    /// The options of the library.
    pub fn options(&self) -> FitOptions {
        let defaults = FitOptions::default();
        let weights = match self.weights {
            WeightsArg::Auto => Weights::Auto,
            WeightsArg::None => Weights::Unweighted,
            WeightsArg::Gradients => Weights::Gradients,
            WeightsArg::Probe => Weights::Probe,
        };
        FitOptions {
            weights,
            blocks: (!self.blocks.is_empty()).then(|| self.blocks.clone()),
            target: self.target.unwrap_or(defaults.target),
            ..defaults
        }
    }
}

/// Fits a profile to the feature at a cut of a network.
pub fn fit_network(
    network: &Network,
    cut: &Cut,
    images: &dyn Images,
    normalize: Normalize,
    gradients: Option<&Path>,
    options: &FitOptions,
) -> Result<Profile> {
    let bar = progress_bar();
    let mut samples = FitSamples::from_network(network, cut, images, normalize, &bar)?;
    if let Some(path) = gradients {
        samples = samples.with_gradients(path)?;
    }
    let mut tail = NetworkTail { network, cut };
    let profile = Profile::fit(&mut samples, Some(&mut tail), options, &mut |event| show(&bar, event));
    bar.finish_and_clear();
    profile.with_context(|| format!("fitting at {}", cut.name))
}
