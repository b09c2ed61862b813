//! Mode `Plain` on the GPU: counters come back, the plan is made on the CPU, the feature stays.

use crate::container::{Header, Layout, Mode};
use crate::entropy::bank::COST_ONE_BIT;
use crate::entropy::token::TOKENS;
use crate::error::Result;
use crate::kernels::gpu::encode::{Coding, Core, Group};
use crate::kernels::gpu::feature::Source;
use crate::kernels::gpu::params::{STATE_COST, STATE_COST_WITH, STATE_MAX, STATE_NEGATIVE, STATE_WORDS};
use crate::kernels::gpu::recorder::{Recorder, strided, words_of};
use crate::kernels::gpu::upload;
use crate::kernels::portable::{CONTEXTS, ContextRule, Dequantizer, MAX_LANES, Quantizer, STEP_MAX};
use crate::plain::{self, Kind};
use crate::plan::Plan;
use crate::transform::COEFFICIENT_BITS;

/// A feature on its way through mode `Plain`.
pub(crate) struct PlainFeature {
    pub group: Group,
    pub exponent: i32,
    pub plan: Plan,
    base: i32,
    one_sided: bool,
    body: Vec<u8>,
}

/// Two words, low one first.
fn wide(words: &[u32], at: usize) -> u64 {
    u64::from(words[at]) | u64::from(words[at + 1]) << 32
}

impl PlainFeature {
    /// Takes a feature to integers, and finds its base step.
    pub fn new(core: &mut Core, feature: &Source<'_>, layout: &Layout, chunks: Option<usize>) -> Result<PlainFeature> {
        let device = core.device.clone();
        let state = core.pool.get(&device, "state", 0, STATE_WORDS)?;
        let values =
            core.pool.get(&device, "values", 0, Group::new(layout, (1, 1), chunks, &[0], state.clone()).grid.len())?;
        let mut group = Group::new(layout, (1, 1), chunks, &[0], values.clone());
        let mut recorder = Recorder::new(&device);
        recorder.clear(&state);
        core.record_feature(&mut recorder, "exponent", (0, 0), feature, group.params, (3, &state))?;
        let words = words_of(&recorder.finish(&[(&state, 4 * STATE_WORDS)])?[0]);
        let exponent = plain::exponent_of(f32::from_bits(words[STATE_MAX]).max(f32::MIN_POSITIVE));
        group.params.exponent = exponent as u32;

        let mut recorder = Recorder::new(&device);
        recorder.clear(&state);
        core.record_feature(&mut recorder, "feature_to_int", (0, 0), feature, group.params, (2, &values))?;
        let uniform = recorder.uniform(&group.params.bytes())?;
        let groups = (strided(group.grid.len()), 1, 1);
        recorder.run("energy", 32, &uniform, &[(4, &values), (6, &state)], groups)?;
        let words = words_of(&recorder.finish(&[(&state, 4 * STATE_WORDS)])?[0]);
        let energy = wide(&words, STATE_COST);
        let base = if energy < 1 << 53 {
            // Squares of coefficients are squares of values shifted: the sum has been exact throughout.
            plain::base_step_of((energy << (2 * COEFFICIENT_BITS)) as f64, group.grid.len())
        } else {
            // Beyond, floats round, and the order in which they are added counts.
            let values = Recorder::new(&device).finish(&[(&values, 4 * group.grid.len())])?;
            let coefficients: Vec<i32> = words_of(&values[0]).iter().map(|&v| (v as i32) << COEFFICIENT_BITS).collect();
            plain::base_step(&coefficients)
        };
        let one_sided = words[STATE_NEGATIVE] == 0;
        Ok(PlainFeature { group, exponent, plan: Plan::default(), base, one_sided, body: Vec::new() })
    }

    /// Makes the plan of a quality index, and writes the stream.
    pub fn code(&mut self, core: &mut Core, index: i16, out: &mut Vec<u8>) -> Result<()> {
        let kind = self.make_plan(core, self.base + i32::from(index))?;
        let coding = Coding {
            plan: &self.plan,
            means: &[],
            table: core.tables.get(&core.device, None, kind, self.group.grid.channels)?,
            context: kind.context,
            lambda: if core.rdo { plain::LAMBDA } else { 0 },
            header: Header {
                mode: Mode::Plain,
                lanes: 1,
                profile: None,
                layout: Some(self.group.layout),
                chunks: self.group.params.chunks as usize,
            },
            body: &self.body,
        };
        *out = core.code_one(&self.group, &coding)?;
        Ok(())
    }

    /// What [`plain::plan`] does, with the histograms and the costs counted on the GPU.
    fn make_plan(&mut self, core: &mut Core, step: i32) -> Result<Kind> {
        let device = core.device.clone();
        let channels = self.group.grid.channels;
        let count = self.group.grid.len();
        let step = step.clamp(0, STEP_MAX) as u16;
        let mut kind = Kind { one_sided: self.one_sided, context: ContextRule::None };
        let mut histograms = vec![0; channels * TOKENS];
        let mut params = self.group.params;
        params.coded = channels as u32;
        params.runs = channels.div_ceil(MAX_LANES) as u32;
        let symbols = core.pool.get(&device, "symbols", 0, count)?;
        let state = core.pool.get(&device, "state", 0, STATE_WORDS)?;
        let bank = core.tables.get(&device, None, kind, channels)?;
        if count > 0 {
            // All channels, with one step.
            let all = plan_of(&vec![0; channels], step);
            let plan = device.upload("plan", &upload::plan_words(&all, &[], &[]))?;
            let counts = core.pool.get(&device, "counts", 0, channels * TOKENS)?;
            let mut recorder = Recorder::new(&device);
            recorder.clear(&counts);
            let uniform = recorder.uniform(&params.bytes())?;
            let bindings = [(1, &plan), (2, &bank.bank), (4, &self.group.coefficients), (5, &symbols)];
            recorder.run("quantize", 32, &uniform, &bindings, (strided(count), 1, 1))?;
            let bindings = [(5, &symbols), (7, &counts)];
            recorder.run("histogram", 32, &uniform, &bindings, (strided(count), 1, 1))?;
            histograms = words_of(&recorder.finish(&[(&counts, 4 * channels * TOKENS)])?[0]);
        }
        self.plan.levels.clear();
        for histogram in histograms.chunks_exact(TOKENS) {
            let mut counts = [0; TOKENS];
            counts.copy_from_slice(histogram);
            self.plan.levels.push(plain::best_level(kind.bank(), &counts));
        }
        if count > 0 {
            let with_levels = plan_of(&self.plan.levels, step);
            let plan = device.upload("plan", &upload::plan_words(&with_levels, &[], &self.plan.levels))?;
            let mut recorder = Recorder::new(&device);
            recorder.clear(&state);
            let uniform = recorder.uniform(&params.bytes())?;
            let bindings = [(1, &plan), (2, &bank.bank), (5, &symbols), (6, &state)];
            recorder.run("cheaper_context", 32, &uniform, &bindings, (strided(count), 1, 1))?;
            let words = words_of(&recorder.finish(&[(&state, 4 * STATE_WORDS)])?[0]);
            debug_assert!(wide(&words, STATE_COST) <= count as u64 * u64::from(COST_ONE_BIT) * 64);
            if wide(&words, STATE_COST_WITH) < wide(&words, STATE_COST) {
                kind.context = ContextRule::Neighbours;
            }
        }
        plain::describe(&mut self.plan, &mut self.body, kind, self.exponent, step);
        Ok(kind)
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
