// The chunks of all items to symbols: a workgroup for each chunk, a lane for each rANS state; contexts are recomputed as
// symbols appear. Needs: common, lanes_*, plan, bank, chunks, contexts, around, runs.

@group(0) @binding(4) var<storage, read> payload: array<u32>;
@group(0) @binding(5) var<storage, read_write> symbols: array<u32>;
// For each chunk: what failed, the byte of the chunk at which it did, words taken so far, and from word 8 on the lanes'
// states and their check sums: several dispatches decode a long chunk.
@group(0) @binding(6) var<storage, read_write> chunk_status: array<u32>;
@group(0) @binding(7) var<storage, read_write> state: array<atomic<u32>>;

const STATUS_WORDS: u32 = 72u;
const STATUS_STATES: u32 = 8u;
const STATUS_SUMS: u32 = 40u;
const LOWEST: u32 = 65536u;
const STATUS_TRUNCATED: u32 = 1u;
const STATUS_INITIAL_STATE: u32 = 2u;
const STATUS_ESCAPE: u32 = 3u;
const STATUS_END_STATE: u32 = 4u;
const STATUS_LEFT_OVER: u32 = 5u;
const STATUS_LANES: u32 = 6u;
// A nibble that counts, then 8.
const RAW_ROUNDS: u32 = 9u;

// Words of the chunk: where it begins in `payload`, how many there are, how many were taken.
var<private> start: u32;
var<private> limit: u32;
var<private> taken: u32;
var<private> failure: u32;
var<private> failed_at: u32;

fn word(at: u32) -> u32 {
    return (payload[start + (at >> 1u)] >> ((at & 1u) * 16u)) & 0xffffu;
}

fn fail(what: u32, at: u32) {
    failure = what;
    failed_at = at;
}

// Lets every lane that needs a word take the next one, in lane order. `wants` has the bits of those lanes and `bad`
// those of the lanes that found a malformed escape once they had their word; the first lane in trouble counts.
fn take_words(x: ptr<function, u32>, lane: u32, wants: u32, bad: u32) {
    let rank = countOneBits(wants & ((1u << lane) - 1u));
    let left = limit - taken;
    if (countOneBits(wants) > left || bad != 0u) {
        var short_of = MAX_LANES;
        for (var i = 0u; i < MAX_LANES; i++) {
            let before = countOneBits(wants & ((1u << i) - 1u));
            if (((wants >> i) & 1u) != 0u && before == left) {
                short_of = i;
            }
        }
        let malformed = min(countTrailingZeros(bad), MAX_LANES);
        if (short_of <= malformed) {
            fail(STATUS_TRUNCATED, 0u);
        } else {
            let through = 0xffffffffu >> (31u - malformed);
            fail(STATUS_ESCAPE, 2u * (taken + countOneBits(wants & through)));
        }
        return;
    }
    if (((wants >> lane) & 1u) != 0u) {
        *x = (*x << 16u) | word(taken + rank);
    }
    taken += countOneBits(wants);
}

@compute @workgroup_size(WORKGROUP)
fn rans_decode(place: Place) {
    let lane = lane_of(place);
    let count = params.items * params.chunks;
    let index = place.group.x + place.group.y * place.groups.x;
    if (index >= count) {
        return;
    }
    let chunk = chunk_at(index);
    let lanes = params.lanes;
    let coded = params.coded;
    // A chunk without symbols has no bytes.
    if (chunk.first_row >= chunk.end_row || params.columns == 0u || coded == 0u) {
        return;
    }
    let in_use = lane < lanes;
    start = chunk.start;
    limit = chunk.bytes >> 1u;
    let status_at = index * STATUS_WORDS;
    let positions = (chunk.end_row - chunk.first_row) * params.columns;
    let item_base = (index / params.chunks) * params.positions + chunk.first_row * params.columns;

    var x = LOWEST;
    var sum = chunk.seed;
    if (params.first_position == 0u) {
        if (!lanes_agree) {
            fail(STATUS_LANES, 0u);
        }
        let whole = limit >= 2u * (lane + 1u);
        if (in_use && whole) {
            x = (word(2u * lane) << 16u) | word(2u * lane + 1u);
        }
        let initial = ballots(in_use && !whole, (x < LOWEST), false);
        if (failure == 0u && (initial.x | initial.y) != 0u) {
            let first = countTrailingZeros(initial.x | initial.y);
            if (((initial.x >> first) & 1u) != 0u) {
                fail(STATUS_TRUNCATED, 0u);
            } else {
                fail(STATUS_INITIAL_STATE, 0u);
            }
        }
        taken = 2u * lanes;
    } else {
        failure = chunk_status[status_at];
        failed_at = chunk_status[status_at + 1u];
        taken = chunk_status[status_at + 2u];
        x = select(LOWEST, chunk_status[status_at + STATUS_STATES + lane], in_use);
        sum = chunk_status[status_at + STATUS_SUMS + lane];
    }

    var sums = RunSums(0u, 0u);
    let end_position = min(positions, params.end_position);
    for (var position = params.first_position; position < end_position; position++) {
        let base = (item_base + position) * coded;
        let column = position % params.columns;
        let sides = sides_of(column, row_has_up(chunk.first_row + position / params.columns));
        var magnitudes = 0u;
        for (var run = 0u; run < params.runs; run++) {
            if (failure != 0u) {
                break;
            }
            var run_context = 0u;
            if (params.rule == RULE_RUNS) {
                run_context = next_run_context(base, run, sides, lane, lanes, magnitudes, &sums);
                magnitudes = 0u;
            }
            let end = min((run + 1u) * MAX_LANES, coded);
            for (var first = run * MAX_LANES; first < end; first += lanes) {
                let channel = first + lane;
                let at = base + channel;
                let here = in_use && channel < end;
                var context = run_context;
                if (here && params.rule == RULE_NEIGHBOURS) {
                    context = context_of(around(at, sides));
                }
                let symbol = decode_group(&x, lane, channel, here, context);
                if (failure != 0u) {
                    break;
                }
                if (here) {
                    symbols[at] = symbol;
                    sum += (2u * (position * coded + channel) + 1u) * symbol;
                    magnitudes += min(magnitude_of(symbol), CAP);
                }
            }
        }
        if (failure != 0u) {
            break;
        }
    }

    if (params.end_position >= positions && params.first_position < positions) {
        let end = select(LOWEST, end_state(sum), params.checked != 0u);
        let open = ballots(in_use && x != end, false, false).x;
        if (failure == 0u && open != 0u) {
            fail(STATUS_END_STATE, 2u * taken);
        }
        if (failure == 0u && 2u * taken != chunk.bytes) {
            fail(STATUS_LEFT_OVER, 2u * taken);
        }
    }
    if (in_use) {
        chunk_status[status_at + STATUS_STATES + lane] = x;
        chunk_status[status_at + STATUS_SUMS + lane] = sum;
    }
    if (lane == 0u) {
        chunk_status[status_at] = failure;
        chunk_status[status_at + 1u] = failed_at;
        chunk_status[status_at + 2u] = taken;
        if (failure != 0u) {
            atomicOr(&state[(index / params.chunks) * STATE_WORDS + STATE_FAILED], 1u);
        }
    }
}

// Decodes one symbol in each lane that is `here`: its token, then rounds of raw bits for the lanes that need them.
fn decode_group(x: ptr<function, u32>, lane: u32, channel: u32, here: bool, context: u32) -> u32 {
    var token = 0u;
    var pending = 0u;
    if (here) {
        let table = table_of(channel, context);
        let slot = *x & (TOTAL - 1u);
        token = token_at(table, slot);
        let both = interval(table, token);
        *x = (both >> 16u) * (*x >> PROBABILITY_BITS) + slot - (both & 0xffffu);
        pending = select(class_bits((token + 1u) >> 1u), 4u, token == ESCAPE);
    }
    var masks = ballots(here && (*x < LOWEST), (pending > 0u), false);
    take_words(x, lane, masks.x, 0u);
    var raw = 0u;
    var got = 0u;
    for (var round = 0u; round < RAW_ROUNDS; round++) {
        if (masks.y == 0u || failure != 0u) {
            break;
        }
        let bits = min(pending - got, 4u);
        var bad = false;
        if (bits > 0u) {
            let shift = PROBABILITY_BITS - bits;
            let part = (*x & (TOTAL - 1u)) >> shift;
            *x = ((*x >> PROBABILITY_BITS) << shift) + (*x & ((1u << shift) - 1u));
            if (token != ESCAPE) {
                raw |= part << got;
            } else if (got == 0u) {
                bad = part > 8u;
                pending = 4u + 4u * min(part, 8u);
            } else {
                raw |= part << (got - 4u);
            }
            got += bits;
        }
        masks = ballots((bits > 0u) && (*x < LOWEST), (pending > got), bad);
        take_words(x, lane, masks.x, masks.z);
    }
    if (token == ESCAPE) {
        return unzigzag(raw);
    }
    let class_of = (token + 1u) >> 1u;
    let magnitude = bucket_base(class_of) + raw;
    return select(magnitude, 0u - magnitude, token != 0u && (token & 1u) == 0u);
}
