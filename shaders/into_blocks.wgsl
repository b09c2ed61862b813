// Planes of integer values, channels last, to what the transform reads: block by block. Needs: common.

@group(0) @binding(1) var<storage, read> before: array<i32>;
@group(0) @binding(2) var<storage, read_write> after: array<i32>;

@compute @workgroup_size(256)
fn into_blocks(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let count = params.items * params.positions * params.width;
    for (var index = id.x; index < count; index += groups.x * 256u) {
        let block = index / params.width;
        let pixel = index % params.width / params.channels;
        // Block rows of all items and planes lie one after the other.
        let row = block / params.columns;
        // The last row and column are repeated to the end of their block.
        let y = min(row % params.plane_rows * params.block_rows + pixel / params.block_columns, params.height - 1u);
        let x = min(block % params.columns * params.block_columns + pixel % params.block_columns, params.row_length - 1u);
        let position = (row / params.plane_rows * params.height + y) * params.row_length + x;
        after[index] = before[position * params.channels + index % params.channels];
    }
}
