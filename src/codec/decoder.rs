//! From a stream to a feature.

use std::sync::Arc;

use crate::backend::Backend;
use crate::bottleneck::Bottleneck;
use crate::chunk::{self, Coding};
use crate::codec::{Desk, restore};
use crate::container::{Header, Mode, Reader};
use crate::error::Result;
use crate::kernels::Kernels;
use crate::kernels::portable::Strip;
use crate::layers::LayerPlans;
use crate::limits::Limits;
use crate::lossless;
use crate::packed;
use crate::plan::Plan;
use crate::profile::Profile;
use crate::stream::{Source, Stream};
use crate::tensor::Feature;

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

#[derive(Debug, Default, Clone)]
struct Scratch {
    plan: Plan,
    /// Profile and quality index that `plan` is for.
    planned: Option<(u64, i16)>,
    layers: LayerPlans,
    desks: Vec<Desk>,
    bottleneck: Bottleneck,
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

    /// Decodes on this GPU, as [`Encoder::gpu`](crate::Encoder::gpu) encodes.
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

    fn decode_stream(&mut self, stream: &Stream<'_>, feature: &mut Feature) -> Result<()> {
        let kernels = Kernels::of(&self.backend)?;
        let Scratch { plan, planned, layers, desks, bottleneck } = &mut self.scratch;
        let frame = &stream.frame;
        let wanted = match &frame.source {
            Source::Profile(profile, quality) => Some((profile.hash, *quality)),
            Source::Plain(_) => None,
        };
        let present = 1 + stream.finer.iter().flatten().count();
        let plan = match (&frame.source, stream.layers) {
            (Source::Profile(profile, _), Some((finest, count))) => {
                layers.set(profile, finest, count);
                &layers.plans[present - 1]
            }
            _ if wanted.is_none() || *planned != wanted => {
                frame.make_plan(plan);
                *planned = wanted;
                &*plan
            }
            _ => &*plan,
        };
        // Each worker has the contexts of a row and a strip of its own, of every layer.
        let output = frame.planes.feature.len() * frame.layout.dtype.size();
        let own = present * (plan.channels * frame.blocks.columns + (1 << 19));
        let desks = (desks, ((output / 8 + (4 << 20)) / own).max(1));
        let coding = stream.coding(kernels);
        restore(frame, plan, (feature, bottleneck), kernels, |sink| {
            decode_chunks(&coding, (plan, layers), stream, desks, sink)
        })
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
