//! Wrong configurations and what is said about them.
