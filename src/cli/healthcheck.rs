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
/// Exits with 0 when it is, with 1 when it is starting or draining, and with 6 when nobody answers there as it would.
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
        Ok(answer) => match answer.split(' ').nth(1) {
            Some("200") => tell("ready"),
            Some("503") => {
                say(format_args!("cachalot: {} says that it is not ready: {}", args.admin, last_line(&answer)));
                FAILURE
            }
            _ => {
                say(format_args!(
                    "cachalot: {} is no admin address of cachalot; it says: {}",
                    args.admin,
                    answer.lines().next().unwrap_or("nothing")
                ));
                UNREACHABLE
            }
        },
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
    // In one piece: who answers after the first of several and closes would reset the connection under the answer.
    let request = format!("GET /readyz HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
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
        let answers = [
            ("HTTP/1.1 200 OK\r\n\r\n{}", super::super::OK),
            ("HTTP/1.1 503 Service Unavailable\r\n\r\n{\"state\":\"draining\"}", FAILURE),
            ("HTTP/1.1 404 Not Found\r\n\r\n", UNREACHABLE),
            ("SSH-2.0-OpenSSH_9.2\r\n", UNREACHABLE),
            ("", UNREACHABLE),
        ];
        let server = std::thread::spawn(move || {
            for (answer, _) in answers {
                let (mut stream, _) = listener.accept().unwrap();
                let mut head = [0; 1024];
                assert!(stream.read(&mut head).unwrap() > 0);
                stream.write_all(answer.as_bytes()).unwrap();
            }
        });
        for (answer, code) in answers {
            assert_eq!(run(&Args { admin }), code, "{answer:?}");
        }
        server.join().unwrap();
        assert_eq!(run(&Args { admin }), UNREACHABLE);
    }
}
