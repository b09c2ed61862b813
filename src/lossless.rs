//! Mode `Lossless`: byte planes through zstd.

use std::fmt;

use zstd::bulk::Compressor;

use crate::container::{Header, Layout, Mode, Reader, put_varint};
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
    pub fn encode(&mut self, view: &FeatureView<'_>, layout: Layout, out: &mut Vec<u8>) -> Result<()> {
        Header { mode: Mode::Lossless, lanes: 1, profile: None, layout: Some(layout), chunks: 1 }.write(out);
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
        Ok(())
    }

    pub fn decode(header: &Header, mut reader: Reader<'_>) -> Result<Feature> {
        let layout = header.layout.ok_or(Error::corrupt("a lossless stream has no shape", 1))?;
        if header.chunks != 1 {
            return Err(Error::corrupt("a lossless stream has one chunk", reader.offset()));
        }
        let elements = layout.elements()?;
        let planes = layout.dtype.size();
        let mut bytes = vec![0u8; elements * planes];
        for plane in bytes.chunks_exact_mut(elements.max(1)).take(planes) {
            let offset = reader.offset();
            let length = reader.varint("the length of a byte plane")? as usize;
            let packed = reader.take(length, "a byte plane")?;
            if length == elements {
                plane.copy_from_slice(packed);
                continue;
            }
            let written = zstd::bulk::decompress_to_buffer(packed, plane)
                .map_err(|_| Error::corrupt("a byte plane is not valid zstd", offset))?;
            if written != elements {
                return Err(Error::corrupt("a byte plane is too short", offset));
            }
        }
        if elements == 0 {
            for _ in 0..planes {
                if reader.varint("the length of a byte plane")? != 0 {
                    return Err(Error::corrupt("bytes for a feature without elements", reader.offset()));
                }
            }
        }
        if !reader.rest().is_empty() {
            return Err(Error::corrupt("bytes left over after the byte planes", reader.offset()));
        }
        let mut feature = Feature::zeros(layout.dtype, &layout.padded_shape()[..layout.dims().len()]);
        with_array!(Feature, &mut feature, array => {
            for (i, value) in array.iter_mut().enumerate() {
                let mut own = [0; 4];
                for plane in 0..planes {
                    own[plane] = bytes[plane * elements + i];
                }
                *value = Element::from_bytes(own);
            }
        });
        Ok(feature)
    }
}
