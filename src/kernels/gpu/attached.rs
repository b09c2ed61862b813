//! A GPU beside an encoder or a decoder of the CPU: what it takes over, and when.

use std::sync::Arc;

use crate::error::{Error, Result};
use crate::kernels::gpu::device::Device;
use crate::kernels::gpu::{Decoder, Encoder};
use crate::profile::Profile;
use crate::quality::Quality;
use crate::stream::Stream;
use crate::tensor::{Feature, FeatureView};

/// When the GPU is used.
#[derive(Debug, Clone, Copy, Default)]
struct Policy {
    /// For features of any size, not only from the crossover on.
    always: bool,
    /// The CPU goes on if the GPU fails.
    fallback: bool,
}

impl Policy {
    /// Whether a feature of this many elements is worth the trip; where that cannot be measured, it is not.
    fn takes(self, device: &Device, elements: usize) -> bool {
        self.always || device.crossover().is_ok_and(|crossover| elements >= crossover)
    }

    /// The outcome, unless the CPU shall go on.
    fn outcome<T>(self, result: Result<T>) -> Option<Result<T>> {
        match result {
            Err(Error::Backend(_)) if self.fallback => None,
            result => Some(result),
        }
    }
}

/// A GPU beside an encoder.
#[derive(Debug, Clone)]
pub(crate) struct AttachedEncoder {
    device: Device,
    policy: Policy,
    encoder: Encoder,
}

impl AttachedEncoder {
    /// For an encoder with a profile or, without one, in mode `Plain`.
    pub fn new(device: &Device, profile: Option<&Arc<Profile>>, always: bool, fallback: bool) -> AttachedEncoder {
        let encoder = match profile {
            Some(profile) => Encoder::with_profile(device, profile.clone()),
            None => Encoder::plain(device),
        };
        AttachedEncoder { device: device.clone(), policy: Policy { always, fallback }, encoder }
    }

    /// The stream of a feature; nothing if the CPU shall make it.
    pub fn encode(
        &mut self,
        view: &FeatureView<'_>,
        quality: Quality,
        options: (Option<usize>, Option<usize>, bool, bool),
    ) -> Option<Result<Vec<u8>>> {
        if !self.encoder.runs_networks() || !self.policy.takes(&self.device, view.len()) {
            return None;
        }
        self.encoder.set_options(options);
        let streams = self.encoder.encode_on_gpu(&[view.clone().into()], quality);
        let stream =
            streams.and_then(|mut streams| streams.pop().ok_or(Error::Backend("the GPU gave no stream".into())));
        self.policy.outcome(stream)
    }
}

/// A GPU beside a decoder.
#[derive(Debug, Clone)]
pub(crate) struct AttachedDecoder {
    device: Device,
    policy: Policy,
    decoder: Decoder,
}

impl AttachedDecoder {
    pub fn new(device: &Device, always: bool, fallback: bool) -> AttachedDecoder {
        AttachedDecoder { device: device.clone(), policy: Policy { always, fallback }, decoder: Decoder::new(device) }
    }

    /// The feature of a stream; nothing if the CPU shall decode it.
    pub fn decode(&mut self, stream: &Stream<'_>) -> Option<Result<Feature>> {
        if !self.policy.takes(&self.device, stream.frame.planes.feature.len()) {
            return None;
        }
        let feature = self.decoder.decode_stream(stream);
        self.policy.outcome(feature)
    }
}
