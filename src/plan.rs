//! What one quality makes of a profile: which channels are coded, with which steps and tables.

use crate::chunk::Outlook;
use crate::container::MAX_LAYERS;
use crate::entropy::bank::{TABLES, TABLES_PER_OCTAVE};
use crate::kernels::portable::{
    CONTEXTS, ContextRule, Dequantizer, Dequantizers, MAX_LANES, Quantizer, Quantizers, RunTables, STEP_MAX,
};
use crate::profile::Profile;
use crate::quality::{self, STEPS_PER_OCTAVE};

/// Quality indices per table.
const INDICES_PER_TABLE: i32 = STEPS_PER_OCTAVE / TABLES_PER_OCTAVE;

/// The tables of one coder channel, by context.
pub(crate) type ChannelTables = [u8; CONTEXTS];

/// Everything that coding the symbols of one feature needs, for one quality.
#[derive(Debug, Default, Clone)]
pub(crate) struct Plan {
    /// Coder channels, silent (all zero) ones included.
    pub channels: usize,
    /// The coder channels that are coded, ascending.
    pub active: Vec<u32>,
    /// Per active channel.
    pub quantizers: Quantizers,
    pub dequantizers: Dequantizers,
    /// Per run of active channels.
    pub runs: Vec<RunTables>,
    /// Mode `Plain`: the scale index of every channel.
    pub levels: Vec<u8>,
}

impl Plan {
    /// Makes this the plan of `profile` at a quality index, reusing its memory.
    pub fn set(&mut self, profile: &Profile, quality: i16) {
        self.set_layer(profile, quality, 0);
    }

    /// Makes this the plan of a layer of a stream, of which `above` are finer. Gains are those of the finest quality, so that the
    /// steps of all layers have the same ratios.
    pub fn set_layer(&mut self, profile: &Profile, finest: i16, above: usize) {
        let quality = quality::of_layer(finest, above);
        let rounding = rounding_at(profile.rounding, quality);
        self.clear(profile.coder_channels());
        for (channel, level, tables) in layer_channels(profile, finest, above) {
            let step = i32::from(profile.steps[channel]) + i32::from(quality) + gain_at(profile, channel, finest);
            self.push(
                channel,
                tables,
                Quantizer::new(profile.means[channel], step, rounding),
                Dequantizer::new(profile.means[channel], step, profile.offsets[usize::from(level)]),
            );
            if let Some(run) = self.runs.last_mut() {
                run.expected += profile.bank.mean_magnitude(level);
            }
        }
    }

    /// Makes coefficients larger than this quality of `profile` does, but for their means, by so many step indices.
    pub fn amplify(&mut self, profile: &Profile, quality: i16, indices: i32) {
        self.dequantizers.clear();
        for (channel, level) in levels(profile, quality, 0) {
            let step = i32::from(profile.steps[channel]) + i32::from(quality) + gain_at(profile, channel, quality);
            let offsets = profile.offsets[usize::from(level)];
            self.dequantizers.push(Dequantizer::new(
                profile.means[channel],
                step.clamp(0, STEP_MAX) + indices,
                offsets,
            ));
        }
    }

    /// Empties the plan, for `channels` coder channels.
    pub fn clear(&mut self, channels: usize) {
        self.channels = channels;
        self.active.clear();
        self.quantizers.clear();
        self.dequantizers.clear();
        self.runs.clear();
    }

    /// Adds an active channel; channels come in ascending order.
    pub fn push(&mut self, channel: usize, tables: ChannelTables, quantizer: Quantizer, dequantizer: Dequantizer) {
        let place = self.active.len() % MAX_LANES;
        if place == 0 {
            self.runs.push(RunTables::EMPTY);
        }
        if let Some(run) = self.runs.last_mut() {
            run.present[place] = -1;
            for (row, &table) in run.tables.iter_mut().zip(&tables) {
                row[place] = table;
            }
        }
        self.active.push(channel as u32);
        self.quantizers.push(quantizer);
        self.dequantizers.push(dequantizer);
    }
}

/// The coder channels that are coded at a quality, each with its level and the tables of its contexts.
fn active_channels(profile: &Profile, quality: i16) -> impl Iterator<Item = (usize, u8, ChannelTables)> {
    let anchor = nearest(&profile.anchors, quality);
    let shift = shift_between(profile.anchors[anchor], quality);
    let coder_channels = profile.coder_channels();
    let levels = &profile.levels[anchor * coder_channels..][..coder_channels];
    let contexts = profile.map_contexts();
    let maps = &profile.maps[anchor * coder_channels * contexts..][..coder_channels * contexts];
    let shifted = move |scale: u8| (i32::from(scale) - shift).clamp(1, TABLES as i32 - 1) as u8;
    let active = levels.iter().enumerate().filter(move |&(_, &scale)| scale > 0 && i32::from(scale) > shift);
    active.map(move |(channel, &scale)| {
        let level = shifted(scale);
        let tables = match profile.context {
            ContextRule::None => [level; CONTEXTS],
            ContextRule::Neighbours => std::array::from_fn(|c| shifted(maps[channel * contexts + c])),
            ContextRule::Runs => profile
                .context_offsets
                .map(|offset| (i32::from(level) + i32::from(offset)).clamp(1, TABLES as i32 - 1) as u8),
        };
        (channel, level, tables)
    })
}

/// Which coder channels are coded at a quality.
fn activity(profile: &Profile, quality: i16) -> impl Fn(usize) -> bool + use<'_> {
    let anchor = nearest(&profile.anchors, quality);
    let shift = shift_between(profile.anchors[anchor], quality);
    let levels = &profile.levels[anchor * profile.coder_channels()..];
    move |channel| levels[channel] > 0 && i32::from(levels[channel]) > shift
}

/// What a channel's step index gains at a quality, between those of the anchors.
fn gain_at(profile: &Profile, channel: usize, quality: i16) -> i32 {
    if profile.gains.is_empty() {
        return 0;
    }
    let width = profile.coder_channels();
    let at = |anchor: usize| i32::from(profile.gains[anchor * width + channel]);
    let anchors = &profile.anchors;
    let above = anchors.partition_point(|&anchor| anchor < quality);
    if above == 0 || above == anchors.len() {
        return at(above.min(anchors.len() - 1));
    }
    let (low, high) = (i32::from(anchors[above - 1]), i32::from(anchors[above]));
    let (from, to) = (at(above - 1), at(above));
    from + ((to - from) * (i32::from(quality) - low) + (high - low) / 2).div_euclid(high - low)
}

/// The coder channels of a layer of a stream, of which `above` are finer: those that are active in these too.
fn layer_channels(profile: &Profile, finest: i16, above: usize) -> impl Iterator<Item = (usize, u8, ChannelTables)> {
    let finer: [_; MAX_LAYERS] = std::array::from_fn(|above| activity(profile, quality::of_layer(finest, above)));
    active_channels(profile, quality::of_layer(finest, above))
        .filter(move |&(channel, ..)| finer[..above].iter().all(|is_active| is_active(channel)))
}

/// The coder channels that are coded in a layer of which `above` are finer, ascending, each with its level.
pub(crate) fn levels(profile: &Profile, finest: i16, above: usize) -> impl Iterator<Item = (usize, u8)> {
    layer_channels(profile, finest, above).map(|(channel, level, _)| (channel, level))
}

/// What a layer of a stream codes, without a plan: `above` layers are finer, and some are below if it `refines` them. A digit may
/// cost next to nothing.
pub(crate) fn outlook(profile: &Profile, finest: i16, above: usize, refines: bool) -> Outlook {
    let below = activity(profile, quality::of_layer(finest, above + 1));
    layer_channels(profile, finest, above).fold(Outlook::default(), |mut outlook, (channel, _, tables)| {
        match refines && below(channel) {
            true => outlook.active += 1,
            false => outlook.add(&profile.bank, &tables),
        }
        outlook
    })
}

/// Quality index at and above which values are rounded to nearest and no rate decisions are made.
const PLAIN_FROM: i32 = 36;

/// What is left, in 1/36, of the fitted dead zone and Lagrangian at a quality: all of it up to quality 0,
/// nothing from [`PLAIN_FROM`] on. At coarse steps zeroing costs the task more than it saves.
fn thrift(quality: i16) -> i32 {
    PLAIN_FROM - i32::from(quality).clamp(0, PLAIN_FROM)
}

/// The rounding offset at a quality, from that at quality 0, in 1/256 step.
pub(crate) fn rounding_at(rounding: u8, quality: i16) -> u8 {
    (128 - (128 - i32::from(rounding)) * thrift(quality) / PLAIN_FROM) as u8
}

/// The Lagrangian at a quality, from that at quality 0.
pub(crate) fn lambda_at(lambda: u16, quality: i16) -> u16 {
    (i32::from(lambda) * thrift(quality) / PLAIN_FROM) as u16
}

/// How many tables a quality lies above an anchor, rounded down.
pub(crate) fn shift_between(anchor: i16, quality: i16) -> i32 {
    (i32::from(quality) - i32::from(anchor) + INDICES_PER_TABLE / 2).div_euclid(INDICES_PER_TABLE)
}

/// The anchor nearest to a quality, the lower of two.
pub(crate) fn nearest(anchors: &[i16], quality: i16) -> usize {
    let distance = |&anchor: &i16| (i32::from(anchor) - i32::from(quality)).abs();
    (0..anchors.len()).min_by_key(|&i| distance(&anchors[i])).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dead_zone_and_lagrangian_fade_out() {
        assert_eq!([-200, 0, 18, 36, 200].map(|q| rounding_at(96, q)), [96, 96, 112, 128, 128]);
        assert_eq!([-200, 0, 18, 36, 200].map(|q| lambda_at(120, q)), [120, 120, 60, 0, 0]);
        assert_eq!(rounding_at(128, 7), 128);
    }

    #[test]
    fn anchors_are_found_and_shifts_are_rounded() {
        let anchors = [-64, 0, 64];
        assert_eq!([-1000, -33, -32, 0, 33, 1000].map(|q| nearest(&anchors, q)), [0, 0, 0, 1, 2, 2]);
        assert_eq!([-6, -2, 0, 1, 2, 5, 6].map(|q| shift_between(0, q)), [-1, 0, 0, 0, 1, 1, 2]);
    }
}
