//! The one thread pool of the core: sized by `EHRFAST_THREADS`, never rayon's global one, so an embedding
//! process keeps its own. A forked child makes a new pool, since threads do not survive a fork.

use std::sync::{Arc, Mutex, OnceLock};

use rayon::prelude::*;
use thiserror::Error;

/// What is wrong with `EHRFAST_THREADS`.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PoolError {
    /// Neither absent nor a whole number from 1 to `MAX_THREADS`.
    #[error("EHRFAST_THREADS is not a number from 1 to {MAX_THREADS}")]
    ThreadCount {
        /// What it was set to.
        setting: String,
    },
}

/// The largest pool that may be asked for.
pub const MAX_THREADS: usize = 1024;

struct Pool {
    process: u32,
    threads: Arc<rayon::ThreadPool>,
}

static POOL: Mutex<Option<Pool>> = Mutex::new(None);

/// Reads `EHRFAST_THREADS`; absent means one thread for each processor this process may use.
///
/// # Errors
/// `PoolError::ThreadCount` for anything but a number from 1 to [`MAX_THREADS`].
pub fn configured_threads() -> Result<usize, PoolError> {
    match std::env::var("EHRFAST_THREADS") {
        Err(std::env::VarError::NotPresent) => Ok(std::thread::available_parallelism().map_or(1, usize::from)),
        Err(std::env::VarError::NotUnicode(raw)) => {
            Err(PoolError::ThreadCount { setting: raw.to_string_lossy().into_owned() })
        }
        Ok(setting) => match setting.parse() {
            Ok(count) if (1..=MAX_THREADS).contains(&count) => Ok(count),
            _ => Err(PoolError::ThreadCount { setting }),
        },
    }
}

/// How many threads share a batch. A wrong setting counts as one thread here; loading the module refuses it.
pub fn threads() -> usize {
    static COUNT: OnceLock<usize> = OnceLock::new();
    *COUNT.get_or_init(|| configured_threads().unwrap_or(1))
}

/// Splits `out` into runs of `chunk` items and fills them with `fill(index of the first item, run)`, on the pool
/// when there is more than one run. The runs are the same for every number of threads.
pub fn fill_chunks<T: Send>(out: &mut [T], chunk: usize, fill: impl Fn(usize, &mut [T]) + Sync) {
    let chunk = chunk.max(1);
    let fill_run = |(number, run): (usize, &mut [T])| fill(number.saturating_mul(chunk), run);
    let pool = if out.len() <= chunk { None } else { current() };
    match pool {
        Some(pool) => pool.install(|| out.par_chunks_mut(chunk).enumerate().for_each(fill_run)),
        None => out.chunks_mut(chunk).enumerate().for_each(fill_run),
    }
}

/// `None` means: work in place. That is so for one thread, when no thread can be started, and in a child forked
/// while another thread of the parent held the lock, which then nobody can ever release.
fn current() -> Option<Arc<rayon::ThreadPool>> {
    const ATTEMPTS: usize = 10_000;
    if threads() == 1 {
        return None;
    }
    let process = std::process::id();
    let mut slot = (0..ATTEMPTS).find_map(|_| {
        POOL.try_lock().ok().or_else(|| {
            std::thread::yield_now();
            None
        })
    })?;
    if let Some(pool) = slot.as_ref()
        && pool.process == process
    {
        return Some(Arc::clone(&pool.threads));
    }
    let built = rayon::ThreadPoolBuilder::new()
        .num_threads(threads())
        .thread_name(|number| format!("ehrfast-{number}"))
        .build()
        .ok()?;
    let threads = Arc::new(built);
    // Dropping the parent's pool would signal threads that do not exist here and may wait for their locks.
    std::mem::forget(slot.replace(Pool { process, threads: Arc::clone(&threads) }));
    Some(threads)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn fills_every_item_once_for_every_chunk_size() {
        for length in [0, 1, 2, 7, 64, 1000] {
            for chunk in [0, 1, 3, 64, 2000] {
                let mut out = vec![0usize; length];
                fill_chunks(&mut out, chunk, |first, run| {
                    run.iter_mut().enumerate().for_each(|(at, item)| *item += first + at + 1);
                });
                assert!(out.iter().enumerate().all(|(at, item)| *item == at + 1), "{length} {chunk}");
            }
        }
    }

    #[test]
    fn works_in_threads_of_its_own() {
        let mut names = vec![String::new(); 50];
        fill_chunks(&mut names, 1, |_, run| {
            run[0] = std::thread::current().name().unwrap_or_default().to_owned();
        });
        assert!(threads() == 1 || names.iter().all(|name| name.starts_with("ehrfast-")), "{names:?}");
    }

    #[test]
    fn nested_batches_do_not_wait_for_each_other() {
        let mut sums = vec![0usize; 64];
        fill_chunks(&mut sums, 1, |first, run| {
            let mut inner = vec![0usize; 100];
            fill_chunks(&mut inner, 10, |_, part| part.fill(first));
            run[0] = inner.iter().sum();
        });
        assert!(sums.iter().enumerate().all(|(at, sum)| *sum == 100 * at));
    }
}
