//! Refinement: the symbols of a layer, given those of the layer below, whose steps are three times as large.
//!
//! ```text
//! a cell of the coarse quantiser is three cells of the fine one:   coarse  |    -1    |    0     |    1     |
//!                                                                  fine    |-4 -3 -2  |-1  0  1  | 2  3  4  |
//! encode: coarse = fine / 3, rounded to nearest; digit = fine - 3 coarse, its sign turned outward
//! decode: fine = 3 coarse + digit
//! ```
//!
//! A digit is coded as a token of one of three intervals. Their widths follow from the table that the fine symbol would have
//! been coded with, cut down to the three values that the coarse symbol leaves; so the layers together cost what the fine
//! symbols alone would, but for their contexts. A channel that is not active in the layer below is coded as ever. Lanes,
//! groups, raw bits and words are those of [`rans_encode`](super::rans_encode).

use super::check::CheckSums;
use super::context::{ContextModel, Neighbourhood};
use super::rans::{LOWEST, MAX_LANES, Pending, RansScratch, Step, Words, decode_raw, push_raw, push_symbol};
use super::strip::Strip;
use crate::entropy::bank::{Bank, TABLES, TOTAL, log2_cost};
use crate::entropy::token::{LAST_WITHOUT_BITS, symbol_of, token_of};
use crate::error::Result;

/// Steps of a layer in those of the next.
pub const RATIO: i32 = 3;
/// Magnitudes of coarse symbols with digit tables of their own; above, digits are equally likely.
const MAGNITUDES: usize = 5;
/// Stands for the channel of the layer below where it has none.
pub const NEW: u32 = u32::MAX;

/// The coarse symbol whose cell holds a fine one.
#[inline]
pub fn coarsen(fine: i32) -> i32 {
    let rest = fine % RATIO;
    fine / RATIO + i32::from(rest > 1) - i32::from(rest < -1)
}

/// Where in the cell of its coarse symbol a fine one lies: 0 to 2, 2 being outermost (for a coarse 0: positive).
#[inline]
fn digit_of(fine: i32, coarse: i32) -> usize {
    let inner = fine.wrapping_sub(coarse.wrapping_mul(RATIO));
    (if coarse < 0 { 1 - inner } else { 1 + inner }) as usize % 3
}

/// The fine symbol at a place of the cell of a coarse one.
#[inline]
fn refined(coarse: i32, digit: usize) -> i32 {
    let inner = digit as i32 - 1;
    coarse.wrapping_mul(RATIO).wrapping_add(if coarse < 0 { -inner } else { inner })
}

/// Intervals of digits: by magnitude of the coarse symbol, then table of the fine one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Digits(Vec<[u16; 3]>);

impl Default for Digits {
    /// All equally likely.
    fn default() -> Self {
        Digits(vec![share(&[0; 3]); (MAGNITUDES + 1) * TABLES])
    }
}

impl Digits {
    /// The digits of a bank's symbols.
    pub fn of(bank: &Bank) -> Digits {
        let mut digits = Digits::default();
        for (table, frequencies) in bank.frequencies().iter().enumerate() {
            // Of the symbols +-magnitude, in 1/256.
            let weight = |magnitude: i32| {
                let (token, _, bits) = token_of(magnitude);
                let class = usize::from(token).div_ceil(2);
                let both = u32::from(frequencies[2 * class - 1]) + u32::from(frequencies[2 * class]);
                (both << 8) >> bits
            };
            let zero = [2, 0, 1].map(|token| u32::from(frequencies[token]) << 8);
            digits.0[table] = share(&zero);
            for magnitude in 1..MAGNITUDES {
                let middle = RATIO * magnitude as i32;
                digits.0[magnitude * TABLES + table] = share(&[middle - 1, middle, middle + 1].map(weight));
            }
        }
        digits
    }

    fn frequencies(&self, coarse: i32, table: u8) -> &[u16; 3] {
        &self.0[(coarse.unsigned_abs() as usize).min(MAGNITUDES) * TABLES + usize::from(table).min(TABLES - 1)]
    }

    /// Start and frequency of a digit.
    #[inline]
    fn interval(&self, coarse: i32, table: u8, digit: usize) -> (u32, u32) {
        let [low, middle, high] = self.frequencies(coarse, table).map(u32::from);
        [(0, low), (low, middle), (low + middle, high)][digit]
    }

    /// The digit whose interval holds this 12-bit slot.
    #[inline]
    fn digit_at(&self, coarse: i32, table: u8, slot: u32) -> usize {
        let [low, middle, _] = self.frequencies(coarse, table).map(u32::from);
        usize::from(slot >= low) + usize::from(slot >= low + middle)
    }
}

/// Frequencies that sum to 4,096, each at least 1, in about the ratios of three weights below 2^21.
fn share(weights: &[u32; 3]) -> [u16; 3] {
    let sum = weights.iter().sum::<u32>();
    if sum == 0 {
        return [1365, 1366, 1365];
    }
    let [low, _, high] = weights.map(|weight| 1 + (u64::from(weight) * u64::from(TOTAL - 3) / u64::from(sum)) as u16);
    [low, TOTAL as u16 - low - high, high]
}

/// What the symbols of a layer are coded from.
#[derive(Debug, Clone, Copy)]
pub struct Refinement<'a> {
    /// The tables of new channels.
    pub bank: &'a Bank,
    /// The intervals of digits.
    pub digits: &'a Digits,
    /// What chooses among the tables.
    pub model: ContextModel<'a>,
    /// For each active channel its number among those of the layer below, or [`NEW`].
    pub below: &'a [u32],
    /// Active channels of the layer below.
    pub channels_below: usize,
}

impl Refinement<'_> {
    /// The coarse symbol of an active channel at a position, if it has one.
    #[inline]
    fn coarse(&self, row: &[i32], channel: usize) -> Option<i32> {
        row.get(self.below[channel] as usize).copied()
    }

    /// Rows of the layer below, one for each position, empty ones where it has no channels.
    fn rows_below<'s>(&self, coarse: &'s [i32]) -> impl Iterator<Item = &'s [i32]> + use<'s> {
        let channels = self.channels_below;
        (0..).map(move |position| coarse.get(position * channels..(position + 1) * channels).unwrap_or(&[]))
    }

    /// What the symbols of a chunk cost, in 1/256 bit; `tables` holds the table of each.
    pub fn cost(&self, coarse: &[i32], fine: &[i32], tables: &[u8]) -> u64 {
        let channels = self.model.channels;
        let rows = fine.chunks_exact(channels).zip(tables.chunks_exact(channels)).zip(self.rows_below(coarse));
        let costs = rows.flat_map(|((fine, tables), below)| {
            fine.iter().zip(tables).enumerate().map(move |(channel, (&symbol, &table))| {
                match self.coarse(below, channel) {
                    Some(coarse) => {
                        let (_, frequency) = self.digits.interval(coarse, table, digit_of(symbol, coarse));
                        log2_cost(frequency as u16)
                    }
                    None => self.bank.cost(table, symbol),
                }
            })
        });
        costs.map(u64::from).sum()
    }
}

/// Appends one chunk of a layer to `out`: `fine` holds rows of its symbols, `tables` the table of each, `coarse` rows of the
/// symbols of the layer below, `ends` the state in which the decoder of each lane shall end.
pub fn refine_encode(
    refinement: &Refinement<'_>,
    (coarse, fine): (&[i32], &[i32]),
    tables: &[u8],
    ends: &[u32],
    scratch: &mut RansScratch,
    out: &mut Vec<u8>,
) {
    let (channels, lanes) = (refinement.model.channels, ends.len());
    scratch.steps.clear();
    let rows = fine.chunks_exact(channels).zip(tables.chunks_exact(channels)).zip(refinement.rows_below(coarse));
    for ((fine, tables), below) in rows {
        for (group, (symbols, tables)) in fine.chunks(lanes).zip(tables.chunks(lanes)).enumerate() {
            let mut pending = [Pending::default(); MAX_LANES];
            for (lane, (&symbol, &table)) in symbols.iter().zip(tables).enumerate() {
                match refinement.coarse(below, group * lanes + lane) {
                    Some(coarse) => {
                        let digit = digit_of(symbol, coarse);
                        let (start, frequency) = refinement.digits.interval(coarse, table, digit);
                        scratch.steps.push(Step { lane: lane as u8, start: start as u16, frequency: frequency as u16 });
                    }
                    None => pending[lane] = push_symbol(lane, symbol, table, refinement.bank, &mut scratch.steps),
                }
            }
            push_raw(&mut pending[..symbols.len()], &mut scratch.steps);
        }
    }
    scratch.write(ends, out);
}

/// A chunk of a layer while it is decoded, strip by strip behind the layer below.
pub struct Refiner<'a> {
    refinement: Refinement<'a>,
    words: Words<'a>,
    states: [u32; MAX_LANES],
    lanes: usize,
    sums: CheckSums,
    number: u32,
    near: &'a mut Neighbourhood,
    /// The symbols of the last strip.
    pub symbols: &'a mut Vec<i32>,
}

impl<'a> Refiner<'a> {
    /// Begins a chunk, whose bytes begin at `offset` in the stream; `near` and `symbols` are scratch.
    ///
    /// # Errors
    /// `Truncated` or `Corrupt` for initial states that no encoder writes.
    pub fn open(
        refinement: Refinement<'a>,
        (bytes, offset): (&'a [u8], usize),
        lanes: usize,
        near: &'a mut Neighbourhood,
        symbols: &'a mut Vec<i32>,
    ) -> Result<Self> {
        let mut states = [LOWEST; MAX_LANES];
        let words = Words::open(bytes, offset, &mut states[..lanes])?;
        near.start_chunk(&refinement.model);
        let sums = CheckSums::default();
        Ok(Refiner { refinement, words, states, lanes, sums, number: 0, near, symbols })
    }

    /// Decodes a strip, given the symbols of the layer below.
    ///
    /// # Errors
    /// `Truncated` if the words run out, `Corrupt` if an escape is malformed.
    pub fn strip(&mut self, strip: &Strip, coarse: &[i32]) -> Result<()> {
        let Refiner { refinement, words, states, lanes, sums, number, near, symbols } = self;
        let model = &refinement.model;
        symbols.clear();
        for ((row, column), below) in strip.places().zip(refinement.rows_below(coarse)) {
            if column == 0 {
                near.start_row(model.has_up(row - model.first_row));
            }
            for run in 0..model.run_count() {
                let first = run * MAX_LANES;
                let count = MAX_LANES.min(model.channels - first);
                let mut tables = [0; MAX_LANES];
                near.tables(model, column, run, &mut tables[..count]);
                let mut decoded = [0; MAX_LANES];
                for (group, (out, tables)) in decoded[..count].chunks_mut(*lanes).zip(tables.chunks(*lanes)).enumerate()
                {
                    let mut tokens = [0u8; MAX_LANES];
                    for (lane, (out, &table)) in out.iter_mut().zip(tables).enumerate() {
                        let slot = states[lane] & (TOTAL - 1);
                        let (interval, symbol) = match refinement.coarse(below, first + group * *lanes + lane) {
                            Some(coarse) => {
                                let digit = refinement.digits.digit_at(coarse, table, slot);
                                (refinement.digits.interval(coarse, table, digit), refined(coarse, digit))
                            }
                            None => {
                                tokens[lane] = refinement.bank.token_at(table, slot);
                                (refinement.bank.interval(table, tokens[lane]), symbol_of(tokens[lane], 0))
                            }
                        };
                        words.advance(&mut states[lane], interval.0, interval.1)?;
                        *out = symbol;
                    }
                    if tokens.iter().any(|&token| token > LAST_WITHOUT_BITS) {
                        decode_raw(out, &tokens, states, words)?;
                    }
                }
                symbols.extend_from_slice(&decoded[..count]);
                sums.add(*number, &decoded);
                near.put(model, column, run, &decoded);
                *number = number.wrapping_add(count as u32);
            }
        }
        Ok(())
    }

    /// Ends the chunk, whose check sums start from `seed`.
    ///
    /// # Errors
    /// `Corrupt` if the states do not end where the symbols say, or words are left over.
    pub fn close(self, seed: u32) -> Result<()> {
        let lanes = self.lanes;
        self.words.close(&self.states[..lanes], &self.sums.end_states(lanes, Some(seed))[..lanes])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fine_symbol_comes_back_from_its_cell_and_place() {
        for fine in (-2000..2000).chain([i32::MIN, i32::MIN + 1, i32::MAX - 1, i32::MAX]) {
            let coarse = coarsen(fine);
            assert!((f64::from(fine) / 3.0 - f64::from(coarse)).abs() < 0.5, "{fine}");
            assert_eq!(refined(coarse, digit_of(fine, coarse)), fine);
        }
        assert_eq!([-5, -4, -2, -1, 0, 1, 2, 4, 5].map(coarsen), [-2, -1, -1, 0, 0, 0, 1, 1, 2]);
        // Outward is the larger magnitude on both sides.
        assert_eq!([(4, 1), (-4, -1), (1, 0), (-1, 0)].map(|(fine, coarse)| digit_of(fine, coarse)), [2, 2, 2, 0]);
    }

    #[test]
    fn digits_have_the_shares_that_their_table_gives_the_symbols() {
        for bank in [Bank::builtin(), Bank::builtin_one_sided()] {
            let digits = Digits::of(&bank);
            for table in 0..TABLES as u8 {
                let frequencies = &bank.frequencies()[usize::from(table)];
                for coarse in -7..8 {
                    let own = digits.frequencies(coarse, table);
                    assert!(own.iter().all(|&f| f > 0) && own.iter().sum::<u16>() == 4096, "{own:?}");
                    for slot in [0, 1, own[0] - 1, own[0], own[0] + own[1] - 1, own[0] + own[1], 4095] {
                        let digit = digits.digit_at(coarse, table, u32::from(slot));
                        let (start, frequency) = digits.interval(coarse, table, digit);
                        assert!((start..start + frequency).contains(&u32::from(slot)), "{slot} {own:?}");
                    }
                }
                // Symbols 2, 3 and 4, against one another.
                let both = |c: usize| f64::from(frequencies[2 * c - 1] + frequencies[2 * c]);
                let sum = both(2) + both(3) + both(4);
                for (digit, class) in [2, 3, 4].into_iter().enumerate() {
                    if sum > 0.0 {
                        let share = f64::from(digits.frequencies(1, table)[digit]) / 4096.0;
                        assert!((share - both(class) / sum).abs() < 1e-3, "table {table} digit {digit}");
                    }
                }
            }
        }
    }
}
