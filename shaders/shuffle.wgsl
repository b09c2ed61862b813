// Channels to pixels and back, of values of any kind. Needs: layer.

@group(0) @binding(3) var<storage, read> before: array<u32>;
@group(0) @binding(5) var<storage, read_write> after: array<u32>;

// The place of a value that is made.
struct Made {
    plane: u32,
    y: u32,
    x: u32,
    channel: u32,
}

fn made(index: u32) -> Made {
    let position = index / layer.outputs;
    let line = position / layer.out_width;
    return Made(line / layer.out_height, line % layer.out_height, position % layer.out_width, index % layer.outputs);
}

fn value_at(plane: u32, y: u32, x: u32, channel: u32) -> u32 {
    return before[((plane * layer.height + y) * layer.width + x) * layer.channels + channel];
}

// Channel (c factor + i) factor + j of a position becomes channel c of row i, column j of a square.
@compute @workgroup_size(256)
fn shuffle(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let factor = layer.stride;
    let count = layer.planes * layer.out_height * layer.out_width * layer.outputs;
    for (var index = id.x; index < count; index += groups.x * 256u) {
        let to = made(index);
        let channel = (to.channel * factor + to.y % factor) * factor + to.x % factor;
        after[index] = value_at(to.plane, to.y / factor, to.x / factor, channel);
    }
}

// The reverse; what lies beyond the input is 0.
@compute @workgroup_size(256)
fn unshuffle(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let factor = layer.stride;
    let count = layer.planes * layer.out_height * layer.out_width * layer.outputs;
    for (var index = id.x; index < count; index += groups.x * 256u) {
        let to = made(index);
        let place = to.channel % (factor * factor);
        let y = to.y * factor + place / factor;
        let x = to.x * factor + place % factor;
        var value = 0u;
        if (y < layer.height && x < layer.width) {
            value = value_at(to.plane, y, x, to.channel / (factor * factor));
        }
        after[index] = value;
    }
}
