//! Profiles as bytes: one `.safetensors` file whose metadata holds the scalars as JSON.

use std::collections::HashMap;

use half::f16;
use hmac_sha256::Hash;
use safetensors::tensor::{Dtype as FileDtype, SafeTensors, TensorView, serialize};
use serde_json::{Value, json};

use crate::container::Layout;
use crate::entropy::bank::{Bank, TABLES, UNIT_SCALE};
use crate::entropy::token::TOKENS;
use crate::error::{Error, Result};
use crate::kernels::portable::{CONTEXTS, ContextRule};
use crate::limits::Limits;
use crate::network::{Analysis, Network, Stored};
use crate::profile::{ChannelPair, Dct, Profile};
use crate::tensor::{Axes, Dtype};

/// Versions of the profile format: without networks and gains, and with them.
const VERSION: u64 = 1;
const VERSION_WITH_NETWORKS: u64 = 2;
/// The one metadata key; a single one, so that files are equal to the byte.
const KEY: &str = "narrows";

/// The tensors of a profile, in alphabetical order.
const TENSORS: [&str; 14] = [
    "anchor",
    "band_matrix",
    "bank",
    "context_offset",
    "dct.columns",
    "dct.rows",
    "level",
    "map",
    "matrix.forward",
    "matrix.inverse",
    "mean",
    "offset",
    "range",
    "step",
];

/// The tensors that version 2 has as well, in alphabetical order.
const NETWORK_TENSORS: [&str; 4] = ["analysis.constants", "analysis.values", "analysis.weights", "gain"];
/// The numbers of the synthesis network: f32, or f16 where all of them are.
const SYNTHESIS: &str = "synthesis.values";

/// Most values in the JSON of a profile's header; ordinary ones have some hundreds.
const MAX_VALUES: u64 = 65_536;

/// A tensor as it goes into the file.
struct Entry {
    name: &'static str,
    dtype: FileDtype,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

trait Scalar: Copy {
    const DTYPE: FileDtype;
    fn put(self, out: &mut Vec<u8>);
    fn get(bytes: &[u8]) -> Self;
}

macro_rules! scalar {
    ($type:ty, $dtype:ident) => {
        impl Scalar for $type {
            const DTYPE: FileDtype = FileDtype::$dtype;
            fn put(self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.to_le_bytes());
            }
            fn get(bytes: &[u8]) -> Self {
                let mut own = [0; size_of::<$type>()];
                own.copy_from_slice(bytes);
                <$type>::from_le_bytes(own)
            }
        }
    };
}
scalar!(u8, U8);
scalar!(i8, I8);
scalar!(u16, U16);
scalar!(i16, I16);
scalar!(i32, I32);
scalar!(f32, F32);
scalar!(f16, F16);

fn entry<T: Scalar>(name: &'static str, shape: &[usize], values: impl IntoIterator<Item = T>) -> Entry {
    let mut bytes = Vec::new();
    values.into_iter().for_each(|value| value.put(&mut bytes));
    Entry { name, dtype: T::DTYPE, shape: shape.to_vec(), bytes }
}

/// A tensor of one axis.
fn flat<T: Scalar>(name: &'static str, values: impl IntoIterator<Item = T, IntoIter: ExactSizeIterator>) -> Entry {
    let values = values.into_iter();
    entry(name, &[values.len()], values)
}

/// The bytes of a tensor.
fn data<'f, T: Scalar>(file: &SafeTensors<'f>, name: &'static str) -> Result<&'f [u8]> {
    let tensor = file.tensor(name).map_err(|_| Error::corrupt("a tensor of the profile is missing", 0))?;
    if tensor.dtype() != T::DTYPE {
        return Err(Error::corrupt("a tensor of the profile has the wrong type", 0));
    }
    Ok(tensor.data())
}

fn read<T: Scalar>(file: &SafeTensors<'_>, name: &'static str) -> Result<Vec<T>> {
    Ok(data::<T>(file, name)?.chunks_exact(size_of::<T>()).map(T::get).collect())
}

impl Profile {
    /// The profile as the bytes of a `.safetensors` file; equal profiles give equal bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let metadata = json!({
            "profile": self.scalars(),
            "hash": format!("{:016x}", self.hash),
            "notes": self.notes,
        });
        let entries: Vec<Entry> = self.names().map(|name| self.entry(name)).collect();
        let views = entries.iter().map(|entry| {
            let view = TensorView::new(entry.dtype, entry.shape.clone(), &entry.bytes);
            (entry.name, view.expect("the entry's size fits its shape"))
        });
        let metadata = HashMap::from([(KEY.to_string(), metadata.to_string())]);
        serialize(views, &Some(metadata)).expect("a profile fits the safetensors format")
    }

    /// Reads a profile and checks it: shapes, ranges, overflow bounds and content hash.
    ///
    /// # Errors
    /// `Corrupt` if the bytes are not a profile or were changed, `Unsupported` for a later version,
    /// `LimitExceeded` if it asks for more than the default [`Limits`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Profile> {
        Profile::from_bytes_with(bytes, &Limits::default())
    }

    /// As [`Profile::from_bytes`], with other limits.
    ///
    /// # Errors
    /// As there.
    pub fn from_bytes_with(bytes: &[u8], limits: &Limits) -> Result<Profile> {
        Profile::read(bytes, limits, false)
    }

    /// Makes a profile of a file that another program wrote in the format of FORMAT.md, without a hash. What a
    /// [`refit`](Profile::refit) fits may be missing: `anchor`, `bank`, `context_offset`, `level`, `map`, `offset`.
    ///
    /// # Errors
    /// As [`Profile::from_bytes`].
    pub fn assemble(bytes: &[u8]) -> Result<Profile> {
        Profile::read(bytes, &Limits::default(), true)
    }

    fn read(bytes: &[u8], limits: &Limits, draft: bool) -> Result<Profile> {
        Limits::check("bytes of a profile", bytes.len() as u64, limits.profile_bytes)?;
        let foreign = || Error::corrupt("not a narrows profile (a .safetensors file made by `narrows fit`)", 0);
        let length = bytes.first_chunk().map(|&length| u64::from_le_bytes(length)).ok_or_else(foreign)?;
        let header = usize::try_from(length).ok().and_then(|length| bytes[8..].get(..length)).ok_or_else(foreign)?;
        if header.first() != Some(&b'{') {
            return Err(foreign());
        }
        Limits::check("bytes of a profile's header", length, limits.header_bytes)?;
        // Each of these may become a value of its own, far larger than its text.
        let values = header.iter().filter(|&&byte| matches!(byte, b',' | b':' | b'[' | b'{')).count();
        Limits::check("values in a profile's header", values as u64, MAX_VALUES)?;
        let file = SafeTensors::deserialize(bytes).map_err(|_| foreign())?;
        let (_, header) = SafeTensors::read_metadata(bytes).map_err(|_| foreign())?;
        let text = header.metadata().as_ref().and_then(|map| map.get(KEY)).ok_or_else(foreign)?;
        let metadata: Value = serde_json::from_str(text).map_err(|_| foreign())?;
        let scalars = &metadata["profile"];
        let number =
            |key: &str| scalars[key].as_i64().ok_or(Error::corrupt("a number in the profile's metadata is missing", 0));
        let version = number("version")? as u64;
        if version != VERSION && version != VERSION_WITH_NETWORKS {
            return Err(Error::Unsupported { what: "a profile of another format version" });
        }
        let networks = version == VERSION_WITH_NETWORKS;
        let small = |key: &str, max: i64| {
            let value = number(key)?;
            if !(0..=max).contains(&value) {
                return Err(Error::corrupt("a number in the profile's metadata is out of range", 0));
            }
            Ok(value as u32)
        };
        let list = |key: &str| -> Result<Vec<usize>> {
            let values = scalars[key].as_array().ok_or(Error::corrupt("a list in the profile is missing", 0))?;
            values
                .iter()
                .map(|value| value.as_u64().and_then(|value| usize::try_from(value).ok()))
                .collect::<Option<_>>()
                .ok_or(Error::corrupt("a list in the profile's metadata", 0))
        };
        let axes = Axes {
            channels: small("channel_axis", 7)? as usize,
            batch: scalars["batch_axis"].as_u64().map(|axis| axis as usize),
        };
        let dtype = scalars["dtype"].as_str().and_then(Dtype::from_name);
        let dtype = dtype.ok_or(Error::Unsupported { what: "the element type of the profile" })?;
        let layout = Layout::new(dtype, axes, &list("shape")?)
            .map_err(|_| Error::corrupt("the shape or the axes of the profile", 0))?;
        let dct_shifts = list("dct_shifts")?;
        let shifts = list("matrix_shifts")?;
        if dct_shifts.len() != 2 || !shifts.len().is_multiple_of(2) {
            return Err(Error::corrupt("the shifts of the profile", 0));
        }
        let side = |name, shift: usize| -> Result<Dct> { Ok(Dct { matrix: read(&file, name)?, shift: shift as u32 }) };
        Limits::check("channel matrices of a profile", shifts.len() as u64 / 2, limits.tables)?;
        let stored = |name| -> Result<Vec<f32>> {
            let tensor = file.tensor(name).map_err(|_| Error::corrupt("a tensor of the profile is missing", 0))?;
            if tensor.dtype() == FileDtype::F16 {
                return Ok(read::<f16>(&file, name)?.into_iter().map(f16::to_f32).collect());
            }
            read(&file, name)
        };
        let analysis = match &scalars["analysis"] {
            value if networks && !value.is_null() => {
                let stored = Stored {
                    weights: read(&file, "analysis.weights")?,
                    constants: read(&file, "analysis.constants")?,
                    values: stored("analysis.values")?,
                };
                Some(Analysis::read(layout.channels(), value, &stored, limits)?)
            }
            _ => None,
        };
        let channels = analysis.as_ref().map_or(layout.channels(), Analysis::outputs);
        let synthesis = match &scalars["synthesis"] {
            value if networks && !value.is_null() => {
                let stored = Stored { values: stored(SYNTHESIS)?, ..Stored::default() };
                Some(Network::read(channels, &value["nodes"], &stored, limits)?)
            }
            _ => None,
        };
        let square = channels as u64 * channels as u64;
        let (forward, inverse) = (data::<i16>(&file, "matrix.forward")?, data::<i16>(&file, "matrix.inverse")?);
        let size = square.saturating_mul(shifts.len() as u64 / 2).saturating_mul(2);
        if forward.len() as u64 != size || inverse.len() as u64 != size {
            return Err(Error::corrupt("the channel matrices of the profile", 0));
        }
        let matrices = shifts
            .chunks_exact(2)
            .enumerate()
            .map(|(i, shifts)| {
                let size = 2 * square as usize;
                let matrix = |all: &[u8]| all[i * size..][..size].chunks_exact(2).map(i16::get).collect();
                ChannelPair::new((matrix(forward), shifts[0] as u32), (matrix(inverse), shifts[1] as u32))
            })
            .collect();
        let has = |name| !draft || file.tensor(name).is_ok();
        let bank: Vec<u16> = if has("bank") { read(&file, "bank")? } else { Vec::new() };
        Limits::check("tables of a profile", (bank.len() / TOKENS) as u64, limits.tables)?;
        let mut tables = Vec::new();
        for table in bank.chunks_exact(TOKENS) {
            tables.push(table.try_into().expect("a chunk of exactly that size"));
        }
        let pairs = |values: Vec<i16>| values.chunks_exact(2).map(|pair| [pair[0], pair[1]]).collect();
        let triples = |values: Vec<u8>| values.chunks_exact(3).map(|o| [o[0], o[1], o[2]]).collect();
        let mut profile = Profile {
            layout,
            exponent: i32::try_from(number("exponent")?).unwrap_or(i32::MAX),
            range: pairs(read(&file, "range")?),
            dct: [side("dct.rows", dct_shifts[0])?, side("dct.columns", dct_shifts[1])?],
            matrices,
            band_matrix: read(&file, "band_matrix")?,
            means: read(&file, "mean")?,
            steps: read(&file, "step")?,
            rounding: small("rounding", 128)? as u8,
            lambda: small("lambda", 65_535)? as u16,
            bank: if has("bank") { Bank::new(tables)? } else { Bank::builtin() },
            offsets: if has("offset") { triples(read(&file, "offset")?) } else { vec![[0; 3]; TABLES] },
            context: ContextRule::from_code(small("context", 255)? as u8)
                .ok_or(Error::Unsupported { what: "the context rule of the profile" })?,
            context_offsets: if has("context_offset") {
                let offsets = read::<i8>(&file, "context_offset")?.try_into();
                offsets.map_err(|_| Error::corrupt("the context offsets of the profile", 0))?
            } else {
                [0; CONTEXTS]
            },
            anchors: if has("anchor") { read(&file, "anchor")? } else { vec![0] },
            levels: if has("level") { read(&file, "level")? } else { Vec::new() },
            maps: if has("map") { read(&file, "map")? } else { Vec::new() },
            analysis,
            synthesis,
            latent_exponent: 0,
            gains: if networks { read(&file, "gain")? } else { Vec::new() },
            notes: metadata["notes"].as_str().unwrap_or_default().to_string(),
            hash: 0,
        };
        profile.latent_exponent =
            if networks { i32::try_from(number("latent_exponent")?).unwrap_or(i32::MAX) } else { profile.exponent };
        if draft && !has("level") {
            let middle = |count| vec![UNIT_SCALE as u8; count];
            profile.levels = middle(profile.anchors.len() * profile.coder_channels());
            profile.maps = middle(profile.levels.len() * profile.map_contexts());
        }
        profile.validate(limits)?;
        profile.hash = profile.content_hash();
        if draft {
            return Ok(profile);
        }
        if metadata["hash"].as_str() != Some(&format!("{:016x}", profile.hash)) {
            return Err(Error::corrupt("the content hash of the profile does not match: the file was changed", 0));
        }
        Ok(profile)
    }

    /// The first eight bytes of SHA-256 over the scalars and the tensors, little-endian.
    pub(crate) fn content_hash(&self) -> u64 {
        let mut hasher = Hash::new();
        hasher.update(self.scalars().to_string());
        for name in self.names() {
            let entry = self.entry(name);
            hasher.update(entry.name);
            hasher.update((entry.bytes.len() as u64).to_le_bytes());
            hasher.update(&entry.bytes);
        }
        u64::from_le_bytes(hasher.finalize()[..8].try_into().expect("eight bytes"))
    }

    /// The scalars as JSON, keys in alphabetical order.
    fn scalars(&self) -> Value {
        let mut scalars = json!({
            "batch_axis": self.layout.axes.batch,
            "channel_axis": self.layout.axes.channels,
            "context": self.context.code(),
            "dct_shifts": self.dct.each_ref().map(|dct| dct.shift),
            "dtype": self.layout.dtype.name(),
            "exponent": self.exponent,
            "lambda": self.lambda,
            "matrix_shifts": self.matrices.iter().flat_map(|m| [m.forward_shift, m.inverse_shift]).collect::<Vec<_>>(),
            "rounding": self.rounding,
            "shape": self.layout.dims(),
            "version": VERSION,
        });
        if self.is_extended() {
            scalars["analysis"] = self.analysis.as_ref().map_or(Value::Null, Analysis::describe);
            scalars["latent_exponent"] = json!(self.latent_exponent);
            scalars["synthesis"] =
                self.synthesis.as_ref().map_or(Value::Null, |network| json!({"nodes": network.describe()}));
            scalars["version"] = json!(VERSION_WITH_NETWORKS);
        }
        scalars
    }

    /// Whether it needs version 2.
    fn is_extended(&self) -> bool {
        self.has_networks() || !self.gains.is_empty()
    }

    /// The names of its tensors, in alphabetical order.
    fn names(&self) -> impl Iterator<Item = &'static str> + use<> {
        let extended = self.is_extended();
        let mut names = TENSORS.to_vec();
        if extended {
            names.extend(NETWORK_TENSORS);
            names.push(SYNTHESIS);
            names.sort_unstable();
        }
        names.into_iter()
    }

    /// One of the [`TENSORS`].
    fn entry(&self, name: &'static str) -> Entry {
        let channels = self.channels();
        let coder = self.coder_channels();
        let anchors = self.anchors.len();
        let matrices = self.matrices.len();
        let [rows, columns] = self.dct.each_ref().map(Dct::side);
        let matrix = |pick: fn(&ChannelPair) -> &Vec<i16>| {
            entry(name, &[matrices, channels, channels], self.matrices.iter().flat_map(pick).copied())
        };
        let bank = self.bank.frequencies();
        let analysis = match (&self.analysis, name.starts_with("analysis")) {
            (Some(analysis), true) => analysis.store(),
            _ => Stored::default(),
        };
        match name {
            "anchor" => entry(name, &[anchors], self.anchors.iter().copied()),
            "analysis.constants" => flat(name, analysis.constants),
            "analysis.values" => flat(name, analysis.values),
            "analysis.weights" => flat(name, analysis.weights),
            "band_matrix" => entry(name, &[self.band_matrix.len()], self.band_matrix.iter().copied()),
            "bank" => entry(name, &[bank.len(), TOKENS], bank.iter().flatten().copied()),
            "context_offset" => entry(name, &[self.context_offsets.len()], self.context_offsets),
            "dct.columns" => entry(name, &[columns, columns], self.dct[1].matrix.iter().copied()),
            "dct.rows" => entry(name, &[rows, rows], self.dct[0].matrix.iter().copied()),
            "level" => entry(name, &[anchors, coder], self.levels.iter().copied()),
            "gain" => flat(name, self.gains.iter().copied()),
            "map" => entry(name, &[anchors, coder, self.map_contexts()], self.maps.iter().copied()),
            "matrix.forward" => matrix(|pair| &pair.forward),
            "matrix.inverse" => matrix(|pair| &pair.inverse),
            "mean" => entry(name, &[coder], self.means.iter().copied()),
            "offset" => entry(name, &[self.offsets.len(), 3], self.offsets.iter().flatten().copied()),
            "range" => entry(name, &[channels, 2], self.range.iter().flatten().copied()),
            SYNTHESIS => {
                let values = self.synthesis.as_ref().map_or(Vec::new(), |network| network.store().values);
                let half = |value: f32| f16::from_f32(value);
                if values.iter().all(|&value| half(value).to_f32() == value) {
                    flat(name, values.into_iter().map(half))
                } else {
                    flat(name, values)
                }
            }
            _ => entry("step", &[coder], self.steps.iter().copied()),
        }
    }
}
