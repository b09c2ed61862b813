// One chunk in a workgroup of 32, whatever its subgroups. Needs: bytes, TABLE_WORDS, lanes_subgroups or lanes_memory.

const TEAM_WORKGROUP: u32 = 32u;

var<workgroup> crossing: array<u32, 32>;
var<private> chunk: u32;
var<private> own_lane: u32;

fn team_lane(place: Place) -> u32 {
    chunk = place.group.x + place.group.y * place.groups.x;
    own_lane = lane_of(place);
    return own_lane;
}

fn entry(at: u32) -> u32 {
    return table[at];
}

fn ballot(a: bool) -> u32 {
    return ballots(a, false, false).x;
}

fn across(value: u32, bits: u32) -> u32 {
    crossing[own_lane & 31u] = value;
    workgroupBarrier();
    let other = crossing[(own_lane ^ bits) & 31u];
    workgroupBarrier();
    return other;
}
