//! A second decoder, written from FORMAT.md alone and in its words: plain scalar code that is slow and shares nothing
//! with the crate. It reads the built-in bank out of that page, and takes a profile and its hash on trust.

mod datagrams;
mod layers;
mod pixels;
mod profile;
mod symbols;

use Kind::{Corrupt, LimitExceeded, ProfileMismatch, Truncated, Unsupported};
pub use datagrams::feature as decode_datagrams;
use layers::{Layer, coded};
pub use profile::{Profile, read as read_profile};

/// Why a stream or a profile is refused.
#[rustfmt::skip]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind { Truncated, Corrupt, Unsupported, ProfileMismatch, LimitExceeded }

/// The name of a feature's dtype, its shape, and its elements as little-endian bytes in row-major order.
#[rustfmt::skip]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decoded { pub dtype: &'static str, pub shape: Vec<usize>, pub bytes: Vec<u8> }

type Result<T> = std::result::Result<T, Kind>;

const DTYPES: [(&str, usize); 5] = [("f32", 4), ("f16", 2), ("bf16", 2), ("i8", 1), ("u8", 1)];

fn refuse_if(condition: bool, kind: Kind) -> Result<()> {
    if condition { Err(kind) } else { Ok(()) }
}

fn rs16(v: i64, n: i64) -> i64 {
    ((v + (1 << n >> 1)) >> n).clamp(-32_768, 32_767)
}

fn crc32(bytes: &[u8]) -> u32 {
    let step = |c: u32, _| if c & 1 == 1 { c >> 1 ^ 0xedb8_8320 } else { c >> 1 };
    !bytes.iter().fold(!0, |crc, &byte| (0..8).fold(crc ^ u32::from(byte), step))
}

/// The nearest f16, ties to even, of a value that is not NaN.
fn f16_bits(value: f32) -> u32 {
    let (sign, bits) = (value.to_bits() >> 16 & 0x8000, value.to_bits() & 0x7fff_ffff);
    let subnormal = (value.abs() * 16_777_216.0).round_ties_even() as u32; // in units of 2^-24
    let normal = || ((bits - 0x3800_0000 + 0xfff + (bits >> 13 & 1)) >> 13).min(0x7c00);
    sign | if bits < 0x3880_0000 { subnormal } else { normal() }
}

/// Bytes that are left to read.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, n: usize) -> Result<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(n).ok_or(Truncated)?;
        self.0 = rest;
        Ok(taken)
    }

    fn uint(&mut self, bytes: usize) -> Result<u64> {
        Ok(self.take(bytes)?.iter().rev().fold(0, |n, &b| n << 8 | u64::from(b)))
    }

    fn int(&mut self, bytes: usize) -> Result<i64> {
        Ok((self.uint(bytes)? << (64 - 8 * bytes)) as i64 >> (64 - 8 * bytes))
    }

    fn varint(&mut self) -> Result<u64> {
        let n = self.0.iter().take_while(|&&byte| byte > 127).count() + 1;
        let value = self.take(n.min(6))?.iter().rev().fold(0, |value, &byte| value << 7 | u64::from(byte & 127));
        refuse_if(n > 5 || value >> 32 != 0 || (n > 1 && value >> (7 * n - 7) == 0), Corrupt)?;
        Ok(value)
    }

    /// Fields of so many bits, low bits first; what fills the last byte is not looked at.
    fn fields(&mut self, count: u64, bits: u64) -> Result<Vec<i64>> {
        let bytes = self.take((count * bits).div_ceil(8) as usize)?;
        let bit = |at: u64| i64::from(bytes[(at / 8) as usize]) >> (at % 8) & 1;
        Ok((0..count).map(|at| (0..bits).map(|i| bit(at * bits + i) << i).sum()).collect())
    }

    fn layout(&mut self) -> Result<Layout> {
        let (kind, axes) = (self.uint(1)? as usize, self.uint(1)? as usize);
        refuse_if(kind & 15 > 4, Unsupported)?;
        let shape = (0..kind >> 4).map(|_| self.varint()).collect::<Result<_>>()?;
        Layout::new(kind & 15, shape, axes & 15, (axes >> 4 != 15).then_some(axes >> 4))
    }
}

/// `sides` are planes, H, W, C; `axes` the lengths and distances in the elements of plane .., y, x, channel.
#[derive(Clone)]
struct Layout {
    dtype: usize,
    shape: Vec<u64>,
    elements: u64,
    sides: [u64; 4],
    axes: Vec<(u64, u64)>,
}

impl Layout {
    fn new(dtype: usize, shape: Vec<u64>, channel: usize, batch: Option<usize>) -> Result<Self> {
        refuse_if(!(1..=8).contains(&shape.len()) || channel >= shape.len(), Corrupt)?;
        refuse_if(batch.is_some_and(|b| b >= shape.len() || b == channel), Corrupt)?;
        let whole = shape.iter().try_fold(DTYPES[dtype].1 as u64, |n, &len| n.checked_mul(len.max(1)));
        let elements = whole.map_or(u64::MAX, |_| shape.iter().product());
        refuse_if(elements > (256 << 20) / DTYPES[dtype].1 as u64 || shape[channel] > 65_536, LimitExceeded)?;
        let axis = |a: usize| (shape[a], shape[a + 1..].iter().product::<u64>());
        let positions = (0..shape.len()).filter(|&a| a != channel && Some(a) != batch).map(axis);
        let missing = std::iter::repeat_n((1, 0), 2_usize.saturating_sub(positions.clone().count()));
        let mut axes: Vec<_> = batch.map(axis).into_iter().chain(missing).chain(positions).collect();
        let (planes, last) = axes.split_at(axes.len() - 2);
        let sides = [planes.iter().map(|axis| axis.0).product(), last[0].0, last[1].0, shape[channel]];
        axes.push(axis(channel));
        Ok(Self { dtype, elements, sides, axes, shape })
    }

    /// Writes an integer times 2^-exponent as the element with this number in the order of `axes`.
    fn put(&self, bytes: &mut [u8], number: u64, integer: i64, exponent: i64) {
        let step = |(at, number), (len, distance): &(u64, u64)| (at + number % len * distance, number / len);
        let (element, _) = self.axes.iter().rev().fold((0, number), step);
        let value = integer as f32 * f32::from_bits(((127 - exponent) as u32) << 23);
        let bits = match self.dtype {
            0 => value.to_bits(),
            1 => f16_bits(value),
            2 => (value.to_bits() + 0x7fff + (value.to_bits() >> 16 & 1)) >> 16,
            3 => value.round_ties_even().clamp(-128.0, 127.0) as i32 as u32,
            _ => value.round_ties_even().clamp(0.0, 255.0) as u32,
        };
        let size = DTYPES[self.dtype].1;
        bytes[element as usize * size..][..size].copy_from_slice(&bits.to_le_bytes()[..size]);
    }
}

/// Decodes one stream of any mode, those of mode 0 with the profile among these that they name.
pub fn decode(stream: &[u8], profiles: &[Profile]) -> Result<Decoded> {
    let mut reader = Reader(stream);
    refuse_if(reader.uint(1)? != 0xf7, Corrupt)?;
    let flags = reader.uint(1)?;
    let (mode, version) = (flags & 3, (flags >> 6) + 1);
    refuse_if(version > 2, Unsupported)?;
    let (hash, q) = if mode == 0 { (reader.uint(8)?, reader.int(2)?) } else { (0, 0) };
    let extension = if flags & 4 != 0 { reader.uint(1)? } else { 0 };
    refuse_if(flags & 4 != 0 && !(1..=if version == 1 { 3 } else { 31 }).contains(&extension), Unsupported)?;
    refuse_if((mode > 0 && extension > 7) || (mode > 1 && extension & 2 != 0), Corrupt)?;
    let own = if extension & 1 != 0 { Some(reader.layout()?) } else { None };
    let count = if extension & 2 != 0 { reader.varint()? } else { 1 };
    refuse_if(count == 0 || (count == 1 && extension & 2 != 0), Corrupt)?;
    refuse_if(count > 65_536, LimitExceeded)?;
    let mut head = stream[..stream.len() - reader.0.len()].to_vec();
    head[1] &= !0x38;
    // Of each layer but the finest its bytes and its lanes; the finest has the rest.
    let finer = extension as usize >> 3;
    let field = |_| reader.varint().map(|field| (Some(field as usize >> 3), field & 7));
    let mut fields = (0..finer).map(field).collect::<Result<Vec<_>>>()?;
    fields.push((None, flags >> 3 & 7));
    refuse_if(fields.iter().any(|field| field.1 > 5), Corrupt)?;
    let profile = profiles.iter().find(|p| mode == 0 && p.1["hash"] == [hash as i64]);
    refuse_if(mode == 0 && profile.is_none(), ProfileMismatch)?;
    let layout = own.or(profile.map(|p| p.0.clone())).ok_or(Corrupt)?;
    let mut bodies = vec![];
    for (bytes, log2) in fields {
        // The stream may be cut off where a layer ends, or several do.
        if bodies.is_empty() || !reader.0.is_empty() || bytes == Some(0) {
            let mut body = Reader(reader.take(bytes.unwrap_or(reader.0.len()))?);
            let lengths = (1..count).map(|_| body.varint()).collect::<Result<Vec<_>>>()?;
            bodies.push((body, 1 << log2, lengths));
        }
    }
    let mut plain = None;
    if mode == 1 {
        let before = bodies[0].0.0;
        plain = Some(plain_profile(&mut bodies[0].0, &layout)?);
        head.extend(&before[..before.len() - bodies[0].0.0.len()]);
    }
    let (mut layers, mut number) = (vec![], 0_u32);
    for (mut body, lanes, mut lengths) in bodies {
        lengths.push((body.0.len() as u64).saturating_sub(lengths.iter().sum()));
        let mut chunks = vec![];
        for length in lengths {
            let chunk = body.take(length as usize)?;
            let end = chunk.len().checked_sub(extension as usize & 4).ok_or(Truncated)?;
            let crc = crc32(&[&head[..], &number.to_le_bytes(), &[lanes], &chunk[..end]].concat()).to_le_bytes();
            refuse_if(extension & 4 != 0 && crc != chunk[end..], Corrupt)?;
            chunks.push(Reader(&chunk[..end]));
            number += 1;
        }
        layers.push(Layer { lanes: lanes.into(), chunks });
    }
    let (dtype, size) = DTYPES[layout.dtype];
    let mut bytes = vec![0; layout.elements as usize * size];
    let body = &mut layers[0].chunks[0];
    match profile.or(plain.as_ref()) {
        Some(p) => coded(p, &layout, (q, finer + 1, (version > 1).then(|| crc32(&head))), &mut layers, &mut bytes)?,
        None if mode == 2 => packed(body, &layout, &mut bytes)?,
        None => lossless(body, &layout, &mut bytes)?,
    }
    refuse_if(layers.iter().flat_map(|layer| &layer.chunks).any(|chunk| !chunk.0.is_empty()), Corrupt)?;
    Ok(Decoded { dtype, shape: layout.shape.iter().map(|&n| n as usize).collect(), bytes })
}

fn packed(body: &mut Reader, layout: &Layout, bytes: &mut [u8]) -> Result<()> {
    let (bits, exponent, low, high) = (body.uint(1)?, body.int(1)?, body.int(2)?, body.int(2)?);
    refuse_if(!(1..=8).contains(&bits) || exponent.abs() > 126 || high < low, Corrupt)?;
    let (most, row_major) = ((1 << bits) - 1, Layout { axes: vec![(layout.elements, 1)], ..layout.clone() });
    for (at, field) in (0..).zip(body.fields(layout.elements, bits)?) {
        row_major.put(bytes, at, low + (field * (high - low) + most / 2) / most, exponent);
    }
    Ok(())
}

fn lossless(body: &mut Reader, layout: &Layout, bytes: &mut [u8]) -> Result<()> {
    let (size, elements) = (DTYPES[layout.dtype].1, layout.elements as usize);
    for byte in 0..size {
        let n = body.varint()? as usize;
        let given = body.take(n)?.to_vec();
        let raw = if n == elements { given } else { zstd::bulk::decompress(&given, elements).map_err(|_| Corrupt)? };
        refuse_if(raw.len() != elements, Corrupt)?;
        raw.iter().enumerate().for_each(|(at, &value)| bytes[at * size + byte] = value);
    }
    Ok(())
}

/// The fields of mode 1, as the profile that says the same.
fn plain_profile(body: &mut Reader, layout: &Layout) -> Result<Profile> {
    let (kind, exponent, step, width) = (body.uint(1)?, body.int(1)?, body.int(2)?, body.uint(1)?);
    refuse_if(kind > 3, Unsupported)?;
    refuse_if(exponent.abs() > 126 || !(0..544).contains(&step) || width > 7, Corrupt)?;
    let level = body.fields(layout.sides[3], width)?;
    refuse_if(level.iter().any(|&l| l > 103), Corrupt)?;
    let (mut bank, c) = (vec![], level.len());
    let page = include_str!("../../FORMAT.md").split("## The built-in bank").last().unwrap_or("");
    for line in page.lines().filter_map(|line| line.get(5..)).filter(|line| line.split(' ').count() == 16) {
        let f: Vec<i64> = line.split(' ').filter_map(|f| f.parse().ok()).collect();
        let times = |token| if kind & 1 == 0 || token == 0 { 1 } else { 2 * (token as i64 % 2) };
        bank.extend((0..31_usize).map(|token| f[token.div_ceil(2)] * times(token)));
        bank.push(4096 - bank[bank.len() - 31..].iter().sum::<i64>());
    }
    let map = level.iter().flat_map(|l| [-10, -8, 0, 0, 4, 6, 8, 11].map(|e| (l + e).clamp(1, 103))).collect();
    let (range, anchor, context) = ([-32_768, 32_767].repeat(c), vec![0], vec![kind as i64 >> 1]);
    let (step, mean, offset, exponent) = (vec![step; c], vec![0; c], vec![0; 104 * 3], vec![exponent]);
    let names = "anchor bank band_matrix block context exponent gain level map mean offset range step".split(' ');
    let p = [anchor, bank, vec![], vec![1, 1], context, exponent, vec![], level, map, mean, offset, range, step];
    Ok(Profile(layout.clone(), names.zip(p).collect()))
}
