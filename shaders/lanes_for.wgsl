// The lanes of each item: as many as cost about 1 % of a chunk, unless their number is given. Needs: common.

const BYTES_PER_LANE: u32 = 300u;

@group(0) @binding(1) var<storage, read> state: array<u32>;
@group(0) @binding(2) var<storage, read_write> report: array<u32>;

@compute @workgroup_size(64)
fn lanes_for(@builtin(global_invocation_id) id: vec3<u32>) {
    let item = id.x;
    if (item >= params.items) {
        return;
    }
    let low = state[item * STATE_WORDS + STATE_COST];
    let high = state[item * STATE_WORDS + STATE_COST + 1u];
    // Costs count 1/2048 byte.
    let bytes = select((high << 21u) | (low >> 11u), 0xffffffffu, (high >> 11u) != 0u);
    var lanes = 1u;
    for (var more = 2u; more <= MAX_LANES; more *= 2u) {
        if (bytes >= BYTES_PER_LANE * params.chunks * more && more < 2u * params.coded) {
            lanes = more;
        }
    }
    report[2u + item] = select(params.lanes, lanes, params.lanes == 0u);
}
