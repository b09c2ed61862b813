// DCT of every block: along columns, then along rows. Needs: common, rounding, separable.

@compute @workgroup_size(256)
fn block_dct_columns(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    pass_over(id, groups, true, false);
}

@compute @workgroup_size(256)
fn block_dct_rows(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    pass_over(id, groups, false, false);
}
