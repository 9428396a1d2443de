//! Upload sessions under any sequence of steps: the property that `tests/fuzz` drives by coverage, here with a bounded number of sequences.

#[path = "../fuzz/upload/property.rs"]
mod property;

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use property::World;

/// Sequences that are tried.
const SEQUENCES: usize = 60;

#[tokio::test]
async fn uploads_are_what_their_steps_made_of_them() {
    let mut runner = TestRunner::new_with_rng(Config::default(), TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    let steps = prop::collection::vec(any::<u8>(), 2..48);
    let world = World::start().await;
    for _ in 0..SEQUENCES {
        world.holds(&steps.new_tree(&mut runner).unwrap().current()).await;
    }
    world.finish().await;
}
