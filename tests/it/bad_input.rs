//! Upstreams that are broken or mean harm: what the client is told, that nothing is kept that was not verified, and that all of it ends
//! by the limits for bytes, not by waiting.
//!
//! Each row is put to a registry and a Cachalot of its own. While the fault is there the client sees what the row says; from the
//! store alone it is served right bytes or none; with the fault gone it gets right bytes. Each of these finds the store as the one
//! before has left it, and nothing else.

mod bodies;
mod heads;
mod words;

use bytes::Bytes;
use cachalot::oci::{Digest, MediaType};
use futures_util::{StreamExt as _, stream};

use crate::harness::{Answer, Cachalot, More};
use crate::registry::{Content, Fault, Image, KIB, MIB, Match, Published, Registry};

/// Rows under way at once: much of their time is waiting between attempts.
const AT_ONCE: usize = 8;

/// Room for a few blobs, and so for less than what does not end.
const STORE: &str = "capacity = \"8MiB\"\nmanifests = \"2MiB\"";

/// Absences are not remembered: the next question is put.
const SECTIONS: &str = "[freshness]\nnegative_ttl = \"0s\"";

/// Bytes that a registry gets rid of at the most while one question is answered, with what the kernel takes beyond it.
const SENT_MAX: u64 = 48 * MIB;

/// What the client asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ask {
    Tag,
    Digest,
    Blob,
    Tags,
    Referrers,
}

/// Which requests for it the fault is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    All,
    Head,
    Get,
    /// Those for a token, which the registry wants to see then.
    Token,
}

/// What the client sees while the fault is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seen {
    Right,
    Error(u16),
    /// An error, or a body that ends before its announced end: what is wrong shows too late for a status.
    Short,
}
use Seen::{Error, Right, Short};

struct Row {
    /// What goes wrong, and the ids of what is asked of us.
    name: String,
    ask: Ask,
    at: At,
    fault: Fault,
    seen: Seen,
}

fn row(name: impl Into<String>, ask: Ask, at: At, fault: Fault, seen: Seen) -> Row {
    Row { name: name.into(), ask, at, fault, seen }
}

/// A registry with an image `app:1` and a signature of it, which both the API and the fallback tag list.
struct World {
    registry: Registry,
    image: Published,
    signature: Digest,
}

impl World {
    async fn start() -> Self {
        Self::over(Registry::start().await)
    }

    fn over(registry: Registry) -> Self {
        let image = registry.image("app", "1", &Image::new().layer(Content::generated(3, 300 * KIB)));
        let signature = registry.attach("app", &image.digest, "signature/example", "");
        registry.fallback("app", &image.digest, &[signature], true);
        registry.list_referrers(10);
        Self { registry, image, signature }
    }

    fn path(&self, ask: Ask) -> String {
        match ask {
            Ask::Tag => "/v2/app/manifests/1".to_owned(),
            Ask::Digest => format!("/v2/app/manifests/{}", self.image.digest),
            Ask::Blob => format!("/v2/app/blobs/{}", self.image.layer(0)),
            Ask::Tags => "/v2/app/tags/list".to_owned(),
            Ask::Referrers => format!("/v2/app/referrers/{}", self.image.digest),
        }
    }

    fn scope(&self, row: &Row) -> Match {
        let scope = match (row.at, row.ask) {
            (At::Token, _) => Match::token(),
            // Where the tag leads to is asked for by digest.
            (_, Ask::Tag) => Match::path("/manifests/"),
            (_, ask) => Match::path(self.path(ask)),
        };
        match row.at {
            At::All | At::Token => scope,
            At::Head => scope.head(),
            At::Get => scope.get(),
        }
    }

    fn is_right(&self, ask: Ask, answer: &Answer) -> bool {
        let text = String::from_utf8_lossy(&answer.body);
        let is_right = match ask {
            Ask::Tag | Ask::Digest => {
                answer.body == self.image.bytes && answer.header("content-type") == self.image.media_type
            }
            Ask::Blob => answer.body == self.image.layers[0].bytes(),
            Ask::Tags => text.contains(r#""1""#),
            Ask::Referrers => text.contains(&self.signature.to_string()),
        };
        answer.status == 200 && answer.is_complete && is_right
    }

    /// Returns the right answer to a request for the manifest, with further header lines.
    fn manifest_with(&self, lines: &str) -> Bytes {
        let Published { digest, media_type, bytes, .. } = &self.image;
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: {media_type}\r\nDocker-Content-Digest: {digest}\r\n{lines}Content-Length: {}\r\n\r\n",
            bytes.len()
        );
        [head.as_bytes(), bytes].concat().into()
    }
}

/// Returns an answer as it goes over the wire.
fn reply(status: &str, lines: &str, body: &[u8]) -> Bytes {
    let head = format!("HTTP/1.1 {status}\r\n{lines}Content-Length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat().into()
}

/// Returns a manifest as a registry would send it, whatever it is.
fn as_manifest(document: &[u8]) -> Bytes {
    reply("200 OK", &format!("Content-Type: {}\r\n", MediaType::OCI_MANIFEST), document)
}

/// Puts every row to the test; each one that fails says so by itself.
async fn meet(rows: Vec<Row>) {
    let meetings = rows.into_iter().map(|row| async move {
        // A task of its own, so that the others go on.
        tokio::spawn(async move { meet_in(&World::start().await, &row).await }).await
    });
    let outcomes: Vec<_> = stream::iter(meetings).buffer_unordered(AT_ONCE).collect().await;
    let failures = outcomes.iter().filter(|outcome| outcome.is_err()).count();
    assert_eq!(failures, 0, "rows that failed, of {}", outcomes.len());
}

async fn meet_in(world: &World, row: &Row) {
    let Row { name, ask, at, fault, seen } = row;
    let what = format!("{name}: {ask:?}, {at:?}");
    let World { registry, .. } = world;
    if *at == At::Token {
        registry.require_token();
    }
    registry.fault(world.scope(row), fault.clone()).always();
    let more = |upstream| More { server: "", store: STORE, upstream, sections: SECTIONS };
    let online = more("prefetch = \"off\"\ninsecure = true");
    let cachalot = Cachalot::configured(registry, online).await;
    let path = world.path(*ask);
    let answer = cachalot.get(&path).await;
    let told = format!("{what}: {} {:?}", answer.status, answer.body.slice(..answer.body.len().min(300)));
    assert!(registry.requests().len() < 20, "{told}: {:#?}", registry.requests());
    assert!(registry.bytes_sent("") < SENT_MAX, "{told}: {} bytes", registry.bytes_sent(""));
    match seen {
        Right => assert!(world.is_right(*ask, &answer), "{told}"),
        Error(status) => assert_eq!(answer.status, *status, "{told}"),
        Short => assert!(answer.status == 502 || answer.status == 200 && !answer.is_complete, "{told}"),
    }

    registry.clear_faults();
    let asked = registry.requests().len();
    let cachalot = cachalot.restart(registry, more("offline = true")).await;
    let stored = cachalot.get(&path).await;
    assert_eq!(registry.requests().len(), asked, "{what}: offline");
    assert!(stored.status == 504 || world.is_right(*ask, &stored), "{what}: from the store: {stored:?}");
    if *seen == Right {
        return cachalot.finish().await;
    }
    let cachalot = cachalot.restart(registry, online).await;
    let after = cachalot.get(&path).await;
    assert!(world.is_right(*ask, &after), "{what}: with the fault gone: {} {:?}", after.status, after.body);
    cachalot.finish().await;
}
