//! Every caller × every question × every place × whatever is cached: what each is told, and that a refusal is the same whatever is cached.

use std::collections::HashMap;

use super::ground::{APP, LAYER_BYTES, PASSWORD, Shown, registry};
use crate::harness::{Answer, Cachalot, More};
use crate::registry::{Fault, KIB, Match, Published, Registry};

const OTHER: &str = "team/other";

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Who {
    /// May read the private repository, here and at the other upstream.
    Owner,
    /// A valid account that may read another repository of the same upstream.
    Other,
    Anonymous,
    /// The owner's name, and a wrong password.
    WrongPassword,
    /// A token that nobody issued.
    WrongToken,
    /// A scheme that is neither.
    WrongScheme,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Place {
    Right,
    OtherRepository,
    /// It is for callers as well, and does not have the content.
    OtherUpstream,
    /// The same registry, shared, without an account of ours.
    Shared,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Ask {
    Tag,
    Digest,
    HeadTag,
    HeadDigest,
    TagIfNoneMatch,
    DigestIfNoneMatch,
    Blob,
    HeadBlob,
    BlobIfNoneMatch,
    Range,
    RangeBeyond,
    MultiRange,
    Tags,
    NoTags,
    Referrers,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum State {
    Cold,
    InFlight,
    Warm,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expected {
    /// What was asked for.
    Content,
    /// A list, with nothing of the private repository in it.
    OtherList,
    NotFound,
    Unauthorized,
    Denied,
}

const ALL_WHO: [Who; 6] =
    [Who::Anonymous, Who::WrongScheme, Who::WrongToken, Who::WrongPassword, Who::Other, Who::Owner];
const ALL_PLACES: [Place; 4] = [Place::Shared, Place::OtherUpstream, Place::OtherRepository, Place::Right];
const ALL_ASKS: [Ask; 15] = [
    Ask::Tag,
    Ask::Digest,
    Ask::HeadTag,
    Ask::HeadDigest,
    Ask::TagIfNoneMatch,
    Ask::DigestIfNoneMatch,
    Ask::HeadBlob,
    Ask::Blob,
    Ask::BlobIfNoneMatch,
    Ask::Range,
    Ask::RangeBeyond,
    Ask::MultiRange,
    Ask::Tags,
    Ask::NoTags,
    Ask::Referrers,
];

/// What the requirements say (S-1…S-4, P-104): nothing here knows how it is done.
fn expected(who: Who, place: Place, ask: Ask) -> Expected {
    match (place, who) {
        // Whatever a caller shows is nothing to an upstream that is shared: it is asked in our name, which may read nothing there.
        (Place::Shared, _) => Expected::Denied,
        (_, Who::Anonymous | Who::WrongScheme) => Expected::Unauthorized,
        (Place::Right, Who::Owner) => Expected::Content,
        (Place::OtherRepository, Who::Other) if matches!(ask, Ask::Tags | Ask::NoTags | Ask::Referrers) => {
            Expected::OtherList
        }
        (Place::OtherUpstream, Who::Owner) | (Place::OtherRepository, Who::Other) => Expected::NotFound,
        (_, Who::Owner | Who::Other | Who::WrongPassword | Who::WrongToken) => Expected::Denied,
    }
}

/// A registry, another one that has nothing, a Cachalot before both, and what is private.
struct Ground {
    registry: Registry,
    elsewhere: Registry,
    cachalot: Cachalot,
    image: Published,
    /// How often somebody has come: each time by an account of its own, so that nothing is remembered of it.
    came: std::cell::Cell<usize>,
}

impl Ground {
    async fn new(by_token: bool) -> Self {
        let (registry, image) = registry(by_token).await;
        registry.image(OTHER, "2", &crate::registry::Image::new());
        let elsewhere = Registry::start().await;
        elsewhere.require_account(by_token);
        let sections = format!(
            "[[upstream]]\nname = \"elsewhere.test\"\nendpoints = [\"{}\"]\nproxy = \"none\"\naccess = \"caller\"",
            elsewhere.url()
        );
        let more = More { upstream: super::ground::CALLER, sections: &sections, ..More::default() };
        let cachalot = Cachalot::configured(&registry, more).await;
        Self { registry, elsewhere, cachalot, image, came: std::cell::Cell::new(0) }
    }

    fn shown(&self, who: Who) -> Shown {
        let number = self.came.get();
        self.came.set(number + 1);
        let account = |name: &str, here: &str, there: &[&str]| {
            let username = format!("{name}-{number}");
            self.registry.let_in(&username, PASSWORD, &[here]);
            self.elsewhere.let_in(&username, PASSWORD, there);
            Shown::user(&username)
        };
        match who {
            Who::Anonymous => Shown::nothing(),
            Who::Owner => account("owner", APP, &[APP]),
            Who::Other => account("other", OTHER, &[]),
            Who::WrongPassword => {
                account("owner", APP, &[APP]);
                Shown::account(&format!("owner-{number}"), "battery staple")
            }
            Who::WrongToken => Shown(Some(format!("Bearer made-up-{number}"))),
            Who::WrongScheme => Shown(Some("Digest username=\"owner\"".to_owned())),
        }
    }

    async fn ask(&self, who: Who, place: Place, ask: Ask, is_in_flight: bool) -> Answer {
        let (repository, ns) = match place {
            Place::Right => (APP, "registry.test"),
            Place::OtherRepository => (OTHER, "registry.test"),
            Place::OtherUpstream => (APP, "elsewhere.test"),
            Place::Shared => (APP, "docker.io"),
        };
        let (manifest, blob) = (self.image.digest, self.image.layer(0));
        let method = if matches!(ask, Ask::HeadTag | Ask::HeadDigest | Ask::HeadBlob) { "HEAD" } else { "GET" };
        let path = match ask {
            Ask::Tag | Ask::HeadTag | Ask::TagIfNoneMatch => "manifests/1".to_owned(),
            Ask::Digest | Ask::HeadDigest | Ask::DigestIfNoneMatch => format!("manifests/{manifest}"),
            Ask::Tags | Ask::NoTags => "tags/list".to_owned(),
            Ask::Referrers => format!("referrers/{manifest}"),
            _ => format!("blobs/{blob}"),
        };
        let query = if ask == Ask::NoTags { format!("n=0&ns={ns}") } else { format!("ns={ns}") };
        let etag = format!("\"{}\"", if ask == Ask::BlobIfNoneMatch { blob } else { manifest });
        let beyond = format!("bytes={LAYER_BYTES}-");
        let header = match ask {
            Ask::TagIfNoneMatch | Ask::DigestIfNoneMatch | Ask::BlobIfNoneMatch => {
                Some(("if-none-match", etag.as_str()))
            }
            Ask::Range => Some(("range", "bytes=1000-1999")),
            Ask::RangeBeyond => Some(("range", beyond.as_str())),
            Ask::MultiRange => Some(("range", "bytes=0-9,5000-5009")),
            _ => None,
        };
        let more: Vec<_> = header.into_iter().collect();
        let shown = self.shown(who);
        let path = format!("/v2/{repository}/{path}?{query}");
        let answer = self.cachalot.open(method, &path, &shown.headers(&more)).await;
        if is_in_flight && answer.status.is_success() {
            // Its bytes come when the upstream goes on; that they are right is seen in the other states.
            return Answer {
                status: answer.status.as_u16(),
                headers: answer.headers.clone(),
                body: bytes::Bytes::new(),
                is_complete: true,
            };
        }
        answer.finish().await
    }

    fn check_content(&self, ask: Ask, state: State, answer: &Answer, row: &str) {
        let expected_status = match ask {
            Ask::TagIfNoneMatch | Ask::DigestIfNoneMatch | Ask::BlobIfNoneMatch => 304,
            Ask::Range | Ask::MultiRange => 206,
            Ask::RangeBeyond => 416,
            _ => 200,
        };
        assert_eq!(answer.status, expected_status, "{row}: {answer:?}");
        if state == State::InFlight {
            return;
        }
        assert!(answer.is_complete, "{row}");
        match ask {
            Ask::Tag | Ask::Digest => assert_eq!(answer.body, self.image.bytes, "{row}"),
            Ask::Blob => assert!(answer.body == self.image.layers[0].bytes(), "{row}"),
            Ask::Range => assert_eq!(answer.body, self.image.layers[0].read(1000, 1000), "{row}"),
            Ask::Tags => assert!(String::from_utf8_lossy(&answer.body).contains("\"1\""), "{row}"),
            _ => {}
        }
    }

    /// Checks that an answer holds nothing of the private repository: no digest, no length, no tag.
    fn check_silence(&self, answer: &Answer, row: &str) {
        for name in ["etag", "docker-content-digest", "content-range", "accept-ranges", "link", "warning", "age"] {
            assert!(answer.headers.get(name).is_none(), "{row}: {name}: {answer:?}");
        }
        let text = format!("{:?} {}", answer.headers, String::from_utf8_lossy(&answer.body));
        let digests = [self.image.digest, self.image.layer(0), self.image.config.digest()];
        for secret in digests.iter().map(ToString::to_string).chain([LAYER_BYTES.to_string(), PASSWORD.to_owned()]) {
            assert!(!text.contains(&secret), "{row}: it tells {secret}: {text}");
        }
        assert!(!text.contains("cachalot; hit") || text.contains("detail=negative"), "{row}: {text}");
        assert!(!text.contains("stale"), "{row}: {text}");
    }

    fn check(&self, who: Who, place: Place, ask: Ask, state: State, answer: &Answer) {
        let row = format!("{who:?} {place:?} {ask:?} {state:?}");
        let (status, code) = match expected(who, place, ask) {
            Expected::Content => return self.check_content(ask, state, answer, &row),
            Expected::OtherList => {
                assert_eq!(answer.status, 200, "{row}: {answer:?}");
                let text = String::from_utf8_lossy(&answer.body).into_owned();
                assert!(!text.contains("\"1\"") && !text.contains("sha256:"), "{row}: {text}");
                return;
            }
            Expected::NotFound => (404, None),
            Expected::Unauthorized => (401, Some("UNAUTHORIZED")),
            Expected::Denied => (403, Some("DENIED")),
        };
        assert_eq!(answer.status, status, "{row}: {answer:?}");
        assert_eq!(answer.header("www-authenticate").starts_with("Basic "), status == 401, "{row}: {answer:?}");
        if let (Some(code), false) = (code, answer.body.is_empty()) {
            assert_eq!(answer.error_code(), code, "{row}");
        }
        self.check_silence(answer, &row);
    }
}

/// What must not depend on what is cached.
fn told(answer: &Answer) -> (u16, Vec<(String, String)>, Vec<u8>) {
    let mut headers: Vec<_> = answer
        .headers
        .iter()
        .filter(|(name, _)| !["date", "x-request-id"].contains(&name.as_str()))
        .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
        .collect();
    headers.sort();
    (answer.status, headers, answer.body.to_vec())
}

async fn everybody_asks_everything(by_token: bool) {
    let ground = Ground::new(by_token).await;
    let blob = ground.image.layer(0);
    let mut refusals = HashMap::new();
    let mut in_flight = None;
    for state in [State::Cold, State::InFlight, State::Warm] {
        if state == State::InFlight {
            ground.registry.fault(Match::blob(&blob).get(), Fault::StallAfter(64 * KIB));
            let owner = ground.shown(Who::Owner);
            in_flight = Some(super::ground::open(&ground.cachalot, &owner, &format!("/v2/{APP}/blobs/{blob}")).await);
        }
        for who in ALL_WHO {
            // Whoever may read makes it warm.
            if who == Who::Owner && state == State::Cold {
                continue;
            }
            for place in ALL_PLACES {
                for ask in ALL_ASKS {
                    let answer = ground.ask(who, place, ask, state == State::InFlight).await;
                    ground.check(who, place, ask, state, &answer);
                    let is_told = matches!(expected(who, place, ask), Expected::Content | Expected::OtherList);
                    if is_told || place == Place::Shared {
                        continue;
                    }
                    let told = told(&answer);
                    let before = refusals.entry((who, place, ask)).or_insert_with(|| told.clone());
                    assert_eq!(*before, told, "{who:?} {place:?} {ask:?}: {state:?} is told apart");
                }
            }
        }
        if let Some(answer) = in_flight.take() {
            ground.registry.release();
            assert!(answer.finish().await.body == ground.image.layers[0].bytes());
        }
    }
    let gets = ground.registry.gets(&format!("{APP}/blobs/{blob}"));
    let given: Vec<_> = gets.iter().filter(|get| get.status.is_some_and(|status| status < 300)).collect();
    let bytes = super::ground::blob_bytes(&ground.registry);
    assert_eq!((given.len(), bytes), (1, LAYER_BYTES), "one byte, one fetch: {given:#?}");
    // Whoever was refused brought nothing here: what the registry gave, it gave to owners.
    for request in ground.registry.requests().iter().filter(|request| request.path.contains(APP)) {
        if request.status.is_some_and(|status| status < 300) {
            let account = ground.registry.account_of(request).unwrap_or_default();
            let is_owner = (0..ground.came.get())
                .any(|number| Shown::user(&format!("owner-{number}")).0.as_deref() == Some(account.as_str()));
            assert!(is_owner, "{request:?}");
        }
    }
    ground.cachalot.finish().await;
}

#[tokio::test]
async fn accounts_are_shown_to_the_registry() {
    everybody_asks_everything(false).await;
}

#[tokio::test]
async fn accounts_are_shown_to_its_token_service() {
    everybody_asks_everything(true).await;
}
