//! A good stream as its fields, changes to single fields, and the stream they make: FORMAT.md, written down once more.

use arbitrary::Arbitrary;

/// The fields of a stream; what they claim may be changed apart from what is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fields {
    magic: u8,
    flags: u8,
    hash: Option<u64>,
    quality: i16,
    extension: Option<u8>,
    /// Dtype and rank, axes.
    layout: Option<[u8; 2]>,
    dims: Vec<u64>,
    chunks: Option<u64>,
    /// What the header says of each layer but the finest: its bytes times 8, plus log2 of its lanes.
    layers: Vec<u64>,
    /// Of chunks, layer after layer.
    lengths: Vec<u64>,
    /// Chunks of a layer.
    per_layer: usize,
    params: Vec<u8>,
    /// Chunks, or byte planes with a length in front of each.
    parts: Vec<Vec<u8>>,
    /// Lengths of byte planes.
    planes: Vec<u64>,
    /// The checksum after the byte planes.
    checksum: Vec<u8>,
    cut: Option<usize>,
}

/// One change.
#[derive(Debug, Clone, Arbitrary)]
pub enum Patch {
    Magic(u8),
    /// These bits flip.
    Flags(u8),
    Hash(u64),
    Quality(i16),
    Extension(u8),
    /// These bits flip.
    Kind(u8),
    Axes(u8),
    Dim(u8, u32),
    NoDim,
    Chunks(u32),
    /// The length of a chunk or of a byte plane.
    Length(u8, u32),
    /// A length grows or shrinks a little.
    Shift(u8, i8),
    /// Bytes move over the border between a chunk and the next, and the lengths say so.
    Border(u8, i8),
    Param(u8, u8),
    /// The start of the parameters, as a number.
    Params(u64),
    /// One word of a chunk.
    Word(u8, u16, u16),
    /// One bit of a chunk.
    Bit(u8, u16),
    /// A whole state at the front of a chunk.
    State(u8, u8, u32),
    Insert(u8, u16, u16),
    Remove(u8, u16),
    Swap(u8, u8),
    Append(u16),
    Cut(u16),
    /// What the header says of a layer.
    Layer(u8, u32),
    /// The length of a layer grows or shrinks a little.
    LayerShift(u8, i8),
    /// The stream ends where this layer does.
    CutLayer(u8),
    Lanes(u8, u8),
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(count);
        self.0 = rest;
        taken
    }

    fn byte(&mut self) -> u8 {
        self.take(1)[0]
    }

    fn varint(&mut self) -> u64 {
        let (mut value, mut shift) = (0, 0);
        loop {
            let byte = self.byte();
            value |= u64::from(byte & 0x7f) << shift;
            shift += 7;
            if byte < 0x80 {
                return value;
            }
        }
    }
}

fn put_varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

impl Fields {
    /// The fields of a stream that an encoder made; panics for any other.
    pub fn read(stream: &[u8]) -> Fields {
        let mut reader = Reader(stream);
        let (magic, flags) = (reader.byte(), reader.byte());
        let mode = flags & 3;
        let (mut hash, mut quality) = (None, 0);
        if mode == 0 {
            hash = Some(u64::from_le_bytes(reader.take(8).try_into().expect("eight bytes")));
            quality = i16::from_le_bytes(reader.take(2).try_into().expect("two bytes"));
        }
        let extension = (flags & 4 != 0).then(|| reader.byte());
        let (mut layout, mut dims, mut chunks) = (None, Vec::new(), None);
        if extension.is_some_and(|extension| extension & 1 != 0) {
            let kind = reader.byte();
            layout = Some([kind, reader.byte()]);
            dims = (0..kind >> 4).map(|_| reader.varint()).collect();
        }
        if extension.is_some_and(|extension| extension & 2 != 0) {
            chunks = Some(reader.varint());
        }
        let layers: Vec<u64> = (0..extension.unwrap_or(0) >> 3).map(|_| reader.varint()).collect();
        let per_layer = chunks.unwrap_or(1) as usize;
        let chunk_lengths = |reader: &mut Reader| (1..per_layer).map(|_| reader.varint()).collect();
        let mut lengths: Vec<u64> = if layers.is_empty() { chunk_lengths(&mut reader) } else { Vec::new() };
        let (mut params, mut parts, mut planes) = (Vec::new(), Vec::new(), Vec::new());
        match mode {
            1 => {
                let channels = layout.map_or(0, |[_, axes]| dims[usize::from(axes & 15)]);
                params = reader.take(5).to_vec();
                let levels = (channels * u64::from(params[4])).div_ceil(8);
                params.extend_from_slice(reader.take(levels as usize));
            }
            2 => params = reader.take(6).to_vec(),
            _ => {}
        }
        let mut checksum = Vec::new();
        if !layers.is_empty() {
            for length in layers.iter().map(|field| (field >> 3) as usize).chain([usize::MAX]) {
                let mut layer = Reader(reader.take(length.min(reader.0.len())));
                if layer.0.is_empty() {
                    continue;
                }
                let own: Vec<u64> = chunk_lengths(&mut layer);
                own.iter().for_each(|&length| parts.push(layer.take(length as usize).to_vec()));
                lengths.extend(own);
                parts.push(layer.0.to_vec());
            }
        } else if mode == 3 {
            if extension.is_some_and(|extension| extension & 4 != 0) {
                let (planes, last) = reader.0.split_at(reader.0.len() - 4);
                (reader.0, checksum) = (planes, last.to_vec());
            }
            while !reader.0.is_empty() {
                let length = reader.varint();
                planes.push(length);
                parts.push(reader.take(length as usize).to_vec());
            }
        } else {
            for &length in &lengths {
                parts.push(reader.take(length as usize).to_vec());
            }
            parts.push(reader.0.to_vec());
        }
        let cut = None;
        Fields {
            magic,
            flags,
            hash,
            quality,
            extension,
            layout,
            dims,
            chunks,
            layers,
            lengths,
            per_layer,
            params,
            parts,
            planes,
            checksum,
            cut,
        }
    }

    /// The stream of these fields.
    pub fn write(&self) -> Vec<u8> {
        let mut out = vec![self.magic, self.flags];
        if let Some(hash) = self.hash {
            out.extend_from_slice(&hash.to_le_bytes());
            out.extend_from_slice(&self.quality.to_le_bytes());
        }
        out.extend(self.extension);
        out.extend(self.layout.into_iter().flatten());
        self.dims.iter().chain(&self.chunks).chain(&self.layers).for_each(|&value| put_varint(value, &mut out));
        if !self.layers.is_empty() {
            let mut lengths = self.lengths.iter();
            for parts in self.parts.chunks(self.per_layer) {
                lengths.by_ref().take(self.per_layer - 1).for_each(|&length| put_varint(length, &mut out));
                parts.iter().for_each(|part| out.extend_from_slice(part));
            }
            out.truncate(self.cut.unwrap_or(usize::MAX));
            return out;
        }
        self.lengths.iter().for_each(|&value| put_varint(value, &mut out));
        out.extend_from_slice(&self.params);
        for (i, part) in self.parts.iter().enumerate() {
            if let Some(&length) = self.planes.get(i) {
                put_varint(length, &mut out);
            }
            out.extend_from_slice(part);
        }
        out.extend_from_slice(&self.checksum);
        out.truncate(self.cut.unwrap_or(usize::MAX));
        out
    }

    /// The part of this number, counted round.
    fn part(&mut self, number: u8) -> Option<&mut Vec<u8>> {
        let count = self.parts.len().max(1);
        self.parts.get_mut(usize::from(number) % count)
    }

    fn layer(&mut self, number: u8) -> Option<&mut u64> {
        let count = self.layers.len().max(1);
        self.layers.get_mut(usize::from(number) % count)
    }

    fn length(&mut self, number: u8) -> Option<&mut u64> {
        let all = if self.planes.is_empty() { &mut self.lengths } else { &mut self.planes };
        let count = all.len().max(1);
        all.get_mut(usize::from(number) % count)
    }

    /// Makes one change; one that has nothing to change does nothing.
    pub fn apply(&mut self, patch: &Patch) {
        match *patch {
            Patch::Magic(value) => self.magic = value,
            Patch::Flags(bits) => self.flags ^= bits,
            Patch::Hash(value) => self.hash = Some(value),
            Patch::Quality(value) => self.quality = value,
            Patch::Extension(value) => self.extension = Some(value),
            Patch::Kind(bits) => self.layout.iter_mut().for_each(|layout| layout[0] ^= bits),
            Patch::Axes(value) => self.layout.iter_mut().for_each(|layout| layout[1] = value),
            Patch::Dim(axis, value) => {
                let count = self.dims.len().max(1);
                self.dims.iter_mut().skip(usize::from(axis) % count).take(1).for_each(|dim| *dim = u64::from(value));
            }
            Patch::NoDim => drop(self.dims.pop()),
            Patch::Chunks(value) => self.chunks = Some(u64::from(value)),
            Patch::Length(number, value) => {
                if let Some(length) = self.length(number) {
                    *length = u64::from(value);
                }
            }
            Patch::Shift(number, by) => {
                if let Some(length) = self.length(number) {
                    *length = length.saturating_add_signed(i64::from(by));
                }
            }
            Patch::Border(number, by) => self.move_border(number, by),
            Patch::Param(at, value) => {
                let count = self.params.len().max(1);
                self.params.iter_mut().skip(usize::from(at) % count).take(1).for_each(|param| *param = value);
            }
            Patch::Params(value) => {
                self.params.iter_mut().zip(value.to_le_bytes()).for_each(|(param, value)| *param = value);
            }
            Patch::Word(number, at, value) => self.overwrite(number, 2 * usize::from(at), &value.to_le_bytes()),
            Patch::State(number, lane, value) => {
                let [high, low] = [(value >> 16) as u16, value as u16].map(u16::to_le_bytes);
                self.overwrite(number, 4 * usize::from(lane), &[high, low].concat());
            }
            Patch::Bit(number, at) => {
                if let Some(part) = self.part(number).filter(|part| !part.is_empty()) {
                    let at = usize::from(at) % (8 * part.len());
                    part[at / 8] ^= 1 << (at % 8);
                }
            }
            Patch::Insert(number, at, value) => {
                if let Some(part) = self.part(number) {
                    let at = usize::from(at) % (part.len() + 1);
                    part.splice(at..at, value.to_le_bytes());
                }
            }
            Patch::Remove(number, at) => {
                if let Some(part) = self.part(number).filter(|part| part.len() >= 2) {
                    let at = usize::from(at) % (part.len() - 1);
                    part.drain(at..at + 2);
                }
            }
            Patch::Swap(one, two) => {
                let count = self.parts.len().max(1);
                if !self.parts.is_empty() {
                    self.parts.swap(usize::from(one) % count, usize::from(two) % count);
                }
            }
            Patch::Append(value) => self.parts.push(value.to_le_bytes().to_vec()),
            Patch::Cut(at) => self.cut = Some(usize::from(at) % (self.write().len() + 1)),
            Patch::Layer(number, value) => {
                if let Some(field) = self.layer(number) {
                    *field = u64::from(value);
                }
            }
            Patch::LayerShift(number, by) => {
                if let Some(field) = self.layer(number) {
                    *field = field.saturating_add_signed(8 * i64::from(by));
                }
            }
            Patch::CutLayer(number) => {
                let kept = 1 + usize::from(number) % self.layers.len().max(1);
                if !self.layers.is_empty() {
                    self.parts.truncate(kept * self.per_layer);
                    self.lengths.truncate(kept * (self.per_layer - 1));
                }
            }
            Patch::Lanes(number, log2) => {
                if let Some(field) = self.layer(number) {
                    *field = *field & !7 | u64::from(log2 & 7);
                }
            }
        }
    }

    fn overwrite(&mut self, number: u8, at: usize, bytes: &[u8]) {
        if let Some(part) = self.part(number)
            && part.len() >= bytes.len()
        {
            let at = at % (part.len() - bytes.len() + 1);
            part[at..at + bytes.len()].copy_from_slice(bytes);
        }
    }

    fn move_border(&mut self, number: u8, by: i8) {
        // Between layers of one chunk, else between the chunks of the first layer.
        let count = if self.per_layer == 1 { self.layers.len() } else { self.per_layer - 1 };
        let number = usize::from(number) % count.max(1);
        if number >= count || number + 1 >= self.parts.len() {
            return;
        }
        let mut both = self.parts[number].clone();
        both.extend_from_slice(&self.parts[number + 1]);
        let border = self.parts[number].len().saturating_add_signed(isize::from(by)).min(both.len());
        self.parts[number + 1] = both.split_off(border);
        match self.layers.get_mut(number).filter(|_| self.per_layer == 1) {
            Some(field) => *field = (border as u64) << 3 | *field & 7,
            None => self.lengths[number] = border as u64,
        }
        self.parts[number] = both;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_streams_come_back_from_their_fields() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/vectors");
        let mut count = 0;
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "stream") {
                let stream = std::fs::read(&path).unwrap();
                let fields = Fields::read(&stream);
                assert!(fields.write() == stream, "{}", path.display());
                count += 1;
            }
        }
        assert!(count >= 18, "{count} golden streams");
    }
}
