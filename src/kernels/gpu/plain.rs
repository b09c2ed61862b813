//! Mode `Plain` on the GPU: counters come back, the plan is made on the CPU, the feature stays.
//!
//! What a feature's plan needs is counted step by step, each step for all features of a batch in one submission: largest
//! magnitude (the exponent), energy (the base step), histograms (the levels), costs (the context rule).

use crate::container::{Header, Mode};
use crate::entropy::token::TOKENS;
use crate::error::Result;
use crate::kernels::gpu::coder::{Coding, Core, Group};
use crate::kernels::gpu::feature::Source;
use crate::kernels::gpu::params::{Params, STATE_COST, STATE_COST_WITH, STATE_MAX, STATE_NEGATIVE, STATE_WORDS};
use crate::kernels::gpu::recorder::{Recorder, strided, words_of};
use crate::kernels::gpu::upload;
use crate::kernels::portable::{CONTEXTS, ContextRule, Dequantizer, MAX_LANES, Quantizer, STEP_MAX};
use crate::plain::{self, Kind};
use crate::plan::Plan;

/// A feature on its way through mode `Plain`.
pub(crate) struct PlainFeature {
    pub group: Group,
    pub exponent: i32,
    pub plan: Plan,
    base: i32,
    kind: Kind,
    body: Vec<u8>,
}

/// The features of a batch.
pub(crate) struct PlainFeatures {
    pub features: Vec<PlainFeature>,
}

/// Two words, low one first.
fn wide(words: &[u32], at: usize) -> u64 {
    u64::from(words[at]) | u64::from(words[at + 1]) << 32
}

impl PlainFeatures {
    /// Takes features to integers, and finds their base steps.
    pub fn new(core: &mut Core, sources: &[Source<'_>], chunks: Option<usize>) -> Result<PlainFeatures> {
        let device = core.device.clone();
        let mut features = Vec::with_capacity(sources.len());
        for (number, source) in sources.iter().enumerate() {
            let layout = source.layout()?;
            let count = layout.elements()?;
            let values = core.pool.get(&device, "plain values", number, count)?;
            let group = Group::new(&layout, (1, 1), chunks, &[0], values);
            let (plan, kind, body) = Default::default();
            features.push(PlainFeature { group, exponent: 0, plan, base: 0, kind, body });
        }
        let mut batch = PlainFeatures { features };
        let largest = batch.count(core, |core, recorder, number, feature, state| {
            let params = feature.group.source;
            core.record_feature(recorder, "exponent", (number, 0), &sources[number], params, (3, state))
        })?;
        for (feature, words) in batch.features.iter_mut().zip(largest) {
            feature.exponent = plain::exponent_of(f32::from_bits(words[STATE_MAX]).max(f32::MIN_POSITIVE));
            feature.group.params.exponent = feature.exponent as u32;
        }
        let energies = batch.count(core, |core, recorder, number, feature, state| {
            let (params, values) = (feature.group.params, &feature.group.coefficients);
            core.record_feature(recorder, "feature_to_int", (number, 0), &sources[number], params, (2, values))?;
            let uniform = recorder.uniform(&params.bytes())?;
            let groups = (strided(feature.group.grid.len()), 1, 1);
            recorder.run("energy", 32, &uniform, &[(4, values), (6, state)], groups)
        })?;
        for (feature, words) in batch.features.iter_mut().zip(energies) {
            feature.base = plain::base_step_of(wide(&words, STATE_COST), feature.group.grid.len());
            feature.kind.one_sided = words[STATE_NEGATIVE] == 0;
        }
        Ok(batch)
    }

    /// Runs kernels that count for each feature, and gives the words of their states.
    fn count(
        &self,
        core: &mut Core,
        mut record: impl FnMut(&mut Core, &mut Recorder<'_>, usize, &PlainFeature, &wgpu::Buffer) -> Result<()>,
    ) -> Result<Vec<Vec<u32>>> {
        let device = core.device.clone();
        let mut recorder = Recorder::new(&device);
        let mut states = Vec::with_capacity(self.features.len());
        for (number, feature) in self.features.iter().enumerate() {
            let state = core.pool.get(&device, "state", number, STATE_WORDS)?;
            recorder.clear(&state);
            record(core, &mut recorder, number, feature, &state)?;
            states.push(state);
        }
        let wanted: Vec<_> = states.iter().map(|state| (state, 4 * STATE_WORDS)).collect();
        Ok(recorder.finish(&wanted)?.iter().map(|bytes| words_of(bytes)).collect())
    }

    /// Makes the plans of a quality index, and gives the streams.
    pub fn code(&mut self, core: &mut Core, index: i16) -> Result<Vec<Vec<u8>>> {
        self.make_plans(core, index)?;
        let mut codings = Vec::with_capacity(self.features.len());
        for feature in &self.features {
            codings.push(Coding {
                plan: &feature.plan,
                means: &[],
                table: core.tables.get(&core.device, None, feature.kind, feature.group.grid.channels)?,
                context: feature.kind.context,
                lambda: if core.rdo { plain::LAMBDA } else { 0 },
                header: Header {
                    layout: Some(feature.group.layout),
                    chunks: feature.group.params.chunks as usize,
                    checksums: core.checksums,
                    ..Header::new(Mode::Plain)
                },
                body: &feature.body,
            });
        }
        let groups: Vec<_> = self.features.iter().map(|feature| &feature.group).zip(&codings).collect();
        core.code(&groups)
    }

    /// What [`plain::plan`] does, with the histograms and the costs counted on the GPU.
    fn make_plans(&mut self, core: &mut Core, index: i16) -> Result<()> {
        let device = core.device.clone();
        let mut recorder = Recorder::new(&device);
        let mut histograms = Vec::with_capacity(self.features.len());
        for (number, feature) in self.features.iter().enumerate() {
            let (channels, count) = (feature.group.grid.channels, feature.group.grid.len());
            let counts = core.pool.get(&device, "counts", number, channels * TOKENS)?;
            recorder.clear(&counts);
            // All channels, with one step.
            let all = plan_of(&vec![0; channels], feature.step(index));
            let plan = device.upload("plan", &upload::plan_words(&all, &[], &[]))?;
            let bank = core.tables.get(&device, None, feature.kind, channels)?;
            let symbols = core.pool.get(&device, "plain symbols", number, count)?;
            let uniform = recorder.uniform(&feature.params().bytes())?;
            let bindings = [(1, &plan), (2, &bank.bank), (4, &feature.group.coefficients), (5, &symbols)];
            recorder.run("quantize", 32, &uniform, &bindings, (strided(count), 1, 1))?;
            recorder.run("histogram", 32, &uniform, &[(5, &symbols), (7, &counts)], (strided(count), 1, 1))?;
            histograms.push((counts, 4 * channels * TOKENS));
        }
        let wanted: Vec<_> = histograms.iter().map(|(buffer, bytes)| (buffer, *bytes)).collect();
        let histograms = recorder.finish(&wanted)?;
        for (feature, histograms) in self.features.iter_mut().zip(histograms) {
            feature.kind.context = ContextRule::None;
            let bank = feature.kind.bank();
            let level = |counts: &[u32]| counts.first_chunk().map_or(0, |counts| plain::best_level(bank, counts));
            feature.plan.levels = words_of(&histograms).chunks_exact(TOKENS).map(level).collect();
        }
        let costs = self.count(core, |core, recorder, number, feature, state| {
            let (channels, count) = (feature.group.grid.channels, feature.group.grid.len());
            let with_levels = plan_of(&feature.plan.levels, feature.step(index));
            let plan = device.upload("plan", &upload::plan_words(&with_levels, &[], &feature.plan.levels))?;
            let bank = core.tables.get(&device, None, feature.kind, channels)?;
            let symbols = core.pool.get(&device, "plain symbols", number, count)?;
            let uniform = recorder.uniform(&feature.params().bytes())?;
            let bindings = [(1, &plan), (2, &bank.bank), (5, &symbols), (6, state)];
            recorder.run("cheaper_context", 32, &uniform, &bindings, (strided(count), 1, 1))
        })?;
        for (feature, words) in self.features.iter_mut().zip(costs) {
            if wide(&words, STATE_COST_WITH) < wide(&words, STATE_COST) {
                feature.kind.context = ContextRule::Neighbours;
            }
            let step = feature.step(index);
            plain::describe(&mut feature.plan, &mut feature.body, feature.kind, feature.exponent, step);
        }
        Ok(())
    }
}

impl PlainFeature {
    /// The step index at a quality index.
    fn step(&self, index: i16) -> u16 {
        (self.base + i32::from(index)).clamp(0, STEP_MAX) as u16
    }

    /// The numbers for kernels that look at all channels.
    fn params(&self) -> Params {
        let channels = self.group.grid.channels;
        Params { coded: channels as u32, runs: channels.div_ceil(MAX_LANES) as u32, ..self.group.params }
    }
}

/// A plan of all channels with one step; their tables are those of their levels by neighbours.
fn plan_of(levels: &[u8], step: u16) -> Plan {
    let mut plan = Plan::default();
    plan.clear(levels.len());
    for (channel, &level) in levels.iter().enumerate() {
        let tables: [u8; CONTEXTS] = std::array::from_fn(|context| plain::table_of(level, context));
        let quantizer = Quantizer::new(0, i32::from(step), plain::ROUNDING);
        plan.push(channel, tables, quantizer, Dequantizer::new(0, i32::from(step), [0; 3]));
    }
    plan
}
