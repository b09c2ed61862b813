// Convolutions of float networks. Needs: layer, window, window_float.

// Bias and slope of each output.
@group(0) @binding(2) var<storage, read> constants: array<f32>;
@group(0) @binding(4) var<storage, read> added: array<f32>;

fn value_at(at: u32) -> f32 {
    return before[at];
}

// A slope for negative values, an addition, bounds.
fn finish(sum: f32, at: u32, output: u32) {
    var value = sum + constants[2u * output];
    if (value < 0.0) {
        value *= constants[2u * output + 1u];
    }
    if (layer.adds != 0u) {
        value += added[at];
    }
    after[at] = min(max(value, bitcast<f32>(layer.low)), bitcast<f32>(layer.high));
}

@compute @workgroup_size(64)
fn convolve_float(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    dense(group, local);
}

@compute @workgroup_size(256)
fn convolve_float_depthwise(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    depthwise(id, groups);
}
