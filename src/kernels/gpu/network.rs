//! Networks of profiles as kernels, one for each layer, over all planes of all features at once.

use std::iter;

use crate::error::Result;
use crate::kernels::gpu::device::{Device, failed};
use crate::kernels::gpu::params::LayerParams;
use crate::kernels::gpu::recorder::{Pool, Recorder, strided};
use crate::kernels::portable::Convolution;
use crate::network::{Arithmetic, Float, Integer, Network, Node, Op, too_small};

/// Positions and outputs of a workgroup of a dense convolution.
pub(crate) const LAYER_TILE: usize = 32;
/// Inputs that it reads at a time.
pub(crate) const LAYER_SLICE: usize = 16;
/// Workgroups of a dispatch's second dimension.
const ACROSS: usize = 32_768;

/// What shaders read of a layer.
#[derive(Debug)]
struct LayerTable {
    weights: wgpu::Buffer,
    constants: wgpu::Buffer,
}

/// What shaders read of a network: by node, nothing for shuffles.
#[derive(Debug)]
pub(crate) struct NetworkTable {
    layers: Vec<Option<LayerTable>>,
}

/// How a kind of arithmetic is told to shaders.
pub(crate) trait Layers: Arithmetic {
    /// Kernels of dense and of depthwise convolutions.
    const ENTRIES: [&'static str; 2];
    /// Weights of a word of a dense convolution.
    const GROUP: usize;

    /// A word of some weights, fewer at the end of a row.
    fn word(group: impl Iterator<Item = Self::Weight>) -> u32;
    /// A word of one weight.
    fn single(weight: Self::Weight) -> u32;
    /// What each output channel is given, at a quality index.
    fn constants(constants: &Self::Constants, quality: i16, outputs: usize) -> Vec<u32>;
    /// Whether that depends on the quality.
    fn by_quality(constants: &Self::Constants) -> bool;
    /// Fills in bounds and shifts.
    fn put_bounds(constants: &Self::Constants, params: &mut LayerParams);
}

impl Layers for Integer {
    const ENTRIES: [&'static str; 2] = ["convolve", "convolve_depthwise"];
    const GROUP: usize = 4;

    fn word(group: impl Iterator<Item = i8>) -> u32 {
        group.enumerate().fold(0, |word, (at, weight)| word | u32::from(weight as u8) << (8 * at))
    }

    fn single(weight: i8) -> u32 {
        i32::from(weight) as u32
    }

    fn constants(constants: &Self::Constants, quality: i16, outputs: usize) -> Vec<u32> {
        let mut bias = Vec::new();
        Integer::bias(constants, quality, &mut bias);
        // A slope of one leaves negative values as they are.
        let slope = |output: usize| constants.slope.get(output).map_or(1 << 15, |&slope| i32::from(slope));
        let of_output = |output: usize| [bias[output], i32::from(constants.multiplier[output]), slope(output)];
        (0..outputs).flat_map(of_output).map(|word| word as u32).collect()
    }

    fn by_quality(constants: &Self::Constants) -> bool {
        !constants.quality.is_empty()
    }

    fn put_bounds(constants: &Self::Constants, params: &mut LayerParams) {
        [params.first_shift, params.second_shift] = constants.shifts;
        params.low = i32::from(constants.low) as u32;
        params.high = i32::from(constants.high) as u32;
    }
}

impl Layers for Float {
    const ENTRIES: [&'static str; 2] = ["convolve_float", "convolve_float_depthwise"];
    const GROUP: usize = 1;

    fn word(group: impl Iterator<Item = f32>) -> u32 {
        group.fold(0, |_, weight| weight.to_bits())
    }

    fn single(weight: f32) -> u32 {
        weight.to_bits()
    }

    fn constants(constants: &Self::Constants, quality: i16, outputs: usize) -> Vec<u32> {
        let mut bias = Vec::new();
        Float::bias(constants, quality, &mut bias);
        let slope = |output: usize| constants.slope.get(output).copied().unwrap_or(1.0);
        (0..outputs).flat_map(|output| [bias[output], slope(output)]).map(f32::to_bits).collect()
    }

    fn by_quality(constants: &Self::Constants) -> bool {
        !constants.quality.is_empty()
    }

    fn put_bounds(constants: &Self::Constants, params: &mut LayerParams) {
        params.low = constants.low.to_bits();
        params.high = constants.high.to_bits();
    }
}

/// The weights of a window, `[output][place][input]`, by place, groups of inputs, and outputs; zeros up to whole tiles.
fn dense_words<W: Copy>(
    weights: &[W],
    (outputs, places): (usize, usize),
    group: usize,
    word: impl Fn(&mut dyn Iterator<Item = W>) -> u32,
) -> Vec<u32> {
    let inputs = weights.len() / (outputs * places);
    let rows = inputs.next_multiple_of(LAYER_SLICE);
    let mut words = Vec::with_capacity(places * rows / group * outputs.next_multiple_of(LAYER_TILE));
    for place in 0..places {
        for first in (0..rows).step_by(group) {
            let range = first.min(inputs)..(first + group).min(inputs);
            for output in 0..outputs {
                let start = (output * places + place) * inputs;
                words.push(word(&mut weights[start..start + inputs][range.clone()].iter().copied()));
            }
            words.extend(iter::repeat_n(0, outputs.next_multiple_of(LAYER_TILE) - outputs));
        }
    }
    words
}

fn convolution_words<A: Layers>(convolution: &Convolution<A>, outputs: usize) -> Vec<u32> {
    let places = convolution.kernel[0] * convolution.kernel[1];
    let weights = &convolution.weights;
    if convolution.depthwise {
        let at = |place: usize| (0..outputs).map(move |output| A::single(weights[output * places + place]));
        return (0..places).flat_map(at).collect();
    }
    dense_words(weights, (outputs, places), A::GROUP, |group| A::word(group))
}

impl NetworkTable {
    pub fn new<A: Layers>(device: &Device, network: &Network<A>) -> Result<NetworkTable> {
        let layer = |node: &Node<A>| {
            let (weights, constants) = match &node.op {
                Op::Convolution(convolution) => (
                    convolution_words(convolution, node.channels),
                    A::constants(&convolution.constants, 0, node.channels),
                ),
                Op::Normalisation(normalisation) => (
                    dense_words(&normalisation.gamma, (node.channels, 1), 1, |group| {
                        group.fold(0, |_, gamma| gamma.to_bits())
                    }),
                    normalisation.beta.iter().map(|beta| beta.to_bits()).collect(),
                ),
                Op::Shuffle(_) | Op::Unshuffle(_) => return Ok(None),
            };
            let weights = device.upload("weights", &weights)?;
            Ok(Some(LayerTable { weights, constants: device.upload("constants", &constants)? }))
        };
        Ok(NetworkTable { layers: network.nodes.iter().map(layer).collect::<Result<_>>()? })
    }
}

/// Bytes of the largest value of a network, for one plane of this size.
pub(crate) fn largest<A: Layers>(network: &Network<A>, size: (usize, usize)) -> usize {
    let sizes = network.sizes(size).unwrap_or_default();
    let bytes = sizes.iter().enumerate().map(|(value, size)| 4 * size.0 * size.1 * network.channels(value));
    bytes.max().unwrap_or(0)
}

/// A network at a quality index.
pub(crate) struct Run<'a, A: Layers> {
    pub device: &'a Device,
    pub network: &'a Network<A>,
    pub table: &'a NetworkTable,
    pub quality: i16,
}

impl<A: Layers> Run<'_, A> {
    /// Records its way from planes of this size to its output, which is given: the buffer is one of the pool's.
    pub fn record(
        &self,
        recorder: &mut Recorder<'_>,
        pool: &mut Pool,
        (planes, size): (usize, (usize, usize)),
        input: &wgpu::Buffer,
    ) -> Result<wgpu::Buffer> {
        let network = self.network;
        let sizes = network.sizes(size).ok_or(too_small(size))?;
        // Which buffer holds each value; those of values that are not read again are taken for later ones.
        let mut slots: Vec<Option<usize>> = vec![None];
        let mut values = vec![input.clone()];
        for (number, node) in network.nodes.iter().enumerate() {
            let made = number + 1;
            let free = (0..).find(|slot| !slots.contains(&Some(*slot))).unwrap_or(made);
            let words = planes * sizes[made].0 * sizes[made].1 * node.channels;
            let output = pool.get(self.device, "network", free, words)?;
            let params = LayerParams {
                planes: planes as u32,
                height: sizes[node.input].0 as u32,
                width: sizes[node.input].1 as u32,
                channels: network.channels(node.input) as u32,
                out_height: sizes[made].0 as u32,
                out_width: sizes[made].1 as u32,
                outputs: node.channels as u32,
                ..LayerParams::default()
            };
            let add = node.add.map(|add| &values[add]);
            self.record_node(recorder, (number, params), (&values[node.input], add, &output))?;
            values.push(output);
            slots.push(Some(free));
            for (slot, &last_use) in slots.iter_mut().zip(&network.last_use) {
                if last_use == number {
                    *slot = None;
                }
            }
        }
        Ok(values.pop().unwrap_or(input.clone()))
    }

    fn record_node(
        &self,
        recorder: &mut Recorder<'_>,
        (number, mut params): (usize, LayerParams),
        (before, add, after): (&wgpu::Buffer, Option<&wgpu::Buffer>, &wgpu::Buffer),
    ) -> Result<()> {
        let node = &self.network.nodes[number];
        let values = [params.planes, params.out_height, params.out_width, params.outputs];
        let count = values.iter().fold(1u64, |product, &size| product.saturating_mul(u64::from(size)));
        let groups = (strided(count as usize), 1, 1);
        let ends = [(3, before), (5, after)];
        match (&node.op, &self.table.layers[number]) {
            (Op::Shuffle(factor) | Op::Unshuffle(factor), _) => {
                params.stride = *factor as u32;
                let entry = if matches!(node.op, Op::Shuffle(_)) { "shuffle" } else { "unshuffle" };
                let uniform = recorder.uniform(&params.bytes())?;
                recorder.run(entry, 32, &uniform, &ends, groups)
            }
            (Op::Convolution(convolution), Some(table)) => {
                let constants = &convolution.constants;
                [params.rows, params.columns] = convolution.kernel.map(|side| side as u32);
                [params.row_padding, params.column_padding] = convolution.padding.map(|side| side as u32);
                params.stride = convolution.stride as u32;
                params.transposed = u32::from(convolution.transposed.is_some());
                params.adds = u32::from(add.is_some());
                A::put_bounds(constants, &mut params);
                let own;
                let constants = if A::by_quality(constants) {
                    own = self.device.upload("constants", &A::constants(constants, self.quality, node.channels))?;
                    &own
                } else {
                    &table.constants
                };
                // Where nothing is added, what is bound there is not read.
                let tables = [(1, &table.weights), (2, constants), (4, add.unwrap_or(before))];
                let bindings = [&ends[..], &tables[..]].concat();
                if convolution.depthwise {
                    let uniform = recorder.uniform(&params.bytes())?;
                    return recorder.run(A::ENTRIES[1], 32, &uniform, &bindings, groups);
                }
                self.record_dense(recorder, A::ENTRIES[0], params, &bindings)
            }
            (Op::Normalisation(normalisation), Some(table)) => {
                [params.rows, params.columns, params.stride] = [1; 3];
                params.inverse = u32::from(normalisation.inverse) | u32::from(normalisation.simple) << 1;
                let bindings = [&ends[..], &[(1, &table.weights), (2, &table.constants)]].concat();
                self.record_dense(recorder, "normalise", params, &bindings)
            }
            _ => Err(failed("a layer has no table")),
        }
    }

    fn record_dense(
        &self,
        recorder: &mut Recorder<'_>,
        entry: &'static str,
        mut params: LayerParams,
        bindings: &[(u32, &wgpu::Buffer)],
    ) -> Result<()> {
        let (inputs, outputs) = (params.channels as usize, params.outputs as usize);
        let phases = if params.transposed != 0 { params.stride as usize } else { 1 };
        // The first phase has the most positions and, give or take one, as many places as the others.
        let side = |length: u32| (length as usize).div_ceil(phases);
        let positions = params.planes as usize * side(params.out_height) * side(params.out_width);
        let slices = inputs.div_ceil(LAYER_SLICE);
        let places = side(params.rows) * side(params.columns);
        // One round for each input, and those that fill the tiles.
        if side(params.rows) + places * (1 + inputs + 16 * slices) > self.device.rounds() {
            return Err(failed("a convolution has too many inputs for this driver"));
        }
        params.weight_rows = inputs.next_multiple_of(LAYER_SLICE) as u32;
        params.weight_groups = outputs.next_multiple_of(LAYER_TILE) as u32 / 4;
        let tiles = positions.div_ceil(LAYER_TILE);
        params.across = tiles.min(ACROSS) as u32;
        let depth = tiles.div_ceil(ACROSS) * phases * phases;
        let uniform = recorder.uniform(&params.bytes())?;
        let groups = (outputs.div_ceil(LAYER_TILE) as u32, params.across, depth as u32);
        recorder.run(entry, 32, &uniform, bindings, groups)
    }
}
