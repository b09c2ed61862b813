//! Encoder and decoder: the path of one feature, top to bottom.
//!
//! ```text
//! encode:  feature -> integers -> analysis -> transform -> quantize -> context -> rans_encode -> container
//! decode:  container -> rans_decode (context recomputed) -> dequantize -> inverse transform -> synthesis -> feature
//! ```

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use ndarray::ArrayD;

use crate::backend::Backend;
use crate::chunk::{self, ChunkReader, Coding, Worker};
use crate::container::{Header, Layout, MAX_LAYERS, Mode, Reader};
use crate::error::{Error, Result};
use crate::geometry::Grid;
use crate::kernels::Kernels;
use crate::kernels::portable::{ContextRule, MAX_LANES, Strip, to_int};
use crate::layers::LayerPlans;
use crate::limits::Limits;
use crate::lossless::{self, Lossless};
use crate::network::{Analysis, Float, Integer, Runner, too_small};
use crate::packed::{self, Packed};
use crate::plain;
use crate::plan::{self, Plan};
use crate::profile::Profile;
use crate::quality::{self, Quality};
use crate::rate;
use crate::stream::{Source, Stream};
use crate::tensor::{Element, Feature, FeatureView, ViewData, with_array};
use crate::threads;
use crate::transform::{self, Blocks, Kept, Quantized, TransformScratch};

/// Encodes one feature: with a profile if there is one, else in mode [`Mode::Plain`].
///
/// Makes a new [`Encoder`] each time; keep one where features come in numbers.
///
/// # Errors
/// As [`Encoder::encode`].
pub fn encode<'a>(
    feature: impl Into<FeatureView<'a>>,
    profile: Option<&Arc<Profile>>,
    quality: Quality,
) -> Result<Vec<u8>> {
    let mut encoder = match profile {
        Some(profile) => Encoder::with_profile(profile.clone()),
        None => Encoder::plain(),
    };
    encoder.encode(feature, quality)
}

/// Decodes one stream of any mode; those of mode [`Mode::Profile`] need their profile.
///
/// # Errors
/// As [`Decoder::decode`].
pub fn decode(bytes: &[u8], profile: Option<&Arc<Profile>>) -> Result<Feature> {
    let mut decoder = Decoder::new();
    if let Some(profile) = profile {
        decoder = decoder.profile(profile.clone());
    }
    decoder.decode(bytes)
}

#[derive(Debug, Clone)]
enum Method {
    Profile(Arc<Profile>),
    Plain,
    Packed(Packed),
    Lossless(Lossless),
}

/// Turns features into streams. It keeps its buffers: after the first features of a shape, encoding
/// into a reused `Vec` allocates nothing.
///
/// Which should I use? [`with_profile`](Encoder::with_profile) whenever samples of the feature can be
/// had; [`plain`](Encoder::plain) before there are any; [`packed`](Encoder::packed) where the size must
/// not vary; [`lossless`](Encoder::lossless) where the tail must see every bit.
#[derive(Debug, Clone)]
pub struct Encoder {
    method: Method,
    chunks: Option<usize>,
    lanes: Option<usize>,
    rdo: bool,
    checksums: bool,
    layers: usize,
    backend: Backend,
    scratch: Scratch,
    best: Vec<u8>,
    #[cfg(feature = "gpu")]
    gpu: Option<Box<crate::kernels::gpu::AttachedEncoder>>,
}

#[derive(Debug, Default, Clone)]
struct Scratch {
    source: Vec<f32>,
    values: Vec<i16>,
    decoded: Vec<i16>,
    coefficients: Vec<i32>,
    tile: Vec<i16>,
    symbols: Vec<i32>,
    transforms: Vec<TransformScratch>,
    workers: Vec<Worker>,
    desks: Vec<Desk>,
    planning: plain::PlanScratch,
    row: Vec<i32>,
    networks: NetworkScratch,
    plan: Plan,
    layers: LayerPlans,
    /// Profile and quality index that `plan` is for.
    planned: Option<(u64, i16)>,
    params: Vec<u8>,
}

/// What networks read and write.
#[derive(Debug, Default, Clone)]
struct NetworkScratch {
    integer: Runner<Integer>,
    float: Runner<Float>,
    /// The integer feature, where `values` are its latent.
    feature: Vec<i16>,
    source: Vec<f32>,
    latent: Vec<f32>,
    made: Vec<f32>,
}

impl Scratch {
    /// Makes `plan` that of a profile at a quality index.
    fn plan_for(&mut self, profile: &Profile, index: i16) {
        if self.planned != Some((profile.hash, index)) {
            self.plan.set(profile, index);
            self.planned = Some((profile.hash, index));
        }
    }
}

impl Encoder {
    fn new(method: Method) -> Self {
        Encoder {
            method,
            chunks: None,
            lanes: None,
            rdo: true,
            checksums: false,
            layers: 1,
            backend: Backend::detect(),
            scratch: Scratch::default(),
            best: Vec::new(),
            #[cfg(feature = "gpu")]
            gpu: None,
        }
    }

    /// Encodes with a profile: fewest bytes for the task that it was fitted to.
    pub fn with_profile(profile: Arc<Profile>) -> Self {
        Self::new(Method::Profile(profile))
    }

    /// Encodes without a profile: uniform steps, built-in tables, one scale index per channel in the stream.
    pub fn plain() -> Self {
        Self::new(Method::Plain)
    }

    /// Encodes every element in the same number of bits; the quality is not used.
    pub fn packed(packed: Packed) -> Self {
        Self::new(Method::Packed(packed))
    }

    /// Encodes bit-exactly; the quality is not used.
    pub fn lossless() -> Self {
        Self::new(Method::Lossless(Lossless::default()))
    }

    /// Splits each stream into this many chunks, which decode independently (at least 1, at most one
    /// per row of blocks). More chunks decode in parallel and cost their contexts and four bytes a
    /// lane each. Default: one for every batch item.
    pub fn chunks(mut self, chunks: usize) -> Self {
        self.chunks = Some(chunks);
        self
    }

    /// Interleaves this many rANS states: 1, 2, 4, 8, 16 or 32. Default: as many as cost about 1 % of the payload.
    pub fn lanes(mut self, lanes: usize) -> Self {
        self.lanes = Some(lanes);
        self
    }

    /// Turns rate-distortion optimised quantisation on or off. Default: on, as the profile fitted it.
    pub fn rdo(mut self, rdo: bool) -> Self {
        self.rdo = rdo;
        self
    }

    /// Ends each chunk in a 32-bit checksum, which also covers the header. Default: no. Without it, a changed chunk is
    /// noticed except with a probability of about 2^-16.
    pub fn checksums(mut self, checksums: bool) -> Self {
        self.checksums = checksums;
        self
    }

    /// Writes streams of this many layers, 1 to 4 (with a profile only): the quality is that of all layers, each layer below
    /// has steps three times as large, and a stream that is cut off where a layer ends ([`Info::layers`]) decodes to a
    /// coarser feature. Default: 1. All layers together are a few per cent longer than a stream of one.
    ///
    /// [`Info::layers`]: crate::Info::layers
    pub fn layers(mut self, layers: usize) -> Self {
        self.layers = layers;
        self
    }

    /// Chooses where the kernels run; the bytes are the same everywhere. Default: [`Backend::detect`].
    pub fn backend(mut self, backend: Backend) -> Self {
        #[cfg(feature = "gpu")]
        if let Backend::Gpu(device) = backend {
            return self.gpu(&device, true, false);
        }
        self.backend = backend;
        #[cfg(feature = "gpu")]
        {
            self.gpu = None;
        }
        self
    }

    /// Encodes on this GPU, in the modes `Profile` and `Plain`: features of any size if `always`, else those that are large
    /// enough for it ([`crate::gpu::Device::crossover`]); the CPU goes on if the GPU fails and `fallback` is set. The
    /// bytes are the same.
    #[cfg(feature = "gpu")]
    pub fn gpu(mut self, device: &crate::gpu::Device, always: bool, fallback: bool) -> Self {
        let attach = |profile| Box::new(crate::kernels::gpu::AttachedEncoder::new(device, profile, always, fallback));
        self.gpu = match &self.method {
            Method::Profile(profile) => Some(attach(Some(profile))),
            Method::Plain => Some(attach(None)),
            Method::Packed(_) | Method::Lossless(_) => None,
        };
        self
    }

    /// Encodes one feature.
    ///
    /// # Errors
    /// `InvalidInput` if the feature does not fit the profile or the options are out of range;
    /// `LimitExceeded` if a byte budget is below what the feature needs (it says how much).
    pub fn encode<'a>(&mut self, feature: impl Into<FeatureView<'a>>, quality: Quality) -> Result<Vec<u8>> {
        let mut out = Vec::new();
        self.encode_into(feature, quality, &mut out)?;
        Ok(out)
    }

    /// Encodes one feature into `out`, which is emptied first.
    ///
    /// # Errors
    /// As [`Encoder::encode`]; `out` is then empty.
    pub fn encode_into<'a>(
        &mut self,
        feature: impl Into<FeatureView<'a>>,
        quality: Quality,
        out: &mut Vec<u8>,
    ) -> Result<()> {
        out.clear();
        let result = self.encode_view(&feature.into(), quality, out);
        if result.is_err() {
            out.clear();
        }
        result
    }

    fn encode_view(&mut self, view: &FeatureView<'_>, quality: Quality, out: &mut Vec<u8>) -> Result<()> {
        view.checked()?;
        if self.lanes.is_some_and(|lanes| !lanes.is_power_of_two() || lanes > MAX_LANES) {
            return Err(Error::invalid("lanes must be 1, 2, 4, 8, 16 or 32"));
        }
        if !(1..=MAX_LAYERS).contains(&self.layers) {
            return Err(Error::invalid(format!("a stream has 1 to {MAX_LAYERS} layers, not {}", self.layers)));
        }
        if self.layers > 1 && !matches!(self.method, Method::Profile(_)) {
            return Err(Error::invalid("streams of several layers need a profile"));
        }
        let layout = Layout::new(view.dtype(), view.axes(), view.shape())?;
        layout.elements()?;
        #[cfg(feature = "gpu")]
        if let Some(gpu) = &mut self.gpu
            && self.layers == 1
            && let Some(result) = gpu.encode(view, quality, (self.chunks, self.lanes, self.rdo, self.checksums))
        {
            out.extend_from_slice(&result?);
            return Ok(());
        }
        let header = Header { layout: Some(layout), checksums: self.checksums, ..Header::new(Mode::Lossless) };
        match &mut self.method {
            Method::Profile(profile) => {
                let profile = profile.clone();
                self.encode_profile(&profile, view, layout, quality, out)?;
            }
            Method::Plain => self.encode_plain(view, layout, quality, out)?,
            Method::Packed(packed) => {
                let header = Header { mode: Mode::Packed, ..header };
                packed::encode(packed, view, &header, (&mut self.scratch.source, &mut self.scratch.params), out)?;
                return rate::within(quality, out.len());
            }
            Method::Lossless(lossless) => {
                lossless.encode(view, &header, out)?;
                return rate::within(quality, out.len());
            }
        }
        lossless::instead(view, &header, out)
    }

    fn encode_profile(
        &mut self,
        profile: &Profile,
        view: &FeatureView<'_>,
        layout: Layout,
        quality: Quality,
        out: &mut Vec<u8>,
    ) -> Result<()> {
        if layout.channels() != profile.layout.channels() {
            return Err(Error::invalid(format!(
                "the feature has {} channels, profile {:016x} was fitted on {}",
                layout.channels(),
                profile.hash,
                profile.layout.channels()
            )));
        }
        let grid = Grid::new(&layout);
        // feature -> integers -> analysis -> transform
        let kernels = Kernels::of(&self.backend)?;
        let scratch = &mut self.scratch;
        let feature = grid;
        let grid = profile.latent(&feature, &Limits::UNBOUNDED)?;
        // Until it depends on the quality, there is one latent for all.
        let fixed = profile.analysis.as_ref().is_none_or(|analysis| !analysis.depends_on_quality());
        begin_analysis(view, (&feature, &grid), profile, scratch, kernels)?;
        if fixed {
            analyse((&feature, &grid), profile, 0, scratch, kernels)?;
        }
        let blocks = Blocks::new(&grid, profile.block());
        let coding = Coding {
            bank: &profile.bank,
            context: profile.context,
            rows: blocks.rows,
            plane_rows: blocks.plane_rows,
            columns: blocks.columns,
            chunks: chunk::count(self.chunks, grid.items, blocks.rows),
            lanes: self.lanes,
            lambda: 0,
            kernels,
        };
        let header = Header {
            profile: Some((profile.hash, 0)),
            layout: (layout != profile.layout).then_some(layout),
            chunks: coding.chunks,
            checksums: self.checksums,
            layers: self.layers,
            ..Header::new(Mode::Profile)
        };
        let rdo = self.rdo;
        let lambda_at = |index| if rdo { plan::lambda_at(profile.lambda, index) } else { 0 };
        // context -> rans_encode -> container
        let code = |index: i16, scratch: &mut Scratch, out: &mut Vec<u8>| {
            out.clear();
            let header = Header { profile: Some((profile.hash, index)), ..header };
            let Scratch { plan, layers, symbols, workers, .. } = scratch;
            if header.layers > 1 {
                layers.set(profile, index, header.layers);
                return chunk::encode_layers(&coding, header, layers, symbols, workers, out);
            }
            chunk::encode(&coding, header, &[], plan, symbols, workers, out)
        };
        if let Quality::Scale(scale) = quality {
            let index = scale_index(scale)?;
            if lambda_at(index) == 0 {
                // Each block is quantised while it is at hand.
                scratch.plan_for(profile, index);
                if !fixed {
                    analyse((&feature, &grid), profile, index, scratch, kernels)?;
                }
                let Scratch { values, symbols, plan, transforms, .. } = scratch;
                // Every symbol is written.
                symbols.resize(blocks.count() * plan.active.len(), 0);
                let jobs = chunk::split(symbols, blocks.columns * plan.active.len(), coding.chunk_rows());
                threads::each_sharing(jobs, (transforms, usize::MAX), values.len(), |(rows, symbols), scratch| {
                    let sink = Quantized { plan, symbols };
                    transform::forward(profile, &grid, rows, values, sink, scratch, kernels);
                    Ok(())
                })?;
                return code(index, scratch, out);
            }
        }
        let transform = |scratch: &mut Scratch| {
            let Scratch { values, coefficients, transforms, .. } = scratch;
            // Every coefficient is written.
            coefficients.resize(blocks.count() * profile.coder_channels(), 0);
            let jobs = chunk::split(coefficients, blocks.columns * profile.coder_channels(), coding.chunk_rows());
            threads::each_sharing(jobs, (transforms, usize::MAX), values.len(), |(rows, coefficients), scratch| {
                transform::forward(profile, &grid, rows, values, Kept(coefficients), scratch, kernels);
                Ok(())
            })
        };
        if fixed {
            transform(scratch)?;
        }
        // quantize, and the rest, at the quality that was asked for
        let at = |index: i16, scratch: &mut Scratch, out: &mut Vec<u8>| {
            scratch.plan_for(profile, index);
            if !fixed {
                analyse((&feature, &grid), profile, index, scratch, kernels)?;
                transform(scratch)?;
            }
            let coding = Coding { lambda: lambda_at(index), ..coding };
            let Scratch { coefficients, symbols, workers, plan, .. } = scratch;
            chunk::quantize(&coding, plan, coefficients, symbols, workers);
            code(index, scratch, out)
        };
        match quality {
            Quality::Scale(scale) => at(scale_index(scale)?, scratch, out),
            Quality::Bytes(budget) => {
                rate::to_budget(budget, &mut self.best, out, |index, out| at(index, scratch, out))
            }
            Quality::Sqnr(target) => {
                gather_f32(view, &feature, &mut scratch.source);
                rate::to_sqnr(target, &mut self.best, out, |index, out| {
                    at(index, scratch, out)?;
                    inverse_symbols(profile, &grid, scratch, &coding)?;
                    let Scratch { decoded, networks, source, .. } = &mut *scratch;
                    if profile.synthesis.is_none() {
                        let scale = power_of_two(-profile.latent_exponent);
                        return Ok(rate::sqnr(source, decoded.iter().map(|&value| f32::from(value) * scale)));
                    }
                    let made = synthesise_integers((&feature, &grid), profile, (index, decoded), networks, kernels)?;
                    Ok(rate::sqnr(source, made.iter().copied()))
                })
            }
        }
    }

    fn encode_plain(
        &mut self,
        view: &FeatureView<'_>,
        layout: Layout,
        quality: Quality,
        out: &mut Vec<u8>,
    ) -> Result<()> {
        let grid = Grid::new(&layout);
        let kernels = Kernels::of(&self.backend)?;
        let scratch = &mut self.scratch;
        scratch.planned = None;
        let exponent = with_array!(ViewData, view.data(), array => match array.as_slice_memory_order() {
            Some(values) => plain::exponent(values.iter().copied()),
            None => plain::exponent(array.iter().copied()),
        });
        gather_int(view, &grid, exponent, &mut scratch.values, &mut scratch.tile, kernels);
        scratch.coefficients.clear();
        scratch
            .coefficients
            .extend(scratch.values.iter().map(|&value| i32::from(value) << transform::COEFFICIENT_BITS));
        let rows = grid.planes * grid.height;
        let shape = Coding {
            bank: plain::Kind::default().bank(),
            context: ContextRule::None,
            rows,
            plane_rows: grid.height,
            columns: grid.width,
            chunks: chunk::count(self.chunks, grid.items, rows),
            lanes: self.lanes,
            lambda: if self.rdo { plain::LAMBDA } else { 0 },
            kernels,
        };
        let header = Header {
            layout: Some(layout),
            chunks: shape.chunks,
            checksums: self.checksums,
            ..Header::new(Mode::Plain)
        };
        let base = plain::base_step(&scratch.values);
        let at = |index: i16, scratch: &mut Scratch, out: &mut Vec<u8>| {
            let Scratch { coefficients, symbols, workers, planning, plan, params, .. } = scratch;
            let (levels, step) = ((symbols, workers, planning), (exponent, base + i32::from(index)));
            let kind = plain::plan(plan, params, levels, coefficients, &shape, grid.channels, step);
            let Scratch { coefficients, symbols, workers, plan, params, .. } = scratch;
            let coding = Coding { bank: kind.bank(), context: kind.context, ..shape };
            out.clear();
            chunk::quantize(&coding, plan, coefficients, symbols, workers);
            chunk::encode(&coding, header, params, plan, symbols, workers, out)
        };
        match quality {
            Quality::Scale(scale) => at(scale_index(scale)?, scratch, out),
            Quality::Bytes(budget) => {
                rate::to_budget(budget, &mut self.best, out, |index, out| at(index, scratch, out))
            }
            Quality::Sqnr(target) => {
                gather_f32(view, &grid, &mut scratch.source);
                rate::to_sqnr(target, &mut self.best, out, |index, out| {
                    at(index, scratch, out)?;
                    let Scratch { plan, symbols, decoded, row, .. } = &mut *scratch;
                    // Every value is written.
                    decoded.resize(grid.len(), 0);
                    plain::reconstruct(plan, symbols, grid.channels, decoded, row, kernels);
                    let scale = power_of_two(-exponent);
                    Ok(rate::sqnr(&scratch.source, scratch.decoded.iter().map(|&value| f32::from(value) * scale)))
                })
            }
        }
    }
}

/// Turns streams back into features. It keeps its buffers and any number of profiles.
#[derive(Debug, Clone, Default)]
pub struct Decoder {
    profiles: Vec<Arc<Profile>>,
    limits: Limits,
    backend: Backend,
    scratch: Scratch,
    #[cfg(feature = "gpu")]
    gpu: Option<Box<crate::kernels::gpu::AttachedDecoder>>,
}

impl Decoder {
    /// A decoder without profiles, with the default limits.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a profile; streams find theirs by its hash.
    pub fn profile(mut self, profile: Arc<Profile>) -> Self {
        self.profiles.push(profile);
        self
    }

    /// Sets the limits.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Chooses where the kernels run; the feature is the same everywhere, with a synthesis network but for rounding.
    /// Default: [`Backend::detect`].
    pub fn backend(mut self, backend: Backend) -> Self {
        #[cfg(feature = "gpu")]
        if let Backend::Gpu(device) = backend {
            return self.gpu(&device, true, false);
        }
        self.backend = backend;
        #[cfg(feature = "gpu")]
        {
            self.gpu = None;
        }
        self
    }

    /// Decodes on this GPU, as [`Encoder::gpu`] encodes.
    #[cfg(feature = "gpu")]
    pub fn gpu(mut self, device: &crate::gpu::Device, always: bool, fallback: bool) -> Self {
        self.gpu = Some(Box::new(crate::kernels::gpu::AttachedDecoder::new(device, always, fallback)));
        self
    }

    /// Decodes one stream of any mode into a feature of the shape and type that was encoded.
    ///
    /// # Errors
    /// `Corrupt` or `Truncated` for bytes that no encoder makes, `ProfileMismatch` if the profile is
    /// not among those given, `LimitExceeded` if the feature is larger than the limits allow,
    /// `Unsupported` for a later version. Never panics, whatever the bytes.
    pub fn decode(&mut self, bytes: &[u8]) -> Result<Feature> {
        let mut feature = Feature::F32(ndarray::ArrayD::zeros(ndarray::IxDyn(&[0])));
        self.decode_into(bytes, &mut feature)?;
        Ok(feature)
    }

    /// Decodes one stream into `feature`, whose memory is kept if it has the stream's shape and type.
    ///
    /// # Errors
    /// As [`Decoder::decode`]; `feature` then holds what it held before, or zeros.
    pub fn decode_into(&mut self, bytes: &[u8], feature: &mut Feature) -> Result<()> {
        let mut reader = Reader::new(bytes);
        let header = Header::read(&mut reader, &self.limits)?;
        match header.mode {
            Mode::Profile | Mode::Plain => {
                let stream = Stream::read(bytes, &header, reader, &self.profiles, &self.limits)?;
                #[cfg(feature = "gpu")]
                if let Some(gpu) = &mut self.gpu
                    && stream.layers.is_none()
                    && let Some(result) = gpu.decode(&stream)
                {
                    return result.map(|decoded| *feature = decoded);
                }
                self.decode_stream(&stream, feature)
            }
            Mode::Packed => packed::decode(bytes, &header, reader, feature),
            Mode::Lossless => lossless::decode(bytes, &header, reader, feature),
        }
    }

    /// Decodes strip by strip: what is made of a strip of symbols stays in a cache on its way to the feature.
    fn decode_stream(&mut self, stream: &Stream<'_>, feature: &mut Feature) -> Result<()> {
        let kernels = Kernels::of(&self.backend)?;
        let Scratch { plan, planned, layers, desks, networks, .. } = &mut self.scratch;
        let wanted = match &stream.source {
            Source::Profile(profile, quality) => Some((profile.hash, *quality)),
            Source::Plain(_) => None,
        };
        let plan = match (&stream.source, stream.layers) {
            (Source::Profile(profile, _), Some((finest, count))) => {
                layers.set(profile, finest, count);
                &layers.plans[stream.finer.iter().flatten().count()]
            }
            _ if wanted.is_none() || *planned != wanted => {
                stream.make_plan(plan);
                *planned = wanted;
                &*plan
            }
            _ => &*plan,
        };
        let coding = stream.coding(kernels);
        let output = stream.grid.len() * stream.layout.dtype.size();
        reshape(feature, &stream.layout);
        // Each worker has the contexts of a row and a strip of its own.
        let own = plan.channels * stream.blocks.columns + (1 << 19);
        let most = (output / 8 + (4 << 20)) / own;
        if let Source::Profile(profile, quality) = &stream.source
            && profile.synthesis.is_some()
        {
            let NetworkScratch { latent, .. } = networks;
            // Every value is written.
            latent.resize(stream.latent.len(), 0.0);
            let out = Mutex::new(&mut latent[..]);
            let desks = (desks, most.max(1));
            let result = decode_chunks(&coding, (plan, layers), stream, desks, |strip, symbols, desk| {
                desk.inverse(stream, plan, strip, symbols, kernels);
                desk.put_latent(stream, strip, &mut out.lock().unwrap_or_else(PoisonError::into_inner));
            });
            let result = result.and_then(|()| {
                synthesise((&stream.grid, &stream.latent), profile, *quality, networks, kernels)?;
                let shape = stream.layout.padded_shape();
                let shape = &shape[..stream.layout.dims().len()];
                with_array!(Feature, &mut *feature, array => {
                    if let Some(out) = array.as_slice_mut() {
                        stream.grid.scatter_with(&networks.made, shape, out, Element::from_f32);
                    }
                });
                Ok(())
            });
            if result.is_err() {
                clear(feature);
            }
            return result;
        }
        let out = Mutex::new(&mut *feature);
        let desks = (desks, most.max(1));
        let result = decode_chunks(&coding, (plan, layers), stream, desks, |strip, symbols, desk| {
            desk.inverse(stream, plan, strip, symbols, kernels);
            // A thread that panicked has left nothing half done that matters here.
            let mut out = out.lock().unwrap_or_else(PoisonError::into_inner);
            desk.scatter(stream, strip, &mut out, kernels);
        });
        if result.is_err() {
            clear(feature);
        }
        result
    }
}

/// The chunks of a stream, of all its layers, to symbols; `sink` takes those of each strip.
fn decode_chunks(
    coding: &Coding<'_>,
    (plan, layers): (&Plan, &LayerPlans),
    stream: &Stream<'_>,
    desks: (&mut Vec<Desk>, usize),
    sink: impl Fn(&Strip, &[i32], &mut Desk) + Sync,
) -> Result<()> {
    let Stream { parts, finer, seed, .. } = stream;
    match (stream.layers, seed) {
        (Some(_), &Some(seed)) => chunk::decode_layers(coding, layers, seed, (parts, finer), desks, sink),
        _ => chunk::decode(coding, plan, *seed, parts, desks, sink),
    }
}

/// Buffers of a worker that decodes.
#[derive(Debug, Default, Clone)]
struct Desk {
    reader: ChunkReader,
    transform: TransformScratch,
    coefficients: Vec<i32>,
    values: Vec<i16>,
    tile: Vec<i16>,
}

impl AsMut<ChunkReader> for Desk {
    fn as_mut(&mut self) -> &mut ChunkReader {
        &mut self.reader
    }
}

impl Desk {
    /// Symbols -> dequantize -> inverse transform, of a strip.
    fn inverse(&mut self, stream: &Stream<'_>, plan: &Plan, strip: &Strip, symbols: &[i32], kernels: Kernels) {
        let Desk { transform, coefficients, values, .. } = self;
        let (lines, columns) = stream.blocks.area(&stream.latent, strip);
        // Every value is written.
        values.resize(lines.len() * columns.len() * stream.latent.channels, 0);
        match &stream.source {
            Source::Profile(profile, _) => {
                transform::inverse(profile, &stream.latent, strip, plan, (symbols, values), transform, kernels);
            }
            Source::Plain(_) => {
                plain::reconstruct(plan, symbols, stream.grid.channels, values, coefficients, kernels);
            }
        }
    }

    /// The values of a strip to their places in the latent.
    fn put_latent(&self, stream: &Stream<'_>, strip: &Strip, latent: &mut [f32]) {
        let grid = &stream.latent;
        let (lines, columns) = stream.blocks.area(grid, strip);
        let scale = power_of_two(-stream.exponent());
        let width = columns.len() * grid.channels;
        for (line, values) in lines.zip(self.values.chunks_exact(width.max(1))) {
            let out = &mut latent[(line * grid.width + columns.start) * grid.channels..][..width];
            for (out, &value) in out.iter_mut().zip(values) {
                *out = f32::from(value) * scale;
            }
        }
    }

    /// The values of a strip to their places in the feature.
    fn scatter(&mut self, stream: &Stream<'_>, strip: &Strip, feature: &mut Feature, kernels: Kernels) {
        let Stream { layout, grid, blocks, .. } = stream;
        let (lines, columns) = blocks.area(grid, strip);
        let shape = layout.padded_shape();
        let shape = &shape[..layout.dims().len()];
        let scale = power_of_two(-stream.exponent());
        let Desk { values, tile, .. } = self;
        // Whole lines lie one after the other.
        let (count, width) =
            if columns.len() == grid.width { (1, lines.len() * grid.width) } else { (lines.len(), columns.len()) };
        with_array!(Feature, feature, array => {
            if let Some(out) = array.as_slice_mut() {
                for line in 0..count {
                    let first = (lines.start + line) * grid.width + columns.start;
                    let values = &values[line * width * grid.channels..][..width * grid.channels];
                    grid.scatter_int(values, first..first + width, (shape, &mut *out), scale, tile, kernels);
                }
            }
        });
    }
}

/// Makes a feature one of this layout, keeping its memory if it is one.
pub(crate) fn reshape(feature: &mut Feature, layout: &Layout) {
    let shape = layout.padded_shape();
    let shape = &shape[..layout.dims().len()];
    // Arrays that are not in standard order are not ours.
    let standard = with_array!(Feature, &*feature, array => array.is_standard_layout());
    if feature.dtype() != layout.dtype || feature.shape() != shape || !standard {
        // The old one goes before the new one comes.
        *feature = Feature::zeros(layout.dtype, &[0]);
        *feature = Feature::zeros(layout.dtype, shape);
    }
}

/// Fills a feature with zeros.
pub(crate) fn clear(feature: &mut Feature) {
    with_array!(Feature, feature, array => array.fill(Element::from_f32(0.0)));
}

/// All symbols -> dequantize -> inverse transform, into `scratch.decoded`.
fn inverse_symbols(profile: &Profile, grid: &Grid, scratch: &mut Scratch, coding: &Coding<'_>) -> Result<()> {
    let Scratch { decoded, symbols, transforms, plan, .. } = scratch;
    let blocks = Blocks::new(grid, profile.block());
    let whole = |rows: Range<usize>| Strip { rows, columns: 0..blocks.columns };
    // Every value is written.
    decoded.resize(grid.len(), 0);
    let size = decoded.len();
    let mut rest = &mut decoded[..];
    let jobs = coding.chunk_rows().map(|rows| {
        let lines = if rows.is_empty() { 0 } else { blocks.area(grid, &whole(rows.clone())).0.len() };
        let (own, others) = std::mem::take(&mut rest).split_at_mut(lines * grid.width * grid.channels);
        rest = others;
        (rows, own)
    });
    let width = blocks.columns * plan.active.len();
    threads::each_sharing(jobs, (transforms, usize::MAX), size, |(rows, values), scratch| {
        let symbols = &symbols[rows.start * width..rows.end * width];
        transform::inverse(profile, grid, &whole(rows), plan, (symbols, values), scratch, coding.kernels);
        Ok(())
    })
}

/// A feature to what its analysis network reads, or, without one, to the values that are transformed.
fn begin_analysis(
    view: &FeatureView<'_>,
    (feature, latent): (&Grid, &Grid),
    profile: &Profile,
    scratch: &mut Scratch,
    kernels: Kernels,
) -> Result<()> {
    let Scratch { values, tile, networks, .. } = scratch;
    match &profile.analysis {
        None => gather_int(view, feature, profile.exponent, values, tile, kernels),
        Some(Analysis::Integer(_)) => {
            gather_int(view, feature, profile.exponent, &mut networks.feature, tile, kernels);
        }
        Some(Analysis::Float(_)) => gather_f32(view, feature, &mut networks.source),
    }
    // Every value is written.
    values.resize(latent.len(), 0);
    Ok(())
}

/// Runs the analysis network, if there is one, into the values that are transformed.
fn analyse(
    (feature, latent): (&Grid, &Grid),
    profile: &Profile,
    quality: i16,
    scratch: &mut Scratch,
    kernels: Kernels,
) -> Result<()> {
    let Scratch { values, networks, .. } = scratch;
    let NetworkScratch { integer, float, feature: integers, source, latent: floats, .. } = networks;
    let size = (feature.height, feature.width);
    let (from, to) = (size.0 * size.1 * feature.channels, latent.height * latent.width * latent.channels);
    if from == 0 || to == 0 {
        return Ok(());
    }
    for plane in 0..feature.planes {
        let out = &mut values[plane * to..][..to];
        match &profile.analysis {
            None => {}
            Some(Analysis::Integer(network)) => {
                integer.run(network, (&integers[plane * from..][..from], size), quality, out, kernels)?;
            }
            Some(Analysis::Float(network)) => {
                floats.resize(to, 0.0);
                float.run(network, (&source[plane * from..][..from], size), quality, floats, kernels)?;
                let scale = power_of_two(profile.latent_exponent);
                for (value, &x) in out.iter_mut().zip(floats.iter()) {
                    *value = to_int(x, scale);
                }
            }
        }
    }
    Ok(())
}

impl Profile {
    /// The symbols of a feature at a step scale (as [`Quality::Scale`]): `[planes, block rows, block columns, coder
    /// channels]`, 0 where a coder channel is silent. An encoder codes these symbols, but for what its rate decisions
    /// lower (none if the profile has no Lagrangian, or `rdo(false)`): for checking another implementation.
    ///
    /// # Errors
    /// `InvalidInput` if the feature does not fit the profile, or the scale is no positive number.
    pub fn symbols<'a>(&self, feature: impl Into<FeatureView<'a>>, scale: f32) -> Result<ArrayD<i32>> {
        let view = feature.into();
        view.checked()?;
        let layout = Layout::new(view.dtype(), view.axes(), view.shape())?;
        layout.elements()?;
        if layout.channels() != self.layout.channels() {
            let (own, given) = (self.layout.channels(), layout.channels());
            return Err(Error::invalid(format!("the feature has {given} channels, the profile {own}")));
        }
        let index = scale_index(scale)?;
        let feature = Grid::new(&layout);
        let grid = self.latent(&feature, &Limits::UNBOUNDED)?;
        let kernels = Kernels::best();
        let mut scratch = Scratch::default();
        begin_analysis(&view, (&feature, &grid), self, &mut scratch, kernels)?;
        analyse((&feature, &grid), self, index, &mut scratch, kernels)?;
        scratch.plan_for(self, index);
        let blocks = Blocks::new(&grid, self.block());
        let Scratch { values, symbols, plan, .. } = &mut scratch;
        // Every symbol is written.
        symbols.resize(blocks.count() * plan.active.len(), 0);
        let sink = Quantized { plan, symbols };
        transform::forward(self, &grid, 0..blocks.rows, values, sink, &mut TransformScratch::default(), kernels);
        let channels = self.coder_channels();
        let mut all = ArrayD::zeros(vec![grid.planes, blocks.plane_rows, blocks.columns, channels]);
        if let Some(all) = all.as_slice_mut()
            && !plan.active.is_empty()
        {
            for (all, symbols) in all.chunks_exact_mut(channels).zip(symbols.chunks_exact(plan.active.len())) {
                for (&channel, &symbol) in plan.active.iter().zip(symbols) {
                    all[channel as usize] = symbol;
                }
            }
        }
        Ok(all)
    }
}

/// What the transform sees of a feature, and what becomes of it, for fits and experts.
#[derive(Debug, Default)]
pub(crate) struct Latents(Scratch);

impl Latents {
    /// The integer values at a quality; `first` for a feature that was not the last one asked for.
    pub fn of(
        &mut self,
        feature: &Feature,
        profile: &Profile,
        quality: i16,
        first: bool,
        kernels: Kernels,
    ) -> Result<&[i16]> {
        let grid = Grid::new(&profile.layout);
        let latent = profile.latent(&grid, &Limits::UNBOUNDED)?;
        if first {
            let view = FeatureView::from(feature).with_axes(profile.layout.axes);
            begin_analysis(&view, (&grid, &latent), profile, &mut self.0, kernels)?;
        }
        analyse((&grid, &latent), profile, quality, &mut self.0, kernels)?;
        Ok(&self.0.values)
    }

    /// What the synthesis network, if there is one, makes of such values.
    pub fn back(&mut self, values: &[i16], profile: &Profile, quality: i16, kernels: Kernels) -> Result<&[f32]> {
        let grid = Grid::new(&profile.layout);
        let latent = profile.latent(&grid, &Limits::UNBOUNDED)?;
        if values.len() != latent.len() {
            return Err(Error::invalid(format!("{} values, a latent has {}", values.len(), latent.len())));
        }
        let networks = &mut self.0.networks;
        let scale = power_of_two(-profile.latent_exponent);
        networks.latent.clear();
        networks.latent.extend(values.iter().map(|&value| f32::from(value) * scale));
        if profile.synthesis.is_none() {
            return Ok(&networks.latent);
        }
        synthesise((&grid, &latent), profile, quality, networks, kernels)?;
        Ok(&networks.made)
    }
}

/// What the synthesis network makes of a latent of integers.
fn synthesise_integers<'n>(
    grids: (&Grid, &Grid),
    profile: &Profile,
    (quality, integers): (i16, &[i16]),
    networks: &'n mut NetworkScratch,
    kernels: Kernels,
) -> Result<&'n [f32]> {
    let scale = power_of_two(-profile.latent_exponent);
    networks.latent.clear();
    networks.latent.extend(integers.iter().map(|&value| f32::from(value) * scale));
    synthesise(grids, profile, quality, networks, kernels)?;
    Ok(&networks.made)
}

/// What becomes of decoded latents, for searches on the GPU.
#[cfg(feature = "gpu")]
#[derive(Debug, Default)]
pub(crate) struct Synthesised(NetworkScratch);

#[cfg(feature = "gpu")]
impl Synthesised {
    /// The feature that a synthesis network makes of a latent of integers.
    pub fn of(&mut self, profile: &Profile, grids: (&Grid, &Grid), integers: &[i16], quality: i16) -> Result<&[f32]> {
        synthesise_integers(grids, profile, (quality, integers), &mut self.0, Kernels::of(&Backend::detect())?)
    }
}

/// Runs the synthesis network on the latent; what it makes beyond the feature is dropped.
fn synthesise(
    (feature, latent): (&Grid, &Grid),
    profile: &Profile,
    quality: i16,
    networks: &mut NetworkScratch,
    kernels: Kernels,
) -> Result<()> {
    let NetworkScratch { float, source, latent: latents, made, .. } = networks;
    let size = (latent.height, latent.width);
    let from = size.0 * size.1 * latent.channels;
    made.resize(feature.len(), 0.0);
    let Some(network) = profile.synthesis.as_ref().filter(|_| from > 0 && !made.is_empty()) else {
        return Ok(());
    };
    let (height, width) = network.output_size(size).ok_or(too_small(size))?;
    let row = feature.width * feature.channels;
    for (latent, made) in latents.chunks_exact(from).zip(made.chunks_exact_mut(feature.height * row)) {
        if (height, width) == (feature.height, feature.width) {
            float.run(network, (latent, size), quality, made, kernels)?;
            continue;
        }
        source.resize(height * width * feature.channels, 0.0);
        float.run(network, (latent, size), quality, source, kernels)?;
        for (made, whole) in made.chunks_exact_mut(row).zip(source.chunks_exact(width * feature.channels)) {
            made.copy_from_slice(&whole[..row]);
        }
    }
    Ok(())
}

/// 2^exponent as f32; exponents beyond f32's normal range are clamped.
pub(crate) fn power_of_two(exponent: i32) -> f32 {
    f32::from_bits(((exponent.clamp(-126, 127) + 127) as u32) << 23)
}

fn gather_int(
    view: &FeatureView<'_>,
    grid: &Grid,
    exponent: i32,
    values: &mut Vec<i16>,
    tile: &mut Vec<i16>,
    kernels: Kernels,
) {
    // Every value is written.
    values.resize(grid.len(), 0);
    let scale = power_of_two(exponent);
    with_array!(ViewData, view.data(), array => grid.gather_int(array, values, scale, tile, kernels));
}

pub(crate) fn gather_f32(view: &FeatureView<'_>, grid: &Grid, values: &mut Vec<f32>) {
    values.clear();
    values.resize(grid.len(), 0.0);
    with_array!(ViewData, view.data(), array => grid.gather(array, values, |x| x.to_f32()));
}

pub(crate) fn scale_index(scale: f32) -> Result<i16> {
    let index = quality::index_of_scale(scale)
        .ok_or_else(|| Error::invalid(format!("a quality scale must be a positive number, not {scale}")))?;
    Ok(index as i16)
}
