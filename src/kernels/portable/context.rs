//! The context of a symbol: how large its neighbours turned out.

/// Contexts of a channel.
pub const CONTEXTS: usize = 8;
/// Magnitudes count up to this.
const CAP: u32 = 15;
/// Smallest neighbour magnitude of each context but the first.
const THRESHOLDS: [u32; CONTEXTS - 1] = [1, 2, 3, 5, 9, 15, 23];

/// Which symbols make the context.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum ContextRule {
    /// One table per channel: context 0 always.
    None = 0,
    /// The same channel at the positions to the left, above, above left and above right.
    Neighbours = 1,
}

impl ContextRule {
    /// The rule's number in a profile.
    pub fn code(self) -> u8 {
        self as u8
    }

    /// The rule of a number.
    pub fn from_code(code: u8) -> Option<ContextRule> {
        [ContextRule::None, ContextRule::Neighbours].into_iter().find(|rule| rule.code() == code)
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
    let magnitude = |row: &[i32], i: usize| row.get(i).map_or(0, |symbol| symbol.unsigned_abs().min(CAP));
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
    fn edges_have_no_neighbours() {
        assert_eq!(Neighbours::at(0, 3, 5, false), Neighbours::default());
        let right = Neighbours::at(5, 3, 5, true);
        assert_eq!((right.left, right.up, right.up_left, right.up_right), (Some(20), Some(10), Some(5), None));
        assert_eq!(Neighbours::at(3, 1, 2, true), Neighbours { up: Some(4), ..Neighbours::default() });
    }
}
