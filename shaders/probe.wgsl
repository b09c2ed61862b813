// Runs the edges of `float_edge.wgsl` on given cases, to see whether this adapter's floats are exact.
// Needs: float_edge or integer_edge.

struct Cases {
    count: u32,
}

@group(0) @binding(0) var<uniform> cases: Cases;
// Two words for each case: an f32's bits and an exponent.
@group(0) @binding(1) var<storage, read> inputs: array<u32>;
// Two words for each case: the integer, and the bits of the integer (as i16) back as f32 with the exponent.
@group(0) @binding(2) var<storage, read_write> outputs: array<u32>;

@compute @workgroup_size(64)
fn probe(@builtin(global_invocation_id) id: vec3<u32>) {
    if (id.x >= cases.count) {
        return;
    }
    let bits = inputs[2u * id.x];
    let exponent = bitcast<i32>(inputs[2u * id.x + 1u]);
    outputs[2u * id.x] = bitcast<u32>(int_of(bits, exponent));
    outputs[2u * id.x + 1u] = float_bits_of(bitcast<i32>(bits << 16u) >> 16u, exponent);
}
