//! Chunks to symbols, a strip at a time.

use crate::chunk::{Coding, Part, Parts, RefinementScratch};
use crate::container::MAX_LAYERS;
use crate::error::Result;
use crate::kernels::Kernels;
use crate::kernels::portable::{Neighbourhood, Source, Strip, Strips, rans_decode};
use crate::kernels::simd::{self, dispatch};
use crate::plan::Plan;
use crate::threads;

/// Coefficients of a strip, about: all that is made of them stays in a cache.
pub(crate) const STRIP: usize = 1 << 14;

/// Buffers of decoding chunks.
#[derive(Debug, Default, Clone)]
pub(crate) struct ChunkReader {
    near: Neighbourhood,
    symbols: Vec<i32>,
    pub(super) refinements: [RefinementScratch; MAX_LAYERS - 1],
}

impl Coding<'_> {
    /// The strips of a chunk.
    pub fn strips(&self, plan: &Plan, part: &Part<'_>) -> Strips {
        Strips::new(part.rows.clone(), self.columns, plan.channels, STRIP)
    }
}

/// Decodes the chunks of a stream that has been proved, several at a time, with at most `most` workers;
/// `sink` takes the symbols of each strip.
pub(crate) fn decode<W: AsMut<ChunkReader> + Default + Send>(
    coding: &Coding<'_>,
    plan: &Plan,
    seed: Option<u32>,
    parts: &Parts<'_>,
    (workers, most): (&mut Vec<W>, usize),
    sink: impl Fn(&Strip, &[i32], &mut W) + Sync,
) -> Result<()> {
    let size = coding.rows * coding.columns * plan.channels;
    threads::each_in_turn(parts.iter(coding.rows), (workers, most), size, |part, worker| {
        let part = part?;
        let seed = seed.map(|seed| seed.wrapping_add(part.number as u32));
        let mut reader = std::mem::take(worker.as_mut());
        let result = decode_chunk(coding, plan, seed, &part, &mut reader, &mut |strip, symbols| {
            sink(strip, symbols, worker);
        });
        *worker.as_mut() = reader;
        result
    })
}

/// Decodes one chunk; `sink` takes the symbols of each strip, which are none where no channel is active.
pub(crate) fn decode_chunk(
    coding: &Coding<'_>,
    plan: &Plan,
    seed: Option<u32>,
    part: &Part<'_>,
    reader: &mut ChunkReader,
    sink: &mut dyn FnMut(&Strip, &[i32]),
) -> Result<()> {
    let strips = coding.strips(plan, part);
    if plan.active.is_empty() {
        strips.for_each(|strip| sink(&strip, &[]));
        return Ok(());
    }
    if part.rows.is_empty() || coding.columns == 0 {
        return Ok(());
    }
    let source = Source {
        bytes: part.bytes,
        offset: part.offset,
        lanes: coding.lanes.unwrap_or(1),
        bank: coding.bank,
        model: coding.model(plan, part.rows.start),
        strips,
        seed,
    };
    let ChunkReader { near, symbols, .. } = reader;
    match coding.kernels {
        Kernels::Portable => rans_decode(&source, near, symbols, sink),
        Kernels::Simd { level, gather } => {
            dispatch!(level, simd => simd::rans_decode(simd, gather, &source, near, symbols, sink))
        }
    }
}
