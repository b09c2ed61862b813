//! The parts the codec is made of, for experts: no promise of stability.

pub use crate::entropy::{bank, token};
pub use crate::kernels::portable;
pub use crate::kernels::portable::ByteTable;
pub use crate::kernels::simd::ByteJob;

use std::sync::Arc;

use crate::backend::Backend;
use crate::bottleneck::Latents;
use crate::chunk::{self, ChunkReader, Coding, Part, Worker};
use crate::entropy::bank::{Bank, TABLES};
use crate::error::{Error, Result};
use crate::kernels::Kernels;
use crate::kernels::portable::{ContextRule, MAX_LANES, RunTables, SYMBOLS};
use crate::kernels::simd::{self, dispatch};
use crate::plan::Plan;
use crate::profile::Profile;
use crate::profile::fit::fit_symbols;
use crate::tensor::Feature;

/// Values of a feature as integers on a backend: what [`portable::feature_to_int`] defines.
///
/// # Errors
/// `InvalidInput` if there are not as many integers as values, `Backend` if this machine does not have the backend.
pub fn feature_to_int(backend: &Backend, values: &[f32], scale: f32, integers: &mut [i16]) -> Result<()> {
    if values.len() != integers.len() {
        return Err(Error::invalid("there must be as many integers as values"));
    }
    match Kernels::of(backend)? {
        Kernels::Portable => portable::feature_to_int(values, scale, integers),
        Kernels::Simd { level, .. } => {
            let (stride, mut tile) = (values.len(), Vec::<i16>::new());
            dispatch!(level, simd => simd::feature_to_int(simd, values, stride, 1, scale, integers, &mut tile));
        }
    }
    Ok(())
}

/// The networks of a profile, each by itself: what they cost, and what they make.
#[derive(Debug)]
pub struct Networks {
    profile: Arc<Profile>,
    kernels: Kernels,
    latents: Latents,
}

impl Networks {
    /// Those of a profile, on a backend; on a GPU's best processor for [`Backend::Gpu`](crate::Backend).
    ///
    /// # Errors
    /// `Backend` if this machine does not have it.
    pub fn new(profile: Arc<Profile>, backend: &Backend) -> Result<Networks> {
        Ok(Networks { profile, kernels: Kernels::of(backend)?, latents: Latents::default() })
    }

    /// The integers that the transform sees of a feature of the profile's layout, planes of rows and columns with channels
    /// last, at a quality index (1/32 octave of the step).
    ///
    /// # Errors
    /// `InvalidInput` if the feature is not of the profile's layout.
    pub fn analyse(&mut self, feature: &Feature, quality: i16) -> Result<&[i16]> {
        self.latents.take(feature, &self.profile, self.kernels)?;
        self.latents.analyse(&self.profile, quality, self.kernels)
    }

    /// What the synthesis network makes of such integers, channels last.
    ///
    /// # Errors
    /// `InvalidInput` if there are not as many as [`analyse`](Self::analyse) makes.
    pub fn synthesise(&mut self, latent: &[i16], quality: i16) -> Result<&[f32]> {
        self.latents.synthesise(&self.profile, (quality, latent), self.kernels)
    }
}

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

/// The context-coded path without a container: symbols of a grid of positions, channels last, under tables that were
/// fitted to other symbols of the same kind.
///
/// ```
/// use narrows::Backend;
/// use narrows::raw::{ContextCoder, portable::ContextRule};
///
/// let symbols: Vec<i32> = (0..8 * 8 * 4).map(|i| (i / 7 % 3) - 1).collect();
/// let mut coder = ContextCoder::fit(&[&symbols], (8, 8, 4), ContextRule::Neighbours, &Backend::detect())?;
/// let mut chunk = Vec::new();
/// coder.encode(&symbols, &mut chunk)?;
/// let mut decoded = vec![0; symbols.len()];
/// coder.decode(&chunk, &mut decoded)?;
/// assert_eq!(decoded, symbols);
/// # Ok::<(), narrows::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct ContextCoder {
    profile: Profile,
    plan: Plan,
    shape: (usize, usize, usize),
    lanes: Option<usize>,
    kernels: Kernels,
    worker: Worker,
    reader: ChunkReader,
}

impl ContextCoder {
    /// Fits tables to samples of (rows, columns, channels).
    ///
    /// # Errors
    /// `InvalidInput` if a sample has another size, `Backend` if this machine does not have the backend.
    pub fn fit(
        samples: &[&[i32]],
        shape: (usize, usize, usize),
        rule: ContextRule,
        backend: &Backend,
    ) -> Result<ContextCoder> {
        let profile = fit_symbols(samples, shape, rule)?;
        let mut plan = Plan::default();
        plan.set(&profile, 0);
        let kernels = Kernels::of(backend)?;
        Ok(ContextCoder {
            profile,
            plan,
            shape,
            lanes: None,
            kernels,
            worker: Worker::default(),
            reader: ChunkReader::default(),
        })
    }

    /// Interleaves this many states (1, 2, 4, 8, 16 or 32). Default: as many as cost about 1 %.
    pub fn lanes(mut self, lanes: usize) -> Self {
        self.lanes = Some(lanes);
        self
    }

    fn coding(&self, lanes: Option<usize>) -> Coding<'_> {
        let (rows, columns, _) = self.shape;
        Coding {
            bank: &self.profile.bank,
            context: self.profile.context,
            rows,
            plane_rows: rows,
            columns,
            chunks: 1,
            lanes,
            lambda: 0,
            kernels: self.kernels,
        }
    }

    fn check(&self, symbols: usize) -> Result<()> {
        let (rows, columns, channels) = self.shape;
        if symbols != rows * columns * channels || symbols == 0 {
            return Err(Error::invalid("the number of symbols is not that of the shape, or is 0"));
        }
        self.lanes.map_or(Ok(()), check_lanes)
    }

    /// Appends one byte that says how many lanes there are, and one chunk.
    ///
    /// # Errors
    /// `InvalidInput` if the number of symbols or lanes is wrong.
    pub fn encode(&mut self, symbols: &[i32], out: &mut Vec<u8>) -> Result<()> {
        self.check(symbols.len())?;
        let mut worker = std::mem::take(&mut self.worker);
        let coding = self.coding(self.lanes);
        chunk::index_chunk(&coding, &self.plan, 0, symbols, &mut worker);
        let lanes = chunk::lanes_for(&coding, self.shape.2, worker.cost);
        worker.payload.clear();
        chunk::code_chunk(&coding, self.shape.2, lanes, 0, symbols, &mut worker);
        out.push(lanes.ilog2() as u8);
        out.extend_from_slice(&worker.payload);
        self.worker = worker;
        Ok(())
    }

    /// Decodes what [`encode`](Self::encode) appended.
    ///
    /// # Errors
    /// `InvalidInput` if the number of symbols is wrong, `Corrupt` or `Truncated` if the bytes are.
    pub fn decode(&mut self, bytes: &[u8], symbols: &mut [i32]) -> Result<()> {
        self.check(symbols.len())?;
        let [lanes @ 0..=5, chunk @ ..] = bytes else {
            return Err(Error::corrupt("the number of lanes", 0));
        };
        let mut reader = std::mem::take(&mut self.reader);
        let coding = self.coding(Some(1 << lanes));
        let part = Part { number: 0, rows: 0..self.shape.0, offset: 1, bytes: chunk };
        let mut rest = symbols;
        let result = chunk::decode_chunk(&coding, &self.plan, Some(0), &part, &mut reader, &mut |_, strip| {
            let (own, others) = std::mem::take(&mut rest).split_at_mut(strip.len());
            own.copy_from_slice(strip);
            rest = others;
        });
        self.reader = reader;
        result
    }
}

/// Symbols under tables that the caller names one by one, without a container: for models that predict the scale of
/// every symbol, such as hyperpriors.
///
/// ```
/// use narrows::Backend;
/// use narrows::raw::{IndexedCoder, bank::Bank};
///
/// let symbols: Vec<i32> = (0..1000).map(|i| i * i % 7 - 3).collect();
/// // Table k of the built-in bank is for symbols of a scale of about 2^((k - 30) / 8).
/// let tables: Vec<u8> = (0..1000).map(|i| 38 + (i % 4) as u8).collect();
/// let mut coder = IndexedCoder::new(Bank::builtin(), &Backend::detect())?;
/// let mut chunk = Vec::new();
/// coder.encode(&symbols, &tables, &mut chunk)?;
/// let mut decoded = vec![0; symbols.len()];
/// coder.decode(&chunk, &tables, &mut decoded)?;
/// assert_eq!(decoded, symbols);
/// # Ok::<(), narrows::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct IndexedCoder {
    bank: Bank,
    lanes: Option<usize>,
    kernels: Kernels,
    /// One position, whose channels are the symbols.
    plan: Plan,
    worker: Worker,
    reader: ChunkReader,
}

impl IndexedCoder {
    /// A coder with these tables on a backend.
    ///
    /// # Errors
    /// `Backend` if this machine does not have the backend.
    pub fn new(bank: Bank, backend: &Backend) -> Result<IndexedCoder> {
        Ok(IndexedCoder {
            bank,
            lanes: None,
            kernels: Kernels::of(backend)?,
            plan: Plan::default(),
            worker: Worker::default(),
            reader: ChunkReader::default(),
        })
    }

    /// Interleaves this many states (1, 2, 4, 8, 16 or 32). Default: as many as cost about 1 %.
    pub fn lanes(mut self, lanes: usize) -> Self {
        self.lanes = Some(lanes);
        self
    }

    /// Makes a plan of the tables of so many symbols.
    fn begin(&mut self, symbols: usize, tables: &[u8]) -> Result<()> {
        if symbols != tables.len() || u32::try_from(symbols).is_err() {
            return Err(Error::invalid("there must be as many tables as symbols, and no more than 32 bits count"));
        }
        if tables.iter().any(|&table| usize::from(table) >= TABLES) {
            return Err(Error::invalid("a symbol names a table that the bank does not have"));
        }
        self.lanes.map_or(Ok(()), check_lanes)?;
        if self.plan.active.len() != symbols {
            self.plan.clear(symbols);
            self.plan.active.extend(0..symbols as u32);
        }
        // Only the first context is asked for.
        self.plan.runs.resize(symbols.div_ceil(MAX_LANES), RunTables::EMPTY);
        for (run, tables) in self.plan.runs.iter_mut().zip(tables.chunks(MAX_LANES)) {
            run.tables[0][..tables.len()].copy_from_slice(tables);
            run.present[..tables.len()].fill(-1);
        }
        Ok(())
    }

    fn coding(&self, lanes: Option<usize>) -> Coding<'_> {
        Coding {
            bank: &self.bank,
            context: ContextRule::None,
            rows: 1,
            plane_rows: 1,
            columns: 1,
            chunks: 1,
            lanes,
            lambda: 0,
            kernels: self.kernels,
        }
    }

    /// Appends one byte that says how many lanes there are, and one chunk; nothing for no symbols.
    ///
    /// # Errors
    /// `InvalidInput` if there are not as many tables as symbols, one is not in the bank, or the lanes are wrong.
    pub fn encode(&mut self, symbols: &[i32], tables: &[u8], out: &mut Vec<u8>) -> Result<()> {
        self.begin(symbols.len(), tables)?;
        if symbols.is_empty() {
            return Ok(());
        }
        let mut worker = std::mem::take(&mut self.worker);
        let coding = self.coding(self.lanes);
        chunk::index_chunk(&coding, &self.plan, 0, symbols, &mut worker);
        let lanes = chunk::lanes_for(&coding, symbols.len(), worker.cost);
        worker.payload.clear();
        chunk::code_chunk(&coding, symbols.len(), lanes, 0, symbols, &mut worker);
        out.push(lanes.ilog2() as u8);
        out.extend_from_slice(&worker.payload);
        self.worker = worker;
        Ok(())
    }

    /// Decodes what [`encode`](Self::encode) appended, under the same tables.
    ///
    /// # Errors
    /// As `encode`; `Corrupt` or `Truncated` if the bytes are.
    pub fn decode(&mut self, bytes: &[u8], tables: &[u8], symbols: &mut [i32]) -> Result<()> {
        self.begin(symbols.len(), tables)?;
        if symbols.is_empty() {
            return if bytes.is_empty() { Ok(()) } else { Err(Error::corrupt("bytes left over after a chunk", 0)) };
        }
        let [lanes @ 0..=5, chunk @ ..] = bytes else {
            return Err(Error::corrupt("the number of lanes", 0));
        };
        let mut reader = std::mem::take(&mut self.reader);
        let coding = self.coding(Some(1 << lanes));
        let part = Part { number: 0, rows: 0..1, offset: 1, bytes: chunk };
        let result = chunk::decode_chunk(&coding, &self.plan, Some(0), &part, &mut reader, &mut |_, strip| {
            symbols.copy_from_slice(strip);
        });
        self.reader = reader;
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn symbol() -> impl Strategy<Value = i32> {
        prop_oneof![8 => -2..3i32, 4 => -30..30i32, 2 => -600..600i32, 1 => any::<i32>()]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 4 } else { 64 }))]

        #[test]
        fn indexed_symbols_come_back_and_every_backend_writes_the_same(
            coded in proptest::collection::vec((symbol(), 0..TABLES as u8), 0..700),
            log_lanes in proptest::option::of(0..6u32),
        ) {
            let (symbols, tables): (Vec<i32>, Vec<u8>) = coded.into_iter().unzip();
            let mut expected: Option<Vec<u8>> = None;
            for backend in Backend::available() {
                let mut coder = IndexedCoder::new(Bank::builtin(), &backend).unwrap();
                coder.lanes = log_lanes.map(|log| 1 << log);
                let mut bytes = Vec::new();
                coder.encode(&symbols, &tables, &mut bytes).unwrap();
                prop_assert_eq!(expected.get_or_insert_with(|| bytes.clone()), &bytes);
                let mut decoded = vec![0; symbols.len()];
                coder.decode(&bytes, &tables, &mut decoded).unwrap();
                prop_assert_eq!(&decoded, &symbols);
                if !bytes.is_empty() {
                    prop_assert!(coder.decode(&bytes[..bytes.len() - 1], &tables, &mut decoded).is_err());
                }
            }
        }
    }

    #[test]
    fn tables_that_do_not_fit_their_symbols_are_refused() {
        let mut coder = IndexedCoder::new(Bank::builtin(), &Backend::Portable).unwrap();
        let refuse = |coder: &mut IndexedCoder, symbols: usize, tables: &[u8]| {
            let encoded = coder.encode(&vec![0; symbols], tables, &mut Vec::new()).unwrap_err();
            let decoded = coder.decode(&[0], tables, &mut vec![0; symbols]).unwrap_err();
            [encoded, decoded].iter().all(|error| matches!(error, Error::InvalidInput { .. }))
        };
        assert!(refuse(&mut coder, 2, &[1]));
        assert!(refuse(&mut coder, 1, &[1, 1]));
        assert!(refuse(&mut coder, 1, &[TABLES as u8]));
        coder = coder.lanes(3);
        assert!(refuse(&mut coder, 1, &[1]));
    }
}
