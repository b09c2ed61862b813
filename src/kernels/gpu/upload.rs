//! What shaders read beside the feature: banks, plans, transforms and chunks, as words.

use std::ops::Range;

use crate::container::chunk_range;
use crate::entropy::bank::{Bank, TABLES, TOTAL};
use crate::entropy::token::TOKENS;
use crate::kernels::portable::MAX_LANES;
use crate::plan::Plan;
use crate::profile::Profile;

/// Words of a coded channel in a plan.
pub(crate) const RECORD: usize = 10;
/// Words of a chunk.
pub(crate) const CHUNK_WORDS: usize = 5;

/// Intervals, costs and slots of a bank: see `shaders/bank.wgsl`.
pub(crate) fn bank_words(bank: &Bank) -> Vec<u32> {
    let mut words = Vec::with_capacity(TABLES * (2 * TOKENS + TOTAL as usize / 4));
    for table in 0..TABLES as u8 {
        for token in 0..TOKENS as u8 {
            let (start, frequency) = bank.interval(table, token);
            words.push(start | frequency << 16);
        }
    }
    words.extend(&bank.costs()[..TABLES * TOKENS]);
    for table in 0..TABLES as u8 {
        for slot in (0..TOTAL).step_by(4) {
            words.push(u32::from_le_bytes([0, 1, 2, 3].map(|i| bank.token_at(table, slot + i))));
        }
    }
    words
}

/// A plan: see `shaders/plan.wgsl`. `means` holds the mean of every coder channel, or nothing for zeros; `levels` the
/// level of every coded channel, or nothing where no kernel asks for it.
pub(crate) fn plan_words(plan: &Plan, means: &[i32], levels: &[u8]) -> Vec<u32> {
    let width = plan.channels;
    let mut words = Vec::with_capacity(plan.active.len() * RECORD + plan.runs.len() + 2 * width);
    let mut numbers = vec![u32::MAX; width];
    for (i, &channel) in plan.active.iter().enumerate() {
        let quantizer = plan.quantizers.get(i);
        let (multiplier, shift, offset) = quantizer.parts();
        let (mantissa, dequantize_shift, [a, b, c]) = plan.dequantizers.get(i).parts();
        let (run, place) = (&plan.runs[i / MAX_LANES], i % MAX_LANES);
        let [t0, t1, t2, t3, t4, t5, t6, t7] = run.tables.map(|tables| tables[place]);
        words.extend([
            channel,
            quantizer.mean as u32,
            multiplier,
            shift,
            offset,
            mantissa,
            dequantize_shift,
            u32::from_le_bytes([a, b, c, levels.get(i).copied().unwrap_or(0)]),
            u32::from_le_bytes([t0, t1, t2, t3]),
            u32::from_le_bytes([t4, t5, t6, t7]),
        ]);
        numbers[channel as usize] = i as u32;
    }
    words.extend(plan.runs.iter().map(|run| run.expected));
    words.extend(numbers);
    words.extend((0..width).map(|channel| means.get(channel).map_or(0, |&mean| mean as u32)));
    words
}

/// The matrices of the block DCT, that of the columns' transform first.
pub(crate) fn dct_words(profile: &Profile) -> Vec<u32> {
    profile.dct.iter().flat_map(|dct| dct.matrix.iter().map(|&entry| i32::from(entry) as u32)).collect()
}

/// The channel matrices of one direction: see `shaders/channel_matrix.wgsl`.
pub(crate) fn matrix_words(profile: &Profile, inverse: bool) -> Vec<u32> {
    let mut words = Vec::new();
    for pair in &profile.matrices {
        let entries = if inverse { &pair.inverse } else { &pair.forward };
        words.extend(entries.iter().map(|&entry| i32::from(entry) as u32));
    }
    words.extend(profile.band_matrix.iter().map(|&matrix| u32::from(matrix)));
    words.extend(profile.matrices.iter().map(|pair| {
        if inverse { pair.inverse_shift } else { pair.forward_shift - crate::transform::COEFFICIENT_BITS }
    }));
    words
}

/// Smallest and largest value of each channel.
pub(crate) fn range_words(profile: &Profile) -> Vec<u32> {
    profile.range.iter().flatten().map(|&limit| i32::from(limit) as u32).collect()
}

/// The chunks of `items` features of these rows, and for each row whether there is one above it in its plane and chunk.
/// `payload` gives the first word, the bytes and the seed of each chunk.
pub(crate) fn chunk_words(
    (items, chunks): (usize, usize),
    (rows, plane_rows): (usize, usize),
    payload: impl Fn(usize) -> (u32, u32, u32),
) -> Vec<u32> {
    let mut words = Vec::with_capacity(items * chunks * CHUNK_WORDS + rows);
    let mut has_up = vec![1u32; rows];
    for chunk in 0..chunks {
        let Range { start: first, end } = chunk_range(rows, chunks, chunk);
        if first < end {
            has_up[first] = 0;
        }
    }
    has_up.iter_mut().step_by(plane_rows.max(1)).for_each(|above| *above = 0);
    for item in 0..items {
        for chunk in 0..chunks {
            let Range { start: first, end } = chunk_range(rows, chunks, chunk);
            let (start, bytes, seed) = payload(item * chunks + chunk);
            words.extend([start, bytes, first as u32, end as u32, seed]);
        }
    }
    words.extend(has_up);
    words
}
