//! The parts in which a chunk is decoded.

use std::ops::Range;

/// Some of the positions of a chunk: whole rows, or a part of one row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Strip {
    /// Rows of positions, counted over all planes.
    pub rows: Range<usize>,
    /// Columns of each of them.
    pub columns: Range<usize>,
}

impl Strip {
    /// Row and column of each position.
    #[inline(always)]
    pub fn places(&self) -> impl Iterator<Item = (usize, usize)> + use<> {
        let columns = self.columns.clone();
        self.rows.clone().flat_map(
            #[inline(always)]
            move |row| {
                columns.clone().map(
                    #[inline(always)]
                    move |column| (row, column),
                )
            },
        )
    }
}

/// The strips of a chunk, in the order of its symbols.
#[derive(Debug, Clone)]
pub struct Strips {
    rows: Range<usize>,
    columns: usize,
    /// Rows and columns of a strip.
    height: usize,
    width: usize,
    /// The column at which the next strip begins.
    column: usize,
}

impl Strips {
    /// Strips of about `size` values, for rows of `columns` positions of `channels` values.
    pub fn new(rows: Range<usize>, columns: usize, channels: usize, size: usize) -> Strips {
        let channels = channels.max(1);
        let width = (size / channels).clamp(1, columns.max(1));
        let height = if width == columns { (size / (channels * columns)).max(1) } else { 1 };
        Strips { rows, columns, height, width, column: 0 }
    }

    /// Most positions of a strip.
    pub fn positions(&self) -> usize {
        self.height.min(self.rows.len()) * self.width
    }
}

impl Iterator for Strips {
    type Item = Strip;

    fn next(&mut self) -> Option<Strip> {
        if self.rows.is_empty() || self.columns == 0 {
            return None;
        }
        let rows = self.rows.start..(self.rows.start + self.height).min(self.rows.end);
        let columns = self.column..(self.column + self.width).min(self.columns);
        self.column = columns.end;
        if columns.end == self.columns {
            self.column = 0;
            self.rows.start = rows.end;
        }
        Some(Strip { rows, columns })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strips_cover_a_chunk_in_order() {
        for (rows, columns, channels, size) in
            [(3..10, 5, 4, 50), (3..10, 5, 4, 7), (0..1, 1000, 3, 100), (2..9, 4, 1, 9999)]
        {
            let strips = Strips::new(rows.clone(), columns, channels, size);
            let most = strips.positions();
            let mut next = (rows.start, 0);
            for strip in strips {
                assert_eq!((strip.rows.start, strip.columns.start), next);
                assert!(strip.rows.len() * strip.columns.len() <= most);
                assert!(strip.rows.len() == 1 || strip.columns == (0..columns));
                next = if strip.columns.end == columns {
                    (strip.rows.end, 0)
                } else {
                    (strip.rows.start, strip.columns.end)
                };
            }
            assert_eq!(next, (rows.end, 0));
        }
        assert_eq!(Strips::new(0..0, 5, 1, 10).next(), None);
        assert_eq!(Strips::new(0..5, 0, 1, 10).next(), None);
    }
}
