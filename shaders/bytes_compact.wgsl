// The chunks of bytes_encode, one after the other, each from a whole 32-bit word on. Needs: bytes.

@group(0) @binding(3) var<storage, read> words: array<u32>;
@group(0) @binding(4) var<storage, read_write> report: array<u32>;
@group(0) @binding(5) var<storage, read_write> payload: array<u32>;

var<workgroup> sums: array<u32, 256>;

// Where each chunk starts: the sum of the lengths before it. One workgroup, a run of chunks for each invocation.
@compute @workgroup_size(256)
fn bytes_starts(@builtin(local_invocation_index) local: u32) {
    let each = (params.chunks + 255u) / 256u;
    let end = min((local + 1u) * each, params.chunks);
    var own = 0u;
    for (var chunk = local * each; chunk < end; chunk++) {
        own += (report[2u + 2u * chunk + 1u] + 1u) >> 1u;
    }
    sums[local] = own;
    workgroupBarrier();
    for (var step = 1u; step < 256u; step *= 2u) {
        let more = select(0u, sums[local - min(step, local)], local >= step);
        workgroupBarrier();
        sums[local] += more;
        workgroupBarrier();
    }
    var before = sums[local] - own;
    for (var chunk = local * each; chunk < end; chunk++) {
        report[2u + 2u * chunk] = before;
        before += (report[2u + 2u * chunk + 1u] + 1u) >> 1u;
    }
    if (local == 255u) {
        report[0] = sums[255];
    }
}

@compute @workgroup_size(256)
fn bytes_compact(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let chunk = group.x + group.y * groups.x;
    if (chunk >= params.chunks) {
        return;
    }
    let start = report[2u + 2u * chunk];
    let length = report[2u + 2u * chunk + 1u];
    let states_at = chunk * (params.chunk_symbols + SPARE);
    let words_at = states_at + params.chunk_symbols + SPARE - (length - min(length, 2u * LANES));
    for (var at = local; 2u * at < length; at += 256u) {
        var both = 0u;
        if (at < LANES) {
            // High word first.
            let x = words[states_at + at];
            both = (x >> 16u) | (x << 16u);
        } else {
            both = words[words_at + 2u * (at - LANES)];
            if (2u * at + 1u < length) {
                both |= words[words_at + 2u * (at - LANES) + 1u] << 16u;
            }
        }
        payload[start + at] = both;
    }
}
