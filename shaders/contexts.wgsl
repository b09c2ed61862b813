// The two kinds of context, from sums of neighbours. Needs: common.

const CAP: u32 = 15u;
const THRESHOLDS: array<u32, 7> = array<u32, 7>(1u, 2u, 3u, 5u, 9u, 15u, 23u);
const RUN_BITS: u32 = 4u;
const KEEP: u32 = 13u;
const PRIOR: u32 = 64u;
const RATIOS: array<u32, 7> = array<u32, 7>(6u, 10u, 13u, 15u, 18u, 22u, 30u);

fn reached(value: u32, threshold: u32) -> u32 {
    return select(0u, 1u, value >= threshold);
}

// The context of 2 |left| + 2 |up| + |up left| + |up right|.
fn context_of(sum: u32) -> u32 {
    return reached(sum, THRESHOLDS[0]) + reached(sum, THRESHOLDS[1]) + reached(sum, THRESHOLDS[2])
        + reached(sum, THRESHOLDS[3]) + reached(sum, THRESHOLDS[4]) + reached(sum, THRESHOLDS[5])
        + reached(sum, THRESHOLDS[6]);
}

// Sums over the runs before in a position, older runs counting less.
struct RunSums {
    seen: u32,
    expected: u32,
}

// Adds a run whose magnitudes summed to `magnitudes`.
fn add_run(sums: RunSums, magnitudes: u32, expected: u32) -> RunSums {
    return RunSums(
        ((sums.seen + (magnitudes << RUN_BITS)) * KEEP) >> 4u,
        ((sums.expected + expected) * KEEP) >> 4u,
    );
}

// The context of a run: `around` is the weighted sum of its neighbours' magnitudes, `weight` the sum of the weights.
fn run_context_of(sums: RunSums, around: u32, weight: u32, expected: u32) -> u32 {
    let seen = 16u * (2u * (sums.seen + PRIOR) + (around << RUN_BITS));
    let likely = 2u * (sums.expected + PRIOR) + weight * expected;
    return reached(seen, RATIOS[0] * likely) + reached(seen, RATIOS[1] * likely) + reached(seen, RATIOS[2] * likely)
        + reached(seen, RATIOS[3] * likely) + reached(seen, RATIOS[4] * likely) + reached(seen, RATIOS[5] * likely)
        + reached(seen, RATIOS[6] * likely);
}

// Which neighbours a position has, given its column and whether the row above is in the same plane and chunk.
struct Sides {
    left: bool,
    up: bool,
    up_left: bool,
    up_right: bool,
}

fn sides_of(column: u32, has_up: bool) -> Sides {
    let left = column > 0u;
    return Sides(left, has_up, has_up && left, has_up && column + 1u < params.columns);
}

fn weight_of(sides: Sides) -> u32 {
    return select(0u, 2u, sides.left) + select(0u, 2u, sides.up) + select(0u, 1u, sides.up_left)
        + select(0u, 1u, sides.up_right);
}
