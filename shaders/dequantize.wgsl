// Symbols to integer values of the transform. Needs: common, rounding, plan.

const SYMBOL_MAX: u32 = 65535u;
const COEFFICIENT_MAX: u32 = 131071u;
const COEFFICIENT_BITS: u32 = 2u;
const OFFSET_BITS: u32 = 4u;

@group(0) @binding(2) var<storage, read> symbols: array<u32>;
@group(0) @binding(3) var<storage, read_write> values: array<i32>;
@group(0) @binding(4) var<storage, read> state: array<u32>;

// The coefficient that a symbol of a coded channel stands for.
fn dequantize_one(symbol: u32, channel: u32) -> i32 {
    let at = channel * RECORD;
    let mean = bitcast<i32>(plan[at + RECORD_MEAN]);
    if (symbol == 0u) {
        return mean;
    }
    let magnitude = min(magnitude_of(symbol), SYMBOL_MAX);
    let towards_zero = (plan[at + RECORD_TOWARDS_ZERO] >> ((min(magnitude, 3u) - 1u) * 8u)) & 0xffu;
    // At most 65,535 * 16 * 4,008 + 2^15: it fits.
    let scaled = ((magnitude << OFFSET_BITS) - towards_zero) * plan[at + RECORD_MANTISSA];
    let shift = plan[at + RECORD_DEQUANTIZE_SHIFT] & 31u;
    let size = i32(min((scaled + ((1u << shift) >> 1u)) >> shift, COEFFICIENT_MAX));
    return select(mean + size, mean - size, (symbol >> 31u) != 0u);
}

@compute @workgroup_size(256)
fn dequantize(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let item = id.y;
    if (state[item * STATE_WORDS + STATE_FAILED] != 0u) {
        return;
    }
    let numbers = params.coded * RECORD + params.runs;
    for (var index = id.x; index < params.positions * params.width; index += groups.x * 256u) {
        let position = item * params.positions + index / params.width;
        let coder_channel = index % params.width;
        let channel = plan[numbers + coder_channel];
        var coefficient = bitcast<i32>(plan[numbers + params.width + coder_channel]);
        if (channel != NONE) {
            coefficient = dequantize_one(symbols[position * params.coded + channel], channel);
        }
        values[position * params.width + coder_channel] = clamp16(round_shift(coefficient, COEFFICIENT_BITS));
    }
}
