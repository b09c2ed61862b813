// A feature's elements, wherever they lie, to integer values, block by block with channels last.
// Needs: common, locate, float_edge or integer_edge, halves.

@group(0) @binding(1) var<storage, read> feature: array<u32>;
@group(0) @binding(2) var<storage, read_write> values: array<i32>;
@group(0) @binding(3) var<storage, read_write> state: array<atomic<u32>>;

// The bits of element `at` as f32.
fn element_bits(at: u32) -> u32 {
    switch (params.dtype) {
        case 0u: {
            return feature[at];
        }
        case 1u: {
            return bits_of_half((feature[at >> 1u] >> ((at & 1u) * 16u)) & 0xffffu);
        }
        case 2u: {
            return ((feature[at >> 1u] >> ((at & 1u) * 16u)) & 0xffffu) << 16u;
        }
        case 3u: {
            let byte = feature[at >> 2u] >> ((at & 3u) * 8u);
            return float_bits_of(bitcast<i32>(byte << 24u) >> 24u, 0);
        }
        default: {
            return float_bits_of(i32((feature[at >> 2u] >> ((at & 3u) * 8u)) & 0xffu), 0);
        }
    }
}

@compute @workgroup_size(256)
fn feature_to_int(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    for (var index = id.x; index < params.elements; index += groups.x * 256u) {
        let spot = locate(index);
        let value = int_of(element_bits(spot.offset), params.exponent);
        // The last row and column are repeated to the end of their block.
        let last_y = params.plane_rows * params.block_rows - 1u;
        let last_x = params.columns * params.block_columns - 1u;
        let end_y = select(spot.y, last_y, spot.y + 1u == params.height);
        let end_x = select(spot.x, last_x, spot.x + 1u == params.row_length);
        for (var y = spot.y; y <= end_y; y++) {
            for (var x = spot.x; x <= end_x; x++) {
                values[value_index(spot.plane, y, x, spot.channel)] = value;
            }
        }
    }
}

// The elements as f32, in the order of the grid.
@compute @workgroup_size(256)
fn feature_bits(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    for (var index = id.x; index < params.elements; index += groups.x * 256u) {
        let spot = locate(index);
        let position = (spot.plane * params.height + spot.y) * params.row_length + spot.x;
        values[position * params.channels + spot.channel] = bitcast<i32>(element_bits(spot.offset));
    }
}

// The largest finite magnitude, as the bits of an f32.
@compute @workgroup_size(256)
fn exponent(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    var largest = 0u;
    for (var index = id.x; index < params.elements; index += groups.x * 256u) {
        let size = element_bits(locate(index).offset) & 0x7fffffffu;
        largest = max(largest, select(0u, size, size < 0x7f800000u));
    }
    if (largest > 0u) {
        atomicMax(&state[params.item * STATE_WORDS + STATE_MAX], largest);
    }
}
