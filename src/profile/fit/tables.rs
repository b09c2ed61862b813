//! Fitting the bank of tables, the scale maps and the reconstruction offsets.

use super::Reporter;
use crate::chunk::{self, Coding};
use crate::entropy::bank::{Bank, TABLES, UNIT_SCALE, normalise};
use crate::entropy::token::{ESCAPE, TOKENS, token_of};
use crate::error::Result;
use crate::geometry::Grid;
use crate::kernels::Kernels;
use crate::kernels::portable::{CONTEXTS, ContextRule, MAX_LANES, Neighbourhood, in_steps};
use crate::plan::{Plan, lambda_at};
use crate::profile::Profile;
use crate::transform::Blocks;

type Histogram = [u32; TOKENS];

/// Observations that a table's neighbours in the built-in bank count for.
const PRIOR: f64 = 400.0;
/// Observations that a channel's own scale counts for in each of its contexts.
const CONTEXT_PRIOR: f64 = 16.0;

/// Takes the coefficients of a feature, for the anchor of this number or for all.
pub(crate) type Take<'a> = &'a mut dyn FnMut(&[i32], Option<usize>);

/// What the symbols of all samples look like at one anchor.
struct Statistics {
    /// Per coder channel and context (or per coder channel).
    histograms: Vec<Histogram>,
    contexts: usize,
    /// Per level and context of a run (context rule `Runs`).
    by_run: Vec<[Histogram; CONTEXTS]>,
}

impl Statistics {
    fn channel(&self, channel: usize) -> &[Histogram] {
        &self.histograms[channel * self.contexts..][..self.contexts]
    }
}

/// Sums and counts of what rounding cut off, by scale index and magnitude (1, 2, more), in 1/256 step.
type Excess = Vec<[(i64, u64); 3]>;

/// Fits bank, levels, maps and offsets of `profile` at `anchors` to the coefficients that `visit`
/// walks through (feature after feature, all coder channels of each block; for one anchor, or for all).
pub(crate) fn fit(
    profile: &mut Profile,
    grid: &Grid,
    anchors: &[i16],
    centroids: bool,
    reporter: &mut Reporter<'_>,
    mut visit: impl FnMut(&Profile, Take<'_>, &mut Reporter<'_>) -> Result<()>,
) -> Result<()> {
    let channels = profile.coder_channels();
    let lambda = std::mem::take(&mut profile.lambda);
    let middle = UNIT_SCALE as u8;
    profile.bank = Bank::builtin();
    profile.anchors = anchors.to_vec();
    profile.levels = vec![middle; anchors.len() * channels];
    profile.maps = vec![middle; anchors.len() * channels * profile.map_contexts()];
    profile.offsets = vec![[0; 3]; TABLES];
    // First without rate decisions and run contexts, from tables that are the same for all; then, if
    // there are any, with them, from the tables that the round before gave.
    let runs = profile.context == ContextRule::Runs;
    let rounds = if lambda > 0 { 3 } else { 1 + usize::from(runs) };
    for round in 0..rounds {
        profile.lambda = if round == 0 { 0 } else { lambda };
        let contexts = profile.map_contexts().max(1);
        let mut statistics: Vec<Statistics> = anchors
            .iter()
            .map(|_| Statistics {
                histograms: vec![[0; TOKENS]; channels * contexts],
                contexts,
                by_run: vec![[[0; TOKENS]; CONTEXTS]; if runs && round > 0 { TABLES } else { 0 }],
            })
            .collect();
        let mut plans = vec![Plan::default(); anchors.len()];
        for (plan, &anchor) in plans.iter_mut().zip(anchors) {
            plan.set(profile, anchor);
        }
        let mut symbols = Vec::new();
        let shared = &*profile;
        visit(
            shared,
            &mut |coefficients, only| {
                for (i, (plan, statistics)) in plans.iter().zip(&mut statistics).enumerate() {
                    if only.is_some_and(|only| only != i) {
                        continue;
                    }
                    let levels = &shared.levels[i * channels..][..channels];
                    count(shared, grid, anchors[i], (plan, levels), coefficients, &mut symbols, statistics);
                }
            },
            reporter,
        )?;
        assign(profile, &statistics, round);
    }
    profile.lambda = lambda;
    if centroids {
        let mut excess: Excess = vec![[(0, 0); 3]; TABLES];
        let mut plan = Plan::default();
        let mut symbols = Vec::new();
        let shared = &*profile;
        visit(
            shared,
            &mut |coefficients, only| {
                for (i, &anchor) in anchors.iter().enumerate() {
                    if only.is_some_and(|only| only != i) {
                        continue;
                    }
                    plan.set(shared, anchor);
                    let levels = &shared.levels[i * channels..][..channels];
                    measure(shared, grid, &plan, levels, coefficients, &mut symbols, &mut excess);
                }
            },
            reporter,
        )?;
        for (offsets, excess) in profile.offsets.iter_mut().zip(&excess) {
            for (offset, &(sum, count)) in offsets.iter_mut().zip(excess) {
                let mean = sum as f64 / (count + 32) as f64;
                *offset = libm::rint(-mean / 16.0).clamp(0.0, 15.0) as u8;
            }
        }
    }
    Ok(())
}

fn coding<'a>(profile: &'a Profile, grid: &Grid) -> Coding<'a> {
    let blocks = Blocks::new(grid, profile.block());
    Coding {
        bank: &profile.bank,
        context: profile.context,
        rows: blocks.rows,
        plane_rows: blocks.plane_rows,
        columns: blocks.columns,
        chunks: 1,
        lanes: None,
        lambda: profile.lambda,
        kernels: Kernels::best(),
    }
}

/// Adds the symbols of one feature to the statistics of an anchor.
fn count(
    profile: &Profile,
    grid: &Grid,
    anchor: i16,
    (plan, levels): (&Plan, &[u8]),
    coefficients: &[i32],
    symbols: &mut Vec<i32>,
    statistics: &mut Statistics,
) {
    let coding = Coding { lambda: lambda_at(profile.lambda, anchor), ..coding(profile, grid) };
    chunk::quantize(&coding, plan, coefficients, symbols, &mut Vec::new());
    let channels = plan.active.len();
    if channels == 0 {
        return;
    }
    let model = coding.model(plan, 0);
    let mut rest = &symbols[..];
    Neighbourhood::default().each_run(&model, symbols, |run, contexts| {
        let (own, others) = rest.split_at(contexts.len());
        rest = others;
        for ((&symbol, &channel), &context) in own.iter().zip(&plan.active[run * MAX_LANES..]).zip(contexts) {
            let token = usize::from(token_of(symbol).0);
            let channel = channel as usize;
            let context = usize::from(context);
            let own = channel * statistics.contexts + if statistics.contexts > 1 { context } else { 0 };
            statistics.histograms[own][token] += 1;
            if let Some(by_context) = statistics.by_run.get_mut(usize::from(levels[channel])) {
                by_context[context][token] += 1;
            }
        }
    });
}

/// Adds what rounding cut off the coefficients of one feature, by the scale index of their channel.
fn measure(
    profile: &Profile,
    grid: &Grid,
    plan: &Plan,
    levels: &[u8],
    coefficients: &[i32],
    symbols: &mut Vec<i32>,
    excess: &mut Excess,
) {
    chunk::quantize(&coding(profile, grid), plan, coefficients, symbols, &mut Vec::new());
    let active = plan.active.len().max(1);
    for (row, all) in symbols.chunks_exact(active).zip(coefficients.chunks_exact(plan.channels.max(1))) {
        for (i, (&symbol, &channel)) in row.iter().zip(&plan.active).enumerate() {
            if symbol != 0 {
                let size = i64::from(in_steps(all[channel as usize], &plan.quantizers.get(i)));
                let magnitude = symbol.unsigned_abs();
                let entry = &mut excess[usize::from(levels[channel as usize])][magnitude.min(3) as usize - 1];
                entry.0 += size - (i64::from(magnitude) << 8);
                entry.1 += 1;
            }
        }
    }
}

/// Chooses the scale indices that code the statistics in the fewest bits, and refits the tables to
/// what they are then used for, in turns.
fn assign(profile: &mut Profile, statistics: &[Statistics], round: usize) {
    let channels = profile.coder_channels();
    let contexts = profile.map_contexts();
    // Without a transform both signs need not be alike, and rectified features have only one.
    let identity = profile.matrices.is_empty() && profile.bands() == 1;
    let nonnegative = identity && profile.range.iter().all(|range| range[0] >= 0);
    let builtin = if nonnegative { Bank::builtin_one_sided() } else { Bank::builtin() };
    for _turn in 0..3 {
        let costs: Vec<[f64; TOKENS]> = (0..TABLES)
            .map(|table| std::array::from_fn(|token| f64::from(profile.bank.token_cost(table as u8, token as u8))))
            .collect();
        let mut pooled = vec![[0.0f64; TOKENS]; TABLES];
        for (anchor, statistics) in statistics.iter().enumerate() {
            for channel in 0..channels {
                let at = anchor * channels + channel;
                if profile.levels[at] == 0 {
                    continue;
                }
                let histograms = statistics.channel(channel);
                let mut total = [0.0f64; TOKENS];
                for histogram in histograms {
                    total.iter_mut().zip(histogram).for_each(|(sum, &count)| *sum += f64::from(count));
                }
                // A channel that is all but always zero costs nothing if it is not coded at all.
                if total[1..].iter().sum::<f64>() < 2.0 && round == 0 {
                    profile.levels[at] = 0;
                    continue;
                }
                let level = cheapest(&total, &costs);
                profile.levels[at] = level;
                if contexts == 0 {
                    add(&mut pooled[usize::from(level)], &total);
                    continue;
                }
                let prior = &profile.bank.frequencies()[usize::from(level)];
                for (context, histogram) in histograms.iter().enumerate() {
                    let observed = histogram.map(f64::from);
                    let mut padded = observed;
                    for (count, &frequency) in padded.iter_mut().zip(prior) {
                        *count += CONTEXT_PRIOR * f64::from(frequency) / 4096.0;
                    }
                    let table = cheapest(&padded, &costs);
                    profile.maps[at * contexts + context] = table;
                    add(&mut pooled[usize::from(table)], &observed);
                }
            }
        }
        if statistics.iter().any(|statistics| !statistics.by_run.is_empty()) {
            pooled = assign_run_offsets(profile, statistics, &costs);
        }
        let tables = pooled.iter().zip(builtin.frequencies()).map(|(observed, prior)| {
            let mut weights = *observed;
            for (weight, &frequency) in weights.iter_mut().zip(prior) {
                *weight += PRIOR * f64::from(frequency) / 4096.0;
            }
            if !identity {
                for token in (1..usize::from(ESCAPE)).step_by(2) {
                    let mean = (weights[token] + weights[token + 1]) / 2.0;
                    (weights[token], weights[token + 1]) = (mean, mean);
                }
            }
            normalise(&weights)
        });
        profile.bank = Bank::new(tables.collect()).unwrap_or(builtin.clone());
    }
}

/// Chooses what each context of a run adds to a level, and pools the symbols by the table that gives.
fn assign_run_offsets(profile: &mut Profile, statistics: &[Statistics], costs: &[[f64; TOKENS]]) -> Vec<[f64; TOKENS]> {
    let table = |level: usize, offset: i8| (level as i32 + i32::from(offset)).clamp(1, TABLES as i32 - 1) as usize;
    let observed = |context: usize| {
        let levels = statistics.iter().flat_map(|statistics| statistics.by_run.iter().enumerate());
        levels.map(move |(level, by_context)| (level, by_context[context].map(f64::from)))
    };
    let mut pooled = vec![[0.0f64; TOKENS]; TABLES];
    for context in 0..CONTEXTS {
        let bits = |offset: i8| -> f64 {
            observed(context)
                .map(|(level, counts)| counts.iter().zip(&costs[table(level, offset)]).map(|(n, c)| n * c).sum::<f64>())
                .sum()
        };
        let best = (-32..=32).map(|offset| (bits(offset), offset)).min_by(|a, b| a.0.total_cmp(&b.0));
        let offset = best.map_or(0, |(_, offset)| offset);
        profile.context_offsets[context] = offset;
        for (level, counts) in observed(context) {
            add(&mut pooled[table(level, offset)], &counts);
        }
    }
    pooled
}

fn add(sum: &mut [f64; TOKENS], more: &[f64; TOKENS]) {
    sum.iter_mut().zip(more).for_each(|(sum, more)| *sum += more);
}

/// The scale index, from 1 on, whose table codes a histogram in the fewest bits.
fn cheapest(histogram: &[f64; TOKENS], costs: &[[f64; TOKENS]]) -> u8 {
    let bits = |table: &[f64; TOKENS]| -> f64 { histogram.iter().zip(table).map(|(n, cost)| n * cost).sum() };
    let best = (1..TABLES).map(|table| (bits(&costs[table]), table)).min_by(|a, b| a.0.total_cmp(&b.0));
    best.map_or(1, |(_, table)| table as u8)
}
