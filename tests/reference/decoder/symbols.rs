//! The symbols of a group of channels: tokens and their raw bits, or digits, from the states of the lanes.

use super::Kind::Corrupt;
use super::{Reader, Result, refuse_if};

/// By class: the smallest magnitude of a token (15 stands for that of the escape) and its raw bits.
pub const BASES: [i64; 17] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 13, 21, 37, 69, 133, 261, 15];
const RAW_BITS: [u32; 17] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 3, 4, 5, 6, 7, 8, 4];

/// How a channel of a group is coded: its table, and its symbol in the layer below if that is refined.
pub type Coded<'a> = (&'a [i64], Option<i64>);

/// Decodes the interval `start .. start + f`, in which the slot of a lane's state is.
fn advance(x: &mut u32, words: &mut Reader, start: u32, f: u32) -> Result<()> {
    *x = f * (*x >> 12) + (*x & 4095) - start;
    if *x < 65_536 {
        *x = *x << 16 | words.uint(2)? as u32;
    }
    Ok(())
}

/// The intervals of a table in their order: tokens and frequencies.
fn tokens(table: &[i64]) -> Vec<(usize, i64)> {
    let order = (1..16).rev().map(|c| 2 * c).chain([0]).chain((1..16).map(|c| 2 * c - 1)).chain([31]);
    order.map(|token| (token, table[token])).collect()
}

/// The intervals of the digits that refine a symbol: digits and frequencies.
fn digits(f: &[i64], symbol: i64) -> Vec<(usize, i64)> {
    let weight = |v: i64| {
        let class = if v < 9 { v as usize } else { (9..16).rfind(|&class| BASES[class] <= v).unwrap_or(9) };
        (256 * (f[2 * class - 1] + f[2 * class])) >> RAW_BITS[class]
    };
    let w = match symbol.abs() {
        0 => [256 * f[2], 256 * f[0], 256 * f[1]],
        m @ 1..=4 => [weight(3 * m - 1), weight(3 * m), weight(3 * m + 1)],
        _ => [0, 0, 0],
    };
    let sum: i64 = w.iter().sum();
    let [first, last] = [w[0], w[2]].map(|w| if sum == 0 { 1365 } else { 1 + 4093 * w / sum });
    vec![(0, first), (1, 4096 - first - last), (2, last)]
}

/// Decodes the symbols of a group, one a lane.
pub fn group(channels: &[Coded], states: &mut [u32], words: &mut Reader) -> Result<Vec<i64>> {
    let mut group = vec![]; // of each lane: token or digit, how many raw bits it needs, and their number
    for (x, &(table, below)) in states.iter_mut().zip(channels) {
        let (mut end, slot) = (0, i64::from(*x & 4095));
        let intervals = below.map_or_else(|| tokens(table), |symbol| digits(table, symbol));
        let found = intervals.into_iter().find(|&(_, f)| (end += f, slot < end).1);
        let (letter, f) = found.ok_or(Corrupt)?;
        advance(x, words, (end - f) as u32, f as u32)?;
        group.push((letter, if below.is_some() { 0 } else { RAW_BITS[letter.div_ceil(2)] }, 0_i64));
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
    let symbol = |(&(letter, _, raw), &(_, below)): (&(usize, u32, i64), &Coded)| match (letter, below) {
        (digit, Some(c)) => {
            let e = if c >= 0 { digit as i64 - 1 } else { 1 - digit as i64 };
            i64::from((3 * c + e) as i32)
        }
        (31, None) => raw >> 5 ^ -(raw >> 4 & 1),
        (token, None) => (BASES[token.div_ceil(2)] + raw) * if token % 2 == 1 { 1 } else { -1 },
    };
    Ok(group.iter().zip(channels).map(symbol).collect())
}
