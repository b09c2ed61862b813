// Where an element of a feature lies: in its buffer, and in the grid.
struct Spot {
    offset: u32,
    plane: u32,
    y: u32,
    x: u32,
    channel: u32,
}

// The spot of an element, counted in row-major order.
fn locate(index: u32) -> Spot {
    var spot = Spot(params.offset, 0u, 0u, 0u, 0u);
    var rest = index;
    for (var i = 0u; i < 8u; i++) {
        if (i >= params.rank) {
            break;
        }
        let axis = params.rank - 1u - i;
        let size = max(params.dims[axis >> 2u][axis & 3u], 1u);
        let at = rest % size;
        rest = rest / size;
        spot.offset += at * params.strides[axis >> 2u][axis & 3u];
        spot.plane += at * params.planes[axis >> 2u][axis & 3u];
        if (axis == params.channel_axis) {
            spot.channel = at;
        }
        if (axis == params.height_axis) {
            spot.y = at;
        }
        if (axis == params.width_axis) {
            spot.x = at;
        }
    }
    return spot;
}

// Index of the value of a channel at a pixel of a plane, block by block.
fn value_index(plane: u32, y: u32, x: u32, channel: u32) -> u32 {
    let row = plane * params.plane_rows + y / params.block_rows;
    let block = row * params.columns + x / params.block_columns;
    let pixel = (y % params.block_rows) * params.block_columns + x % params.block_columns;
    return (params.item * params.positions + block) * params.width + pixel * params.channels + channel;
}
