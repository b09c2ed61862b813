// Every band of every block through its channel matrix. Needs: common, rounding.

const TILE: u32 = 64u;
const TILE_BLOCKS: u32 = 8u;

// Entries by columns, one matrix after the other; then the matrix of each band; then the shift of each matrix.
@group(0) @binding(1) var<storage, read> matrix: array<i32>;
@group(0) @binding(2) var<storage, read> before: array<i32>;
@group(0) @binding(3) var<storage, read_write> after: array<i32>;

var<workgroup> tile: array<i32, 512>;

// A workgroup makes 64 outputs of 8 blocks, so that an entry of the matrix is loaded once for 8 products.
@compute @workgroup_size(64)
fn channel_matrix(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let n = params.channels;
    let blocks = params.items * params.positions;
    let band = group.z;
    let to = group.x * TILE + local;
    let column = min(to, n - 1u);
    let entries = params.matrices * n * n;
    let which = u32(matrix[entries + band]);
    let shift = u32(matrix[entries + params.bands + which]);
    let start = which * n * n;
    for (var first = group.y * TILE_BLOCKS; first < blocks; first += groups.y * TILE_BLOCKS) {
        var sums = array<i32, 8>();
        for (var k = 0u; k < n; k += TILE) {
            for (var i = 0u; i < TILE_BLOCKS; i++) {
                let block = first + i;
                let inside = block < blocks && k + local < n;
                let from_index = min(block, blocks - 1u) * params.width + band * n + min(k + local, n - 1u);
                tile[i * TILE + local] = select(0, before[from_index], inside);
            }
            workgroupBarrier();
            let end = min(TILE, n - k);
            for (var j = 0u; j < end; j++) {
                let entry = matrix[start + (k + j) * n + column];
                for (var i = 0u; i < TILE_BLOCKS; i++) {
                    sums[i] += entry * tile[i * TILE + j];
                }
            }
            workgroupBarrier();
        }
        for (var i = 0u; i < TILE_BLOCKS; i++) {
            let block = first + i;
            if (block < blocks && to < n) {
                let sum = round_shift(sums[i], shift);
                // Going back, values are limited to i16; going forward, coefficients are not.
                after[block * params.width + band * n + to] = select(sum, clamp16(sum), params.inverse != 0u);
            }
        }
    }
}
