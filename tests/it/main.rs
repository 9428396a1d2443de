//! Integration tests.

mod registry;
mod upstream;
