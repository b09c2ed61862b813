// Votes among the lanes of a chunk by subgroups of any size from 4 on and in any order, joined through workgroup memory:
// one barrier a vote. Needs: WORKGROUP.

struct Place {
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
    @builtin(subgroup_id) subgroup: u32,
}

const lanes_agree: bool = true;

// What each of at most eight subgroups found, in two turns: while one is read, the other is written. Those that do not
// exist stay zero.
var<workgroup> votes: array<vec3<u32>, 16>;
var<private> turn: u32;
var<private> lane_bit: u32;
var<private> leader: bool;
var<private> subgroup_slot: u32;

fn lane_of(place: Place) -> u32 {
    lane_bit = 1u << (place.local & 31u);
    leader = subgroupMin(place.local) == place.local;
    subgroup_slot = place.subgroup & 7u;
    return place.local;
}

fn ballots(a: bool, b: bool, c: bool) -> vec3<u32> {
    let bits = select(vec3<u32>(0u), vec3<u32>(lane_bit), vec3<bool>(a, b, c));
    let own = subgroupOr(bits);
    turn ^= 8u;
    if (leader) {
        votes[turn + subgroup_slot] = own;
    }
    workgroupBarrier();
    return votes[turn] | votes[turn + 1u] | votes[turn + 2u] | votes[turn + 3u]
        | votes[turn + 4u] | votes[turn + 5u] | votes[turn + 6u] | votes[turn + 7u];
}

fn total_of(value: u32) -> u32 {
    let own = subgroupAdd(value);
    turn ^= 8u;
    if (leader) {
        votes[turn + subgroup_slot] = vec3<u32>(own);
    }
    workgroupBarrier();
    return votes[turn].x + votes[turn + 1u].x + votes[turn + 2u].x + votes[turn + 3u].x
        + votes[turn + 4u].x + votes[turn + 5u].x + votes[turn + 6u].x + votes[turn + 7u].x;
}
