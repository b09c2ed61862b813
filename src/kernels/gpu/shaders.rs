//! The shaders: their sources, put together from the files of `shaders/`, and what tests compare with the Rust side.
//!
//! A kernel is one file; what several kernels need is in files of its own and put in front. Two such files come in
//! variants that do the same: the edges between floats and integers, and the votes among the lanes of a chunk.

use crate::entropy::{bank, token};
use crate::kernels::gpu::network;
use crate::kernels::gpu::params::{LayerParams, Params};
use crate::kernels::portable;

macro_rules! file {
    ($name:literal) => {
        include_str!(concat!("../../../shaders/", $name, ".wgsl"))
    };
}

/// How the lanes of a chunk learn of each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Lanes {
    /// One subgroup holds a workgroup: no barriers.
    Single,
    /// Subgroups of any size, joined through workgroup memory.
    Subgroups,
    /// Workgroup memory alone.
    Memory,
}

impl Lanes {
    /// All variants.
    pub const ALL: [Lanes; 3] = [Lanes::Single, Lanes::Subgroups, Lanes::Memory];

    fn source(self) -> &'static str {
        match self {
            Lanes::Single => file!("lanes_single"),
            Lanes::Subgroups => file!("lanes_subgroups"),
            Lanes::Memory => file!("lanes_memory"),
        }
    }
}

/// How a shader is put together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Variant {
    /// Invocations of a workgroup that codes a chunk: 8 or 32.
    pub workgroup: u32,
    /// How its lanes learn of each other.
    pub lanes: Lanes,
    /// Whether the edges between floats and integers avoid float instructions.
    pub integer_floats: bool,
}

/// One file of `shaders/` with entry points.
#[derive(Debug, Clone, Copy)]
pub struct Shader {
    /// Name of the file.
    pub name: &'static str,
    parts: &'static [Part],
    /// Entry points.
    pub entries: &'static [&'static str],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Text(&'static str),
    Edge,
    Lanes,
    Teams,
}

use Part::{Edge, Text};

const COMMON: Part = Text(file!("common"));
const LOCATE: Part = Text(file!("locate"));
const HALVES: Part = Text(file!("halves"));
const SEPARABLE: Part = Text(file!("separable"));
const PLAN: Part = Text(file!("plan"));
const BANK: Part = Text(file!("bank"));
const CHUNKS: Part = Text(file!("chunks"));
const CONTEXTS: Part = Text(file!("contexts"));
const AROUND: Part = Text(file!("around"));
const RUNS: Part = Text(file!("runs"));
const BYTES: Part = Text(file!("bytes"));
const SUM64: Part = Text(file!("sum64"));
const ROUNDING: Part = Text(file!("rounding"));
const LAYER: Part = Text(file!("layer"));
const WINDOW: Part = Text(file!("window"));
const WINDOW_FLOAT: Part = Text(file!("window_float"));

macro_rules! shader {
    ($name:literal, [$($part:expr),*], [$($entry:literal),*]) => {
        Shader { name: $name, parts: &[$($part,)* Text(file!($name))], entries: &[$($entry),*] }
    };
}

/// Every shader.
pub const SHADERS: &[Shader] = &[
    shader!("feature_to_int", [COMMON, LOCATE, Edge, HALVES], ["feature_to_int", "feature_bits", "exponent"]),
    shader!("convolve", [ROUNDING, LAYER, WINDOW], ["convolve", "convolve_depthwise"]),
    shader!("shuffle", [LAYER], ["shuffle", "unshuffle"]),
    shader!("into_blocks", [COMMON], ["into_blocks"]),
    shader!("block_dct", [COMMON, ROUNDING, SEPARABLE], ["block_dct_columns", "block_dct_rows"]),
    shader!("channel_matrix", [COMMON, ROUNDING], ["channel_matrix"]),
    shader!(
        "quantize",
        [COMMON, Part::Lanes, PLAN, BANK, CHUNKS, CONTEXTS, AROUND, RUNS],
        ["quantize", "quantize_neighbours", "quantize_runs"]
    ),
    shader!(
        "context",
        [COMMON, PLAN, BANK, CHUNKS, CONTEXTS, AROUND, SUM64],
        ["run_magnitudes", "run_context", "context"]
    ),
    shader!("lanes_for", [COMMON], ["lanes_for"]),
    shader!("rans_encode", [COMMON, Part::Lanes, BANK, CHUNKS], ["rans_encode"]),
    shader!("compact", [COMMON, CHUNKS], ["starts_of", "compact"]),
    shader!("rans_decode", [COMMON, Part::Lanes, PLAN, BANK, CHUNKS, CONTEXTS, AROUND, RUNS], ["rans_decode"]),
    shader!("dequantize", [COMMON, ROUNDING, PLAN], ["dequantize"]),
    shader!("block_idct", [COMMON, ROUNDING, SEPARABLE], ["block_idct_columns", "block_idct_rows"]),
    shader!("convolve_float", [LAYER, WINDOW, WINDOW_FLOAT], ["convolve_float", "convolve_float_depthwise"]),
    shader!("normalise", [LAYER, WINDOW, WINDOW_FLOAT], ["normalise"]),
    shader!(
        "int_to_feature",
        [COMMON, LOCATE, Edge, HALVES],
        ["int_to_feature", "int_to_half", "int_to_int", "made_to_feature", "made_to_half"]
    ),
    shader!("plain", [COMMON, PLAN, BANK, CHUNKS, CONTEXTS, AROUND, SUM64], ["energy", "histogram", "cheaper_context"]),
    shader!("probe", [Edge], ["probe"]),
    shader!("bytes_encode", [BYTES, Part::Teams], ["bytes_encode"]),
    shader!("bytes_compact", [BYTES], ["bytes_starts", "bytes_compact"]),
    shader!("bytes_decode", [BYTES, Part::Teams], ["bytes_decode"]),
    shader!("copy", [], ["copy"]),
];

impl Shader {
    /// The shader that has an entry point.
    pub(crate) fn with_entry(entry: &str) -> Option<&'static Shader> {
        SHADERS.iter().find(|shader| shader.entries.contains(&entry))
    }

    /// Whether this shader differs between ways of voting.
    pub fn has_lanes(&self) -> bool {
        self.parts.contains(&Part::Lanes) || self.has_teams()
    }

    /// Whether this shader has several chunks in a workgroup where subgroups allow it.
    pub fn has_teams(&self) -> bool {
        self.parts.contains(&Part::Teams)
    }

    /// Whether this shader differs between ways of crossing the edge between floats and integers.
    pub fn has_edge(&self) -> bool {
        self.parts.contains(&Edge)
    }

    /// The text that is compiled.
    pub fn source(&self, variant: Variant) -> String {
        let edge = if variant.integer_floats { file!("integer_edge") } else { file!("float_edge") };
        let mut text = format!("const WORKGROUP: u32 = {}u;\n", variant.workgroup);
        for part in self.parts {
            let more = match part {
                Text(more) => more,
                Edge => edge,
                Part::Lanes => variant.lanes.source(),
                Part::Teams if variant.lanes == Lanes::Single => file!("teams_single"),
                Part::Teams => {
                    text.push_str(variant.lanes.source());
                    file!("teams_any")
                }
            };
            text.push_str(more);
            text.push('\n');
        }
        text
    }
}

/// Constants that shaders share with the Rust side: name and values.
pub fn constants() -> Vec<(&'static str, Vec<u32>)> {
    let words = |values: &[u32]| values.to_vec();
    vec![
        ("MAX_LANES", vec![portable::MAX_LANES as u32]),
        ("THRESHOLDS", words(&portable::THRESHOLDS)),
        ("RATIOS", words(&portable::RATIOS)),
        ("CAP", vec![portable::MAGNITUDE_CAP]),
        ("RUN_BITS", vec![portable::RUN_BITS]),
        ("KEEP", vec![portable::KEEP]),
        ("PRIOR", vec![portable::PRIOR]),
        ("RULE_NEIGHBOURS", vec![u32::from(portable::ContextRule::Neighbours.code())]),
        ("RULE_RUNS", vec![u32::from(portable::ContextRule::Runs.code())]),
        ("TOKENS", vec![token::TOKENS as u32]),
        ("ESCAPE", vec![u32::from(token::ESCAPE)]),
        ("FIRST_BUCKET", vec![token::FIRST_BUCKET as u32]),
        ("FIRST_ESCAPED", vec![token::FIRST_ESCAPED]),
        ("TABLES", vec![bank::TABLES as u32]),
        ("TOTAL", vec![bank::TOTAL]),
        ("PROBABILITY_BITS", vec![bank::PROBABILITY_BITS]),
        ("COST_ONE_BIT", vec![bank::COST_ONE_BIT]),
        ("SYMBOL_MAX", vec![portable::SYMBOL_MAX as u32]),
        ("COEFFICIENT_MAX", vec![portable::COEFFICIENT_MAX as u32]),
        ("COEFFICIENT_BITS", vec![crate::transform::COEFFICIENT_BITS]),
        ("OFFSET_BITS", vec![portable::OFFSET_BITS]),
        ("RDO_MAX", vec![crate::chunk::RDO_MAX as u32]),
        ("BYTES_PER_LANE", vec![crate::chunk::BYTES_PER_LANE as u32]),
        ("CHECK_MULTIPLIER", vec![portable::CHECK_MULTIPLIER]),
        ("LOWEST", vec![portable::LOWEST]),
        ("RECORD", vec![super::upload::RECORD as u32]),
        ("CHUNK_WORDS", vec![super::upload::CHUNK_WORDS as u32]),
        ("STATE_WORDS", vec![super::params::STATE_WORDS as u32]),
        ("STATUS_WORDS", vec![super::params::STATUS_WORDS as u32]),
        ("SPARE", vec![super::coder::SPARE as u32]),
        ("LAYER_TILE", vec![network::LAYER_TILE as u32]),
        ("LAYER_SLICE", vec![network::LAYER_SLICE as u32]),
        ("LANES", vec![super::bytes::LANES as u32]),
        ("FLAG_LANES", vec![super::coder::FLAG_LANES]),
    ]
}

/// Fields of a uniform, by name and byte offset, and its size.
pub type UniformLayout = (Vec<(&'static str, u32)>, u32);

/// The uniforms `Params`, which the kernels of the codec are given, `LayerParams`, which those of networks are, and
/// `ByteParams`, which those of the byte coder are.
pub fn params_layout() -> [UniformLayout; 3] {
    let bytes = super::bytes::PARAMS.into_iter().zip((0..).step_by(4)).collect();
    [
        (Params::layout(), Params::SIZE as u32),
        (LayerParams::layout(), LayerParams::SIZE as u32),
        (bytes, 4 * super::bytes::PARAMS.len() as u32),
    ]
}
