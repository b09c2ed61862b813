// The bank of tables and the tokens of symbols. Needs: common.

const TOKENS: u32 = 32u;
const TABLES: u32 = 104u;
const TOTAL: u32 = 4096u;
const PROBABILITY_BITS: u32 = 12u;
const ESCAPE: u32 = 31u;
const FIRST_BUCKET: u32 = 9u;
const FIRST_ESCAPED: u32 = 517u;
const COST_ONE_BIT: u32 = 256u;

// Start and (from bit 16 on) frequency of each token of each table; then its cost; then the token of each slot,
// four to a word.
@group(0) @binding(2) var<storage, read> bank: array<u32>;

fn interval(table: u32, token: u32) -> u32 {
    return bank[table * TOKENS + token];
}

fn token_at(table: u32, slot: u32) -> u32 {
    let word = bank[2u * TABLES * TOKENS + ((table * TOTAL + slot) >> 2u)];
    return (word >> ((slot & 3u) * 8u)) & 0xffu;
}

// Raw bits that follow a token of a class.
fn class_bits(class_of: u32) -> u32 {
    return select(class_of - 7u, 0u, class_of < FIRST_BUCKET);
}

// The smallest magnitude of a class.
fn bucket_base(class_of: u32) -> u32 {
    return select((1u << (class_of - 7u)) + 5u, class_of, class_of < FIRST_BUCKET);
}

struct Token {
    token: u32,
    raw: u32,
    bits: u32,
}

fn token_of(symbol: u32) -> Token {
    let magnitude = magnitude_of(symbol);
    if (magnitude == 0u) {
        return Token(0u, 0u, 0u);
    }
    if (magnitude >= FIRST_ESCAPED) {
        return Token(ESCAPE, 0u, 0u);
    }
    var class_of = magnitude;
    if (magnitude >= FIRST_BUCKET) {
        class_of = firstLeadingBit(magnitude - 5u) + 7u;
    }
    return Token(2u * class_of - 1u + (symbol >> 31u), magnitude - bucket_base(class_of), class_bits(class_of));
}

fn zigzag(symbol: u32) -> u32 {
    return (symbol << 1u) ^ (0u - (symbol >> 31u));
}

fn unzigzag(value: u32) -> u32 {
    return (value >> 1u) ^ (0u - (value & 1u));
}

// Nibbles that hold a value: 0 for 0, 8 for the largest.
fn nibbles(value: u32) -> u32 {
    return (35u - countLeadingZeros(value)) >> 2u;
}

// Cost of a symbol in a table, raw bits included, in 1/256 bit.
fn cost(table: u32, symbol: u32) -> u32 {
    let costs = TABLES * TOKENS + table * TOKENS;
    let token = token_of(symbol).token;
    let own = bank[costs + token];
    if (token != ESCAPE && own != 0xffffffffu) {
        return own;
    }
    return bank[costs + ESCAPE] + (4u + 4u * nibbles(zigzag(symbol))) * COST_ONE_BIT;
}
