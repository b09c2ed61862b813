// What mode `Plain` must know of a feature before it can be coded. Needs: common, plan, bank, chunks, contexts, around,
// sum64.

@group(0) @binding(4) var<storage, read> values: array<i32>;
@group(0) @binding(5) var<storage, read> symbols: array<u32>;
@group(0) @binding(6) var<storage, read_write> state: array<atomic<u32>>;
@group(0) @binding(7) var<storage, read_write> counts: array<atomic<u32>>;

// The sum of the squares of all values, and whether one is negative.
@compute @workgroup_size(256)
fn energy(
    @builtin(global_invocation_id) id: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    var own = vec2<u32>(0u);
    var negative = false;
    for (var index = id.x; index < params.positions * params.width; index += groups.x * 256u) {
        let value = values[index];
        negative = negative || value < 0;
        own = add64(own, vec2<u32>(u32(value * value), 0u));
    }
    let all = sum_over(local, own);
    if (local == 0u) {
        add_to_state(STATE_COST, all);
    }
    if (negative) {
        atomicOr(&state[STATE_NEGATIVE], 1u);
    }
}

// How often each token appears in each channel.
@compute @workgroup_size(256)
fn histogram(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    for (var index = id.x; index < params.positions * params.coded; index += groups.x * 256u) {
        atomicAdd(&counts[(index % params.coded) * TOKENS + token_of(symbols[index]).token], 1u);
    }
}

// What the symbols of channels with a level cost without and with the neighbours' contexts.
@compute @workgroup_size(256)
fn cheaper_context(
    @builtin(global_invocation_id) id: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    var without = vec2<u32>(0u);
    var with_contexts = vec2<u32>(0u);
    for (var index = id.x; index < params.positions * params.coded; index += groups.x * 256u) {
        let channel = index % params.coded;
        let position = index / params.coded;
        let level = plan[channel * RECORD + RECORD_TOWARDS_ZERO] >> 24u;
        if (level > 0u) {
            let has_up = (position / params.columns) % params.plane_rows != 0u;
            let context = context_of(around(index, sides_of(position % params.columns, has_up)));
            without = add64(without, vec2<u32>(cost(level, symbols[index]), 0u));
            with_contexts = add64(with_contexts, vec2<u32>(cost(table_of(channel, context), symbols[index]), 0u));
        }
    }
    let all = sum_over(local, without);
    if (local == 0u) {
        add_to_state(STATE_COST, all);
    }
    let all_with = sum_over(local, with_contexts);
    if (local == 0u) {
        add_to_state(STATE_COST_WITH, all_with);
    }
}
