//! The header of a stream.

use std::ops::Range;

use crate::container::layers::Layers;
use crate::container::varint::{Reader, put_varint};
use crate::error::{Error, Result};
use crate::limits::{Limits, checked_product};
use crate::profile::Profile;
use crate::tensor::{Axes, Dtype, MAX_RANK};

/// First byte of every stream.
const MAGIC: u8 = 0xf7;
/// Version of the stream format that this crate writes; it reads those before it too.
pub const VERSION: u8 = 2;

const MODE_MASK: u8 = 0b0000_0011;
const EXTENDED: u8 = 0b0000_0100;
const LANES_SHIFT: u32 = 3;
pub(crate) const LANES_MASK: u8 = 0b0011_1000;
const VERSION_SHIFT: u32 = 6;

const HAS_LAYOUT: u8 = 0b001;
const HAS_CHUNKS: u8 = 0b010;
const HAS_CHECKSUMS: u8 = 0b100;
/// The two bits that hold the number of layers less one.
const LAYERS_SHIFT: u32 = 3;

/// Most layers of a stream.
pub const MAX_LAYERS: usize = 4;

/// How the elements of a stream are coded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
#[non_exhaustive]
pub enum Mode {
    /// With a profile: transform, quantiser, context and tables fitted to the network.
    Profile = 0,
    /// Without a profile: uniform quantiser, built-in tables, one scale index per channel.
    Plain = 1,
    /// Fixed length: 1 to 8 bits for every element.
    Packed = 2,
    /// Bit-exact: byte planes through zstd.
    Lossless = 3,
}

impl Mode {
    /// Name as used by the command line.
    pub fn name(self) -> &'static str {
        match self {
            Mode::Profile => "profile",
            Mode::Plain => "plain",
            Mode::Packed => "packed",
            Mode::Lossless => "lossless",
        }
    }
}

/// Shape, element type and axes of a feature, without an allocation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    /// Element type.
    pub dtype: Dtype,
    /// Which axis is what.
    pub axes: Axes,
    rank: u8,
    dims: [u32; MAX_RANK],
}

impl Layout {
    pub(crate) fn new(dtype: Dtype, axes: Axes, shape: &[usize]) -> Result<Layout> {
        axes.check(shape.len())?;
        let mut dims = [0; MAX_RANK];
        for (dim, &size) in dims.iter_mut().zip(shape) {
            *dim = u32::try_from(size)
                .map_err(|_| Error::invalid(format!("an axis of {size} elements is longer than 2^32 - 1")))?;
        }
        Ok(Layout { dtype, axes, rank: shape.len() as u8, dims })
    }

    /// Length of each axis.
    pub fn dims(&self) -> &[u32] {
        &self.dims[..usize::from(self.rank)]
    }

    /// Length of each axis, as ndarray wants it.
    pub fn shape(&self) -> Vec<usize> {
        self.dims().iter().map(|&dim| dim as usize).collect()
    }

    /// Length of each axis, then zeros: what [`Layout::shape`] gives, without an allocation.
    pub(crate) fn padded_shape(&self) -> [usize; MAX_RANK] {
        self.dims.map(|dim| dim as usize)
    }

    /// Number of channels.
    pub fn channels(&self) -> usize {
        self.dims[self.axes.channels] as usize
    }

    /// Number of elements, or an error if memory could not hold them. Axes of length 0 count as 1 in
    /// that, so that no product of some of the axes overflows either.
    pub(crate) fn elements(&self) -> Result<usize> {
        checked_product(self.dims().iter().map(|&dim| dim.max(1) as usize).chain([self.dtype.size()]))?;
        Ok(self.dims().iter().map(|&dim| dim as usize).product())
    }

    /// Checks rank, channels and size (axes of length 0 counting as 1) against limits.
    pub(crate) fn check(&self, limits: &Limits) -> Result<()> {
        Limits::check("rank", self.dims().len() as u64, limits.rank)?;
        let sizes = self.dims().iter().map(|&dim| u64::from(dim.max(1)));
        Limits::check_product("decoded bytes", sizes.chain([self.dtype.size() as u64]), limits.output_bytes)?;
        Limits::check("channels", self.channels() as u64, limits.channels)
    }

    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        out.push(self.dtype as u8 | self.rank << 4);
        out.push(self.axes.channels as u8 | self.axes.batch.map_or(15, |batch| batch as u8) << 4);
        for &dim in self.dims() {
            put_varint(u64::from(dim), out);
        }
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Layout> {
        let offset = reader.offset();
        let [kind, axes] = reader.array("the layout")?;
        let dtype = Dtype::from_code(kind & 15).ok_or(Error::Unsupported { what: "an unknown element type" })?;
        let rank = kind >> 4;
        let batch = (axes >> 4 != 15).then_some(usize::from(axes >> 4));
        let axes = Axes { channels: usize::from(axes & 15), batch };
        if rank == 0
            || usize::from(rank) > MAX_RANK
            || axes.channels >= usize::from(rank)
            || batch.is_some_and(|batch| batch >= usize::from(rank) || batch == axes.channels)
        {
            return Err(Error::corrupt("the rank or the axes", offset));
        }
        let mut dims = [0; MAX_RANK];
        for dim in &mut dims[..usize::from(rank)] {
            *dim = reader.varint("the shape")?;
        }
        Ok(Layout { dtype, axes, rank, dims })
    }
}

/// The fields before the payload, validated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Version of the stream format.
    pub version: u8,
    /// How the elements are coded.
    pub mode: Mode,
    /// Interleaved rANS states, a power of two up to 32.
    pub lanes: usize,
    /// Hash of the profile and quality index in 1/32 octave (mode `Profile`).
    pub profile: Option<(u64, i16)>,
    /// Shape and type, unless they are the profile's own.
    pub layout: Option<Layout>,
    /// Number of chunks.
    pub chunks: usize,
    /// Whether each chunk ends in a checksum.
    pub checksums: bool,
    /// Number of layers.
    pub layers: usize,
}

impl Header {
    /// The header of a stream of one lane and one chunk, without profile, layout and checksums.
    pub(crate) fn new(mode: Mode) -> Header {
        Header { version: VERSION, mode, lanes: 1, profile: None, layout: None, chunks: 1, checksums: false, layers: 1 }
    }

    /// Appends the header; what follows are the lengths of all layers if there are several, then of each layer's chunks but
    /// the last.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        let extended = self.layout.is_some() || self.chunks != 1 || self.checksums || self.layers != 1;
        out.push(MAGIC);
        out.push(
            self.mode as u8
                | if extended { EXTENDED } else { 0 }
                | (self.lanes.ilog2() as u8) << LANES_SHIFT
                | (self.version - 1) << VERSION_SHIFT,
        );
        if let Some((hash, quality)) = self.profile {
            out.extend_from_slice(&hash.to_le_bytes());
            out.extend_from_slice(&quality.to_le_bytes());
        }
        if extended {
            let has_layout = if self.layout.is_some() { HAS_LAYOUT } else { 0 };
            let has_chunks = if self.chunks != 1 { HAS_CHUNKS } else { 0 };
            let has_checksums = if self.checksums { HAS_CHECKSUMS } else { 0 };
            let layers = (self.layers as u8 - 1) << LAYERS_SHIFT;
            out.push(has_layout | has_chunks | has_checksums | layers);
            if let Some(layout) = &self.layout {
                layout.write(out);
            }
            if self.chunks != 1 {
                put_varint(self.chunks as u64, out);
            }
        }
    }

    /// Reads and checks a header; `reader` is left at the chunk lengths (if any) or the payload.
    pub(crate) fn read(reader: &mut Reader<'_>, limits: &Limits) -> Result<Header> {
        let [magic, flags] = reader.array("the header")?;
        if magic != MAGIC {
            return Err(Error::corrupt("not a narrows stream: the first byte is not f7", 0));
        }
        let version = (flags >> VERSION_SHIFT) + 1;
        if version > VERSION {
            return Err(Error::Unsupported { what: "a later version of the stream format" });
        }
        let mode = match flags & MODE_MASK {
            0 => Mode::Profile,
            1 => Mode::Plain,
            2 => Mode::Packed,
            _ => Mode::Lossless,
        };
        let lanes = 1usize << ((flags & LANES_MASK) >> LANES_SHIFT);
        if lanes > crate::kernels::portable::MAX_LANES {
            return Err(Error::corrupt("more than 32 lanes", 1));
        }
        Limits::check("lanes", lanes as u64, limits.lanes)?;
        let profile = if mode == Mode::Profile {
            let hash = u64::from_le_bytes(reader.array("the profile hash")?);
            Some((hash, i16::from_le_bytes(reader.array("the quality index")?)))
        } else {
            None
        };
        let (mut layout, mut chunks, mut checksums, mut layers) = (None, 1, false, 1);
        if flags & EXTENDED != 0 {
            let offset = reader.offset();
            let extension = reader.u8("the header")?;
            let layer_bits = (MAX_LAYERS as u8 - 1) << LAYERS_SHIFT;
            let since = if version == 1 { 0 } else { HAS_CHECKSUMS | layer_bits };
            let known = HAS_LAYOUT | HAS_CHUNKS | since;
            checksums = extension & HAS_CHECKSUMS != 0;
            if extension == 0 || extension & !known != 0 {
                return Err(Error::Unsupported { what: "a header field of a later version" });
            }
            if extension & HAS_LAYOUT != 0 {
                let read = Layout::read(reader)?;
                read.check(limits)?;
                layout = Some(read);
            }
            if extension & HAS_CHUNKS != 0 {
                chunks = reader.varint("the number of chunks")? as usize;
                if chunks < 2 {
                    return Err(Error::corrupt("the number of chunks", offset));
                }
                Limits::check("chunks", chunks as u64, limits.chunks)?;
            }
            layers = 1 + usize::from((extension & layer_bits) >> LAYERS_SHIFT);
            if layers > 1 && mode != Mode::Profile {
                return Err(Error::corrupt("layers without a profile", offset));
            }
        }
        if mode != Mode::Profile && layout.is_none() {
            return Err(Error::corrupt("a stream without a profile has no shape", 1));
        }
        Ok(Header { version, mode, lanes, profile, layout, chunks, checksums, layers })
    }
}

/// What a stream says of itself, read without decoding it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Info {
    /// How the elements are coded.
    pub mode: Mode,
    /// Version of the stream format.
    pub version: u8,
    /// Hash of the profile that the stream needs.
    pub profile: Option<u64>,
    /// Quality index in 1/32 octave of the quantiser step, 0 being the profile's own steps.
    pub quality: Option<i16>,
    /// Shape and element type; `None` if they are the profile's own, see [`Info::layout_with`].
    pub layout: Option<Layout>,
    /// Interleaved rANS states, of a stream with layers those of the finest.
    pub lanes: usize,
    /// Chunks that decode independently.
    pub chunks: usize,
    /// Whether each chunk ends in a checksum.
    pub checksums: bool,
    /// Where each layer ends, in bytes from the start of the stream, the base layer first: a stream that is cut off at one of these
    /// ends is still a stream, of a coarser feature. The last is the end of the stream, and the only one if it has no layers; of
    /// a stream that was cut off it is missing. The others come from the header alone.
    pub layers: Vec<usize>,
    /// Bytes before the payload: header and lengths.
    pub header_bytes: usize,
    /// All other bytes.
    pub payload_bytes: usize,
}

impl Info {
    /// Reads the header of a stream. Cost does not depend on the size of the feature. Of a stream with layers, the bytes before
    /// the first layer are enough.
    ///
    /// # Errors
    /// `Corrupt`, `Truncated`, `Unsupported` or `LimitExceeded`, as decoding would.
    pub fn read(bytes: &[u8]) -> Result<Info> {
        let limits = Limits::default();
        let mut reader = Reader::new(bytes);
        let header = Header::read(&mut reader, &limits)?;
        let layers = match header.layers {
            1 => {
                for _ in 1..header.chunks {
                    reader.varint("the chunk lengths")?;
                }
                vec![bytes.len()]
            }
            _ => {
                let layers = Layers::read(&header, &mut reader)?;
                let mut ends: Vec<usize> = layers.ends().collect();
                ends.extend(ends.last().filter(|&&last| last < bytes.len()).map(|_| bytes.len()));
                ends
            }
        };
        Ok(Info {
            layers,
            mode: header.mode,
            version: header.version,
            profile: header.profile.map(|(hash, _)| hash),
            quality: header.profile.map(|(_, quality)| quality),
            layout: header.layout,
            lanes: header.lanes,
            chunks: header.chunks,
            checksums: header.checksums,
            header_bytes: reader.offset(),
            payload_bytes: bytes.len() - reader.offset(),
        })
    }

    /// Shape and element type of the decoded feature, taken from the profile where the stream leaves
    /// them to it.
    pub fn layout_with(&self, profile: &Profile) -> Layout {
        self.layout.unwrap_or(*profile.layout())
    }
}

/// Rows of a chunk, if `rows` are split into `chunks` runs of nearly equal length.
pub(crate) fn chunk_range(rows: usize, chunks: usize, chunk: usize) -> Range<usize> {
    let edge = |i: usize| (rows as u64 * i as u64 / chunks as u64) as usize;
    edge(chunk)..edge(chunk + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(layout: Option<Layout>, chunks: usize) -> Header {
        let profile = Some((0x0123_4567_89ab_cdef, -77));
        Header { lanes: 4, profile, layout, chunks, checksums: chunks > 1, ..Header::new(Mode::Profile) }
    }

    #[test]
    fn a_profiled_header_takes_twelve_bytes() {
        let mut out = Vec::new();
        header(None, 1).write(&mut out);
        assert_eq!(out.len(), 12);
        assert_eq!(Header::read(&mut Reader::new(&out), &Limits::default()), Ok(header(None, 1)));
    }

    #[test]
    fn every_field_comes_back_and_every_truncation_is_noticed() {
        for shape in [&[7][..], &[1, 80, 14, 14], &[1, 2, 3, 4, 5, 6, 7, 8]] {
            let layout = Layout::new(Dtype::Bf16, Axes::default_for(shape.len()), shape).unwrap();
            let mut out = Vec::new();
            header(Some(layout), 300).write(&mut out);
            let read = |bytes: &[u8]| Header::read(&mut Reader::new(bytes), &Limits::default());
            assert_eq!(read(&out), Ok(header(Some(layout), 300)));
            for end in 0..out.len() {
                assert!(matches!(read(&out[..end]), Err(Error::Truncated { .. })), "{end}");
            }
        }
    }

    #[test]
    fn a_claim_above_the_limits_is_refused() {
        let layout = Layout::new(Dtype::F32, Axes::default_for(3), &[64, 4096, 4096]).unwrap();
        let mut out = Vec::new();
        header(Some(layout), 1).write(&mut out);
        let error = Header::read(&mut Reader::new(&out), &Limits::default()).unwrap_err();
        assert!(matches!(error, Error::LimitExceeded { what: "decoded bytes", .. }));
    }

    #[test]
    fn an_empty_feature_with_endless_positions_is_refused() {
        let most = u32::MAX as usize;
        for shape in [[0, most, most], [most, 0, most], [most, most, 0]] {
            let mut out = Vec::new();
            let mut layout = Layout::new(Dtype::U8, Axes::default_for(3), &[1, 1, 1]).unwrap();
            layout.dims[..3].copy_from_slice(&shape.map(|dim| dim as u32));
            header(Some(layout), 1).write(&mut out);
            let error = Header::read(&mut Reader::new(&out), &Limits::default()).unwrap_err();
            assert!(matches!(error, Error::LimitExceeded { what: "decoded bytes", .. }), "{error}");
        }
    }

    #[test]
    fn chunks_cover_all_rows() {
        for rows in 0..20 {
            for chunks in 1..8 {
                let ranges: Vec<_> = (0..chunks).map(|chunk| chunk_range(rows, chunks, chunk)).collect();
                assert_eq!((ranges[0].start, ranges[chunks - 1].end), (0, rows));
                assert!(ranges.windows(2).all(|pair| pair[0].end == pair[1].start));
            }
        }
    }
}
