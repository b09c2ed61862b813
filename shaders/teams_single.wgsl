// Eight chunks in a workgroup, each in the hands of 32 invocations of one subgroup of 32 or 64; they share a copy of the
// table in workgroup memory. Needs: bytes, TABLE_WORDS.

struct Place {
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
    @builtin(subgroup_invocation_id) invocation: u32,
    @builtin(subgroup_id) subgroup: u32,
    @builtin(subgroup_size) size: u32,
}

const TEAM_WORKGROUP: u32 = 256u;
const TEAMS: u32 = 8u;

var<workgroup> table_copy: array<u32, TABLE_WORDS>;
var<private> lanes_agree: bool;
var<private> upper: bool;
var<private> chunk: u32;

// The lane of this invocation, and its chunk; to be called first, by all.
fn team_lane(place: Place) -> u32 {
    for (var i = place.local; i < TABLE_WORDS; i += TEAM_WORKGROUP) {
        table_copy[i] = table[i];
    }
    workgroupBarrier();
    upper = place.invocation >= LANES;
    let team = place.subgroup * (place.size / LANES) + select(0u, 1u, upper);
    chunk = (place.group.x + place.group.y * place.groups.x) * TEAMS + team;
    lanes_agree = ballot(true) == 0xffffffffu && team < TEAMS && (place.size == 32u || place.size == 64u);
    return place.invocation & 31u;
}

fn entry(at: u32) -> u32 {
    return table_copy[at];
}

// One bit for each lane in which a predicate holds.
fn ballot(a: bool) -> u32 {
    let all = subgroupBallot(a);
    return select(all.x, all.y, upper);
}

// The value of the lane whose number differs in these bits.
fn across(value: u32, bits: u32) -> u32 {
    return subgroupShuffleXor(value, bits);
}
