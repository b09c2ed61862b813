// What every kernel of the codec is given. The Rust side is `kernels::gpu::params::Params`; a test compares the two.
struct Params {
    items: u32,
    channels: u32,
    bands: u32,
    // Coder channels of a block: bands * channels.
    width: u32,
    // Coder channels that are coded, and runs of 32 of them.
    coded: u32,
    runs: u32,
    // Block rows of an item, blocks in a row, blocks of an item, block rows of a plane.
    rows: u32,
    columns: u32,
    positions: u32,
    plane_rows: u32,
    chunks: u32,
    rule: u32,
    lambda: u32,
    exponent: i32,
    dtype: u32,
    rank: u32,
    height: u32,
    row_length: u32,
    block_rows: u32,
    block_columns: u32,
    channel_axis: u32,
    height_axis: u32,
    width_axis: u32,
    // Elements of an item's feature, and where the first lies in its buffer.
    elements: u32,
    offset: u32,
    item: u32,
    // Words of scratch for each symbol of a chunk.
    capacity: u32,
    lanes: u32,
    matrices: u32,
    row_shift: u32,
    column_shift: u32,
    inverse: u32,
    // The positions of each chunk that one dispatch of a sequential kernel visits.
    first_position: u32,
    end_position: u32,
    checked: u32,
    spare_2: u32,
    dims: array<vec4<u32>, 2>,
    strides: array<vec4<u32>, 2>,
    planes: array<vec4<u32>, 2>,
}

@group(0) @binding(0) var<uniform> params: Params;

const MAX_LANES: u32 = 32u;
const RULE_NEIGHBOURS: u32 = 1u;
const RULE_RUNS: u32 = 2u;

// Words of `state`, 8 for each item.
const STATE_WORDS: u32 = 8u;
const STATE_FAILED: u32 = 0u;
const STATE_COST: u32 = 2u;
const STATE_COST_WITH: u32 = 4u;
const STATE_MAX: u32 = 6u;
const STATE_NEGATIVE: u32 = 7u;

// The magnitude of a symbol, which is an i32 in a u32.
fn magnitude_of(symbol: u32) -> u32 {
    return select(symbol, 0u - symbol, (symbol >> 31u) != 0u);
}
