//! The agent on directories of its own.
