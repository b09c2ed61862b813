// Sums over a window of a layer's input. Needs: layer, and from the kernel: Value and Values (four of them), `value_at`
// (an input), `weight_at` (a weight of a depthwise window), `load_weights` (into `tile_weights`) and `finish` (what
// follows a sum).

// A workgroup makes 32 outputs of 32 positions; it reads 16 inputs of these at a time.
const LAYER_TILE: u32 = 32u;
const LAYER_SLICE: u32 = 16u;
const TILE_GROUPS: u32 = 8u;
const NOWHERE: u32 = 0xffffffffu;

// By input, then by groups of four positions or outputs.
var<workgroup> tile_values: array<Values, 128>;
var<workgroup> tile_weights: array<Values, 128>;
// The first input that each position reads, and the first value that it makes.
var<workgroup> starts: array<u32, 32>;
var<workgroup> places: array<u32, 32>;

// The row (or column) of the input that meets a row of the window, for a row of the result; below 0 if none does.
fn source(at: u32, tap: u32, padding: u32, size: u32) -> i32 {
    var place = i32(at + padding) - i32(tap);
    if (layer.transposed == 0u) {
        place = i32(at * layer.stride + tap) - i32(padding);
    } else if (place >= 0) {
        place = select(-1, place / i32(layer.stride), u32(place) % layer.stride == 0u);
    }
    return select(-1, place, place < i32(size));
}

// Where the first input of a position lies that a place of the window meets.
fn start_of(plane: u32, y: u32, x: u32, row: u32, column: u32) -> u32 {
    let from_y = source(y, row, layer.row_padding, layer.height);
    let from_x = source(x, column, layer.column_padding, layer.width);
    if (from_y < 0 || from_x < 0) {
        return NOWHERE;
    }
    return ((plane * layer.height + u32(from_y)) * layer.width + u32(from_x)) * layer.channels;
}

// Every input for every output, by 64 invocations. Of a transposed window, the positions of a workgroup have their row and
// column modulo the stride in common, and so the places that meet an input.
fn dense(group: vec3<u32>, local: u32) {
    let phases = select(1u, layer.stride, layer.transposed != 0u);
    let phase = group.z % (phases * phases);
    let phase_y = phase / phases;
    let phase_x = phase % phases;
    let rows = (layer.out_height + phases - 1u - phase_y) / phases;
    let columns = (layer.out_width + phases - 1u - phase_x) / phases;
    let first = (group.z / (phases * phases) * layer.across + group.y) * LAYER_TILE;
    let count = layer.planes * rows * columns;
    if (first >= count) {
        return;
    }
    // Each of the first invocations knows a position.
    let number = min(first + local, count - 1u);
    let plane = number / (rows * columns);
    let y = number / columns % rows * phases + phase_y;
    let x = number % columns * phases + phase_x;
    let exists = local < LAYER_TILE && first + local < count;
    if (local < LAYER_TILE) {
        let place = ((plane * layer.out_height + y) * layer.out_width + x) * layer.outputs;
        places[local] = select(NOWHERE, place, exists);
    }
    let across = local % TILE_GROUPS;
    let down = local / TILE_GROUPS;
    var sum_0 = Values();
    var sum_1 = Values();
    var sum_2 = Values();
    var sum_3 = Values();
    for (var row = (phase_y + layer.row_padding) % phases; row < layer.rows; row += phases) {
        for (var column = (phase_x + layer.column_padding) % phases; column < layer.columns; column += phases) {
            if (local < LAYER_TILE) {
                starts[local] = select(NOWHERE, start_of(plane, y, x, row, column), exists);
            }
            workgroupBarrier();
            let weight_row = (row * layer.columns + column) * layer.weight_rows;
            for (var input = 0u; input < layer.channels; input += LAYER_SLICE) {
                for (var at = local; at < LAYER_SLICE * TILE_GROUPS; at += 64u) {
                    let channel = input + at % LAYER_SLICE;
                    let four = at / LAYER_SLICE;
                    var values = Values();
                    for (var i = 0u; i < 4u; i++) {
                        let start = starts[4u * four + i];
                        if (start != NOWHERE && channel < layer.channels) {
                            values[i] = value_at(start + channel);
                        }
                    }
                    tile_values[at % LAYER_SLICE * TILE_GROUPS + four] = values;
                }
                load_weights(weight_row + input, group.x * TILE_GROUPS, local);
                workgroupBarrier();
                let end = min(LAYER_SLICE, layer.channels - input);
                for (var i = 0u; i < end; i++) {
                    let values = tile_values[i * TILE_GROUPS + down];
                    let weights = tile_weights[i * TILE_GROUPS + across];
                    sum_0 += values.x * weights;
                    sum_1 += values.y * weights;
                    sum_2 += values.z * weights;
                    sum_3 += values.w * weights;
                }
                workgroupBarrier();
            }
        }
    }
    let output = group.x * LAYER_TILE + 4u * across;
    put(sum_0, places[4u * down], output);
    put(sum_1, places[4u * down + 1u], output);
    put(sum_2, places[4u * down + 2u], output);
    put(sum_3, places[4u * down + 3u], output);
}

// Four outputs of a position.
fn put(sums: Values, place: u32, output: u32) {
    if (place == NOWHERE) {
        return;
    }
    for (var i = 0u; i < min(4u, max(layer.outputs, output) - output); i++) {
        finish(sums[i], place + output + i, output + i);
    }
}

// Each channel for itself.
fn depthwise(id: vec3<u32>, groups: vec3<u32>) {
    let count = layer.planes * layer.out_height * layer.out_width * layer.outputs;
    for (var index = id.x; index < count; index += groups.x * 256u) {
        let channel = index % layer.outputs;
        let position = index / layer.outputs;
        let x = position % layer.out_width;
        let y = position / layer.out_width % layer.out_height;
        let plane = position / layer.out_width / layer.out_height;
        var sum = Value();
        for (var row = 0u; row < layer.rows; row++) {
            for (var column = 0u; column < layer.columns; column++) {
                let start = start_of(plane, y, x, row, column);
                if (start != NOWHERE) {
                    sum += value_at(start + channel) * weight_at((row * layer.columns + column) * layer.outputs + channel);
                }
            }
        }
        finish(sum, index, channel);
    }
}
