// rANS words back to bytes. Needs: bytes, teams_single or teams_any.

const TABLE_WORDS: u32 = 4096u;

@group(0) @binding(1) var<storage, read> payload: array<u32>;
// For each slot its symbol, from bit 8 on the symbol's frequency less one, from bit 20 on the slot less the start.
@group(0) @binding(2) var<storage, read> table: array<u32>;
// Total, flags; then for each chunk where it starts in the payload and its length in 16-bit words.
@group(0) @binding(3) var<storage, read> report: array<u32>;
@group(0) @binding(4) var<storage, read_write> symbols: array<u32>;
// For each chunk what failed, and after how many words.
@group(0) @binding(5) var<storage, read_write> chunk_status: array<u32>;

const STATUS_TRUNCATED: u32 = 1u;
const STATUS_INITIAL_STATE: u32 = 2u;
const STATUS_END_STATE: u32 = 4u;
const STATUS_LEFT_OVER: u32 = 5u;
const STATUS_LANES: u32 = 6u;

@compute @workgroup_size(TEAM_WORKGROUP)
fn bytes_decode(place: Place) {
    let lane = team_lane(place);
    let here = chunk < params.chunks;
    let count = select(0u, symbols_of(chunk), here);
    let known = min(chunk, params.chunks - 1u);
    let start = report[2u + 2u * known];
    let length = report[2u + 2u * known + 1u];
    // Where rows of this chunk begin, in 32-bit words; a chunk has whole rows.
    let rows_at = chunk * params.chunk_symbols / 4u;
    let below = (1u << lane) - 1u;
    let states = payload[start + lane];
    var x = (states << 16u) | (states >> 16u);
    let low_start = ballot(x < LOWEST);
    var taken = 2u * LANES;
    var held = 0u;
    let rows = params.chunk_symbols / LANES;
    for (var row = 0u; row < rows; row++) {
        let coded = row * LANES + lane < count;
        var wants = false;
        if (coded) {
            let found = entry(x & (TOTAL - 1u));
            held |= (found & 0xffu) << ((row & 3u) * 8u);
            x = (((found >> 8u) & (TOTAL - 1u)) + 1u) * (x >> PROBABILITY_BITS) + (found >> 20u);
            wants = x < LOWEST;
        }
        let given = ballot(wants);
        if (wants) {
            // Beyond the end there is no word: the chunk fails once it is seen how many were taken.
            let at = min(taken + countOneBits(given & below), length);
            x = (x << 16u) | ((payload[start + (at >> 1u)] >> ((at & 1u) * 16u)) & 0xffffu);
        }
        taken += countOneBits(given);
        if ((row & 3u) == 3u || row + 1u == rows) {
            // Four lanes have four bytes of four rows each: each lane gets the four bytes of one row.
            let one = across(held, 1u);
            let odd = (lane & 1u) != 0u;
            let pairs = select(
                (held & 0x00ff00ffu) | ((one & 0x00ff00ffu) << 8u),
                ((one & 0xff00ff00u) >> 8u) | (held & 0xff00ff00u),
                odd,
            );
            let two = across(pairs, 2u);
            let four = select(
                (pairs & 0x0000ffffu) | (two << 16u),
                (two >> 16u) | (pairs & 0xffff0000u),
                (lane & 2u) != 0u,
            );
            let own_row = (row & ~3u) + (lane & 3u);
            if (own_row * LANES + (lane & ~3u) < count) {
                symbols[rows_at + own_row * (LANES / 4u) + (lane >> 2u)] = four;
            }
            held = 0u;
        }
    }
    let open = ballot(x != LOWEST);
    if (here && lane == 0u) {
        var failure = 0u;
        if (!lanes_agree) {
            failure = STATUS_LANES;
        } else if (length < 2u * LANES) {
            failure = STATUS_TRUNCATED;
        } else if (low_start != 0u) {
            failure = STATUS_INITIAL_STATE;
        } else if (taken > length) {
            failure = STATUS_TRUNCATED;
        } else if (open != 0u) {
            failure = STATUS_END_STATE;
        } else if (taken != length) {
            failure = STATUS_LEFT_OVER;
        }
        chunk_status[2u * chunk] = failure;
        chunk_status[2u * chunk + 1u] = taken;
    }
}
