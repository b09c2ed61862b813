// The edges between floats and integers without a float instruction, for adapters whose float instructions are not
// exact: what `float_edge.wgsl` does, on the bits.

// x * 2^exponent to the nearest integer, halves to even, within i16; x by its bits.
fn int_of(bits: u32, exponent: i32) -> i32 {
    let size = bits & 0x7fffffffu;
    if (size < 0x00800000u || size > 0x7f800000u) {
        return 0;
    }
    let negative = (bits >> 31u) != 0u;
    let limit = select(32767, -32768, negative);
    // x is mantissa * 2^-shift.
    let shift = 150 - i32(size >> 23u) - clamp(exponent, -126, 127);
    if (size == 0x7f800000u || shift <= 0) {
        return limit;
    }
    if (shift > 24) {
        return 0;
    }
    let mantissa = (size & 0x007fffffu) | 0x00800000u;
    let whole = mantissa >> u32(shift);
    let part = mantissa & ((1u << u32(shift)) - 1u);
    let half = 1u << u32(shift - 1);
    let up = part > half || (part == half && (whole & 1u) != 0u);
    let rounded = i32(whole + select(0u, 1u, up));
    return clamp(select(rounded, -rounded, negative), -32768, 32767);
}

// The bits of value * 2^exponent as f32; value within i16.
fn float_bits_of(value: i32, exponent: i32) -> u32 {
    if (value == 0) {
        return 0u;
    }
    let sign = select(0u, 0x80000000u, value < 0);
    let size = u32(abs(value));
    let top = firstLeadingBit(size);
    let power = i32(top) + 127 + clamp(exponent, -126, 127);
    if (power > 254) {
        return sign | 0x7f800000u;
    }
    return sign | (u32(power) << 23u) | ((size << (23u - top)) & 0x007fffffu);
}
