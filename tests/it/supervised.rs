//! The process under a supervisor that speaks `sd_notify(3)`: what it is told, and when.

use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

/// The supervisor's side of a process that it started.
struct Supervisor {
    socket: UnixDatagram,
    child: Child,
}

impl Supervisor {
    fn start(directory: &Path, config: &Path) -> Self {
        let path = directory.join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_cachalot"))
            .args(["serve", "--config"])
            .arg(config)
            .env_clear()
            .env("NOTIFY_SOCKET", &path)
            .env("WATCHDOG_USEC", "100000")
            .stderr(Stdio::null())
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

#[test]
fn a_supervisor_hears_that_it_serves_lives_refuses_a_bad_file_and_stops() {
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("cachalot.toml");
    let store = directory.path().join("store");
    let good = format!(
        "[server]\nlisten = [\"127.0.0.1:0\"]\n[admin]\nlisten = \"127.0.0.1:0\"\n[store]\npath = {store:?}\n\
         capacity = \"1GiB\"\nmin_free = \"1MiB\"\nmanifests = \"1MiB\"\n"
    );
    std::fs::write(&config, &good).unwrap();
    let mut supervisor = Supervisor::start(directory.path(), &config);
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
