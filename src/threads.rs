//! Chunks side by side: on a thread pool with feature `rayon`, else one after the other.

use std::iter::Take;

use crate::error::Result;

/// Elements from which on threads are worth waking.
#[cfg(feature = "rayon")]
const WORTH_THREADS: usize = 1 << 15;

/// Calls `work(job, worker)` for each pair of a job and a worker; gives the error of the first job
/// that failed. `elements` is the size of all jobs together.
pub(crate) fn each<J: Send, W: Send>(
    jobs: impl Iterator<Item = J>,
    workers: &mut [W],
    elements: usize,
    work: impl Fn(J, &mut W) -> Result<()> + Sync,
) -> Result<()> {
    #[cfg(feature = "rayon")]
    if are_worth_it(workers.len(), elements) {
        use rayon::prelude::*;
        let pairs: Vec<(J, &mut W)> = jobs.zip(workers).collect();
        let results: Vec<Result<()>> = pairs.into_par_iter().map(|(job, worker)| work(job, worker)).collect();
        return results.into_iter().collect();
    }
    let _ = elements;
    jobs.zip(workers).try_for_each(|(job, worker)| work(job, worker))
}

/// As [`each`], with workers made as they are needed and at most `most` of them, each with several jobs in a row: a single
/// one without threads.
pub(crate) fn each_sharing<J: Send, W: Send + Default>(
    jobs: impl ExactSizeIterator<Item = J>,
    workers: (&mut Vec<W>, usize),
    elements: usize,
    work: impl Fn(J, &mut W) -> Result<()> + Sync,
) -> Result<()> {
    let collected = |jobs: &mut _, count| Iterator::take(jobs, count).collect::<Vec<J>>().into_iter();
    share(jobs, collected, workers, elements, work)
}

/// As [`each_sharing`], for jobs that can be made again: each is made when its turn comes, so that nothing is allocated for them.
pub(crate) fn each_in_turn<J, W: Send + Default>(
    jobs: impl ExactSizeIterator<Item = J> + Clone + Send,
    workers: (&mut Vec<W>, usize),
    elements: usize,
    work: impl Fn(J, &mut W) -> Result<()> + Sync,
) -> Result<()> {
    share(jobs, ahead, workers, elements, work)
}

/// The next `count` jobs, which are passed over.
fn ahead<I: Iterator + Clone>(jobs: &mut I, count: usize) -> Take<I> {
    let group = jobs.clone().take(count);
    jobs.take(count).for_each(drop);
    group
}

/// Shares jobs among workers in groups that `group` takes from all.
fn share<I: ExactSizeIterator, G: Iterator<Item = I::Item> + Send, W: Send + Default>(
    mut jobs: I,
    group: impl Fn(&mut I, usize) -> G,
    (workers, most): (&mut Vec<W>, usize),
    elements: usize,
    work: impl Fn(I::Item, &mut W) -> Result<()> + Sync,
) -> Result<()> {
    #[cfg(feature = "rayon")]
    if most > 1 && are_worth_it(jobs.len(), elements) {
        // More groups than threads, for those that are done early to have something to do.
        let groups = most.min(4 * rayon::current_num_threads()).min(jobs.len());
        if workers.len() < groups {
            workers.resize_with(groups, W::default);
        }
        let size = jobs.len().div_ceil(groups);
        let groups = (0..groups).map(|_| group(&mut jobs, size));
        return each(groups, workers, elements, |mut jobs, worker| jobs.try_for_each(|job| work(job, worker)));
    }
    let _ = (elements, most, group);
    if workers.is_empty() {
        workers.push(W::default());
    }
    let worker = &mut workers[0];
    jobs.try_for_each(|job| work(job, worker))
}

#[cfg(feature = "rayon")]
fn are_worth_it(jobs: usize, elements: usize) -> bool {
    jobs > 1 && elements >= WORTH_THREADS && rayon::current_num_threads() > 1
}
