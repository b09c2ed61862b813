//! numpy's `.npy`: a header (read and written by `ndarray-npy`), then the elements.

use std::io::Read;

use anyhow::{Context, Result, bail};
use half::{bf16, f16};
use narrows::{Dtype, Element, Feature};
use ndarray::{ArrayD, IxDyn, ShapeBuilder};
use ndarray_npy::npy::header::{Header, Layout};

/// The first bytes of a `.npy` file.
pub const MAGIC: &[u8] = b"\x93NUMPY";

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
        let text = header_bytes(reader)?;
        let header =
            Header::from_reader(&mut &text[..]).map_err(|error| anyhow::anyhow!("a damaged .npy header: {error}"))?;
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

    /// Number of bytes of all elements. Axes of length 0 count as 1 in the check that memory can hold them.
    pub fn bytes(&self) -> Result<usize> {
        let mut sizes = self.shape.iter().map(|&size| size.max(1));
        let most = sizes
            .try_fold(self.dtype.size(), usize::checked_mul)
            .context("the .npy header claims more elements than memory can hold")?;
        Ok(if self.shape.contains(&0) { 0 } else { most })
    }
}

/// Largest header that is read.
const MAX_HEADER: usize = 1 << 20;
/// Deepest nesting of brackets in a header; numpy's have two.
const MAX_DEPTH: usize = 16;

/// The header with all before it, of a length and depth that parsing can stand.
fn header_bytes(reader: &mut impl Read) -> Result<Vec<u8>> {
    let cut_off = || "the .npy header is cut off";
    // Magic, version, then the length in two bytes, or from version 2 on in four.
    let mut bytes = vec![0; MAGIC.len() + 4];
    reader.read_exact(&mut bytes).with_context(cut_off)?;
    if !bytes.starts_with(MAGIC) {
        bail!("it is not a .npy file");
    }
    if bytes[MAGIC.len()] > 1 {
        bytes.resize(MAGIC.len() + 6, 0);
        reader.read_exact(&mut bytes[MAGIC.len() + 4..]).with_context(cut_off)?;
    }
    let length = bytes[MAGIC.len() + 2..].iter().rev().fold(0usize, |length, &byte| length << 8 | usize::from(byte));
    if length > MAX_HEADER {
        bail!("a .npy header of {length} bytes: at most {MAX_HEADER} are read");
    }
    let start = bytes.len();
    bytes.resize(start + length, 0);
    reader.read_exact(&mut bytes[start..]).with_context(cut_off)?;
    let mut depth = 0usize;
    for byte in &bytes[start..] {
        match byte {
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > MAX_DEPTH {
            bail!("a damaged .npy header: brackets in brackets, {MAX_DEPTH} deep");
        }
    }
    Ok(bytes)
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
