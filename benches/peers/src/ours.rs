//! The coders of `narrows`: the one-table coder of bytes, the context coder of features, and the whole path.

use narrows::fit::{FitOptions, Transforms};
use narrows::raw::{BYTE_LANES, ByteCoder, ByteJob, ByteTable, ContextCoder, portable::ContextRule};
use narrows::{Backend, Decoder, Encoder, Feature, Profile, Quality};
use ndarray::{Array4, ArrayD, IxDyn};

use crate::{
    coder::Coder,
    data::Case,
    path::{PathCoder, PathData},
};

/// Bytes of the length of the first of two chunks.
const LENGTH: usize = 4;

/// The backend that is measured: the best of this machine, or the one of a `--cpu` level.
fn backend(level: Option<&str>) -> Backend {
    let name = match level {
        None => return Backend::detect(),
        Some("scalar") => "portable",
        Some("sse4") => "sse4.2",
        Some(level) => level,
    };
    Backend::from_name(name).unwrap_or(Backend::Portable)
}

/// Adds the coders of symbols.
pub fn add(list: &mut Vec<Box<dyn Coder>>, level: Option<&str>) {
    let backend = backend(level);
    list.push(Box::new(OneTable::new(&backend, false, BYTE_LANES, true)));
    list.push(Box::new(OneTable::new(&backend, true, BYTE_LANES, true)));
    list.push(Box::new(OneTable::new(&backend, true, 2, false)));
    list.push(Box::new(Context { backend: backend.clone(), lanes: None, coder: None, symbols: Vec::new() }));
    list.push(Box::new(Context { backend, lanes: Some(8), coder: None, symbols: Vec::new() }));
}

/// Adds the codecs of f32 features.
pub fn add_path(list: &mut Vec<Box<dyn PathCoder>>, level: Option<&str>) {
    let backend = backend(level);
    for rdo in [false, true] {
        list.push(Box::new(Whole { backend: backend.clone(), rdo, codec: None, shape: [0; 3], quality: 1.0 }));
    }
}

/// One table for the whole message, in the stream or known in advance.
struct OneTable {
    coder: ByteCoder,
    name: String,
    known: Option<ByteTable>,
    /// Interleaved states of a chunk.
    lanes: usize,
    /// Two chunks, which are decoded in lockstep.
    halves: bool,
}

impl OneTable {
    fn new(backend: &Backend, known: bool, lanes: usize, halves: bool) -> OneTable {
        let table = if known { ", known table" } else { "" };
        let chunks = if halves { "2 chunks of " } else { "" };
        OneTable {
            coder: ByteCoder::new(backend).expect("a backend of this machine"),
            name: format!("narrows {backend}, {chunks}{lanes} lanes{table}"),
            known: known.then(|| ByteTable::from_histogram(&[1; 256])),
            lanes,
            halves,
        }
    }
}

impl Coder for OneTable {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn ours(&self) -> bool {
        true
    }

    fn prepare(&mut self, case: &Case) {
        if self.known.is_some() {
            let mut counts = self.coder.histogram(&case.training);
            counts[..=usize::from(case.largest())].iter_mut().for_each(|c| *c = (*c).max(1));
            self.known = Some(ByteTable::from_histogram(&counts));
        }
    }

    fn encode(&mut self, symbols: &[u8], out: &mut Vec<u8>) {
        let own;
        let table = if let Some(table) = &self.known {
            table
        } else {
            own = ByteTable::from_histogram(&self.coder.histogram(symbols));
            own.write(out);
            &own
        };
        let middle = if self.halves { symbols.len() / 2 } else { symbols.len() };
        let (first, second) = symbols.split_at(middle);
        let at = out.len();
        if self.halves {
            out.extend_from_slice(&[0; LENGTH]);
        }
        self.coder.encode(first, table, self.lanes, out).expect("the table has every symbol");
        if self.halves {
            let length = (out.len() - at - LENGTH) as u32;
            out[at..at + LENGTH].copy_from_slice(&length.to_le_bytes());
            self.coder.encode(second, table, self.lanes, out).expect("the table has every symbol");
        }
    }

    fn decode(&mut self, stream: &[u8], symbols: &mut [u8]) {
        let mut stream = stream;
        let own;
        let table = if let Some(table) = &self.known {
            table
        } else {
            own = ByteTable::read(&mut stream).expect("a table");
            &own
        };
        if !self.halves {
            self.coder.decode(&mut [ByteJob { bytes: stream, symbols }], table, self.lanes).expect("a stream");
            return;
        }
        let (length, rest) = stream.split_at(LENGTH);
        let length = u32::from_le_bytes(length.try_into().expect("a length")) as usize;
        let (first, second) = symbols.split_at_mut(symbols.len() / 2);
        let (a, b) = rest.split_at(length);
        let jobs = &mut [ByteJob { bytes: a, symbols: first }, ByteJob { bytes: b, symbols: second }];
        self.coder.decode(jobs, table, self.lanes).expect("a stream");
    }
}

/// Tables chosen by the neighbours, fitted on other features of the same cut.
struct Context {
    backend: Backend,
    lanes: Option<usize>,
    coder: Option<ContextCoder>,
    symbols: Vec<i32>,
}

impl Coder for Context {
    fn name(&self) -> String {
        let lanes = self.lanes.map_or(String::new(), |lanes| format!(", {lanes} lanes"));
        format!("narrows {}, contexts{lanes}", self.backend)
    }

    fn ours(&self) -> bool {
        true
    }

    fn fits(&self, case: &Case) -> bool {
        case.shape.is_some()
    }

    /// `case.training` holds whole features, channels-last and mapped like the messages; its parts of the messages' shape
    /// are the samples.
    fn prepare(&mut self, case: &Case) {
        let Some([rows, columns, channels]) = case.shape else { return };
        let training: Vec<i32> = case.training.iter().map(|&symbol| signed(symbol)).collect();
        let samples: Vec<&[i32]> = training.chunks_exact(rows * columns * channels).collect();
        let shape = (rows, columns, channels);
        let coder = ContextCoder::fit(&samples, shape, ContextRule::Neighbours, &self.backend).expect("samples");
        self.coder = Some(match self.lanes {
            Some(lanes) => coder.lanes(lanes),
            None => coder,
        });
    }

    fn encode(&mut self, symbols: &[u8], out: &mut Vec<u8>) {
        self.symbols.clear();
        self.symbols.extend(symbols.iter().map(|&symbol| signed(symbol)));
        self.coder.as_mut().expect("prepared").encode(&self.symbols, out).expect("the shape's symbols");
    }

    fn decode(&mut self, stream: &[u8], symbols: &mut [u8]) {
        self.symbols.resize(symbols.len(), 0);
        self.coder.as_mut().expect("prepared").decode(stream, &mut self.symbols).expect("a stream");
        for (symbol, &value) in symbols.iter_mut().zip(&self.symbols) {
            *symbol = ((value << 1) ^ (value >> 31)) as u8;
        }
    }
}

/// The inverse of the zigzag that made bytes of symbols.
fn signed(symbol: u8) -> i32 {
    i32::from(symbol >> 1) ^ -i32::from(symbol & 1)
}

/// A profile without a transform, at the SQNR of the other rows' uniform step.
struct Whole {
    backend: Backend,
    rdo: bool,
    codec: Option<(Encoder, Decoder)>,
    shape: [usize; 3],
    quality: f32,
}

impl Whole {
    fn array(&self, feature: &[f32]) -> Array4<f32> {
        let [channels, rows, columns] = self.shape;
        Array4::from_shape_vec((1, channels, rows, columns), feature.to_vec()).expect("the shape's elements")
    }
}

/// Energy over squared error, in dB.
pub fn sqnr<'a>(source: &[f32], decoded: impl IntoIterator<Item = &'a f32>) -> f64 {
    let (mut signal, mut noise) = (0.0, 1e-30);
    for (&x, &y) in source.iter().zip(decoded) {
        signal += f64::from(x) * f64::from(x);
        noise += f64::from(x - y) * f64::from(x - y);
    }
    10.0 * (signal / noise).log10()
}

impl PathCoder for Whole {
    fn ours(&self) -> bool {
        true
    }

    fn name(&self) -> String {
        let rdo = if self.rdo { "" } else { ", plain rounding" };
        format!("narrows {}, contexts{rdo}", self.backend)
    }

    fn prepare(&mut self, data: &PathData) {
        self.shape = data.shape;
        let [channels, rows, columns] = data.shape;
        // The features from the second on fit, the first one finds the quality.
        let others = data.features[1..].iter().cycle().take(8);
        let mut samples: Vec<ArrayD<f32>> = others
            .map(|f| ArrayD::from_shape_vec(IxDyn(&[1, channels, rows, columns]), f.clone()).expect("the shape"))
            .collect();
        let options = FitOptions { transforms: Transforms::Identity, target: 0.02, ..FitOptions::default() };
        let profile = Profile::fit(&mut samples, None, &options, &mut |_| {}).expect("a profile");
        let profile = std::sync::Arc::new(profile);
        let mut encoder = Encoder::with_profile(profile.clone()).backend(self.backend.clone()).rdo(self.rdo);
        let mut decoder = Decoder::new().profile(profile).backend(self.backend.clone());
        let first = &data.features[0];
        let uniform: Vec<f32> = first.iter().map(|x| (x / data.step).round() * data.step).collect();
        let target = sqnr(first, &uniform);
        let array = self.array(first);
        let (mut fine, mut coarse) = (1e-3f32, 1e3f32);
        for _ in 0..24 {
            let middle = (fine * coarse).sqrt();
            let stream = encoder.encode(&array, Quality::Scale(middle)).expect("a stream");
            let decoded = decoder.decode(&stream).expect("a feature").to_f32();
            if sqnr(first, &decoded) >= target { fine = middle } else { coarse = middle }
        }
        self.quality = fine;
        self.codec = Some((encoder, decoder));
    }

    fn encode(&mut self, feature: &[f32], out: &mut Vec<u8>) {
        let [channels, rows, columns] = self.shape;
        let (encoder, _) = self.codec.as_mut().expect("prepared");
        let view = ndarray::ArrayView4::from_shape((1, channels, rows, columns), feature).expect("the shape's elements");
        encoder.encode_into(&view, Quality::Scale(self.quality), out).expect("a stream");
    }

    fn decode(&mut self, stream: &[u8], feature: &mut [f32]) {
        let (_, decoder) = self.codec.as_mut().expect("prepared");
        let Feature::F32(decoded) = decoder.decode(stream).expect("a feature") else { panic!("not f32") };
        feature.copy_from_slice(decoded.as_slice().expect("standard order"));
    }
}
