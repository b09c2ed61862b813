// Votes among the lanes of a chunk through workgroup memory alone: one barrier a vote. Needs: WORKGROUP.

struct Place {
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
}

const lanes_agree: bool = true;

// Three turns of four words: one is written and read, the one before is cleared, the one after is clear.
var<workgroup> votes: array<atomic<u32>, 12>;
var<private> turn: u32;
var<private> lane: u32;

fn lane_of(place: Place) -> u32 {
    lane = place.local;
    return place.local;
}

fn end_turn() {
    let before = select(turn - 4u, 8u, turn == 0u);
    if (lane < 4u) {
        atomicStore(&votes[before + lane], 0u);
    }
    turn = select(turn + 4u, 0u, turn == 8u);
}

fn ballots(a: bool, b: bool, c: bool) -> vec3<u32> {
    let bit = 1u << (lane & 31u);
    if (a) {
        atomicOr(&votes[turn], bit);
    }
    if (b) {
        atomicOr(&votes[turn + 1u], bit);
    }
    if (c) {
        atomicOr(&votes[turn + 2u], bit);
    }
    workgroupBarrier();
    let all = vec3<u32>(atomicLoad(&votes[turn]), atomicLoad(&votes[turn + 1u]), atomicLoad(&votes[turn + 2u]));
    end_turn();
    return all;
}

fn total_of(value: u32) -> u32 {
    atomicAdd(&votes[turn + 3u], value);
    workgroupBarrier();
    let all = atomicLoad(&votes[turn + 3u]);
    end_turn();
    return all;
}
