//! A second decoder, written from FORMAT.md alone and in its words: plain scalar code that is slow and shares nothing
//! with the crate. It reads the built-in bank out of that page, and takes the hash of a profile on trust.

use Kind::{Corrupt, LimitExceeded, ProfileMismatch, Truncated, Unsupported};
use std::{collections::HashMap, ops::Range};

/// Why a stream or a profile is refused.
#[rustfmt::skip]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind { Truncated, Corrupt, Unsupported, ProfileMismatch, LimitExceeded }

/// A feature: the name of its dtype, its shape, and its elements as little-endian bytes in row-major order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decoded {
    pub dtype: &'static str,
    pub shape: Vec<usize>,
    pub bytes: Vec<u8>,
}

type Result<T> = std::result::Result<T, Kind>;

const DTYPES: [(&str, usize); 5] = [("f32", 4), ("f16", 2), ("bf16", 2), ("i8", 1), ("u8", 1)];
/// By class: the smallest magnitude of a token (15 stands for that of the escape) and its raw bits.
const BASES: [i32; 17] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 13, 21, 37, 69, 133, 261, 15];
const RAW_BITS: [u32; 17] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 3, 4, 5, 6, 7, 8, 4];

fn refuse_if(condition: bool, kind: Kind) -> Result<()> {
    if condition { Err(kind) } else { Ok(()) }
}

/// clamp16(rs(v, n))
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

    /// An unsigned number of so many bytes; `int` reads a signed one.
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

    /// Fields of so many bits, low bits first, the last byte filled with zeros.
    fn fields(&mut self, count: u64, bits: u64) -> Result<Vec<i64>> {
        let bytes = self.take((count * bits).div_ceil(8) as usize)?;
        let bit = |at: u64| i64::from(bytes[(at / 8) as usize]) >> (at % 8) & 1;
        refuse_if((count * bits..8 * bytes.len() as u64).any(|at| bit(at) != 0), Corrupt)?;
        Ok((0..count).map(|at| (0..bits).map(|i| bit(at * bits + i) << i).sum()).collect())
    }

    fn layout(&mut self) -> Result<Layout> {
        let (kind, axes) = (self.uint(1)? as usize, self.uint(1)? as usize);
        refuse_if(kind & 15 > 4, Unsupported)?;
        let shape = (0..kind >> 4).map(|_| self.varint()).collect::<Result<_>>()?;
        Layout::new(kind & 15, shape, axes & 15, (axes >> 4 != 15).then_some(axes >> 4))
    }
}

#[derive(Clone)]
struct Layout {
    dtype: usize,
    shape: Vec<u64>,
    elements: u64,
    /// Planes, H, W, C.
    sides: [u64; 4],
    /// Length, and distance in the row-major elements, of the axes in the order plane .., y, x, channel.
    axes: Vec<(u64, u64)>,
}

impl Layout {
    fn new(dtype: usize, shape: Vec<u64>, channel: usize, batch: Option<usize>) -> Result<Self> {
        refuse_if(!(1..=8).contains(&shape.len()) || channel >= shape.len(), Corrupt)?;
        refuse_if(batch.is_some_and(|b| b >= shape.len() || b == channel), Corrupt)?;
        // The lengths beside one of 0 must not overflow either.
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
    fn put(&self, bytes: &mut [u8], mut number: u64, integer: i64, exponent: i64) {
        let mut element = 0;
        for (len, distance) in self.axes.iter().rev() {
            element += number % len * distance;
            number /= len;
        }
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
    let (mode, lanes, version) = (flags & 3, 1 << (flags >> 3 & 7), (flags >> 6) + 1);
    refuse_if(version > 2, Unsupported)?;
    refuse_if(lanes > 32 || (mode > 1 && lanes > 1), Corrupt)?;
    let (hash, q) = if mode == 0 { (reader.uint(8)?, reader.int(2)?) } else { (0, 0) };
    let extension = if flags & 4 != 0 { reader.uint(1)? } else { 0 };
    refuse_if(flags & 4 != 0 && !(1..=if version == 1 { 3 } else { 7 }).contains(&extension), Unsupported)?;
    refuse_if((mode > 0 && extension & 1 == 0) || (mode > 1 && extension & 2 != 0), Corrupt)?;
    let own = if extension & 1 != 0 { Some(reader.layout()?) } else { None };
    let chunks = if extension & 2 != 0 { reader.varint()? } else { 1 };
    refuse_if(extension & 2 != 0 && chunks < 2, Corrupt)?;
    refuse_if(chunks > 65_536, LimitExceeded)?;
    let mut head = stream[..stream.len() - reader.0.len()].to_vec();
    head[1] &= !0x38;

    let profile = profiles.iter().find(|p| mode == 0 && p.hash == hash);
    refuse_if(mode == 0 && profile.is_none(), ProfileMismatch)?;
    let layout = own.or(profile.map(|p| p.layout.clone())).ok_or(Corrupt)?;
    let (dtype, size) = DTYPES[layout.dtype];
    let mut bytes = vec![0; layout.elements as usize * size];
    // The length of chunk k without its checksum, which must be right.
    let checked = |chunk: &[u8], head: &[u8], k: u32| {
        let length = chunk.len().checked_sub(extension as usize & 4).ok_or(Truncated)?;
        let crc = crc32(&[head, &k.to_le_bytes(), &[lanes], &chunk[..length]].concat()).to_le_bytes();
        refuse_if(extension & 4 != 0 && crc != chunk[length..], Corrupt)?;
        Ok(length)
    };
    if mode > 1 {
        let mut body = Reader(&reader.0[..checked(reader.0, &head, 0)?]);
        (if mode == 2 { packed } else { lossless })(&mut body, &layout, &mut bytes)?;
        refuse_if(!body.0.is_empty(), Corrupt)?;
    } else {
        let mut lengths = (1..chunks).map(|_| reader.varint()).collect::<Result<Vec<_>>>()?;
        let body = reader.0;
        let plain = if mode == 1 { Some(plain(&mut reader, &layout)?) } else { None };
        head.extend(&body[..body.len() - reader.0.len()]);
        lengths.push((reader.0.len() as u64).saturating_sub(lengths.iter().sum()));
        let seed = (version > 1).then(|| crc32(&head));
        let coder = Coder::new(profile.or(plain.as_ref()).ok_or(Corrupt)?, &layout, q, lanes.into(), seed)?;
        let rows = layout.sides[0] * coder.blocks[0];
        refuse_if(chunks > rows.max(1), Corrupt)?;
        for (k, &length) in (0..).zip(&lengths) {
            let chunk = reader.take(length as usize)?;
            let edge = |k: u32| (u128::from(rows) * u128::from(k) / u128::from(chunks)) as u64;
            coder.chunk(&chunk[..checked(chunk, &head, k)?], k, edge(k)..edge(k + 1), &mut bytes)?;
        }
    }
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
fn plain(body: &mut Reader, layout: &Layout) -> Result<Profile> {
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
    let names = "anchor bank band_matrix context exponent level map mean offset range step".split(' ');
    let of = names.zip([anchor, bank, vec![], context, exponent, level, map, mean, offset, range, step]).collect();
    Ok(Profile { hash: 0, layout: layout.clone(), block: [1, 1], of })
}

/// The states of the lanes and the words that they take from.
struct Lanes<'a>(Vec<u32>, Reader<'a>);

impl Lanes<'_> {
    /// Decodes the interval `start .. start + f`, in which the slot of a lane is.
    fn advance(&mut self, lane: usize, start: u32, f: u32) -> Result<()> {
        let x = &mut self.0[lane];
        *x = f * (*x >> 12) + (*x & 4095) - start;
        if *x < 65_536 {
            *x = *x << 16 | self.1.uint(2)? as u32;
        }
        Ok(())
    }

    fn token(&mut self, lane: usize, table: &[i64]) -> Result<usize> {
        let mut start = 0;
        for token in (1..16).rev().map(|c| 2 * c).chain([0]).chain((1..16).map(|c| 2 * c - 1)).chain([31]) {
            let f = table[token] as u32;
            if self.0[lane] & 4095 < start + f {
                return self.advance(lane, start, f).map(|()| token);
            }
            start += f;
        }
        Err(Corrupt)
    }

    /// Decodes the symbols of a group, one a lane.
    fn group(&mut self, tables: &[&[i64]]) -> Result<Vec<i32>> {
        let mut group = vec![]; // of each lane: token, raw bits it needs, those it has, their number
        for (lane, table) in tables.iter().enumerate() {
            let token = self.token(lane, table)?;
            group.push((token, RAW_BITS[token.div_ceil(2)], 0, 0_u64));
        }
        while group.iter().any(|(_, need, have, _)| have < need) {
            for (lane, (token, need, have, raw)) in group.iter_mut().enumerate().filter(|(_, g)| g.2 < g.1) {
                let n = (*need - *have).min(4);
                let bits = (self.0[lane] & 4095) >> (12 - n);
                self.advance(lane, bits << (12 - n), 4096 >> n)?;
                *raw |= u64::from(bits) << *have;
                *have += n;
                if (*token, *have) == (31, 4) {
                    refuse_if(bits > 8, Corrupt)?;
                    *need += 4 * bits;
                }
            }
        }
        let symbol = |(token, _, _, raw): (usize, u32, u32, u64)| match token {
            31 if raw & 16 == 0 => (raw >> 5) as i32,
            31 => -((raw >> 5) as i32) - 1,
            _ => (BASES[token.div_ceil(2)] + raw as i32) * if token % 2 == 1 { 1 } else { -1 },
        };
        Ok(group.into_iter().map(symbol).collect())
    }
}

/// A profile at a quality index, for the feature of a stream.
struct Coder<'a> {
    profile: &'a Profile,
    layout: &'a Layout,
    q: i64,
    lanes: usize,
    /// None in version 1.
    seed: Option<u32>,
    /// Rows and columns of blocks in a plane.
    blocks: [u64; 2],
    /// Number, level, and table by context, of each active channel.
    active: Vec<(usize, i64, Vec<&'a [i64]>)>,
    /// E of each run of them.
    means: Vec<i64>,
}

impl<'a> Coder<'a> {
    fn new(profile: &'a Profile, layout: &'a Layout, q: i64, lanes: usize, seed: Option<u32>) -> Result<Self> {
        refuse_if(profile.layout.sides[3] != layout.sides[3], Corrupt)?;
        let (p, n) = (&profile.of, profile.of["step"].len());
        let a = (0..p["anchor"].len()).min_by_key(|&a| (q - p["anchor"][a]).abs()).unwrap_or(0);
        let d = (q - p["anchor"][a] + 2) >> 2;
        let table = |index: i64| &p["bank"][index.clamp(1, 103) as usize * 32..][..32];
        let mut active = vec![];
        for (channel, &level) in p["level"][a * n..][..n].iter().enumerate().filter(|&(_, &l)| l > 0 && l > d) {
            let level = (level - d).clamp(1, 103);
            let tables = (0..8).map(|c| match p["context"][0] {
                0 => table(level),
                1 => table(p["map"][(a * n + channel) * 8 + c] - d),
                _ => table(level + p["context_offset"][c]),
            });
            active.push((channel, level, tables.collect()));
        }
        let least = |token: usize| i64::from(BASES[token.div_ceil(2)].min(15));
        let mean = |level| (0..32).map(|token| table(level)[token] * least(token)).sum::<i64>() / 256;
        let means = active.chunks(32).map(|run: &[(_, _, _)]| run.iter().map(|c| mean(c.1)).sum()).collect();
        let blocks = [0, 1].map(|side| layout.sides[side + 1].div_ceil(profile.block[side]));
        Ok(Self { profile, layout, q, lanes, seed, blocks, active, means })
    }

    /// Decodes chunk `k` and writes the values of its block rows.
    fn chunk(&self, bytes: &[u8], k: u32, rows: Range<u64>, out: &mut [u8]) -> Result<()> {
        let (count, [high, wide], rule) = (self.active.len(), self.blocks, self.profile.of["context"][0]);
        let positions = if self.layout.elements == 0 { 0 } else { (rows.end - rows.start) * wide };
        let mut lanes = Lanes(vec![], Reader(bytes));
        for _ in 0..if positions == 0 || count == 0 { 0 } else { self.lanes } {
            lanes.0.push((lanes.1.uint(2)? << 16 | lanes.1.uint(2)?) as u32);
        }
        refuse_if(lanes.0.iter().any(|&x| x < 65_536), Corrupt)?;
        let mut all: Vec<i32> = vec![];
        let magnitude = |symbol: &i32| i64::from(symbol.unsigned_abs().min(15));
        for position in 0..positions {
            let (row, x) = (rows.start + position / wide, position % wide);
            let up = position >= wide && row % high > 0;
            // Weight and symbols of the neighbours that count.
            let near = [(2, x > 0, 1), (2, up, wide), (1, up && x > 0, wide + 1), (1, up && x + 1 < wide, wide - 1)];
            let at = |back: u64| &all[(position - back) as usize * count..][..count];
            let near: Vec<_> = near.iter().filter(|n| n.1).map(|&(weight, _, back)| (weight, at(back))).collect();
            let (mut symbols, mut context, mut d, mut f) = (vec![], 0, 0, 0);
            while symbols.len() < count {
                let (start, run) = (symbols.len(), symbols.len() / 32);
                if rule == 2 && start % 32 == 0 {
                    let m = |of: &[i32]| 16 * of.iter().skip(start).take(32).map(magnitude).sum::<i64>();
                    let a = 2 * (d + 64) + near.iter().map(|(weight, of)| weight * m(of)).sum::<i64>();
                    let e = 2 * (f + 64) + near.iter().map(|(weight, _)| weight * self.means[run]).sum::<i64>();
                    context = [6, 10, 13, 15, 18, 22, 30].iter().filter(|&ratio| 16 * a >= ratio * e).count();
                }
                let table = |i: usize| {
                    let s = near.iter().map(|(weight, of)| weight * magnitude(&of[i])).sum::<i64>();
                    let own = [1, 2, 3, 5, 9, 15, 23].iter().filter(|&&threshold| s >= threshold).count();
                    self.active[i].2[if rule == 1 { own } else { context }]
                };
                let tables: Vec<_> = (start..count.min(start + self.lanes)).map(table).collect();
                symbols.extend(lanes.group(&tables)?);
                if symbols.len() % 32 == 0 {
                    let m = 16 * symbols[32 * run..].iter().map(magnitude).sum::<i64>();
                    (d, f) = ((d + m) * 13 / 16, (f + self.means[run]) * 13 / 16);
                }
            }
            self.reconstruct(&symbols, row, x, out);
            all.extend(symbols);
        }
        refuse_if(!lanes.1.0.is_empty(), Corrupt)?;
        let seed = self.seed.map(|seed| seed.wrapping_add(k));
        let mut sums = vec![seed.unwrap_or(0); self.lanes];
        for (i, &symbol) in all.iter().enumerate().filter(|_| seed.is_some()) {
            let sum = &mut sums[i % count % self.lanes];
            *sum = sum.wrapping_add((2 * i as u32 + 1).wrapping_mul(symbol as u32));
        }
        let last = |sum: u32| 65_536 + (sum.wrapping_mul(2_654_435_761) >> 16);
        refuse_if(lanes.0.iter().zip(sums).any(|(&x, sum)| x != last(sum)), Corrupt)
    }

    /// Dequantises and transforms a block, and writes the values of its pixels.
    fn reconstruct(&self, symbols: &[i32], row: u64, block_x: u64, out: &mut [u8]) {
        let (p, [_, height, width, c], [high, wide]) = (&self.profile.of, self.layout.sides, self.profile.block);
        let mut v = p["mean"].clone();
        for ((channel, level, _), symbol) in self.active.iter().zip(symbols).filter(|(_, symbol)| **symbol != 0) {
            let (m, n) = (i64::from(symbol.unsigned_abs().min(65_535)), (p["step"][*channel] + self.q).clamp(0, 543));
            let mantissa = (2048.0 * ((n % 32) as f64 / 32.0).exp2()).round() as i64;
            let product = (16 * m - p["offset"][*level as usize * 3 + m.min(3) as usize - 1]) * mantissa;
            let s = 16 - n / 32;
            v[*channel] += i64::from(symbol.signum()) * ((product + (1 << s >> 1)) >> s).min(131_071);
        }
        v.iter_mut().for_each(|v| *v = rs16(*v, 2));
        let (c, h, w) = (c as usize, high as usize, wide as usize);
        for (v, &j) in v.chunks_mut(c).zip(&p["band_matrix"]) {
            let inverse = &p["matrix.inverse"][j as usize * c * c..];
            let sum = |i| (0..c).map(|k| inverse[k * c + i] * v[k]).sum();
            let after: Vec<_> = (0..c).map(|i| rs16(sum(i), p["matrix_shifts"][2 * j as usize + 1])).collect();
            v.copy_from_slice(&after);
        }
        // Bands and pixels are numbered alike: row, column, component.
        let places = || (0..h * w * c).map(|at| (at / c / w, at / c % w, at % c));
        if h * w > 1 {
            let (rows, columns, shifts) = (&p["dct.rows"], &p["dct.columns"], &p["dct_shifts"]);
            let t = |(y, x, i)| rs16((0..h).map(|u| rows[u * h + y] * v[(u * w + x) * c + i]).sum(), shifts[0]);
            let t: Vec<_> = places().map(t).collect();
            let pixel = |(y, x, i)| rs16((0..w).map(|u| columns[u * w + x] * t[(y * w + u) * c + i]).sum(), shifts[1]);
            v = places().map(pixel).collect();
        }
        for ((y, x, i), value) in places().zip(v) {
            let (y, x) = (row % self.blocks[0] * high + y as u64, block_x * wide + x as u64);
            let number = ((row / self.blocks[0] * height + y) * width + x) * c as u64 + i as u64;
            if y < height && x < width {
                let value = value.max(p["range"][2 * i]).min(p["range"][2 * i + 1]);
                self.layout.put(out, number, value, p["exponent"][0]);
            }
        }
    }
}

/// A profile: the sides of its blocks, and the scalars and tensors of its decoder by name.
pub struct Profile {
    hash: u64,
    layout: Layout,
    block: [u64; 2],
    of: HashMap<&'static str, Vec<i64>>,
}

/// What follows a key in JSON without white space.
fn after<'a>(json: &'a str, key: &str) -> Result<&'a str> {
    Ok(json.split_once(&format!("\"{key}\":")).ok_or(Corrupt)?.1)
}

/// The number, or the numbers in the list, at the start of JSON; none for `null`.
fn numbers(json: &str) -> Vec<i64> {
    let list = if json.starts_with('[') { json[1..].split(']').next() } else { json.split([',', '}']).next() };
    list.into_iter().flat_map(|list| list.split(',')).filter_map(|number| number.parse().ok()).collect()
}

impl Profile {
    /// Reads a `.safetensors` file and checks what decoding relies on.
    pub fn read(file: &[u8]) -> Result<Self> {
        let mut data = Reader(file);
        let length = data.uint(8)? as usize;
        let header = String::from_utf8_lossy(data.take(length)?).replace("\\\"", "\"");
        let scalars = after(&header, "profile")?;
        refuse_if(numbers(after(scalars, "version")?) != [1], Unsupported)?;
        let mut of = HashMap::new();
        for name in "batch_axis channel_axis context dct_shifts exponent matrix_shifts shape".split(' ') {
            of.insert(name, numbers(after(scalars, name)?));
        }
        let i16s = "anchor dct.columns dct.rows matrix.inverse range";
        let others = [(1, 255, "band_matrix level map offset"), (1, -1, "context_offset"), (4, -1, "mean")];
        for (size, mask, names) in others.into_iter().chain([(2, -1, i16s), (2, 65_535, "bank step")]) {
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
        let [h, w] = ["dct.rows", "dct.columns"].map(|name| of[name].len().isqrt());
        let (c, k, g) = (layout.sides[3] as usize, of["anchor"].len(), of["matrix_shifts"].len() / 2);
        let (n, map) = (h * w * c, if of["context"] == [1] { 8 } else { 0 });
        let names = "anchor bank context_offset dct.columns dct.rows level map matrix.inverse mean offset range step";
        let lengths = [k, 104 * 32, 8, w * w, h * h, k * n, k * n * map, g * c * c, n, 104 * 3, 2 * c, n];
        refuse_if(names.split(' ').zip(lengths).any(|(name, length)| of[name].len() != length), Corrupt)?;
        refuse_if(k == 0 || n == 0 || of["band_matrix"].len() != if g > 0 { h * w } else { 0 }, Corrupt)?;
        let within = |name: &str, from, to| of[name].iter().all(|number| (from..=to).contains(number));
        refuse_if(!within("band_matrix", 0, g as i64 - 1) || !within("exponent", -126, 126), Corrupt)?;
        refuse_if(!within("matrix_shifts", 0, 16) || !within("dct_shifts", 0, 15), Corrupt)?;
        refuse_if(of["bank"].chunks(32).any(|table| table.iter().sum::<i64>() != 4096), Corrupt)?;
        refuse_if(of["dct_shifts"].len() != 2 || of["exponent"].len() != 1 || of["context"].len() != 1, Corrupt)?;
        let hash = u64::from_str_radix(after(&header, "hash")?.split('"').nth(1).unwrap_or(""), 16);
        Ok(Self { hash: hash.map_err(|_| Corrupt)?, layout, block: [h, w].map(|side| side as u64), of })
    }
}
