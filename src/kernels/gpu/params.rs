//! The numbers that every kernel is given, and where a feature's elements lie.

use crate::container::Layout;
use crate::geometry::Grid;
use crate::tensor::{Dtype, MAX_RANK};
use crate::transform::Blocks;

/// Words of `state` for each item.
pub(crate) const STATE_WORDS: usize = 8;
/// Words of the status of a chunk that is decoded.
pub(crate) const STATUS_WORDS: usize = 72;
pub(crate) const STATE_COST: usize = 2;
pub(crate) const STATE_COST_WITH: usize = 4;
pub(crate) const STATE_MAX: usize = 6;
pub(crate) const STATE_NEGATIVE: usize = 7;

macro_rules! params {
    ($(#[$about:meta])* $name:ident: $($field:ident),*; $($array:ident),*) => {
        $(#[$about])*
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
        pub(crate) struct $name {
            $(pub $field: u32,)*
            $(pub $array: [u32; MAX_RANK],)*
        }

        impl $name {
            /// Size in bytes.
            pub const SIZE: usize = 4 * ([$(stringify!($field)),*].len() + MAX_RANK * (&[$(stringify!($array)),*] as &[&str]).len());

            /// The bytes of the uniform.
            pub fn bytes(&self) -> Vec<u8> {
                let mut bytes = Vec::with_capacity(Self::SIZE);
                $(bytes.extend_from_slice(&self.$field.to_le_bytes());)*
                $(self.$array.iter().for_each(|word| bytes.extend_from_slice(&word.to_le_bytes()));)*
                bytes
            }

            /// Name and byte offset of each field.
            pub fn layout() -> Vec<(&'static str, u32)> {
                let mut at = 0;
                let mut fields = Vec::new();
                $(fields.push((stringify!($field), at)); at += 4;)*
                $(fields.push((stringify!($array), at)); at += 4 * MAX_RANK as u32;)*
                debug_assert_eq!(at as usize, Self::SIZE);
                fields
            }
        }
    };
}

params! {
    /// The uniform of the codec's kernels: see `shaders/common.wgsl`.
    Params: items, channels, bands, width, coded, runs, rows, columns, positions, plane_rows, chunks, rule, lambda, exponent, dtype,
    rank, height, row_length, block_rows, block_columns, channel_axis, height_axis, width_axis, elements, offset, item,
    capacity, lanes, matrices, row_shift, column_shift, inverse, first_position, end_position, checked,
    spare_2; dims, strides, planes
}

params! {
    /// The uniform of the layers of networks: see `shaders/layer.wgsl`.
    LayerParams: planes, height, width, channels, out_height, out_width, outputs, rows, columns, row_padding,
    column_padding, stride, transposed, adds, inverse, weight_rows, weight_groups, first_shift, second_shift, low, high,
    across, spare_1, spare_2;
}

/// No axis of a feature.
const NO_AXIS: u32 = u32::MAX;

impl Params {
    /// The geometry of a feature in blocks, as if its elements were dense and in row-major order.
    pub fn of(layout: &Layout, grid: &Grid, blocks: &Blocks, block: (usize, usize)) -> Params {
        let dims = layout.dims();
        let batch = layout.axes.batch;
        let order: Vec<usize> = batch
            .into_iter()
            .chain((0..dims.len()).filter(|&axis| axis != layout.axes.channels && Some(axis) != batch))
            .collect();
        let first = usize::from(batch.is_some());
        let axis_at = |index: Option<usize>| {
            index
                .filter(|&index| index >= first)
                .map_or(NO_AXIS, |index| order.get(index).map_or(NO_AXIS, |&a| a as u32))
        };
        let mut planes = [0; MAX_RANK];
        let mut weight = 1u32;
        for &axis in order[..order.len().saturating_sub(2).max(first)].iter().rev() {
            planes[axis] = weight;
            weight = weight.wrapping_mul(dims[axis]);
        }
        let bands = block.0 * block.1;
        let mut params = Params {
            items: 1,
            channels: grid.channels as u32,
            bands: bands as u32,
            width: (bands * grid.channels) as u32,
            rows: blocks.rows as u32,
            columns: blocks.columns as u32,
            positions: blocks.count() as u32,
            plane_rows: blocks.plane_rows as u32,
            chunks: 1,
            rank: dims.len() as u32,
            height: grid.height as u32,
            row_length: grid.width as u32,
            block_rows: block.0 as u32,
            block_columns: block.1 as u32,
            channel_axis: layout.axes.channels as u32,
            height_axis: axis_at(order.len().checked_sub(2)),
            width_axis: axis_at(order.len().checked_sub(1)),
            elements: grid.len() as u32,
            planes,
            ..Params::default()
        };
        params.dims[..dims.len()].copy_from_slice(dims);
        let mut stride = 1u32;
        for axis in (0..dims.len()).rev() {
            params.strides[axis] = stride;
            stride = stride.wrapping_mul(dims[axis]);
        }
        params
    }

    /// The same for a dispatch that visits some of the positions of each chunk.
    pub fn between(self, first_position: u32, end_position: u32) -> Params {
        Params { first_position, end_position, ..self }
    }

    /// The same for an item of the batch whose elements lie elsewhere.
    pub fn at(self, item: usize, dtype: Dtype, place: Option<(u32, [u32; MAX_RANK])>) -> Params {
        let (offset, strides) = place.unwrap_or((0, self.strides));
        Params { item: item as u32, dtype: dtype as u32, offset, strides, ..self }
    }
}
