// The interval of every symbol in the table of its context, and what all of them cost.
// Needs: common, plan, bank, chunks, contexts, around, sum64.

@group(0) @binding(4) var<storage, read> symbols: array<u32>;
// Start, 4,096 for a symbol that is escaped, and from bit 16 on the frequency.
@group(0) @binding(5) var<storage, read_write> intervals: array<u32>;
@group(0) @binding(6) var<storage, read_write> state: array<atomic<u32>>;
// For each run of each position the sum of its magnitudes; then the context of each.
@group(0) @binding(7) var<storage, read_write> run_sums: array<u32>;

@compute @workgroup_size(256)
fn run_magnitudes(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let count = params.items * params.positions * params.runs;
    for (var index = id.x; index < count; index += groups.x * 256u) {
        let first = (index % params.runs) * MAX_LANES;
        let base = (index / params.runs) * params.coded;
        let end = min(first + MAX_LANES, params.coded);
        var sum = 0u;
        for (var channel = first; channel < end; channel++) {
            sum += capped(base + channel);
        }
        run_sums[index] = sum;
    }
}

// Context rule `Runs`: the contexts of a position's runs, one after the other.
@compute @workgroup_size(64)
fn run_context(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let count = params.items * params.positions;
    let above = params.columns * params.runs;
    for (var position = id.x; position < count; position += groups.x * 64u) {
        let row = (position % params.positions) / params.columns;
        let sides = sides_of(position % params.columns, row_has_up(row));
        var sums = RunSums(0u, 0u);
        for (var run = 0u; run < params.runs; run++) {
            let at = position * params.runs + run;
            var sum = 0u;
            if (sides.left) {
                sum += 2u * run_sums[at - params.runs];
            }
            if (sides.up) {
                sum += 2u * run_sums[at - above];
            }
            if (sides.up_left) {
                sum += run_sums[at - above - params.runs];
            }
            if (sides.up_right) {
                sum += run_sums[at - above + params.runs];
            }
            let expected = expected_of(run);
            run_sums[count * params.runs + at] = run_context_of(sums, sum, weight_of(sides), expected);
            sums = add_run(sums, run_sums[at], expected);
        }
    }
}

@compute @workgroup_size(256)
fn context(
    @builtin(global_invocation_id) id: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let item = id.y;
    var own = vec2<u32>(0u);
    for (var index = id.x; index < params.positions * params.coded; index += groups.x * 256u) {
        let place = index / params.coded;
        let channel = index % params.coded;
        let at = item * params.positions * params.coded + index;
        var context_here = 0u;
        if (params.rule == RULE_NEIGHBOURS) {
            let sides = sides_of(place % params.columns, row_has_up(place / params.columns));
            context_here = context_of(around(at, sides));
        } else if (params.rule == RULE_RUNS) {
            let all = params.items * params.positions * params.runs;
            let run = channel / MAX_LANES;
            context_here = run_sums[all + (item * params.positions + place) * params.runs + run];
        }
        let table = table_of(channel, context_here);
        let symbol = symbols[at];
        var both = interval(table, token_of(symbol).token);
        if (token_of(symbol).token == ESCAPE || (both >> 16u) == 0u) {
            both = interval(table, ESCAPE) | TOTAL;
        }
        intervals[at] = both;
        own = add64(own, vec2<u32>(cost(table, symbol), 0u));
    }
    let all = sum_over(local, own);
    if (local == 0u) {
        add_to_state(item * STATE_WORDS + STATE_COST, all);
    }
}
