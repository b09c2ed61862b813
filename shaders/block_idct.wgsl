// Inverse of block_dct: along columns, then along rows. Needs: common, rounding, separable.

@compute @workgroup_size(256)
fn block_idct_columns(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    pass_over(id, groups, true, true);
}

@compute @workgroup_size(256)
fn block_idct_rows(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    pass_over(id, groups, false, true);
}
