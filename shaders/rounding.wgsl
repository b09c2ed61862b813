// Rounding and bounds of integers.

// Rounds to nearest, halves up, dividing by 2^shift (0 to 30).
fn round_shift(value: i32, shift: u32) -> i32 {
    if (shift == 0u) {
        return value;
    }
    let half = value >> (shift - 1u);
    return (half >> 1u) + (half & 1);
}

fn clamp16(value: i32) -> i32 {
    return clamp(value, -32768, 32767);
}
