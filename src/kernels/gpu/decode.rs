//! Streams to features on the GPU.

use std::collections::HashMap;
use std::sync::Arc;

use crate::chunk::Part;
use crate::container::{Header, Layout, Mode, Reader};
use crate::error::{Error, Result};
use crate::kernels::gpu::coder::{dense_layout, workgroup_for};
use crate::kernels::gpu::device::Device;
use crate::kernels::gpu::feature::{FeatureBuffer, feature_of};
use crate::kernels::gpu::network::Run;
use crate::kernels::gpu::params::{Params, STATE_WORDS, STATUS_WORDS};
use crate::kernels::gpu::prepared::{Prepared, Verdict};
use crate::kernels::gpu::recorder::{Pool, Recorder, one_each, portions, strided, words_of};
use crate::kernels::gpu::tables::Tables;
use crate::kernels::gpu::upload;
use crate::kernels::portable::MAX_LANES;
use crate::limits::Limits;
use crate::network::too_small;
use crate::plan::Plan;
use crate::profile::Profile;
use crate::stream::{Source as StreamSource, Stream};
use crate::tensor::{Dtype, Feature};
use crate::transform::Blocks;

/// Turns streams back into features on a GPU. It keeps its buffers and any number of profiles.
#[derive(Debug, Clone)]
pub struct Decoder {
    device: Device,
    profiles: Vec<Arc<Profile>>,
    limits: Limits,
    fallback: bool,
    pool: Pool,
    tables: Tables,
    cpu: crate::Decoder,
}

/// Where a decoded feature goes.
#[derive(Clone, Copy)]
enum Target<'a> {
    Host,
    Buffer(&'a FeatureBuffer),
}

/// Streams on their way: the status of their chunks, and integer values of which only the last step is missing.
struct Recorded {
    status: wgpu::Buffer,
    params: Params,
    state: wgpu::Buffer,
    values: wgpu::Buffer,
    /// Smallest and largest value of each channel.
    limits: wgpu::Buffer,
    /// Whether `values` are floats that a synthesis network made.
    made: bool,
}

impl Decoder {
    /// A decoder without profiles, with the default limits.
    pub fn new(device: &Device) -> Decoder {
        Decoder {
            device: device.clone(),
            profiles: Vec::new(),
            limits: Limits::default(),
            fallback: false,
            pool: Pool::default(),
            tables: Tables::default(),
            cpu: crate::Decoder::new(),
        }
    }

    /// Adds a profile; streams find theirs by its hash.
    pub fn profile(mut self, profile: Arc<Profile>) -> Self {
        self.cpu = self.cpu.profile(profile.clone());
        self.profiles.push(profile);
        self
    }

    /// Sets the limits.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.cpu = self.cpu.limits(limits);
        self.limits = limits;
        self
    }

    /// Whether to go on with the CPU if the GPU fails or is lost. Default: no, the error is returned.
    pub fn fallback(mut self, on: bool) -> Self {
        self.fallback = on;
        self
    }

    /// Decodes one stream of any mode, as [`crate::Decoder::decode`] does.
    ///
    /// # Errors
    /// As that, and `Backend` if the GPU fails.
    pub fn decode(&mut self, bytes: &[u8]) -> Result<Feature> {
        self.decode_batch(&[bytes]).pop().unwrap_or(Err(Error::Backend("nothing was decoded".into())))
    }

    /// Decodes streams of any modes in one submission. The modes `Packed` and `Lossless`, and streams of several layers, are
    /// decoded on the CPU.
    ///
    /// # Errors
    /// Each stream has its own result, as [`Decoder::decode`].
    pub fn decode_batch(&mut self, streams: &[&[u8]]) -> Vec<Result<Feature>> {
        let targets = vec![Target::Host; streams.len()];
        let outcome = |feature: Option<Feature>| feature.ok_or(Error::Backend("the GPU gave no feature".into()));
        self.decode_to(streams, &targets).into_iter().map(|result| result.and_then(outcome)).collect()
    }

    /// Decodes one stream into a buffer of the GPU, which must have the shape that was encoded. The values are those
    /// before their conversion to the stream's element type, as f32 or rounded to f16 as the buffer says.
    ///
    /// # Errors
    /// As [`Decoder::decode`]; the buffer is then unchanged or holds garbage. `InvalidInput` if the buffer does not fit,
    /// `Unsupported` for streams of the modes `Packed` and `Lossless`, and of several layers.
    pub fn decode_into(&mut self, bytes: &[u8], target: &FeatureBuffer) -> Result<()> {
        let results = self.decode_batch_into(&[bytes], &[target]);
        results.into_iter().next().unwrap_or(Err(Error::Backend("nothing was decoded".into())))
    }

    /// Decodes streams into buffers of the GPU in one submission.
    ///
    /// # Errors
    /// Each stream has its own result, as [`Decoder::decode_into`].
    pub fn decode_batch_into(&mut self, streams: &[&[u8]], targets: &[&FeatureBuffer]) -> Vec<Result<()>> {
        if streams.len() != targets.len() {
            let message = "there must be as many buffers as streams";
            return streams.iter().map(|_| Err(Error::invalid(message))).collect();
        }
        let targets: Vec<_> = targets.iter().map(|&target| Target::Buffer(target)).collect();
        self.decode_to(streams, &targets).into_iter().map(|result| result.map(|_| ())).collect()
    }

    /// Fills what is left over of earlier features with garbage.
    #[cfg(test)]
    pub(crate) fn poison(&self) {
        self.pool.poison(&self.device);
    }

    /// Decodes a stream that has been read.
    pub(crate) fn decode_stream(&mut self, stream: &Stream<'_>) -> Result<Feature> {
        let prepared = [(0, Prepared { stream: stream.clone(), plan: plan_of(stream) })];
        let features = self.run_again(&prepared, &[Target::Host])?;
        features.into_iter().next().unwrap_or(Ok(None))?.ok_or(Error::Backend("the GPU gave no feature".into()))
    }

    /// Decodes prepared streams, if need be a second time without relying on subgroups.
    fn run_again(
        &mut self,
        prepared: &[(usize, Prepared<'_>)],
        targets: &[Target<'_>],
    ) -> Result<Vec<Result<Option<Feature>>>> {
        let mut outcome = self.run(prepared, targets)?;
        if outcome.is_none() {
            // A subgroup did not hold its workgroup.
            outcome = self.run(prepared, targets)?;
        }
        outcome.ok_or(Error::Backend("the GPU's subgroups are not as it says".into()))
    }

    fn decode_to(&mut self, streams: &[&[u8]], targets: &[Target<'_>]) -> Vec<Result<Option<Feature>>> {
        let mut results: Vec<Option<Result<Option<Feature>>>> = vec![None; streams.len()];
        let mut prepared = Vec::new();
        let mut plans = HashMap::new();
        for (i, (&bytes, target)) in streams.iter().zip(targets).enumerate() {
            match self.prepare(bytes, &mut plans) {
                Ok(Some(stream)) => match check_target(&stream.stream.frame.layout, target, &self.device) {
                    Ok(()) => prepared.push((i, stream)),
                    Err(error) => results[i] = Some(Err(error)),
                },
                Ok(None) => {
                    results[i] = Some(match target {
                        Target::Host => self.cpu.decode(bytes).map(Some),
                        Target::Buffer(_) => Err(Error::Unsupported {
                            what: "decoding a packed or lossless stream, or one of several layers, into a buffer of the GPU",
                        }),
                    });
                }
                Err(error) => results[i] = Some(Err(error)),
            }
        }
        match self.run_again(&prepared, targets) {
            Ok(done) => {
                for ((i, _), result) in prepared.iter().zip(done) {
                    results[*i] = Some(result);
                }
            }
            Err(error) => {
                for (i, _) in &prepared {
                    let host = matches!(targets[*i], Target::Host);
                    results[*i] = Some(if self.fallback && host {
                        self.cpu.decode(streams[*i]).map(Some)
                    } else {
                        Err(error.clone())
                    });
                }
            }
        }
        results.into_iter().map(|result| result.unwrap_or(Ok(None))).collect()
    }

    /// Reads a stream up to its chunks; nothing for one that is decoded on the CPU: of other modes, or with layers.
    fn prepare<'s>(
        &mut self,
        bytes: &'s [u8],
        plans: &mut HashMap<(u64, i16), Arc<Plan>>,
    ) -> Result<Option<Prepared<'s>>> {
        let mut reader = Reader::new(bytes);
        let header = Header::read(&mut reader, &self.limits)?;
        if matches!(header.mode, Mode::Packed | Mode::Lossless) || header.layers > 1 {
            return Ok(None);
        }
        let stream = Stream::read(bytes, &header, reader, &self.profiles, &self.limits)?;
        let plan = match &stream.frame.source {
            StreamSource::Profile(profile, quality) => {
                plans.entry((profile.hash, *quality)).or_insert_with(|| plan_of(&stream)).clone()
            }
            StreamSource::Plain(_) => plan_of(&stream),
        };
        Ok(Some(Prepared { stream, plan }))
    }

    /// Decodes prepared streams; nothing if it must be done again because a subgroup is not what it should be.
    #[allow(clippy::type_complexity)]
    fn run(
        &mut self,
        prepared: &[(usize, Prepared<'_>)],
        targets: &[Target<'_>],
    ) -> Result<Option<Vec<Result<Option<Feature>>>>> {
        if prepared.is_empty() {
            return Ok(Some(Vec::new()));
        }
        // Streams of one plan and shape are decoded side by side.
        let mut groups: Vec<Vec<usize>> = Vec::new();
        for (i, (_, stream)) in prepared.iter().enumerate() {
            let alike = |group: &&mut Vec<usize>| prepared[group[0]].1.is_like(stream);
            match groups.iter_mut().find(alike).filter(|group| group.len() < stream.most_items(&self.device)) {
                Some(group) => group.push(i),
                None => groups.push(vec![i]),
            }
        }
        let device = self.device.clone();
        device.guarded(|| {
            let mut recorder = Recorder::new(&device);
            let mut wanted: Vec<(wgpu::Buffer, usize)> = Vec::new();
            let mut features: Vec<Option<usize>> = vec![None; prepared.len()];
            let mut statuses = Vec::new();
            for (number, group) in groups.iter().enumerate() {
                let streams: Vec<_> = group.iter().map(|&i| &prepared[i].1).collect();
                let recorded = self.record(&mut recorder, number, &streams)?;
                statuses.push(wanted.len());
                wanted.push((recorded.status.clone(), 4 * STATUS_WORDS * streams.len() * streams[0].chunks()));
                for (item, &i) in group.iter().enumerate() {
                    let stream = &prepared[i].1.stream;
                    let target = targets[prepared[i].0];
                    let buffer = self.record_output(&mut recorder, (i, item), stream, &recorded, target)?;
                    if let Some(buffer) = buffer {
                        features[i] = Some(wanted.len());
                        wanted.push(buffer);
                    }
                }
            }
            let wanted: Vec<_> = wanted.iter().map(|(buffer, bytes)| (buffer, *bytes)).collect();
            let answers = recorder.finish(&wanted)?;
            let mut results = vec![Ok(None); prepared.len()];
            for (group, &status) in groups.iter().zip(&statuses) {
                let words = words_of(&answers[status]);
                for (item, &i) in group.iter().enumerate() {
                    let stream = &prepared[i].1;
                    match stream.verdict(&words[STATUS_WORDS * item * stream.chunks()..]) {
                        Verdict::Again if device.without_single() => return Ok(None),
                        Verdict::Again => return Err(Error::Backend("the GPU's subgroups are not as it says".into())),
                        Verdict::Failed(error) => results[i] = Err(error),
                        Verdict::Good => {
                            results[i] =
                                Ok(features[i].map(|at| feature_of(&stream.stream.frame.layout, &answers[at])));
                        }
                    }
                }
            }
            Ok(Some(results))
        })
    }

    /// Records the decoding of streams of one plan and shape up to their integer values.
    fn record(&mut self, recorder: &mut Recorder<'_>, number: usize, streams: &[&Prepared<'_>]) -> Result<Recorded> {
        let device = self.device.clone();
        let plan = &streams[0].plan;
        let (items, chunks, coded) = (streams.len(), streams[0].chunks(), plan.active.len());
        let first = &streams[0].stream;
        let block = first.frame.profile().map_or((1, 1), |profile| profile.block());
        // A latent has a layout of its own.
        let layout =
            if first.frame.has_latent() { dense_layout(&first.frame.planes.latent)? } else { first.frame.layout };
        let mut params = Params::of(&layout, &first.frame.planes.latent, &first.frame.blocks, block);
        params.items = items as u32;
        params.chunks = chunks as u32;
        params.coded = coded as u32;
        params.runs = coded.div_ceil(MAX_LANES) as u32;
        params.rule = u32::from(first.frame.rule().code());
        params.exponent = first.frame.exponent() as u32;
        params.checked = u32::from(first.seed.is_some());
        params.lanes = first.lanes as u32;
        params.inverse = 1;

        // Chunks begin at whole words.
        let mut payload = Vec::new();
        let mut places = Vec::with_capacity(items * chunks);
        for stream in streams {
            for part in stream.parts() {
                let Part { number, bytes, .. } = part?;
                let seed = stream.stream.seed.unwrap_or(0).wrapping_add(number as u32);
                places.push((payload.len() as u32, bytes.len() as u32, seed));
                payload.extend(bytes.chunks(4).map(|bytes| {
                    let mut word = [0; 4];
                    word[..bytes.len()].copy_from_slice(bytes);
                    u32::from_le_bytes(word)
                }));
            }
        }
        let rows = (first.frame.blocks.rows, first.frame.blocks.plane_rows);
        let chunk_table = device.upload("chunks", &upload::chunk_words((items, chunks), rows, |at| places[at]))?;
        let payload = device.upload("payload", &payload)?;
        let means = first.frame.profile().map_or(&[][..], |profile| &profile.means);
        let plan_buffer = device.upload("plan", &upload::plan_words(plan, means, &[]))?;
        let tables =
            self.tables.get(&device, first.frame.profile(), first.frame.kind(), first.frame.planes.feature.channels)?;
        let size = items * first.frame.blocks.count() * params.width as usize;
        let symbols = self.pool.get(&device, "symbols", 0, items * first.frame.blocks.count() * coded)?;
        let mut values = self.pool.get(&device, "values", 0, size)?;
        let status = self.pool.get(&device, "status", number, STATUS_WORDS * items * chunks)?;
        let state = self.pool.get(&device, "state", number, items * STATE_WORDS)?;
        recorder.clear(&status);
        recorder.clear(&state);
        let uniform = recorder.uniform(&params.bytes())?;
        if coded > 0 {
            let bindings = [
                (1, &plan_buffer),
                (2, &tables.bank),
                (3, &chunk_table),
                (4, &payload),
                (5, &symbols),
                (6, &status),
                (7, &state),
            ];
            let longest = first.frame.blocks.rows.div_ceil(chunks) * first.frame.blocks.columns;
            for (from, to) in portions(&device, longest, coded.div_ceil(first.lanes))? {
                let uniform = recorder.uniform(&params.between(from, to).bytes())?;
                let groups = one_each(items * chunks);
                recorder.run("rans_decode", workgroup_for(first.lanes), &uniform, &bindings, groups)?;
            }
        }
        let bindings = [(1, &plan_buffer), (2, &symbols), (3, &values), (4, &state)];
        recorder.run("dequantize", 32, &uniform, &bindings, (strided(size / items.max(1)), items as u32, 1))?;
        if let Some(profile) = first.frame.profile() {
            let other = self.pool.get(&device, "other", 0, size)?;
            values = tables.invert(recorder, profile, params, values, other)?;
        }
        let limits = tables.range.clone();
        let recorded = Recorded { status, params, state, values, limits, made: false };
        if first.frame.profile().is_some_and(|profile| profile.synthesis.is_some()) {
            return self.record_synthesis(recorder, first, recorded);
        }
        if first.frame.has_latent() {
            // Without a synthesis network, it is of the feature's shape.
            let params = Params {
                items: items as u32,
                ..Params::of(&first.frame.layout, &first.frame.planes.feature, &first.frame.blocks, block)
            };
            let exponent = first.frame.exponent() as u32;
            return Ok(Recorded { params: Params { exponent, ..params }, ..recorded });
        }
        Ok(recorded)
    }

    /// Records the synthesis of latents whose integer values are there.
    fn record_synthesis(
        &mut self,
        recorder: &mut Recorder<'_>,
        stream: &Stream<'_>,
        recorded: Recorded,
    ) -> Result<Recorded> {
        let StreamSource::Profile(profile, quality) = &stream.frame.source else { return Ok(recorded) };
        let Some(network) = &profile.synthesis else { return Ok(recorded) };
        let Recorded { params, limits, state, values, .. } = &recorded;
        let (latent, items) = (&stream.frame.planes.latent, params.items as usize);
        let size = (latent.height, latent.width);
        if latent.len() == 0 || stream.frame.planes.feature.len() == 0 {
            return Ok(Recorded { made: true, ..recorded });
        }
        let device = self.device.clone();
        let floats = self.pool.get(&device, "latent", 0, items * latent.len())?;
        for item in 0..items {
            let params = params.at(item, Dtype::F32, Some(((item * latent.len()) as u32, params.strides)));
            let uniform = recorder.uniform(&params.bytes())?;
            let bindings = [(1, values), (2, limits), (3, state), (4, &floats)];
            recorder.run("int_to_feature", 32, &uniform, &bindings, (strided(latent.len()), 1, 1))?;
        }
        let table = self.tables.network(&device, (profile.hash, true), network)?;
        let run = Run { device: &device, network, table: &table, quality: *quality };
        let values = run.record(recorder, &mut self.pool, (items * latent.planes, size), &floats)?;
        // What it makes may be larger than the feature.
        let made = network.output_size(size).ok_or(too_small(size))?;
        let blocks = Blocks::new(&latent.with_planes(made, stream.frame.planes.feature.channels), (1, 1));
        let params = Params::of(&stream.frame.layout, &stream.frame.planes.feature, &blocks, (1, 1));
        Ok(Recorded { params, values, made: true, ..recorded })
    }

    /// Records the last step of one stream: from integer values to where the feature goes. Gives what is to be read back.
    fn record_output(
        &mut self,
        recorder: &mut Recorder<'_>,
        (number, item): (usize, usize),
        stream: &Stream<'_>,
        recorded: &Recorded,
        target: Target<'_>,
    ) -> Result<Option<(wgpu::Buffer, usize)>> {
        let elements = stream.frame.planes.feature.len();
        let groups = (strided(elements), 1, 1);
        let Recorded { params, values, limits, state, made, .. } = recorded;
        let entry = |dtype| match (*made, dtype == Dtype::F16) {
            (false, false) => ("int_to_feature", 4),
            (false, true) => ("int_to_half", 5),
            (true, false) => ("made_to_feature", 4),
            (true, true) => ("made_to_half", 5),
        };
        let mut bindings: Vec<_> = [(1, values), (2, limits), (3, state)]
            .into_iter()
            .filter(|&(binding, _)| !*made || binding != 2)
            .map(|(binding, buffer)| (binding, buffer.as_entire_buffer_binding()))
            .collect();
        match target {
            Target::Host => {
                let (entry, binding) = entry(stream.frame.layout.dtype);
                let bytes = elements * if stream.frame.layout.dtype == Dtype::F16 { 2 } else { 4 };
                let buffer = self.pool.get(&self.device, "output", number, bytes.div_ceil(4))?;
                bindings.push((binding, buffer.as_entire_buffer_binding()));
                let uniform = recorder.uniform(&params.at(item, stream.frame.layout.dtype, None).bytes())?;
                recorder.run_with(entry, 32, &uniform, bindings, groups)?;
                Ok(Some((buffer, bytes)))
            }
            Target::Buffer(feature) if elements > 0 => {
                let (entry, binding) = entry(feature.dtype);
                let bound = feature.bind(&self.device)?;
                let place = params.at(item, feature.dtype, Some((bound.offset, bound.strides)));
                bindings.push((binding, bound.binding));
                let uniform = recorder.uniform(&place.bytes())?;
                recorder.run_with(entry, 32, &uniform, bindings, groups)?;
                Ok(None)
            }
            Target::Buffer(_) => Ok(None),
        }
    }
}

fn plan_of(stream: &Stream<'_>) -> Arc<Plan> {
    let mut plan = Plan::default();
    stream.frame.make_plan(&mut plan);
    Arc::new(plan)
}

fn check_target(layout: &Layout, target: &Target<'_>, device: &Device) -> Result<()> {
    let Target::Buffer(feature) = target else { return Ok(()) };
    if feature.shape != layout.shape() {
        return Err(Error::invalid(format!(
            "the stream holds a feature of shape {:?}, the buffer is for {:?}",
            layout.shape(),
            feature.shape
        )));
    }
    feature.bind(device).map(|_| ())
}
