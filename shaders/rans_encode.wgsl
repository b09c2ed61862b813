// Symbols to words, from the last to the first: a workgroup for each chunk, a lane for each rANS state.
// Needs: common, lanes_*, bank (for the tokens), chunks.

@group(0) @binding(1) var<storage, read> symbols: array<u32>;
@group(0) @binding(4) var<storage, read> intervals: array<u32>;
// For each chunk its states, then its words, the last of them at the end of its part.
@group(0) @binding(5) var<storage, read_write> words: array<u32>;
// Total, flags, lanes of each item, length of each chunk in 16-bit words.
@group(0) @binding(6) var<storage, read_write> report: array<atomic<u32>>;

// For each chunk, the room that is left: several dispatches encode a long chunk, the last positions first.
@group(0) @binding(7) var<storage, read_write> rooms: array<u32>;

const LOWEST: u32 = 65536u;
const FLAG_OVERFLOW: u32 = 1u;
const FLAG_LANES: u32 = 2u;
const ESCAPE_ROUNDS: u32 = 9u;
// States, then a few words to spare.
const SPARE: u32 = 64u;

// A symbol on its way: its interval, its raw bits (of an escape: those after the nibble that counts), their number.
struct Coded {
    both: u32,
    raw: u32,
    bits: u32,
}

fn load(at: u32) -> Coded {
    let both = intervals[at];
    let symbol = symbols[at];
    if ((both & TOTAL) != 0u) {
        let value = zigzag(symbol);
        return Coded(both, value, 4u + 4u * nibbles(value));
    }
    let token = token_of(symbol);
    return Coded(both, token.raw, token.bits);
}

fn push(x: u32, first: u32, frequency: u32) -> u32 {
    let divisor = max(frequency, 1u);
    return ((x / divisor) << PROBABILITY_BITS) + x % divisor + first;
}

// Words that a state gives away before it takes an interval: one if it is this large.
fn full(x: u32, frequency: u32) -> bool {
    return x >= frequency << (32u - PROBABILITY_BITS);
}

@compute @workgroup_size(WORKGROUP)
fn rans_encode(place: Place) {
    let lane = lane_of(place);
    let count = params.items * params.chunks;
    let index = place.group.x + place.group.y * place.groups.x;
    if (index >= count) {
        return;
    }
    let chunk = chunk_at(index);
    let item = index / params.chunks;
    let lanes = atomicLoad(&report[2u + item]);
    let first = (item * params.positions + chunk.first_row * params.columns) * params.coded;
    let positions = (chunk.end_row - chunk.first_row) * params.columns;
    let states_at = first * params.capacity + index * SPARE;
    let words_at = states_at + MAX_LANES;
    let room = positions * params.coded * params.capacity + SPARE - MAX_LANES;
    let groups = (params.coded + lanes - 1u) / lanes;
    let first_position = min(params.first_position, positions);
    let end_position = min(params.end_position, positions);
    var steps = (end_position - first_position) * groups;
    if (!lanes_agree) {
        atomicOr(&report[1], FLAG_LANES);
        steps = 0u;
    }

    var x = LOWEST;
    var left = room;
    if (params.end_position < positions) {
        x = words[states_at + lane];
        left = rooms[index];
    } else if (lane < lanes && steps > 0u) {
        var sum = chunk.seed;
        for (var at = 0u; at < positions * params.coded; at += params.coded) {
            for (var channel = lane; channel < params.coded; channel += lanes) {
                sum += (2u * (at + channel) + 1u) * symbols[first + at + channel];
            }
        }
        x = end_state(sum);
    }
    var overflow = false;
    // The group that is coded, and whether the one before it has raw bits, is known a step ahead.
    var next = Coded(0u, 0u, 0u);
    var here_next = false;
    if (steps > 0u) {
        let channel = (groups - 1u) * lanes + lane;
        here_next = lane < lanes && channel < params.coded;
        if (here_next) {
            next = load(first + (end_position - 1u) * params.coded + channel);
        }
    }
    var masks = ballots(false, next.bits > 0u, next.bits > 8u);
    var position = end_position - 1u;
    var group = groups - 1u;
    for (var step = 0u; step < steps; step++) {
        let now = next;
        let here = here_next;
        if (group == 0u) {
            group = groups;
            position--;
        }
        group--;
        next = Coded(0u, 0u, 0u);
        here_next = false;
        if (step + 1u < steps) {
            let channel = group * lanes + lane;
            here_next = lane < lanes && channel < params.coded;
            if (here_next) {
                next = load(first + position * params.coded + channel);
            }
        }
        // Rounds of raw bits, the last one first.
        if (masks.y != 0u) {
            let rounds = select(2u, ESCAPE_ROUNDS, masks.z != 0u);
            for (var back = 0u; back < rounds; back++) {
                let done = 4u * (rounds - 1u - back);
                let bits = min(now.bits - min(now.bits, done), 4u);
                var out = false;
                var low = 0u;
                if (bits > 0u) {
                    var raw = now.raw >> (done & 31u);
                    if ((now.both & TOTAL) != 0u) {
                        raw = select(now.raw >> ((done - 4u) & 31u), (now.bits - 4u) >> 2u, done == 0u);
                    }
                    let shift = PROBABILITY_BITS - bits;
                    low = x & 0xffffu;
                    out = full(x, 1u << shift);
                    x = select(x, x >> 16u, out);
                    // The interval is a power of two: no division.
                    x = ((x >> shift) << PROBABILITY_BITS) + (x & ((1u << shift) - 1u))
                        + ((raw & ((1u << bits) - 1u)) << shift);
                }
                let given = ballots(out, false, false).x;
                overflow = overflow || countOneBits(given) > left;
                if (!overflow) {
                    left -= countOneBits(given);
                    if (out) {
                        words[words_at + left + countOneBits(given & ((1u << lane) - 1u))] = low;
                    }
                }
            }
        }
        // The tokens.
        var out = false;
        var low = 0u;
        if (here) {
            let frequency = now.both >> 16u;
            low = x & 0xffffu;
            out = full(x, frequency);
            x = push(select(x, x >> 16u, out), now.both & (TOTAL - 1u), frequency);
        }
        masks = ballots(out, next.bits > 0u, next.bits > 8u);
        let given = masks.x;
        overflow = overflow || countOneBits(given) > left;
        if (!overflow) {
            left -= countOneBits(given);
            if (out) {
                words[words_at + left + countOneBits(given & ((1u << lane) - 1u))] = low;
            }
        }
    }
    words[states_at + lane] = x;
    if (lane == 0u) {
        rooms[index] = left;
        if (overflow) {
            atomicOr(&report[1], FLAG_OVERFLOW);
        }
        // A chunk without symbols has no bytes.
        let length = select(room - left + 2u * lanes, 0u, positions * params.coded == 0u);
        atomicStore(&report[2u + params.items + index], length);
    }
}
