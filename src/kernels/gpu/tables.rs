//! What shaders read of a profile: uploaded once, then kept.

use std::collections::HashMap;
use std::sync::Arc;

use crate::error::Result;
use crate::kernels::gpu::device::Device;
use crate::kernels::gpu::network::{Layers, NetworkTable};
use crate::kernels::gpu::params::Params;
use crate::kernels::gpu::recorder::{Recorder, strided};
use crate::kernels::gpu::upload;
use crate::network::Network;
use crate::plain;
use crate::profile::Profile;

/// What shaders read of a profile, or of the built-in banks.
#[derive(Debug)]
pub(crate) struct Table {
    pub bank: wgpu::Buffer,
    pub range: wgpu::Buffer,
    pub dct: wgpu::Buffer,
    pub forward: wgpu::Buffer,
    pub inverse: wgpu::Buffer,
}

/// The tables that were uploaded.
#[derive(Debug, Default, Clone)]
pub(crate) struct Tables {
    /// By hash; without a profile by kind and channels.
    tables: HashMap<(Option<u64>, bool, usize), Arc<Table>>,
    /// By hash, and whether it is the synthesis.
    networks: HashMap<(u64, bool), Arc<NetworkTable>>,
}

impl Tables {
    pub fn get(
        &mut self,
        device: &Device,
        profile: Option<&Arc<Profile>>,
        kind: plain::Kind,
        channels: usize,
    ) -> Result<Arc<Table>> {
        let key = match profile {
            Some(profile) => (Some(profile.hash), false, 0),
            None => (None, kind.one_sided, channels),
        };
        if let Some(table) = self.tables.get(&key) {
            return Ok(table.clone());
        }
        let table = Arc::new(match profile {
            Some(profile) => Table {
                bank: device.upload("bank", &upload::bank_words(&profile.bank))?,
                range: device.upload("range", &upload::range_words(profile))?,
                dct: device.upload("dct", &upload::dct_words(profile))?,
                forward: device.upload("forward", &upload::matrix_words(profile, false))?,
                inverse: device.upload("inverse", &upload::matrix_words(profile, true))?,
            },
            None => {
                let whole: Vec<u32> = (0..channels).flat_map(|_| [-32_768i32 as u32, 32_767]).collect();
                Table {
                    bank: device.upload("bank", &upload::bank_words(kind.bank()))?,
                    range: device.upload("range", &whole)?,
                    dct: device.upload("dct", &[])?,
                    forward: device.upload("forward", &[])?,
                    inverse: device.upload("inverse", &[])?,
                }
            }
        });
        self.tables.insert(key, table.clone());
        Ok(table)
    }

    /// The tables of a network of a profile.
    pub fn network<A: Layers>(
        &mut self,
        device: &Device,
        (hash, synthesis): (u64, bool),
        network: &Network<A>,
    ) -> Result<Arc<NetworkTable>> {
        if let Some(table) = self.networks.get(&(hash, synthesis)) {
            return Ok(table.clone());
        }
        let table = Arc::new(NetworkTable::new(device, network)?);
        self.networks.insert((hash, synthesis), table.clone());
        Ok(table)
    }
}

/// Workgroups of `channel_matrix`.
pub(crate) fn matrix_groups(params: &Params) -> (u32, u32, u32) {
    let blocks = (params.items * params.positions).div_ceil(8).min(8192);
    (params.channels.div_ceil(64), blocks, params.bands)
}

impl Table {
    /// Records the inverse transform of `values`; gives the buffer that then has the feature's integer values.
    pub fn invert(
        &self,
        recorder: &mut Recorder<'_>,
        profile: &Profile,
        mut params: Params,
        mut values: wgpu::Buffer,
        mut other: wgpu::Buffer,
    ) -> Result<wgpu::Buffer> {
        params.inverse = 1;
        params.row_shift = profile.dct[0].shift;
        params.column_shift = profile.dct[1].shift;
        params.matrices = profile.matrices.len() as u32;
        let uniform = recorder.uniform(&params.bytes())?;
        if !profile.matrices.is_empty() {
            let bindings = [(1, &self.inverse), (2, &values), (3, &other)];
            recorder.run("channel_matrix", 32, &uniform, &bindings, matrix_groups(&params))?;
            std::mem::swap(&mut values, &mut other);
        }
        if profile.bands() > 1 {
            let groups = (strided((params.items * params.positions * params.width) as usize), 1, 1);
            let bindings = [(1, &self.dct), (2, &values), (3, &other)];
            recorder.run("block_idct_columns", 32, &uniform, &bindings, groups)?;
            let bindings = [(1, &self.dct), (2, &other), (3, &values)];
            recorder.run("block_idct_rows", 32, &uniform, &bindings, groups)?;
        }
        Ok(values)
    }
}
