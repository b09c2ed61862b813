//! Chunks: runs of block rows that decode on their own.

mod decode;
mod encode;
mod layers;
mod parts;
mod quantize;

use std::ops::Range;

use crate::container::chunk_range;
use crate::entropy::bank::Bank;
use crate::kernels::Kernels;
use crate::kernels::portable::{ContextModel, ContextRule};
use crate::limits::Limits;
use crate::plan::Plan;

pub(crate) use decode::{ChunkReader, STRIP, decode, decode_chunk};
#[cfg(feature = "gpu")]
pub(crate) use encode::BYTES_PER_LANE;
pub(crate) use encode::{Worker, code_chunk, cost, encode, index_chunk, lanes_for};
pub(crate) use layers::{LayerParts, LayerScratch, RefinementScratch, decode_layers, encode_layers};
pub(crate) use parts::{Outlook, Part, Parts};
pub(crate) use quantize::{RDO_MAX, quantize};

/// How the symbols of a feature are laid out and coded.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Coding<'a> {
    pub bank: &'a Bank,
    pub context: ContextRule,
    /// Block rows over all planes, of one plane, and blocks in a row.
    pub rows: usize,
    pub plane_rows: usize,
    pub columns: usize,
    pub chunks: usize,
    /// `None`: as many as the payload is worth.
    pub lanes: Option<usize>,
    /// 1/4096 squared step per bit; 0: no rate-distortion optimised quantisation.
    pub lambda: u16,
    pub kernels: Kernels,
}

/// Number of chunks: what was asked for, else one for every batch item, within 1 and the rows.
pub(crate) fn count(asked: Option<usize>, items: usize, rows: usize) -> usize {
    asked.unwrap_or(items).clamp(1, rows.max(1)).min(Limits::default().chunks as usize)
}

impl Coding<'_> {
    /// What the contexts of the chunk whose first row this is are made from.
    pub fn model<'a>(&self, plan: &'a Plan, first_row: usize) -> ContextModel<'a> {
        ContextModel {
            rule: self.context,
            columns: self.columns,
            plane_rows: self.plane_rows,
            first_row,
            channels: plan.active.len(),
            runs: &plan.runs,
        }
    }

    /// Rows of each chunk.
    pub fn chunk_rows(&self) -> impl ExactSizeIterator<Item = Range<usize>> + Clone + use<> {
        let (rows, chunks) = (self.rows, self.chunks);
        (0..chunks).map(move |chunk| chunk_range(rows, chunks, chunk))
    }
}

/// Splits what holds `width` values for each row of a coding into the parts of its chunks.
pub(crate) fn split<T>(
    mut values: &mut [T],
    width: usize,
    rows: impl ExactSizeIterator<Item = Range<usize>>,
) -> impl ExactSizeIterator<Item = (Range<usize>, &mut [T])> {
    rows.map(move |rows| {
        let (part, rest) = std::mem::take(&mut values).split_at_mut(rows.len() * width);
        values = rest;
        (rows, part)
    })
}
