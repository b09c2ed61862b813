// The chunks of all items, one after the other, each from a whole 32-bit word on. Needs: common, chunks.

const SPARE: u32 = 64u;

@group(0) @binding(1) var<storage, read_write> report: array<u32>;
@group(0) @binding(2) var<storage, read_write> starts: array<u32>;
@group(0) @binding(4) var<storage, read> words: array<u32>;
@group(0) @binding(5) var<storage, read_write> payload: array<u32>;

var<workgroup> sums: array<u32, 256>;

// Where each chunk starts: the sum of the lengths before it. One workgroup, a run of chunks for each invocation.
@compute @workgroup_size(256)
fn starts_of(@builtin(local_invocation_index) local: u32) {
    let count = params.items * params.chunks;
    let lengths = 2u + params.items;
    let each = (count + 255u) / 256u;
    let end = min((local + 1u) * each, count);
    var own = 0u;
    for (var index = local * each; index < end; index++) {
        own += (report[lengths + index] + 1u) >> 1u;
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
    for (var index = local * each; index < end; index++) {
        starts[index] = before;
        before += (report[lengths + index] + 1u) >> 1u;
    }
    if (local == 255u) {
        report[0] = sums[255];
    }
}

@compute @workgroup_size(256)
fn compact(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let index = group.x + group.y * groups.x;
    if (index >= params.items * params.chunks || report[1] != 0u) {
        return;
    }
    let chunk = chunk_at(index);
    let item = index / params.chunks;
    let lanes = report[2u + item];
    let length = report[2u + params.items + index];
    let first = (item * params.positions + chunk.first_row * params.columns) * params.coded;
    let symbols = (chunk.end_row - chunk.first_row) * params.columns * params.coded;
    let states_at = first * params.capacity + index * SPARE;
    let end = states_at + symbols * params.capacity + SPARE;
    let words_at = end - (length - min(length, 2u * lanes));
    for (var at = local; 2u * at < length; at += 256u) {
        var both = 0u;
        if (at < lanes) {
            // High word first.
            let x = words[states_at + at];
            both = (x >> 16u) | (x << 16u);
        } else {
            both = words[words_at + 2u * (at - lanes)];
            if (2u * at + 1u < length) {
                both |= words[words_at + 2u * (at - lanes) + 1u] << 16u;
            }
        }
        payload[starts[index] + at] = both;
    }
}
