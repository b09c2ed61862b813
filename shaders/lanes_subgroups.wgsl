// Votes among the lanes of a chunk by subgroups of any size and order, joined through workgroup memory: one barrier a
// vote. Needs: WORKGROUP.

struct Place {
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
    @builtin(subgroup_id) subgroup: u32,
    @builtin(num_subgroups) subgroups: u32,
}

const lanes_agree: bool = true;

// What each subgroup found, in two turns: while one is read, the other is written.
var<workgroup> votes: array<vec3<u32>, 64>;
var<private> turn: u32;
var<private> lane_bit: u32;
var<private> leader: bool;
var<private> subgroup_slot: u32;
var<private> subgroup_count: u32;

fn lane_of(place: Place) -> u32 {
    lane_bit = 1u << (place.local & 31u);
    leader = subgroupMin(place.local) == place.local;
    subgroup_slot = place.subgroup & 31u;
    subgroup_count = min(place.subgroups, 32u);
    return place.local;
}

fn ballots(a: bool, b: bool, c: bool) -> vec3<u32> {
    let bits = select(vec3<u32>(0u), vec3<u32>(lane_bit), vec3<bool>(a, b, c));
    let own = subgroupOr(bits);
    turn ^= 32u;
    if (leader) {
        votes[turn + subgroup_slot] = own;
    }
    workgroupBarrier();
    var all = vec3<u32>(0u);
    for (var i = 0u; i < subgroup_count; i++) {
        all |= votes[turn + i];
    }
    return all;
}

fn total_of(value: u32) -> u32 {
    let own = subgroupAdd(value);
    turn ^= 32u;
    if (leader) {
        votes[turn + subgroup_slot] = vec3<u32>(own);
    }
    workgroupBarrier();
    var all = 0u;
    for (var i = 0u; i < subgroup_count; i++) {
        all += votes[turn + i].x;
    }
    return all;
}
