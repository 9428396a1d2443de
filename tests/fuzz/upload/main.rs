//! Drives sequences of steps of uploads by coverage, through a whole cache in front of a registry.
#![no_main]

#[path = "../../it/harness/mod.rs"]
#[allow(dead_code, unused_imports, reason = "the tests use all of it")]
mod harness;
#[allow(dead_code, reason = "a fuzzer never finishes")]
mod property;
#[path = "../../it/registry/mod.rs"]
#[allow(dead_code, unused_imports, reason = "the tests use all of it")]
mod registry;

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use tokio::runtime::Runtime;

use property::World;

static WORLD: LazyLock<(Runtime, World)> = LazyLock::new(|| {
    let runtime = Runtime::new().expect("a runtime");
    let world = runtime.block_on(World::start());
    (runtime, world)
});

fuzz_target!(|input: &[u8]| {
    let (runtime, world) = &*WORLD;
    runtime.block_on(world.holds(input));
});
