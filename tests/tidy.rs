//! The code has no rules of its own yet.
