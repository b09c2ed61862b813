// One pass of a separable transform over all blocks. Needs: common, rounding.

@group(0) @binding(1) var<storage, read> matrix: array<i32>;
@group(0) @binding(2) var<storage, read> before: array<i32>;
@group(0) @binding(3) var<storage, read_write> after: array<i32>;

// after[to] = sum over from of M[to, from] before[from], along the columns of each block or along its rows.
fn pass_over(id: vec3<u32>, groups: vec3<u32>, along_columns: bool, transposed: bool) {
    let count = params.items * params.positions * params.width;
    let row = params.block_columns * params.channels;
    let length = select(params.block_columns, params.block_rows, along_columns);
    let step = select(params.channels, row, along_columns);
    let shift = select(params.column_shift, params.row_shift, along_columns);
    // The matrix of the columns' transform comes first.
    let start = select(params.block_rows * params.block_rows, 0u, along_columns);
    for (var index = id.x; index < count; index += groups.x * 256u) {
        let to = (index / step) % length;
        let base = index - to * step;
        var sum = 0;
        for (var k = 0u; k < length; k++) {
            let entry = select(to * length + k, k * length + to, transposed);
            sum += matrix[start + entry] * before[base + k * step];
        }
        after[index] = clamp16(round_shift(sum, shift));
    }
}
