//! Feature files: `.npy`, `.npz` and `.safetensors`, told apart by their first bytes.

pub mod npy;
pub mod rows;

use std::ffi::OsStr;
use std::fs;
use std::io::{Cursor, Read, Write};
use std::path::Path;

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use narrows::{Dtype, Feature};
use safetensors::tensor::{Dtype as FileDtype, SafeTensors, TensorView};

use crate::output::is_pipe;

/// Largest file that is read whole.
const MAX_BYTES: u64 = 4 << 30;

/// A file format for features.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// One array, as numpy saves it (f32, f16, i8, u8).
    Npy,
    /// A zip archive of .npy arrays.
    Npz,
    /// Tensors by name (f32, f16, bf16, i8, u8).
    Safetensors,
}

impl Format {
    /// The format that a file name asks for.
    pub fn of_name(path: &Path) -> Result<Format> {
        match path.extension().and_then(OsStr::to_str) {
            Some("npy") => Ok(Format::Npy),
            Some("npz") => Ok(Format::Npz),
            Some("safetensors") => Ok(Format::Safetensors),
            _ => {
                bail!("{}: the name must end in .npy, .npz or .safetensors, or say which with --format", path.display())
            }
        }
    }

    fn of_bytes(bytes: &[u8]) -> Option<Format> {
        if bytes.starts_with(npy::MAGIC) {
            Some(Format::Npy)
        } else if bytes.starts_with(b"PK") {
            Some(Format::Npz)
        } else {
            (bytes.get(8) == Some(&b'{')).then_some(Format::Safetensors)
        }
    }
}

/// Reads a whole file, or standard input for `-`; empty ones are refused.
pub fn read_bytes(path: &Path) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    if is_pipe(path) {
        std::io::stdin().lock().take(MAX_BYTES).read_to_end(&mut bytes).context("cannot read standard input")?;
        if bytes.is_empty() {
            bail!("standard input is empty");
        }
        return Ok(bytes);
    }
    let failed = || format!("cannot read {}", path.display());
    let file = fs::File::open(path).with_context(failed)?;
    if file.metadata().with_context(failed)?.is_dir() {
        bail!("{} is a directory, a file is wanted", path.display());
    }
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes).with_context(failed)?;
    if bytes.is_empty() {
        bail!("{} is empty", path.display());
    }
    if bytes.len() as u64 > MAX_BYTES {
        bail!("{} is larger than 4 GiB", path.display());
    }
    Ok(bytes)
}

/// A name for messages: the path, or "standard input".
pub fn display(path: &Path) -> String {
    if is_pipe(path) { "standard input".into() } else { path.display().to_string() }
}

/// The arrays of a feature file with their names (`None` in a `.npy`), in the order of the names.
pub fn parse_all(bytes: &[u8]) -> Result<Vec<(Option<String>, Feature)>> {
    match Format::of_bytes(bytes) {
        Some(Format::Npy) => Ok(vec![(None, npy::parse(bytes)?)]),
        Some(Format::Npz) => parse_npz(bytes),
        Some(Format::Safetensors) => parse_safetensors(bytes),
        None => bail!("it is neither .npy, .npz nor .safetensors"),
    }
}

/// Reads all arrays of a file.
pub fn read_all(path: &Path) -> Result<Vec<(Option<String>, Feature)>> {
    parse_all(&read_bytes(path)?).with_context(|| display(path))
}

/// Whether these are the bytes of a feature file, and not of a stream.
pub fn is_feature(bytes: &[u8]) -> bool {
    bytes.starts_with(b"\x93NUMPY") || bytes.starts_with(b"PK\x03\x04")
}

/// Reads one array of a file: the one that is named, or the only one.
pub fn read_one(path: &Path, array: Option<&str>) -> Result<Feature> {
    let mut all = read_all(path)?;
    let names = |all: &[(Option<String>, Feature)]| {
        all.iter().filter_map(|(name, _)| name.as_deref()).collect::<Vec<_>>().join(", ")
    };
    let position = match array {
        Some(wanted) => match all.iter().position(|(name, _)| name.as_deref() == Some(wanted)) {
            Some(position) => position,
            None if names(&all).is_empty() => bail!("{}: it has one array, without a name", display(path)),
            None => bail!("{}: it has no array {wanted}, only {}", display(path), names(&all)),
        },
        None => match all.len() {
            0 => bail!("{}: it holds no array", display(path)),
            1 => 0,
            count => bail!("{}: it has {count} arrays, choose one with --array: {}", display(path), names(&all)),
        },
    };
    Ok(all.swap_remove(position).1)
}

/// A feature as the bytes of a file; `name` is used where the format has names.
pub fn to_bytes(feature: &Feature, format: Format, name: &str) -> Result<Vec<u8>> {
    match format {
        Format::Npy => npy::to_bytes(feature),
        Format::Npz => {
            let mut archive = zip::ZipWriter::new(Cursor::new(Vec::new()));
            let options = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
            archive.start_file(format!("{name}.npy"), options)?;
            archive.write_all(&npy::to_bytes(feature)?)?;
            Ok(archive.finish()?.into_inner())
        }
        Format::Safetensors => {
            let dtype = match feature.dtype() {
                Dtype::F32 => FileDtype::F32,
                Dtype::F16 => FileDtype::F16,
                Dtype::Bf16 => FileDtype::BF16,
                Dtype::I8 => FileDtype::I8,
                Dtype::U8 => FileDtype::U8,
            };
            let data = npy::element_bytes(feature)?;
            let view = TensorView::new(dtype, feature.shape().to_vec(), &data)?;
            Ok(safetensors::serialize([(name, view)], &None)?)
        }
    }
}

fn parse_npz(bytes: &[u8]) -> Result<Vec<(Option<String>, Feature)>> {
    let mut archive = zip::ZipArchive::new(Cursor::new(bytes)).context("a damaged .npz (zip) file")?;
    let mut arrays = Vec::new();
    let mut room = MAX_BYTES;
    for i in 0..archive.len() {
        let file = archive.by_index(i).context("a damaged .npz (zip) file")?;
        let Some(name) = file.name().strip_suffix(".npy").map(str::to_string) else { continue };
        let mut entry = Vec::new();
        // What an entry says of its size is a claim; a small archive can hold a great deal.
        file.take(room + 1).read_to_end(&mut entry).with_context(|| format!("array {name}: damaged"))?;
        room = room.checked_sub(entry.len() as u64).context("the arrays of the .npz take more than 4 GiB together")?;
        let array = npy::parse(&entry).with_context(|| format!("array {name}"))?;
        arrays.push((Some(name), array));
    }
    arrays.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(arrays)
}

fn parse_safetensors(bytes: &[u8]) -> Result<Vec<(Option<String>, Feature)>> {
    let file = SafeTensors::deserialize(bytes).context("a damaged .safetensors file")?;
    let mut arrays = Vec::new();
    for (name, tensor) in file.tensors() {
        let dtype = match tensor.dtype() {
            FileDtype::F32 => Dtype::F32,
            FileDtype::F16 => Dtype::F16,
            FileDtype::BF16 => Dtype::Bf16,
            FileDtype::I8 => Dtype::I8,
            FileDtype::U8 => Dtype::U8,
            other => bail!("tensor {name} is {other:?}: features are f32, f16, bf16, i8 or u8"),
        };
        let feature = npy::from_element_bytes(dtype, tensor.shape(), tensor.data())?;
        arrays.push((Some(name), feature));
    }
    arrays.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(arrays)
}
