//! Where the buckets of a trie are while they are not in memory: the snapshots a version rests on, and the bounded
//! share of buckets kept hot. Invariant: a bucket leaves memory only after a version that has it was settled, so the
//! snapshot nearest before any version that shares it still holds its leaves.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use super::trie::{Leaf, TrieError};
use crate::digest::Digest;
use crate::state::{Path, StateError};

/// What a bucket costs beside its leaves.
const BUCKET_BYTES: usize = 128;

/// (path, BLAKE3(stored)), one after the other.
pub type Leaves<'a> = Box<dyn Iterator<Item = Result<(Path, Digest), StateError>> + 'a>;

/// The leaves of one version as a store holds them: it shows no later write.
pub trait LeafSource: Send + Sync + std::fmt::Debug {
    /// From a path to before another, or to the last; ascending by path.
    fn leaves(&self, from: Path, to: Option<Path>) -> Leaves<'_>;

    /// They were not what the trie was made of: to be remembered where that can be, so that they are made anew.
    fn doubt(&self) {}
}

fn guard<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Up to 32 leaves, in memory or not; shared by the versions that have it.
#[derive(Debug)]
pub(super) struct Bucket {
    count: usize,
    used: AtomicBool,
    held: Mutex<Option<Arc<[Leaf]>>>,
}

impl Bucket {
    pub fn held(leaves: Arc<[Leaf]>) -> Arc<Self> {
        Arc::new(Self { count: leaves.len(), used: AtomicBool::new(false), held: Mutex::new(Some(leaves)) })
    }

    pub fn stored(count: usize) -> Arc<Self> {
        Arc::new(Self { count, used: AtomicBool::new(false), held: Mutex::new(None) })
    }

    pub fn count(&self) -> usize {
        self.count
    }

    pub fn is_held(&self) -> bool {
        guard(&self.held).is_some()
    }

    /// Its leaves, read where they are not in memory, and whether they were read: then it is to be kept.
    pub fn leaves(
        &self,
        read: impl FnOnce() -> Result<Arc<[Leaf]>, TrieError>,
    ) -> Result<(Arc<[Leaf]>, bool), TrieError> {
        let mut held = guard(&self.held);
        if let Some(leaves) = &*held {
            self.used.store(true, Ordering::Relaxed);
            return Ok((Arc::clone(leaves), false));
        }
        let leaves = read()?;
        *held = Some(Arc::clone(&leaves));
        Ok((leaves, true))
    }

    fn bytes(&self) -> usize {
        BUCKET_BYTES + self.count * size_of::<Leaf>()
    }
}

/// What all versions of one open trie share.
#[derive(Debug)]
struct Lineage {
    hot_bytes: usize,
    hot: Mutex<Hot>,
    unsaved_keys: AtomicU64,
    unsaved_versions: AtomicU64,
}

/// The buckets that are in memory though a store has them, in the order they came.
#[derive(Debug, Default)]
struct Hot {
    queue: VecDeque<Arc<Bucket>>,
    bytes: usize,
    since_sweep: usize,
}

impl Lineage {
    fn keep(&self, buckets: Vec<Arc<Bucket>>) {
        let mut hot = guard(&self.hot);
        for bucket in buckets {
            hot.bytes += bucket.bytes();
            hot.since_sweep += 1;
            hot.queue.push_back(bucket);
        }
        if hot.bytes > self.hot_bytes && 4 * hot.since_sweep > hot.queue.len() {
            // Buckets that no version has any more go first.
            hot.queue.retain(|bucket| Arc::strong_count(bucket) > 1);
            hot.bytes = hot.queue.iter().map(|bucket| bucket.bytes()).sum();
            hot.since_sweep = 0;
        }
        let mut spared = 0;
        while hot.bytes > self.hot_bytes
            && let Some(oldest) = hot.queue.pop_front()
        {
            // One that was used since it was last looked at stays once more.
            if oldest.used.swap(false, Ordering::Relaxed) && spared < hot.queue.len() {
                spared += 1;
                hot.queue.push_back(oldest);
                continue;
            }
            hot.bytes = hot.bytes.saturating_sub(oldest.bytes());
            *guard(&oldest.held) = None;
        }
    }
}

/// What a version rests on.
#[derive(Debug)]
pub(super) struct Trail {
    lineage: Arc<Lineage>,
    /// The store at this version, once it holds it.
    source: OnceLock<Arc<dyn LeafSource>>,
    /// The version it was made from, until it is settled itself.
    before: Mutex<Option<Arc<Trail>>>,
    /// Buckets new in this version, in memory until it is settled.
    fresh: Mutex<Vec<Arc<Bucket>>>,
}

impl Trail {
    pub fn settled(source: Arc<dyn LeafSource>, hot_bytes: usize) -> Arc<Self> {
        let lineage = Lineage {
            hot_bytes,
            hot: Mutex::default(),
            unsaved_keys: AtomicU64::new(0),
            unsaved_versions: AtomicU64::new(0),
        };
        let (before, fresh) = (Mutex::default(), Mutex::default());
        Arc::new(Self { lineage: Arc::new(lineage), source: OnceLock::from(source), before, fresh })
    }

    pub fn next(self: &Arc<Self>, fresh: Vec<Arc<Bucket>>) -> Arc<Self> {
        Arc::new(Self {
            lineage: Arc::clone(&self.lineage),
            source: OnceLock::new(),
            before: Mutex::new(Some(Arc::clone(self))),
            fresh: Mutex::new(fresh),
        })
    }

    /// The snapshot of this version, or the one nearest before it: what changed in between is in memory.
    pub fn source(&self) -> Option<Arc<dyn LeafSource>> {
        let mut before = match (self.source.get(), guard(&self.before).clone()) {
            (Some(source), _) => return Some(Arc::clone(source)),
            (None, Some(before)) => before,
            (None, None) => return self.source.get().cloned(), // settled between the two looks
        };
        loop {
            let next = match (before.source.get(), guard(&before.before).clone()) {
                (Some(source), _) => return Some(Arc::clone(source)),
                (None, Some(next)) => next,
                (None, None) => return before.source.get().cloned(),
            };
            before = next;
        }
    }

    pub fn settle(&self, source: Arc<dyn LeafSource>) {
        if self.source.set(source).is_err() {
            return;
        }
        let mut fresh = std::mem::take(&mut *guard(&self.fresh));
        let mut before = guard(&self.before).take();
        // Versions passed over and let go by everybody: what is left of them is in this one.
        while let Some(trail) = before.filter(|trail| trail.source.get().is_none() && Arc::strong_count(trail) == 1) {
            fresh.append(&mut guard(&trail.fresh));
            before = guard(&trail.before).take();
        }
        self.lineage.unsaved_versions.fetch_add(1, Ordering::Relaxed);
        self.lineage.keep(fresh);
    }

    pub fn keep(&self, buckets: Vec<Arc<Bucket>>) {
        if !buckets.is_empty() {
            self.lineage.keep(buckets);
        }
    }

    pub fn count(&self, keys: usize) {
        self.lineage.unsaved_keys.fetch_add(keys as u64, Ordering::Relaxed);
    }

    pub fn unsaved(&self) -> (u64, u64) {
        let Lineage { unsaved_keys, unsaved_versions, .. } = &*self.lineage;
        (unsaved_keys.load(Ordering::Relaxed), unsaved_versions.load(Ordering::Relaxed))
    }

    pub fn note_saved(&self) {
        self.lineage.unsaved_keys.store(0, Ordering::Relaxed);
        self.lineage.unsaved_versions.store(0, Ordering::Relaxed);
    }

    pub fn hot_bytes(&self) -> usize {
        guard(&self.lineage.hot).bytes
    }
}
