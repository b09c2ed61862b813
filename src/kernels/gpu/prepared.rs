//! A stream with its plan, and what the GPU says of its chunks.

use std::sync::Arc;

use crate::chunk::Part;
use crate::error::{Error, Result};
use crate::kernels::gpu::coder::most_items;
use crate::kernels::gpu::device::Device;
use crate::kernels::gpu::network::largest;
use crate::kernels::gpu::params::STATUS_WORDS;
use crate::plan::Plan;
use crate::stream::{Source, Stream};

/// A stream that is to be decoded.
pub(crate) struct Prepared<'s> {
    pub stream: Stream<'s>,
    pub plan: Arc<Plan>,
}

/// What the GPU found of a stream.
pub(crate) enum Verdict {
    Good,
    Failed(Error),
    Again,
}

impl<'s> Prepared<'s> {
    /// Number of chunks.
    pub fn chunks(&self) -> usize {
        self.stream.parts.len()
    }

    /// Its chunks.
    pub fn parts(&self) -> impl Iterator<Item = Result<Part<'s>>> {
        self.stream.parts.iter(self.stream.frame.blocks.rows)
    }

    /// Whether two streams can be decoded side by side.
    pub fn is_like(&self, other: &Prepared<'_>) -> bool {
        let shape =
            |stream: &Stream<'_>| (stream.frame.layout, stream.parts.len(), stream.lanes, stream.seed.is_some());
        match (&self.stream.frame.source, &other.stream.frame.source) {
            (Source::Profile(one, quality), Source::Profile(two, other_quality)) => {
                (one.hash, quality) == (two.hash, other_quality) && shape(&self.stream) == shape(&other.stream)
            }
            _ => false,
        }
    }

    /// Most streams like this one that are decoded side by side.
    pub fn most_items(&self, device: &Device) -> usize {
        let frame = &self.stream.frame;
        let latent = &frame.planes.latent;
        let synthesis = frame.profile().and_then(|profile| profile.synthesis.as_ref());
        let largest = synthesis.map_or(0, |network| largest(network, latent.plane()));
        most_items(device, (4 * frame.blocks.count() * self.plan.channels).max(latent.planes * largest))
    }

    /// What the status words of this stream's chunks say.
    pub fn verdict(&self, words: &[u32]) -> Verdict {
        for (words, part) in words.chunks_exact(STATUS_WORDS).zip(self.parts()) {
            let (offset, bytes) = match part {
                Ok(part) => (part.offset, part.bytes),
                Err(error) => return Verdict::Failed(error),
            };
            let at = offset + words[1] as usize;
            let error = match words[0] {
                0 => continue,
                1 => Error::truncated("a chunk", offset + bytes.len()),
                2 => Error::corrupt("an initial state is out of range", offset),
                3 => Error::corrupt("an escape of more than 8 nibbles", at),
                4 => Error::corrupt("a chunk does not end in the states that its symbols ask for", at),
                5 => Error::corrupt("bytes left over after a chunk", at),
                _ => return Verdict::Again,
            };
            return Verdict::Failed(error);
        }
        Verdict::Good
    }
}
