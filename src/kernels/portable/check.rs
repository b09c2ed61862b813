//! What the states of a chunk end in: a check over its symbols.

use super::rans::{LOWEST, MAX_LANES};

/// The multiplier that spreads a sum over its upper half, a prime.
pub(crate) const CHECK_MULTIPLIER: u32 = 2_654_435_761;

/// Sums of the symbols of a chunk, each times twice its number plus one, by channel modulo 32.
///
/// The decoder finds the states it ends in, so that they come for free; one that is not what the symbols say shows that
/// some symbol is wrong, even where the states alone do not (raw bits pass through them unchanged).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CheckSums {
    sums: [u32; MAX_LANES],
}

impl CheckSums {
    /// Adds a run of symbols, the first of which has this number in its chunk; zeros beyond its channels.
    #[inline(always)]
    pub fn add(&mut self, number: u32, run: &[i32; MAX_LANES]) {
        for (place, (sum, &symbol)) in self.sums.iter_mut().zip(run).enumerate() {
            let weight = (number.wrapping_add(place as u32) << 1) | 1;
            *sum = sum.wrapping_add(weight.wrapping_mul(symbol as u32));
        }
    }

    /// Adds all symbols of a chunk, rows of `channels`.
    pub fn add_all(&mut self, symbols: &[i32], channels: usize) {
        for (position, row) in symbols.chunks(channels.max(1)).enumerate() {
            for (run, symbols) in row.chunks(MAX_LANES).enumerate() {
                let mut padded = [0; MAX_LANES];
                padded[..symbols.len()].copy_from_slice(symbols);
                self.add((position * channels + run * MAX_LANES) as u32, &padded);
            }
        }
    }

    /// The states that the lanes of a chunk end in; without a seed (streams of version 1) all the same.
    pub fn end_states(&self, lanes: usize, seed: Option<u32>) -> [u32; MAX_LANES] {
        let mut states = [LOWEST; MAX_LANES];
        if let Some(seed) = seed {
            for (lane, state) in states[..lanes].iter_mut().enumerate() {
                let own = self.sums.iter().skip(lane).step_by(lanes);
                let sum = own.fold(seed, |sum, &own| sum.wrapping_add(own));
                *state += sum.wrapping_mul(CHECK_MULTIPLIER) >> 16;
            }
        }
        states
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_by_lane_and_number() {
        let symbols: Vec<i32> = (0..3 * 40).map(|i| (i * 7 % 23) - 11).collect();
        let mut sums = CheckSums::default();
        sums.add_all(&symbols, 40);
        for lanes in [1, 2, 4, 8, 16, 32] {
            for lane in 0..lanes {
                let mut sum = 99u32;
                for (number, &symbol) in symbols.iter().enumerate().filter(|(number, _)| number % 40 % lanes == lane) {
                    sum = sum.wrapping_add((2 * number as u32 + 1).wrapping_mul(symbol as u32));
                }
                let state = 65_536 + (sum.wrapping_mul(2_654_435_761) >> 16);
                assert_eq!(sums.end_states(lanes, Some(99))[lane], state);
            }
        }
        assert_eq!(sums.end_states(8, None), [65_536; 32]);
    }
}
