//! What must hold of whatever bytes come: the properties that `tests/fuzz` drives by coverage, here with its seeds and bounded changes of
//! them.

#[path = "../fuzz/properties/mod.rs"]
mod known;

use std::fs;
use std::path::Path;

use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use known::PROPERTIES;

/// Changed seeds for each property.
const CASES: u32 = 400;

/// How a seed is changed.
#[derive(Debug, Clone)]
enum Change {
    Flip(Index, u8),
    Cut(Index),
    Remove(Index, u8),
    Insert(Index, Vec<u8>),
    Repeat(Index, u8),
}

impl Change {
    fn apply(self, bytes: &mut Vec<u8>) {
        let at = |index: Index, len: usize| index.index(len + 1);
        match self {
            Self::Flip(index, bits) if !bytes.is_empty() => {
                let at = index.index(bytes.len());
                bytes[at] ^= bits;
            }
            Self::Flip(..) => {}
            Self::Cut(index) => bytes.truncate(at(index, bytes.len())),
            Self::Remove(index, count) => {
                let start = at(index, bytes.len());
                bytes.drain(start..(start + usize::from(count)).min(bytes.len()));
            }
            Self::Insert(index, new) => {
                let start = at(index, bytes.len());
                bytes.splice(start..start, new);
            }
            Self::Repeat(index, times) => {
                let tail = bytes[at(index, bytes.len())..].to_vec();
                (0..times % 8).for_each(|_| bytes.extend_from_slice(&tail));
            }
        }
    }
}

fn change() -> impl Strategy<Value = Change> {
    let words = prop::sample::select(vec![
        "\n",
        "\"",
        "\\",
        "%2e",
        "%00",
        "%2f",
        "..",
        "/v2/",
        "?ns=",
        "docker.io",
        "sha256:",
        "{",
        "}",
        "[",
        "]",
        ",",
        "bytes=",
        "-",
        "0",
        "18446744073709551615",
        "null",
        "\u{e9}",
        " ",
        "\t",
        "=",
        ";",
        "<",
        ">",
        "rel=\"next\"",
        "mediaType",
        "mediatype",
        "[[upstream]]\n",
    ]);
    prop_oneof![
        (any::<Index>(), any::<u8>()).prop_map(|(index, bits)| Change::Flip(index, bits)),
        any::<Index>().prop_map(Change::Cut),
        (any::<Index>(), any::<u8>()).prop_map(|(index, count)| Change::Remove(index, count)),
        (any::<Index>(), words).prop_map(|(index, word)| Change::Insert(index, word.as_bytes().to_vec())),
        (any::<Index>(), prop::collection::vec(any::<u8>(), 1..8)).prop_map(|(index, new)| Change::Insert(index, new)),
        (any::<Index>(), any::<u8>()).prop_map(|(index, times)| Change::Repeat(index, times)),
    ]
}

/// Returns the seeds of a property, of which there is at least one.
fn seeds(name: &str) -> Vec<Vec<u8>> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus").join(name);
    let files = fs::read_dir(&directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    let seeds: Vec<Vec<u8>> = files.map(|file| fs::read(file.unwrap().path()).unwrap()).collect();
    assert!(!seeds.is_empty(), "{name} has no seeds");
    seeds
}

#[test]
fn what_must_hold_of_any_bytes_holds_of_the_seeds_and_of_what_becomes_of_them() {
    for (name, property) in PROPERTIES {
        let seeds = seeds(name);
        for seed in &seeds {
            property(seed);
        }
        let changed = (prop::sample::select(seeds), prop::collection::vec(change(), 1..6));
        let config = Config { cases: CASES, failure_persistence: None, ..Config::default() };
        // The same changes each time: what is new is found by coverage, and becomes a seed.
        let mut runner = TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
        let held = runner.run(&changed, |(mut bytes, changes)| {
            for change in changes {
                change.apply(&mut bytes);
            }
            property(&bytes);
            Ok(())
        });
        if let Err(failure) = held {
            panic!("{name}: {failure}");
        }
    }
}
