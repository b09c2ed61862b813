//! JPEG-LS (`charls`): the planes of a feature tiled to one grey image.

use crate::{
    coder::{Coder, Layout},
    data::Case,
    ffi::charls::{compress, uncompress},
};

/// How the planes lie in the image.
#[derive(Clone, Copy, Default)]
pub struct Grid {
    across: usize,
    rows: usize,
    columns: usize,
}

impl Grid {
    /// As square a grid as the number of channels allows.
    pub fn new([rows, columns, channels]: [usize; 3]) -> Grid {
        let across = (1..=channels).filter(|n| channels % n == 0 && n * n <= channels).max().unwrap_or(1);
        Grid { across: channels / across, rows, columns }
    }

    /// The width of the image.
    pub fn width(&self) -> usize {
        self.across * self.columns
    }

    /// Calls `f(start in the planes, start in the image, length)` for every row of every plane.
    pub fn for_rows(&self, length: usize, mut f: impl FnMut(usize, usize, usize)) {
        let plane = self.rows * self.columns;
        for channel in 0..length / plane {
            let corner = channel / self.across * self.rows * self.width() + channel % self.across * self.columns;
            for row in 0..self.rows {
                f(channel * plane + row * self.columns, corner + row * self.width(), self.columns);
            }
        }
    }
}

/// The coder of symbols. Tiling, and the map from unsigned symbols to grey levels around 128, are timed.
#[derive(Default)]
pub struct JpegLs {
    grid: Grid,
    image: Vec<u8>,
}

/// 0, 1, 2, 3, 4 become 128, 127, 129, 126, 130: neighbours in value are neighbours again.
fn grey(symbol: u8) -> u8 {
    128 ^ (symbol >> 1) ^ (symbol & 1).wrapping_neg()
}

/// Undoes [`grey`].
fn ungrey(grey: u8) -> u8 {
    let value = grey ^ 128;
    value << 1 ^ (value >> 7).wrapping_neg()
}

impl Coder for JpegLs {
    fn name(&self) -> String {
        "JPEG-LS, planes tiled".into()
    }

    fn layout(&self) -> Layout {
        Layout::Planar
    }

    fn fits(&self, case: &Case) -> bool {
        case.shape.is_some()
    }

    fn prepare(&mut self, case: &Case) {
        self.grid = case.shape.map_or(Grid::default(), Grid::new);
    }

    fn encode(&mut self, symbols: &[u8], out: &mut Vec<u8>) {
        self.image.resize(symbols.len(), 0);
        self.grid.for_rows(symbols.len(), |from, to, n| {
            for (pixel, &symbol) in self.image[to..to + n].iter_mut().zip(&symbols[from..from + n]) {
                *pixel = grey(symbol);
            }
        });
        compress(&self.image, self.grid.width(), out);
    }

    fn decode(&mut self, stream: &[u8], symbols: &mut [u8]) {
        self.image.resize(symbols.len(), 0);
        uncompress(stream, &mut self.image);
        self.grid.for_rows(symbols.len(), |to, from, n| {
            for (symbol, &pixel) in symbols[to..to + n].iter_mut().zip(&self.image[from..from + n]) {
                *symbol = ungrey(pixel);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grey_is_a_bijection_around_128() {
        assert_eq!([0, 1, 2, 3, 4, 255].map(grey), [128, 127, 129, 126, 130, 0]);
        assert!((0..=255).all(|s| ungrey(grey(s)) == s));
    }
}
