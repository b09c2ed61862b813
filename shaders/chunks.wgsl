// The chunks of all items, and whether each block row has one above it. Needs: common.

const CHUNK_WORDS: u32 = 5u;

// For each chunk of each item: first word, bytes, first row, end row, what its check sums start from; then for each row of an item, 1 if the row
// above is in the same plane and chunk.
@group(0) @binding(3) var<storage, read> chunks: array<u32>;

struct Chunk {
    start: u32,
    bytes: u32,
    first_row: u32,
    end_row: u32,
    seed: u32,
}

// The multiplier that spreads a check sum over its upper half.
const CHECK_MULTIPLIER: u32 = 2654435761u;

fn chunk_at(index: u32) -> Chunk {
    let at = index * CHUNK_WORDS;
    return Chunk(chunks[at], chunks[at + 1u], chunks[at + 2u], chunks[at + 3u], chunks[at + 4u]);
}

// The state that a lane ends in when a chunk is decoded, from the seed and the sum of its symbols, each times twice its
// number plus one.
fn end_state(sum: u32) -> u32 {
    return 65536u + ((sum * CHECK_MULTIPLIER) >> 16u);
}

fn row_has_up(row: u32) -> bool {
    return chunks[params.items * params.chunks * CHUNK_WORDS + row] != 0u;
}
