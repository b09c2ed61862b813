// The byte coder: u8 symbols, one table, 32 lanes, symbol i in lane i mod 32; chunks of `chunk_symbols` symbols, a multiple
// of 32.

struct ByteParams {
    // Symbols of the last chunk are what the others leave.
    symbols: u32,
    chunk_symbols: u32,
    chunks: u32,
    spare: u32,
}

@group(0) @binding(0) var<uniform> params: ByteParams;

const LANES: u32 = 32u;
const LOWEST: u32 = 65536u;
const PROBABILITY_BITS: u32 = 12u;
const TOTAL: u32 = 4096u;
// States, then a few words to spare.
const SPARE: u32 = 64u;
const FLAG_LANES: u32 = 2u;
const FLAG_NO_INTERVAL: u32 = 4u;

fn symbols_of(chunk: u32) -> u32 {
    let first = chunk * params.chunk_symbols;
    return min(params.chunk_symbols, params.symbols - min(first, params.symbols));
}
