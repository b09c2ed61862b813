//! The passes of the encoder, from a feature to the chunks of a stream.

use std::sync::Arc;

use crate::chunk;
use crate::container::{CHECKSUM_BYTES, Head, Header, Layout, Mode, put_varint};
use crate::error::{Error, Result};
use crate::geometry::{Grid, gather_f32};
use crate::kernels::gpu::device::{Device, failed};
use crate::kernels::gpu::feature::{Source, upload_view};
use crate::kernels::gpu::network::{self, Run};
use crate::kernels::gpu::params::{Params, STATE_WORDS};
use crate::kernels::gpu::recorder::{Pool, Recorder, one_each, portions, strided, words_of};
use crate::kernels::gpu::tables::{Table, Tables, matrix_groups};
use crate::kernels::gpu::upload;
use crate::kernels::portable::{ContextRule, MAX_LANES};
use crate::limits::Limits;
use crate::network::Analysis;
use crate::plain;
use crate::plan::{self, Plan};
use crate::profile::Profile;
use crate::tensor::{Axes, Dtype, MAX_RANK};
use crate::transform::Blocks;

/// Words beside its symbols' that a chunk has in the scratch of `rans_encode`: 32 states and some to spare.
pub(crate) const SPARE: usize = 64;
/// Words of scratch for each symbol: at first, and if that was not enough. A symbol has at most 12 bits of token and 24
/// raw bits (quantised magnitudes stay below 2^16), and a lane's words hold the bits of its symbols and what eight
/// divisions round up, far less than 48 bits a symbol.
pub(crate) const CAPACITIES: [usize; 2] = [1, 3];
/// Bytes of payload that are read back with the counters; if there are more, they are fetched once the length is known.
const FIRST_READ: usize = 1 << 16;
/// What the CPU must do.
pub(crate) const FLOAT_ANALYSIS: Error =
    Error::Unsupported { what: "an analysis network in floating point on the GPU" };
/// Flags of `report`.
pub(crate) const FLAG_LANES: u32 = 2;

/// What the passes of an encoder share.
#[derive(Debug, Clone)]
pub(crate) struct Core {
    pub device: Device,
    pub pool: Pool,
    pub tables: Tables,
    pub lanes: Option<usize>,
    pub rdo: bool,
    pub checksums: bool,
    /// Which of [`CAPACITIES`] was enough so far.
    pub capacity: usize,
}

/// Features of one shape whose integer values or coefficients lie in one buffer.
#[derive(Debug, Clone)]
pub(crate) struct Group {
    pub layout: Layout,
    pub grid: Grid,
    /// The planes that are coded: the features', or those of their latents.
    pub latent: Grid,
    pub blocks: Blocks,
    /// What visits the elements of the features is given.
    pub source: Params,
    /// What visits the values that are coded is given.
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

impl Coding<'_> {
    /// What the chunks are tied to.
    fn head(&self) -> Head {
        Head::of(&self.header, self.body, &mut Vec::new())
    }
}

/// Coefficients of a feature with its padding, and what its chunks take beside them.
pub(crate) fn padded_elements(layout: &Layout, profile: &Profile, chunks: Option<usize>) -> Result<usize> {
    let grid = Grid::new(layout);
    let blocks = Blocks::new(&profile.latent(&grid, &Limits::UNBOUNDED)?, profile.block());
    Ok(blocks.count() * profile.coder_channels() + SPARE * chunk::count(chunks, grid.items, blocks.rows))
}

/// Bytes of the largest of the values that the analysis of a feature goes through.
pub(crate) fn analysis_bytes(layout: &Layout, profile: &Profile) -> usize {
    let grid = Grid::new(layout);
    match &profile.analysis {
        Some(Analysis::Integer(network)) => grid.planes * network::largest(network, (grid.height, grid.width)),
        _ => 0,
    }
}

/// The layout of planes whose channels lie last.
pub(crate) fn dense_layout(grid: &Grid) -> Result<Layout> {
    let shape = [grid.planes, grid.height, grid.width, grid.channels];
    Layout::new(Dtype::F32, Axes { channels: 3, batch: Some(0) }, &shape)
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
        let members = members.to_vec();
        Group { layout: *layout, grid, latent: grid, blocks, source: params, params, members, coefficients: empty }
    }

    /// The same with latents that are coded in place of the features.
    fn with_latent(self, profile: &Profile, chunks: Option<usize>) -> Result<Group> {
        let latent = profile.latent(&self.grid, &Limits::UNBOUNDED)?;
        let layout = dense_layout(&latent)?;
        let blocks = Blocks::new(&latent, profile.block());
        let mut params = Params::of(&layout, &latent, &blocks, profile.block());
        params.items = self.source.items;
        params.chunks = chunk::count(chunks, latent.items, blocks.rows) as u32;
        Ok(Group { latent, blocks, params, ..self })
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
    pub fn until_it_fits(&mut self, mut attempt: impl FnMut(&mut Core) -> Result<bool>) -> Result<()> {
        // Once for each reason, and once more.
        for _ in 0..4 {
            if attempt(self)? {
                return Ok(());
            }
        }
        Err(failed("the GPU did not keep to its own numbers"))
    }

    /// Records the way of features of one shape to coefficients; a quality index matters to some analysis networks.
    pub fn record_forward(
        &mut self,
        recorder: &mut Recorder<'_>,
        (profile, index): (&Arc<Profile>, i16),
        features: &[Source<'_>],
        members: &[usize],
        chunks: Option<usize>,
    ) -> Result<Group> {
        let device = self.device.clone();
        let layout = features[members[0]].layout()?;
        let table = self.tables.get(&device, Some(profile), plain::Kind::default(), layout.channels())?;
        let values = self.pool.get(&device, "values", 0, 4)?;
        let mut group = match &profile.analysis {
            None => Group::new(&layout, profile.block(), chunks, members, values),
            Some(_) => Group::new(&layout, (1, 1), None, members, values).with_latent(profile, chunks)?,
        };
        let size = members.len() * group.blocks.count() * group.params.width as usize;
        let mut values = self.pool.get(&device, "values", 0, size)?;
        let mut other = self.pool.get(&device, "other", 0, size)?;
        group.source.exponent = profile.exponent as u32;
        let integers = match &profile.analysis {
            None => values.clone(),
            Some(_) => self.pool.get(&device, "integers", 0, members.len() * group.grid.len())?,
        };
        for (item, &member) in members.iter().enumerate() {
            let feature = &features[member];
            let out = (2, &integers);
            self.record_feature(recorder, "feature_to_int", (member, item), feature, group.source, out)?;
        }
        let mut params = group.params;
        params.row_shift = profile.dct[0].shift;
        params.column_shift = profile.dct[1].shift;
        params.matrices = profile.matrices.len() as u32;
        let uniform = recorder.uniform(&params.bytes())?;
        let groups = (strided(size), 1, 1);
        match &profile.analysis {
            Some(Analysis::Float(_)) => return Err(FLOAT_ANALYSIS),
            Some(Analysis::Integer(network)) if size > 0 => {
                let table = self.tables.network(&device, (profile.hash, false), network)?;
                let run = Run { device: &device, network, table: &table, quality: index };
                let planes = (members.len() * group.grid.planes, (group.grid.height, group.grid.width));
                let latent = run.record(recorder, &mut self.pool, planes, &integers)?;
                if profile.bands() > 1 {
                    recorder.run("into_blocks", 32, &uniform, &[(1, &latent), (2, &values)], groups)?;
                } else {
                    values = latent;
                }
            }
            Some(Analysis::Integer(_)) | None => {}
        }
        if profile.bands() > 1 {
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

    pub fn profile_coding<'a>(
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
                profile: Some((profile.hash, index)),
                layout: (group.layout != profile.layout).then_some(group.layout),
                chunks: group.chunks(),
                checksums: self.checksums,
                ..Header::new(Mode::Profile)
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
        let seed = coding.head().seed();
        let of_chunk = |number: usize| (0, 0, seed.wrapping_add((number % chunks) as u32));
        let table_of_chunks = device.upload("chunks", &upload::chunk_words((items, chunks), rows, of_chunk))?;
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
    pub fn collect(&mut self, recorder: Recorder<'_>, coded: &[Coded]) -> Result<Option<Vec<Answer>>> {
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

    /// The streams of groups whose coefficients are there, coded in one submission.
    pub fn code(&mut self, groups: &[(&Group, &Coding<'_>)]) -> Result<Vec<Vec<u8>>> {
        let mut streams = Vec::new();
        self.until_it_fits(|core| {
            let device = core.device.clone();
            let mut recorder = Recorder::new(&device);
            let mut coded = Vec::with_capacity(groups.len());
            for (number, (group, coding)) in groups.iter().enumerate() {
                coded.push(core.record_coding(&mut recorder, number, group, coding)?);
            }
            let Some(answers) = core.collect(recorder, &coded)? else { return Ok(false) };
            let of_group = |(answer, (group, coding)): (&Answer, &(&Group, &Coding<'_>))| {
                answer.streams(group, coding, core.lanes)
            };
            streams = answers.iter().zip(groups).flat_map(of_group).collect();
            Ok(true)
        })?;
        Ok(streams)
    }

    /// The elements of a feature as f32, in the order of the grid.
    pub fn source_of(&mut self, feature: &Source<'_>, layout: &Layout, group: &Group) -> Result<Vec<f32>> {
        let mut source = Vec::new();
        match feature {
            Source::View(view) => gather_f32(view, &Grid::new(layout), &mut source),
            Source::Buffer(_) => {
                let device = self.device.clone();
                let bits = self.pool.get(&device, "bits", 0, group.grid.len())?;
                let mut recorder = Recorder::new(&device);
                self.record_feature(&mut recorder, "feature_bits", (0, 0), feature, group.source, (2, &bits))?;
                let answer = recorder.finish(&[(&bits, 4 * group.grid.len())])?;
                source.extend(answer.iter().flat_map(|bytes| words_of(bytes)).map(f32::from_bits));
            }
        }
        Ok(source)
    }

    /// What the symbols that were coded last decode to, in the order of the grid.
    pub fn decoded_of(&mut self, group: &Group, plan: &Plan, profile: Option<&Arc<Profile>>) -> Result<Vec<i16>> {
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
        let count = group.latent.len();
        let out = self.pool.get(&device, "decoded", 2, count)?;
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
        let uniform = recorder.uniform(&params.at(0, Dtype::F32, Some((0, strides))).bytes())?;
        let bindings = [(1, &values), (2, &table.range), (3, &state), (4, &out)];
        recorder.run("int_to_int", 32, &uniform, &bindings, (strided(count), 1, 1))?;
        let answer = recorder.finish(&[(&out, 4 * count)])?;
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
    /// The streams of a group's features; `lanes` is what was asked for, if anything was.
    pub fn streams(&self, group: &Group, coding: &Coding<'_>, lanes: Option<usize>) -> Vec<Vec<u8>> {
        let (items, chunks, head) = (group.members.len(), group.chunks(), coding.head());
        let mut at = 0;
        (0..items)
            .map(|item| {
                let lanes = self.report.get(2 + item).map_or(lanes.unwrap_or(1), |&lanes| lanes as usize);
                let lengths: Vec<usize> = (0..chunks)
                    .map(|chunk| self.report.get(2 + items + item * chunks + chunk).map_or(0, |&words| words as usize))
                    .collect();
                let mut out = Vec::with_capacity(64 + coding.body.len() + 2 * lengths.iter().sum::<usize>());
                let checksum_bytes = if coding.header.checksums { CHECKSUM_BYTES } else { 0 };
                Header { lanes, ..coding.header }.write(&mut out);
                for &length in &lengths[..chunks - 1] {
                    put_varint((2 * length + checksum_bytes) as u64, &mut out);
                }
                out.extend_from_slice(coding.body);
                for (chunk, length) in lengths.into_iter().enumerate() {
                    let bytes = self.payload.get(at..at + 2 * length).unwrap_or_default();
                    out.extend_from_slice(bytes);
                    if coding.header.checksums {
                        out.extend_from_slice(&head.checksum(chunk, lanes, bytes));
                    }
                    at += (2 * length).next_multiple_of(4);
                }
                out
            })
            .collect()
    }
}
