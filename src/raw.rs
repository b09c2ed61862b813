//! The parts the codec is made of, for experts: no promise of stability.

pub use crate::entropy::{bank, token};
pub use crate::kernels::portable;
pub use crate::kernels::portable::ByteTable;
pub use crate::kernels::simd::ByteJob;

use crate::backend::Backend;
use crate::error::{Error, Result};
use crate::kernels::Kernels;
use crate::kernels::portable::{MAX_LANES, SYMBOLS};
use crate::kernels::simd::{self, dispatch};

/// Lanes at which the one-table coder uses vectors.
pub const BYTE_LANES: usize = MAX_LANES;

/// The one-table coder: bytes under one table, no context, no container.
///
/// ```
/// use narrows::Backend;
/// use narrows::raw::{BYTE_LANES, ByteCoder, ByteJob, ByteTable};
///
/// let symbols = b"a feature map, or any other bytes".repeat(100);
/// let mut coder = ByteCoder::new(&Backend::detect())?;
/// let table = ByteTable::from_histogram(&coder.histogram(&symbols));
/// let mut chunk = Vec::new();
/// coder.encode(&symbols, &table, BYTE_LANES, &mut chunk)?;
/// let mut decoded = vec![0; symbols.len()];
/// coder.decode(&mut [ByteJob { bytes: &chunk, symbols: &mut decoded }], &table, BYTE_LANES)?;
/// assert_eq!(decoded, symbols);
/// # Ok::<(), narrows::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct ByteCoder {
    kernels: Kernels,
    words: Vec<u16>,
}

impl ByteCoder {
    /// A coder on a backend.
    ///
    /// # Errors
    /// `Backend` if this machine does not have it.
    pub fn new(backend: &Backend) -> Result<ByteCoder> {
        Ok(ByteCoder { kernels: Kernels::of(backend)?, words: Vec::new() })
    }

    /// Counts byte values.
    pub fn histogram(&self, symbols: &[u8]) -> [u32; SYMBOLS] {
        match self.kernels {
            Kernels::Portable => portable::histogram(symbols),
            Kernels::Simd { level, .. } => dispatch!(level, simd => simd::histogram(simd, symbols)),
        }
    }

    /// Appends one chunk to `out`: 4 bytes for each lane, then the symbols at about their entropy under
    /// `table`.
    ///
    /// # Errors
    /// `InvalidInput` if `lanes` is not 1, 2, 4, 8, 16 or 32 or the table has no frequency for a symbol.
    pub fn encode(&mut self, symbols: &[u8], table: &ByteTable, lanes: usize, out: &mut Vec<u8>) -> Result<()> {
        check_lanes(lanes)?;
        match self.kernels {
            Kernels::Simd { level, gather } if lanes == BYTE_LANES => {
                let words = &mut self.words;
                dispatch!(level, simd => simd::bytes_encode(simd, gather, symbols, table, words, out))
            }
            _ => portable::bytes_encode(symbols, table, lanes, &mut self.words, out),
        }
    }

    /// Decodes chunks. Two chunks of equal length decode faster than one of twice the length.
    ///
    /// # Errors
    /// `InvalidInput` for a wrong number of lanes, `Truncated` or `Corrupt` for a bad chunk, the first one.
    pub fn decode(&mut self, jobs: &mut [ByteJob<'_>], table: &ByteTable, lanes: usize) -> Result<()> {
        check_lanes(lanes)?;
        match self.kernels {
            Kernels::Simd { level, gather } if lanes == BYTE_LANES => {
                dispatch!(level, simd => simd::bytes_decode(simd, gather, jobs, table))
            }
            _ => jobs.iter_mut().try_for_each(|job| portable::bytes_decode(job.bytes, table, lanes, job.symbols)),
        }
    }
}

fn check_lanes(lanes: usize) -> Result<()> {
    match lanes {
        1 | 2 | 4 | 8 | 16 | 32 => Ok(()),
        _ => Err(Error::invalid("lanes must be 1, 2, 4, 8, 16 or 32")),
    }
}
