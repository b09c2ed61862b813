//! A GPU: how it is found, what it can do, and how work is given to it.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, mpsc};
use std::time::Duration;

use crate::error::{Error, Result};
use crate::kernels::gpu::probe;
use crate::kernels::gpu::shaders::{Lanes, Shader, Variant};

/// A GPU, or a software driver that acts as one. Cloning it is cheap; clones share their pipelines.
///
/// ```no_run
/// use narrows::gpu::{Device, Encoder};
///
/// let device = Device::request()?;
/// println!("{}", device.info());
/// let mut encoder = Encoder::plain(&device);
/// # Ok::<(), narrows::Error>(())
/// ```
#[derive(Clone)]
pub struct Device {
    shared: Arc<Shared>,
    subgroups: bool,
    integer_floats: bool,
}

struct Shared {
    device: wgpu::Device,
    queue: wgpu::Queue,
    name: String,
    backend: String,
    subgroup_sizes: Option<(u32, u32)>,
    software: bool,
    floats_exact: bool,
    /// What the device said when it was lost.
    lost: Arc<OnceLock<String>>,
    /// A complaint about another use of the device, which the next call reports.
    stray: Arc<Mutex<Option<String>>>,
    /// Set once a subgroup turned out not to hold a workgroup that it should.
    no_single: AtomicBool,
    pipelines: Mutex<HashMap<(&'static str, Variant), wgpu::ComputePipeline>>,
    crossover: OnceLock<usize>,
}

/// What is known of a [`Device`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeviceInfo {
    /// Name of the adapter.
    pub name: String,
    /// The interface that it is driven through, such as `vulkan`.
    pub backend: String,
    /// Smallest and largest subgroup, if subgroups are used.
    pub subgroups: Option<(u32, u32)>,
    /// Whether the edges between floats and integers avoid float instructions, because a probe found them inexact or
    /// because [`Device::integer_floats`] asked for it.
    pub integer_floats: bool,
}

impl fmt::Display for DeviceInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name, self.backend)?;
        match self.subgroups {
            Some((least, most)) if least == most => write!(f, ", subgroups of {least}")?,
            Some((least, most)) => write!(f, ", subgroups of {least} to {most}")?,
            None => f.write_str(", no subgroups")?,
        }
        f.write_str(if self.integer_floats { ", integer edges" } else { ", float edges" })
    }
}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Device").field(&self.info()).finish()
    }
}

/// The error of a device, with what to do about it.
pub(crate) fn failed(what: impl fmt::Display) -> Error {
    Error::Backend(format!("{what}; decode and encode on the CPU, or request another device").into())
}

impl Device {
    /// The best adapter of this machine. The environment variables of wgpu (`WGPU_BACKEND`, ..) choose among drivers.
    ///
    /// # Errors
    /// `Backend` if there is no adapter, or it gives no device.
    pub fn request() -> Result<Device> {
        Self::request_with(&wgpu::RequestAdapterOptions {
            power_preference: wgpu::PowerPreference::HighPerformance,
            ..Default::default()
        })
    }

    /// The software driver of this machine, for tests.
    ///
    /// # Errors
    /// As [`Device::request`].
    pub fn software() -> Result<Device> {
        Self::request_with(&wgpu::RequestAdapterOptions { force_fallback_adapter: true, ..Default::default() })
    }

    fn request_with(options: &wgpu::RequestAdapterOptions<'_, '_>) -> Result<Device> {
        let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle_from_env());
        let adapter = pollster::block_on(instance.request_adapter(options))
            .map_err(|error| failed(format_args!("no GPU was found: {error}")))?;
        let descriptor = wgpu::DeviceDescriptor {
            label: Some("narrows"),
            required_features: adapter.features() & wgpu::Features::SUBGROUP,
            ..Default::default()
        };
        let (device, queue) = pollster::block_on(adapter.request_device(&descriptor))
            .map_err(|error| failed(format_args!("the GPU {} gave no device: {error}", adapter.get_info().name)))?;
        let lost = Arc::new(OnceLock::new());
        let told = lost.clone();
        device.set_device_lost_callback(move |reason, message| {
            let _ = told.set(format!("{reason:?}: {message}"));
        });
        // What no scope catches, because a caller used the device on its own, is remembered, not thrown.
        let stray = Arc::<Mutex<Option<String>>>::default();
        let told = stray.clone();
        device.on_uncaptured_error(Arc::new(move |error: wgpu::Error| {
            *told.lock().unwrap_or_else(PoisonError::into_inner) = Some(error.to_string());
        }));
        Self::with_lost(device, queue, lost, stray)
    }

    /// A device that the caller made, so that features need not leave it. Subgroups are used if the device was
    /// requested with [`wgpu::Features::SUBGROUP`]; larger limits allow larger features.
    ///
    /// # Errors
    /// `Backend` if the device does not work.
    pub fn new(device: wgpu::Device, queue: wgpu::Queue) -> Result<Device> {
        Self::with_lost(device, queue, Arc::default(), Arc::default())
    }

    fn with_lost(
        device: wgpu::Device,
        queue: wgpu::Queue,
        lost: Arc<OnceLock<String>>,
        stray: Arc<Mutex<Option<String>>>,
    ) -> Result<Device> {
        let info = device.adapter_info();
        let has_subgroups = device.features().contains(wgpu::Features::SUBGROUP);
        let shared = |device, queue, floats_exact| Shared {
            device,
            queue,
            name: info.name.clone(),
            backend: info.backend.to_string(),
            subgroup_sizes: has_subgroups.then_some((info.subgroup_min_size, info.subgroup_max_size)),
            software: info.device_type == wgpu::DeviceType::Cpu,
            floats_exact,
            lost: lost.clone(),
            stray: stray.clone(),
            no_single: AtomicBool::new(false),
            pipelines: Mutex::default(),
            crossover: OnceLock::new(),
        };
        let first = Device {
            shared: Arc::new(shared(device.clone(), queue.clone(), true)),
            subgroups: has_subgroups,
            integer_floats: false,
        };
        if probe::edges_are_exact(&first)? {
            return Ok(first);
        }
        Ok(Device { shared: Arc::new(shared(device, queue, false)), subgroups: has_subgroups, integer_floats: true })
    }

    /// Whether lanes vote by subgroup operations where the adapter has them (the default) or through workgroup memory.
    /// The bytes are the same.
    pub fn subgroups(mut self, on: bool) -> Self {
        self.subgroups = on && self.shared.subgroup_sizes.is_some();
        self
    }

    /// Whether the edges between floats and integers avoid float instructions even where these are exact. The bytes are
    /// the same.
    pub fn integer_floats(mut self, on: bool) -> Self {
        self.integer_floats = on || !self.shared.floats_exact;
        self
    }

    /// What is known of this device.
    pub fn info(&self) -> DeviceInfo {
        DeviceInfo {
            name: self.shared.name.clone(),
            backend: self.shared.backend.clone(),
            subgroups: self.shared.subgroup_sizes.filter(|_| self.subgroups),
            integer_floats: self.integer_floats,
        }
    }

    /// The device of wgpu.
    pub fn wgpu_device(&self) -> &wgpu::Device {
        &self.shared.device
    }

    /// The queue of wgpu.
    pub fn wgpu_queue(&self) -> &wgpu::Queue {
        &self.shared.queue
    }

    /// Runs the start-up probe of hard cases again, in the way in which this device now crosses the edge between floats and
    /// integers: true if it is exact.
    ///
    /// # Errors
    /// `Backend` if the GPU fails.
    pub fn probe(&self) -> Result<bool> {
        probe::edges_are_exact(self)
    }

    /// The first f32 among these bits that this device takes to another integer than the CPU does, if there is one; at most
    /// 2^21 at once. For the script that tries them all.
    #[doc(hidden)]
    pub fn first_difference(&self, bits: std::ops::Range<u64>, exponent: i32) -> Result<Option<u32>> {
        let cases: Vec<_> = bits.map(|bits| (bits as u32, exponent)).collect();
        Ok(probe::first_difference(self, &cases)?.map(|(bits, _)| bits))
    }

    pub(crate) fn crossover_cell(&self) -> &OnceLock<usize> {
        &self.shared.crossover
    }

    /// True once the device is known to be lost.
    pub fn is_lost(&self) -> bool {
        self.shared.lost.get().is_some()
    }

    /// How lanes vote in workgroups of this size.
    pub(crate) fn lanes(&self, workgroup: u32) -> Lanes {
        match self.shared.subgroup_sizes {
            Some((least, _))
                if self.subgroups && least >= workgroup && !self.shared.no_single.load(Ordering::Relaxed) =>
            {
                Lanes::Single
            }
            Some((least, _)) if self.subgroups && least >= 4 => Lanes::Subgroups,
            _ => Lanes::Memory,
        }
    }

    /// How the lanes of the byte coder vote: in subgroups of 32 or 64 if there are no others.
    pub(crate) fn teams(&self) -> Lanes {
        match (self.lanes(32), self.shared.subgroup_sizes) {
            (Lanes::Single, Some((_, 32 | 64))) => Lanes::Single,
            (Lanes::Single, _) => Lanes::Subgroups,
            (other, _) => other,
        }
    }

    /// Most steps of a chunk's lanes in one dispatch. A software driver was seen to leave a shader's loops after 65,535
    /// rounds in all; a GPU's operating system may end a dispatch that takes seconds.
    pub(crate) fn steps(&self) -> usize {
        if self.shared.software { 4096 } else { 65_536 }
    }

    /// Most rounds of an invocation's loops: see [`Device::steps`].
    pub(crate) fn rounds(&self) -> usize {
        if self.shared.software { 65_535 } else { usize::MAX }
    }

    /// Remembers that a subgroup does not hold a workgroup that it should hold; false if that was known.
    pub(crate) fn without_single(&self) -> bool {
        !self.shared.no_single.swap(true, Ordering::Relaxed)
    }

    /// The pipeline of an entry point for workgroups of this size.
    pub(crate) fn pipeline(&self, entry: &'static str, workgroup: u32) -> Result<wgpu::ComputePipeline> {
        let shader = Shader::with_entry(entry).ok_or_else(|| failed(format_args!("there is no kernel {entry}")))?;
        // One pipeline serves all variants that do not differ.
        let variant = Variant {
            workgroup: if shader.has_lanes() { workgroup } else { 32 },
            lanes: match () {
                () if shader.has_teams() => self.teams(),
                () if shader.has_lanes() => self.lanes(workgroup),
                () => Lanes::Memory,
            },
            integer_floats: shader.has_edge() && self.integer_floats,
        };
        let mut pipelines = self.shared.pipelines.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pipeline) = pipelines.get(&(entry, variant)) {
            return Ok(pipeline.clone());
        }
        let module = self.shared.device.create_shader_module(wgpu::ShaderModuleDescriptor {
            label: Some(entry),
            source: wgpu::ShaderSource::Wgsl(shader.source(variant).into()),
        });
        let pipeline = self.shared.device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: Some(entry),
            layout: None,
            module: &module,
            entry_point: Some(entry),
            compilation_options: Default::default(),
            cache: None,
        });
        pipelines.insert((entry, variant), pipeline.clone());
        Ok(pipeline)
    }

    /// Runs `work`, and makes errors of whatever the device complains about meanwhile.
    pub(crate) fn guarded<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        self.check_lost()?;
        if let Some(what) = self.shared.stray.lock().unwrap_or_else(PoisonError::into_inner).take() {
            return Err(failed(format_args!("an earlier use of the GPU failed ({what})")));
        }
        let scopes = [wgpu::ErrorFilter::Internal, wgpu::ErrorFilter::OutOfMemory, wgpu::ErrorFilter::Validation]
            .map(|filter| self.shared.device.push_error_scope(filter));
        let result = work();
        let mut complaint = None;
        for scope in scopes.into_iter().rev() {
            complaint = complaint.or(pollster::block_on(scope.pop()));
        }
        self.check_lost()?;
        match complaint {
            Some(error) => {
                // A pipeline made meanwhile may be no good.
                self.shared.pipelines.lock().unwrap_or_else(PoisonError::into_inner).clear();
                Err(failed(match error {
                    wgpu::Error::OutOfMemory { .. } => "the GPU is out of memory".to_owned(),
                    other => format!("the GPU refused: {other}"),
                }))
            }
            None => result,
        }
    }

    fn check_lost(&self) -> Result<()> {
        match self.shared.lost.get() {
            Some(what) => Err(failed(format_args!("the GPU was lost ({what})"))),
            None => Ok(()),
        }
    }

    /// A buffer of at least `bytes` that shaders use.
    pub(crate) fn buffer(&self, label: &'static str, bytes: usize, usage: wgpu::BufferUsages) -> Result<wgpu::Buffer> {
        let limits = self.shared.device.limits();
        // Indices are 32-bit.
        let most = limits.max_buffer_size.min(limits.max_storage_buffer_binding_size).min(u64::from(u32::MAX));
        let size = (bytes as u64).max(16).next_multiple_of(16);
        if size > most {
            return Err(failed(format_args!(
                "the buffer {label} would need {size} bytes, and the device allows {most}; take smaller features or batches"
            )));
        }
        Ok(self.shared.device.create_buffer(&wgpu::BufferDescriptor {
            label: Some(label),
            size,
            usage,
            mapped_at_creation: false,
        }))
    }

    /// A new buffer with these words.
    pub(crate) fn upload(&self, label: &'static str, words: &[u32]) -> Result<wgpu::Buffer> {
        let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_DST;
        let buffer = self.buffer(label, 4 * words.len(), usage)?;
        self.write(&buffer, 4 * words.len(), |out| {
            for (bytes, word) in out.chunks_exact_mut(4).zip(words) {
                bytes.copy_from_slice(&word.to_le_bytes());
            }
        })?;
        Ok(buffer)
    }

    /// Fills the first `bytes` bytes of a buffer, rounded up to whole words.
    pub(crate) fn write(&self, buffer: &wgpu::Buffer, bytes: usize, fill: impl FnOnce(&mut [u8])) -> Result<()> {
        if bytes == 0 {
            return Ok(());
        }
        let mut staged = vec![0; bytes.next_multiple_of(4)];
        fill(&mut staged[..bytes]);
        self.shared.queue.write_buffer(buffer, 0, &staged);
        Ok(())
    }

    /// Waits until these buffers are filled, and gives their first bytes.
    pub(crate) fn read(&self, buffers: &[(&wgpu::Buffer, usize)]) -> Result<Vec<Vec<u8>>> {
        let (sender, receiver) = mpsc::channel();
        for (buffer, bytes) in buffers {
            let sender = sender.clone();
            let end = (*bytes as u64).max(4).next_multiple_of(4).min(buffer.size());
            buffer.map_async(wgpu::MapMode::Read, 0..end, move |result| {
                let _ = sender.send(result);
            });
        }
        drop(sender);
        let (mut answers, mut patience) = (0, 1000);
        while answers < buffers.len() {
            self.shared
                .device
                .poll(wgpu::PollType::wait_indefinitely())
                .map_err(|error| failed(format_args!("waiting for the GPU failed: {error}")))?;
            // Another thread may have polled, and be about to tell.
            match receiver.recv_timeout(Duration::from_millis(10)) {
                Ok(Ok(())) => answers += 1,
                Ok(Err(error)) => return Err(failed(format_args!("the GPU's answer cannot be read: {error}"))),
                Err(mpsc::RecvTimeoutError::Timeout) if patience > 0 => patience -= 1,
                Err(_) => return Err(failed("the GPU did not answer")),
            }
        }
        let mut out = Vec::with_capacity(buffers.len());
        for (buffer, bytes) in buffers {
            let end = (*bytes as u64).max(4).next_multiple_of(4).min(buffer.size());
            let view = buffer
                .get_mapped_range(0..end)
                .map_err(|error| failed(format_args!("the GPU's answer cannot be read: {error}")))?;
            out.push(view[..(*bytes).min(view.len())].to_vec());
            drop(view);
            buffer.unmap();
        }
        Ok(out)
    }
}
