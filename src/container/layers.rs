//! Where the layers of a stream lie.

use std::ops::Range;

use crate::container::header::{Header, MAX_LAYERS};
use crate::container::varint::{Reader, put_varint};
use crate::error::{Error, Result};
use crate::kernels::portable::MAX_LANES;

/// One layer of a stream.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Layer {
    /// Its bytes in the stream: chunk lengths and chunks.
    pub range: Range<usize>,
    /// Interleaved rANS states of its chunks.
    pub lanes: usize,
}

/// The layers of a stream, the base layer first: what the header says of all but the finest, which has the rest.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Layers {
    layers: [Layer; MAX_LAYERS],
    /// Layers below the finest.
    below: usize,
}

impl Layers {
    /// Reads what follows the header of a stream with layers; the reader is left at the first.
    ///
    /// # Errors
    /// `Truncated`, or `Corrupt` for more lanes than there can be.
    pub fn read(header: &Header, reader: &mut Reader<'_>) -> Result<Layers> {
        let below = header.layers - 1;
        let mut layers: [Layer; MAX_LAYERS] = Default::default();
        for layer in &mut layers[..below] {
            let offset = reader.offset();
            let field = reader.varint("the lengths of the layers")?;
            *layer = Layer { range: 0..(field >> 3) as usize, lanes: 1 << (field & 7) };
            if layer.lanes > MAX_LANES {
                return Err(Error::corrupt("more than 32 lanes", offset));
            }
        }
        let mut start = reader.offset();
        for layer in &mut layers[..below] {
            let length = layer.range.end;
            layer.range = start..start + length;
            start += length;
        }
        layers[below] = Layer { range: start..start, lanes: header.lanes };
        Ok(Layers { layers, below })
    }

    /// Writes the field of a layer of this length that is not the finest.
    ///
    /// # Errors
    /// `LimitExceeded` for 512 MiB or more.
    pub fn write(length: usize, lanes: usize, out: &mut Vec<u8>) -> Result<()> {
        let limit = u64::from(u32::MAX >> 3);
        if length as u64 > limit {
            return Err(Error::LimitExceeded { what: "bytes of a layer", needed: length as u64, limit });
        }
        put_varint((length as u64) << 3 | u64::from(lanes.ilog2()), out);
        Ok(())
    }

    /// Where each layer but the finest ends.
    pub fn ends(&self) -> impl Iterator<Item = usize> {
        self.layers[..self.below].iter().map(|layer| layer.range.end)
    }

    /// The layers of a stream of this many bytes, at least the base layer.
    ///
    /// # Errors
    /// `Truncated` for bytes that end within a layer below the finest.
    pub fn present(&mut self, bytes: usize) -> Result<&[Layer]> {
        let finest = &mut self.layers[self.below];
        if bytes > finest.range.start {
            finest.range.end = bytes;
            return Ok(&self.layers[..=self.below]);
        }
        // The last of those that end here, where a layer has no bytes.
        let present = self.ends().take_while(|&end| end <= bytes).count();
        match present.checked_sub(1) {
            Some(last) if self.layers[last].range.end == bytes => Ok(&self.layers[..present]),
            _ => Err(Error::truncated("a layer", bytes)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::container::Mode;

    #[test]
    fn bytes_end_where_a_layer_does() {
        let mut bytes = vec![0; 5];
        for (length, lanes) in [(3, 1), (20, 32), (0, 2)] {
            Layers::write(length, lanes, &mut bytes).unwrap();
        }
        let mut reader = Reader::new(&bytes);
        reader.take(5, "what comes before").unwrap();
        let header = Header { layers: 4, lanes: 8, ..Header::new(Mode::Profile) };
        let mut layers = Layers::read(&header, &mut reader).unwrap();
        let start = reader.offset();
        assert_eq!(layers.ends().collect::<Vec<_>>(), [start + 3, start + 23, start + 23]);
        assert_eq!(layers.present(start + 3).unwrap(), [Layer { range: start..start + 3, lanes: 1 }]);
        assert_eq!(layers.present(start + 23).unwrap().len(), 3);
        let lanes: Vec<usize> = layers.present(start + 30).unwrap().iter().map(|layer| layer.lanes).collect();
        assert_eq!((lanes, layers.layers[3].range.clone()), (vec![1, 32, 2, 8], start + 23..start + 30));
        for end in [0, start, start + 2, start + 4, start + 22] {
            assert!(matches!(layers.present(end), Err(Error::Truncated { .. })), "{end}");
        }
        assert!(Layers::write(1 << 29, 1, &mut bytes).is_err());
        assert!(matches!(Layers::read(&header, &mut Reader::new(&[6])), Err(Error::Corrupt { .. })));
    }
}
