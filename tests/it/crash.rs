//! kill -9 at random moments of concurrent fills, again and again over the same store: no wrong byte is ever served, and the upstream
//! sends little more than what is new.
//!
//! The rounds take some seconds; `CACHALOT_CRASH_ROUNDS=500 cargo test --test it crash` goes on for longer.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::pin::pin;
use std::process::{Child, Command, Stdio};

use futures_util::future::join_all;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness;
use crate::registry::{Content, MIB, Registry};

const ROUNDS_DEFAULT: u32 = 12;

const SIZE: u64 = 24 * MIB;

/// What one kill may cost: what came of both blobs since the last record, and what was on its way over each connection.
const LOSS_MAX: u64 = 12 * MIB;

/// A process over a store.
struct Process {
    child: Child,
    address: SocketAddr,
}

impl Process {
    /// Starts the binary and waits until it says where it serves.
    fn start(config: &Path) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_cachalot"))
            .args(["serve", "--config"])
            .arg(config)
            .env_clear()
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
        let told = lines.find(|line| line.contains("serving")).expect("it serves");
        let address = told.split("address=").nth(1).unwrap().split_whitespace().next().unwrap().parse().unwrap();
        // Read on, or it would block when the pipe is full.
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, address }
    }

    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// Asks for bytes from `start` on and returns what comes until the connection ends, and whether that was all that was announced.
async fn get(address: SocketAddr, path: &str, start: u64) -> (Vec<u8>, bool) {
    let Ok(mut stream) = TcpStream::connect(address).await else { return (Vec::new(), false) };
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nRange: bytes={start}-\r\nConnection: close\r\n\r\n");
    let mut answer = Vec::new();
    // The process may die at any moment.
    if stream.write_all(request.as_bytes()).await.is_err() || stream.read_to_end(&mut answer).await.is_err() {
        // What came before is in `answer` all the same.
    }
    let Some(head_end) = answer.windows(4).position(|window| window == b"\r\n\r\n") else { return (Vec::new(), false) };
    let head = String::from_utf8_lossy(&answer[..head_end]).to_ascii_lowercase();
    if !head.starts_with("http/1.1 206") {
        return (Vec::new(), false);
    }
    let length: usize = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap().parse().unwrap();
    let body = answer.split_off(head_end + 4);
    let is_complete = body.len() == length;
    (body, is_complete)
}

#[tokio::test]
async fn after_any_kill_no_byte_is_wrong_and_few_are_fetched_again() {
    let rounds = std::env::var("CACHALOT_CRASH_ROUNDS").ok().and_then(|rounds| rounds.parse().ok());
    let rounds: u32 = rounds.unwrap_or(ROUNDS_DEFAULT);
    let registry = Registry::start().await;
    registry.set_pace(Some(48 * MIB));
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("crash.toml");
    let lines = harness::configuration(directory.path(), &registry.url(), harness::More::default());
    std::fs::write(&config, lines).unwrap();
    let blobs: Vec<_> = (0..=u64::from(rounds.div_ceil(3))).map(|seed| Content::generated(seed, SIZE)).collect();
    let paths: Vec<_> =
        blobs.iter().map(|blob| format!("/v2/app/blobs/{}", registry.with_blob(blob.clone()))).collect();

    let (mut kills, mut wanted) = (0, 0);
    for round in 0..rounds {
        // Two blobs at a time, each in several rounds, from the first byte and from the middle.
        let first = usize::try_from(round / 3).unwrap();
        wanted = first + 2;
        let process = Process::start(&config);
        let clients = [(first, 0), (first, SIZE / 2), (first + 1, 0), (first + 1, SIZE - 100)];
        let answers = join_all(clients.map(|(blob, start)| get(process.address, &paths[blob], start)));
        let before = registry.bytes_sent("/blobs/");
        let until = before + fastrand::u64(0..SIZE);
        let mut answers = pin!(answers);
        let answers = tokio::select! {
            () = registry.wait_for(|log| log.bytes_sent("/blobs/") >= until) => {
                process.kill();
                answers.await
            }
            // All of it was stored already.
            answers = &mut answers => {
                process.kill();
                answers
            }
        };
        kills += 1;
        for ((blob, start), (body, is_complete)) in clients.into_iter().zip(answers) {
            let expected = blobs[blob].read(start, body.len() as u64);
            assert!(body == expected, "round {round}: a wrong byte of blob {blob} from {start}");
            assert!(!is_complete || body.len() as u64 == SIZE - start, "round {round}");
        }
    }

    let process = Process::start(&config);
    for (blob, path) in blobs.iter().zip(&paths).take(wanted) {
        assert!(get(process.address, path, 0).await == (blob.bytes().to_vec(), true));
    }
    process.kill();
    let sent = registry.bytes_sent("/blobs/");
    let (new, loss) = (wanted as u64 * SIZE, kills * LOSS_MAX);
    assert!(sent <= new + loss, "{sent} bytes for {new} new ones and {kills} kills");
}
