// Generalised divisive normalisation, or its inverse: a 1x1 window over squares or, if simple,
// magnitudes. Needs: layer, window, window_float.

// Beta of each channel.
@group(0) @binding(2) var<storage, read> constants: array<f32>;

fn value_at(at: u32) -> f32 {
    return select(before[at] * before[at], abs(before[at]), (layer.inverse & 2u) != 0u);
}

fn finish(sum: f32, at: u32, output: u32) {
    let norm = sum + constants[output];
    let root = select(sqrt(norm), norm, (layer.inverse & 2u) != 0u);
    after[at] = select(before[at] / root, before[at] * root, (layer.inverse & 1u) != 0u);
}

@compute @workgroup_size(64)
fn normalise(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    dense(group, local);
}
