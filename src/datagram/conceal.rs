//! Values in place of lost symbols.

use crate::datagram::Spread;
use crate::plan::Plan;
use crate::transform::Blocks;

/// What replaces the parts of a feature that did not arrive.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Concealment {
    /// The profile's mean of each coder channel.
    Means,
    /// The mean, and of how far the blocks to the left, right, above and below are from it as much as has proved right where
    /// parts arrived: a linear estimate, fitted by least squares to this feature alone, for each band.
    #[default]
    Neighbours,
}

/// The places of a feature's symbols, and which are there.
pub(super) struct Cells<'a> {
    pub plan: &'a Plan,
    pub blocks: &'a Blocks,
    /// Channels of a band.
    pub components: usize,
    pub spread: Spread,
    /// Of each part, whether it has arrived.
    pub here: &'a [bool],
}

impl Cells<'_> {
    fn is_here(&self, block: usize, channel: usize) -> bool {
        self.here[(self.spread.first(block) + channel) % self.spread.parts]
    }

    /// The mean symbol of a channel over the neighbours of a block that are there, if any is.
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
        for block in neighbours.into_iter().flatten().filter(|&block| self.is_here(block, channel)) {
            sum += f64::from(symbols[block * self.plan.active.len() + channel]);
            count += 1;
        }
        (count > 0).then(|| sum / f64::from(count))
    }

    /// Fills in the lost symbols, which are 0.
    pub fn conceal(&self, symbols: &mut [i32], concealment: Concealment) {
        let channels = self.plan.active.len();
        if concealment == Concealment::Means || channels == 0 || self.here.iter().all(|&here| here) {
            return;
        }
        let band = |channel: usize| self.plan.active[channel] as usize / self.components.max(1);
        let bands = self.plan.channels / self.components.max(1);
        // By band: of the symbols that are there, products with the means around them, and their squares.
        let mut moments = vec![(0.0, 0.0); bands + 1];
        let blocks = symbols.len() / channels;
        for block in 0..blocks {
            for channel in (0..channels).filter(|&channel| self.is_here(block, channel)) {
                if let Some(around) = self.around(symbols, block, channel) {
                    let (product, square) = &mut moments[band(channel)];
                    *product += around * f64::from(symbols[block * channels + channel]);
                    *square += around * around;
                }
            }
        }
        for block in 0..blocks {
            for channel in 0..channels {
                if self.is_here(block, channel) {
                    continue;
                }
                if let Some(around) = self.around(symbols, block, channel) {
                    // Little evidence makes little difference.
                    let (product, square) = moments[band(channel)];
                    let weight = (product / (square + 4.0)).clamp(0.0, 1.0);
                    symbols[block * channels + channel] = (weight * around).round() as i32;
                }
            }
        }
    }
}
