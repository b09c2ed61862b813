//! A second decoder, written from FORMAT.md alone and in its words: plain scalar code that is slow and shares nothing
//! with the crate. It reads the built-in bank out of that page, and takes a profile and its hash on trust.

use Kind::{Corrupt, LimitExceeded, ProfileMismatch, Truncated, Unsupported};
use std::collections::HashMap;

/// Why a stream or a profile is refused.
#[rustfmt::skip]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind { Truncated, Corrupt, Unsupported, ProfileMismatch, LimitExceeded }

/// The name of a feature's dtype, its shape, and its elements as little-endian bytes in row-major order.
#[rustfmt::skip]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decoded { pub dtype: &'static str, pub shape: Vec<usize>, pub bytes: Vec<u8> }

/// A profile: its layout, and the scalars and tensors that decoding needs, by name.
pub struct Profile(Layout, HashMap<&'static str, Vec<i64>>);

type How = (i64, usize, Option<u32>); // quality index, lanes, and the seed but in version 1
type Result<T> = std::result::Result<T, Kind>;

const DTYPES: [(&str, usize); 5] = [("f32", 4), ("f16", 2), ("bf16", 2), ("i8", 1), ("u8", 1)];
/// By class: the smallest magnitude of a token (15 stands for that of the escape) and its raw bits.
const BASES: [i64; 17] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 13, 21, 37, 69, 133, 261, 15];
const RAW_BITS: [u32; 17] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 3, 4, 5, 6, 7, 8, 4];

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
    let (mode, lanes, version) = (flags & 3, 1 << (flags >> 3 & 7), (flags >> 6) + 1);
    refuse_if(version > 2, Unsupported)?;
    let (hash, q) = if mode == 0 { (reader.uint(8)?, reader.int(2)?) } else { (0, 0) };
    let extension = if flags & 4 != 0 { reader.uint(1)? } else { 0 };
    refuse_if(flags & 4 != 0 && !(1..=if version == 1 { 3 } else { 7 }).contains(&extension), Unsupported)?;
    refuse_if(lanes > 32 || (mode > 1 && extension & 2 != 0), Corrupt)?;
    let own = if extension & 1 != 0 { Some(reader.layout()?) } else { None };
    let count = if extension & 2 != 0 { reader.varint()? } else { 1 };
    refuse_if(count == 0 || (count == 1 && extension & 2 != 0), Corrupt)?;
    refuse_if(count > 65_536, LimitExceeded)?;
    let mut head = stream[..stream.len() - reader.0.len()].to_vec();
    head[1] &= !0x38;
    let profile = profiles.iter().find(|p| mode == 0 && p.1["hash"] == [hash as i64]);
    refuse_if(mode == 0 && profile.is_none(), ProfileMismatch)?;
    let layout = own.or(profile.map(|p| p.0.clone())).ok_or(Corrupt)?;
    let mut lengths = (1..count).map(|_| reader.varint()).collect::<Result<Vec<_>>>()?;
    let body = reader.0;
    let plain = if mode == 1 { Some(plain(&mut reader, &layout)?) } else { None };
    head.extend(&body[..body.len() - reader.0.len()]);
    lengths.push((reader.0.len() as u64).saturating_sub(lengths.iter().sum()));
    let mut chunks = vec![];
    for (k, &length) in (0_u32..).zip(&lengths) {
        let chunk = reader.take(length as usize)?;
        let end = chunk.len().checked_sub(extension as usize & 4).ok_or(Truncated)?;
        let crc = crc32(&[&head[..], &k.to_le_bytes(), &[lanes], &chunk[..end]].concat()).to_le_bytes();
        refuse_if(extension & 4 != 0 && crc != chunk[end..], Corrupt)?;
        chunks.push(Reader(&chunk[..end]));
    }
    let (dtype, size) = DTYPES[layout.dtype];
    let mut bytes = vec![0; layout.elements as usize * size];
    match profile.or(plain.as_ref()) {
        Some(p) => coded(p, &layout, (q, lanes.into(), (version > 1).then(|| crc32(&head))), &mut chunks, &mut bytes)?,
        None if mode == 2 => packed(&mut chunks[0], &layout, &mut bytes)?,
        None => lossless(&mut chunks[0], &layout, &mut bytes)?,
    }
    refuse_if(chunks.iter().any(|chunk| !chunk.0.is_empty()), Corrupt)?;
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
    let names = "anchor bank band_matrix block context exponent level map mean offset range step".split(' ');
    let p = [anchor, bank, vec![], vec![1, 1], context, exponent, level, map, mean, offset, range, step];
    Ok(Profile(layout.clone(), names.zip(p).collect()))
}

/// Decodes the interval `start .. start + f`, in which the slot of a lane's state is.
fn advance(x: &mut u32, words: &mut Reader, start: u32, f: u32) -> Result<()> {
    *x = f * (*x >> 12) + (*x & 4095) - start;
    if *x < 65_536 {
        *x = *x << 16 | words.uint(2)? as u32;
    }
    Ok(())
}

/// Decodes the symbols of a group, one a lane.
fn group(tables: &[&[i64]], states: &mut [u32], words: &mut Reader) -> Result<Vec<i64>> {
    let mut group = vec![]; // of each lane: token, how many raw bits it needs, and their number
    for (x, table) in states.iter_mut().zip(tables) {
        let (mut end, slot) = (0, i64::from(*x & 4095));
        let mut order = (1..16).rev().map(|c| 2 * c).chain([0]).chain((1..16).map(|c| 2 * c - 1)).chain([31]);
        let token = order.find(|&token| (end += table[token], slot < end).1).ok_or(Corrupt)?;
        advance(x, words, (end - table[token]) as u32, table[token] as u32)?;
        group.push((token, RAW_BITS[token.div_ceil(2)], 0_i64));
    }
    for had in (0..36).step_by(4) {
        for (x, (token, need, raw)) in states.iter_mut().zip(&mut group).filter(|lane| lane.1.1 > had) {
            let n = (*need - had).min(4);
            let bits = (*x & 4095) >> (12 - n);
            advance(x, words, bits << (12 - n), 4096 >> n)?;
            *raw |= i64::from(bits) << had;
            let nibble = if *token == 31 && had == 0 { bits } else { 0 };
            refuse_if(nibble > 8, Corrupt)?;
            *need += 4 * nibble;
        }
    }
    let escape = |raw: i64| raw >> 5 ^ -(raw >> 4 & 1);
    let plain = |token: usize, raw| (BASES[token.div_ceil(2)] + raw) * if token % 2 == 1 { 1 } else { -1 };
    Ok(group.iter().map(|&(token, _, raw)| if token == 31 { escape(raw) } else { plain(token, raw) }).collect())
}

/// Decodes the chunks of modes 0 and 1.
fn coded(profile: &Profile, layout: &Layout, how: How, chunks: &mut [Reader], out: &mut [u8]) -> Result<()> {
    let (Profile(own, p), (q, lanes, seed), [planes, height, width, c]) = (profile, how, layout.sides);
    let (rule, n, h, w) = (p["context"][0], p["step"].len(), p["block"][0] as u64, p["block"][1] as u64);
    let (high, wide, length) = (height.div_ceil(h), width.div_ceil(w), chunks.len() as u128);
    let rows = u128::from(planes * high);
    refuse_if(own.sides[3] != c || length > rows.max(1), Corrupt)?;
    let a = (0..p["anchor"].len()).min_by_key(|&a| (q - p["anchor"][a]).abs()).unwrap_or(0);
    let d = (q - p["anchor"][a] + 2) >> 2;
    let active = p["level"][a * n..][..n].iter().enumerate().filter(|&(_, &level)| level > 0 && level > d);
    let active: Vec<_> = active.map(|(channel, level)| (channel, (level - d).clamp(1, 103))).collect();
    let count = active.len();
    let table = |index: i64| &p["bank"][index.clamp(1, 103) as usize * 32..][..32];
    let mean = |l| table(l).iter().zip(0_usize..).map(|(f, t)| f * BASES[t.div_ceil(2)].min(15)).sum::<i64>() / 256;
    let means: Vec<i64> = active.chunks(32).map(|run| run.iter().map(|channel| mean(channel.1)).sum()).collect();
    let magnitude = |symbol: &i64| symbol.abs().min(15);
    for (k, words) in (0_u32..).zip(chunks) {
        let [start, end] = [k, k + 1].map(|k| (rows * u128::from(k) / length) as u64);
        let positions = if layout.elements == 0 { 0 } else { (end - start) * wide };
        let used = if positions == 0 || count == 0 { 0 } else { lanes };
        let state = |_| Ok((words.uint(2)? << 16 | words.uint(2)?) as u32);
        let mut states = (0..used).map(state).collect::<Result<Vec<_>>>()?;
        refuse_if(states.iter().any(|&x| x < 65_536), Corrupt)?;
        let mut all: Vec<i64> = vec![];
        for position in 0..positions {
            let (row, x) = (start + position / wide, position % wide);
            let up = position >= wide && row % high > 0;
            // Weight, whether it counts, and how many positions ago: left, up, up left, up right.
            let near = [(2, x > 0, 1), (2, up, wide), (1, up && x > 0, wide + 1), (1, up && x + 1 < wide, wide - 1)];
            let at = |back: u64| &all[(position - back) as usize * count..][..count];
            let near: Vec<_> = near.iter().filter(|n| n.1).map(|&(weight, _, back)| (weight, at(back))).collect();
            let (mut symbols, mut context) = (vec![], 0);
            while symbols.len() < count {
                let (start, run) = (symbols.len(), symbols.len() / 32);
                if rule == 2 && start % 32 == 0 {
                    let m = |of: &[i64], r: usize| 16 * of.iter().skip(32 * r).take(32).map(magnitude).sum::<i64>();
                    let next = |(d, f), r: usize| ((d + m(&symbols, r)) * 13 / 16, (f + means[r]) * 13 / 16);
                    let (d, f) = (0..run).fold((0, 0), next);
                    let a = 2 * (d + 64) + near.iter().map(|(weight, of)| weight * m(of, run)).sum::<i64>();
                    let e = 2 * (f + 64) + near.iter().map(|(weight, _)| weight * means[run]).sum::<i64>();
                    context = [6, 10, 13, 15, 18, 22, 30].iter().filter(|&ratio| 16 * a >= ratio * e).count();
                }
                let table = |i: usize| {
                    let s = near.iter().map(|(weight, of)| weight * magnitude(&of[i])).sum::<i64>();
                    let own = [1, 2, 3, 5, 9, 15, 23].iter().filter(|&&threshold| s >= threshold).count();
                    table(match rule {
                        0 => active[i].1,
                        1 => p["map"][(a * n + active[i].0) * 8 + own] - d,
                        _ => active[i].1 + p["context_offset"][context],
                    })
                };
                let tables: Vec<_> = (start..count.min(start + lanes)).map(table).collect();
                symbols.extend(group(&tables, &mut states, words)?);
            }
            for (at, value) in (0..).zip(pixels(p, q, c as usize, &active, &symbols)) {
                let (y, x, i) = (row % high * h + at / c / w, x * w + at / c % w, at % c);
                if y < height && x < width {
                    let number = ((row / high * height + y) * width + x) * c + i;
                    let value = value.max(p["range"][2 * i as usize]).min(p["range"][2 * i as usize + 1]);
                    layout.put(out, number, value, p["exponent"][0]);
                }
            }
            all.extend(symbols);
        }
        for (lane, &x) in states.iter().enumerate() {
            let own = all.iter().enumerate().filter(|(i, _)| i % count % lanes == lane);
            let sum = own.fold(k, |sum, (i, &symbol)| sum.wrapping_add((2 * i as u32 + 1).wrapping_mul(symbol as u32)));
            let h = seed.map_or(0, |seed| seed.wrapping_add(sum).wrapping_mul(2_654_435_761));
            refuse_if(x != 65_536 + (h >> 16), Corrupt)?;
        }
    }
    Ok(())
}

/// Dequantises and transforms a block of `c` components, from number, level and symbol of its active channels.
fn pixels(p: &HashMap<&str, Vec<i64>>, q: i64, c: usize, active: &[(usize, i64)], symbols: &[i64]) -> Vec<i64> {
    let (h, w, mut v) = (p["block"][0] as usize, p["block"][1] as usize, p["mean"].clone());
    for (&(channel, level), &symbol) in active.iter().zip(symbols).filter(|of| *of.1 != 0) {
        let (m, n) = (symbol.abs().min(65_535), (p["step"][channel] + q).clamp(0, 543));
        let mantissa = (2048.0 * ((n % 32) as f64 / 32.0).exp2()).round() as i64;
        let (s, offset) = (16 - n / 32, p["offset"][level as usize * 3 + m.min(3) as usize - 1]);
        v[channel] += symbol.signum() * (((16 * m - offset) * mantissa + (1 << s >> 1)) >> s).min(131_071);
    }
    v.iter_mut().for_each(|v| *v = rs16(*v, 2));
    for (v, &j) in v.chunks_mut(c).zip(&p["band_matrix"]) {
        let (j, shift) = (j as usize, p["matrix_shifts"][2 * j as usize + 1]);
        let sum = |i| (0..c).map(|k| p["matrix.inverse"][(j * c + k) * c + i] * v[k]).sum();
        let after: Vec<_> = (0..c).map(|i| rs16(sum(i), shift)).collect();
        v.copy_from_slice(&after);
    }
    if h * w > 1 {
        // Bands and pixels are numbered alike: row, column, component.
        let places = || (0..h * w * c).map(|at| (at / c / w, at / c % w, at % c));
        let (rows, columns, shifts) = (&p["dct.rows"], &p["dct.columns"], &p["dct_shifts"]);
        let t = |(y, x, i)| rs16((0..h).map(|u| rows[u * h + y] * v[(u * w + x) * c + i]).sum(), shifts[0]);
        let t: Vec<_> = places().map(t).collect();
        let pixel = |(y, x, i)| rs16((0..w).map(|u| columns[u * w + x] * t[(y * w + u) * c + i]).sum(), shifts[1]);
        v = places().map(pixel).collect();
    }
    v
}

/// What follows a key in JSON without white space.
fn after<'a>(json: &'a str, key: &str) -> Result<&'a str> {
    Ok(json.split_once(&format!("\"{key}\":")).ok_or(Corrupt)?.1)
}

/// The number or list of numbers that is next.
fn numbers(json: &str) -> Vec<i64> {
    json.trim_start_matches('[').split([',', ']', '}']).map_while(|number| number.parse().ok()).collect()
}

/// Reads a `.safetensors` file and takes its tensors as they are.
pub fn read_profile(file: &[u8]) -> Result<Profile> {
    let mut data = Reader(file);
    let length = data.uint(8)? as usize;
    let header = String::from_utf8_lossy(data.take(length)?).replace("\\\"", "\"");
    let scalars = after(&header, "profile")?;
    refuse_if(numbers(after(scalars, "version")?) != [1], Unsupported)?;
    let mut of = HashMap::new();
    for name in "batch_axis channel_axis context dct_shifts exponent matrix_shifts shape".split(' ') {
        of.insert(name, numbers(after(scalars, name)?));
    }
    let i16s = (2, -1, "anchor dct.columns dct.rows matrix.inverse range");
    let bytes = (1, 255, "band_matrix level map offset");
    for (size, mask, names) in [i16s, bytes, (1, -1, "context_offset"), (2, 65_535, "bank step"), (4, -1, "mean")] {
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
    of.insert("block", ["dct.rows", "dct.columns"].map(|name| of[name].len().isqrt() as i64).to_vec());
    let hash = u64::from_str_radix(after(&header, "hash")?.split('"').nth(1).unwrap_or(""), 16);
    of.insert("hash", vec![hash.map_err(|_| Corrupt)? as i64]);
    Ok(Profile(layout, of))
}
