//! The one trait behind which every coder stands.

use crate::data::Case;

/// In which order a coder wants the symbols of a feature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// All channels of a position, then the next position: what `narrows` codes.
    ChannelsLast,
    /// One plane of positions for each channel. The rearrangement is not timed: it is a gift to the peer.
    Planar,
}

/// An entropy coder of bytes.
pub trait Coder {
    /// What the table calls it.
    fn name(&self) -> String;

    /// The order of symbols it is fed.
    fn layout(&self) -> Layout {
        Layout::ChannelsLast
    }

    /// Whether it can code this case at all.
    fn fits(&self, _case: &Case) -> bool {
        true
    }

    /// Called once for a case, before its messages. Coders with tables known in advance make them here, from
    /// [`Case::training`]; the time is not counted.
    fn prepare(&mut self, _case: &Case) {}

    /// Appends the stream of one message to `out`, which is empty and keeps its capacity between calls.
    fn encode(&mut self, symbols: &[u8], out: &mut Vec<u8>);

    /// Decodes one stream; the length of `symbols` is the length of the message.
    fn decode(&mut self, stream: &[u8], symbols: &mut [u8]);

    /// How many messages one call of [`decode_batch`](Self::decode_batch) takes.
    fn batch(&self) -> usize {
        1
    }

    /// Decodes several streams. A coder that gains from it decodes them side by side.
    fn decode_batch(&mut self, streams: &[Vec<u8>], symbols: &mut [Vec<u8>]) {
        for (stream, symbols) in streams.iter().zip(symbols) {
            self.decode(stream, symbols);
        }
    }

    /// True for the coders of this project: they never count as a peer.
    fn ours(&self) -> bool {
        false
    }
}
