// Bytes to rANS words, from the last to the first. Needs: bytes, teams_single or teams_any.

const TABLE_WORDS: u32 = 256u;

@group(0) @binding(1) var<storage, read> symbols: array<u32>;
// For each symbol the start of its interval and, from bit 12 on, its frequency.
@group(0) @binding(2) var<storage, read> table: array<u32>;
// For each chunk its states, then its words, the last of them at the end of its part.
@group(0) @binding(3) var<storage, read_write> words: array<u32>;
// Total, flags; then for each chunk where it starts in the payload and its length in 16-bit words.
@group(0) @binding(4) var<storage, read_write> report: array<atomic<u32>>;

@compute @workgroup_size(TEAM_WORKGROUP)
fn bytes_encode(place: Place) {
    let lane = team_lane(place);
    let here = chunk < params.chunks;
    let count = select(0u, symbols_of(chunk), here);
    let first = chunk * params.chunk_symbols;
    let states_at = chunk * (params.chunk_symbols + SPARE);
    let words_at = states_at + LANES;
    let below = (1u << lane) - 1u;
    var left = params.chunk_symbols + SPARE - LANES;
    var x = LOWEST;
    var missing = false;
    // Every chunk of a workgroup takes the steps of a whole one: all of them vote together.
    let rows = params.chunk_symbols / LANES;
    for (var back = 0u; back < rows; back++) {
        let at = (rows - 1u - back) * LANES + lane;
        let coded = at < count;
        var low = 0u;
        var out = false;
        if (coded) {
            let symbol = (symbols[(first + at) >> 2u] >> (((first + at) & 3u) * 8u)) & 0xffu;
            let both = entry(symbol);
            let frequency = max(both >> PROBABILITY_BITS, 1u);
            missing = missing || (both >> PROBABILITY_BITS) == 0u;
            low = x & 0xffffu;
            // A symbol that is alone, of frequency 4,096, needs no room.
            out = frequency < TOTAL && x >= frequency << (32u - PROBABILITY_BITS);
            x = select(x, x >> 16u, out);
            let quotient = x / frequency;
            x = (quotient << PROBABILITY_BITS) + (x - quotient * frequency) + (both & (TOTAL - 1u));
        }
        let given = ballot(out);
        left -= min(countOneBits(given), left);
        if (out) {
            words[words_at + left + countOneBits(given & below)] = low;
        }
    }
    if (!here) {
        return;
    }
    words[states_at + lane] = x;
    if (missing) {
        atomicOr(&report[1], FLAG_NO_INTERVAL);
    }
    if (lane == 0u) {
        if (!lanes_agree) {
            atomicOr(&report[1], FLAG_LANES);
        }
        atomicStore(&report[2u + 2u * chunk + 1u], 2u * LANES + params.chunk_symbols + SPARE - LANES - left);
    }
}
