//! Arguments that several commands share.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result};
use clap::Args;
use narrows::Profile;

use crate::images::{Folder, Rows};
use crate::model::Network;

/// Labelled images.
#[derive(Debug, Args)]
#[command(next_help_heading = "Images")]
pub struct ImageArgs {
    /// Folder of images (.png .jpg .jpeg .webp). They are resized and centre-cropped only if their
    /// size is not that of the input of the network.
    #[arg(long, value_name = "DIR")]
    pub images: Option<PathBuf>,
    /// Label file: CSV with a header, a column `file` and the class index (from 0) in a column
    /// `label` or `imagenet_index0`; or lines `file,class` without a header.
    #[arg(long, value_name = "FILE")]
    pub labels: Option<PathBuf>,
}

impl ImageArgs {
    /// Opens the folder, for a network.
    pub fn open(&self, network: &Network, rows: Option<Rows>) -> Result<Folder> {
        let folder = self.images.as_deref().context("name the folder of images with --images DIR")?;
        Folder::open(folder, self.labels.as_deref(), rows, network.input_size)
    }
}

/// Reads a profile; the error names the file.
pub fn load_profile(path: &std::path::Path) -> Result<Arc<Profile>> {
    let bytes = crate::files::read_bytes(path)?;
    let profile = Profile::from_bytes(&bytes).with_context(|| format!("profile {}", path.display()))?;
    Ok(Arc::new(profile))
}
