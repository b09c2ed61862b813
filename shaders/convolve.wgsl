// Convolutions of integer networks: i16 values, i8 weights. Needs: rounding, layer, window.

alias Value = i32;
alias Values = vec4<i32>;

// Of four inputs in a word, for four outputs; depthwise, one weight in a word.
@group(0) @binding(1) var<storage, read> weights: array<vec4<u32>>;
// Bias, multiplier and slope of each output.
@group(0) @binding(2) var<storage, read> constants: array<i32>;
@group(0) @binding(3) var<storage, read> before: array<i32>;
@group(0) @binding(4) var<storage, read> added: array<i32>;
@group(0) @binding(5) var<storage, read_write> after: array<i32>;

fn value_at(at: u32) -> i32 {
    return before[at];
}

fn weight_at(at: u32) -> i32 {
    return bitcast<i32>(weights[at >> 2u][at & 3u]);
}

fn load_weights(row: u32, first: u32, local: u32) {
    if (local < LAYER_TILE) {
        let across = local % TILE_GROUPS;
        let four = local / TILE_GROUPS;
        let words = bitcast<vec4<i32>>(weights[(row / 4u + four) * layer.weight_groups + first + across]);
        for (var i = 0u; i < 4u; i++) {
            let lifted = words << vec4<u32>(24u - 8u * i);
            tile_weights[(4u * four + i) * TILE_GROUPS + across] = lifted >> vec4<u32>(24u);
        }
    }
}

// Two rounding shifts around a multiplication, a slope for negative values, an addition, bounds.
fn finish(sum: i32, at: u32, output: u32) {
    let rounded = clamp16(round_shift(sum + constants[3u * output], layer.first_shift));
    var value = clamp16(round_shift(rounded * constants[3u * output + 1u], layer.second_shift));
    if (value < 0) {
        value = round_shift(value * constants[3u * output + 2u], 15u);
    }
    if (layer.adds != 0u) {
        value += added[at];
    }
    after[at] = clamp(value, bitcast<i32>(layer.low), bitcast<i32>(layer.high));
}

@compute @workgroup_size(64)
fn convolve(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    dense(group, local);
}

@compute @workgroup_size(256)
fn convolve_depthwise(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    depthwise(id, groups);
}
