//! What becomes of files that somebody else has put where ours would go.

/// The operator's choice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Merge {
    /// Theirs stays, and that registry does not go through the cache.
    Keep,
    /// The cache first, then what theirs says.
    Prepend,
    /// Theirs is put away, and back again when ours goes.
    Replace,
}
