//! The chunks of a stream that is to be decoded: where they are, and whether they can be what they claim.

use std::ops::Range;

use crate::container::{CHECKSUM_BYTES, Head, Header, Reader, chunk_range};
use crate::entropy::bank::{Bank, COST_ONE_BIT};
use crate::error::{Error, Result};
use crate::kernels::portable::{MAX_LANES, Words};

/// The chunks of a stream, found but not yet believed. Nothing is allocated for them.
#[derive(Debug, Clone)]
pub(crate) struct Parts<'s> {
    /// At the first chunk length.
    lengths: Reader<'s>,
    /// At the first chunk.
    payload: Reader<'s>,
    chunks: usize,
    checksums: bool,
}

/// One chunk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Part<'s> {
    pub number: usize,
    /// Its block rows.
    pub rows: Range<usize>,
    /// Where its bytes begin in the stream.
    pub offset: usize,
    /// Without the checksum.
    pub bytes: &'s [u8],
}

/// What is known of the symbols of a stream before they are decoded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Outlook {
    /// Active channels.
    pub active: usize,
    /// What the symbols of one position cost at least, in 1/256 bit.
    pub least: u64,
}

impl Outlook {
    /// Adds a channel with the tables of its contexts.
    pub fn add(&mut self, bank: &Bank, tables: &[u8]) {
        self.active += 1;
        self.least += u64::from(tables.iter().map(|&table| bank.least_cost(table)).min().unwrap_or(0));
    }
}

impl<'s> Parts<'s> {
    /// Reads the chunk lengths; the chunks begin where the parameters that follow them end.
    pub fn read(header: &Header, reader: &mut Reader<'s>) -> Result<Parts<'s>> {
        let lengths = reader.clone();
        for _ in 1..header.chunks {
            reader.varint("the chunk lengths")?;
        }
        Ok(Parts { lengths, payload: reader.clone(), chunks: header.chunks, checksums: header.checksums })
    }

    /// Says where the first chunk begins.
    pub fn begin_at(&mut self, reader: &Reader<'s>) {
        self.payload = reader.clone();
    }

    /// Number of chunks.
    pub fn len(&self) -> usize {
        self.chunks
    }

    /// The chunks, if the stream has this many block rows.
    pub fn iter(&self, rows: usize) -> impl ExactSizeIterator<Item = Result<Part<'s>>> + Clone + Send + use<'s> {
        let Parts { mut lengths, mut payload, chunks, checksums } = self.clone();
        (0..chunks).map(move |number| {
            let offset = payload.offset();
            let length = match number + 1 {
                last if last == chunks => payload.rest().len(),
                _ => lengths.varint("the chunk lengths")? as usize,
            };
            let mut bytes = payload.take(length, "a chunk")?;
            if checksums {
                let own = bytes.len().checked_sub(CHECKSUM_BYTES);
                let own = own.ok_or(Error::truncated("the checksum of a chunk", offset + bytes.len()))?;
                bytes = &bytes[..own];
            }
            Ok(Part { number, rows: chunk_range(rows, chunks, number), offset, bytes })
        })
    }

    /// Checks, before anything is allocated for them, that the chunks can hold the symbols of `rows` rows of `columns`
    /// positions: that they are there, with their checksums and valid initial states, and not shorter than the
    /// cheapest symbols would be.
    ///
    /// # Errors
    /// `Truncated` or `Corrupt`, for the first chunk that cannot be right.
    pub fn prove(
        &self,
        (rows, columns): (usize, usize),
        outlook: Outlook,
        lanes: usize,
        (head, layer): (&Head, usize),
    ) -> Result<()> {
        if self.chunks > rows.max(1) {
            return Err(Error::corrupt("more chunks than rows", self.payload.offset()));
        }
        for part in self.iter(rows) {
            let Part { number, rows, offset, bytes } = part?;
            let end = offset + bytes.len();
            let checksum = || head.checksum(layer * self.chunks + number, lanes, bytes);
            if self.checksums && self.payload.at(end, CHECKSUM_BYTES) != Some(&checksum()[..]) {
                return Err(Error::corrupt("the checksum of a chunk does not match", offset));
            }
            let positions = (rows.len() * columns) as u64;
            if positions == 0 || outlook.active == 0 {
                if !bytes.is_empty() {
                    return Err(Error::corrupt("bytes in a chunk without symbols", offset));
                }
                continue;
            }
            Words::open(bytes, offset, &mut [0; MAX_LANES][..lanes])?;
            // Rounding makes a symbol at most a sixteenth cheaper than its cost.
            let needed = positions.saturating_mul(outlook.least) / u64::from(2 * 8 * COST_ONE_BIT);
            if (bytes.len() as u64) < needed {
                return Err(Error::truncated("a chunk", end));
            }
        }
        Ok(())
    }
}
