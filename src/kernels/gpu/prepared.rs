//! A stream as the CPU reads it, up to its chunks, and what the GPU says of those.

use std::ops::Range;
use std::sync::Arc;

use crate::chunk;
use crate::container::{Header, Layout, Reader, chunk_range};
use crate::error::{Error, Result};
use crate::geometry::Grid;
use crate::kernels::gpu::coder::most_items;
use crate::kernels::gpu::device::Device;
use crate::kernels::gpu::params::STATUS_WORDS;
use crate::kernels::portable::ContextRule;
use crate::plain;
use crate::plan::Plan;
use crate::profile::Profile;
use crate::transform::Blocks;

/// A stream that has been read up to its chunks.
pub(crate) struct Prepared<'s> {
    pub profile: Option<Arc<Profile>>,
    pub plan: Arc<Plan>,
    pub quality: i16,
    pub kind: plain::Kind,
    pub exponent: i32,
    pub layout: Layout,
    pub grid: Grid,
    pub blocks: Blocks,
    pub lanes: usize,
    pub chunks: usize,
    /// Offset in the stream and bytes of each chunk.
    pub parts: Vec<(usize, &'s [u8])>,
    /// What is wrong with the first chunk that is not among `parts`.
    pub error: Option<Error>,
}

/// Reads a stream of mode `Plain` up to its chunks.
pub(crate) fn prepare_plain<'s>(header: &Header, mut reader: Reader<'s>) -> Result<Prepared<'s>> {
    let layout = header.layout.ok_or(Error::corrupt("a stream without a profile has no shape", 1))?;
    let grid = Grid::new(&layout);
    let lengths = chunk::read_lengths(header.chunks, &mut reader)?;
    let mut plan = Plan::default();
    let (kind, exponent) = plain::read(&mut reader, &mut plan, grid.channels)?;
    Prepared {
        profile: None,
        plan: Arc::new(plan),
        quality: 0,
        kind,
        exponent,
        layout,
        grid,
        blocks: Blocks::new(&grid, (1, 1)),
        lanes: header.lanes,
        chunks: header.chunks,
        parts: Vec::new(),
        error: None,
    }
    .with_parts(&lengths, reader)
}

/// What the GPU found of a stream.
pub(crate) enum Verdict {
    Good,
    Failed(Error),
    Again,
}

impl<'s> Prepared<'s> {
    /// The context rule.
    pub fn rule(&self) -> ContextRule {
        self.profile.as_ref().map_or(self.kind.context, |profile| profile.context)
    }

    /// Finds the chunks, as [`chunk::decode_chunks`] does, up to the first that cannot be right.
    pub fn with_parts(mut self, lengths: &chunk::Lengths, mut reader: Reader<'s>) -> Result<Self> {
        if self.chunks > self.blocks.rows.max(1) {
            return Err(Error::corrupt("more chunks than rows", reader.offset()));
        }
        for i in 0..self.chunks {
            let Range { start: first_row, end: end_row } = chunk_range(self.blocks.rows, self.chunks, i);
            let offset = reader.offset();
            let length = lengths.get(i).unwrap_or(reader.rest().len());
            match reader.take(length, "a chunk") {
                Ok(bytes) => {
                    let empty = (end_row - first_row) * self.blocks.columns * self.plan.active.len() == 0;
                    if empty && !bytes.is_empty() {
                        self.error = Some(Error::corrupt("bytes in a chunk without symbols", offset));
                        break;
                    }
                    self.parts.push((offset, bytes));
                }
                Err(error) => {
                    self.error = Some(error);
                    break;
                }
            }
        }
        Ok(self)
    }

    /// Whether two streams can be decoded side by side.
    pub fn is_like(&self, other: &Prepared<'_>) -> bool {
        match (&self.profile, &other.profile) {
            (Some(one), Some(two)) => {
                (one.hash, self.quality, self.layout, self.chunks, self.lanes)
                    == (two.hash, other.quality, other.layout, other.chunks, other.lanes)
            }
            _ => false,
        }
    }

    /// Most streams like this one that are decoded side by side.
    pub fn most_items(&self, device: &Device) -> usize {
        let coder_channels = self.profile.as_ref().map_or(self.grid.channels, |profile| profile.coder_channels());
        most_items(device, 4 * self.blocks.count() * coder_channels)
    }

    /// What the status words of this stream's chunks say.
    pub fn verdict(&self, words: &[u32]) -> Verdict {
        for (words, &(offset, bytes)) in words.chunks_exact(STATUS_WORDS).zip(&self.parts) {
            let at = offset + words[1] as usize;
            let error = match words[0] {
                0 => continue,
                1 => Error::truncated("a chunk", offset + bytes.len()),
                2 => Error::corrupt("an initial state is out of range", offset),
                3 => Error::corrupt("an escape of more than 8 nibbles", at),
                4 => Error::corrupt("a chunk does not end in its start state", at),
                5 => Error::corrupt("bytes left over after a chunk", at),
                _ => return Verdict::Again,
            };
            return Verdict::Failed(error);
        }
        self.error.clone().map_or(Verdict::Good, Verdict::Failed)
    }
}
