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
/// Unit of [`Bank::cost`]: 256 to the bit.
pub const COST_ONE_BIT: u32 = 256;

/// A probability table per scale index: 12-bit frequencies of the 32 tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bank {
    frequencies: Vec<[u16; TOKENS]>,
    starts: Vec<[u16; TOKENS]>,
    /// Token of each of the 4,096 slots, per table.
    slots: Vec<u8>,
    /// Cost of each token, raw bits included (escape: the token alone), in 1/256 bit.
    costs: Vec<[u32; TOKENS]>,
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
        let mut starts = Vec::with_capacity(TABLES);
        let mut slots = Vec::with_capacity(TABLES << PROBABILITY_BITS);
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
            starts.push(start);
            costs.push(cost);
        }
        Ok(Bank { frequencies, starts, slots, costs })
    }

    /// Frequencies of each table's tokens.
    pub fn frequencies(&self) -> &[[u16; TOKENS]] {
        &self.frequencies
    }

    /// Cost of each table's tokens as [`Bank::cost`] counts it, the escape's without raw bits; `u32::MAX` for a token
    /// without a frequency.
    #[cfg(feature = "gpu")]
    pub(crate) fn costs(&self) -> &[[u32; TOKENS]] {
        &self.costs
    }

    /// Start and frequency of a token in a table.
    #[inline]
    pub fn interval(&self, table: u8, token: u8) -> (u32, u32) {
        let (table, token) = (usize::from(table), usize::from(token));
        (u32::from(self.starts[table][token]), u32::from(self.frequencies[table][token]))
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
fn log2_cost(frequency: u16) -> u32 {
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
