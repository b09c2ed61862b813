//! Values in place of lost symbols.

use crate::datagram::contents::Contents;
use crate::transform::Blocks;

/// What replaces the parts of a feature that did not arrive.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Concealment {
    /// The profile's mean of each coder channel.
    Means,
    /// The mean plus a weight times the neighbouring blocks' average deviation from it; the weight is fitted for each band,
    /// by least squares, to the parts of this feature that arrived. The nearest to the feature in squared error.
    Neighbours,
    /// As [`Concealment::Neighbours`], then all deviations from the means divided by the share of the energy that is
    /// known to the power of 0.75, as dropout divides by the share that it keeps: what is lost would otherwise make
    /// every response of the tail smaller. Further from the feature in squared error, but answered better.
    #[default]
    Restored,
}

/// What is known of a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Known {
    /// Neither it nor a copy has arrived.
    Nothing,
    /// A copy has.
    Coarsely,
    /// It has.
    Exactly,
}

/// The places of a feature's symbols, and what is known of them.
pub(super) struct Cells<'a> {
    pub blocks: &'a Blocks,
    /// The coder channels that are coded.
    pub channels: &'a [u32],
    /// Channels of a band.
    pub components: usize,
    pub bands: usize,
    pub contents: &'a Contents,
    /// Of each part.
    pub known: &'a [Known],
}

impl Cells<'_> {
    fn known(&self, block: usize, channel: usize) -> Known {
        let spread = &self.contents.spread;
        match self.known[(spread.first(block) + channel) % spread.parts] {
            Known::Coarsely if !self.contents.is_copied(channel) => Known::Nothing,
            known => known,
        }
    }

    /// The mean symbol of a channel over the neighbours of a block of which something is known, if there are any.
    fn around(&self, symbols: &[i32], block: usize, channel: usize) -> Option<f64> {
        let Blocks { plane_rows, columns, .. } = *self.blocks;
        let (row, column) = (block / columns % plane_rows, block % columns);
        let neighbours = [
            (column > 0).then(|| block - 1),
            (column + 1 < columns).then(|| block + 1),
            (row > 0).then(|| block - columns),
            (row + 1 < plane_rows).then(|| block + columns),
        ];
        let (mut sum, mut count) = (0.0, 0);
        let known = |&block: &usize| self.known(block, channel) != Known::Nothing;
        for block in neighbours.into_iter().flatten().filter(known) {
            sum += f64::from(symbols[block * self.channels.len() + channel]);
            count += 1;
        }
        (count > 0).then(|| sum / f64::from(count))
    }

    /// Fills in the symbols of which nothing has arrived, which are 0, and those whose copies are, which are in the middle of what
    /// they may be.
    pub fn conceal(&self, symbols: &mut [i32], concealment: Concealment) {
        let channels = self.channels.len();
        if concealment == Concealment::Means || channels == 0 || self.known.iter().all(|&part| part == Known::Exactly) {
            return;
        }
        let band = |channel: usize| self.channels[channel] as usize / self.components.max(1);
        // By band: of the symbols that are there, products with the means around them, and their squares.
        let mut moments = vec![(0.0, 0.0); self.bands + 1];
        let blocks = symbols.len() / channels;
        for block in 0..blocks {
            for channel in (0..channels).filter(|&channel| self.known(block, channel) == Known::Exactly) {
                if let Some(around) = self.around(symbols, block, channel) {
                    let (product, square) = &mut moments[band(channel)];
                    *product += around * f64::from(symbols[block * channels + channel]);
                    *square += around * around;
                }
            }
        }
        let mut estimates = Vec::new();
        for (block, row) in symbols.chunks_exact(channels).enumerate() {
            for (channel, &symbol) in row.iter().enumerate() {
                // What a copy says is not zero is taken to be in the middle, as a coarse stream's is.
                let most = match self.known(block, channel) {
                    Known::Nothing => f64::INFINITY,
                    Known::Coarsely if symbol == 0 => f64::from(self.contents.middle(0).1),
                    _ => continue,
                };
                if let Some(around) = self.around(symbols, block, channel) {
                    // Little evidence makes little difference.
                    let (product, square) = moments[band(channel)];
                    let weight = (product / (square + 4.0)).clamp(0.0, 1.0);
                    estimates.push((block * channels + channel, (weight * around).clamp(-most, most).round() as i32));
                }
            }
        }
        estimates.into_iter().for_each(|(place, symbol)| symbols[place] = symbol);
    }

    /// The share of the energy of the symbols that is known, as far as those that have arrived tell: 1 if all have.
    pub fn share_known(&self, symbols: &[i32]) -> f32 {
        let channels = self.channels.len();
        // Of what has arrived: its energy, and what its copies alone would say of it.
        let (mut energy, mut copied) = (0.0, 0.0);
        for (block, row) in symbols.chunks_exact(channels.max(1)).enumerate() {
            for (channel, &symbol) in row.iter().enumerate() {
                if symbol != 0 && self.known(block, channel) == Known::Exactly {
                    energy += f64::from(symbol) * f64::from(symbol);
                    if self.contents.is_copied(channel) {
                        let (middle, _) = self.contents.middle(self.contents.coarse(symbol));
                        copied += f64::from(middle) * f64::from(symbol);
                    }
                }
            }
        }
        let copy = if energy > 0.0 { (copied / energy).clamp(0.0, 1.0) } else { 0.0 };
        let known = self.known.iter().map(|known| match known {
            Known::Nothing => 0.0,
            Known::Coarsely => copy,
            Known::Exactly => 1.0,
        });
        (known.sum::<f64>() / self.known.len().max(1) as f64) as f32
    }
}
