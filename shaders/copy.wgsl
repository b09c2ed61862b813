// Copies words: what the memory of a device gives at best, to compare other kernels with.

@group(0) @binding(1) var<storage, read> before: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read_write> after: array<vec4<u32>>;

struct Copied {
    // In units of 16 bytes.
    count: u32,
}

@group(0) @binding(0) var<uniform> copied: Copied;

@compute @workgroup_size(256)
fn copy(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    for (var index = id.x; index < copied.count; index += groups.x * 256u) {
        after[index] = before[index];
    }
}
