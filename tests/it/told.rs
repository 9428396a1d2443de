//! What a failure is to the client, and what it is in the log: addresses, hosts and files are for whoever runs the cache.

use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::harness::{Answer, Cachalot, More};
use crate::registry::{Fault, Image, Match, Registry};

/// Lines of the log of one test.
#[derive(Debug, Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Lines {
    /// Returns the line of the request that the answer names; it is written when its client has the answer.
    async fn of(&self, answer: &Answer) -> String {
        let body = String::from_utf8_lossy(&answer.body).into_owned();
        let id = body.split("(request ").nth(1).and_then(|rest| rest.split(')').next()).unwrap_or_default();
        assert!(!id.is_empty(), "no request in {body}");
        let found = async {
            loop {
                let text = String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned();
                if let Some(line) = text.lines().find(|line| line.contains(&format!("request.id={id}"))) {
                    return line.to_owned();
                }
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), found).await.unwrap_or_else(|_| panic!("no line for {body}"))
    }
}

#[tokio::test]
async fn a_client_is_told_what_kind_of_failure_it_is_and_the_log_where() {
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt().with_writer(move || writer.clone()).with_ansi(false).finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    // While there is one dispatcher only, what a line is worth is asked of the thread that comes to it first, and other tests have none.
    let _other = tracing::Dispatch::new(tracing::subscriber::NoSubscriber::default());
    let path = "/v2/app/manifests/1";
    for access in ["true", "false"] {
        for (what, upstream, told, logged) in [
            ("down", "", "registry.test: cannot connect to the upstream (request", "cannot connect to 127.0.0.1:"),
            ("inside", "internal = false", "an address that is not dialled (request", "127.0.0.1 is this machine"),
            ("no TLS", "", "registry.test: TLS with the upstream failed (request", "TLS with 127.0.0.1:"),
            (
                "no account",
                "credential_helper = \"no-such-helper\"",
                "authentication failed: no account to ask with (request",
                "docker-credential-no-such-helper",
            ),
            ("misled", "", "an address that is not dialled (request", "169.254.169.254"),
        ] {
            let registry = Registry::start().await;
            registry.image("app", "1", &Image::new());
            let address = registry.host();
            let sections = format!("[log]\naccess = {access}\n");
            let more = More { upstream, sections: &sections, ..More::default() };
            let scheme = if what == "no TLS" { "https:" } else { "http:" };
            let cachalot = Cachalot::over_endpoints(&[registry.url().replace("http:", scheme)], more).await;
            match what {
                "down" => registry.stop().await,
                "no account" => registry.require_basic("a", "b"),
                "misled" => {
                    registry
                        .fault(Match::any(), Fault::RedirectExactly("http://169.254.169.254/x".to_owned()))
                        .always();
                }
                _ => {}
            }
            let answer = cachalot.get(path).await;
            let body = String::from_utf8_lossy(&answer.body).into_owned();
            assert_eq!(answer.status, 502, "P-105: {what}: {body}");
            assert!(body.contains(told), "P-102: {what}: {body}");
            assert!(
                !body.contains(&address) && !body.contains("127.0.0.1") && !body.contains("169.254"),
                "{what}: {body}"
            );
            let line = lines.of(&answer).await;
            assert!(line.contains(logged), "{what}: {line}");
            registry.clear_faults();
            cachalot.finish().await;
        }
    }
}
