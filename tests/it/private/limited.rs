//! Callers whose account the upstream limits: a 429 to one is none to the others, and none to us (P-106).

use super::ground::{APP, LAYER_BYTES, PASSWORD, Shown, blob_bytes, cachalot, get, open, registry, status};
use crate::harness::Cachalot;
use crate::registry::{Fault, KIB, Match, Registry};

const LIMITED: Fault = Fault::RateLimited { retry_after: Some("3600") };

/// Returns how many requests for content came by this account.
fn asked_by(registry: &Registry, shown: &Shown) -> usize {
    let by_account = |request: &_| registry.account_of(request) == shown.0;
    registry.requests().all(APP).iter().filter(|request| by_account(request)).count()
}

#[tokio::test]
async fn one_caller_who_asked_too_much_waits_alone() {
    for by_token in [false, true] {
        let (registry, image) = registry(by_token).await;
        for name in ["busy", "calm"] {
            registry.let_in(name, PASSWORD, &[APP]);
        }
        let cachalot = cachalot(&registry, "access_ttl = \"0s\"\ntag_ttl = \"0s\"").await;
        let (busy, calm) = (Shown::user("busy"), Shown::user("calm"));
        registry.fault(Match::path(APP), LIMITED);
        let paths = [
            format!("/v2/{APP}/manifests/1"),
            format!("/v2/{APP}/blobs/{}", image.layer(0)),
            format!("/v2/{APP}/tags/list"),
        ];
        let told = get(&cachalot, &busy, &paths[0]).await;
        assert_eq!((told.status, told.error_code().as_str()), (503, "UNAVAILABLE"));
        let seconds: u64 = told.header("retry-after").parse().unwrap();
        assert!((3590..=3600).contains(&seconds), "{seconds}");
        let asked = asked_by(&registry, &busy);
        for path in &paths {
            assert_eq!(status(&cachalot, &calm, path).await, 200, "{path}");
            assert_eq!(status(&cachalot, &busy, path).await, 503, "{path}");
        }
        assert_eq!(asked_by(&registry, &busy), asked, "it is not asked in that name until the time is over");
        assert_eq!(blob_bytes(&registry), LAYER_BYTES);
        cachalot.finish().await;
    }
}

/// Waits until so many questions of this kind are being answered here.
async fn in_flight(cachalot: &Cachalot, handler: &str, count: u64) {
    while cachalot.metric(&format!(r#"cachalot_http_requests_in_flight{{handler="{handler}"}}"#)) < count {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn who_joined_the_question_of_somebody_limited_asks_it_in_its_own_name() {
    for (part, handler) in [("manifests", "manifests"), ("blobs", "blobs")] {
        let (registry, image) = registry(true).await;
        let path = match part {
            "manifests" => format!("/v2/{APP}/manifests/1"),
            _ => format!("/v2/{APP}/blobs/{}", image.layer(0)),
        };
        let names = ["leader", "follower"];
        for name in names {
            registry.let_in(name, PASSWORD, &[APP]);
        }
        let cachalot = cachalot(&registry, "access_ttl = \"1h\"\ntag_ttl = \"0s\"\nstale_wait = \"10s\"").await;
        let [leader, follower] = names.map(Shown::user);
        for shown in [&leader, &follower] {
            assert_eq!(status(&cachalot, shown, &format!("/v2/{APP}/tags/list")).await, 200);
        }
        // The connection breaks while it is asked in the leader's name; asked again, it is limited.
        registry.fault(Match::path(&path), Fault::Hold);
        registry.fault(Match::path(&path), LIMITED);
        let leads = get(&cachalot, &leader, &path);
        let follows = async {
            registry.wait_for(|log| log.held() == 1).await;
            get(&cachalot, &follower, &path).await
        };
        let driver = async {
            in_flight(&cachalot, handler, 2).await;
            registry.stop().await;
            registry.restart().await;
        };
        let (led, followed, ()) = tokio::join!(leads, follows, driver);
        assert_eq!((led.status, followed.status), (503, 200), "{path}: {led:?}");
        assert!(followed.is_complete);
        cachalot.finish().await;
    }
}

#[tokio::test]
async fn a_fill_whose_leader_is_limited_in_the_middle_goes_on_in_the_name_of_another() {
    let (registry, image) = registry(true).await;
    for name in ["first", "second"] {
        registry.let_in(name, PASSWORD, &[APP]);
    }
    let blob = image.layer(0);
    registry.fault(Match::blob(&blob).get(), Fault::StallAfter(64 * KIB));
    registry.fault(Match::blob(&blob).get(), LIMITED);
    // A yes that holds: the second is let in without a question that the fault would meet.
    let cachalot = cachalot(&registry, "access_ttl = \"1h\"").await;
    let path = format!("/v2/{APP}/blobs/{blob}");
    let mut readers = Vec::new();
    for name in ["first", "second"] {
        assert_eq!(status(&cachalot, &Shown::user(name), &format!("/v2/{APP}/tags/list")).await, 200);
        let mut reader = open(&cachalot, &Shown::user(name), &path).await;
        assert_eq!(reader.read(1000).await.unwrap(), image.layers[0].read(0, 1000));
        readers.push(reader);
    }
    registry.stop().await;
    registry.restart().await;
    for reader in readers {
        let rest = reader.finish().await;
        assert!(rest.is_complete && rest.body == image.layers[0].read(1000, LAYER_BYTES - 1000));
    }
    let gets = registry.gets("/blobs/");
    let accounts: Vec<_> = gets.iter().map(|get| (registry.account_of(get), get.status)).collect();
    let by = |name: &str, status| (Shown::user(name).0, Some(status));
    assert_eq!(accounts[accounts.len() - 2..], [by("first", 429), by("second", 206)], "{accounts:?}");
    assert_eq!(blob_bytes(&registry), LAYER_BYTES, "one byte, one fetch");
    cachalot.finish().await;
}
