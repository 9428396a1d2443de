//! Stored blobs that rot between two runs: clients see right bytes or a short body, and the registry is asked again.

use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use cachalot::oci::Digest;

use crate::harness::{Cachalot, More};
use crate::registry::{Content, MIB, Registry};

const MISMATCHES: &str = r#"cachalot_digest_mismatches_total{kind="blob",source="disk",upstream="registry.test"}"#;

/// A Cachalot that was started again over a store that holds one blob.
struct Ground {
    registry: Registry,
    content: Content,
    digest: Digest,
    cachalot: Cachalot,
}

impl Ground {
    /// Lets `harm` come over the file of the blob between the two runs.
    async fn new(more: More<'_>, harm: impl FnOnce(&PathBuf)) -> Self {
        let registry = Registry::start().await;
        let content = Content::generated(1, 3 * MIB);
        let digest = registry.with_blob(content.clone());
        let off = More { server: "", store: "scrub_rate = \"0\"", ..more };
        let cachalot = Cachalot::configured(&registry, off).await;
        assert!(cachalot.get(&path(&digest)).await.body == content.bytes());
        let file = file(&cachalot, &digest);
        let cachalot = cachalot.stop().await;
        harm(&file);
        Self { cachalot: cachalot.start(&registry, more).await, registry, content, digest }
    }

    fn gets(&self) -> usize {
        self.registry.gets("/blobs/").len()
    }

    async fn is_right(&self, outcome: &str) -> bool {
        let answer = self.cachalot.get(&path(&self.digest)).await;
        answer.is_complete && answer.body == self.content.bytes() && answer.header("cache-status").contains(outcome)
    }
}

fn path(digest: &Digest) -> String {
    format!("/v2/app/blobs/{digest}")
}

fn file(cachalot: &Cachalot, digest: &Digest) -> PathBuf {
    let encoded = digest.encoded();
    cachalot.store().join("layer/sha256").join(&encoded[..2]).join(encoded)
}

fn open(file: &PathBuf) -> std::fs::File {
    std::fs::File::options().read(true).write(true).open(file).unwrap()
}

fn flip(file: &PathBuf) {
    let mut byte = [0];
    open(file).read_exact_at(&mut byte, 2 * MIB).unwrap();
    open(file).write_all_at(&[!byte[0]], 2 * MIB).unwrap();
}

const NO_SCRUB: More<'_> = More { server: "", store: "scrub_rate = \"0\"", upstream: "", sections: "" };

#[tokio::test]
async fn a_blob_that_rotted_ends_short_and_is_fetched_again() {
    type Harm = fn(&PathBuf);
    let rows: [(&str, Harm, u64); 3] = [
        ("a flipped byte", flip, 1),
        ("a cut file", |file| open(file).set_len(MIB).unwrap(), 1),
        ("a file with more at its end", |file| open(file).write_all_at(b"more", 3 * MIB).unwrap(), 1),
    ];
    for (name, harm, mismatches) in rows {
        let ground = Ground::new(NO_SCRUB, harm).await;
        let before = ground.gets();
        let answer = ground.cachalot.get(&path(&ground.digest)).await;
        assert!(!answer.is_complete && (answer.body.len() as u64) < 3 * MIB, "{name}: {} bytes", answer.body.len());
        assert!(ground.is_right("fwd=").await, "{name}: not fetched again");
        assert!(ground.gets() > before, "{name}");
        let after = ground.gets();
        assert!(ground.is_right("; hit").await, "{name}: not kept");
        assert_eq!((ground.gets(), ground.cachalot.metric(MISMATCHES)), (after, mismatches), "{name}");
        ground.cachalot.finish().await;
    }
}

#[tokio::test]
async fn an_empty_file_is_noticed_before_anything_is_answered() {
    let ground = Ground::new(NO_SCRUB, |file| open(file).set_len(0).unwrap()).await;
    assert!(ground.is_right("fwd=").await);
    assert!(ground.is_right("; hit").await);
    ground.cachalot.finish().await;
}

#[tokio::test]
async fn a_good_blob_of_an_earlier_run_is_a_hit() {
    let ground = Ground::new(NO_SCRUB, |_| {}).await;
    let before = ground.gets();
    assert!(ground.is_right("; hit").await && ground.is_right("; hit").await);
    assert_eq!((ground.gets(), ground.cachalot.metric(MISMATCHES)), (before, 0));
    ground.cachalot.finish().await;
}

#[tokio::test]
async fn a_file_that_is_cut_under_a_reader_is_not_noticed() {
    let ground = Ground::new(NO_SCRUB, |_| {}).await;
    let before = ground.gets();
    let mut reader = ground.cachalot.open("GET", &path(&ground.digest), &[]).await;
    let first = reader.read(1000).await.unwrap();
    open(&file(&ground.cachalot, &ground.digest)).set_len(4096).unwrap();
    let rest = reader.finish().await;
    assert!(rest.is_complete && [first, rest.body.to_vec()].concat() == ground.content.bytes());
    // Fetched again under that reader, or, when the sockets had taken all, for this one.
    assert!(ground.is_right("").await);
    assert!(ground.gets() > before);
    assert!(ground.is_right("; hit").await);
    ground.cachalot.finish().await;
}

#[tokio::test]
async fn a_file_that_is_cut_while_it_is_sent_is_not_noticed() {
    let registry = Registry::start().await;
    // More than the sockets take, so that sending is before the place where the file is cut.
    let content = Content::generated(2, 16 * MIB);
    let digest = registry.with_blob(content.clone());
    let cachalot = Cachalot::configured(&registry, NO_SCRUB).await;
    assert!(cachalot.get(&path(&digest)).await.is_complete);
    let before = registry.gets("/blobs/").len();
    for range in [None, Some("bytes=1-"), Some("bytes=1-16777214")] {
        // A fill that still writes is another source.
        while cachalot.fills_under_way() > 0 {
            tokio::task::yield_now().await;
        }
        let headers = range.map(|range| ("range", range));
        let mut reader = cachalot.open("GET", &path(&digest), headers.as_slice()).await;
        let first = reader.read(1000).await.unwrap();
        open(&file(&cachalot, &digest)).set_len(12 * MIB + 5).unwrap();
        let rest = reader.finish().await;
        let from = u64::from(range.is_some());
        let to = if range.is_some_and(|range| !range.ends_with('-')) { 16 * MIB - 1 } else { 16 * MIB };
        assert!(rest.is_complete, "{range:?}");
        assert!([first, rest.body.to_vec()].concat() == content.read(from, to - from), "{range:?}");
    }
    assert!(registry.gets("/blobs/").len() >= before + 3);
    assert_eq!(cachalot.metric(r#"cachalot_evictions_total{reason="unreadable",tier="disk"}"#), 3);
    cachalot.finish().await;
}

#[tokio::test]
async fn the_scrub_finds_what_readers_of_ranges_do_not() {
    let more = More { server: "", store: "scrub_rate = \"1GiB\"", ..More::default() };
    let ground = Ground::new(more, flip).await;
    let scrubbed = r#"cachalot_scrub_objects_total{result="corrupt"}"#;
    while ground.cachalot.metric(scrubbed) == 0 {
        let answer = ground.cachalot.get_range(&path(&ground.digest), "bytes=0-99").await;
        assert!(answer.body == ground.content.read(0, 100));
    }
    assert!(ground.is_right("").await);
    assert!(ground.is_right("; hit").await);
    ground.cachalot.finish().await;
}
