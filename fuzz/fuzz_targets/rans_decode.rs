//! Chunks of context-coded symbols: arbitrary bytes, and coded symbols with a word changed, for every lane count and
//! context rule, on every backend.
#![no_main]

use std::cell::RefCell;
use std::collections::HashMap;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use narrows::Backend;
use narrows::raw::ContextCoder;
use narrows::raw::portable::ContextRule;

/// Rows, columns, channels.
const SHAPES: [(usize, usize, usize); 6] = [(1, 1, 1), (3, 5, 7), (4, 4, 32), (2, 3, 70), (1, 1, 100), (9, 7, 3)];
const RULES: [ContextRule; 3] = [ContextRule::None, ContextRule::Neighbours, ContextRule::Runs];

#[derive(Debug, Arbitrary)]
struct Chunk {
    shape: u8,
    rule: u8,
    lanes: u8,
    source: Source,
}

#[derive(Debug, Arbitrary)]
enum Source {
    Bytes(Vec<u8>),
    /// Symbols, over and over, then a change of one word.
    Symbols(Vec<Symbol>, u16, u16),
}

#[derive(Debug, Clone, Copy, Arbitrary)]
enum Symbol {
    Small(i8),
    Any(i32),
}

/// Mostly small symbols, so that the tables have something to tell.
fn sample(count: usize) -> Vec<i32> {
    (0..count as i32).map(|i| (i * i / 3 + i / 7) % 5 - 2 + i32::from(i % 41 == 0) * (i % 700)).collect()
}

type Coders = HashMap<(usize, usize, &'static str), ContextCoder>;

thread_local!(static CODERS: RefCell<Coders> = RefCell::default());

/// Runs a body with the coder of a shape, a rule and a number of lanes on a backend.
fn with_coder<T>(
    (shape, rule, lanes): (usize, usize, u8),
    backend: &Backend,
    body: impl FnOnce(&mut ContextCoder) -> T,
) -> T {
    CODERS.with_borrow_mut(|coders| {
        let key = (shape, rule, backend.name());
        let coder = coders.remove(&key).unwrap_or_else(|| {
            let (rows, columns, channels) = SHAPES[shape];
            let sample = sample(rows * columns * channels);
            ContextCoder::fit(&[&sample], SHAPES[shape], RULES[rule], backend).expect("a good sample")
        });
        body(coders.entry(key).or_insert(coder.lanes(1 << lanes)))
    })
}

fuzz_target!(|chunk: Chunk| {
    let shape = usize::from(chunk.shape) % SHAPES.len();
    let rule = usize::from(chunk.rule) % RULES.len();
    let (rows, columns, channels) = SHAPES[shape];
    let count = rows * columns * channels;
    let lanes = chunk.lanes % 6;
    let encode = |symbols: &[i32], backend: &Backend| {
        with_coder((shape, rule, lanes), backend, |coder| {
            let mut bytes = Vec::new();
            coder.encode(symbols, &mut bytes).expect("as many symbols as the shape has");
            bytes
        })
    };
    let decode = |bytes: &[u8], backend: &Backend| {
        let mut symbols = vec![77; count];
        with_coder((shape, rule, lanes), backend, |coder| coder.decode(bytes, &mut symbols)).map(|()| symbols)
    };
    let check_symbols = |symbols: &[i32]| {
        let expected = encode(symbols, &Backend::Portable);
        for backend in Backend::available() {
            assert_eq!(encode(symbols, &backend), expected, "{backend}");
            assert_eq!(decode(&expected, &backend).as_deref(), Ok(symbols), "{backend}");
        }
        expected
    };
    let bytes = match chunk.source {
        Source::Bytes(bytes) => [&[lanes], &bytes[..]].concat(),
        Source::Symbols(symbols, at, word) => {
            let value = |symbol: &Symbol| match *symbol {
                Symbol::Small(symbol) => i32::from(symbol / 16),
                Symbol::Any(symbol) => symbol,
            };
            let mut symbols: Vec<i32> = symbols.iter().map(value).cycle().take(count).collect();
            symbols.resize(count, 0);
            let mut bytes = check_symbols(&symbols);
            let at = 1 + usize::from(at) % (bytes.len() - 2);
            bytes[at] ^= word as u8;
            bytes[at + 1] ^= (word >> 8) as u8;
            bytes
        }
    };
    let expected = decode(&bytes, &Backend::Portable);
    for backend in Backend::available() {
        assert_eq!(decode(&bytes, &backend), expected, "{backend}");
    }
    if let Ok(symbols) = expected {
        check_symbols(&symbols);
    }
});
