//! Features to streams on the GPU.

use std::collections::HashMap;
use std::sync::Arc;

use crate::chunk;
use crate::codec;
use crate::container::{Header, Layout, Mode, put_varint};
use crate::error::{Error, Result};
use crate::geometry::Grid;
use crate::kernels::gpu::device::{Device, failed};
use crate::kernels::gpu::feature::{Source, upload_view};
use crate::kernels::gpu::params::{Params, STATE_WORDS};
use crate::kernels::gpu::plain::PlainFeature;
use crate::kernels::gpu::recorder::{Pool, Recorder, one_each, portions, strided, words_of};
use crate::kernels::gpu::upload;
use crate::kernels::portable::{ContextRule, MAX_LANES};
use crate::plain;
use crate::plan::{self, Plan};
use crate::profile::Profile;
use crate::quality::Quality;
use crate::rate;
use crate::tensor::MAX_RANK;
use crate::transform::Blocks;

/// Words beside its symbols' that a chunk has in the scratch of `rans_encode`: 32 states and some to spare.
pub(crate) const SPARE: usize = 64;
/// Words of scratch for each symbol: at first, and if that was not enough. A symbol has at most 12 bits of token and 24
/// raw bits (quantised magnitudes stay below 2^16), and a lane's words hold the bits of its symbols and what eight
/// divisions round up, far less than 48 bits a symbol.
const CAPACITIES: [usize; 2] = [1, 3];
/// Bytes of payload that are read back with the counters; if there are more, they are fetched once the length is known.
const FIRST_READ: usize = 1 << 16;
/// Flags of `report`.
pub(crate) const FLAG_LANES: u32 = 2;

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

/// What the passes of an encoder share.
#[derive(Debug, Clone)]
pub(crate) struct Core {
    pub device: Device,
    pub pool: Pool,
    pub tables: Tables,
    pub lanes: Option<usize>,
    pub rdo: bool,
    /// Which of [`CAPACITIES`] was enough so far.
    capacity: usize,
}

/// Features of one shape whose integer values or coefficients lie in one buffer.
#[derive(Debug, Clone)]
pub(crate) struct Group {
    pub layout: Layout,
    pub grid: Grid,
    pub blocks: Blocks,
    pub params: Params,
    /// Which of the features.
    pub members: Vec<usize>,
    pub coefficients: wgpu::Buffer,
}

/// How a group is coded at one quality.
pub(crate) struct Coding<'a> {
    pub plan: &'a Plan,
    pub means: &'a [i32],
    pub table: Arc<Table>,
    pub context: ContextRule,
    pub lambda: u16,
    pub header: Header,
    /// Bytes between the chunk lengths and the chunks.
    pub body: &'a [u8],
}

impl Encoder {
    fn new(device: &Device, profile: Option<Arc<Profile>>, cpu: crate::Encoder) -> Encoder {
        let core = Core {
            device: device.clone(),
            pool: Pool::default(),
            tables: Tables::default(),
            lanes: None,
            rdo: true,
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
    /// submission, those of mode `Plain` in four; other qualities search for each feature on its own.
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

    /// Takes over the options of another encoder.
    pub(crate) fn set_options(&mut self, chunks: Option<usize>, lanes: Option<usize>, rdo: bool) {
        self.chunks = chunks;
        self.core.lanes = lanes;
        self.core.rdo = rdo;
    }

    /// As [`Encoder::encode_batch`], without going on with the CPU.
    pub(crate) fn encode_on_gpu(&mut self, features: &[Source<'_>], quality: Quality) -> Result<Vec<Vec<u8>>> {
        if self.core.lanes.is_some_and(|lanes| !lanes.is_power_of_two() || lanes > MAX_LANES) {
            return Err(Error::invalid("lanes must be 1, 2, 4, 8, 16 or 32"));
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
        device.guarded(|| match (self.profile.clone(), quality) {
            (Some(profile), Quality::Scale(scale)) => {
                let index = codec::scale_index(scale)?;
                self.encode_scaled(&profile, features, &layouts, index)
            }
            (profile, _) => features
                .iter()
                .zip(&layouts)
                .map(|(feature, layout)| match &profile {
                    Some(profile) => self.encode_searched(profile, feature, layout, quality),
                    None => self.encode_plain(feature, layout, quality),
                })
                .collect(),
        })
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
        let mut members: Vec<Vec<usize>> = Vec::new();
        for (i, layout) in layouts.iter().enumerate() {
            let most =
                most_items(&self.core.device, 4 * padded_elements(layout, profile) * CAPACITIES[self.core.capacity]);
            match members.iter_mut().find(|group| layouts[group[0]] == *layout && group.len() < most) {
                Some(group) => group.push(i),
                None => members.push(vec![i]),
            }
        }
        let mut streams = vec![Vec::new(); features.len()];
        self.core.until_it_fits(|core| {
            let device = core.device.clone();
            let mut recorder = Recorder::new(&device);
            let mut pending = Vec::new();
            for (number, members) in members.iter().enumerate() {
                let group = core.record_forward(&mut recorder, profile, features, members, self.chunks)?;
                let coding = core.profile_coding(profile, &group, &plan, index)?;
                pending.push((core.record_coding(&mut recorder, number, &group, &coding)?, group));
            }
            let codings = pending.iter().map(|(coded, _)| coded).collect::<Vec<_>>();
            let Some(answers) = core.collect(recorder, &codings)? else { return Ok(false) };
            for ((_, group), answers) in pending.iter().zip(answers) {
                let coding = core.profile_coding(profile, group, &plan, index)?;
                for (&member, stream) in group.members.iter().zip(answers.streams(group, &coding)) {
                    streams[member] = stream;
                }
            }
            Ok(true)
        })?;
        Ok(streams)
    }

    /// One feature with a profile, at the quality that meets a budget or a target: the coefficients stay on the GPU.
    fn encode_searched(
        &mut self,
        profile: &Arc<Profile>,
        feature: &Source<'_>,
        layout: &Layout,
        quality: Quality,
    ) -> Result<Vec<u8>> {
        let device = self.core.device.clone();
        let Encoder { core, best, chunks, .. } = self;
        let mut recorder = Recorder::new(&device);
        let group = core.record_forward(&mut recorder, profile, std::slice::from_ref(feature), &[0], *chunks)?;
        recorder.finish(&[])?;
        let mut plan = Plan::default();
        let mut out = Vec::new();
        let mut at = |index: i16, out: &mut Vec<u8>, core: &mut Core| {
            plan.set(profile, index);
            let coding = core.profile_coding(profile, &group, &plan, index)?;
            *out = core.code_one(&group, &coding)?;
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
                    Ok(rate::sqnr(&source, &decoded, profile.exponent))
                })?;
            }
            Quality::Scale(scale) => at(codec::scale_index(scale)?, &mut out, core)?,
        }
        Ok(out)
    }

    /// One feature without a profile.
    fn encode_plain(&mut self, feature: &Source<'_>, layout: &Layout, quality: Quality) -> Result<Vec<u8>> {
        let Encoder { core, best, chunks, .. } = self;
        let mut plain = PlainFeature::new(core, feature, layout, *chunks)?;
        let mut out = Vec::new();
        match quality {
            Quality::Scale(scale) => plain.code(core, codec::scale_index(scale)?, &mut out)?,
            Quality::Bytes(budget) => {
                rate::to_budget(budget, best, &mut out, |index, out| plain.code(core, index, out))?;
            }
            Quality::Sqnr(target) => {
                let source = core.source_of(feature, layout, &plain.group)?;
                rate::to_sqnr(target, best, &mut out, |index, out| {
                    plain.code(core, index, out)?;
                    let decoded = core.decoded_of(&plain.group, &plain.plan, None)?;
                    Ok(rate::sqnr(&source, &decoded, plain.exponent))
                })?;
            }
        }
        Ok(out)
    }
}

fn padded_elements(layout: &Layout, profile: &Profile) -> usize {
    let grid = Grid::new(layout);
    Blocks::new(&grid, profile.block()).count() * profile.coder_channels() + SPARE
}

/// Most items of this many bytes in a buffer.
pub(crate) fn most_items(device: &Device, bytes: usize) -> usize {
    let limits = device.wgpu_device().limits();
    let most = limits.max_buffer_size.min(limits.max_storage_buffer_binding_size);
    (most as usize / bytes.max(1)).clamp(1, 4096)
}

/// Invocations of the workgroups that code chunks of this many lanes.
pub(crate) fn workgroup_for(lanes: usize) -> u32 {
    if lanes <= 8 { 8 } else { 32 }
}

impl Group {
    pub fn new(
        layout: &Layout,
        block: (usize, usize),
        chunks: Option<usize>,
        members: &[usize],
        empty: wgpu::Buffer,
    ) -> Group {
        let grid = Grid::new(layout);
        let blocks = Blocks::new(&grid, block);
        let mut params = Params::of(layout, &grid, &blocks, block);
        params.items = members.len() as u32;
        params.chunks = chunk::count(chunks, grid.items, blocks.rows) as u32;
        Group { layout: *layout, grid, blocks, params, members: members.to_vec(), coefficients: empty }
    }

    fn chunks(&self) -> usize {
        self.params.chunks as usize
    }
}

/// What was recorded of a group: where its report and its chunks will be.
pub(crate) struct Coded {
    report: wgpu::Buffer,
    report_words: usize,
    payload: wgpu::Buffer,
    /// Nothing is coded: no kernel runs.
    silent: bool,
}

/// The report and the chunks of a group.
pub(crate) struct Answer {
    report: Vec<u32>,
    payload: Vec<u8>,
}

impl Core {
    /// Runs `attempt` until it says that its scratch was enough and its subgroups held their workgroups.
    fn until_it_fits(&mut self, mut attempt: impl FnMut(&mut Core) -> Result<bool>) -> Result<()> {
        // Once for each reason, and once more.
        for _ in 0..4 {
            if attempt(self)? {
                return Ok(());
            }
        }
        Err(failed("the GPU did not keep to its own numbers"))
    }

    /// Records the way of features of one shape to coefficients.
    fn record_forward(
        &mut self,
        recorder: &mut Recorder<'_>,
        profile: &Arc<Profile>,
        features: &[Source<'_>],
        members: &[usize],
        chunks: Option<usize>,
    ) -> Result<Group> {
        let device = self.device.clone();
        let layout = features[members[0]].layout()?;
        let table = self.tables.get(&device, Some(profile), plain::Kind::default(), layout.channels())?;
        let values = self.pool.get(&device, "values", 0, 4)?;
        let mut group = Group::new(&layout, profile.block(), chunks, members, values);
        let size = members.len() * group.blocks.count() * group.params.width as usize;
        let mut values = self.pool.get(&device, "values", 0, size)?;
        let mut other = self.pool.get(&device, "other", 0, size)?;
        group.params.exponent = profile.exponent as u32;
        for (item, &member) in members.iter().enumerate() {
            self.record_feature(
                recorder,
                "feature_to_int",
                (member, item),
                &features[member],
                group.params,
                (2, &values),
            )?;
        }
        let mut params = group.params;
        params.row_shift = profile.dct[0].shift;
        params.column_shift = profile.dct[1].shift;
        params.matrices = profile.matrices.len() as u32;
        let uniform = recorder.uniform(&params.bytes())?;
        if profile.bands() > 1 {
            let groups = (strided(size), 1, 1);
            let bindings = [(1, &table.dct), (2, &values), (3, &other)];
            recorder.run("block_dct_columns", 32, &uniform, &bindings, groups)?;
            let bindings = [(1, &table.dct), (2, &other), (3, &values)];
            recorder.run("block_dct_rows", 32, &uniform, &bindings, groups)?;
        }
        if !profile.matrices.is_empty() {
            let bindings = [(1, &table.forward), (2, &values), (3, &other)];
            recorder.run("channel_matrix", 32, &uniform, &bindings, matrix_groups(&params))?;
            std::mem::swap(&mut values, &mut other);
        }
        group.params = params;
        group.coefficients = values;
        Ok(group)
    }

    /// Records a kernel that visits the elements of a feature wherever they lie.
    pub fn record_feature(
        &mut self,
        recorder: &mut Recorder<'_>,
        entry: &'static str,
        (number, item): (usize, usize),
        feature: &Source<'_>,
        params: Params,
        (binding, out): (u32, &wgpu::Buffer),
    ) -> Result<()> {
        let groups = (strided(params.elements as usize), 1, 1);
        let out = (binding, out.as_entire_buffer_binding());
        match feature {
            Source::View(view) => {
                let buffer = upload_view(&self.device, &mut self.pool, number, view)?;
                let uniform = recorder.uniform(&params.at(item, view.dtype(), None).bytes())?;
                recorder.run_with(entry, 32, &uniform, vec![(1, buffer.as_entire_buffer_binding()), out], groups)
            }
            Source::Buffer(buffer) if params.elements > 0 => {
                let bound = buffer.bind(&self.device)?;
                let place = params.at(item, buffer.dtype, Some((bound.offset, bound.strides)));
                let uniform = recorder.uniform(&place.bytes())?;
                recorder.run_with(entry, 32, &uniform, vec![(1, bound.binding), out], groups)
            }
            Source::Buffer(_) => Ok(()),
        }
    }

    fn profile_coding<'a>(
        &mut self,
        profile: &'a Arc<Profile>,
        group: &Group,
        plan: &'a Plan,
        index: i16,
    ) -> Result<Coding<'a>> {
        let table = self.tables.get(&self.device, Some(profile), plain::Kind::default(), group.grid.channels)?;
        Ok(Coding {
            plan,
            means: &profile.means,
            table,
            context: profile.context,
            lambda: if self.rdo { plan::lambda_at(profile.lambda, index) } else { 0 },
            header: Header {
                mode: Mode::Profile,
                lanes: 1,
                profile: Some((profile.hash, index)),
                layout: (group.layout != profile.layout).then_some(group.layout),
                chunks: group.chunks(),
            },
            body: &[],
        })
    }

    /// Records the way of a group's coefficients to chunks.
    pub fn record_coding(
        &mut self,
        recorder: &mut Recorder<'_>,
        number: usize,
        group: &Group,
        coding: &Coding<'_>,
    ) -> Result<Coded> {
        let device = self.device.clone();
        let (items, chunks, coded) = (group.members.len(), group.chunks(), coding.plan.active.len());
        let symbols_of_item = group.blocks.count() * coded;
        let count = items * symbols_of_item;
        let capacity = CAPACITIES[self.capacity];
        let mut params = group.params;
        params.coded = coded as u32;
        params.runs = coded.div_ceil(MAX_LANES) as u32;
        params.rule = u32::from(coding.context.code());
        params.lambda = u32::from(coding.lambda);
        params.lanes = self.lanes.unwrap_or(0) as u32;
        params.capacity = capacity as u32;
        let report_words = 2 + items + items * chunks;
        let report = self.pool.get(&device, "report", number, report_words)?;
        let payload =
            self.pool.get(&device, "coded", number, (count * capacity).div_ceil(2) + items * chunks * SPARE)?;
        let silent = count == 0;
        if silent {
            return Ok(Coded { report, report_words, payload, silent });
        }
        let rows = (group.blocks.rows, group.blocks.plane_rows);
        let table_of_chunks = device.upload("chunks", &upload::chunk_words((items, chunks), rows, |_| (0, 0)))?;
        let plan = device.upload("plan", &upload::plan_words(coding.plan, coding.means, &[]))?;
        let bank = &coding.table.bank;
        let symbols = self.pool.get(&device, "symbols", 0, count)?;
        let intervals = self.pool.get(&device, "intervals", 0, count)?;
        let state = self.pool.get(&device, "state", number, items * STATE_WORDS)?;
        let runs = items * group.blocks.count() * params.runs as usize;
        let rule_runs = coding.context == ContextRule::Runs;
        let run_sums = self.pool.get(&device, "run_sums", 0, if rule_runs { 2 * runs } else { 4 })?;
        let words = self.pool.get(&device, "words", 0, count * capacity + items * chunks * SPARE)?;
        let rooms = self.pool.get(&device, "rooms", 0, items * chunks)?;
        let starts = self.pool.get(&device, "starts", 0, items * chunks)?;
        let uniform = recorder.uniform(&params.bytes())?;
        recorder.clear(&state);
        recorder.clear(&report);

        let coefficients = &group.coefficients;
        let tables = [(1, &plan), (2, bank), (3, &table_of_chunks)];
        let each = (4, coefficients);
        let longest = group.blocks.rows.div_ceil(chunks) * group.blocks.columns;
        if coding.lambda == 0 || coding.context == ContextRule::None {
            let bindings = [(1, &plan), (2, bank), each, (5, &symbols)];
            recorder.run("quantize", 32, &uniform, &bindings, (strided(count), 1, 1))?;
        } else if rule_runs {
            let bindings = [&tables[..], &[each, (5, &symbols), (6, &report)]].concat();
            for (from, to) in portions(&device, longest, coded.div_ceil(MAX_LANES))? {
                let uniform = recorder.uniform(&params.between(from, to).bytes())?;
                recorder.run("quantize_runs", 32, &uniform, &bindings, one_each(items * chunks))?;
            }
        } else {
            let groups = ((items * chunks * coded).div_ceil(64).min(16_384) as u32, 1, 1);
            let bindings = [&tables[..], &[each, (5, &symbols)]].concat();
            for (from, to) in portions(&device, longest, 1)? {
                let uniform = recorder.uniform(&params.between(from, to).bytes())?;
                recorder.run("quantize_neighbours", 32, &uniform, &bindings, groups)?;
            }
        }
        if rule_runs {
            let bindings = [(4, &symbols), (7, &run_sums)];
            recorder.run("run_magnitudes", 32, &uniform, &bindings, (strided(runs), 1, 1))?;
            let bindings = [(1, &plan), (3, &table_of_chunks), (7, &run_sums)];
            let groups = ((items * group.blocks.count()).div_ceil(64).min(16_384) as u32, 1, 1);
            recorder.run("run_context", 32, &uniform, &bindings, groups)?;
        }
        let bindings = [&tables[..], &[(4, &symbols), (5, &intervals), (6, &state), (7, &run_sums)]].concat();
        recorder.run("context", 32, &uniform, &bindings, (strided(symbols_of_item), items as u32, 1))?;
        let bindings = [(1, &state), (2, &report)];
        recorder.run("lanes_for", 32, &uniform, &bindings, (items.div_ceil(64) as u32, 1, 1))?;
        let bindings = [(1, &symbols), (3, &table_of_chunks), (4, &intervals), (5, &words), (6, &report), (7, &rooms)];
        let workgroup = self.lanes.map_or(32, workgroup_for);
        // The last positions first. Where the number of lanes is only known on the GPU, it may be one.
        let steps = coded.div_ceil(self.lanes.unwrap_or(1));
        for (from, to) in portions(&device, longest, steps)?.into_iter().rev() {
            let uniform = recorder.uniform(&params.between(from, to).bytes())?;
            recorder.run("rans_encode", workgroup, &uniform, &bindings, one_each(items * chunks))?;
        }
        recorder.run("starts_of", 32, &uniform, &[(1, &report), (2, &starts)], (1, 1, 1))?;
        let bindings = [(1, &report), (2, &starts), (3, &table_of_chunks), (4, &words), (5, &payload)];
        recorder.run("compact", 32, &uniform, &bindings, one_each(items * chunks))?;
        Ok(Coded { report, report_words, payload, silent })
    }

    /// Submits the commands and fetches what was coded; nothing if it must be done again.
    pub fn collect(&mut self, recorder: Recorder<'_>, coded: &[&Coded]) -> Result<Option<Vec<Answer>>> {
        let mut wanted = Vec::new();
        for coded in coded.iter().filter(|coded| !coded.silent) {
            wanted.push((&coded.report, 4 * coded.report_words));
            wanted.push((&coded.payload, (coded.payload.size() as usize).min(FIRST_READ)));
        }
        let mut read = recorder.finish(&wanted)?.into_iter();
        let mut answers = Vec::with_capacity(coded.len());
        for coded in coded {
            if coded.silent {
                answers.push(Answer { report: Vec::new(), payload: Vec::new() });
                continue;
            }
            let report = words_of(&read.next().unwrap_or_default());
            let payload = read.next().unwrap_or_default();
            let [total, flags, ..] = report[..] else { return Err(failed("the GPU gave no report")) };
            if flags & FLAG_LANES != 0 {
                self.device.without_single();
            }
            if flags & !FLAG_LANES != 0 {
                self.capacity = (self.capacity + 1).min(CAPACITIES.len() - 1);
            }
            if flags != 0 {
                return Ok(None);
            }
            let bytes = 4 * total as usize;
            let payload = if bytes <= payload.len() {
                payload
            } else {
                let more = Recorder::new(&self.device).finish(&[(&coded.payload, bytes)])?;
                more.into_iter().next().unwrap_or_default()
            };
            answers.push(Answer { report, payload });
        }
        Ok(Some(answers))
    }

    /// The stream of a group of one feature.
    pub fn code_one(&mut self, group: &Group, coding: &Coding<'_>) -> Result<Vec<u8>> {
        let mut stream = Vec::new();
        self.until_it_fits(|core| {
            let device = core.device.clone();
            let mut recorder = Recorder::new(&device);
            let coded = core.record_coding(&mut recorder, 0, group, coding)?;
            let Some(answers) = core.collect(recorder, &[&coded])? else { return Ok(false) };
            let streams = answers.iter().flat_map(|answer| answer.streams_with(group, coding, core.lanes));
            stream = streams.last().unwrap_or_default();
            Ok(true)
        })?;
        Ok(stream)
    }

    /// The elements of a feature as f32, in the order of the grid.
    fn source_of(&mut self, feature: &Source<'_>, layout: &Layout, group: &Group) -> Result<Vec<f32>> {
        let mut source = Vec::new();
        match feature {
            Source::View(view) => codec::gather_f32(view, &Grid::new(layout), &mut source),
            Source::Buffer(_) => {
                let device = self.device.clone();
                let bits = self.pool.get(&device, "bits", 0, group.grid.len())?;
                let mut recorder = Recorder::new(&device);
                self.record_feature(&mut recorder, "feature_bits", (0, 0), feature, group.params, (2, &bits))?;
                let answer = recorder.finish(&[(&bits, 4 * group.grid.len())])?;
                source.extend(answer.iter().flat_map(|bytes| words_of(bytes)).map(f32::from_bits));
            }
        }
        Ok(source)
    }

    /// What the symbols that were coded last decode to, in the order of the grid.
    fn decoded_of(&mut self, group: &Group, plan: &Plan, profile: Option<&Arc<Profile>>) -> Result<Vec<i16>> {
        let device = self.device.clone();
        let table = self.tables.get(&device, profile, plain::Kind::default(), group.grid.channels)?;
        let size = group.blocks.count() * group.params.width as usize;
        let mut params = group.params;
        params.coded = plan.active.len() as u32;
        params.runs = plan.active.len().div_ceil(MAX_LANES) as u32;
        params.inverse = 1;
        let means = profile.map_or(&[][..], |profile| &profile.means);
        let plan_buffer = device.upload("plan", &upload::plan_words(plan, means, &[]))?;
        let symbols = self.pool.get(&device, "symbols", 0, group.blocks.count() * plan.active.len())?;
        // The coefficients may be in any of the buffers of the way forward: these are others.
        let mut values = self.pool.get(&device, "decoded", 0, size)?;
        let other = self.pool.get(&device, "decoded", 1, size)?;
        let out = self.pool.get(&device, "decoded", 2, group.grid.len())?;
        let state = self.pool.get(&device, "state", 0, STATE_WORDS)?;
        let mut recorder = Recorder::new(&device);
        recorder.clear(&state);
        let uniform = recorder.uniform(&params.bytes())?;
        let bindings = [(1, &plan_buffer), (2, &symbols), (3, &values), (4, &state)];
        recorder.run("dequantize", 32, &uniform, &bindings, (strided(size), 1, 1))?;
        if let Some(profile) = profile {
            values = table.invert(&mut recorder, profile, params, values, other)?;
        }
        let strides = grid_strides(&group.params);
        let uniform = recorder.uniform(&params.at(0, group.layout.dtype, Some((0, strides))).bytes())?;
        let bindings = [(1, &values), (2, &table.range), (3, &state), (4, &out)];
        recorder.run("int_to_int", 32, &uniform, &bindings, (strided(group.grid.len()), 1, 1))?;
        let answer = recorder.finish(&[(&out, 4 * group.grid.len())])?;
        Ok(answer.iter().flat_map(|bytes| words_of(bytes)).map(|word| word as i32 as i16).collect())
    }
}

/// The strides of a tensor's axes in the order of the grid: planes, rows, columns, channels.
fn grid_strides(params: &Params) -> [u32; MAX_RANK] {
    let row = params.row_length * params.channels;
    std::array::from_fn(|axis| match axis as u32 {
        axis if axis >= params.rank => 0,
        axis if axis == params.channel_axis => 1,
        axis if axis == params.width_axis => params.channels,
        axis if axis == params.height_axis => row,
        axis => params.planes[axis as usize] * params.height * row,
    })
}

impl Answer {
    /// The streams of a group's features.
    fn streams(&self, group: &Group, coding: &Coding<'_>) -> Vec<Vec<u8>> {
        self.streams_with(group, coding, None)
    }

    fn streams_with(&self, group: &Group, coding: &Coding<'_>, lanes: Option<usize>) -> Vec<Vec<u8>> {
        let (items, chunks) = (group.members.len(), group.chunks());
        let mut at = 0;
        (0..items)
            .map(|item| {
                let lanes = self.report.get(2 + item).map_or(lanes.unwrap_or(1), |&lanes| lanes as usize);
                let lengths: Vec<usize> = (0..chunks)
                    .map(|chunk| self.report.get(2 + items + item * chunks + chunk).map_or(0, |&words| words as usize))
                    .collect();
                let mut out = Vec::with_capacity(64 + coding.body.len() + 2 * lengths.iter().sum::<usize>());
                Header { lanes, ..coding.header }.write(&mut out);
                for &length in &lengths[..chunks - 1] {
                    put_varint(2 * length as u64, &mut out);
                }
                out.extend_from_slice(coding.body);
                for length in lengths {
                    out.extend_from_slice(self.payload.get(at..at + 2 * length).unwrap_or_default());
                    at += (2 * length).next_multiple_of(4);
                }
                out
            })
            .collect()
    }
}

/// What shaders read of a profile, or of the built-in banks.
#[derive(Debug)]
pub(crate) struct Table {
    pub bank: wgpu::Buffer,
    pub range: wgpu::Buffer,
    pub dct: wgpu::Buffer,
    pub forward: wgpu::Buffer,
    pub inverse: wgpu::Buffer,
}

/// The tables that were uploaded.
#[derive(Debug, Default, Clone)]
pub(crate) struct Tables {
    tables: HashMap<(Option<u64>, bool, usize), Arc<Table>>,
}

impl Tables {
    pub fn get(
        &mut self,
        device: &Device,
        profile: Option<&Arc<Profile>>,
        kind: plain::Kind,
        channels: usize,
    ) -> Result<Arc<Table>> {
        let key = (profile.map(|profile| profile.hash), kind.one_sided, channels);
        if let Some(table) = self.tables.get(&key) {
            return Ok(table.clone());
        }
        let table = Arc::new(match profile {
            Some(profile) => Table {
                bank: device.upload("bank", &upload::bank_words(&profile.bank))?,
                range: device.upload("range", &upload::range_words(profile))?,
                dct: device.upload("dct", &upload::dct_words(profile))?,
                forward: device.upload("forward", &upload::matrix_words(profile, false))?,
                inverse: device.upload("inverse", &upload::matrix_words(profile, true))?,
            },
            None => {
                let whole: Vec<u32> = (0..channels).flat_map(|_| [-32_768i32 as u32, 32_767]).collect();
                Table {
                    bank: device.upload("bank", &upload::bank_words(kind.bank()))?,
                    range: device.upload("range", &whole)?,
                    dct: device.upload("dct", &[])?,
                    forward: device.upload("forward", &[])?,
                    inverse: device.upload("inverse", &[])?,
                }
            }
        });
        self.tables.insert(key, table.clone());
        Ok(table)
    }
}

fn matrix_groups(params: &Params) -> (u32, u32, u32) {
    let blocks = (params.items * params.positions).div_ceil(8).min(8192);
    (params.channels.div_ceil(64), blocks, params.bands)
}

impl Table {
    /// Records the inverse transform of `values`; gives the buffer that then has the feature's integer values.
    pub fn invert(
        &self,
        recorder: &mut Recorder<'_>,
        profile: &Profile,
        mut params: Params,
        mut values: wgpu::Buffer,
        mut other: wgpu::Buffer,
    ) -> Result<wgpu::Buffer> {
        params.inverse = 1;
        params.row_shift = profile.dct[0].shift;
        params.column_shift = profile.dct[1].shift;
        params.matrices = profile.matrices.len() as u32;
        let uniform = recorder.uniform(&params.bytes())?;
        if !profile.matrices.is_empty() {
            let bindings = [(1, &self.inverse), (2, &values), (3, &other)];
            recorder.run("channel_matrix", 32, &uniform, &bindings, matrix_groups(&params))?;
            std::mem::swap(&mut values, &mut other);
        }
        if profile.bands() > 1 {
            let groups = (strided((params.items * params.positions * params.width) as usize), 1, 1);
            let bindings = [(1, &self.dct), (2, &values), (3, &other)];
            recorder.run("block_idct_columns", 32, &uniform, &bindings, groups)?;
            let bindings = [(1, &self.dct), (2, &other), (3, &values)];
            recorder.run("block_idct_rows", 32, &uniform, &bindings, groups)?;
        }
        Ok(values)
    }
}
