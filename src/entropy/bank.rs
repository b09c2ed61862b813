//! The bank of cumulative tables, ordered by scale.

use crate::entropy::builtin;
use crate::entropy::token::{BUCKET_BASE, CLASSES, ESCAPE, TOKENS, class_bits, nibbles, token_of, zigzag};
use crate::error::{Error, Result};

/// Bits of a table's probabilities.
pub const PROBABILITY_BITS: u32 = 12;
/// What the frequencies of a table sum to.
pub const TOTAL: u32 = 1 << PROBABILITY_BITS;
/// Tables in a bank.
pub const TABLES: usize = 104;
/// Tables per octave of scale.
pub const TABLES_PER_OCTAVE: i32 = 8;
/// Index of the table for a Laplacian of scale 1 (in steps), roughly: table k stands for 2^((k - 30) / 8).
pub const UNIT_SCALE: i32 = 30;
/// Bytes of the slots of 128 tables and three more, so that any index can be masked and read as a word.
pub(crate) const SLOTS: usize = (128 << PROBABILITY_BITS) + 3;
/// Tokens of 128 tables.
pub(crate) const INTERVALS: usize = 128 * TOKENS;
/// Unit of [`Bank::cost`]: 256 to the bit.
pub const COST_ONE_BIT: u32 = 256;

/// A probability table per scale index: 12-bit frequencies of the 32 tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bank {
    frequencies: Vec<[u16; TOKENS]>,
    /// Token of each of the 4,096 slots of each table, then zeros up to [`SLOTS`] bytes.
    slots: Vec<u8>,
    /// Start (low half) and frequency (high half) of each token of each table, then zeros up to
    /// [`INTERVALS`] entries.
    intervals: Vec<u32>,
    /// Cost of each token, raw bits included (escape: the token alone), in 1/256 bit.
    costs: Vec<[u32; TOKENS]>,
    /// Cost of symbols 0 to 15, then 0 to -15, in each table; [`INTERVALS`] entries.
    decision_costs: Vec<u32>,
}

impl Bank {
    /// The bank used without a profile.
    pub fn builtin() -> Bank {
        let frequencies = builtin::HALF_TABLES.iter().map(symmetric).collect();
        Bank::new(frequencies).expect("the built-in tables are valid")
    }

    /// The same for symbols that are never negative: both signs' frequencies fall to the positive one.
    pub fn builtin_one_sided() -> Bank {
        let frequencies = builtin::HALF_TABLES.iter().map(|half| one_sided(symmetric(half))).collect();
        Bank::new(frequencies).expect("the built-in tables are valid")
    }

    /// A bank of these frequencies.
    ///
    /// # Errors
    /// `Corrupt` unless there are [`TABLES`] tables, each summing to 4,096 with a nonzero escape.
    pub fn new(frequencies: Vec<[u16; TOKENS]>) -> Result<Bank> {
        if frequencies.len() != TABLES {
            return Err(Error::corrupt("number of tables in the bank", 0));
        }
        let mut slots = Vec::with_capacity(SLOTS);
        let mut intervals = Vec::with_capacity(INTERVALS);
        let mut costs = Vec::with_capacity(TABLES);
        for table in &frequencies {
            let total: u32 = table.iter().map(|&frequency| u32::from(frequency)).sum();
            if total != TOTAL || table[usize::from(ESCAPE)] == 0 || table.contains(&(TOTAL as u16)) {
                return Err(Error::corrupt("a table of the bank does not sum to 4096 with an escape", 0));
            }
            let mut start = [0; TOKENS];
            let mut cost = [0; TOKENS];
            let mut next = 0;
            for token in interval_order() {
                let frequency = table[token];
                start[token] = next;
                next += frequency;
                slots.extend(std::iter::repeat_n(token as u8, usize::from(frequency)));
                let class = token.div_ceil(2).min(CLASSES - 1);
                let raw = if token == usize::from(ESCAPE) { 0 } else { class_bits(class) * COST_ONE_BIT };
                cost[token] = if frequency == 0 { u32::MAX } else { log2_cost(frequency) + raw };
            }
            intervals.extend(start.iter().zip(table).map(|(&start, &f)| u32::from(start) | u32::from(f) << 16));
            costs.push(cost);
        }
        slots.resize(SLOTS, 0);
        costs.resize(INTERVALS / TOKENS, [u32::MAX; TOKENS]);
        intervals.resize(INTERVALS, 0);
        let mut bank = Bank { frequencies, slots, intervals, costs, decision_costs: Vec::new() };
        for table in 0..TABLES as u8 {
            for magnitude in (0..16).chain((0..16).map(|magnitude: i32| -magnitude)) {
                let cost = bank.cost(table, magnitude);
                bank.decision_costs.push(cost);
            }
        }
        bank.decision_costs.resize(INTERVALS, 0);
        Ok(bank)
    }

    /// Frequencies of each table's tokens.
    pub fn frequencies(&self) -> &[[u16; TOKENS]] {
        &self.frequencies
    }

    /// Start and frequency of a token in a table.
    #[inline]
    pub fn interval(&self, table: u8, token: u8) -> (u32, u32) {
        let interval = self.intervals[usize::from(table) * TOKENS + usize::from(token)];
        (interval & 0xffff, interval >> 16)
    }

    /// Token of each slot of each table, [`SLOTS`] bytes.
    pub(crate) fn slots(&self) -> &[u8] {
        &self.slots
    }

    /// Start and frequency of each token of each table, [`INTERVALS`] entries.
    pub(crate) fn intervals(&self) -> &[u32] {
        &self.intervals
    }

    /// Cost of symbols 0 to 15, then 0 to -15, in each table; [`INTERVALS`] entries.
    pub(crate) fn decision_costs(&self) -> &[u32] {
        &self.decision_costs
    }

    /// Cost of each token of each table as [`Bank::cost`] counts it, `u32::MAX` for a token without an
    /// interval; [`INTERVALS`] entries.
    pub(crate) fn costs(&self) -> &[u32] {
        self.costs.as_flattened()
    }

    /// The mean magnitude of a table's symbols, those above 15 counting 15, in 1/16, rounded down.
    pub fn mean_magnitude(&self, table: u8) -> u32 {
        let frequencies = &self.frequencies[usize::from(table)];
        let magnitude = |token: usize| match token {
            31 => 15,
            token => BUCKET_BASE[token.div_ceil(2)].min(15),
        };
        let sum: u32 = frequencies.iter().enumerate().map(|(token, &f)| u32::from(f) * magnitude(token)).sum();
        sum >> (PROBABILITY_BITS - 4)
    }

    /// The token whose interval holds this 12-bit slot.
    #[inline]
    pub fn token_at(&self, table: u8, slot: u32) -> u8 {
        self.slots[usize::from(table) << PROBABILITY_BITS | (slot & (TOTAL - 1)) as usize]
    }

    /// Cost of a token in a table, raw bits included, in 1/256 bit; for an escape (or a token that must
    /// be written as one) with the raw bits of a symbol of medium size.
    #[inline]
    pub(crate) fn token_cost(&self, table: u8, token: u8) -> u32 {
        let costs = &self.costs[usize::from(table)];
        match costs[usize::from(token)] {
            cost if token != ESCAPE && cost != u32::MAX => cost,
            _ => costs[usize::from(ESCAPE)] + 12 * COST_ONE_BIT,
        }
    }

    /// What the cheapest token of a table costs, in 1/256 bit.
    pub(crate) fn least_cost(&self, table: u8) -> u32 {
        self.costs[usize::from(table)].iter().copied().min().unwrap_or(0)
    }

    /// Cost of a symbol in a table, raw bits included, in 1/256 bit.
    #[inline]
    pub fn cost(&self, table: u8, symbol: i32) -> u32 {
        let costs = &self.costs[usize::from(table)];
        let (token, _, _) = token_of(symbol);
        if token != ESCAPE && costs[usize::from(token)] != u32::MAX {
            return costs[usize::from(token)];
        }
        costs[usize::from(ESCAPE)] + (4 + 4 * nibbles(zigzag(symbol))) * COST_ONE_BIT
    }
}

/// Tokens in the order of their intervals: from the most negative class to the most positive one, the
/// escape last. (A token's mirror image, which has the same frequency, then hardly ever lies a power
/// of two away, where one flipped bit would turn one into the other and leave the state as it is.)
fn interval_order() -> impl Iterator<Item = usize> {
    let negative = (1..CLASSES).rev().map(|class| 2 * class);
    let positive = (1..CLASSES).map(|class| 2 * class - 1);
    negative.chain([0]).chain(positive).chain([usize::from(ESCAPE)])
}

/// -log2(frequency / 4096) in 1/256 bit, rounded to nearest, in integers: the binary logarithm's
/// fraction digit by digit from repeated squaring.
pub(crate) fn log2_cost(frequency: u16) -> u32 {
    let exponent = u32::from(frequency).ilog2();
    let mut mantissa = u64::from(frequency) << (31 - exponent);
    let mut fraction = 0u32;
    for _ in 0..10 {
        mantissa = (mantissa * mantissa) >> 31;
        fraction <<= 1;
        if mantissa >= 1 << 32 {
            mantissa >>= 1;
            fraction |= 1;
        }
    }
    let log2 = (exponent << 10) + fraction;
    ((PROBABILITY_BITS << 10) - log2 + 2) >> 2
}

/// A full table from one half: frequency of zero, of +-1 .. +-15 (each sign), the escape taking the rest.
fn symmetric(half: &[u16; CLASSES]) -> [u16; TOKENS] {
    let mut table = [0u16; TOKENS];
    table[0] = half[0];
    for class in 1..CLASSES {
        table[2 * class - 1] = half[class];
        table[2 * class] = half[class];
    }
    let used: u16 = table.iter().sum();
    table[usize::from(ESCAPE)] = TOTAL as u16 - used;
    table
}

/// A table whose negative tokens have given their frequencies to the positive ones.
pub(crate) fn one_sided(mut table: [u16; TOKENS]) -> [u16; TOKENS] {
    for class in 1..CLASSES {
        table[2 * class - 1] += std::mem::take(&mut table[2 * class]);
    }
    table
}

/// Integer frequencies that sum to 4,096 from nonnegative weights.
///
/// The escape keeps at least 1; tokens whose share rounds to nothing get 0 (they are written as
/// escapes) and what is left over goes to the most frequent tokens.
pub(crate) fn normalise(weights: &[f64; TOKENS]) -> [u16; TOKENS] {
    let sum: f64 = weights.iter().sum();
    let mut table = [0u16; TOKENS];
    let escape = usize::from(ESCAPE);
    if sum <= 0.0 {
        table[0] = TOTAL as u16 - 1;
        table[escape] = 1;
        return table;
    }
    for (frequency, weight) in table.iter_mut().zip(weights) {
        // Half a slot is worth a token of its own: an escape costs far more than its slot.
        let share = weight / sum * f64::from(TOTAL);
        *frequency = if share >= 0.2 { libm::round(share).max(1.0) as u16 } else { 0 };
    }
    table[escape] = table[escape].max(1);
    loop {
        let used: i32 = table.iter().map(|&frequency| i32::from(frequency)).sum();
        let spare = TOTAL as i32 - used;
        // A token's frequency stays below the total, so the largest can always give or take.
        let largest = (0..TOKENS).max_by_key(|&token| (table[token], TOKENS - token)).expect("tokens");
        if spare == 0 {
            return table;
        }
        if largest == escape && table[0] == 0 && spare > 0 {
            table[0] = spare as u16;
        } else if spare > 0 {
            table[largest] += spare as u16;
        } else {
            let take = (-spare).min(i32::from(table[largest] / 2)).max(1);
            table[largest] -= take as u16;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn costs_are_the_binary_logarithm() {
        for frequency in 1..4096u16 {
            let exact = -(f64::from(frequency) / 4096.0).log2() * 256.0;
            assert!((f64::from(log2_cost(frequency)) - exact).abs() < 0.76, "{frequency}");
        }
    }

    #[test]
    fn normalised_tables_are_valid() {
        let mut weights = [0.0; TOKENS];
        for first in [0.0, 1e-9, 0.3, 1.0, 1e9] {
            weights[0] = first;
            for tail in [0.0, 1e-6, 0.01, 1.0] {
                for (token, weight) in weights.iter_mut().enumerate().skip(1) {
                    *weight = tail / token as f64;
                }
                let table = normalise(&weights);
                assert_eq!(table.iter().map(|&f| u32::from(f)).sum::<u32>(), TOTAL);
                assert!(table[31] > 0 && table.iter().all(|&f| u32::from(f) < TOTAL), "{table:?}");
            }
        }
    }

    #[test]
    fn builtin_bank_is_ordered_by_scale() {
        let bank = Bank::builtin();
        let zero: Vec<u16> = bank.frequencies().iter().map(|table| table[0]).collect();
        assert!(zero.windows(2).all(|pair| pair[0] >= pair[1]));
        for (table, frequencies) in bank.frequencies().iter().enumerate() {
            for slot in [0, 1, 2048, 4095] {
                let token = bank.token_at(table as u8, slot);
                let (start, frequency) = bank.interval(table as u8, token);
                assert!(slot >= start && slot < start + frequency);
            }
            assert!(frequencies[31] > 0);
        }
    }
}
