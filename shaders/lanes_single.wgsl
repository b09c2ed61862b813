// Votes among the lanes of a chunk when one subgroup holds them all: no barrier. The lane is the invocation's number in
// its subgroup; should the subgroup not hold the workgroup after all, `lanes_agree` says so and the host takes
// `lanes_subgroups.wgsl` instead. Needs: WORKGROUP.

struct Place {
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(subgroup_invocation_id) invocation: u32,
}

var<private> lanes_agree: bool;

// The lane of this invocation; to be called first, by all.
fn lane_of(place: Place) -> u32 {
    lanes_agree = subgroupBallot(true).x == 0xffffffffu >> (32u - WORKGROUP);
    return place.invocation;
}

// For each of three predicates, one bit for each lane in which it holds.
fn ballots(a: bool, b: bool, c: bool) -> vec3<u32> {
    return vec3<u32>(subgroupBallot(a).x, subgroupBallot(b).x, subgroupBallot(c).x);
}

// The sum over all lanes.
fn total_of(value: u32) -> u32 {
    return subgroupAdd(value);
}
