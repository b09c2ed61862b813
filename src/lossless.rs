//! Mode `Lossless`: byte planes through zstd.

use std::fmt;

use zerocopy::IntoBytes;
use zstd::bulk::Compressor;

use crate::container::{Head, Header, Layout, Reader, put_varint};
use crate::error::{Error, Result};
use crate::tensor::{Element, Feature, FeatureView, ViewData, with_array};

/// zstd's level: most of the gain on float planes is had by here.
const LEVEL: i32 = 9;

/// The lossless method and its buffers.
#[derive(Default)]
pub(crate) struct Lossless {
    compressor: Option<Compressor<'static>>,
    plane: Vec<u8>,
    packed: Vec<u8>,
}

impl fmt::Debug for Lossless {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lossless").finish_non_exhaustive()
    }
}

impl Clone for Lossless {
    fn clone(&self) -> Self {
        Lossless::default()
    }
}

fn failed(error: std::io::Error) -> Error {
    Error::Backend(format!("zstd: {error}").into())
}

impl Lossless {
    /// Header, then for every byte plane its length (that of the plane itself: stored) and its bytes.
    pub fn encode(&mut self, view: &FeatureView<'_>, header: &Header, out: &mut Vec<u8>) -> Result<()> {
        let layout = layout_of(header)?;
        header.write(out);
        let start = out.len();
        let compressor = match &mut self.compressor {
            Some(compressor) => compressor,
            none => none.insert(Compressor::new(LEVEL).map_err(failed)?),
        };
        let elements = layout.elements()?;
        self.packed.resize(zstd::zstd_safe::compress_bound(elements), 0);
        for plane in 0..layout.dtype.size() {
            self.plane.clear();
            with_array!(ViewData, view.data(), array => self.plane.extend(array.iter().map(|x| x.bytes()[plane])));
            let length = compressor.compress_to_buffer(&self.plane, &mut self.packed[..]).map_err(failed)?;
            let bytes = if length < elements { &self.packed[..length] } else { &self.plane[..] };
            put_varint(bytes.len() as u64, out);
            out.extend_from_slice(bytes);
        }
        Head::seal(header, start, out);
        Ok(())
    }
}

/// Most bytes of any stream above those of the feature itself.
pub(crate) const OVERHEAD: usize = 64;

/// Takes the place of a stream that is longer than the feature itself and [`OVERHEAD`] bytes: noise in fine steps.
pub(crate) fn instead(view: &FeatureView<'_>, header: &Header, out: &mut Vec<u8>) -> Result<()> {
    if out.len() > view.len() * view.dtype().size() + OVERHEAD {
        out.clear();
        Lossless::default().encode(view, header, out)?;
    }
    Ok(())
}

fn layout_of(header: &Header) -> Result<Layout> {
    header.layout.ok_or(Error::corrupt("a lossless stream has no shape", 1))
}

/// Decodes into `feature`; the planes are taken apart in its own memory.
pub(crate) fn decode(bytes: &[u8], header: &Header, reader: Reader<'_>, feature: &mut Feature) -> Result<()> {
    let layout = layout_of(header)?;
    let mut reader = Head::unseal(bytes, header, reader)?;
    if header.chunks != 1 {
        return Err(Error::corrupt("a lossless stream has one chunk", reader.offset()));
    }
    let elements = layout.elements()?;
    let size = layout.dtype.size();
    let mut planes = [(0, &[][..]); 4];
    for plane in &mut planes[..size] {
        let offset = reader.offset();
        let length = reader.varint("the length of a byte plane")? as usize;
        *plane = (offset, reader.take(length, "a byte plane")?);
        if !is_plausible(plane.1, elements) {
            return Err(Error::corrupt("a byte plane is not valid zstd of its size", offset));
        }
    }
    if !reader.rest().is_empty() {
        return Err(Error::corrupt("bytes left over after the byte planes", reader.offset()));
    }
    feature.reshape(&layout);
    if elements == 0 {
        return Ok(());
    }
    let result = with_array!(Feature, &mut *feature, array => {
        unpack(&planes[..size], array.as_slice_mut().unwrap_or_default().as_mut_bytes())
    });
    if result.is_err() {
        feature.clear();
    }
    result
}

/// Whether a plane can be one of this many bytes: those themselves, or a frame that says so and is not shorter than four
/// bytes for each 128 KiB, which is as far as zstd goes.
fn is_plausible(plane: &[u8], elements: usize) -> bool {
    let size = || zstd::zstd_safe::get_frame_content_size(plane);
    plane.len() == elements
        || (plane.len().saturating_mul(1 << 15) >= elements
            && size().is_ok_and(|size| size.is_none_or(|size| size == elements as u64)))
}

/// Planes to the bytes of their elements.
fn unpack(planes: &[(usize, &[u8])], bytes: &mut [u8]) -> Result<()> {
    let size = planes.len();
    for (i, out) in bytes.chunks_exact_mut(bytes.len() / size).enumerate() {
        // The low byte comes first in the stream, and in memory on most machines.
        let (offset, plane) = planes[if cfg!(target_endian = "big") { size - 1 - i } else { i }];
        if plane.len() == out.len() {
            out.copy_from_slice(plane);
            continue;
        }
        let written = zstd::bulk::decompress_to_buffer(plane, out)
            .map_err(|_| Error::corrupt("a byte plane is not valid zstd of its size", offset))?;
        if written != out.len() {
            return Err(Error::corrupt("a byte plane is too short", offset));
        }
    }
    let mut scratch = vec![0; if size == 1 { 0 } else { bytes.len().min(SCRATCH) }];
    let mut unit = 1;
    while unit < size {
        let pair = 2 * unit * (bytes.len() / size);
        bytes.chunks_exact_mut(pair).for_each(|pair| interleave(pair, unit, &mut scratch));
        unit *= 2;
    }
    Ok(())
}

/// Bytes that [`interleave`] may use beside its own.
const SCRATCH: usize = 4 << 20;

/// Takes the units of the first half and of the second half in turns. What does not fit the scratch is cut in the middle
/// of both halves, by a rotation.
fn interleave(bytes: &mut [u8], unit: usize, scratch: &mut [u8]) {
    let half = bytes.len() / 2;
    if bytes.len() > scratch.len() {
        let cut = half / unit / 2 * unit;
        bytes[cut..half + cut].rotate_left(half - cut);
        let (front, back) = bytes.split_at_mut(2 * cut);
        interleave(front, unit, scratch);
        interleave(back, unit, scratch);
        return;
    }
    let scratch = &mut scratch[..bytes.len()];
    scratch.copy_from_slice(bytes);
    let (first, second) = scratch.split_at(half);
    let pairs = first.chunks_exact(unit).zip(second.chunks_exact(unit));
    for (out, (first, second)) in bytes.chunks_exact_mut(2 * unit).zip(pairs) {
        out[..unit].copy_from_slice(first);
        out[unit..].copy_from_slice(second);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_taken_in_turns_with_little_scratch() {
        for (count, unit) in [(1, 1), (7, 1), (1000, 1), (333, 2), (64, 2)] {
            let values: Vec<u8> = (0..2 * count * unit).map(|i| (i * 7 % 251) as u8).collect();
            let mut bytes = values.clone();
            interleave(&mut bytes, unit, &mut [0; 24]);
            for i in 0..count {
                for half in 0..2 {
                    let from = half * count * unit + i * unit;
                    assert_eq!(bytes[(2 * i + half) * unit..][..unit], values[from..from + unit]);
                }
            }
        }
    }
}
