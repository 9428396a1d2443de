//! Files that change and helpers that come and go, without a network.

use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use super::*;

/// A directory with what a source reads and runs.
struct Ground(tempfile::TempDir);

impl Ground {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Puts a file in place of the one there, as tools that rotate secrets do.
    fn replace(&self, name: &str, content: &str) {
        std::fs::write(self.path("new"), content).unwrap();
        std::fs::rename(self.path("new"), self.path(name)).unwrap();
    }

    /// Writes `docker-credential-test`, which notes each run, and what it was told, before it does what `script` says.
    fn helper(&self, script: &str) {
        let log = self.path("runs");
        let script = format!("#!/bin/sh\n{{ printf '%s ' \"$1\"; cat; echo; }} >> '{}'\n{script}\n", log.display());
        write_program(&self.path("docker-credential-test"), &script);
    }

    fn runs(&self) -> Vec<String> {
        let runs = std::fs::read_to_string(self.path("runs")).unwrap_or_default();
        runs.lines().map(str::to_owned).collect()
    }

    fn source(&self, credentials: Credentials) -> Source {
        let mut options = Options::new("reg.test".parse().unwrap(), endpoint());
        options.credentials = Some(credentials);
        options.helper_directories = Some(vec![self.path("absent"), self.0.path().to_path_buf()]);
        Source::new(&options).unwrap()
    }

    fn password_file(&self) -> Source {
        self.source(Credentials::PasswordFile { username: "u".to_owned(), path: self.path("password") })
    }

    fn helper_source(&self) -> Source {
        self.source(Credentials::Helper("test".parse().unwrap()))
    }
}

/// Writes a program by another process: one of ours that forks meanwhile would hold it open for writing, and it could not be run.
fn write_program(path: &Path, script: &str) {
    let mut shell = Command::new("/bin/sh")
        .args(["-c", r#"cat > "$0" && chmod 755 "$0""#])
        .arg(path)
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    shell.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
    assert!(shell.wait().unwrap().success());
}

fn user(username: &str, password: &str) -> Account {
    Account::Password { username: username.to_owned(), password: Secret::new(password) }
}

fn endpoint() -> Url {
    Url::parse("https://reg.test:5000/prefix").unwrap()
}

fn repository() -> RepositoryName {
    "team/app".parse().unwrap()
}

/// Asks at the upstream's own registry.
fn at<'a>(endpoint: &'a Url, repository: &'a RepositoryName) -> Asker<'a> {
    Asker { endpoint, is_at_home: true, repository }
}

async fn account(source: &Source) -> Option<Account> {
    let account = source.account(at(&endpoint(), &repository())).await.unwrap_or_else(|error| panic!("{error}"));
    account.map(|account| Account::clone(&account))
}

async fn renewed(source: &Source, refused: &Account) -> Option<Account> {
    let account =
        source.renewed(at(&endpoint(), &repository()), refused).await.unwrap_or_else(|error| panic!("{error}"));
    account.map(|account| Account::clone(&account))
}

const ACCOUNT: &str = r#"echo '{"ServerURL":"reg.test:5000","Username":"AWS","Secret":"one"}'"#;
const NEXT_ACCOUNT: &str = r#"echo '{"ServerURL":"reg.test:5000","Username":"AWS","Secret":"two"}'"#;

#[tokio::test(start_paused = true)]
async fn a_replaced_password_file_is_seen_within_seconds_and_a_lost_one_is_not_missed() {
    let ground = Ground::new();
    ground.replace("password", "one\r\n");
    let source = ground.password_file();
    assert_eq!(account(&source).await, Some(user("u", "one")));

    ground.replace("password", "two");
    assert_eq!(account(&source).await, Some(user("u", "one")), "P-174: no look at the file for each question");
    tokio::time::advance(Duration::from_secs(2)).await;
    assert_eq!(account(&source).await, Some(user("u", "two")), "P-174");

    for spoil in [|path: &Path| std::fs::write(path, "\n").unwrap(), |path: &Path| std::fs::remove_file(path).unwrap()]
    {
        spoil(&ground.path("password"));
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(account(&source).await, Some(user("u", "two")), "P-174: the last good one goes on");
    }
    ground.replace("password", "three");
    tokio::time::advance(Duration::from_secs(2)).await;
    assert_eq!(account(&source).await, Some(user("u", "three")), "P-174");
}

#[tokio::test]
async fn a_refused_password_is_looked_for_again_at_once() {
    let ground = Ground::new();
    ground.replace("password", "one");
    let source = ground.password_file();
    assert_eq!(renewed(&source, &user("u", "one")).await, None, "U-22: the same is no reason to ask again");
    ground.replace("password", "two");
    assert_eq!(renewed(&source, &user("u", "one")).await, Some(user("u", "two")), "U-22");
}

#[tokio::test]
async fn a_file_that_was_never_good_is_an_error_that_says_what_to_do() {
    let ground = Ground::new();
    let source = ground.password_file();
    let error = source.account(at(&endpoint(), &repository())).await.unwrap_err();
    assert_eq!(error.to_string(), format!("cannot read {}", ground.path("password").display()));
    ground.replace("password", "one");
    assert_eq!(renewed(&source, &user("u", "zero")).await, Some(user("u", "one")));
}

#[tokio::test]
async fn a_docker_config_gives_each_repository_its_account() {
    let ground = Ground::new();
    ground.helper(ACCOUNT);
    let write = |text: &str| ground.replace("config.json", text);
    write(
        r#"{"auths":{"reg.test":{"username":"u","password":"p"},"reg.test:5000/team":{"username":"t","password":"p"}}}"#,
    );
    let source = ground.source(Credentials::DockerConfig { path: ground.path("config.json") });
    assert_eq!(account(&source).await, Some(user("t", "p")), "P-174: host/path");
    let other = source.account(at(&endpoint(), &"other/app".parse().unwrap())).await.unwrap();
    assert_eq!(other.as_deref(), Some(&user("u", "p")), "P-174: the host alone");
    assert!(ground.runs().is_empty());

    write(r#"{"credsStore":"test"}"#);
    assert_eq!(renewed(&source, &user("t", "p")).await, Some(user("AWS", "one")), "P-174: credsStore");
    assert_eq!(ground.runs(), ["get reg.test:5000"]);
    write("{");
    assert_eq!(renewed(&source, &user("t", "p")).await, Some(user("AWS", "one")), "P-174: the last good file goes on");
    write("{}");
    assert_eq!(renewed(&source, &user("t", "p")).await, None, "an account that was taken out is not used");
}

#[tokio::test]
async fn a_herd_runs_one_helper_and_a_refusal_runs_it_once_more() {
    let ground = Ground::new();
    ground.helper(ACCOUNT);
    let source = ground.helper_source();
    let herd = futures_util::future::join_all((0..20).map(|_| account(&source))).await;
    assert!(herd.iter().all(|account| *account == Some(user("AWS", "one"))));
    assert_eq!(ground.runs(), ["get reg.test:5000"], "P-169");

    ground.helper(NEXT_ACCOUNT);
    let one = user("AWS", "one");
    let herd = futures_util::future::join_all((0..20).map(|_| renewed(&source, &one))).await;
    assert!(herd.iter().all(|account| *account == Some(user("AWS", "two"))), "U-22");
    assert_eq!(ground.runs().len(), 2, "U-22: asked again once");

    // Whoever is refused with the newest asks once; it is the same, and nobody asks again for a while.
    for _ in 0..3 {
        assert_eq!(renewed(&source, &user("AWS", "two")).await, None);
    }
    assert_eq!(ground.runs().len(), 3, "U-22: a wrong account does not run a helper for every question");
}

#[tokio::test]
async fn a_helper_that_fails_later_leaves_the_last_good_account() {
    let ground = Ground::new();
    ground.helper(ACCOUNT);
    let source = ground.helper_source();
    assert_eq!(account(&source).await, Some(user("AWS", "one")));
    ground.helper("echo expired >&2; exit 1");
    assert_eq!(renewed(&source, &user("AWS", "one")).await, None);
    assert_eq!(account(&source).await, Some(user("AWS", "one")), "U-47");
}

#[tokio::test]
async fn every_way_of_a_helper_to_fail_is_told_without_secrets() {
    for (script, told) in [
        ("echo 'no session' >&2; exit 3", "failed with exit status: 3: no session"),
        ("echo '{\"Secret\":\"hunter2\"'; exit 1", "failed with exit status: 1: it says nothing"),
        ("echo hunter2", "answered something other than an account"),
        ("head -c 100000 /dev/zero", "answered more than 65536 bytes"),
        ("kill -9 $$", "failed with signal: 9 (SIGKILL): it says nothing"),
    ] {
        let ground = Ground::new();
        ground.helper(script);
        let error = ground.helper_source().account(at(&endpoint(), &repository())).await.unwrap_err();
        let try_it = "try it as this user: echo reg.test:5000 | docker-credential-test get";
        assert_eq!(error.to_string(), format!("docker-credential-test {told}; {try_it}"), "{script}");
        assert!(!format!("{error:?}").contains("hunter2"), "S-43: {error:?}");
    }
    let error = Ground::new().helper_source().account(at(&endpoint(), &repository())).await.unwrap_err();
    assert!(error.to_string().contains("cannot be started (No such file or directory"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_helper_that_hangs_is_given_up() {
    let ground = Ground::new();
    ground.helper("sleep 1000");
    // The paused clock jumps to the end of the limit while the helper sleeps.
    let error = ground.helper_source().account(at(&endpoint(), &repository())).await.unwrap_err();
    assert!(error.to_string().starts_with("docker-credential-test did not answer within 10s;"), "P-174: {error}");
}

#[tokio::test]
async fn a_helper_that_knows_no_account_leaves_us_anonymous() {
    for script in [
        "echo credentials not found in native keychain; exit 1",
        "echo 'error: credentials not found in native keychain' >&2; exit 1",
        r#"echo '{"Username":"","Secret":""}'"#,
    ] {
        let ground = Ground::new();
        ground.helper(script);
        assert_eq!(account(&ground.helper_source()).await, None, "{script}");
    }
}

#[tokio::test]
async fn a_helper_is_killed_with_its_children_when_nobody_waits_for_it() {
    let ground = Ground::new();
    let fifo = ground.path("fifo");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    ground.helper(&format!("exec 9> '{}'; echo >&9; sleep 1000 & wait", fifo.display()));
    let (started, starts) = tokio::sync::oneshot::channel();
    let watch = tokio::task::spawn_blocking(move || {
        let mut fifo = std::fs::File::open(fifo).unwrap();
        fifo.read_exact(&mut [0]).unwrap();
        started.send(()).unwrap();
        // It ends when nobody holds the other end: the helper is dead, and what it started.
        fifo.read_to_end(&mut Vec::new()).unwrap();
    });
    let source = ground.helper_source();
    let (place, asker) = (endpoint(), repository());
    tokio::select! {
        answer = source.account(at(&place, &asker)) => panic!("it never answers: {answer:?}"),
        started = starts => started.unwrap(),
    }
    let dead = tokio::time::timeout(Duration::from_secs(30), watch).await;
    dead.expect("the helper and its child outlive the question").unwrap();
}

#[tokio::test]
async fn a_helper_that_complains_at_length_is_listened_to() {
    let ground = Ground::new();
    ground.helper(&format!("head -c 200000 /dev/zero >&2 || exit 1; {ACCOUNT}"));
    assert_eq!(account(&ground.helper_source()).await, Some(user("AWS", "one")));
}

#[tokio::test]
async fn what_a_helper_leaves_behind_is_killed_when_it_keeps_the_answer_open() {
    let ground = Ground::new();
    let fifo = ground.path("fifo");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    // The helper ends at once; its child holds our pipes.
    ground.helper(&format!("exec 9> '{}'; sleep 60 & exit 0", fifo.display()));
    let watch = tokio::task::spawn_blocking(move || {
        std::fs::File::open(fifo).unwrap().read_to_end(&mut Vec::new()).unwrap();
    });
    let source = ground.helper_source();
    let (place, asker) = (endpoint(), repository());
    let given_up = tokio::time::timeout(Duration::from_secs(1), source.account(at(&place, &asker))).await;
    assert!(given_up.is_err(), "{given_up:?}");
    let dead = tokio::time::timeout(Duration::from_secs(30), watch).await;
    dead.expect("the child of the helper outlives the question").unwrap();
}

/// Takes what is logged.
#[derive(Clone, Default)]
struct Log(Arc<std::sync::Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_source_that_breaks_is_told_once_for_each_change_and_without_secrets() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt().with_writer(move || writer.clone()).with_ansi(false).finish();
    // With one dispatcher alone, a place that logs is judged by whichever thread comes to it first, and that may be another test's.
    let _second = tracing::Dispatch::new(tracing_subscriber::registry());
    let _guard = tracing::subscriber::set_default(subscriber);
    let ground = Ground::new();
    let broken = [r#"{"auths":{"reg.test":{"auth":"hunter2"}}}"#, r#"{"auths":{"reg.test":"hunter2"}}"#];
    ground.replace("config.json", r#"{"auths":{"reg.test":{"username":"u","password":"hunter2"}}}"#);
    let source = ground.source(Credentials::DockerConfig { path: ground.path("config.json") });
    for content in broken {
        ground.replace("config.json", content);
        for _ in 0..3 {
            assert_eq!(renewed(&source, &user("u", "old")).await, Some(user("u", "hunter2")), "{content}");
        }
    }
    let logged = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert_eq!(logged.lines().count(), 2, "P-174: {logged}");
    assert!(logged.contains("holds an auth for \"reg.test\"") && logged.contains("upstream.name=reg.test"), "{logged}");
    assert!(!logged.contains("hunter2"), "S-43: {logged}");
}

#[test]
fn accounts_print_no_secrets() {
    let account = user("u", "hunter2");
    let token = Account::IdentityToken { username: "u".to_owned(), token: Secret::new("hunter2") };
    let basic = account.basic().unwrap();
    assert_eq!(basic.to_str().unwrap(), "Basic dTpodW50ZXIy");
    let printed = format!("{account:?} {token:?} {:?} {basic:?}", Credentials::Fixed(account.clone()));
    assert!(!printed.contains("hunter2") && !printed.contains("dTpodW50ZXIy"), "S-43: {printed}");
}
