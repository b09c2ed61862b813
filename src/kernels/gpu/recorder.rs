//! Commands for the GPU, and the buffers they work on.

use std::collections::HashMap;

use crate::error::Result;
use crate::kernels::gpu::device::{Device, failed};

/// Most workgroups of a dispatch in one dimension.
const MAX_GROUPS: u32 = 65_535;
/// Most workgroups of a kernel that visits elements in strides.
const MAX_STRIDED: u32 = 16_384;

/// Commands in the making: kernels run in the order in which they are recorded.
pub(crate) struct Recorder<'a> {
    device: &'a Device,
    commands: wgpu::CommandEncoder,
}

impl<'a> Recorder<'a> {
    pub fn new(device: &'a Device) -> Recorder<'a> {
        let commands = device.wgpu_device().create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        Recorder { device, commands }
    }

    /// A uniform buffer with these bytes.
    pub fn uniform(&self, bytes: &[u8]) -> Result<wgpu::Buffer> {
        let usage = wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST;
        let buffer = self.device.buffer("params", bytes.len(), usage)?;
        self.device.write(&buffer, bytes.len(), |out| out.copy_from_slice(bytes))?;
        Ok(buffer)
    }

    /// Records a kernel: the uniform is binding 0, other buffers are bound whole.
    pub fn run(
        &mut self,
        entry: &'static str,
        workgroup: u32,
        uniform: &wgpu::Buffer,
        buffers: &[(u32, &wgpu::Buffer)],
        groups: (u32, u32, u32),
    ) -> Result<()> {
        let bindings: Vec<_> =
            buffers.iter().map(|&(binding, buffer)| (binding, buffer.as_entire_buffer_binding())).collect();
        self.run_with(entry, workgroup, uniform, bindings, groups)
    }

    /// As [`Recorder::run`], with parts of buffers.
    pub fn run_with(
        &mut self,
        entry: &'static str,
        workgroup: u32,
        uniform: &wgpu::Buffer,
        bindings: Vec<(u32, wgpu::BufferBinding<'_>)>,
        (x, y, z): (u32, u32, u32),
    ) -> Result<()> {
        if x == 0 || y == 0 || z == 0 {
            return Ok(());
        }
        if x > MAX_GROUPS || y > MAX_GROUPS || z > MAX_GROUPS {
            return Err(failed(format_args!("{entry} would need {x} x {y} x {z} workgroups; take a smaller batch")));
        }
        let pipeline = self.device.pipeline(entry, workgroup)?;
        let mut entries = vec![wgpu::BindGroupEntry { binding: 0, resource: uniform.as_entire_binding() }];
        entries.extend(bindings.into_iter().map(|(binding, buffer)| wgpu::BindGroupEntry {
            binding,
            resource: wgpu::BindingResource::Buffer(buffer),
        }));
        let group = self.device.wgpu_device().create_bind_group(&wgpu::BindGroupDescriptor {
            label: Some(entry),
            layout: &pipeline.get_bind_group_layout(0),
            entries: &entries,
        });
        let mut pass = self
            .commands
            .begin_compute_pass(&wgpu::ComputePassDescriptor { label: Some(entry), timestamp_writes: None });
        pass.set_pipeline(&pipeline);
        pass.set_bind_group(0, &group, &[]);
        pass.dispatch_workgroups(x, y, z);
        Ok(())
    }

    /// Makes a buffer zero.
    pub fn clear(&mut self, buffer: &wgpu::Buffer) {
        self.commands.clear_buffer(buffer, 0, None);
    }

    /// Copies the first bytes of a buffer.
    pub fn copy(&mut self, from: &wgpu::Buffer, to: &wgpu::Buffer, bytes: usize) {
        let size = (bytes as u64).next_multiple_of(4).min(from.size()).min(to.size());
        if size > 0 {
            self.commands.copy_buffer_to_buffer(from, 0, to, 0, size);
        }
    }

    /// Submits the commands, and gives the first bytes of these buffers once they have run.
    pub fn finish(mut self, wanted: &[(&wgpu::Buffer, usize)]) -> Result<Vec<Vec<u8>>> {
        let usage = wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST;
        let mut copies = Vec::with_capacity(wanted.len());
        for &(buffer, bytes) in wanted {
            let copy = self.device.buffer("readback", bytes, usage)?;
            self.copy(buffer, &copy, bytes);
            copies.push(copy);
        }
        self.device.wgpu_queue().submit([self.commands.finish()]);
        let copies: Vec<_> = copies.iter().zip(wanted).map(|(copy, &(_, bytes))| (copy, bytes)).collect();
        self.device.read(&copies)
    }
}

/// Workgroups for a kernel that visits `count` elements in strides of 256 a workgroup.
pub(crate) fn strided(count: usize) -> u32 {
    count.div_ceil(256).min(MAX_STRIDED as usize) as u32
}

/// The positions of a chunk that each of several dispatches visits, when each position takes `steps` steps.
pub(crate) fn portions(device: &Device, positions: usize, steps: usize) -> Result<Vec<(u32, u32)>> {
    if steps > device.steps() + device.steps() / 4 {
        return Err(failed(format_args!("{steps} steps for each position are too many; encode with more lanes")));
    }
    let each = (device.steps() / steps.max(1)).max(1);
    Ok((0..positions.max(1)).step_by(each).map(|first| (first as u32, (first + each) as u32)).collect())
}

/// Workgroups, one for each of `count` chunks, in two dimensions.
pub(crate) fn one_each(count: usize) -> (u32, u32, u32) {
    let across = count.min(32_768);
    (across as u32, count.div_ceil(across.max(1)) as u32, 1)
}

/// Buffers that are kept between calls, by name and number. A clone has none yet: two must not work on the same ones.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    buffers: HashMap<(&'static str, usize), wgpu::Buffer>,
}

impl Clone for Pool {
    fn clone(&self) -> Self {
        Pool::default()
    }
}

impl Pool {
    /// A buffer of at least this many words; what it holds is left over.
    pub fn get(&mut self, device: &Device, name: &'static str, number: usize, words: usize) -> Result<wgpu::Buffer> {
        let bytes = 4 * words;
        if let Some(buffer) = self.buffers.get(&(name, number)).filter(|buffer| buffer.size() >= bytes as u64) {
            return Ok(buffer.clone());
        }
        let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST;
        let buffer = device.buffer(name, bytes, usage)?;
        self.buffers.insert((name, number), buffer.clone());
        Ok(buffer)
    }

    /// Fills all buffers with garbage, as if features that no one shall see were left over in them.
    #[cfg(test)]
    pub fn poison(&self, device: &Device) {
        for buffer in self.buffers.values() {
            let garbage = 0xdead_beefu32.to_le_bytes().repeat(buffer.size() as usize / 4);
            device.wgpu_queue().write_buffer(buffer, 0, &garbage);
        }
    }
}

/// The little-endian words of some bytes.
pub(crate) fn words_of(bytes: &[u8]) -> Vec<u32> {
    bytes.chunks_exact(4).map(|word| u32::from_le_bytes([word[0], word[1], word[2], word[3]])).collect()
}
