// The edges between floats and integers by float instructions: one multiplication by a power of two each way.
// Chosen where a probe of hard cases finds them exact; `integer_edge.wgsl` does the same in integers.

// The bits of 2^exponent.
fn power_bits(exponent: i32) -> u32 {
    return u32(clamp(exponent, -126, 127) + 127) << 23u;
}

// x * 2^exponent to the nearest integer, halves to even, within i16; x by its bits.
fn int_of(bits: u32, exponent: i32) -> i32 {
    let size = bits & 0x7fffffffu;
    // Subnormals and NaN count as zero.
    if (size < 0x00800000u || size > 0x7f800000u) {
        return 0;
    }
    let negative = (bits >> 31u) != 0u;
    let limit = select(32767, -32768, negative);
    if (size == 0x7f800000u) {
        return limit;
    }
    let scaled = bitcast<u32>(bitcast<f32>(size) * bitcast<f32>(power_bits(exponent)));
    // From 2^16 on it is out of range; below, adding 2^23 leaves the integer in the low bits.
    if (scaled >= 0x47800000u) {
        return limit;
    }
    let rounded = i32(bitcast<u32>(bitcast<f32>(scaled) + 8388608.0) & 0x007fffffu);
    return clamp(select(rounded, -rounded, negative), -32768, 32767);
}

// The bits of value * 2^exponent as f32; value within i16.
fn float_bits_of(value: i32, exponent: i32) -> u32 {
    let size = bitcast<u32>(f32(abs(value)) * bitcast<f32>(power_bits(exponent)));
    return size | select(0u, 0x80000000u, value < 0);
}
