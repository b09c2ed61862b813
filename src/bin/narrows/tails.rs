//! Tails of networks, and whole networks, as models of a server.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

use narrows::link::Tail;
use narrows::{Error, Result};
use ndarray::{ArrayD, IxDyn};
use rten::ThreadPool;

use crate::images;
use crate::model::{Cut, Network, Pool};
use crate::normalize::Normalize;

/// The rest of a network from a cut on.
pub struct CutTail {
    network: Arc<Network>,
    cut: Cut,
    classes: usize,
    threads: usize,
}

impl CutTail {
    /// The tail at a cut, each run on so many threads; it runs once, to see how many classes there are.
    pub fn new(network: Arc<Network>, cut: Cut, threads: usize) -> anyhow::Result<CutTail> {
        let classes = network.tail(&ArrayD::zeros(IxDyn(&cut.shape)), &cut, &None)?.first().map_or(0, Vec::len);
        Ok(CutTail { network, cut, classes, threads })
    }
}

impl Tail for CutTail {
    fn shape(&self) -> &[usize] {
        &self.cut.shape[1..]
    }

    fn classes(&self) -> usize {
        self.classes
    }

    fn run(&self, batch: &ArrayD<f32>) -> Result<Vec<Vec<f32>>> {
        in_parts(batch, self.network.most(), |part| self.network.tail(part, &self.cut, &own_pool(self.threads)))
    }
}

/// A whole network.
pub struct Whole {
    network: Arc<Network>,
    normalize: Normalize,
    shape: [usize; 3],
    classes: usize,
    threads: usize,
}

impl Whole {
    /// A network for inputs of this height and width, each run on so many threads.
    pub fn new(
        network: Arc<Network>,
        normalize: Normalize,
        (height, width): (usize, usize),
        threads: usize,
    ) -> anyhow::Result<Whole> {
        let shape = [3, height, width];
        let input = ArrayD::zeros(IxDyn(&[1, 3, height, width]));
        let classes = network.run(&input, &[], &[], &None)?.logits.first().map_or(0, Vec::len);
        Ok(Whole { network, normalize, shape, classes, threads })
    }
}

impl Tail for Whole {
    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn classes(&self) -> usize {
        self.classes
    }

    fn run(&self, batch: &ArrayD<f32>) -> Result<Vec<Vec<f32>>> {
        in_parts(batch, self.network.most(), |part| {
            Ok(self.network.run(part, &[], &[], &own_pool(self.threads))?.logits)
        })
    }

    fn image(&self, bytes: &[u8]) -> Result<ArrayD<f32>> {
        let [_, height, width] = self.shape;
        let invalid = |error: anyhow::Error| Error::InvalidInput(format!("the image: {error:#}").into());
        let image = images::decode_sized(bytes, (width as u32, height as u32)).map_err(invalid)?;
        self.normalize.batch(&[image]).map_err(invalid)
    }
}

/// Runs a batch in parts of at most `most` items.
fn in_parts(
    batch: &ArrayD<f32>,
    most: usize,
    run: impl Fn(&ArrayD<f32>) -> anyhow::Result<Vec<Vec<f32>>>,
) -> Result<Vec<Vec<f32>>> {
    let failed = |error: anyhow::Error| Error::Backend(format!("the network: {error:#}").into());
    if batch.shape()[0] <= most {
        return run(batch).map_err(failed);
    }
    let parts = batch.axis_chunks_iter(ndarray::Axis(0), most);
    let rows = parts.map(|part| run(&part.to_owned()).map_err(failed)).collect::<Result<Vec<_>>>()?;
    Ok(rows.concat())
}

/// Threads of their own for each worker of the server: its requests run side by side, not each on all processors.
fn own_pool(threads: usize) -> Pool {
    thread_local! {
        static POOLS: RefCell<HashMap<usize, Arc<ThreadPool>>> = RefCell::new(HashMap::new());
    }
    let new = || Arc::new(ThreadPool::with_num_threads(threads));
    POOLS.with_borrow_mut(|pools| Some(pools.entry(threads).or_insert_with(new).clone()))
}
