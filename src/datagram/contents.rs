//! Which symbols a datagram holds, in which order, and with which tables.

use crate::kernels::portable::{RATIO, coarsen};
use crate::plan;
use crate::profile::Profile;
use crate::transform::Blocks;

/// Which part of how many each symbol is in.
#[derive(Debug, Clone, Copy)]
pub(super) struct Spread {
    pub parts: usize,
    /// Block rows of a plane, and blocks of a row.
    plane_rows: usize,
    columns: usize,
    /// By how many parts the blocks to the right and below are further.
    right: usize,
    below: usize,
}

impl Spread {
    pub fn new(parts: usize, blocks: &Blocks) -> Spread {
        // Relatively prime to the parts, so that blocks of few channels are in all of them.
        let right = (3 * parts).div_ceil(8).max(1);
        let right = (right..).find(|&step| gcd(step, parts) == 1).unwrap_or(1);
        let (plane_rows, columns) = (blocks.plane_rows.max(1), blocks.columns.max(1));
        Spread { parts, plane_rows, columns, right, below: (parts / 4).max(1) }
    }

    /// The part of the first active channel of a block; those of the others follow in turn.
    pub fn first(&self, block: usize) -> usize {
        let (row, column) = (block / self.columns % self.plane_rows, block % self.columns);
        (column % self.parts * self.right + row % self.parts * self.below) % self.parts
    }

    /// The active channels of a block that are in a part, of `channels`.
    fn channels(&self, part: usize, block: usize, channels: usize) -> impl Iterator<Item = usize> + use<> {
        ((part + self.parts - self.first(block)) % self.parts..channels).step_by(self.parts)
    }

    /// For each part, how many of `planes` planes' blocks have their first channel in it.
    fn firsts(&self, planes: usize) -> Vec<u64> {
        let Spread { parts, .. } = *self;
        // How many numbers below `length` leave each rest.
        let rests = |length: usize| move |rest: usize| (length / parts + usize::from(rest < length % parts)) as u64;
        let (rows, columns) = (rests(self.plane_rows), rests(self.columns));
        let mut firsts = vec![0; parts];
        for (row, column) in (0..parts).flat_map(|row| (0..parts).map(move |column| (row, column))) {
            firsts[(column * self.right + row * self.below) % parts] += planes as u64 * rows(row) * columns(column);
        }
        firsts
    }
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// Where a symbol belongs, and the table that codes it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub block: usize,
    /// Number among the active channels.
    pub channel: usize,
    pub table: u8,
}

/// What the datagrams of a feature hold: the symbols of their own part, then copies of those of another, if there are copies.
#[derive(Debug, Clone)]
pub(super) struct Contents {
    pub spread: Spread,
    blocks: usize,
    /// For each part, the blocks whose first channel is in it.
    firsts: Vec<u64>,
    /// The tables of the active channels.
    tables: Vec<u8>,
    /// Those of their copies; `None` for channels that are silent at so coarse a quality.
    copy_tables: Vec<Option<u8>>,
    copies: u8,
}

impl Contents {
    /// For a feature of these blocks, in `parts` parts.
    pub fn new(profile: &Profile, quality: i16, (parts, copies): (usize, u8), blocks: &Blocks) -> Contents {
        let active: Vec<(usize, u8)> = plan::levels(profile, quality, 0).collect();
        let mut coarse = plan::levels(profile, quality, usize::from(copies)).peekable();
        let copy = |&(own, _): &(usize, u8)| coarse.next_if(|&(channel, _)| channel == own).map(|(_, table)| table);
        let copy_tables = if copies > 0 { active.iter().map(copy).collect() } else { vec![None; active.len()] };
        let spread = Spread::new(parts, blocks);
        let planes = if blocks.count() == 0 { 0 } else { blocks.rows / blocks.plane_rows.max(1) };
        Contents {
            spread,
            blocks: blocks.count(),
            firsts: spread.firsts(planes),
            tables: active.iter().map(|&(_, table)| table).collect(),
            copy_tables,
            copies,
        }
    }

    /// Active channels.
    pub fn channels(&self) -> usize {
        self.tables.len()
    }

    /// The least that the symbols of a part cost, in 1/256 bit, from what the cheapest token of each table costs.
    pub fn least_cost(&self, part: usize, least: impl Fn(u8) -> u32) -> u64 {
        let Spread { parts, .. } = self.spread;
        let costs = self.tables.iter().enumerate().map(|(channel, &table)| {
            self.firsts[(part + parts - channel % parts) % parts].saturating_mul(u64::from(least(table)))
        });
        costs.fold(0, u64::saturating_add)
    }

    /// The symbols of a part.
    pub fn own(&self, part: usize) -> impl Iterator<Item = Place> {
        let channels = move |block| self.spread.channels(part, block, self.channels());
        (0..self.blocks).flat_map(move |block| {
            channels(block).map(move |channel| Place { block, channel, table: self.tables[channel] })
        })
    }

    /// The part of which a part has copies, if there are any.
    pub fn copied(&self, part: usize) -> Option<usize> {
        let Spread { parts, .. } = self.spread;
        (self.copies > 0).then(|| (part + (parts / 2).max(1)) % parts)
    }

    /// Whether a part has copies of a channel.
    pub fn is_copied(&self, channel: usize) -> bool {
        self.copy_tables[channel].is_some()
    }

    /// The symbols of another part that a part has copies of.
    pub fn copies(&self, part: usize) -> impl Iterator<Item = Place> {
        let copied = self.copied(part);
        let all = copied.into_iter().flat_map(|copied| self.own(copied));
        all.filter_map(|place| Some(Place { table: self.copy_tables[place.channel]?, ..place }))
    }

    /// The copy of a symbol.
    pub fn coarse(&self, symbol: i32) -> i32 {
        (0..self.copies).fold(symbol, |symbol, _| coarsen(symbol))
    }

    /// The symbol in the middle of those of which this is the copy, and how far the others are from it.
    pub fn middle(&self, copy: i32) -> (i32, i32) {
        let ratio = RATIO.pow(u32::from(self.copies));
        (copy.wrapping_mul(ratio), ratio / 2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::container::Layout;
    use crate::geometry::Grid;
    use crate::tensor::{Axes, Dtype};

    fn blocks(shape: &[usize]) -> Blocks {
        let layout = Layout::new(Dtype::F32, Axes::default_for(shape.len()), shape).unwrap();
        Blocks::new(&Grid::new(&layout), (1, 1))
    }

    fn spread(parts: usize) -> Spread {
        Spread::new(parts, &blocks(&[2, 1, 5, 6]))
    }

    #[test]
    fn every_symbol_is_in_one_part_and_neighbours_are_in_others() {
        for parts in [1, 2, 3, 4, 7, 8, 20, 255] {
            let spread = spread(parts);
            for block in 0..2 * 5 * 6 {
                let mut seen = [0; 50];
                for part in 0..parts {
                    spread.channels(part, block, 50).for_each(|channel| seen[channel] += 1);
                }
                assert_eq!(seen, [1; 50]);
            }
            if parts > 1 {
                assert!((0..5).all(|x| spread.first(x) != spread.first(x + 1)));
                assert!((0..4).all(|y| spread.first(6 * y) != spread.first(6 * y + 6)));
            }
        }
    }

    #[test]
    fn the_blocks_of_each_part_are_counted() {
        for parts in [1, 2, 3, 4, 7, 8, 20, 255] {
            let spread = spread(parts);
            let mut firsts = vec![0; parts];
            (0..60).for_each(|block| firsts[spread.first(block)] += 1);
            assert_eq!(spread.firsts(2), firsts);
        }
    }

    #[test]
    fn few_channels_are_in_all_parts() {
        let blocks = blocks(&[1, 1, 1, 200]);
        for parts in 1..=100 {
            let firsts = Spread::new(parts, &blocks).firsts(1);
            assert!(firsts.iter().all(|&count| count > 0), "{parts} parts: {firsts:?}");
        }
    }
}
