//! Streams of several layers: symbols to chunks of each layer, and back.

use crate::chunk::encode::fill_tables;
use crate::chunk::{ChunkReader, Coding, Part, Parts, Worker, code_chunk, decode_chunk, index_chunk, lanes_for};
use crate::container::{CHECKSUM_BYTES, Head, Header, Layer, Layers, MAX_LAYERS, Reader, put_varint};
use crate::error::Result;
use crate::kernels::portable::{Neighbourhood, Refinement, Refiner, Strip, refine_encode};
use crate::layers::LayerPlans;
use crate::limits::Limits;
use crate::threads;

/// Buffers of the layers of a chunk that is decoded.
#[derive(Debug, Default, Clone)]
pub(crate) struct RefinementScratch {
    near: Neighbourhood,
    symbols: Vec<i32>,
}

/// Buffers of a stream with layers that is encoded.
#[derive(Debug, Default, Clone)]
pub(crate) struct LayerScratch {
    /// The symbols of the layers below the finest, the finer ones first.
    coarser: [Vec<i32>; MAX_LAYERS - 1],
    lengths: Vec<u8>,
    body: Vec<u8>,
}

/// One layer of a stream that is to be decoded.
#[derive(Debug, Clone)]
pub(crate) struct LayerParts<'s> {
    pub parts: Parts<'s>,
    pub lanes: usize,
}

impl<'s> LayerParts<'s> {
    /// Reads the chunk lengths of a layer.
    pub fn read(header: &Header, layer: &Layer, bytes: &'s [u8], limits: &Limits) -> Result<LayerParts<'s>> {
        Limits::check("lanes", layer.lanes as u64, limits.lanes)?;
        let mut reader = Reader::within(bytes, layer.range.clone());
        let parts = Parts::read(header, &mut reader)?;
        Limits::check("bytes before the chunks", (reader.offset() - layer.range.start) as u64, limits.header_bytes)?;
        Ok(LayerParts { parts, lanes: layer.lanes })
    }
}

/// The number of a chunk in the sums and checksums of a stream: those of a layer come after those of the one below.
fn number_of(coding: &Coding<'_>, layer: usize, chunk: usize) -> usize {
    layer * coding.chunks + chunk
}

fn refinement<'a>(coding: &'a Coding<'_>, plans: &'a LayerPlans, layer: usize, first_row: usize) -> Refinement<'a> {
    Refinement {
        bank: coding.bank,
        digits: &plans.digits,
        model: coding.model(&plans.plans[layer], first_row),
        below: &plans.below[layer],
        channels_below: plans.plans[layer - 1].active.len(),
    }
}

/// Writes a whole stream of as many layers as there are plans: header, lengths, layers. `symbols` are those of the finest.
pub(crate) fn encode_layers(
    coding: &Coding<'_>,
    header: Header,
    plans: &LayerPlans,
    symbols: &[i32],
    (workers, scratch): (&mut Vec<Worker>, &mut LayerScratch),
    out: &mut Vec<u8>,
) -> Result<()> {
    let finest = plans.plans.len() - 1;
    let LayerScratch { coarser, lengths, body } = scratch;
    for above in 0..finest {
        let (finer, rest) = coarser.split_at_mut(above);
        plans.coarsen(finest - above, finer.last().map_or(symbols, Vec::as_slice), &mut rest[0]);
    }
    let symbols_of = |layer: usize| match finest - layer {
        0 => symbols,
        above => coarser[above - 1].as_slice(),
    };
    let head = Head::of(&header, &[], out);
    lengths.clear();
    body.clear();
    for layer in 0..=finest {
        let start = body.len();
        let symbols = (layer.checked_sub(1).map(symbols_of), symbols_of(layer));
        let lanes = encode_layer(coding, (&header, &head), plans, layer, symbols, workers, body)?;
        if layer < finest {
            Layers::write(body.len() - start, lanes, lengths)?;
        } else {
            Header { lanes, ..header }.write(out);
        }
    }
    out.extend_from_slice(lengths);
    out.extend_from_slice(body);
    Ok(())
}

/// Appends one layer, and says how many lanes it has.
fn encode_layer(
    coding: &Coding<'_>,
    (header, head): (&Header, &Head),
    plans: &LayerPlans,
    layer: usize,
    (below, symbols): (Option<&[i32]>, &[i32]),
    workers: &mut Vec<Worker>,
    out: &mut Vec<u8>,
) -> Result<usize> {
    let plan = &plans.plans[layer];
    let channels = plan.active.len();
    workers.resize_with(coding.chunks.max(workers.len()), Worker::default);
    let workers = &mut workers[..coding.chunks];
    let width = coding.columns * channels;
    // The symbols of a chunk, and those below them.
    let jobs = || {
        let width_below = below.map_or(0, |_| coding.columns * plans.plans[layer - 1].active.len());
        coding.chunk_rows().enumerate().map(move |(chunk, rows)| {
            let own = &symbols[rows.start * width..rows.end * width];
            let below = below.map(|below| &below[rows.start * width_below..rows.end * width_below]);
            (chunk, rows.start, own, below)
        })
    };
    threads::each(jobs(), workers, symbols.len(), |(_, first_row, own, below), worker| {
        let Some(below) = below else {
            index_chunk(coding, plan, first_row, own, worker);
            return Ok(());
        };
        worker.cost = 0;
        worker.sums = Default::default();
        if !own.is_empty() {
            let refinement = refinement(coding, plans, layer, first_row);
            fill_tables(&refinement.model, own, &mut worker.near, &mut worker.tables);
            worker.sums.add_all(own, channels);
            worker.cost = refinement.cost(below, own, &worker.tables);
        }
        Ok(())
    })?;
    let lanes = lanes_for(coding, channels, workers.iter().map(|worker| worker.cost).sum());
    threads::each(jobs(), workers, symbols.len(), |(chunk, first_row, own, below), worker| {
        worker.payload.clear();
        let number = number_of(coding, layer, chunk);
        let seed = head.seed().wrapping_add(number as u32);
        match below {
            None => code_chunk(coding, channels, lanes, seed, own, worker),
            Some(_) if own.is_empty() => {}
            Some(below) => {
                let refinement = refinement(coding, plans, layer, first_row);
                let ends = worker.sums.end_states(lanes, Some(seed));
                let Worker { tables, rans, payload, .. } = worker;
                refine_encode(&refinement, (below, own), tables, &ends[..lanes], rans, payload);
            }
        }
        if header.checksums {
            let checksum: [u8; CHECKSUM_BYTES] = head.checksum(number, lanes, &worker.payload);
            worker.payload.extend_from_slice(&checksum);
        }
        Ok(())
    })?;
    for worker in &workers[..coding.chunks - 1] {
        put_varint(worker.payload.len() as u64, out);
    }
    workers.iter().for_each(|worker| out.extend_from_slice(&worker.payload));
    Ok(lanes)
}

/// Decodes the chunks of a stream with layers that has been proved; `sink` takes the finest symbols that there are, strip
/// by strip. The layers of a chunk are decoded side by side, so that no more than a strip of each is held.
pub(crate) fn decode_layers<W: AsMut<ChunkReader> + Default + Send>(
    coding: &Coding<'_>,
    plans: &LayerPlans,
    seed: u32,
    (base, finer): (&Parts<'_>, &[Option<LayerParts<'_>>; MAX_LAYERS - 1]),
    (workers, most): (&mut Vec<W>, usize),
    sink: impl Fn(&Strip, &[i32], &mut W) + Sync,
) -> Result<()> {
    let size = coding.rows * coding.columns * plans.plans[0].channels;
    let mut rest = finer.each_ref().map(|layer| layer.as_ref().map(|layer| layer.parts.iter(coding.rows)));
    let jobs = base.iter(coding.rows).map(move |part| (part, rest.each_mut().map(|parts| parts.as_mut()?.next())));
    threads::each_in_turn(jobs, (workers, most), size, |(base, finer_parts), worker| {
        let base = base?;
        let mut reader = std::mem::take(worker.as_mut());
        let mut scratch = std::mem::take(&mut reader.refinements);
        let result = (|| {
            let mut refiners: [Option<Refiner<'_>>; MAX_LAYERS - 1] = Default::default();
            let mut above = 0;
            for (((layer, part), of), scratch) in (1..).zip(finer_parts).zip(finer).zip(&mut scratch) {
                let (Some(part), Some(of)) = (part, of) else { break };
                refiners[above] = open(coding, plans, layer, &part?, of.lanes, scratch)?;
                above += 1;
            }
            let refiners = &mut refiners[..above];
            let mut failed = Ok(());
            decode_chunk(
                coding,
                &plans.plans[0],
                Some(seed_of(coding, seed, 0, &base)),
                &base,
                &mut reader,
                &mut |strip, symbols| {
                    if failed.is_ok() {
                        failed = refine(refiners, strip, symbols, &mut |finest| sink(strip, finest, worker));
                    }
                },
            )?;
            failed?;
            for (layer, refiner) in (1..).zip(refiners) {
                refiner.take().map_or(Ok(()), |refiner| refiner.close(seed_of(coding, seed, layer, &base)))?;
            }
            Ok(())
        })();
        reader.refinements = scratch;
        *worker.as_mut() = reader;
        result
    })
}

fn seed_of(coding: &Coding<'_>, seed: u32, layer: usize, part: &Part<'_>) -> u32 {
    seed.wrapping_add(number_of(coding, layer, part.number) as u32)
}

/// Begins a chunk of a layer, if it has symbols.
fn open<'a>(
    coding: &'a Coding<'_>,
    plans: &'a LayerPlans,
    layer: usize,
    part: &Part<'a>,
    lanes: usize,
    scratch: &'a mut RefinementScratch,
) -> Result<Option<Refiner<'a>>> {
    let refinement = refinement(coding, plans, layer, part.rows.start);
    if refinement.model.channels == 0 || part.rows.is_empty() || coding.columns == 0 {
        return Ok(None);
    }
    let RefinementScratch { near, symbols } = scratch;
    Refiner::open(refinement, (part.bytes, part.offset), lanes, near, symbols).map(Some)
}

/// The symbols of a strip through all layers.
fn refine(
    refiners: &mut [Option<Refiner<'_>>],
    strip: &Strip,
    coarse: &[i32],
    sink: &mut dyn FnMut(&[i32]),
) -> Result<()> {
    let mut symbols = coarse;
    for refiner in refiners {
        symbols = match refiner {
            Some(refiner) => {
                refiner.strip(strip, symbols)?;
                refiner.symbols
            }
            None => &[],
        };
    }
    sink(symbols);
    Ok(())
}
