// Integer values, block by block with channels last, to a feature's elements, wherever they shall lie.
// Needs: common, locate, float_edge or integer_edge, halves.

@group(0) @binding(1) var<storage, read> values: array<i32>;
// Smallest and largest value of each channel.
@group(0) @binding(2) var<storage, read> limits: array<i32>;
@group(0) @binding(3) var<storage, read> state: array<u32>;
@group(0) @binding(4) var<storage, read_write> floats: array<u32>;
@group(0) @binding(5) var<storage, read_write> halves: array<atomic<u32>>;

fn value_at(spot: Spot) -> i32 {
    let value = values[value_index(spot.plane, spot.y, spot.x, spot.channel)];
    return clamp(value, limits[2u * spot.channel], limits[2u * spot.channel + 1u]);
}

// What a synthesis network made, as the bits of f32.
fn made_at(spot: Spot) -> u32 {
    return bitcast<u32>(values[value_index(spot.plane, spot.y, spot.x, spot.channel)]);
}

fn failed() -> bool {
    return state[params.item * STATE_WORDS + STATE_FAILED] != 0u;
}

@compute @workgroup_size(256)
fn int_to_feature(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    if (failed()) {
        return;
    }
    for (var index = id.x; index < params.elements; index += groups.x * 256u) {
        let spot = locate(index);
        floats[spot.offset] = float_bits_of(value_at(spot), -params.exponent);
    }
}

fn put_half(spot: Spot, bits: u32) {
    let shift = (spot.offset & 1u) * 16u;
    atomicAnd(&halves[spot.offset >> 1u], ~(0xffffu << shift));
    atomicOr(&halves[spot.offset >> 1u], half_of_bits(bits) << shift);
}

// The same for 16-bit floats, two to a word: the other half of a word is left as it is.
@compute @workgroup_size(256)
fn int_to_half(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    if (failed()) {
        return;
    }
    for (var index = id.x; index < params.elements; index += groups.x * 256u) {
        let spot = locate(index);
        put_half(spot, float_bits_of(value_at(spot), -params.exponent));
    }
}

// The integers themselves, in row-major order.
@compute @workgroup_size(256)
fn int_to_int(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    if (failed()) {
        return;
    }
    for (var index = id.x; index < params.elements; index += groups.x * 256u) {
        let spot = locate(index);
        floats[spot.offset] = bitcast<u32>(value_at(spot));
    }
}

// What a synthesis network made, to where the feature goes.
@compute @workgroup_size(256)
fn made_to_feature(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    if (failed()) {
        return;
    }
    for (var index = id.x; index < params.elements; index += groups.x * 256u) {
        let spot = locate(index);
        floats[spot.offset] = made_at(spot);
    }
}

@compute @workgroup_size(256)
fn made_to_half(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    if (failed()) {
        return;
    }
    for (var index = id.x; index < params.elements; index += groups.x * 256u) {
        let spot = locate(index);
        put_half(spot, made_at(spot));
    }
}
