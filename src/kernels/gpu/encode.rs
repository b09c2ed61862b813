//! Features to streams on the GPU.

use std::sync::Arc;

use half::f16;
use ndarray::ArrayD;

use crate::backend::Backend;
use crate::bottleneck::{Bottleneck, Planes};
use crate::container::{Header, Layout, Mode};
use crate::error::{Error, Result};
use crate::kernels::Kernels;
use crate::kernels::gpu::coder::{
    CAPACITIES, Core, FLOAT_ANALYSIS, Group, analysis_bytes, most_items, padded_elements,
};
use crate::kernels::gpu::device::{Device, failed};
use crate::kernels::gpu::feature::Source;
use crate::kernels::gpu::plain::PlainFeatures;
use crate::kernels::gpu::recorder::{Pool, Recorder};
use crate::kernels::gpu::tables::Tables;
use crate::kernels::portable::{MAX_LANES, power_of_two};
use crate::lossless::{self, Lossless};
use crate::network::Analysis;
use crate::plan::Plan;
use crate::profile::Profile;
use crate::quality::{Quality, scale_index};
use crate::rate;
use crate::tensor::{Dtype, FeatureView};

/// Turns features into streams on a GPU. It keeps its buffers, its pipelines, and the tables of its profile.
///
/// ```no_run
/// use narrows::{Quality, gpu};
/// use ndarray::Array3;
///
/// let device = gpu::Device::request()?;
/// let features = [Array3::<f32>::zeros((64, 56, 56)), Array3::zeros((64, 56, 56))];
/// let streams = gpu::Encoder::plain(&device).chunks(28).encode_batch(&features.each_ref().map(Into::into), Quality::default())?;
/// assert_eq!(streams.len(), 2);
/// # Ok::<(), narrows::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Encoder {
    profile: Option<Arc<Profile>>,
    chunks: Option<usize>,
    fallback: bool,
    cpu: crate::Encoder,
    core: Core,
    best: Vec<u8>,
}

impl Encoder {
    fn new(device: &Device, profile: Option<Arc<Profile>>, cpu: crate::Encoder) -> Encoder {
        let core = Core {
            device: device.clone(),
            pool: Pool::default(),
            tables: Tables::default(),
            lanes: None,
            rdo: true,
            checksums: false,
            capacity: 0,
        };
        Encoder { profile, chunks: None, fallback: false, cpu, core, best: Vec::new() }
    }

    /// Encodes with a profile, as [`crate::Encoder::with_profile`].
    pub fn with_profile(device: &Device, profile: Arc<Profile>) -> Encoder {
        Self::new(device, Some(profile.clone()), crate::Encoder::with_profile(profile))
    }

    /// Encodes without a profile, as [`crate::Encoder::plain`].
    pub fn plain(device: &Device) -> Encoder {
        Self::new(device, None, crate::Encoder::plain())
    }

    /// As [`crate::Encoder::chunks`]: each chunk is coded by one workgroup, so this many of them work on a feature.
    pub fn chunks(mut self, chunks: usize) -> Self {
        self.cpu = self.cpu.chunks(chunks);
        self.chunks = Some(chunks);
        self
    }

    /// As [`crate::Encoder::lanes`].
    pub fn lanes(mut self, lanes: usize) -> Self {
        self.cpu = self.cpu.lanes(lanes);
        self.core.lanes = Some(lanes);
        self
    }

    /// As [`crate::Encoder::rdo`].
    pub fn rdo(mut self, rdo: bool) -> Self {
        self.cpu = self.cpu.rdo(rdo);
        self.core.rdo = rdo;
        self
    }

    /// As [`crate::Encoder::checksums`].
    pub fn checksums(mut self, checksums: bool) -> Self {
        self.cpu = self.cpu.checksums(checksums);
        self.core.checksums = checksums;
        self
    }

    /// Whether to go on with the CPU if the GPU fails or is lost. Default: no, the error is returned. Features in buffers
    /// of a lost GPU are lost with it.
    pub fn fallback(mut self, on: bool) -> Self {
        self.fallback = on;
        self
    }

    /// Encodes one feature.
    ///
    /// # Errors
    /// As [`crate::Encoder::encode`], and `Backend` if the GPU fails.
    pub fn encode<'a>(&mut self, feature: impl Into<Source<'a>>, quality: Quality) -> Result<Vec<u8>> {
        let streams = self.encode_batch(&[feature.into()], quality)?;
        streams.into_iter().next().ok_or(Error::Backend("the GPU gave no stream".into()))
    }

    /// Encodes features, of any shapes, at one quality. With [`Quality::Scale`] a profile's features are coded in one
    /// submission, those of mode `Plain` in five, between which counters come back and plans are made; other qualities search for each feature on its own.
    ///
    /// # Errors
    /// As [`Encoder::encode`], for the first feature that fails.
    pub fn encode_batch(&mut self, features: &[Source<'_>], quality: Quality) -> Result<Vec<Vec<u8>>> {
        match self.encode_on_gpu(features, quality) {
            Err(Error::Backend(_)) if self.fallback && features.iter().all(|f| matches!(f, Source::View(_))) => {
                features
                    .iter()
                    .map(|feature| match feature {
                        Source::View(view) => self.cpu.encode(view.clone(), quality),
                        Source::Buffer(_) => {
                            Err(failed("a feature in a buffer of the GPU cannot be encoded on the CPU"))
                        }
                    })
                    .collect()
            }
            result => result,
        }
    }

    /// Fills what is left over of earlier features with garbage.
    #[cfg(test)]
    pub(crate) fn poison(&self) {
        self.core.pool.poison(&self.core.device);
    }

    /// Takes over the options of another encoder.
    pub(crate) fn set_options(&mut self, (chunks, lanes, rdo, checksums): (Option<usize>, Option<usize>, bool, bool)) {
        self.chunks = chunks;
        self.core.lanes = lanes;
        self.core.rdo = rdo;
        self.core.checksums = checksums;
    }

    /// Whether the analysis network of its profile runs on the GPU, if it has one.
    pub(crate) fn runs_networks(&self) -> bool {
        let analysis = self.profile.as_ref().and_then(|profile| profile.analysis.as_ref());
        !matches!(analysis, Some(Analysis::Float(_)))
    }

    /// As [`Encoder::encode_batch`], without going on with the CPU.
    pub(crate) fn encode_on_gpu(&mut self, features: &[Source<'_>], quality: Quality) -> Result<Vec<Vec<u8>>> {
        if self.core.lanes.is_some_and(|lanes| !lanes.is_power_of_two() || lanes > MAX_LANES) {
            return Err(Error::invalid("lanes must be 1, 2, 4, 8, 16 or 32"));
        }
        if !self.runs_networks() {
            return Err(FLOAT_ANALYSIS);
        }
        let layouts = features.iter().map(Source::layout).collect::<Result<Vec<_>>>()?;
        if let Some(profile) = &self.profile {
            for layout in &layouts {
                if layout.channels() != profile.layout.channels() {
                    return Err(Error::invalid(format!(
                        "the feature has {} channels, profile {:016x} was fitted on {}",
                        layout.channels(),
                        profile.hash,
                        profile.layout.channels()
                    )));
                }
            }
        }
        let device = self.core.device.clone();
        let mut streams = device.guarded(|| match (self.profile.clone(), quality) {
            (Some(profile), Quality::Scale(scale)) => {
                let index = scale_index(scale)?;
                self.encode_scaled(&profile, features, &layouts, index)
            }
            (None, Quality::Scale(scale)) => {
                let index = scale_index(scale)?;
                let mut plain = PlainFeatures::new(&mut self.core, features, self.chunks)?;
                plain.code(&mut self.core, index)
            }
            (profile, _) => features
                .iter()
                .zip(&layouts)
                .map(|(feature, layout)| match &profile {
                    Some(profile) => self.search_with_profile(profile, feature, layout, quality),
                    None => self.search_plain(feature, layout, quality),
                })
                .collect(),
        })?;
        for ((stream, feature), &layout) in streams.iter_mut().zip(features).zip(&layouts) {
            if stream.len() > layout.elements()? * layout.dtype.size() + lossless::OVERHEAD {
                *stream = device.guarded(|| self.lossless(feature, layout))?;
            }
        }
        Ok(streams)
    }

    /// The lossless stream of a feature whose own would be longer.
    fn lossless(&mut self, feature: &Source<'_>, layout: Layout) -> Result<Vec<u8>> {
        let header = Header { layout: Some(layout), checksums: self.core.checksums, ..Header::new(Mode::Lossless) };
        let mut out = Vec::new();
        let mut encode = |view: FeatureView<'_>| Lossless::default().encode(&view, &header, &mut out);
        match feature {
            Source::View(view) => encode(view.clone())?,
            Source::Buffer(_) => {
                let values = self.core.pool.get(&self.core.device, "values", 0, 4)?;
                let group = Group::new(&layout, (1, 1), None, &[0], values);
                let source = self.core.source_of(feature, &layout, &group)?;
                let shape = layout.shape();
                let mut array = ArrayD::<f32>::zeros(shape.as_slice());
                group.grid.scatter(&source, &shape, array.as_slice_mut().unwrap_or_default());
                match layout.dtype {
                    Dtype::F16 => encode(FeatureView::from(&array.mapv(f16::from_f32)))?,
                    _ => encode(FeatureView::from(&array))?,
                }
            }
        }
        Ok(out)
    }

    fn encode_scaled(
        &mut self,
        profile: &Arc<Profile>,
        features: &[Source<'_>],
        layouts: &[Layout],
        index: i16,
    ) -> Result<Vec<Vec<u8>>> {
        let mut plan = Plan::default();
        plan.set(profile, index);
        let mut streams = vec![Vec::new(); features.len()];
        self.core.until_it_fits(|core| {
            // Features of one shape are coded side by side, as many as the buffers hold.
            let mut members: Vec<Vec<usize>> = Vec::new();
            for (i, layout) in layouts.iter().enumerate() {
                let coded = 4 * padded_elements(layout, profile, self.chunks)? * CAPACITIES[core.capacity];
                let most = most_items(&core.device, coded.max(analysis_bytes(layout, profile)));
                match members.iter_mut().find(|group| layouts[group[0]] == *layout && group.len() < most) {
                    Some(group) => group.push(i),
                    None => members.push(vec![i]),
                }
            }
            let device = core.device.clone();
            let mut recorder = Recorder::new(&device);
            let (mut groups, mut coded) = (Vec::new(), Vec::new());
            for (number, members) in members.iter().enumerate() {
                let group = core.record_forward(&mut recorder, (profile, index), features, members, self.chunks)?;
                let coding = core.profile_coding(profile, &group, &plan, index)?;
                coded.push(core.record_coding(&mut recorder, number, &group, &coding)?);
                groups.push(group);
            }
            let Some(answers) = core.collect(recorder, &coded)? else { return Ok(false) };
            for (group, answer) in groups.iter().zip(answers) {
                let coding = core.profile_coding(profile, group, &plan, index)?;
                for (&member, stream) in group.members.iter().zip(answer.streams(group, &coding, core.lanes)) {
                    streams[member] = stream;
                }
            }
            Ok(true)
        })?;
        Ok(streams)
    }

    /// One feature with a profile, at the quality that meets a budget or a target: the coefficients stay on the GPU.
    fn search_with_profile(
        &mut self,
        profile: &Arc<Profile>,
        feature: &Source<'_>,
        layout: &Layout,
        quality: Quality,
    ) -> Result<Vec<u8>> {
        let device = self.core.device.clone();
        let Encoder { core, best, chunks, .. } = self;
        let forward = |core: &mut Core, index: i16| {
            let mut recorder = Recorder::new(&device);
            let features = std::slice::from_ref(feature);
            let group = core.record_forward(&mut recorder, (profile, index), features, &[0], *chunks)?;
            recorder.finish(&[])?;
            Ok::<_, Error>(group)
        };
        let depends = profile.analysis.as_ref().is_some_and(Analysis::depends_on_quality);
        let group = forward(core, 0)?;
        let mut plan = Plan::default();
        let mut out = Vec::new();
        let mut bottleneck = Bottleneck::default();
        let mut at = |index: i16, out: &mut Vec<u8>, core: &mut Core| {
            plan.set(profile, index);
            if depends {
                // Into the same buffers.
                forward(core, index)?;
            }
            let coding = core.profile_coding(profile, &group, &plan, index)?;
            *out = core.code(&[(&group, &coding)])?.pop().unwrap_or_default();
            Ok(())
        };
        match quality {
            Quality::Bytes(budget) => rate::to_budget(budget, best, &mut out, |index, out| at(index, out, core))?,
            Quality::Sqnr(target) => {
                let source = core.source_of(feature, layout, &group)?;
                rate::to_sqnr(target, best, &mut out, |index, out| {
                    at(index, out, core)?;
                    let mut plan = Plan::default();
                    plan.set(profile, index);
                    let decoded = core.decoded_of(&group, &plan, Some(profile))?;
                    // A network runs on the CPU, so that the same quality is found there.
                    let planes = Planes { feature: group.grid, latent: group.latent };
                    let kernels = Kernels::of(&Backend::detect())?;
                    let made = bottleneck.synthesise_integers(&planes, profile, (index, &decoded), kernels)?;
                    Ok(rate::sqnr(&source, made.iter().copied()))
                })?;
            }
            Quality::Scale(scale) => at(scale_index(scale)?, &mut out, core)?,
        }
        Ok(out)
    }

    /// One feature without a profile, likewise.
    fn search_plain(&mut self, feature: &Source<'_>, layout: &Layout, quality: Quality) -> Result<Vec<u8>> {
        let Encoder { core, best, chunks, .. } = self;
        let mut plain = PlainFeatures::new(core, std::slice::from_ref(feature), *chunks)?;
        let mut out = Vec::new();
        let at = |index: i16, out: &mut Vec<u8>, core: &mut Core, plain: &mut PlainFeatures| {
            *out = plain.code(core, index)?.pop().unwrap_or_default();
            Ok(())
        };
        match quality {
            Quality::Scale(scale) => at(scale_index(scale)?, &mut out, core, &mut plain)?,
            Quality::Bytes(budget) => {
                rate::to_budget(budget, best, &mut out, |index, out| at(index, out, core, &mut plain))?;
            }
            Quality::Sqnr(target) => {
                let source = core.source_of(feature, layout, &plain.features[0].group)?;
                rate::to_sqnr(target, best, &mut out, |index, out| {
                    at(index, out, core, &mut plain)?;
                    let plain = &plain.features[0];
                    let decoded = core.decoded_of(&plain.group, &plain.plan, None)?;
                    let scale = power_of_two(-plain.exponent);
                    Ok(rate::sqnr(&source, decoded.iter().map(|&value| f32::from(value) * scale)))
                })?;
            }
        }
        Ok(out)
    }
}
