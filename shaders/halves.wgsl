// 16-bit floats to f32 and back, on the bits.

fn bits_of_half(half: u32) -> u32 {
    let sign = (half & 0x8000u) << 16u;
    let size = half & 0x7fffu;
    if (size >= 0x7c00u) {
        return sign | 0x7f800000u | ((size & 0x03ffu) << 13u);
    }
    if (size >= 0x0400u) {
        return sign | ((size + 0x1c000u) << 13u);
    }
    if (size == 0u) {
        return sign;
    }
    // A subnormal half is a normal float.
    let top = firstLeadingBit(size);
    return sign | ((top + 103u) << 23u) | ((size << (23u - top)) & 0x007fffffu);
}

// To nearest, halves to even; NaN, which only a synthesis network makes, becomes infinity.
fn half_of_bits(bits: u32) -> u32 {
    let sign = (bits >> 16u) & 0x8000u;
    let size = bits & 0x7fffffffu;
    // 65520 and above round to infinity.
    if (size >= 0x477ff000u) {
        return sign | 0x7c00u;
    }
    var shift = 13u;
    var mantissa = size - 0x38000000u;
    if (size < 0x38800000u) {
        // Below 2^-14: a subnormal half, in units of 2^-24; below 2^-25 nothing is left.
        if (size < 0x33000000u) {
            return sign;
        }
        shift = 126u - (size >> 23u);
        mantissa = (size & 0x007fffffu) | 0x00800000u;
    }
    let whole = mantissa >> shift;
    let part = mantissa & ((1u << shift) - 1u);
    let half = 1u << (shift - 1u);
    let up = part > half || (part == half && (whole & 1u) != 0u);
    return sign | (whole + select(0u, 1u, up));
}
