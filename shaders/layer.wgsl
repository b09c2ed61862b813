// A layer of a network. The Rust side is `kernels::gpu::params::LayerParams`; a test compares the two.
// Values are planes of rows and columns, channels last.
struct LayerParams {
    planes: u32,
    // What is read.
    height: u32,
    width: u32,
    channels: u32,
    // What is made.
    out_height: u32,
    out_width: u32,
    outputs: u32,
    // The window, and the zeros around the input.
    rows: u32,
    columns: u32,
    row_padding: u32,
    column_padding: u32,
    // Also the factor of a shuffle.
    stride: u32,
    transposed: u32,
    // Whether a value is added.
    adds: u32,
    // Inverse normalisation.
    inverse: u32,
    // Rows of weights for each place of the window, and groups of four outputs in a row.
    weight_rows: u32,
    weight_groups: u32,
    first_shift: u32,
    second_shift: u32,
    // Bounds, as the bits of a value.
    low: u32,
    high: u32,
    // Workgroups that share the positions, in each of the dispatch's third dimension.
    across: u32,
    spare_1: u32,
    spare_2: u32,
}

@group(0) @binding(0) var<uniform> layer: LayerParams;
