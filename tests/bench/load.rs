//! A load client for the benchmark: many HTTP/1.1 downloads at once, in one thread, with as little work per byte as can be. Over TLS it
//! offers one cipher and one key exchange, so that all servers do the same work for it.
//!
//! ```text
//! load --url http://127.0.0.1:5000/v2/app/blobs/sha256:… --clients 20 [--range 0-99] [--stride BYTES] [--limit BYTES]
//!      [--rate BYTES_PER_SECOND] [--seconds S] [--sha256 HEX] [--ca FILE]
//! ```
//!
//! `--stride` has client *k* ask for `bytes=k·stride-` and close after as many bytes, as containerd does in parallel pulls.
//! An `https` URL wants `--ca`, the certificate that the server shows or its authority.
//! Prints one JSON object: how many failed, bytes, statuses, what secured the connections, wall time, and the times to the first body byte
//! and to the end.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cachalot::oci::{Algorithm, Digest, Hasher};
use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;

const BUFFER_BYTES: usize = 128 * 1024;

/// What the kernel keeps for a client that reads slowly.
const SLOW_BUFFER_BYTES: u32 = 64 * 1024;

/// A response head above this is not one that we want to read.
const HEAD_BYTES_MAX: usize = 16 * 1024;

#[derive(Debug, Default)]
struct Plan {
    authority: String,
    path: String,
    is_secured: bool,
    tls: Option<Arc<ClientConfig>>,
    clients: u64,
    range: Option<String>,
    stride: Option<u64>,
    limit: Option<u64>,
    rate: Option<u64>,
    seconds: Option<u64>,
    sha256: Option<Digest>,
}

/// What one client saw.
#[derive(Debug)]
struct Seen {
    status: u16,
    /// The protocol and the cipher, with TLS.
    secured_by: Option<String>,
    bytes: u64,
    first_byte: Duration,
    whole: Duration,
    is_right: bool,
}

fn main() -> ExitCode {
    let plan = match Plan::read(std::env::args().skip(1)) {
        Ok(plan) => plan,
        Err(error) => return fail(&*error),
    };
    match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => {
            runtime.block_on(tokio::task::LocalSet::new().run_until(run(plan)));
            ExitCode::SUCCESS
        }
        Err(error) => fail(&error),
    }
}

fn fail(error: &dyn Error) -> ExitCode {
    eprintln!("load: {error}");
    ExitCode::FAILURE
}

impl Plan {
    fn read(mut args: impl Iterator<Item = String>) -> Result<Self, Box<dyn Error>> {
        let mut plan = Self { clients: 1, ..Self::default() };
        while let Some(key) = args.next() {
            let value = args.next().ok_or_else(|| format!("{key} has no value"))?;
            match key.as_str() {
                "--url" => {
                    let (scheme, rest) = value.split_once("://").ok_or("the URL has no scheme")?;
                    plan.is_secured = match scheme {
                        "http" => false,
                        "https" => true,
                        _ => return Err("only http:// and https:// are known".into()),
                    };
                    let (authority, path) = rest.split_once('/').ok_or("the URL has no path")?;
                    (plan.authority, plan.path) = (authority.to_owned(), format!("/{path}"));
                }
                "--clients" => plan.clients = value.parse()?,
                "--range" => plan.range = Some(value),
                "--stride" => plan.stride = Some(value.parse()?),
                "--limit" => plan.limit = Some(value.parse()?),
                "--rate" => plan.rate = Some(value.parse()?),
                "--seconds" => plan.seconds = Some(value.parse()?),
                "--ca" => plan.tls = Some(Arc::new(tls(&value)?)),
                "--sha256" => plan.sha256 = Some(format!("sha256:{value}").parse()?),
                _ => return Err(format!("{key} is not known").into()),
            }
        }
        Ok(plan)
    }

    fn request(&self, client: u64) -> String {
        let range = match (self.stride, &self.range) {
            (Some(stride), _) => format!("Range: bytes={}-\r\n", client * stride),
            (None, Some(range)) => format!("Range: bytes={range}\r\n"),
            (None, None) => String::new(),
        };
        format!("GET {} HTTP/1.1\r\nHost: {}\r\n{range}Connection: close\r\n\r\n", self.path, self.authority)
    }
}

async fn run(plan: Plan) {
    let plan = Rc::new(plan);
    let began = Instant::now();
    let clients: Vec<_> = (0..plan.clients)
        .map(|client| {
            let plan = Rc::clone(&plan);
            tokio::task::spawn_local(async move { download(&plan, client).await })
        })
        .collect();
    let (mut seen, mut errors) = (Vec::new(), Vec::new());
    for client in clients {
        match client.await {
            Ok(Ok(one)) => seen.push(one),
            Ok(Err(error)) => errors.push(error.to_string()),
            Err(error) => errors.push(error.to_string()),
        }
    }
    report(&seen, &errors, began.elapsed());
}

async fn download(plan: &Plan, client: u64) -> Result<Seen, Box<dyn Error>> {
    let began = Instant::now();
    let (mut stream, secured_by) = connect(plan).await?;
    stream.write_all(plan.request(client).as_bytes()).await?;
    stream.flush().await?;
    let mut buffer = vec![0; BUFFER_BYTES];
    let (status, length, mut filled) = head(&mut *stream, &mut buffer).await?;
    let limit = plan.limit.or(plan.stride).unwrap_or(u64::MAX).min(length.unwrap_or(u64::MAX));
    let deadline = plan.seconds.map(|seconds| began + Duration::from_secs(seconds));
    let (mut bytes, mut first_byte) = (0_u64, None);
    let mut hasher = plan.sha256.map(|_| Hasher::new(Algorithm::Sha256));
    while bytes < limit && deadline.is_none_or(|deadline| Instant::now() < deadline) {
        if filled == 0 {
            filled = stream.read(&mut buffer).await?;
        }
        if filled == 0 {
            break;
        }
        first_byte.get_or_insert_with(|| began.elapsed());
        if let Some(hasher) = &mut hasher {
            hasher.update(buffer.get(..filled).unwrap_or_default());
        }
        bytes += filled as u64;
        filled = 0;
        if let Some(rate) = plan.rate {
            let due = began + Duration::from_micros(bytes.saturating_mul(1_000_000) / rate);
            tokio::time::sleep_until(due.into()).await;
        }
    }
    let is_whole = deadline.is_some() || bytes >= limit.min(length.unwrap_or(0));
    let is_verified = hasher.is_none_or(|hasher| plan.sha256 == Some(hasher.finish()));
    let is_right = matches!(status, 200 | 206) && is_whole && is_verified;
    Ok(Seen {
        status,
        secured_by,
        bytes,
        first_byte: first_byte.unwrap_or_else(|| began.elapsed()),
        whole: began.elapsed(),
        is_right,
    })
}

/// Makes the TLS of all connections: one cipher, one key exchange, and nothing of one connection helps the next.
fn tls(ca: &str) -> Result<ClientConfig, Box<dyn Error>> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(ca)? {
        roots.add(certificate?)?;
    }
    let provider = CryptoProvider {
        cipher_suites: vec![aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256],
        kx_groups: vec![aws_lc_rs::kx_group::X25519],
        ..aws_lc_rs::default_provider()
    };
    let builder = ClientConfig::builder_with_provider(Arc::new(provider)).with_safe_default_protocol_versions()?;
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.resumption = Resumption::disabled();
    Ok(config)
}

trait Stream: AsyncRead + AsyncWrite + Unpin {}
impl<S: AsyncRead + AsyncWrite + Unpin> Stream for S {}

/// Connects, and says what secures the connection.
async fn connect(plan: &Plan) -> Result<(Box<dyn Stream>, Option<String>), Box<dyn Error>> {
    let address: SocketAddr = plan.authority.parse()?;
    let stream = connect_plainly(plan, address).await?;
    if !plan.is_secured {
        return Ok((Box::new(stream), None));
    }
    let config = plan.tls.as_ref().ok_or("https:// wants --ca")?;
    let name = ServerName::IpAddress(address.ip().into());
    let stream = TlsConnector::from(Arc::clone(config)).connect(name, stream).await?;
    let (_, session) = stream.get_ref();
    let (version, cipher) = (session.protocol_version(), session.negotiated_cipher_suite());
    let (version, cipher) = version.zip(cipher).ok_or("the handshake has agreed on nothing")?;
    let secured_by = format!("{version:?} {:?}", cipher.suite());
    Ok((Box::new(stream), Some(secured_by)))
}

/// A slow client has a small buffer, or the kernel would read ahead for it by megabytes.
async fn connect_plainly(plan: &Plan, address: SocketAddr) -> Result<TcpStream, Box<dyn Error>> {
    let socket = TcpSocket::new_v4()?;
    if plan.rate.is_some() {
        socket.set_recv_buffer_size(SLOW_BUFFER_BYTES)?;
    }
    Ok(socket.connect(address).await?)
}

/// Reads the head: the status, the length of the body, and how many bytes of the body are in the buffer already, at its start.
async fn head(stream: &mut dyn Stream, buffer: &mut [u8]) -> Result<(u16, Option<u64>, usize), Box<dyn Error>> {
    let mut filled = 0;
    loop {
        let space = buffer.get_mut(filled..).ok_or("the head is too long")?;
        let read = stream.read(space).await?;
        filled += read;
        let received = buffer.get(..filled).ok_or("more than there is room for")?;
        if let Some(end) = received.windows(4).position(|window| window == b"\r\n\r\n") {
            let text = String::from_utf8_lossy(received.get(..end).unwrap_or_default()).to_ascii_lowercase();
            let status = text.split(' ').nth(1).ok_or("no status")?.parse()?;
            let length = text.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok());
            buffer.copy_within(end + 4..filled, 0);
            return Ok((status, length, filled - end - 4));
        }
        if read == 0 || filled > HEAD_BYTES_MAX {
            return Err("the answer has no head".into());
        }
    }
}

#[expect(clippy::print_stdout, reason = "a command-line tool")]
fn report(seen: &[Seen], errors: &[String], wall: Duration) {
    let mut statuses = BTreeMap::<String, u64>::new();
    for one in seen {
        *statuses.entry(one.status.to_string()).or_default() += 1;
    }
    let failures = errors.len() + seen.iter().filter(|one| !one.is_right).count();
    let report = serde_json::json!({
        "clients": seen.len() + errors.len(),
        "failures": failures,
        "errors": errors.first(),
        "statuses": statuses,
        "secured_by": seen.iter().filter_map(|one| one.secured_by.as_deref()).collect::<BTreeSet<_>>(),
        "bytes": seen.iter().map(|one| one.bytes).sum::<u64>(),
        "wall": wall.as_secs_f64(),
        "first_byte": quantiles(seen.iter().map(|one| one.first_byte)),
        "whole": quantiles(seen.iter().map(|one| one.whole)),
    });
    println!("{report}");
}

fn quantiles(times: impl Iterator<Item = Duration>) -> serde_json::Value {
    let mut times: Vec<_> = times.collect();
    times.sort_unstable();
    let at = |hundredths: usize| {
        let index = (times.len().saturating_sub(1)) * hundredths / 100;
        times.get(index).map(Duration::as_secs_f64)
    };
    serde_json::json!({ "p50": at(50), "p99": at(99), "max": at(100) })
}
