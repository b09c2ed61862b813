//! Tables for symbols that are given as they are.

use super::{Reporter, tables};
use crate::container::Layout;
use crate::entropy::bank::{Bank, TABLES};
use crate::error::{Error, Result};
use crate::geometry::Grid;
use crate::kernels::portable::{CONTEXTS, ContextRule};
use crate::profile::Profile;
use crate::tensor::{Axes, Dtype};
use crate::transform::dct;

/// The step index of a step of one.
const UNIT_STEP: u16 = 32;

/// A profile that codes symbols as they are, (rows x columns positions of as many channels, channels last): only
/// the tables are fitted. Every channel is coded.
pub(crate) fn fit_symbols(
    samples: &[&[i32]],
    (rows, columns, channels): (usize, usize, usize),
    context: ContextRule,
) -> Result<Profile> {
    let layout = Layout::new(Dtype::F32, Axes { channels: 0, batch: None }, &[channels, rows, columns])?;
    if samples.iter().any(|sample| sample.len() != rows * columns * channels) {
        return Err(Error::invalid("a sample has another number of symbols"));
    }
    let mut profile = Profile {
        layout,
        exponent: 0,
        range: vec![[i16::MIN, i16::MAX]; channels],
        dct: [dct::matrix(1), dct::matrix(1)],
        matrices: Vec::new(),
        band_matrix: Vec::new(),
        means: vec![0; channels],
        steps: vec![UNIT_STEP; channels],
        rounding: 128,
        lambda: 0,
        bank: Bank::builtin(),
        offsets: vec![[0; 3]; TABLES],
        context,
        context_offsets: [0; CONTEXTS],
        anchors: vec![0],
        levels: Vec::new(),
        maps: Vec::new(),
        analysis: None,
        synthesis: None,
        latent_exponent: 0,
        gains: Vec::new(),
        notes: String::new(),
        hash: 0,
    };
    let grid = Grid::new(&layout);
    let mut reporter = Reporter { events: &mut |_| {}, notes: String::new() };
    tables::fit(&mut profile, &grid, &[0], false, &mut reporter, |_, take, _| {
        samples.iter().for_each(|sample| take(sample, None));
        Ok(())
    })?;
    profile.levels.iter_mut().chain(&mut profile.maps).for_each(|level| *level = (*level).max(1));
    Ok(profile)
}
