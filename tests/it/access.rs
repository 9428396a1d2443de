//! The access log of a process: what is a line in it, and what is not.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};

#[test]
fn a_question_is_a_line_and_a_look_whether_anybody_is_there_is_none() {
    let directory = tempfile::tempdir().unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_cachalot"))
        .args(["serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--store"])
        .arg(directory.path())
        .env_clear()
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
    let serving = lines.find(|line| line.contains("serving")).expect("it serves");
    let address = serving.split("address=").nth(1).unwrap().split_whitespace().next().unwrap().to_owned();
    for path in ["/v2/", "/v2/no.such.registry/x/manifests/1"] {
        let mut stream = TcpStream::connect(&address).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        stream.read_to_end(&mut Vec::new()).unwrap();
    }
    let mut access = lines.filter(|line| line.contains("cachalot::access"));
    let first = access.next().expect("a line for the question");
    assert!(first.contains("GET /v2/no.such.registry/x/manifests/1") && first.contains("http.status=404"), "{first}");
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_look_with_something_wrong_to_show_is_a_line() {
    let directory = tempfile::tempdir().unwrap();
    let (file, tokens) = (directory.path().join("cachalot.toml"), directory.path().join("tokens"));
    std::fs::write(&tokens, "ci:0123456789abcdef\n").unwrap();
    std::fs::write(&file, format!("[identity]\ntokens = {tokens:?}\n")).unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_cachalot"))
        .args(["serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--config"])
        .arg(&file)
        .arg("--store")
        .arg(directory.path())
        .env_clear()
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
    let serving = lines.find(|line| line.contains(" serving ")).expect("it serves");
    let address = serving.split("address=").nth(1).unwrap().split_whitespace().next().unwrap().to_owned();
    for (path, shown) in [("/v2/", ""), ("/v2/", "Authorization: Bearer guessed\r\n"), ("/v2/app/manifests/1", "")] {
        let mut stream = TcpStream::connect(&address).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\n{shown}Connection: close\r\n\r\n").unwrap();
        stream.read_to_end(&mut Vec::new()).unwrap();
    }
    let mut access = lines.filter(|line| line.contains("cachalot::access"));
    for path in ["GET /v2/ ", "GET /v2/app/manifests/1 "] {
        let line = access.next().expect("a line for each but the first");
        let is_it = line.contains(path) && line.contains("http.status=401") && line.contains("principal=\"-\"");
        assert!(is_it && !line.contains("guessed"), "{line}");
    }
    child.kill().unwrap();
    child.wait().unwrap();
}
