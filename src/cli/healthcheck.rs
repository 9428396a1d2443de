//! `cachalot healthcheck`: asks a running server whether it is ready, for container health checks without a shell.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use super::{FAILURE, UNREACHABLE, say, tell};

/// How long the server may take to connect, and to answer: a probe that hangs is a failed one.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Bytes of an answer that are read at the most.
const ANSWER_BYTES_MAX: u64 = 16 * 1024;

/// Ask a running server whether it is ready.
///
/// Exits with 0 when it is, with 1 when it is starting or draining, and with 6 when it does not answer.
#[derive(Debug, clap::Args)]
#[command(before_help = "Example:
  cachalot healthcheck --admin 127.0.0.1:5001")]
pub(super) struct Args {
    /// The admin address of the server
    #[arg(long, value_name = "ADDR", env = "CACHALOT_ADMIN__LISTEN", default_value = "127.0.0.1:5001")]
    admin: SocketAddr,
}

pub(super) fn run(args: &Args) -> u8 {
    match ask(args.admin) {
        Ok(answer) if is_ok(&answer) => tell("ready"),
        Ok(answer) => {
            say(format_args!("cachalot: {} says that it is not ready: {}", args.admin, last_line(&answer)));
            FAILURE
        }
        Err(error) => {
            say(format_args!(
                "cachalot: {} does not answer: {error}; is it running, with this admin address?",
                args.admin
            ));
            UNREACHABLE
        }
    }
}

fn ask(address: SocketAddr) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    write!(stream, "GET /readyz HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

fn is_ok(answer: &str) -> bool {
    answer.starts_with("HTTP/1.1 200 ")
}

fn last_line(answer: &str) -> &str {
    answer.lines().last().unwrap_or("an empty answer")
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn the_exit_code_tells_ready_from_not_ready_from_nobody_there() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let admin = listener.local_addr().unwrap();
        let server = std::thread::spawn(move || {
            for answer in
                ["HTTP/1.1 200 OK\r\n\r\n{}", "HTTP/1.1 503 Service Unavailable\r\n\r\n{\"state\":\"draining\"}"]
            {
                let (mut stream, _) = listener.accept().unwrap();
                let mut head = [0; 1024];
                assert!(stream.read(&mut head).unwrap() > 0);
                stream.write_all(answer.as_bytes()).unwrap();
            }
        });
        assert_eq!(run(&Args { admin }), super::super::OK);
        assert_eq!(run(&Args { admin }), FAILURE);
        server.join().unwrap();
        assert_eq!(run(&Args { admin }), UNREACHABLE);
    }
}
