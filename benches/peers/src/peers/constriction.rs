//! `constriction`: its ANS stack coder and its range coder, in the "small" preset (12-bit tables with a lookup decoder)
//! and in the default one (24 bits).

use ::constriction::stream::{
    Decode, Encode,
    model::{
        ContiguousLookupDecoderModel, DefaultContiguousCategoricalEntropyModel, IterableEntropyModel,
        SmallContiguousCategoricalEntropyModel,
    },
    queue::{DefaultRangeDecoder, DefaultRangeEncoder, SmallRangeDecoder, SmallRangeEncoder},
    stack::{DefaultAnsCoder, SmallAnsCoder},
};

use crate::{
    coder::Coder,
    data::{Case, histogram},
};

/// A decoder table of 12 bits.
type Lookup = ContiguousLookupDecoderModel<u16, Vec<u16>, Box<[u16]>, 12>;

/// Which coder runs on the table.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// The stack.
    Ans,
    /// The queue.
    Range,
}

/// Adds the coders.
pub fn add(list: &mut Vec<Box<dyn Coder>>) {
    for (kind, name) in [(Kind::Ans, "ANS"), (Kind::Range, "range")] {
        let name = format!("constriction {name} 12-bit lookup");
        list.push(Box::new(Small { name: name.clone(), kind, known: None, words: Vec::new() }));
        let known = Some(small_table(&[1.0, 1.0]));
        list.push(Box::new(Small { name: format!("{name}, known table"), kind, known, words: Vec::new() }));
    }
    for (kind, name) in [(Kind::Ans, "ANS"), (Kind::Range, "range")] {
        let name = format!("constriction {name} 24-bit, known table");
        let model = large_table(&[1.0, 1.0]);
        list.push(Box::new(Large { name, kind, model, words: Vec::new() }));
    }
}

/// Encoder and decoder models of one table.
type SmallTable = (SmallContiguousCategoricalEntropyModel, Lookup);

/// Both models from weights, as near to them as 12 bits allow.
fn small_table(weights: &[f64]) -> SmallTable {
    let model = SmallContiguousCategoricalEntropyModel::from_floating_point_probabilities_perfect(weights);
    let model = model.expect("positive weights");
    let lookup = model.to_lookup_decoder_model();
    (model, lookup)
}

/// A model of 24 bits from weights.
fn large_table(weights: &[f64]) -> DefaultContiguousCategoricalEntropyModel {
    DefaultContiguousCategoricalEntropyModel::from_floating_point_probabilities_perfect(weights)
        .expect("positive weights")
}

/// The counts of the training symbols up to the largest symbol of the case; what was never seen counts a little.
fn known_weights(case: &Case) -> Vec<f64> {
    let counts = histogram(&case.training);
    counts[..=usize::from(case.largest()).max(1)].iter().map(|&c| f64::from(c) + 0.01).collect()
}

/// The small preset: words of 16 bits, states of 32, tables of 12.
///
/// A self-contained stream starts with the largest symbol and the probability of every symbol up to it, in one byte
/// below 128 and in two above: the library has no format for tables of its own.
struct Small {
    name: String,
    kind: Kind,
    known: Option<SmallTable>,
    words: Vec<u16>,
}

impl Coder for Small {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn prepare(&mut self, case: &Case) {
        if self.known.is_some() {
            self.known = Some(small_table(&known_weights(case)));
        }
    }

    fn encode(&mut self, symbols: &[u8], out: &mut Vec<u8>) {
        let own;
        let model = if let Some((model, _)) = &self.known {
            model.as_view()
        } else {
            let counts = histogram(symbols);
            let largest = counts.iter().rposition(|&c| c > 0).unwrap_or(0).max(1);
            let weights = counts[..=largest].iter().map(|&c| c as f32).collect::<Vec<f32>>();
            own = SmallContiguousCategoricalEntropyModel::from_floating_point_probabilities_fast(&weights, None)
                .expect("a histogram");
            out.push(largest as u8);
            for (_, _, probability) in own.symbol_table() {
                let p = probability.get();
                if p < 128 {
                    out.push(p as u8);
                } else {
                    out.extend([p as u8 | 128, (p >> 7) as u8]);
                }
            }
            own.as_view()
        };
        let mut words = std::mem::take(&mut self.words);
        words.clear();
        let symbols = symbols.iter().map(|&s| usize::from(s));
        self.words = match self.kind {
            Kind::Ans => {
                let mut coder = SmallAnsCoder::from_compressed(words).expect("no words");
                coder.encode_iid_symbols_reverse(symbols, model).expect("a symbol of the table");
                coder.into_compressed().expect("a vector grows")
            }
            Kind::Range => {
                let mut coder = SmallRangeEncoder::with_write_backend(words);
                coder.encode_iid_symbols(symbols, model).expect("a symbol of the table");
                coder.into_compressed().expect("a vector grows")
            }
        };
        out.extend(self.words.iter().flat_map(|w| w.to_le_bytes()));
    }

    fn decode(&mut self, mut stream: &[u8], symbols: &mut [u8]) {
        let own;
        let model = if let Some((_, lookup)) = &self.known {
            lookup.as_view()
        } else {
            let mut next = || stream.split_off_first().copied().expect("a table");
            let probabilities: Vec<u16> = (0..=next())
                .map(|_| match u16::from(next()) {
                    low @ 128.. => low & 127 | u16::from(next()) << 7,
                    low => low,
                })
                .collect();
            own = Lookup::from_nonzero_fixed_point_probabilities(&probabilities, false).expect("a table");
            own.as_view()
        };
        self.words.clear();
        self.words.extend(stream.as_chunks().0.iter().map(|&w| u16::from_le_bytes(w)));
        match self.kind {
            Kind::Ans => {
                let mut coder = SmallAnsCoder::from_compressed_slice(&self.words).expect("words");
                fill(symbols, coder.decode_iid_symbols(symbols.len(), model));
            }
            Kind::Range => {
                let mut coder = SmallRangeDecoder::from_compressed(&self.words[..]).expect("words");
                fill(symbols, coder.decode_iid_symbols(symbols.len(), model));
            }
        }
    }
}

/// Takes the symbols out of a decoder.
fn fill<E: std::fmt::Debug>(symbols: &mut [u8], decoded: impl Iterator<Item = Result<usize, E>>) {
    for (symbol, decoded) in symbols.iter_mut().zip(decoded) {
        *symbol = decoded.expect("a symbol") as u8;
    }
}

/// The default preset: words of 32 bits, states of 64, tables of 24.
struct Large {
    name: String,
    kind: Kind,
    model: DefaultContiguousCategoricalEntropyModel,
    words: Vec<u32>,
}

impl Coder for Large {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn prepare(&mut self, case: &Case) {
        self.model = large_table(&known_weights(case));
    }

    fn encode(&mut self, symbols: &[u8], out: &mut Vec<u8>) {
        let mut words = std::mem::take(&mut self.words);
        words.clear();
        let symbols = symbols.iter().map(|&s| usize::from(s));
        self.words = match self.kind {
            Kind::Ans => {
                let mut coder = DefaultAnsCoder::from_compressed(words).expect("no words");
                coder.encode_iid_symbols_reverse(symbols, self.model.as_view()).expect("a symbol of the table");
                coder.into_compressed().expect("a vector grows")
            }
            Kind::Range => {
                let mut coder = DefaultRangeEncoder::with_write_backend(words);
                coder.encode_iid_symbols(symbols, self.model.as_view()).expect("a symbol of the table");
                coder.into_compressed().expect("a vector grows")
            }
        };
        out.extend(self.words.iter().flat_map(|w| w.to_le_bytes()));
    }

    fn decode(&mut self, stream: &[u8], symbols: &mut [u8]) {
        self.words.clear();
        self.words.extend(stream.as_chunks().0.iter().map(|&w| u32::from_le_bytes(w)));
        match self.kind {
            Kind::Ans => {
                let mut coder = DefaultAnsCoder::from_compressed_slice(&self.words).expect("words");
                fill(symbols, coder.decode_iid_symbols(symbols.len(), self.model.as_view()));
            }
            Kind::Range => {
                let mut coder = DefaultRangeDecoder::from_compressed(&self.words[..]).expect("words");
                fill(symbols, coder.decode_iid_symbols(symbols.len(), self.model.as_view()));
            }
        }
    }
}
