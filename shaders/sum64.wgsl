// Sums of more than 32 bits. Needs: common.

var<workgroup> parts: array<vec2<u32>, 256>;

// a + b, low word first.
fn add64(a: vec2<u32>, b: vec2<u32>) -> vec2<u32> {
    let low = a.x + b.x;
    return vec2<u32>(low, a.y + b.y + select(0u, 1u, low < a.x));
}

// The sum over a workgroup of 256, in its first invocation.
fn sum_over(local: u32, own: vec2<u32>) -> vec2<u32> {
    parts[local] = own;
    for (var step = 128u; step > 0u; step >>= 1u) {
        workgroupBarrier();
        if (local < step) {
            parts[local] = add64(parts[local], parts[local + step]);
        }
    }
    let all = parts[0];
    workgroupBarrier();
    return all;
}

// Adds to two words of `state`, whatever others add at the same time.
fn add_to_state(at: u32, value: vec2<u32>) {
    let before = atomicAdd(&state[at], value.x);
    atomicAdd(&state[at + 1u], value.y + select(0u, 1u, before + value.x < before));
}
