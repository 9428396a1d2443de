//! Who we are at an upstream: the one source of its account, the certificate that we show, and the files behind them.

use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;

use rustls::RootCertStore;
use rustls::pki_types::pem::{Error as PemError, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use url::Url;

use super::defaults::PEM_BYTES_MAX;
use super::reader::Section;
use super::schema::ClientCertificate;
use crate::oci::UpstreamName;
use crate::telemetry::sentence;
use crate::upstream::{ClientIdentity, Credentials, HelperName};

/// Reads the keys of the account. There is one source of it at the most.
pub(super) fn credentials(section: &mut Section<'_>, name: &UpstreamName, endpoints: &[Url]) -> Option<Credentials> {
    report_others(section);
    let check = |credentials: Credentials| match credentials.check(name, endpoints) {
        Ok(()) => Ok(credentials),
        Err(error) => Err(sentence(&error)),
    };
    let by_password = password(section, check);
    let by_config = section.text("docker_config", |path| check(Credentials::DockerConfig { path: path.into() }));
    let by_helper = section.text("credential_helper", helper).map(Credentials::Helper);
    by_password.or(by_config).or(by_helper)
}

/// Reports every source of the account but the first.
fn report_others(section: &mut Section<'_>) {
    let keys = [["username", "password_file"].as_slice(), &["docker_config"], &["credential_helper"]];
    let present = keys.into_iter().filter_map(|keys| keys.iter().find(|key| section.has(key)).copied());
    let present: Vec<&str> = present.collect();
    let Some((first, others)) = present.split_first() else { return };
    for other in others {
        section.report(other, format!("stands beside {first}; an upstream has one account, so take one of them out"));
    }
}

/// Reads `username` and `password_file`, both or none.
fn password(
    section: &mut Section<'_>,
    check: impl FnOnce(Credentials) -> Result<Credentials, String>,
) -> Option<Credentials> {
    let (has_username, has_password) = (section.has("username"), section.has("password_file"));
    if has_username && !has_password {
        section.report("username", "has no password beside it; set password_file as well".into());
    }
    if has_password && !has_username {
        section.report("password_file", "has no user beside it; set username as well".into());
    }
    let username = section.text("username", |text| match text {
        // RFC 7617 §2: the first colon ends the user name.
        text if text.is_empty() || text.contains(':') => {
            Err("is empty or has a colon; no registry accepts that".to_owned())
        }
        text => Ok(text.to_owned()),
    });
    let checked = section.text("password_file", |path| {
        check(Credentials::PasswordFile { username: username.clone().unwrap_or_default(), path: path.into() })
    });
    username.and(checked)
}

fn helper(text: &str) -> Result<HelperName, String> {
    text.parse().map_err(|_| {
        format!(
            "{text:?} is not the name of a credential helper; write what stands after docker-credential-, such as \
             \"ecr-login\""
        )
    })
}

/// Reads `client_cert` and `client_key`, both or none.
pub(super) fn client_certificate(section: &mut Section<'_>) -> Option<ClientCertificate> {
    let (has_cert, has_key) = (section.has("client_cert"), section.has("client_key"));
    if has_cert && !has_key {
        section.report("client_cert", "has no key beside it; set client_key as well".into());
    }
    if has_key && !has_cert {
        section.report("client_key", "has no certificate beside it; set client_cert as well".into());
    }
    let key_place = section.value_place("client_key");
    let cert = section.text("client_cert", |path| Ok((PathBuf::from(path), certificates(path)?)));
    let key = section.text("client_key", |path| Ok((PathBuf::from(path), private_key(path)?)));
    let ((cert, chain), (key, der)) = (cert?, key?);
    match ClientIdentity::new(chain, der) {
        Ok(identity) => Some(ClientCertificate { cert, key, identity }),
        Err(error) => {
            let text = format!("{} does not fit {}: {error}", key.display(), cert.display());
            section.report_at(key_place, "client_key", text);
            None
        }
    }
}

/// Reads a PEM file of certificates, each of which can be used.
pub(super) fn certificates(path: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let bytes = read_file(path)?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    let certificates = certificates.map_err(|error| format!("{path} is not valid PEM: {error}"))?;
    if certificates.is_empty() {
        return Err(format!("{path} holds no certificate; write one or more in PEM (-----BEGIN CERTIFICATE-----)"));
    }
    for (index, certificate) in certificates.iter().enumerate() {
        let trusted = RootCertStore::empty().add(certificate.clone());
        trusted.map_err(|error| format!("certificate {} in {path} cannot be used: {error}", index + 1))?;
    }
    Ok(certificates)
}

pub(super) fn private_key(path: &str) -> Result<PrivateKeyDer<'static>, String> {
    PrivateKeyDer::from_pem_slice(&read_file(path)?).map_err(|error| match error {
        PemError::NoItemsFound => {
            format!("{path} holds no private key; write one without a passphrase in PEM (-----BEGIN PRIVATE KEY-----)")
        }
        // What the parser says of anything else may repeat a line of it.
        _ => format!("{path} is not valid PEM"),
    })
}

pub(super) fn read_file(path: &str) -> Result<Vec<u8>, String> {
    let read = || -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        // One byte more than allowed tells a file that is too large from one that fits.
        File::open(path)?.take(PEM_BYTES_MAX + 1).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes = read().map_err(|error| format!("cannot read {path}: {error}"))?;
    if u64::try_from(bytes.len()).is_ok_and(|length| length <= PEM_BYTES_MAX) {
        Ok(bytes)
    } else {
        Err(format!("{path} is larger than {}; is it the right file?", bytesize::ByteSize(PEM_BYTES_MAX)))
    }
}
