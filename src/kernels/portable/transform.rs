//! From f32 to integers, block DCT and channel matrices.
//!
//! Every matrix row has integer entries whose absolute values sum to at most 65,535, so a sum of
//! products with i16 values stays within i32 whatever the values are.

/// Rounds to nearest, halves up, dividing by 2^`shift` (0 to 30).
#[inline(always)]
pub fn round_shift(value: i32, shift: u32) -> i32 {
    if shift == 0 { value } else { ((value >> (shift - 1)) >> 1) + ((value >> (shift - 1)) & 1) }
}

/// 2^exponent as f32; exponents beyond f32's normal range are clamped.
pub fn power_of_two(exponent: i32) -> f32 {
    f32::from_bits(((exponent.clamp(-126, 127) + 127) as u32) << 23)
}

#[inline]
fn clamp16(value: i32) -> i16 {
    value.clamp(-32_768, 32_767) as i16
}

/// Values of a feature as integers, see [`to_int`].
pub fn feature_to_int(values: &[f32], scale: f32, integers: &mut [i16]) {
    for (integer, &value) in integers.iter_mut().zip(values) {
        *integer = to_int(value, scale);
    }
}

/// Integers as values of a feature: one multiplication each, `scale` being a power of two.
pub fn int_to_feature(integers: &[i16], scale: f32, values: &mut [f32]) {
    for (value, &integer) in values.iter_mut().zip(integers) {
        *value = f32::from(integer) * scale;
    }
}

/// One value of a feature as an integer: `x * scale`, to nearest, halves to even, clamped to i16.
///
/// `scale` is a power of two. NaN becomes 0, infinities clamp, subnormals count as 0.
#[inline(always)]
pub fn to_int(x: f32, scale: f32) -> i16 {
    const MAGIC: f32 = 12_582_912.0; // 1.5 * 2^23: adding it leaves an integer, rounded to even
    let x = if x.abs() < f32::MIN_POSITIVE || x.is_nan() { 0.0 } else { x };
    let scaled = (x * scale).clamp(-32_768.0, 32_767.0);
    // The integer stands in the low bits of the sum.
    (scaled + MAGIC).to_bits() as i16
}

/// DCT of one block in place: `block` holds `rows * columns` pixels of `channels` values each.
///
/// First along columns with `row_matrix` (`rows` x `rows`), then along rows with `column_matrix`;
/// each pass sums products in i32, rounds by its `shift` and clamps to i16. `scratch` holds as many
/// values as `block`.
pub fn block_dct(
    block: &mut [i16],
    channels: usize,
    (row_matrix, row_shift): (&[i16], u32),
    (column_matrix, column_shift): (&[i16], u32),
    scratch: &mut [i16],
) {
    separable(block, channels, (row_matrix, row_shift), (column_matrix, column_shift), scratch, false);
}

/// Inverse of [`block_dct`]: the same two passes with the matrices transposed.
pub fn block_idct(
    block: &mut [i16],
    channels: usize,
    (row_matrix, row_shift): (&[i16], u32),
    (column_matrix, column_shift): (&[i16], u32),
    scratch: &mut [i16],
) {
    separable(block, channels, (row_matrix, row_shift), (column_matrix, column_shift), scratch, true);
}

fn separable(
    block: &mut [i16],
    channels: usize,
    (row_matrix, row_shift): (&[i16], u32),
    (column_matrix, column_shift): (&[i16], u32),
    scratch: &mut [i16],
    transpose: bool,
) {
    let rows = row_matrix.len().isqrt();
    let columns = column_matrix.len().isqrt();
    let entry = |matrix: &[i16], side: usize, to: usize, from: usize| {
        i32::from(if transpose { matrix[from * side + to] } else { matrix[to * side + from] })
    };
    // Along columns: scratch[u, x] = sum over y of M[u, y] block[y, x].
    pass(block, scratch, columns * channels, rows, 1, row_shift, |to, from| entry(row_matrix, rows, to, from));
    // Along rows: block[u, v] = sum over x of M[v, x] scratch[u, x].
    pass(scratch, block, channels, columns, rows, column_shift, |to, from| entry(column_matrix, columns, to, from));
}

/// `groups` times: `length` vectors of `width` values become as many sums of them.
fn pass(
    input: &[i16],
    output: &mut [i16],
    width: usize,
    length: usize,
    groups: usize,
    shift: u32,
    entry: impl Fn(usize, usize) -> i32,
) {
    let mut sums = [0i32; 64];
    for group in 0..groups {
        let base = group * length * width;
        for to in 0..length {
            let mut at = 0;
            while at < width {
                let n = (width - at).min(sums.len());
                sums[..n].fill(0);
                for from in 0..length {
                    let factor = entry(to, from);
                    let row = &input[base + from * width + at..][..n];
                    for (sum, &value) in sums.iter_mut().zip(row) {
                        *sum += factor * i32::from(value);
                    }
                }
                for (out, &sum) in output[base + to * width + at..][..n].iter_mut().zip(&sums) {
                    *out = clamp16(round_shift(sum, shift));
                }
                at += n;
            }
        }
    }
}

/// `output[i] = sum over j of matrix[j * n + i] * input[j]`, rounded by `shift`: a channel matrix,
/// stored by columns so that the inner loop runs over outputs.
pub fn channel_matrix(input: &[i16], matrix: &[i16], shift: u32, output: &mut [i32]) {
    let n = output.len();
    output.fill(0);
    for (&value, column) in input.iter().zip(matrix.chunks_exact(n.max(1))) {
        if value == 0 {
            continue;
        }
        let value = i32::from(value);
        for (sum, &factor) in output.iter_mut().zip(column) {
            *sum += i32::from(factor) * value;
        }
    }
    for sum in output {
        *sum = round_shift(*sum, shift);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn feature_to_int_rounds_to_even_and_tames_the_rest() {
        let cases = [
            (0.5, 0),
            (1.5, 2),
            (2.5, 2),
            (-0.5, 0),
            (-1.5, -2),
            (f32::NAN, 0),
            (f32::INFINITY, 32_767),
            (f32::NEG_INFINITY, -32_768),
            (f32::MIN_POSITIVE / 2.0, 0),
            (1e30, 32_767),
            (-0.0, 0),
        ];
        for (x, expected) in cases {
            assert_eq!(to_int(x, 1.0), expected, "{x}");
        }
        assert_eq!(to_int(f32::MIN_POSITIVE / 2.0, f32::MAX), 0);
    }

    #[test]
    fn round_shift_is_floor_of_value_plus_half() {
        for value in -1000..1000 {
            for shift in 0..6 {
                let exact = (f64::from(value) / f64::from(1 << shift) + 0.5).floor() as i32;
                assert_eq!(round_shift(value, shift), exact);
            }
        }
        assert_eq!(round_shift(i32::MAX, 1), 1 << 30);
        assert_eq!(round_shift(i32::MIN, 4), i32::MIN >> 4);
    }

    #[test]
    fn a_block_comes_back_from_its_dct() {
        let (rows, columns, channels) = (2, 4, 70);
        let half = 1i16 << 14;
        let r = (f64::from(half) * 0.5f64.sqrt()).round() as i16;
        let row = [r, r, r, -r];
        let column: Vec<i16> = (0..4)
            .flat_map(|u| {
                (0..4).map(move |x| {
                    let norm = if u == 0 { 0.5 } else { 0.5f64.sqrt() };
                    let angle = std::f64::consts::PI * (x as f64 + 0.5) * u as f64 / 4.0;
                    (16384.0 * norm * angle.cos()).round() as i16
                })
            })
            .collect();
        let original: Vec<i16> = (0..rows * columns * channels).map(|i| (i * 7919 % 4001) as i16 - 2000).collect();
        let mut block = original.clone();
        let mut scratch = vec![0; block.len()];
        block_dct(&mut block, channels, (&row, 14), (&column, 14), &mut scratch);
        assert_ne!(block, original);
        block_idct(&mut block, channels, (&row, 14), (&column, 14), &mut scratch);
        for (a, b) in block.iter().zip(&original) {
            assert!((a - b).abs() <= 2);
        }
    }
}
