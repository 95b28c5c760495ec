//! Opened sections kept for the next read of the same block, least recently used out first.
//! Invariant: what is kept weighs no more than the limit.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use super::frame::{Opened, Section};

/// A frame's salt, and the section.
type Name = ([u8; 32], Section);

/// A bounded cache; `limit` counts bytes.
#[derive(Debug)]
pub struct SectionCache {
    limit: usize,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    sections: HashMap<Name, (u64, Arc<Opened>)>,
    by_use: BTreeMap<u64, Name>,
    weight: usize,
    uses: u64,
}

impl SectionCache {
    /// An empty cache.
    pub fn new(limit: usize) -> Self {
        SectionCache { limit, kept: Mutex::default() }
    }

    pub(super) fn get(&self, name: Name) -> Option<Arc<Opened>> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.uses += 1;
        let uses = kept.uses;
        let (used, opened) = kept.sections.get_mut(&name)?;
        let before = std::mem::replace(used, uses);
        let opened = Arc::clone(opened);
        kept.by_use.remove(&before);
        kept.by_use.insert(uses, name);
        Some(opened)
    }

    /// Lets go of everything: what was kept may have been rewritten.
    pub(super) fn clear(&self) {
        *self.kept.lock().unwrap_or_else(PoisonError::into_inner) = Kept::default();
    }

    pub(super) fn keep(&self, name: Name, opened: &Arc<Opened>) {
        let weight = opened.weight();
        if weight > self.limit {
            return;
        }
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.remove(name);
        while kept.weight + weight > self.limit {
            let Some((_, oldest)) = kept.by_use.first_key_value() else { break };
            let oldest = *oldest;
            kept.remove(oldest);
        }
        kept.uses += 1;
        let uses = kept.uses;
        kept.weight += weight;
        kept.by_use.insert(uses, name);
        kept.sections.insert(name, (uses, Arc::clone(opened)));
    }
}

impl Kept {
    fn remove(&mut self, name: Name) {
        if let Some((used, opened)) = self.sections.remove(&name) {
            self.by_use.remove(&used);
            self.weight -= opened.weight();
        }
    }
}
