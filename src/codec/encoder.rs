//! From a feature to a stream.

use std::ops::Range;
use std::sync::Arc;

use crate::backend::Backend;
use crate::bottleneck::{Bottleneck, Planes};
use crate::chunk::{self, Coding, LayerScratch, Worker};
use crate::container::{Header, Layout, MAX_LAYERS, Mode};
use crate::datagram::{self, Datagrams};
use crate::error::{Error, Result};
use crate::geometry::{Grid, gather_f32, gather_int};
use crate::kernels::Kernels;
use crate::kernels::portable::{ContextRule, MAX_LANES, Strip, power_of_two};
use crate::layers::LayerPlans;
use crate::limits::Limits;
use crate::lossless::{self, Lossless};
use crate::packed::{self, Packed};
use crate::plain;
use crate::plan::{self, Plan};
use crate::profile::Profile;
use crate::quality::{Quality, scale_index};
use crate::rate;
use crate::tensor::{FeatureView, ViewData, with_array};
use crate::threads;
use crate::transform::{self, Blocks, Kept, Quantized, TransformScratch};

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
    planning: plain::PlanScratch,
    row: Vec<i32>,
    bottleneck: Bottleneck,
    plan: Plan,
    layers: LayerPlans,
    layer_scratch: LayerScratch,
    /// Profile and quality index that `plan` is for.
    planned: Option<(u64, i16)>,
    params: Vec<u8>,
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

    /// Encodes one feature as datagrams, parts that decode alone: see [`datagram`](crate::datagram). A budget
    /// ([`Quality::Bytes`]) is that of all of them, with two bytes more for each.
    ///
    /// # Errors
    /// As [`Encoder::encode`]; `InvalidInput` without a profile, with options out of range, or for
    /// [`Encoder::layers`]; `LimitExceeded` if 255 datagrams of that size cannot hold the feature.
    pub fn datagrams<'a>(
        &mut self,
        feature: impl Into<FeatureView<'a>>,
        quality: Quality,
        options: &Datagrams,
    ) -> Result<Vec<Vec<u8>>> {
        let view = feature.into();
        view.checked()?;
        let Method::Profile(profile) = &self.method else {
            return Err(Error::invalid("datagrams need a profile"));
        };
        if self.layers != 1 {
            return Err(Error::invalid("datagrams have no layers"));
        }
        let profile = profile.clone();
        let layout = Layout::new(view.dtype(), view.axes(), view.shape())?;
        layout.elements()?;
        let mut packed = Vec::new();
        self.encode_profile(&profile, &view, layout, quality, Some(options), &mut packed)?;
        Ok(datagram::split(&packed))
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
                self.encode_profile(&profile, view, layout, quality, None, out)?;
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
        datagrams: Option<&Datagrams>,
        out: &mut Vec<u8>,
    ) -> Result<()> {
        profile.check_channels(&layout)?;
        let grid = Grid::new(&layout);
        // feature -> integers -> analysis -> transform
        let kernels = Kernels::of(&self.backend)?;
        let scratch = &mut self.scratch;
        let planes = Planes { feature: grid, latent: profile.latent(&grid, &Limits::UNBOUNDED)? };
        let grid = planes.latent;
        // Until it depends on the quality, there is one latent for all.
        let fixed = profile.analysis.as_ref().is_none_or(|analysis| !analysis.depends_on_quality());
        scratch.bottleneck.take(view, &planes, profile, (&mut scratch.values, &mut scratch.tile), kernels);
        if fixed {
            scratch.bottleneck.analyse(&planes, profile, 0, &mut scratch.values, kernels)?;
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
            let Scratch { plan, layers, layer_scratch, symbols, workers, .. } = scratch;
            if let Some(options) = datagrams {
                return datagram::pack((profile, index), &layout, (&blocks, symbols), options, out);
            }
            if header.layers > 1 {
                layers.set(profile, index, header.layers);
                return chunk::encode_layers(&coding, header, layers, symbols, (workers, layer_scratch), out);
            }
            chunk::encode(&coding, header, &[], plan, symbols, workers, out)
        };
        if let Quality::Scale(scale) = quality {
            let index = scale_index(scale)?;
            if lambda_at(index) == 0 {
                // Each block is quantised while it is at hand.
                scratch.plan_for(profile, index);
                if !fixed {
                    scratch.bottleneck.analyse(&planes, profile, index, &mut scratch.values, kernels)?;
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
                scratch.bottleneck.analyse(&planes, profile, index, &mut scratch.values, kernels)?;
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
                gather_f32(view, &planes.feature, &mut scratch.source);
                rate::to_sqnr(target, &mut self.best, out, |index, out| {
                    at(index, scratch, out)?;
                    inverse_symbols(profile, &grid, scratch, &coding)?;
                    let Scratch { decoded, bottleneck, source, .. } = &mut *scratch;
                    let made = bottleneck.synthesise_integers(&planes, profile, (index, decoded), kernels)?;
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
