//! Arguments that several commands share.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use clap::Args;
use narrows::{Backend, Level, Profile};

use crate::images::{Folder, Images, Rows, Sheet, sheet_labels};
use crate::model::Network;

/// Labelled images.
#[derive(Debug, Args)]
#[command(next_help_heading = "Images")]
pub struct ImageArgs {
    /// Folder of images (.png .jpg .jpeg .webp), resized and centre-cropped if their size is not that
    /// of the network's input; or one image file, a sheet of square tiles of exactly that size.
    #[arg(long, value_name = "DIR")]
    pub images: Option<PathBuf>,
    /// Label file: CSV with a header, a column `file`, and the class index (from 0) in a column
    /// `label`, `class`, `target` or `imagenet_index0`; or lines `file,class` without a header. For a
    /// sheet: one class per line, in the order of the tiles, row by row.
    #[arg(long, value_name = "FILE")]
    pub labels: Option<PathBuf>,
}

impl ImageArgs {
    /// Opens the images, for a network whose answers are compared with their labels.
    pub fn open_labelled(&self, network: &Network, rows: Option<Rows>) -> Result<Box<dyn Images>> {
        let images = self.open(network, rows)?;
        let (Some(path), Some(class)) = (&self.labels, (0..images.len()).map(|i| images.label(i)).max()) else {
            return Ok(images);
        };
        let classes = network.classes(images.size())?;
        if class >= classes {
            bail!(
                "labels {}: class {class}, and the network has {classes} classes, 0 to {}{}",
                path.display(),
                classes.saturating_sub(1),
                if class == classes { "; do those of the file begin at 1?" } else { "" }
            );
        }
        Ok(images)
    }

    /// Opens the images, for a network.
    pub fn open(&self, network: &Network, rows: Option<Rows>) -> Result<Box<dyn Images>> {
        let path = self.images.as_deref().context("name the folder of images with --images DIR")?;
        if !path.is_file() {
            return Ok(Box::new(Folder::open(path, self.labels.as_deref(), rows, network.input_size)?));
        }
        let labels = self.labels.as_deref().context("a sheet of images needs its labels: --labels FILE")?;
        let text = std::fs::read_to_string(labels)
            .with_context(|| format!("cannot read the labels {} as text", labels.display()))?;
        let (height, width) = network.input_size.context("a sheet needs a network whose input has a fixed size")?;
        if height != width {
            bail!("the tiles of a sheet are square, the input of the network is {height}x{width}");
        }
        let labels = sheet_labels(&text).with_context(|| format!("labels {}", labels.display()))?;
        let bytes = crate::files::read_bytes(path)?;
        let sheet = Sheet::open(&bytes, labels, width as u32, rows).with_context(|| path.display().to_string())?;
        Ok(Box::new(sheet))
    }
}

/// Where the kernels run.
#[derive(Debug, Args)]
pub struct BackendArgs {
    /// Backend for encoding and decoding: portable, sse4.2, avx2, avx512, neon or gpu; all give the same bytes
    /// [default: the fastest one of the processor, or the one that NARROWS_BACKEND names].
    #[arg(long, value_name = "NAME")]
    backend: Option<String>,
}

/// The environment variable that lowers the backend.
const VARIABLE: &str = "NARROWS_BACKEND";

/// Checks the variable that lowers the backend: the library ignores a name that there is not, and a user would not know.
pub fn check_variable() -> Result<()> {
    let wanted = std::env::var(VARIABLE).unwrap_or_default();
    let names: Vec<&str> = std::iter::once("portable").chain(Level::ALL.map(Level::name)).collect();
    if !wanted.is_empty() && !names.contains(&wanted.as_str()) {
        bail!("no backend {wanted}, which {VARIABLE} names: there are {}", names.join(", "));
    }
    Ok(())
}

impl BackendArgs {
    /// The backend; the error lists those that there are.
    pub fn open(&self) -> Result<Backend> {
        match self.backend.as_deref() {
            None => Ok(Backend::detect()),
            Some("gpu") => {
                let device = narrows::gpu::Device::request().context("--backend gpu")?;
                Ok(Backend::Gpu(device))
            }
            Some(name) => Backend::from_name(name).with_context(|| {
                let names: Vec<&str> = Backend::available().iter().map(Backend::name).collect();
                format!("no backend {name} on this machine: there are {}, and gpu if it has a driver", names.join(", "))
            }),
        }
    }
}

/// A backend in words: `avx2`, `gpu (name of the adapter)`.
pub fn backend_text(backend: &Backend) -> String {
    match backend {
        Backend::Gpu(device) => format!("gpu, {}", device.info()),
        backend => backend.name().to_string(),
    }
}

/// Reads a profile; the error names the file.
pub fn load_profile(path: &std::path::Path) -> Result<Arc<Profile>> {
    let bytes = crate::files::read_bytes(path)?;
    let profile = Profile::from_bytes(&bytes).with_context(|| format!("profile {}", path.display()))?;
    Ok(Arc::new(profile))
}
