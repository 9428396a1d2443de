//! The process under a supervisor that speaks `sd_notify(3)`: what it is told, and when.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, ErrorKind};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

/// The supervisor's side of a process that it started.
struct Supervisor {
    socket: UnixDatagram,
    child: Child,
}

impl Supervisor {
    /// Starts a process that finds the socket by this name.
    fn start(socket: UnixDatagram, name: impl AsRef<OsStr>, config: &Path) -> Self {
        socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_cachalot"))
            .args(["serve", "--config"])
            .arg(config)
            .env_clear()
            .env("NOTIFY_SOCKET", name)
            .env("WATCHDOG_USEC", "100000")
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Self { socket, child }
    }

    /// Waits until it is told a line that begins with this.
    fn expect(&self, start: &str) -> String {
        let mut datagram = [0; 4096];
        loop {
            let size = self.socket.recv(&mut datagram).unwrap_or_else(|error| panic!("{start} is not told: {error}"));
            let told = String::from_utf8_lossy(&datagram[..size]).into_owned();
            if let Some(line) = told.lines().find(|line| line.starts_with(start)) {
                return line.to_owned();
            }
        }
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        // It has ended already unless the test failed.
        let _gone = self.child.kill();
        let _ended = self.child.wait();
    }
}

/// Writes a configuration that is good, and returns it with its file.
fn configuration(directory: &Path) -> (PathBuf, String) {
    let (config, store) = (directory.join("cachalot.toml"), directory.join("store").display().to_string());
    let good = format!(
        "[server]\nlisten = [\"127.0.0.1:0\"]\n[admin]\nlisten = \"127.0.0.1:0\"\n[store]\npath = {store:?}\n\
         capacity = \"1GiB\"\nmin_free = \"1MiB\"\nmanifests = \"1MiB\"\n"
    );
    std::fs::write(&config, &good).unwrap();
    (config, good)
}

#[test]
fn a_supervisor_hears_that_it_serves_lives_refuses_a_bad_file_and_stops() {
    let directory = tempfile::tempdir().unwrap();
    let (config, good) = configuration(directory.path());
    let path = directory.path().join("notify");
    let mut supervisor = Supervisor::start(UnixDatagram::bind(&path).unwrap(), &path, &config);
    assert_eq!(supervisor.expect("READY="), "READY=1");
    supervisor.expect("WATCHDOG=1");
    supervisor.expect("WATCHDOG=1");
    std::fs::write(&config, "[server]\nlisten = 3\n").unwrap();
    supervisor.signal(Signal::HUP);
    assert!(supervisor.expect("STATUS=").contains("refused"));
    std::fs::write(&config, &good).unwrap();
    supervisor.signal(Signal::HUP);
    assert!(supervisor.expect("STATUS=").starts_with("STATUS=serving on 127.0.0.1:"));
    supervisor.signal(Signal::TERM);
    assert_eq!(supervisor.expect("STOPPING="), "STOPPING=1");
    assert!(supervisor.child.wait().unwrap().success());
}

#[test]
fn a_supervisor_may_listen_on_an_abstract_socket() {
    let directory = tempfile::tempdir().unwrap();
    let (config, _) = configuration(directory.path());
    let name = format!("cachalot-test-{}", directory.path().display());
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    let supervisor = Supervisor::start(UnixDatagram::bind_addr(&address).unwrap(), format!("@{name}"), &config);
    assert_eq!(supervisor.expect("READY="), "READY=1");
}

#[test]
fn a_supervisor_that_does_not_read_keeps_nobody_from_stopping() {
    let directory = tempfile::tempdir().unwrap();
    let (config, _) = configuration(directory.path());
    let path = directory.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    let filler = UnixDatagram::unbound().unwrap();
    filler.set_nonblocking(true).unwrap();
    let full = loop {
        if let Err(error) = filler.send_to(b"X=1", &path) {
            break error;
        }
    };
    assert_eq!(full.kind(), ErrorKind::WouldBlock);
    let mut supervisor = Supervisor::start(socket, &path, &config);
    let (ended, end) = mpsc::channel();
    let log = BufReader::new(supervisor.child.stderr.take().unwrap());
    std::thread::spawn(move || {
        for line in log.lines() {
            // Nobody waits any more when the test has failed.
            let _heard = ended.send(line.unwrap());
        }
    });
    let next = || end.recv_timeout(Duration::from_secs(20));
    while !next().expect("it serves").contains("serving") {}
    supervisor.signal(Signal::TERM);
    while !next().expect("it stops").contains("stopped") {}
    assert!(supervisor.child.wait().unwrap().success());
}
