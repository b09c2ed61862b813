// Windows of f32. Needs: layer, window.

alias Value = f32;
alias Values = vec4<f32>;

// Of one input, for four outputs; depthwise, of four channels.
@group(0) @binding(1) var<storage, read> weights: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> before: array<f32>;
@group(0) @binding(5) var<storage, read_write> after: array<f32>;

fn weight_at(at: u32) -> f32 {
    return weights[at >> 2u][at & 3u];
}

fn load_weights(row: u32, first: u32, local: u32) {
    for (var at = local; at < LAYER_SLICE * TILE_GROUPS; at += 64u) {
        tile_weights[at] = weights[(row + at / TILE_GROUPS) * layer.weight_groups + first + at % TILE_GROUPS];
    }
}
