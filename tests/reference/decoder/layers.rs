//! The chunks of a stream with a profile, layer upon layer.

use super::Kind::{Corrupt, Truncated};
use super::pixels::pixels;
use super::symbols::{BASES, group};
use super::{Layout, Profile, Reader, Result, refuse_if};

/// What a quality index makes of a profile: the number of its anchor, the d of FORMAT.md, and the numbers and levels of
/// the active channels.
pub struct Index {
    pub q: i64,
    a: usize,
    d: i64,
    pub active: Vec<(usize, i64)>,
}

impl Index {
    pub fn new(Profile(_, p): &Profile, q: i64) -> Self {
        let a = (0..p["anchor"].len()).min_by_key(|&a| (q - p["anchor"][a]).abs()).unwrap_or(0);
        let (d, n) = ((q - p["anchor"][a] + 2) >> 2, p["step"].len());
        let levels = p["level"][a * n..][..n].iter().enumerate();
        let active = levels.filter(|&(_, &level)| level > 0 && level > d);
        Self { q, a, d, active: active.map(|(channel, level)| (channel, (level - d).clamp(1, 103))).collect() }
    }

    /// The place of a coder channel among the active ones.
    pub fn place(&self, channel: usize) -> Option<usize> {
        self.active.iter().position(|active| active.0 == channel)
    }
}

/// A layer that is there: lanes and chunks.
pub struct Layer<'a> {
    pub lanes: usize,
    pub chunks: Vec<Reader<'a>>,
}

/// The quality index of the stream, its number of layers, those that are not there included, and the seed but in version 1.
pub type How = (i64, usize, Option<u32>);

/// Positions of a chunk: block rows from the first on, their number, blocks in a row, block rows of a plane.
#[derive(Clone, Copy)]
struct Grid {
    first: u64,
    rows: u64,
    wide: u64,
    high: u64,
}

/// Decodes the layers of modes 0 and 1.
pub fn coded(profile: &Profile, layout: &Layout, how: How, layers: &mut [Layer], out: &mut [u8]) -> Result<()> {
    let (Profile(own, p), (q, count, seed), [planes, height, width, c]) = (profile, how, layout.sides);
    let (h, w) = (p["block"][0] as u64, p["block"][1] as u64);
    let (high, wide, length) = (height.div_ceil(h), width.div_ceil(w), layers[0].chunks.len());
    let all_rows = u128::from(planes * high);
    refuse_if(own.sides[3] != c || length as u128 > all_rows.max(1), Corrupt)?;
    let index = |l| Index::new(profile, (q + 51 * (count - 1 - l) as i64).min(32_767));
    let mut indices: Vec<Index> = (0..count).map(index).collect();
    for l in (1..count).rev() {
        let (coarser, finer) = indices.split_at_mut(l);
        coarser[l - 1].active.retain(|&(channel, _)| finer[0].place(channel).is_some());
    }
    for k in 0..length {
        let [first, end] = [k, k + 1].map(|k| (all_rows * k as u128 / length as u128) as u64);
        let grid = Grid { first, rows: if layout.elements == 0 { 0 } else { end - first }, wide, high };
        let mut below: Option<(&Index, Vec<i64>)> = None;
        for (l, (layer, index)) in layers.iter_mut().zip(&indices).enumerate() {
            let (number, lanes) = ((l * length + k) as u32, layer.lanes);
            let symbols = chunk(p, index, grid, below.as_ref(), (number, lanes, seed), &mut layer.chunks[k])?;
            below = Some((index, symbols));
        }
        let (index, symbols) = below.ok_or(Truncated)?;
        for position in 0..grid.rows * wide {
            let (row, x, count) = (first + position / wide, position % wide, index.active.len());
            let symbols = &symbols[position as usize * count..][..count];
            put_block(profile, layout, (row, x), &pixels(profile, q, c as usize, index, symbols), out);
        }
    }
    Ok(())
}

/// Writes the pixels of the block in this row, of all planes, and column.
pub fn put_block(Profile(_, p): &Profile, layout: &Layout, (row, x): (u64, u64), pixels: &[i64], out: &mut [u8]) {
    let ([_, height, width, c], h, w) = (layout.sides, p["block"][0] as u64, p["block"][1] as u64);
    let high = height.div_ceil(h);
    for (at, &value) in (0..).zip(pixels) {
        let (y, x, i) = (row % high * h + at / c / w, x * w + at / c % w, at % c);
        if y < height && x < width {
            let number = ((row / high * height + y) * width + x) * c + i;
            let value = value.max(p["range"][2 * i as usize]).min(p["range"][2 * i as usize + 1]);
            layout.put(out, number, value, p["exponent"][0]);
        }
    }
}

type Numbers = std::collections::HashMap<&'static str, Vec<i64>>;

/// Decodes the symbols of a chunk of a layer, given its number, its lanes, the seed, and the layer below.
fn chunk(
    p: &Numbers,
    index: &Index,
    grid: Grid,
    below: Option<&(&Index, Vec<i64>)>,
    (number, lanes, seed): (u32, usize, Option<u32>),
    words: &mut Reader,
) -> Result<Vec<i64>> {
    let Index { a, d, ref active, .. } = *index;
    let (rule, n, count, wide) = (p["context"][0], p["step"].len(), active.len(), grid.wide);
    let positions = grid.rows * wide;
    let table = |index: i64| &p["bank"][index.clamp(1, 103) as usize * 32..][..32];
    let mean = |l| table(l).iter().zip(0_usize..).map(|(f, t)| f * BASES[t.div_ceil(2)].min(15)).sum::<i64>() / 256;
    let means: Vec<i64> = active.chunks(32).map(|run| run.iter().map(|channel| mean(channel.1)).sum()).collect();
    let magnitude = |symbol: &i64| symbol.abs().min(15);
    // Of each active channel its place in the layer below, if it is active there.
    let places: Vec<_> = active.iter().map(|channel| below?.0.place(channel.0)).collect();
    let used = if positions == 0 || count == 0 { 0 } else { lanes };
    let state = |_| Ok((words.uint(2)? << 16 | words.uint(2)?) as u32);
    let mut states = (0..used).map(state).collect::<Result<Vec<_>>>()?;
    refuse_if(states.iter().any(|&x| x < 65_536), Corrupt)?;
    let mut all: Vec<i64> = vec![];
    for position in 0..positions {
        let (row, x) = (grid.first + position / wide, position % wide);
        let up = position >= wide && row % grid.high > 0;
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
            let coarse = |i: usize| Some(below?.1[position as usize * below?.0.active.len() + places[i]?]);
            let channels: Vec<_> = (start..count.min(start + lanes)).map(|i| (table(i), coarse(i))).collect();
            symbols.extend(group(&channels, &mut states, words)?);
        }
        all.extend(symbols);
    }
    for (lane, &x) in states.iter().enumerate() {
        let own = all.iter().enumerate().filter(|(i, _)| i % count % lanes == lane);
        let add = |sum: u32, (i, &symbol)| sum.wrapping_add((2 * i as u32 + 1).wrapping_mul(symbol as u32));
        let h = seed.map_or(0, |seed| seed.wrapping_add(own.fold(number, add)).wrapping_mul(2_654_435_761));
        refuse_if(x != 65_536 + (h >> 16), Corrupt)?;
    }
    Ok(all)
}
