//! numpy's `.npy`: a header (read and written by `ndarray-npy`), then the elements.

use std::io::Read;

use anyhow::{Context, Result, bail};
use half::{bf16, f16};
use narrows::{Dtype, Element, Feature};
use ndarray::{ArrayD, IxDyn, ShapeBuilder};
use ndarray_npy::npy::header::{Header, Layout, ReadHeaderError};

/// The first bytes of a `.npy` file.
pub const MAGIC: &[u8] = b"\x93NUMPY";

/// Longest header; that of a feature has about a hundred bytes.
const MAX_HEADER: usize = 10_000;
/// Most brackets that a header opens, that of a feature having two: each one inside another doubles the time that the
/// parser takes.
const MAX_BRACKETS: usize = 8;

/// What the header of a `.npy` file says.
pub struct Description {
    /// Element type.
    pub dtype: Dtype,
    /// Length of each axis.
    pub shape: Vec<usize>,
    /// True if the first axis varies fastest (Fortran order).
    pub fortran: bool,
}

impl Description {
    /// Reads a header; the reader is left at the first element.
    pub fn read(reader: &mut impl Read) -> Result<Description> {
        let header = Self::header_bytes(reader)?;
        let header = Header::from_reader(&mut &header[..]).map_err(|error| match error {
            ReadHeaderError::Io(_) => anyhow::anyhow!("the .npy header is cut off"),
            other => anyhow::anyhow!("a damaged .npy header: {other}"),
        })?;
        let descriptor = header.type_descriptor.to_string();
        let dtype = match descriptor.trim_matches('\'') {
            "<f4" => Dtype::F32,
            "<f2" => Dtype::F16,
            "|i1" => Dtype::I8,
            "|u1" => Dtype::U8,
            other => bail!(
                "its elements are {other}: features are f32, f16, i8 or u8, little-endian \
                 (convert with numpy: array.astype('float32'))"
            ),
        };
        Ok(Description { dtype, shape: header.shape, fortran: matches!(header.layout, Layout::Fortran) })
    }

    /// The bytes of a header, as many as there are of it; its claims on memory and stack are checked.
    fn header_bytes(reader: &mut impl Read) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let mut take = |count: usize| -> Result<Vec<u8>> {
            reader.take(count as u64).read_to_end(&mut bytes).context("the .npy header cannot be read")?;
            Ok(bytes.clone())
        };
        // Magic and version, then the length: two bytes in version 1, four in later ones.
        let field = if take(8)?.get(6) == Some(&1) { 2 } else { 4 };
        let length = take(field)?.iter().skip(8).rev().fold(0, |length, &byte| length << 8 | usize::from(byte));
        if length > MAX_HEADER {
            bail!("a damaged .npy header: it claims {length} bytes, that of a feature has about a hundred");
        }
        let bytes = take(length)?;
        if bytes.iter().filter(|&byte| b"([{".contains(byte)).count() > MAX_BRACKETS {
            bail!("the .npy header is not that of a plain array: more than {MAX_BRACKETS} brackets");
        }
        Ok(bytes)
    }

    /// Number of bytes of all elements. Axes of length 0 count as 1 in the check that memory can hold them.
    pub fn bytes(&self) -> Result<usize> {
        let mut sizes = self.shape.iter().map(|&size| size.max(1));
        let most = sizes
            .try_fold(self.dtype.size(), usize::checked_mul)
            .context("the .npy header claims more elements than memory can hold")?;
        Ok(if self.shape.contains(&0) { 0 } else { most })
    }
}

/// The array in the bytes of a `.npy` file.
pub fn parse(bytes: &[u8]) -> Result<Feature> {
    let mut rest = bytes;
    let description = Description::read(&mut rest)?;
    let needed = description.bytes()?;
    if rest.len() < needed {
        bail!("the file is cut off: {needed} bytes of elements announced, {} there", rest.len());
    }
    if rest.len() > needed {
        bail!("{} unexpected bytes after the array", rest.len() - needed);
    }
    if !description.fortran {
        return from_element_bytes(description.dtype, &description.shape, rest);
    }
    let reversed: Vec<usize> = description.shape.iter().rev().copied().collect();
    Ok(match from_element_bytes(description.dtype, &reversed, rest)? {
        Feature::F32(array) => Feature::F32(array.reversed_axes()),
        Feature::F16(array) => Feature::F16(array.reversed_axes()),
        Feature::I8(array) => Feature::I8(array.reversed_axes()),
        Feature::U8(array) => Feature::U8(array.reversed_axes()),
        other => other,
    })
}

/// A feature as the bytes of a `.npy` file.
pub fn to_bytes(feature: &Feature) -> Result<Vec<u8>> {
    let descriptor = match feature.dtype() {
        Dtype::F32 => "'<f4'",
        Dtype::F16 => "'<f2'",
        Dtype::I8 => "'|i1'",
        Dtype::U8 => "'|u1'",
        Dtype::Bf16 => bail!("numpy has no bf16: write a .safetensors file"),
    };
    let header = Header {
        type_descriptor: descriptor.parse().context("a numpy type descriptor")?,
        layout: Layout::Standard,
        shape: feature.shape().to_vec(),
    };
    let mut bytes = header.to_bytes()?;
    bytes.extend_from_slice(&element_bytes(feature)?);
    Ok(bytes)
}

/// The elements in row-major order, little-endian.
pub fn element_bytes(feature: &Feature) -> Result<Vec<u8>> {
    Ok(match feature {
        Feature::F32(array) => array.iter().flat_map(|x| x.to_le_bytes()).collect(),
        Feature::F16(array) => array.iter().flat_map(|x| x.to_le_bytes()).collect(),
        Feature::Bf16(array) => array.iter().flat_map(|x| x.to_le_bytes()).collect(),
        Feature::I8(array) => array.iter().flat_map(|x| x.to_le_bytes()).collect(),
        Feature::U8(array) => array.iter().copied().collect(),
        _ => bail!("an element type that files do not have"),
    })
}

/// A feature from its elements in row-major order, little-endian.
pub fn from_element_bytes(dtype: Dtype, shape: &[usize], bytes: &[u8]) -> Result<Feature> {
    fn array<T: Element, const N: usize>(shape: &[usize], bytes: &[u8], read: fn([u8; N]) -> T) -> Result<ArrayD<T>> {
        let (elements, _) = bytes.as_chunks::<N>();
        let values: Vec<T> = elements.iter().map(|&element| read(element)).collect();
        Ok(ArrayD::from_shape_vec(IxDyn(shape).into_shape_with_order(), values)?)
    }
    Ok(match dtype {
        Dtype::F32 => Feature::F32(array(shape, bytes, f32::from_le_bytes)?),
        Dtype::F16 => Feature::F16(array(shape, bytes, f16::from_le_bytes)?),
        Dtype::Bf16 => Feature::Bf16(array(shape, bytes, bf16::from_le_bytes)?),
        Dtype::I8 => Feature::I8(array(shape, bytes, i8::from_le_bytes)?),
        Dtype::U8 => Feature::U8(array(shape, bytes, u8::from_le_bytes)?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file that ends with its header.
    fn file(version: u8, length: u32, text: &str) -> Vec<u8> {
        let field = if version == 1 { 2 } else { 4 };
        [MAGIC, &[version, 0], &length.to_le_bytes()[..field], text.as_bytes()].concat()
    }

    #[test]
    fn the_claimed_length_of_a_header_is_not_allocated() {
        let error = parse(&file(3, u32::MAX, "{")).err().unwrap().to_string();
        assert!(error.contains("claims 4294967295 bytes"), "{error}");
        let error = parse(&file(2, 1000, "{")).err().unwrap().to_string();
        assert!(error.contains("cut off"), "{error}");
    }

    #[test]
    fn nested_brackets_in_a_header_do_not_take_exponential_time() {
        let text = format!("{}\n", "[".repeat(60));
        let error = parse(&file(1, text.len() as u32, &text)).err().unwrap().to_string();
        assert!(error.contains("brackets"), "{error}");
    }

    #[test]
    fn a_header_of_any_version_is_read() {
        let text = "{'descr': '|u1', 'fortran_order': False, 'shape': (3,), }\n";
        for version in 1..=3 {
            let bytes = [&file(version, text.len() as u32, text)[..], &[7, 8, 9]].concat();
            assert_eq!(parse(&bytes).unwrap().to_f32().into_raw_vec_and_offset().0, [7.0, 8.0, 9.0]);
        }
    }
}
