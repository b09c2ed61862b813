//! Features on either side of the bus.

use std::num::NonZeroU64;

use crate::container::Layout;
use crate::error::{Error, Result};
use crate::kernels::gpu::device::Device;
use crate::kernels::gpu::recorder::Pool;
use crate::limits::checked_product;
use crate::tensor::{Axes, Dtype, Element, Feature, FeatureView, MAX_RANK, ViewData, with_array};

/// A feature in a buffer of the GPU: f32, or packed f16 (two to a 32-bit word, the first in the low half).
///
/// The buffer needs [`wgpu::BufferUsages::STORAGE`].
#[derive(Debug, Clone)]
pub struct FeatureBuffer {
    /// The buffer.
    pub buffer: wgpu::Buffer,
    /// Where the first element lies, in elements.
    pub offset: usize,
    /// Length of each axis.
    pub shape: Vec<usize>,
    /// Elements from one index of an axis to the next.
    pub strides: Vec<usize>,
    /// Which axis is what.
    pub axes: Axes,
    /// Element type: `F32` or `F16`.
    pub dtype: Dtype,
}

impl FeatureBuffer {
    /// A dense feature in row-major order at the start of a buffer, with the axes that are usual for its rank.
    pub fn new(buffer: wgpu::Buffer, shape: &[usize], dtype: Dtype) -> FeatureBuffer {
        let mut strides = vec![1; shape.len()];
        for axis in (0..shape.len().saturating_sub(1)).rev() {
            strides[axis] = strides[axis + 1] * shape[axis + 1];
        }
        let axes = Axes::default_for(shape.len());
        FeatureBuffer { buffer, offset: 0, shape: shape.to_vec(), strides, axes, dtype }
    }

    /// The same from another element of the buffer on.
    pub fn offset(mut self, elements: usize) -> Self {
        self.offset = elements;
        self
    }

    /// The same with other strides, in elements.
    pub fn strides(mut self, strides: &[usize]) -> Self {
        self.strides = strides.to_vec();
        self
    }

    /// The same with other axes.
    pub fn axes(mut self, axes: Axes) -> Self {
        self.axes = axes;
        self
    }

    pub(crate) fn layout(&self) -> Result<Layout> {
        let layout = Layout::new(self.dtype, self.axes, &self.shape)?;
        layout.elements()?;
        Ok(layout)
    }

    /// The part of the buffer that the elements lie in, and where they lie in that part.
    pub(crate) fn bind(&self, device: &Device) -> Result<Bound<'_>> {
        if !matches!(self.dtype, Dtype::F32 | Dtype::F16) {
            return Err(Error::invalid("a feature in a buffer is f32 or f16"));
        }
        if self.strides.len() != self.shape.len() {
            return Err(Error::invalid("a feature in a buffer has as many strides as axes"));
        }
        if !self.buffer.usage().contains(wgpu::BufferUsages::STORAGE) {
            return Err(Error::invalid("a feature's buffer needs the usage STORAGE"));
        }
        let size = self.dtype.size();
        let mut last = self.offset;
        for (&length, &stride) in self.shape.iter().zip(&self.strides) {
            let reach = checked_product([length.saturating_sub(1), stride])?;
            last = last.checked_add(reach).ok_or(Error::invalid("the strides of a feature overflow"))?;
        }
        let end = checked_product([last.saturating_add(1), size])? as u64;
        if end.next_multiple_of(4) > self.buffer.size() {
            return Err(Error::invalid(format!(
                "the feature ends at byte {end} of a buffer of {} bytes",
                self.buffer.size()
            )));
        }
        let limits = device.wgpu_device().limits();
        let align = u64::from(limits.min_storage_buffer_offset_alignment).max(4);
        let start = (self.offset * size) as u64 / align * align;
        let length = end.next_multiple_of(4) - start;
        if length > limits.max_storage_buffer_binding_size || last > u32::MAX as usize {
            return Err(crate::kernels::gpu::device::failed(format_args!(
                "the feature spans {length} bytes of its buffer, and the device allows {}",
                limits.max_storage_buffer_binding_size
            )));
        }
        let mut strides = [0; MAX_RANK];
        for (to, &stride) in strides.iter_mut().zip(&self.strides) {
            *to = stride as u32;
        }
        Ok(Bound {
            binding: wgpu::BufferBinding { buffer: &self.buffer, offset: start, size: NonZeroU64::new(length) },
            offset: (self.offset - start as usize / size) as u32,
            strides,
        })
    }
}

/// Part of a caller's buffer.
pub(crate) struct Bound<'a> {
    pub binding: wgpu::BufferBinding<'a>,
    pub offset: u32,
    pub strides: [u32; MAX_RANK],
}

/// Where a feature to encode lies.
#[derive(Debug, Clone)]
pub enum Source<'a> {
    /// In the memory of the CPU: any dtype, any memory order.
    View(FeatureView<'a>),
    /// In the memory of the GPU.
    Buffer(&'a FeatureBuffer),
}

impl<'a, T: Into<FeatureView<'a>>> From<T> for Source<'a> {
    fn from(view: T) -> Self {
        Source::View(view.into())
    }
}

impl<'a> From<&'a FeatureBuffer> for Source<'a> {
    fn from(buffer: &'a FeatureBuffer) -> Self {
        Source::Buffer(buffer)
    }
}

impl Source<'_> {
    pub(crate) fn layout(&self) -> Result<Layout> {
        match self {
            Source::View(view) => {
                view.checked()?;
                let layout = Layout::new(view.dtype(), view.axes(), view.shape())?;
                layout.elements()?;
                Ok(layout)
            }
            Source::Buffer(buffer) => buffer.layout(),
        }
    }
}

/// Copies a view into a buffer, dense and in row-major order.
pub(crate) fn upload_view(
    device: &Device,
    pool: &mut Pool,
    number: usize,
    view: &FeatureView<'_>,
) -> Result<wgpu::Buffer> {
    let bytes = view.len() * view.dtype().size();
    let buffer = pool.get(device, "feature", number, bytes.div_ceil(4))?;
    device.write(&buffer, bytes, |out| {
        let size = view.dtype().size();
        with_array!(ViewData, view.data(), array => {
            for (bytes, x) in out.chunks_exact_mut(size).zip(array.iter()) {
                bytes.copy_from_slice(&x.bytes()[..size]);
            }
        });
    })?;
    Ok(buffer)
}

/// A feature from what a shader wrote in row-major order: 16-bit words for f16, the bits of f32 for all other types.
pub(crate) fn feature_of(layout: &Layout, bytes: &[u8]) -> Feature {
    let shape = layout.padded_shape();
    let mut feature = Feature::zeros(layout.dtype, &shape[..layout.dims().len()]);
    if let Feature::F16(array) = &mut feature {
        for (x, bytes) in array.iter_mut().zip(bytes.chunks_exact(2)) {
            *x = half::f16::from_le_bytes([bytes[0], bytes[1]]);
        }
        return feature;
    }
    with_array!(Feature, &mut feature, array => {
        for (x, bytes) in array.iter_mut().zip(bytes.chunks_exact(4)) {
            *x = Element::from_f32(f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]));
        }
    });
    feature
}
