//! The handshake: from a connection to a stream that is secured, within a time, and with a word for those who come without TLS.

use std::io;
use std::time::{Duration, SystemTime};

use rustls::ServerConnection;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::{ClientCertificate, H2, Tls, expires_at};
use crate::telemetry::Handshake;

/// The first byte of a TLS connection: a record of the handshake (RFC 8446 §5.1).
const HANDSHAKE_RECORD: u8 = 0x16;

/// Bytes that are read from a client that is told to use TLS, so that what it is told does not get lost in a reset: more than any request
/// head has.
const FAREWELL_BYTES: u64 = 64 * 1024;

/// What whoever speaks plain HTTP to a port with TLS is told (P-129).
const PLAIN_HTTP_ANSWER: &[u8] = b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nContent-Length: 58\r\n\
    Connection: close\r\n\r\nThis port speaks TLS: write https:// in front of the URL.\n";

/// A connection after its handshake.
pub(in crate::server) struct Secured {
    pub(in crate::server) stream: Box<TlsStream<TcpStream>>,
    pub(in crate::server) certificate: Option<ClientCertificate>,
    pub(in crate::server) protocol: Protocol,
}

/// What was agreed on for the time after the handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::server) enum Protocol {
    Http1,
    Http2,
}

/// Secures `stream` within `patience`.
///
/// # Errors
/// What came of it, for the metrics; whoever speaks plain HTTP was told so.
pub(in crate::server) async fn accept(stream: TcpStream, tls: &Tls, patience: Duration) -> Result<Secured, Handshake> {
    timeout(patience, secure(stream, tls)).await.unwrap_or(Err(Handshake::Timeout))
}

async fn secure(stream: TcpStream, tls: &Tls) -> Result<Secured, Handshake> {
    let mut first = [0];
    match stream.peek(&mut first).await {
        Ok(0) | Err(_) => return Err(Handshake::Closed),
        Ok(_) if first[0] != HANDSHAKE_RECORD && first[0].is_ascii_alphabetic() => {
            // Whether the answer arrives is the client's to care.
            let _ = answer_plain(stream).await;
            return Err(Handshake::PlainHttp);
        }
        Ok(_) => {}
    }
    let stream = TlsAcceptor::from(std::sync::Arc::clone(&tls.config)).accept(stream).await.map_err(|error| {
        tracing::debug!(%error, "a TLS handshake failed");
        ending(&error)
    })?;
    let (_, session) = stream.get_ref();
    let certificate = certificate(session)?;
    let protocol = if session.alpn_protocol() == Some(H2) { Protocol::Http2 } else { Protocol::Http1 };
    Ok(Secured { stream: Box::new(stream), certificate, protocol })
}

/// Returns who the client is. A session that goes back to an earlier handshake was verified then, not now.
fn certificate(session: &ServerConnection) -> Result<Option<ClientCertificate>, Handshake> {
    let Some(chain) = session.peer_certificates() else { return Ok(None) };
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    let is_valid = expires_at(chain).is_none_or(|at| u64::try_from(at).is_ok_and(|at| at >= now));
    let known = chain.first().and_then(ClientCertificate::of).filter(|_| is_valid);
    known.map(Some).ok_or(Handshake::ClientCertificate)
}

async fn answer_plain(mut stream: TcpStream) -> io::Result<u64> {
    stream.write_all(PLAIN_HTTP_ANSWER).await?;
    stream.shutdown().await?;
    tokio::io::copy(&mut stream.take(FAREWELL_BYTES), &mut tokio::io::sink()).await
}

/// Returns what a failed handshake is counted as.
fn ending(error: &io::Error) -> Handshake {
    let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>());
    match cause {
        None => Handshake::Closed,
        Some(rustls::Error::NoCertificatesPresented | rustls::Error::InvalidCertificate(_)) => {
            Handshake::ClientCertificate
        }
        Some(rustls::Error::AlertReceived(_)) => Handshake::RefusedByClient,
        Some(_) => Handshake::Protocol,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_to_plain_http_is_as_long_as_it_says() {
        let text = std::str::from_utf8(PLAIN_HTTP_ANSWER).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("\r\nContent-Length: {}\r\n", body.len())), "P-129: {}", body.len());
    }
}
