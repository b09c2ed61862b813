// The context of a run while symbols appear. Lane l has the channels l, l + lanes, .. of the run, so that what it reads
// it has written itself. Needs: common, lanes_*, plan, contexts, around.

// Context rule `Runs`: the context of run `run` of the position that begins at `at`. `magnitudes` is the sum of this
// lane's magnitudes in the run before; `sums` is kept between the runs of a position.
fn next_run_context(
    at: u32,
    run: u32,
    sides: Sides,
    lane: u32,
    lanes: u32,
    magnitudes: u32,
    sums: ptr<function, RunSums>,
) -> u32 {
    let end = min((run + 1u) * MAX_LANES, params.coded);
    var own = 0u;
    for (var channel = run * MAX_LANES + lane; channel < end && lane < lanes; channel += lanes) {
        own += around(at + channel, sides);
    }
    let all = total_of(own | (magnitudes << 16u));
    if (run == 0u) {
        *sums = RunSums(0u, 0u);
    } else {
        *sums = add_run(*sums, all >> 16u, expected_of(run - 1u));
    }
    return run_context_of(*sums, all & 0xffffu, weight_of(sides), expected_of(run));
}
