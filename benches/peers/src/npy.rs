//! Just enough of numpy's file format: little-endian arrays in C order.

use std::path::Path;

/// The values of a file.
pub enum Values {
    /// `int8`.
    I8(Vec<i8>),
    /// `int16`.
    I16(Vec<i16>),
    /// `float32`.
    F32(Vec<f32>),
}

/// An array.
pub struct Array {
    /// Its dimensions.
    pub shape: Vec<usize>,
    /// Its values, the last dimension fastest.
    pub values: Values,
}

impl Array {
    /// The values of an integer array.
    pub fn integers(&self) -> Option<Vec<i32>> {
        match &self.values {
            Values::I8(v) => Some(v.iter().map(|&v| v.into()).collect()),
            Values::I16(v) => Some(v.iter().map(|&v| v.into()).collect()),
            Values::F32(_) => None,
        }
    }
}

/// Reads a file.
pub fn read(path: &Path) -> Result<Array, String> {
    let bytes = std::fs::read(path).map_err(|e| format!("{}: {e}", path.display()))?;
    parse(&bytes).ok_or_else(|| format!("{}: not a C-order npy file of int8, int16 or float32", path.display()))
}

/// Reads the bytes of a file.
fn parse(bytes: &[u8]) -> Option<Array> {
    let rest = bytes.strip_prefix(b"\x93NUMPY")?;
    let (head, data) = match *rest.first()? {
        1 => split(rest.get(4..)?, u16::from_le_bytes(rest.get(2..4)?.try_into().ok()?).into())?,
        _ => split(rest.get(6..)?, u32::from_le_bytes(rest.get(2..6)?.try_into().ok()?) as usize)?,
    };
    let head = std::str::from_utf8(head).ok()?;
    if !head.contains("'fortran_order': False") {
        return None;
    }
    let shape = head.split_once("'shape': (")?.1.split_once(')')?.0;
    let shape: Vec<usize> = shape.split(',').filter_map(|n| n.trim().parse().ok()).collect();
    let count = shape.iter().try_fold(1usize, |a, &b| a.checked_mul(b))?;
    let values = if head.contains("'|i1'") {
        Values::I8(data.get(..count)?.iter().map(|&b| b as i8).collect())
    } else if head.contains("'<i2'") {
        Values::I16(words(data.get(..count.checked_mul(2)?)?).map(i16::from_le_bytes).collect())
    } else if head.contains("'<f4'") {
        Values::F32(words(data.get(..count.checked_mul(4)?)?).map(f32::from_le_bytes).collect())
    } else {
        return None;
    };
    Some(Array { shape, values })
}

/// Splits where there is enough to split.
fn split(bytes: &[u8], at: usize) -> Option<(&[u8], &[u8])> {
    bytes.split_at_checked(at)
}

/// The bytes in groups of `N`.
fn words<const N: usize>(bytes: &[u8]) -> impl Iterator<Item = [u8; N]> {
    bytes.as_chunks::<N>().0.iter().copied()
}

/// Writes messages of equal length as an array of bytes, one row for each.
pub fn write_messages(path: &Path, messages: &[Vec<u8>], shape: &[usize]) -> std::io::Result<()> {
    let shape: Vec<String> =
        std::iter::once(messages.len()).chain(shape.iter().copied()).map(|n| n.to_string()).collect();
    let mut head = format!("{{'descr': '|u1', 'fortran_order': False, 'shape': ({}), }}", shape.join(", "));
    let padded = (10 + head.len() + 1).next_multiple_of(64) - 10;
    head.extend(std::iter::repeat_n(' ', padded - head.len() - 1));
    head.push('\n');
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((head.len() as u16).to_le_bytes());
    bytes.extend(head.bytes());
    bytes.extend(messages.iter().flatten());
    std::fs::write(path, bytes)
}
