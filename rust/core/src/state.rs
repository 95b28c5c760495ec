//! State: paths, write sets and the view a contract call reads and writes through.

/// Where a value lives in the state trie: keyed["path"](CBOR [contract, key]).
pub type Path = [u8; 32];

/// Why reading state failed.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The store below could not be read.
    #[error("the state store could not be read")]
    Unavailable(#[source] std::io::Error),
    /// A stored value does not open under its key and path.
    #[error("a stored value is not what was written")]
    Corrupt(Path),
}

/// Published state as a call sees it: stored = blind (16) ‖ value.
pub trait StateRead: Send + Sync {
    /// The stored bytes at a path, `None` when there are none.
    fn get(&self, path: &Path) -> Result<Option<Vec<u8>>, StateError>;
}

/// The last write per path of one block, ascending by path; `None` deletes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WriteSet {
    /// (path, stored bytes or deletion), ascending, each path once.
    pub writes: Vec<(Path, Option<Vec<u8>>)>,
}
