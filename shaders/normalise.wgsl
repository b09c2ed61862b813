// Generalised divisive normalisation, or its inverse: a 1x1 window over squares. Needs: layer, window, window_float.

// Beta of each channel.
@group(0) @binding(2) var<storage, read> constants: array<f32>;

fn value_at(at: u32) -> f32 {
    return before[at] * before[at];
}

fn finish(sum: f32, at: u32, output: u32) {
    let root = sqrt(sum + constants[output]);
    after[at] = select(before[at] / root, before[at] * root, layer.inverse != 0u);
}

@compute @workgroup_size(64)
fn normalise(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    dense(group, local);
}
