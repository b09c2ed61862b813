// The plan of a quality, as words: for each coded channel a record; then what is expected of each run; then the
// number of each coder channel among the coded ones (or none); then the mean of each coder channel. Needs: common.

const RECORD: u32 = 10u;
const RECORD_CHANNEL: u32 = 0u;
const RECORD_MEAN: u32 = 1u;
const RECORD_MULTIPLIER: u32 = 2u;
const RECORD_SHIFT: u32 = 3u;
const RECORD_OFFSET: u32 = 4u;
const RECORD_MANTISSA: u32 = 5u;
const RECORD_DEQUANTIZE_SHIFT: u32 = 6u;
// Three offsets towards zero and the level, a byte each.
const RECORD_TOWARDS_ZERO: u32 = 7u;
const RECORD_TABLES: u32 = 8u;
const NONE: u32 = 0xffffffffu;

@group(0) @binding(1) var<storage, read> plan: array<u32>;

fn expected_of(run: u32) -> u32 {
    return plan[params.coded * RECORD + run];
}

// Table of a coded channel in a context.
fn table_of(channel: u32, context: u32) -> u32 {
    let word = plan[channel * RECORD + RECORD_TABLES + ((context >> 2u) & 1u)];
    return (word >> ((context & 3u) * 8u)) & 0xffu;
}
