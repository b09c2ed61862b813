//! The context of a symbol: how large its neighbours turned out.

use super::rans::MAX_LANES;

/// Contexts of a channel.
pub const CONTEXTS: usize = 8;
/// Magnitudes count up to this.
pub const MAGNITUDE_CAP: u32 = 15;
/// Smallest neighbour magnitude of each context but the first.
pub const THRESHOLDS: [u32; CONTEXTS - 1] = [1, 2, 3, 5, 9, 15, 23];

/// Which symbols make the context.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum ContextRule {
    /// One table per channel: context 0 always.
    #[default]
    None = 0,
    /// The same channel at the positions to the left, above, above left and above right.
    Neighbours = 1,
    /// How large the symbols of the runs before in the same position, and of the same run in the
    /// neighbouring positions, turned out against what their tables expect: one context for a whole run.
    Runs = 2,
}

impl ContextRule {
    /// The rule's number in a profile.
    pub fn code(self) -> u8 {
        self as u8
    }

    /// The rule of a number.
    pub fn from_code(code: u8) -> Option<ContextRule> {
        [ContextRule::None, ContextRule::Neighbours, ContextRule::Runs].into_iter().find(|rule| rule.code() == code)
    }
}

/// Fractional bits of the magnitudes that [`run_context`] adds up.
pub const RUN_BITS: u32 = 4;
/// What a run keeps of the sums before it: 13/16.
pub(crate) const KEEP: u32 = 13;
/// Added to both sums, so that little evidence makes little difference: four magnitudes.
pub(crate) const PRIOR: u32 = 4 << RUN_BITS;
/// Sixteenths of the expectation from which on the contexts but the first begin.
pub(crate) const RATIOS: [u32; CONTEXTS - 1] = [6, 10, 13, 15, 18, 22, 30];

/// Sums over the runs before in the same position, of magnitudes and of what was expected of them, in
/// 1/16, older runs counting less.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RunSums {
    actual: u32,
    expected: u32,
}

impl RunSums {
    /// Adds a run of symbols of which `expected` was expected.
    pub fn add(&mut self, run: &[i32], expected: u32) {
        self.add_sum(sum(run), expected);
    }

    /// The same for a run whose magnitudes sum to `actual` sixteenths.
    #[inline(always)]
    pub fn add_sum(&mut self, actual: u32, expected: u32) {
        self.actual = ((self.actual + actual) * KEEP) >> 4;
        self.expected = ((self.expected + expected) * KEEP) >> 4;
    }
}

fn sum(run: &[i32]) -> u32 {
    run.iter().map(|symbol| symbol.unsigned_abs().min(MAGNITUDE_CAP)).sum::<u32>() << RUN_BITS
}

/// The context of a whole run of `length` channels from `first` on, of which magnitudes summing to
/// `expected` are expected: the ratio of what was seen to what was expected, over the runs before and
/// (left and above counting once, the diagonals half) the same run at the neighbours.
pub fn run_context(
    symbols: &[i32],
    neighbours: &Neighbours,
    (first, length): (usize, usize),
    sums: &RunSums,
    expected: u32,
) -> u8 {
    let (mut actual, mut likely) = (0, 0);
    let sides = [(neighbours.left, 2), (neighbours.up, 2), (neighbours.up_left, 1), (neighbours.up_right, 1)];
    for (start, weight) in sides {
        if let Some(start) = start {
            actual += weight * sum(&symbols[start + first..][..length]);
            likely += weight * expected;
        }
    }
    run_class(sums, actual, likely)
}

/// The context of a run from the sums before it and what its neighbours add to both sides.
#[inline(always)]
pub fn run_class(sums: &RunSums, actual: u32, likely: u32) -> u8 {
    let actual = 2 * (sums.actual + PRIOR) + actual;
    let likely = 2 * (sums.expected + PRIOR) + likely;
    RATIOS.iter().filter(|&&ratio| 16 * actual >= ratio * likely).count() as u8
}

/// What the contexts of a chunk are made from.
#[derive(Debug, Clone, Copy)]
pub struct ContextModel<'a> {
    /// Which symbols make the context.
    pub rule: ContextRule,
    /// Positions in a row.
    pub columns: usize,
    /// Rows of a plane.
    pub plane_rows: usize,
    /// The chunk's first row, of all planes.
    pub first_row: usize,
    /// Active channels.
    pub channels: usize,
    /// Their runs.
    pub runs: &'a [RunTables],
}

impl ContextModel<'_> {
    /// Whether the row above a row of the chunk is in the same plane and chunk.
    #[inline(always)]
    pub fn has_up(&self, row: usize) -> bool {
        row > 0 && !(self.first_row + row).is_multiple_of(self.plane_rows)
    }
}

/// The tables of a run of up to 32 channels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RunTables {
    /// By context, then channel.
    pub tables: [[u8; MAX_LANES]; CONTEXTS],
    /// Sum of the magnitudes expected of the run, in 1/16 (rule `Runs`).
    pub expected: u32,
    /// All bits for each channel that there is, no bit for the others.
    pub present: [i32; MAX_LANES],
}

impl RunTables {
    /// A run without channels.
    pub const EMPTY: RunTables = RunTables { tables: [[0; MAX_LANES]; CONTEXTS], expected: 0, present: [0; MAX_LANES] };
}

/// The tables of the run that begins at `before.len()` symbols of a chunk. Runs are visited in order;
/// `sums` is kept between them.
pub fn tables_of(model: &ContextModel<'_>, before: &[i32], sums: &mut RunSums, tables: &mut [u8]) {
    let first = before.len() % model.channels;
    let run = &model.runs[first / MAX_LANES];
    contexts_of(model, before, sums, tables);
    for (channel, table) in tables.iter_mut().enumerate() {
        *table = run.tables[usize::from(*table)][channel];
    }
}

/// As [`tables_of`], but gives the context of each channel of the run.
pub fn contexts_of(model: &ContextModel<'_>, before: &[i32], sums: &mut RunSums, contexts: &mut [u8]) {
    let (position, first) = (before.len() / model.channels, before.len() % model.channels);
    let has_up = model.has_up(position / model.columns);
    let neighbours = Neighbours::at(position, model.columns, model.channels, has_up);
    match model.rule {
        ContextRule::None => contexts.fill(0),
        ContextRule::Neighbours => context(before, &neighbours, first, contexts),
        ContextRule::Runs => {
            let run = first / MAX_LANES;
            if run == 0 {
                *sums = RunSums::default();
            } else {
                sums.add(&before[before.len() - MAX_LANES..], model.runs[run - 1].expected);
            }
            let expected = model.runs[run].expected;
            contexts.fill(run_context(before, &neighbours, (first, contexts.len()), sums, expected));
        }
    }
}

/// Where the neighbours of a position begin in the symbols of its chunk; `None` beyond an edge of the
/// plane or of the chunk.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Neighbours {
    /// Same row, one column before.
    pub left: Option<usize>,
    /// One row above.
    pub up: Option<usize>,
    /// One row above, one column before.
    pub up_left: Option<usize>,
    /// One row above, one column after.
    pub up_right: Option<usize>,
}

impl Neighbours {
    /// Neighbours of position `position` (counted from the start of its chunk) in rows of `columns`
    /// positions of `channels` symbols; `has_up` says whether the row above is in the same plane and chunk.
    pub fn at(position: usize, columns: usize, channels: usize, has_up: bool) -> Neighbours {
        let column = position % columns;
        let at = |exists: bool, back: usize| exists.then(|| (position - back) * channels);
        Neighbours {
            left: at(column > 0, 1),
            up: at(has_up, columns),
            up_left: at(has_up && column > 0, columns + 1),
            up_right: at(has_up && column + 1 < columns, columns - 1),
        }
    }
}

/// Contexts of the channels `first ..` of a position: 2 |left| + 2 |up| + |up left| + |up right|, each
/// magnitude cut at 15, in 8 classes from 0, 1, 2, 3, 5, 9, 15 and 23 on.
pub fn context(symbols: &[i32], neighbours: &Neighbours, first: usize, contexts: &mut [u8]) {
    let Neighbours { left, up, up_left, up_right } = *neighbours;
    let run = contexts.len();
    let row = |start: Option<usize>| start.map_or(&[][..], |start| &symbols[start + first..][..run]);
    let (left, up, up_left, up_right) = (row(left), row(up), row(up_left), row(up_right));
    let magnitude = |row: &[i32], i: usize| row.get(i).map_or(0, |symbol| symbol.unsigned_abs().min(MAGNITUDE_CAP));
    for (i, context) in contexts.iter_mut().enumerate() {
        let sum = 2 * (magnitude(left, i) + magnitude(up, i)) + magnitude(up_left, i) + magnitude(up_right, i);
        *context = THRESHOLDS.iter().filter(|&&threshold| sum >= threshold).count() as u8;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_follow_the_weighted_sum() {
        // 2 rows of 3 positions, 1 channel; the context of position 4 sees 0, 1, 2 above and 3 to the left.
        let cases = [([0, 0, 0, 0], 0), ([1, 0, 0, 0], 1), ([0, 0, -1, 0], 1), ([0, 1, 0, 0], 2), ([0, 0, 1, -1], 3)];
        for (symbols, expected) in cases {
            let mut contexts = [0];
            context(&symbols, &Neighbours::at(4, 3, 1, true), 0, &mut contexts);
            assert_eq!(contexts[0], expected, "{symbols:?}");
        }
        let mut contexts = [0];
        context(&[0, 0, 0, i32::MIN], &Neighbours::at(4, 3, 1, true), 0, &mut contexts);
        assert_eq!(contexts[0], 7);
    }

    #[test]
    fn runs_are_judged_against_their_expectation() {
        let (mut sums, none) = (RunSums::default(), Neighbours::default());
        // Without evidence: as expected.
        assert_eq!(run_context(&[], &none, (0, 4), &sums, 100), 4);
        sums.add(&[0; 32], 32 << RUN_BITS);
        assert_eq!(run_context(&[], &none, (32, 4), &sums, 100), 0);
        sums.add(&[-3; 32], 32 << RUN_BITS);
        assert_eq!(run_context(&[], &none, (32, 4), &sums, 100), 6);
        sums.add(&[i32::MIN; 32], 0);
        assert_eq!(run_context(&[], &none, (32, 4), &sums, 100), 7);
        let left = Neighbours::at(1, 2, 4, false);
        assert_eq!(run_context(&[0, 0, 0, 0], &left, (0, 4), &RunSums::default(), 64), 1);
        assert_eq!(run_context(&[9, 9, 9, 9], &left, (0, 4), &RunSums::default(), 64), 7);
    }

    #[test]
    fn edges_have_no_neighbours() {
        assert_eq!(Neighbours::at(0, 3, 5, false), Neighbours::default());
        let right = Neighbours::at(5, 3, 5, true);
        assert_eq!((right.left, right.up, right.up_left, right.up_right), (Some(20), Some(10), Some(5), None));
        assert_eq!(Neighbours::at(3, 1, 2, true), Neighbours { up: Some(4), ..Neighbours::default() });
    }
}
