//! No secret is told: not in logs of any level, not in answers, metrics, or the configuration that holds.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};

use super::ground::{ALICE, CI, Ground, basic};

/// What must not be found anywhere.
const SECRETS: [&str; 5] = [CI, "key-key-key-key-key", "$2y$05$", "wrong-password", "their-password"];

fn ask(address: &str, method: &str, path: &str, authorization: &str, body: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    let length = body.len();
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: x\r\nAuthorization: {authorization}\r\nContent-Length: {length}\r\n\
         Connection: close\r\n\r\n{body}"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_is_shown_here_is_told_anywhere() {
    let ground = Ground::new().await;
    ground.write("htpasswd", ALICE);
    ground.write("key", &"key-".repeat(12));
    let store = tempfile::tempdir().unwrap();
    let sections = ground.sections(&format!("token_key_file = {:?}\nanonymous = true", ground.path("key")), "");
    let more = crate::harness::More {
        server: "public_url = \"https://cache.test\"",
        upstream: "push = true",
        sections: &sections,
        ..crate::harness::More::default()
    };
    let file = store.path().join("cachalot.toml");
    let text = crate::harness::configuration(store.path(), &ground.registry.url(), more);
    std::fs::write(&file, format!("{text}\n[log]\nlevel = \"trace\"\n")).unwrap();
    let (told, tokens) = tokio::task::spawn_blocking(move || exercise(&file)).await.unwrap();
    let encoded = basic("alice", "secret").replace("Basic ", "");
    for secret in SECRETS.into_iter().chain([encoded.as_str()]).chain(tokens.iter().map(String::as_str)) {
        for (place, text) in &told {
            // A token is in the answer that gives it.
            let is_given = *place == "answers" && tokens.iter().any(|token| token == secret);
            assert!(is_given || !text.contains(secret), "S-40, S-43: {secret} is in the {place}");
        }
    }
}

/// Runs a server, shows it secrets, and returns what is told where.
fn exercise(file: &std::path::Path) -> (Vec<(&'static str, String)>, Vec<String>) {
    let cachalot = || Command::new(env!("CARGO_BIN_EXE_cachalot"));
    let printed = cachalot().arg("check-config").arg(file).arg("--print").env_clear().output().unwrap();
    assert!(printed.status.success(), "{}", String::from_utf8_lossy(&printed.stderr));
    let log = file.with_file_name("log");
    let mut child = cachalot()
        .args(["serve", "--config"])
        .arg(file)
        .env_clear()
        .stderr(Stdio::from(std::fs::File::create(&log).unwrap()))
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let address = |words: &str| loop {
        let text = std::fs::read_to_string(&log).unwrap();
        let line = text.lines().find(|line| line.contains(words)).map(str::to_owned);
        if let Some(line) = line {
            break line.split("address=").nth(1).unwrap().split_whitespace().next().unwrap().to_owned();
        }
        assert!(child_runs(&log), "{text}");
        std::thread::yield_now();
    };
    let (data, admin) = (address(": serving "), address("admin: /metrics"));
    let mut answers = String::new();
    let bearer = format!("Bearer {CI}");
    let mut tokens = Vec::new();
    for shown in [basic("alice", "secret"), basic("ci", CI), basic("me", "their-password")] {
        let given = ask(&data, "GET", "/token?scope=repository:app:pull,push", &shown, "");
        let token = given.split("\"token\":\"").nth(1).unwrap().split('"').next().unwrap().to_owned();
        tokens.push(token);
        answers.push_str(&given);
    }
    let shown = [basic("alice", "secret"), basic("alice", "wrong-password"), bearer, basic("me", "their-password")];
    let bearers: Vec<String> = tokens.iter().map(|token| format!("Bearer {token}")).collect();
    for shown in shown.iter().chain(&bearers) {
        for (method, path) in [("GET", "/v2/"), ("GET", "/v2/app/manifests/1"), ("POST", "/v2/app/blobs/uploads/")] {
            answers.push_str(&ask(&data, method, path, shown, ""));
        }
    }
    let form = "grant_type=password&username=alice&password=wrong-password";
    answers.push_str(&ask(&data, "POST", "/token", "", form));
    let metrics = ask(&admin, "GET", "/metrics", "", "");
    assert!(metrics.contains("client_auth_failures_total{reason=\"password\"}"), "{metrics}");
    child.kill().unwrap();
    child.wait().unwrap();
    let log = std::fs::read_to_string(&log).unwrap();
    assert!(log.contains("principal=\"user:alice\"") && log.contains("TRACE"), "{log:.2000}");
    let printed = String::from_utf8(printed.stdout).unwrap();
    let told = vec![("log", log), ("answers", answers), ("metrics", metrics), ("effective configuration", printed)];
    (told, tokens)
}

/// The log of a server that could not start says so.
fn child_runs(log: &std::path::Path) -> bool {
    !std::fs::read_to_string(log).unwrap().contains("cachalot: ")
}
