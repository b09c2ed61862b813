//! General compressors from crates.io: `zstd`, `lz4_flex` and `pco`.

use pco::{ChunkConfig, data_types::Number, standalone};
use zstd::{
    bulk::{Compressor, Decompressor},
    zstd_safe::{CParameter, ParamSwitch, compress_bound, min_c_level},
};

use crate::{
    coder::{Coder, Layout},
    data::Case,
};

/// Adds the coders.
pub fn add(list: &mut Vec<Box<dyn Coder>>) {
    let level = |level| Compressor::new(level).expect("a level of zstd");
    list.push(Box::new(Zstd::new("zstd 1", level(1), Layout::ChannelsLast)));
    list.push(Box::new(Zstd::new("zstd 3", level(3), Layout::ChannelsLast)));
    list.push(Box::new(Zstd::new("zstd 3, planes", level(3), Layout::Planar)));
    // Its fastest level looks for matches almost nowhere; with literals always coded it is a Huffman coder.
    let mut huffman = level(min_c_level());
    huffman.set_parameter(CParameter::LiteralCompressionMode(ParamSwitch::Enable)).expect("a parameter of zstd");
    list.push(Box::new(Zstd::new("zstd Huffman", huffman, Layout::ChannelsLast)));
    list.push(Box::new(Lz4));
    list.push(Box::new(Pco::<u16>::new("pco u16", ChunkConfig::default())));
    list.push(Box::new(Pco::<u8>::new("pco u8", ChunkConfig::default().with_enable_8_bit(true))));
}

/// `zstd` at one level.
struct Zstd {
    name: &'static str,
    layout: Layout,
    compressor: Compressor<'static>,
    decompressor: Decompressor<'static>,
}

impl Zstd {
    /// With contexts that are kept between messages.
    fn new(name: &'static str, compressor: Compressor<'static>, layout: Layout) -> Zstd {
        Zstd { name, layout, compressor, decompressor: Decompressor::new().expect("a context of zstd") }
    }
}

impl Coder for Zstd {
    fn name(&self) -> String {
        self.name.into()
    }

    fn layout(&self) -> Layout {
        self.layout
    }

    fn fits(&self, case: &Case) -> bool {
        case.shape.is_some() || self.layout == Layout::ChannelsLast
    }

    fn encode(&mut self, symbols: &[u8], out: &mut Vec<u8>) {
        out.reserve(compress_bound(symbols.len()));
        self.compressor.compress_to_buffer(symbols, out).expect("zstd encodes");
    }

    fn decode(&mut self, stream: &[u8], symbols: &mut [u8]) {
        self.decompressor.decompress_to_buffer(stream, symbols).expect("zstd decodes");
    }
}

/// `lz4_flex`, block format without a length.
struct Lz4;

impl Coder for Lz4 {
    fn name(&self) -> String {
        "lz4_flex".into()
    }

    fn encode(&mut self, symbols: &[u8], out: &mut Vec<u8>) {
        out.resize(lz4_flex::block::get_maximum_output_size(symbols.len()), 0);
        let length = lz4_flex::block::compress_into(symbols, out).expect("lz4 encodes");
        out.truncate(length);
    }

    fn decode(&mut self, stream: &[u8], symbols: &mut [u8]) {
        lz4_flex::block::decompress_into(stream, symbols).expect("lz4 decodes");
    }
}

/// `pco` at its default level, on symbols widened to `T`; widening and narrowing are timed.
struct Pco<T> {
    name: &'static str,
    config: ChunkConfig,
    numbers: Vec<T>,
}

impl<T> Pco<T> {
    /// With this configuration.
    fn new(name: &'static str, config: ChunkConfig) -> Pco<T> {
        Pco { name, config, numbers: Vec::new() }
    }
}

impl<T: Number + From<u8> + TryInto<u8> + Default> Coder for Pco<T> {
    fn name(&self) -> String {
        self.name.into()
    }

    fn encode(&mut self, symbols: &[u8], out: &mut Vec<u8>) {
        self.numbers.clear();
        self.numbers.extend(symbols.iter().map(|&s| T::from(s)));
        standalone::simple_compress_into(&self.numbers, &self.config, out).expect("pco encodes");
    }

    fn decode(&mut self, stream: &[u8], symbols: &mut [u8]) {
        self.numbers.resize(symbols.len(), T::default());
        standalone::simple_decompress_into(stream, &mut self.numbers).expect("pco decodes");
        for (symbol, &number) in symbols.iter_mut().zip(&self.numbers) {
            *symbol = number.try_into().unwrap_or(0);
        }
    }
}
