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

/// Fractional bits of the magnitudes that [`run_class`] is given.
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
    /// Adds a run whose magnitudes sum to `actual` sixteenths, of which `expected` were expected.
    #[inline(always)]
    pub fn add_sum(&mut self, actual: u32, expected: u32) {
        self.actual = ((self.actual + actual) * KEEP) >> 4;
        self.expected = ((self.expected + expected) * KEEP) >> 4;
    }
}

/// The context of a run: the ratio of what was seen to what was expected, over the runs before it in its position and
/// (left and above counting twice, the diagonals once: `actual` and `likely`) the same run at the neighbours.
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
    /// Runs of a position.
    #[inline(always)]
    pub fn run_count(&self) -> usize {
        self.channels.div_ceil(MAX_LANES)
    }

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

/// What is known of the symbols around the one that is coded next: one row of positions, up to there of the row it is in,
/// from there on of the row above.
///
/// Runs are visited in order: [`start_chunk`](Self::start_chunk), then for each row [`start_row`](Self::start_row), then for
/// each run of each position [`context`](Self::context) and [`put`](Self::put).
#[derive(Debug, Default, Clone)]
pub struct Neighbourhood {
    /// Rule `Neighbours`: the magnitudes of each position, one of zeros before and after them, and 32 bytes more.
    pub(crate) magnitudes: Vec<u8>,
    /// Those of the row above at the position before.
    pub(crate) corner: Vec<u8>,
    /// Rule `Runs`: the sums of the magnitudes of each run, laid out in the same way.
    pub(crate) sums: Vec<u16>,
    /// Those of the row above at the position before.
    pub(crate) sums_corner: Vec<u16>,
    has_up: bool,
    before: RunSums,
}

impl Neighbourhood {
    /// Bytes that a chunk needs.
    pub fn bytes(model: &ContextModel<'_>) -> u64 {
        let (positions, runs) = (model.columns as u64 + 2, model.run_count() as u64);
        match model.rule {
            ContextRule::None => 0,
            ContextRule::Neighbours => positions * model.channels as u64 + (runs + 1) * MAX_LANES as u64,
            ContextRule::Runs => 2 * (positions + 1) * runs,
        }
    }

    /// Makes room for a chunk.
    pub fn start_chunk(&mut self, model: &ContextModel<'_>) {
        let (positions, runs) = (model.columns + 2, model.run_count());
        let neighbours = usize::from(model.rule == ContextRule::Neighbours);
        self.magnitudes.resize(neighbours * (positions * model.channels + MAX_LANES), 0);
        self.corner.resize(neighbours * runs * MAX_LANES, 0);
        let sums = usize::from(model.rule == ContextRule::Runs);
        self.sums.resize(sums * positions * runs, 0);
        self.sums_corner.resize(sums * runs, 0);
    }

    /// Begins a row; `has_up` if the one before is in the same plane and chunk.
    #[inline(always)]
    pub fn start_row(&mut self, has_up: bool) {
        if !has_up {
            self.magnitudes.fill(0);
            self.sums.fill(0);
        }
        self.corner.fill(0);
        self.sums_corner.fill(0);
        self.has_up = has_up;
    }

    /// The contexts of the channels of a run of a position.
    pub fn context(&mut self, model: &ContextModel<'_>, column: usize, run: usize, contexts: &mut [u8]) {
        match model.rule {
            ContextRule::None => contexts.fill(0),
            ContextRule::Neighbours => {
                let [left, up, up_right] = self.around(model, column, run);
                let corner = &self.corner[run * MAX_LANES..];
                for (i, context) in contexts.iter_mut().enumerate() {
                    let sum = 2 * (left[i] + up[i]) + corner[i] + up_right[i];
                    *context = THRESHOLDS.iter().filter(|&&threshold| u32::from(sum) >= threshold).count() as u8;
                }
            }
            ContextRule::Runs => contexts.fill(self.run_context(model, column, run)),
        }
    }

    /// The tables of the channels of a run of a position.
    pub fn tables(&mut self, model: &ContextModel<'_>, column: usize, run: usize, tables: &mut [u8]) {
        self.context(model, column, run, tables);
        for (channel, table) in tables.iter_mut().enumerate() {
            *table = model.runs[run].tables[usize::from(*table)][channel];
        }
    }

    /// Calls `visit(run, contexts of its channels)` for each run of the symbols of a chunk, which are known.
    pub fn each_run(&mut self, model: &ContextModel<'_>, symbols: &[i32], mut visit: impl FnMut(usize, &[u8])) {
        self.start_chunk(model);
        let mut contexts = [0; MAX_LANES];
        for (position, row) in symbols.chunks_exact(model.channels).enumerate() {
            let column = position % model.columns;
            if column == 0 {
                self.start_row(model.has_up(position / model.columns));
            }
            for (run, symbols) in row.chunks(MAX_LANES).enumerate() {
                let mut padded = [0; MAX_LANES];
                padded[..symbols.len()].copy_from_slice(symbols);
                self.context(model, column, run, &mut contexts[..symbols.len()]);
                visit(run, &contexts[..symbols.len()]);
                self.put(model, column, run, &padded);
            }
        }
    }

    /// Magnitudes of a run to the left, above and above to the right, from its first channel on.
    #[inline(always)]
    pub(crate) fn around(&self, model: &ContextModel<'_>, column: usize, run: usize) -> [&[u8]; 3] {
        let rest = &self.magnitudes[column * model.channels + run * MAX_LANES..];
        let channels = model.channels;
        [&rest[..MAX_LANES], &rest[channels..][..MAX_LANES], &rest[2 * channels..][..MAX_LANES]]
    }

    /// The context of a whole run of a position (rule `Runs`).
    #[inline(always)]
    pub fn run_context(&mut self, model: &ContextModel<'_>, column: usize, run: usize) -> u8 {
        let runs = model.run_count();
        let sums = &self.sums[column * runs..];
        let sum = |sum: u16| u32::from(sum) << RUN_BITS;
        if run == 0 {
            self.before = RunSums::default();
        } else {
            self.before.add_sum(sum(sums[runs + run - 1]), model.runs[run - 1].expected);
        }
        let (has_left, has_right) = (u32::from(column > 0), u32::from(column + 1 < model.columns));
        let sides = 2 * (sum(sums[run]) + sum(sums[runs + run]));
        let actual = sides + sum(self.sums_corner[run]) + sum(sums[2 * runs + run]);
        let up = u32::from(self.has_up);
        let weight = 2 * (has_left + up) + up * (has_left + has_right);
        run_class(&self.before, actual, weight * model.runs[run].expected)
    }

    /// Notes the symbols of a run of a position; those beyond its channels do not matter.
    #[inline(always)]
    pub fn put(&mut self, model: &ContextModel<'_>, column: usize, run: usize, symbols: &[i32; MAX_LANES]) {
        let channels = model.channels - run * MAX_LANES;
        match model.rule {
            ContextRule::None => {}
            ContextRule::Neighbours => {
                let here = &mut self.magnitudes[(column + 1) * model.channels + run * MAX_LANES..][..MAX_LANES];
                self.corner[run * MAX_LANES..][..MAX_LANES].copy_from_slice(here);
                for (i, (magnitude, symbol)) in here.iter_mut().zip(symbols).enumerate() {
                    let new = symbol.unsigned_abs().min(MAGNITUDE_CAP) as u8;
                    // What follows a short run belongs to the next position.
                    *magnitude = if i < channels { new } else { *magnitude };
                }
            }
            ContextRule::Runs => {
                let mut sum = 0;
                for (i, symbol) in symbols.iter().enumerate() {
                    let magnitude = symbol.unsigned_abs().min(MAGNITUDE_CAP);
                    sum += if i < channels { magnitude } else { 0 };
                }
                let here = &mut self.sums[(column + 1) * model.run_count() + run];
                self.sums_corner[run] = std::mem::replace(here, sum as u16);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The context of the last of these symbols' successor, in rows of `columns` positions of one channel.
    fn next_context(symbols: &[i32], columns: usize) -> u8 {
        let mut near = Neighbourhood::default();
        let rule = ContextRule::Neighbours;
        let model = ContextModel { rule, columns, plane_rows: 100, first_row: 0, channels: 1, runs: &[] };
        near.start_chunk(&model);
        let mut contexts = [0];
        for at in 0..=symbols.len() {
            if at % columns == 0 {
                near.start_row(model.has_up(at / columns));
            }
            near.context(&model, at % columns, 0, &mut contexts);
            if let Some(&symbol) = symbols.get(at) {
                near.put(&model, at % columns, 0, &[symbol; MAX_LANES]);
            }
        }
        contexts[0]
    }

    #[test]
    fn classes_follow_the_weighted_sum() {
        // 2 rows of 3 positions; the second position of the second row sees three above and one to the left.
        let cases = [([0, 0, 0, 0], 0), ([1, 0, 0, 0], 1), ([0, 0, -1, 0], 1), ([0, 1, 0, 0], 2), ([0, 0, 1, -1], 3)];
        for (symbols, expected) in cases {
            assert_eq!(next_context(&symbols, 3), expected, "{symbols:?}");
        }
        assert_eq!(next_context(&[0, 0, 0, i32::MIN], 3), 7);
    }

    #[test]
    fn edges_have_no_neighbours() {
        assert_eq!(next_context(&[], 3), 0);
        // The first position of a row has none to the left, the last one none above to the right.
        assert_eq!(next_context(&[0, 0, 9], 3), 0);
        assert_eq!(next_context(&[9, 0, 0, 9, 0], 3), 0);
        assert_eq!(next_context(&[2], 1), 3);
    }

    #[test]
    fn runs_are_judged_against_their_expectation() {
        let (mut sums, one_each) = (RunSums::default(), 32 << RUN_BITS);
        // Without evidence: as expected.
        assert_eq!(run_class(&sums, 0, 0), 4);
        sums.add_sum(0, one_each);
        assert_eq!(run_class(&sums, 0, 0), 0);
        sums.add_sum(3 * one_each, one_each);
        assert_eq!(run_class(&sums, 0, 0), 6);
        sums.add_sum(15 * one_each, 0);
        assert_eq!(run_class(&sums, 0, 0), 7);
        assert_eq!(run_class(&RunSums::default(), 0, 2 * 64), 1);
        assert_eq!(run_class(&RunSums::default(), 2 * (36 << RUN_BITS), 2 * 64), 7);
    }
}
