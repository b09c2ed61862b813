// Coefficients to symbols, with rate decisions if there is a Lagrangian.
// Needs: common, lanes_*, plan, bank, chunks, contexts, around, runs.

@group(0) @binding(4) var<storage, read> coefficients: array<i32>;
@group(0) @binding(5) var<storage, read_write> symbols: array<u32>;
@group(0) @binding(6) var<storage, read_write> report: array<atomic<u32>>;

const SYMBOL_MAX: u32 = 65535u;
const COEFFICIENT_MAX: i32 = 131071;
const COEFFICIENT_BITS: u32 = 2u;
const RDO_MAX: u32 = 15u;
const FLAG_LANES: u32 = 2u;

// The coefficient of a coded channel at a position (of all items' positions), less its mean.
fn centred_at(position: u32, channel: u32) -> i32 {
    let index = position * params.width + plan[channel * RECORD + RECORD_CHANNEL];
    var coefficient = coefficients[index];
    if (params.matrices == 0u) {
        coefficient = coefficient << COEFFICIENT_BITS;
    }
    let mean = bitcast<i32>(plan[channel * RECORD + RECORD_MEAN]);
    // What the first limit cuts off is beyond the second one whatever the mean.
    return clamp(clamp(coefficient, -1073741824, 1073741823) - mean, -COEFFICIENT_MAX, COEFFICIENT_MAX);
}

fn with_sign(magnitude: u32, centred: i32) -> u32 {
    return select(magnitude, 0u - magnitude, centred < 0);
}

fn quantize_one(centred: i32, channel: u32) -> u32 {
    let at = channel * RECORD;
    let scaled = u32(abs(centred)) * plan[at + RECORD_MULTIPLIER];
    return min((scaled + plan[at + RECORD_OFFSET]) >> (plan[at + RECORD_SHIFT] & 31u), SYMBOL_MAX);
}

// Squared error plus lambda times bits of a magnitude.
fn loss(magnitude: u32, centred: i32, size: u32, table: u32) -> u32 {
    let candidate = magnitude << 8u;
    let error = max(size, candidate) - min(size, candidate);
    // Errors count 1/65536 squared step, costs 1/256 bit, lambda 1/4096 squared step a bit: all of it fits.
    return error * error + ((params.lambda * cost(table, with_sign(magnitude, centred))) >> 4u);
}

// The symbol with the least loss among the rounded one, the one below it in magnitude, and zero.
fn decide(centred: i32, channel: u32, table: u32) -> u32 {
    let rounded = quantize_one(centred, channel);
    if (params.lambda == 0u || rounded == 0u || rounded > RDO_MAX) {
        return with_sign(rounded, centred);
    }
    let at = channel * RECORD;
    let shift = (plan[at + RECORD_SHIFT] - 8u) & 31u;
    let size = (u32(abs(centred)) * plan[at + RECORD_MULTIPLIER]) >> shift;
    var best = rounded;
    var least = loss(rounded, centred, size, table);
    let below = loss(rounded - 1u, centred, size, table);
    if (below < least) {
        best = rounded - 1u;
        least = below;
    }
    if (loss(0u, centred, size, table) < least) {
        best = 0u;
    }
    return with_sign(best, centred);
}

// Every symbol on its own: without a Lagrangian, or without contexts.
@compute @workgroup_size(256)
fn quantize(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let count = params.items * params.positions * params.coded;
    for (var index = id.x; index < count; index += groups.x * 256u) {
        let channel = index % params.coded;
        let centred = centred_at(index / params.coded, channel);
        symbols[index] = decide(centred, channel, table_of(channel, 0u));
    }
}

// Context rule `Neighbours`: a channel of a chunk after the other positions of it.
@compute @workgroup_size(64)
fn quantize_neighbours(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let count = params.items * params.chunks * params.coded;
    for (var index = id.x; index < count; index += groups.x * 64u) {
        let channel = index % params.coded;
        let chunk = chunk_at(index / params.coded);
        let first = (index / params.coded / params.chunks) * params.positions;
        let positions = (chunk.end_row - chunk.first_row) * params.columns;
        let end_position = min(positions, params.end_position);
        for (var i = params.first_position; i < end_position; i++) {
            let position = first + chunk.first_row * params.columns + i;
            let at = position * params.coded + channel;
            let has_up = row_has_up(chunk.first_row + i / params.columns);
            let context = context_of(around(at, sides_of(i % params.columns, has_up)));
            symbols[at] = decide(centred_at(position, channel), channel, table_of(channel, context));
        }
    }
}

// Context rule `Runs`: a workgroup for each chunk, 32 channels at once.
@compute @workgroup_size(WORKGROUP)
fn quantize_runs(place: Place) {
    let lane = lane_of(place);
    let index = place.group.x + place.group.y * place.groups.x;
    if (index >= params.items * params.chunks) {
        return;
    }
    if (!lanes_agree) {
        atomicOr(&report[1], FLAG_LANES);
        return;
    }
    let chunk = chunk_at(index);
    let first = (index / params.chunks) * params.positions + chunk.first_row * params.columns;
    let positions = (chunk.end_row - chunk.first_row) * params.columns;
    let end_position = min(positions, params.end_position);
    var sums = RunSums(0u, 0u);
    for (var i = params.first_position; i < end_position; i++) {
        let position = first + i;
        let base = position * params.coded;
        let sides = sides_of(i % params.columns, row_has_up(chunk.first_row + i / params.columns));
        var magnitude = 0u;
        for (var run = 0u; run < params.runs; run++) {
            let context = next_run_context(base, run, sides, lane, MAX_LANES, magnitude, &sums);
            let channel = run * MAX_LANES + lane;
            magnitude = 0u;
            if (channel < params.coded) {
                let symbol = decide(centred_at(position, channel), channel, table_of(channel, context));
                symbols[base + channel] = symbol;
                magnitude = min(magnitude_of(symbol), CAP);
            }
        }
    }
}
