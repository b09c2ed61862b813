//! Threads that share the images of a measurement.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Result, anyhow};
use rten::ThreadPool;

use crate::model::Pool;

/// Most threads, whatever is asked for.
const MOST: usize = 256;

/// How many threads share so much work: those that are asked for, 0 for one per core, and no more than have something to do.
pub fn count(asked: usize, jobs: usize) -> usize {
    let wanted = match asked {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        asked => asked,
    };
    wanted.min(jobs).clamp(1, MOST)
}

/// Runs `batch(first, last, state, pool)` for the jobs 0 to `jobs`, `size` at a time, on so many threads, each with a state of its
/// own; gives the states. After an error the others stop at their next batch.
///
/// # Errors
/// The first error of a batch.
pub fn share<S: Send>(
    threads: usize,
    (jobs, size): (usize, usize),
    state: impl Fn() -> S + Sync,
    batch: impl Fn(usize, usize, &mut S, &Pool) -> Result<()> + Sync,
) -> Result<Vec<S>> {
    let next = AtomicUsize::new(0);
    let work = || -> Result<S> {
        // A network that has a core to itself runs on one thread.
        let pool: Pool = (threads > 1).then(|| Arc::new(ThreadPool::with_num_threads(1)));
        let mut state = state();
        loop {
            let first = next.fetch_add(size, Ordering::Relaxed);
            if first >= jobs {
                return Ok(state);
            }
            let result = batch(first, (first + size).min(jobs), &mut state, &pool);
            if result.is_err() {
                next.store(jobs, Ordering::Relaxed);
            }
            result?;
        }
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let join = |worker: std::thread::ScopedJoinHandle<'_, Result<S>>| {
            worker.join().unwrap_or_else(|_| Err(anyhow!("a worker stopped")))
        };
        // All have ended when the first error is reported.
        let states: Vec<Result<S>> = workers.into_iter().map(join).collect();
        states.into_iter().collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_job_is_done_once_and_an_error_ends_the_rest() {
        for (threads, size) in [(1, 1), (3, 1), (2, 7), (5, 100)] {
            let states = share(threads, (50, size), Vec::new, |first, last, done: &mut Vec<usize>, _| {
                done.extend(first..last);
                Ok(())
            });
            let mut done = states.unwrap().concat();
            done.sort_unstable();
            assert_eq!(done, (0..50).collect::<Vec<_>>());
        }
        let failing = |first, _, done: &mut usize, _: &Pool| {
            *done += 1;
            if first == 3 { Err(anyhow!("three")) } else { Ok(()) }
        };
        assert_eq!(share(1, (50, 1), || 0, failing).unwrap_err().to_string(), "three");
    }

    #[test]
    fn no_more_threads_than_work() {
        assert_eq!([count(100_000, 1000), count(8, 3), count(8, 0), count(2, 1000)], [MOST, 3, 1, 2]);
        assert!(count(0, 1000) >= 1);
    }
}
