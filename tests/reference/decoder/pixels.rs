//! The block of a position from its symbols: dequantiser and inverse transform.

use super::Profile;
use super::layers::Index;
use super::rs16;

/// Dequantises and transforms a block of `c` components, from number, level and symbol of its active channels at the index
/// of its layer; `q` is that of the stream.
pub fn pixels(profile: &Profile, q: i64, c: usize, index: &Index, symbols: &[i64]) -> Vec<i64> {
    let p = &profile.1;
    let (h, w, mut v) = (p["block"][0] as usize, p["block"][1] as usize, p["mean"].clone());
    for (&(channel, level), &symbol) in index.active.iter().zip(symbols).filter(|of| *of.1 != 0) {
        let n = (p["step"][channel] + index.q + profile.gain(q, channel)).clamp(0, 543);
        let m = symbol.abs().min(65_535);
        let mantissa = (2048.0 * ((n % 32) as f64 / 32.0).exp2()).round() as i64;
        let (s, offset) = (16 - n / 32, p["offset"][level as usize * 3 + m.min(3) as usize - 1]);
        v[channel] += symbol.signum() * (((16 * m - offset) * mantissa + (1 << s >> 1)) >> s).min(131_071);
    }
    v.iter_mut().for_each(|v| *v = rs16(*v, 2));
    for (v, &j) in v.chunks_mut(c).zip(&p["band_matrix"]) {
        let (j, shift) = (j as usize, p["matrix_shifts"][2 * j as usize + 1]);
        let sum = |i| (0..c).map(|k| p["matrix.inverse"][(j * c + k) * c + i] * v[k]).sum();
        let after: Vec<_> = (0..c).map(|i| rs16(sum(i), shift)).collect();
        v.copy_from_slice(&after);
    }
    if h * w > 1 {
        // Bands and pixels are numbered alike: row, column, component.
        let places = || (0..h * w * c).map(|at| (at / c / w, at / c % w, at % c));
        let (rows, columns, shifts) = (&p["dct.rows"], &p["dct.columns"], &p["dct_shifts"]);
        let t = |(y, x, i)| rs16((0..h).map(|u| rows[u * h + y] * v[(u * w + x) * c + i]).sum(), shifts[0]);
        let t: Vec<_> = places().map(t).collect();
        let pixel = |(y, x, i)| rs16((0..w).map(|u| columns[u * w + x] * t[(y * w + u) * c + i]).sum(), shifts[1]);
        v = places().map(pixel).collect();
    }
    v
}
