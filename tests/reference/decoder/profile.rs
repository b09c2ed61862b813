//! The file of a profile, taken on trust: of version 2 those without networks.

use std::collections::HashMap;

use super::Kind::{Corrupt, Truncated, Unsupported};
use super::{DTYPES, Layout, Reader, Result, refuse_if};

/// A profile: its layout, and the scalars and tensors that decoding needs, by name.
pub struct Profile(pub(super) Layout, pub(super) HashMap<&'static str, Vec<i64>>);

impl Profile {
    /// What the step index gains at a quality index, for a coder channel.
    pub(super) fn gain(&self, q: i64, channel: usize) -> i64 {
        let (anchor, gain) = (&self.1["anchor"], &self.1["gain"]);
        let at = |k: usize| if gain.is_empty() { 0 } else { gain[k * self.1["step"].len() + channel] };
        match anchor.iter().position(|&b| q < b) {
            Some(0) => at(0),
            None => at(anchor.len() - 1),
            Some(k) => {
                let (a, b, u, v) = (anchor[k - 1], anchor[k], at(k - 1), at(k));
                u + ((v - u) * (q - a) + (b - a) / 2).div_euclid(b - a)
            }
        }
    }
}

/// What follows a key in JSON without white space.
fn after<'a>(json: &'a str, key: &str) -> Result<&'a str> {
    Ok(json.split_once(&format!("\"{key}\":")).ok_or(Corrupt)?.1)
}

/// The number or list of numbers that is next.
fn numbers(json: &str) -> Vec<i64> {
    json.trim_start_matches('[').split([',', ']', '}']).map_while(|number| number.parse().ok()).collect()
}

/// Reads a `.safetensors` file and takes its tensors as they are.
pub fn read(file: &[u8]) -> Result<Profile> {
    let mut data = Reader(file);
    let length = data.uint(8)? as usize;
    let header = String::from_utf8_lossy(data.take(length)?).replace("\\\"", "\"");
    let scalars = after(&header, "profile")?;
    let version = numbers(after(scalars, "version")?);
    refuse_if(version != [1] && version != [2], Unsupported)?;
    let mut of = HashMap::from([("gain", vec![])]);
    for name in "batch_axis channel_axis context dct_shifts exponent matrix_shifts shape".split(' ') {
        of.insert(name, numbers(after(scalars, name)?));
    }
    let mut i16s = (2, -1, "anchor dct.columns dct.rows matrix.inverse range");
    if version == [2] {
        let network = |name| Ok(!after(scalars, name)?.starts_with("null"));
        refuse_if(network("analysis")? || network("synthesis")?, Unsupported)?;
        of.insert("exponent", numbers(after(scalars, "latent_exponent")?));
        i16s.2 = "anchor dct.columns dct.rows gain matrix.inverse range";
    }
    let bytes = (1, 255, "band_matrix level map offset");
    for (size, mask, names) in [i16s, bytes, (1, -1, "context_offset"), (2, 65_535, "bank step"), (4, -1, "mean")] {
        for name in names.split(' ') {
            let place = numbers(after(after(&header, name)?, "data_offsets")?);
            let &[start, end] = &place[..] else { return Err(Corrupt) };
            let tensor = data.0.get(start as usize..end as usize).ok_or(Truncated)?.chunks(size);
            of.insert(name, tensor.map(|bytes| Ok(Reader(bytes).int(size)? & mask)).collect::<Result<_>>()?);
        }
    }
    let dtype = after(scalars, "dtype")?.split('"').nth(1);
    let dtype = DTYPES.iter().position(|d| Some(d.0) == dtype).ok_or(Unsupported)?;
    let axis = |name| of[name].first().map(|&axis| axis as usize);
    let shape = of["shape"].iter().map(|&n| n as u64).collect();
    let layout = Layout::new(dtype, shape, axis("channel_axis").ok_or(Corrupt)?, axis("batch_axis"))?;
    of.insert("block", ["dct.rows", "dct.columns"].map(|name| of[name].len().isqrt() as i64).to_vec());
    let hash = u64::from_str_radix(after(&header, "hash")?.split('"').nth(1).unwrap_or(""), 16);
    of.insert("hash", vec![hash.map_err(|_| Corrupt)? as i64]);
    Ok(Profile(layout, of))
}
