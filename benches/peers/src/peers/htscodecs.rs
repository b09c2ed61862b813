//! `htscodecs`: the static interleaved rANS and the adaptive arithmetic coder of CRAM 3.1.

use crate::{
    coder::{Coder, Layout},
    data::Case,
    ffi::htscodecs::{Method, X32, compress, uncompress},
};

/// One of the library's coders.
struct Hts {
    name: &'static str,
    method: Method,
    order: i32,
    layout: Layout,
}

/// Adds the coders: order 1 also on planes, where the byte before is the neighbour to the left.
pub fn add(list: &mut Vec<Box<dyn Coder>>) {
    use Layout::{ChannelsLast, Planar};
    use Method::{Arithmetic, Rans};
    for (name, method, order, layout) in [
        ("htscodecs rANS 4x16 o0", Rans, 0, ChannelsLast),
        ("htscodecs rANS 32x16 o0", Rans, X32, ChannelsLast),
        ("htscodecs rANS 4x16 o1", Rans, 1, ChannelsLast),
        ("htscodecs rANS 32x16 o1", Rans, X32 | 1, ChannelsLast),
        ("htscodecs adaptive o0", Arithmetic, 0, ChannelsLast),
        ("htscodecs adaptive o1", Arithmetic, 1, ChannelsLast),
        ("htscodecs rANS 4x16 o1, planes", Rans, 1, Planar),
        ("htscodecs rANS 32x16 o1, planes", Rans, X32 | 1, Planar),
        ("htscodecs adaptive o1, planes", Arithmetic, 1, Planar),
    ] {
        list.push(Box::new(Hts { name, method, order, layout }));
    }
}

impl Coder for Hts {
    fn name(&self) -> String {
        self.name.into()
    }

    fn layout(&self) -> Layout {
        self.layout
    }

    /// Without a shape there are no planes, and order 1 has nothing to find.
    fn fits(&self, case: &Case) -> bool {
        case.shape.is_some() || self.order & 1 == 0
    }

    fn encode(&mut self, symbols: &[u8], out: &mut Vec<u8>) {
        compress(self.method, self.order, symbols, out);
    }

    fn decode(&mut self, stream: &[u8], symbols: &mut [u8]) {
        uncompress(self.method, stream, symbols);
    }
}
