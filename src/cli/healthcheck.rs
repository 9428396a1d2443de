//! `cachalot healthcheck`: asks a running server whether it is ready, for container health checks without a shell.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::time::Duration;

use super::{FAILURE, UNREACHABLE, say, tell};

/// How long the server may take to connect, and to answer: a probe that hangs is a failed one.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Bytes of an answer that are read at the most.
const ANSWER_BYTES_MAX: u64 = 16 * 1024;

/// Ask a running server whether it is ready.
///
/// Exits with 0 when it is, with 1 when it is starting or draining, and with 6 when nobody answers there as it would. Of a name, every
/// address is asked, and all must be ready; of localhost one is enough.
#[derive(Debug, clap::Args)]
#[command(before_help = "Examples:
  cachalot healthcheck
  cachalot healthcheck --admin cachalot-headless.cachalot.svc:5001")]
pub(super) struct Args {
    /// The admin address of the server: address or name, and port
    #[arg(long, value_name = "HOST:PORT", env = "CACHALOT_ADMIN__LISTEN", default_value = "127.0.0.1:5001")]
    admin: String,
}

pub(super) fn run(args: &Args) -> u8 {
    let addresses: Vec<SocketAddr> = match args.admin.to_socket_addrs() {
        Ok(addresses) => addresses.collect(),
        Err(error) => {
            say(format_args!(
                "cachalot: {} is no address: {error}; write HOST:PORT, such as 127.0.0.1:5001",
                args.admin
            ));
            return UNREACHABLE;
        }
    };
    // A server listens on one of the two addresses that localhost has.
    let is_here = addresses.iter().all(|address| address.ip().is_loopback());
    let checked: Vec<Result<(), Unready>> = addresses.into_iter().map(check).collect();
    let worst = checked.iter().filter_map(|checked| checked.as_ref().err()).map(|unready| unready.code).max();
    match worst {
        None if checked.is_empty() => {
            say(format_args!("cachalot: {} has no address", args.admin));
            UNREACHABLE
        }
        Some(code) if !is_here || checked.iter().all(Result::is_err) => {
            checked.iter().filter_map(|checked| checked.as_ref().err()).for_each(|unready| say(&unready.why));
            code
        }
        _ => tell("ready"),
    }
}

/// Why a server at one address is not ready, and the exit code for it.
#[derive(Debug)]
struct Unready {
    code: u8,
    why: String,
}

fn check(admin: SocketAddr) -> Result<(), Unready> {
    let unready = |code, why| Err(Unready { code, why });
    let answer = match ask(admin) {
        Ok(answer) => answer,
        Err(error) => {
            let why = format!("cachalot: {admin} does not answer: {error}; is it running, with this admin address?");
            return unready(UNREACHABLE, why);
        }
    };
    match answer.split(' ').nth(1) {
        Some("200") => Ok(()),
        Some("503") => unready(FAILURE, format!("cachalot: {admin} says that it is not ready: {}", last_line(&answer))),
        _ => {
            let said = answer.lines().next().unwrap_or("nothing");
            unready(UNREACHABLE, format!("cachalot: {admin} is no admin address of cachalot; it says: {said}"))
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

    use super::super::OK;
    use super::*;

    #[test]
    fn the_exit_code_tells_ready_from_not_ready_from_nobody_there() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (admin, by_name) = (address.to_string(), format!("localhost:{}", address.port()));
        let answers = [
            ("HTTP/1.1 200 OK\r\n\r\n{}", OK),
            ("HTTP/1.1 503 Service Unavailable\r\n\r\n{\"state\":\"draining\"}", FAILURE),
            ("HTTP/1.1 404 Not Found\r\n\r\n", UNREACHABLE),
            ("SSH-2.0-OpenSSH_9.2\r\n", UNREACHABLE),
            ("", UNREACHABLE),
        ];
        let server = std::thread::spawn(move || {
            for (answer, _) in answers.into_iter().take(1).chain(answers) {
                let (mut stream, _) = listener.accept().unwrap();
                let mut head = [0; 1024];
                assert!(stream.read(&mut head).unwrap() > 0);
                stream.write_all(answer.as_bytes()).unwrap();
            }
        });
        assert_eq!(run(&Args { admin: by_name }), OK);
        for (answer, code) in answers {
            assert_eq!(run(&Args { admin: admin.clone() }), code, "{answer:?}");
        }
        server.join().unwrap();
        assert_eq!(run(&Args { admin }), UNREACHABLE);
        assert_eq!(run(&Args { admin: "no-such-name.invalid:5001".to_owned() }), UNREACHABLE);
        assert_eq!(run(&Args { admin: "127.0.0.1".to_owned() }), UNREACHABLE);
    }
}
