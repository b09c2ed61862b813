//! Features that are made to be hard.

use narrows::Element;
use ndarray::{ArrayD, IxDyn};

/// What a feature is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Smooth, rectified, with some noise: what networks make.
    Typical,
    /// Every value independent, over the whole range.
    White,
    /// Zeros, and a few values anywhere.
    Shot,
    /// One value throughout.
    Constant,
    /// The largest and the smallest in turns.
    Extremes,
    /// Small values and a single huge one.
    Outlier,
    /// Not a number, where the type has such.
    Nan,
}

/// All of them, the typical one first.
pub const KINDS: [Kind; 7] =
    [Kind::Typical, Kind::White, Kind::Shot, Kind::Constant, Kind::Extremes, Kind::Outlier, Kind::Nan];

/// A feature of batch, channels, rows, columns.
pub fn feature<T: Element>(kind: Kind, shape: &[usize]) -> ArrayD<T> {
    let mut state = 1u32;
    let mut noise = move || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / 16_777_216.0
    };
    let middle = shape.iter().product::<usize>() / 2;
    let mut number = 0;
    ArrayD::from_shape_fn(IxDyn(shape), |at| {
        number += 1;
        let (c, y, x) = (at[1] as f32, at[2] as f32, at[3] as f32);
        T::from_f32(match kind {
            Kind::Typical => {
                let wave = (c * 1.7 + y * 0.21).sin() + (c * 0.3 + x * 0.17).cos() + (noise() - 0.5) * 0.3;
                (wave * 20.0 / (1.0 + c * 0.05)).max(0.0)
            }
            Kind::White => (noise() - 0.5) * 400.0,
            Kind::Shot if noise() < 0.01 => (noise() - 0.5) * 60_000.0,
            Kind::Shot => 0.0,
            Kind::Constant => 37.0,
            Kind::Extremes if number % 2 == 0 => f32::MAX,
            Kind::Extremes => f32::MIN,
            Kind::Outlier if number == middle + 1 => 1e30,
            Kind::Outlier => noise() - 0.5,
            Kind::Nan => f32::NAN,
        })
    })
}
