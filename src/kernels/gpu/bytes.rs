//! The byte coder: u8 symbols, one table, many chunks, all of it resident on the GPU. For research and benches.

use crate::error::{Error, Result};
use crate::kernels::gpu::coder::{FLAG_LANES, SPARE};
use crate::kernels::gpu::device::{Device, failed};
use crate::kernels::gpu::recorder::{Recorder, one_each, strided, words_of};
use crate::kernels::gpu::shaders::Lanes;

/// Lanes of every chunk.
pub(crate) const LANES: usize = 32;
/// The words of the uniform.
pub(crate) const PARAMS: [&str; 4] = ["symbols", "chunk_symbols", "chunks", "spare"];
/// What the frequencies sum to.
const TOTAL: u32 = 4096;
/// Most symbols of a chunk.
const MOST_SYMBOLS: usize = 1 << 20;

/// Codes bytes by one table of 256 frequencies: rANS with 32 states of 32 bits, 16-bit words and 12-bit probabilities.
///
/// Symbol i of a chunk belongs to lane i mod 32; the intervals lie in the order of the symbols. A chunk is the 32 states
/// (high word, low word), then the words in the order in which a decoder takes them, all u16 little-endian; coding starts
/// from states of 2^16.
#[derive(Debug, Clone)]
pub struct ByteCoder {
    device: Device,
    intervals: wgpu::Buffer,
    slots: wgpu::Buffer,
}

/// Buffers for symbols that are coded in chunks of equal length, the last one taking what is left.
#[derive(Debug, Clone)]
pub struct ByteBuffers {
    /// The symbols, four to a 32-bit word: what is encoded, or was decoded.
    pub symbols: wgpu::Buffer,
    /// The chunks, each from a whole 32-bit word on.
    pub payload: wgpu::Buffer,
    report: wgpu::Buffer,
    words: wgpu::Buffer,
    status: wgpu::Buffer,
    uniform: wgpu::Buffer,
    count: usize,
    chunk_symbols: usize,
}

impl ByteBuffers {
    /// Number of symbols.
    pub fn len(&self) -> usize {
        self.count
    }

    /// True when there is no symbol.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Number of chunks.
    pub fn chunks(&self) -> usize {
        self.count.div_ceil(self.chunk_symbols)
    }
}

impl ByteCoder {
    /// A coder with these frequencies of the 256 symbols.
    ///
    /// # Errors
    /// `InvalidInput` unless they sum to 4,096; `Backend` if the GPU fails.
    pub fn new(device: &Device, frequencies: &[u16; 256]) -> Result<ByteCoder> {
        if frequencies.iter().map(|&frequency| u32::from(frequency)).sum::<u32>() != TOTAL {
            return Err(Error::invalid("the frequencies do not sum to 4096"));
        }
        let (mut intervals, mut slots, mut start) = (Vec::new(), Vec::new(), 0);
        for (symbol, &frequency) in (0u32..).zip(frequencies) {
            let frequency = u32::from(frequency);
            // A start of 4,096 belongs to no interval.
            intervals.push((start % TOTAL) | (frequency << 12));
            slots.extend((0..frequency).map(|above| symbol | (frequency - 1) << 8 | above << 20));
            start += frequency;
        }
        device.guarded(|| {
            Ok(ByteCoder {
                device: device.clone(),
                intervals: device.upload("intervals", &intervals)?,
                slots: device.upload("slots", &slots)?,
            })
        })
    }

    /// Buffers for this many symbols in chunks of `chunk_symbols`, a multiple of 32.
    ///
    /// # Errors
    /// `InvalidInput` for other lengths of a chunk; `Backend` if the device allows no buffers of this size.
    pub fn buffers(&self, count: usize, chunk_symbols: usize) -> Result<ByteBuffers> {
        if chunk_symbols == 0 || !chunk_symbols.is_multiple_of(LANES) || chunk_symbols > MOST_SYMBOLS {
            return Err(Error::invalid(format!(
                "a chunk has a multiple of 32 symbols up to 2^20, not {chunk_symbols}"
            )));
        }
        let device = &self.device;
        let chunks = count.div_ceil(chunk_symbols);
        if u32::try_from(chunks * (chunk_symbols + SPARE)).is_err() {
            return Err(Error::invalid(format!("{count} symbols are too many")));
        }
        let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST;
        device.guarded(|| {
            let words = [count as u32, chunk_symbols as u32, chunks as u32, 0];
            let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
            Ok(ByteBuffers {
                symbols: device.buffer("bytes", chunks * chunk_symbols, usage)?,
                payload: device.buffer("byte chunks", 2 * chunks * (chunk_symbols + 2 * SPARE), usage)?,
                report: device.buffer("byte report", 4 * (2 + 2 * chunks), usage)?,
                words: device.buffer("byte words", 4 * chunks * (chunk_symbols + SPARE), usage)?,
                status: device.buffer("byte status", 8 * chunks, usage)?,
                uniform: Recorder::new(device).uniform(&bytes)?,
                count,
                chunk_symbols,
            })
        })
    }

    /// Fills in the symbols.
    ///
    /// # Errors
    /// `InvalidInput` if their number is another; `Backend` if the GPU fails.
    pub fn write_symbols(&self, buffers: &ByteBuffers, symbols: &[u8]) -> Result<()> {
        if symbols.len() != buffers.count {
            return Err(Error::invalid("the buffers are for another number of symbols"));
        }
        let device = &self.device;
        device.guarded(|| device.write(&buffers.symbols, symbols.len(), |out| out.copy_from_slice(symbols)))
    }

    /// Reads the symbols.
    ///
    /// # Errors
    /// `Backend` if the GPU fails.
    pub fn read_symbols(&self, buffers: &ByteBuffers) -> Result<Vec<u8>> {
        let read = self.device.guarded(|| Recorder::new(&self.device).finish(&[(&buffers.symbols, buffers.count)]))?;
        Ok(read.into_iter().next().unwrap_or_default())
    }

    /// Reads the chunks that were encoded.
    ///
    /// # Errors
    /// `Backend` if the GPU fails.
    pub fn read_chunks(&self, buffers: &ByteBuffers) -> Result<Vec<Vec<u8>>> {
        let wanted =
            [(&buffers.report, buffers.report.size() as usize), (&buffers.payload, buffers.payload.size() as usize)];
        let read = self.device.guarded(|| Recorder::new(&self.device).finish(&wanted))?;
        let [report, payload] = &read[..] else { return Err(failed("the GPU gave no chunks")) };
        let report = words_of(report);
        let chunks = report[2..].chunks_exact(2).take(buffers.chunks());
        Ok(chunks.map(|chunk| payload[4 * chunk[0] as usize..][..2 * chunk[1] as usize].to_vec()).collect())
    }

    /// Fills in chunks to decode.
    ///
    /// # Errors
    /// `InvalidInput` if their number is another, or a length is odd or too long; `Backend` if the GPU fails.
    pub fn write_chunks(&self, buffers: &ByteBuffers, chunks: &[Vec<u8>]) -> Result<()> {
        let (mut report, mut payload) = (vec![0, 0], Vec::new());
        for chunk in chunks {
            if !chunk.len().is_multiple_of(2) {
                return Err(Error::invalid("a chunk of bytes has an odd length"));
            }
            report.extend([payload.len() as u32 / 4, chunk.len() as u32 / 2]);
            payload.extend_from_slice(chunk);
            payload.resize(payload.len().next_multiple_of(4), 0);
        }
        if chunks.len() != buffers.chunks() || payload.len() as u64 > buffers.payload.size() {
            return Err(Error::invalid("the buffers are for other chunks"));
        }
        let device = &self.device;
        device.guarded(|| {
            device.write(&buffers.report, 4 * report.len(), |out| {
                out.chunks_exact_mut(4)
                    .zip(&report)
                    .for_each(|(bytes, word)| bytes.copy_from_slice(&word.to_le_bytes()));
            })?;
            device.write(&buffers.payload, payload.len(), |out| out.copy_from_slice(&payload))
        })
    }

    /// Encodes the symbols, `times` times in one submission (for benches), and waits; gives the bytes of all chunks, each
    /// rounded up to whole 32-bit words.
    ///
    /// # Errors
    /// `InvalidInput` if a symbol has no frequency; `Backend` if the GPU fails.
    pub fn encode(&self, buffers: &ByteBuffers, times: usize) -> Result<usize> {
        let device = &self.device;
        for _ in 0..2 {
            let chunks = buffers.chunks();
            let read = device.guarded(|| {
                let mut recorder = Recorder::new(device);
                recorder.clear(&buffers.report);
                let ByteBuffers { symbols, payload, report, words, uniform, .. } = buffers;
                for _ in 0..times.max(1) {
                    let bindings = [(1, symbols), (2, &self.intervals), (3, words), (4, report)];
                    recorder.run("bytes_encode", 32, uniform, &bindings, self.groups(chunks))?;
                    recorder.run("bytes_starts", 32, uniform, &[(4, report)], (1.min(chunks as u32), 1, 1))?;
                    let bindings = [(3, words), (4, report), (5, payload)];
                    recorder.run("bytes_compact", 32, uniform, &bindings, one_each(chunks))?;
                }
                recorder.finish(&[(report, 8)])
            })?;
            match words_of(&read[0])[..] {
                [_, flags] if flags & FLAG_LANES != 0 => drop(device.without_single()),
                [total, 0] => return Ok(4 * total as usize),
                _ => return Err(Error::invalid("a symbol has no frequency")),
            }
        }
        Err(failed("the GPU's subgroups are not as it says"))
    }

    /// Decodes the chunks, `times` times in one submission (for benches), and waits.
    ///
    /// # Errors
    /// `Truncated` or `Corrupt` for a chunk that no encoder makes, with the offset in it; `Backend` if the GPU fails.
    pub fn decode(&self, buffers: &ByteBuffers, times: usize) -> Result<()> {
        let device = &self.device;
        for _ in 0..2 {
            let chunks = buffers.chunks();
            let read = device.guarded(|| {
                let mut recorder = Recorder::new(device);
                let ByteBuffers { symbols, payload, report, status, uniform, .. } = buffers;
                for _ in 0..times.max(1) {
                    let bindings = [(1, payload), (2, &self.slots), (3, report), (4, symbols), (5, status)];
                    recorder.run("bytes_decode", 32, uniform, &bindings, self.groups(chunks))?;
                }
                recorder.finish(&[(status, 8 * chunks)])
            })?;
            let status = words_of(&read[0]);
            let Some(chunk) = status.chunks_exact(2).find(|chunk| chunk[0] != 0) else { return Ok(()) };
            let offset = 2 * chunk[1] as usize;
            return Err(match chunk[0] {
                1 => Error::truncated("a chunk", offset),
                2 => Error::corrupt("an initial state is out of range", 0),
                4 => Error::corrupt("a chunk does not end in its start state", offset),
                5 => Error::corrupt("bytes left over after a chunk", offset),
                _ => {
                    device.without_single();
                    continue;
                }
            });
        }
        Err(failed("the GPU's subgroups are not as it says"))
    }

    /// Workgroups for this many chunks: eight to a workgroup, or one.
    fn groups(&self, chunks: usize) -> (u32, u32, u32) {
        one_each(if self.device.teams() == Lanes::Single { chunks.div_ceil(8) } else { chunks })
    }

    /// Copies one buffer to another by a kernel, `times` times in one submission, and waits: what the memory gives at
    /// best, to compare the coder with.
    ///
    /// # Errors
    /// `Backend` if the GPU fails.
    pub fn copy(&self, from: &wgpu::Buffer, to: &wgpu::Buffer, times: usize) -> Result<()> {
        let count = (from.size().min(to.size()) / 16) as usize;
        self.device.guarded(|| {
            let mut recorder = Recorder::new(&self.device);
            let mut bytes = (count as u32).to_le_bytes().to_vec();
            bytes.resize(16, 0);
            let uniform = recorder.uniform(&bytes)?;
            for _ in 0..times {
                recorder.run("copy", 32, &uniform, &[(1, from), (2, to)], (strided(count), 1, 1))?;
            }
            recorder.finish(&[(to, 4)]).map(|_| ())
        })
    }
}
