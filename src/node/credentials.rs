//! What the cache is shown, and whom the node believes: files that others renew, and that are read again at each look.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::telemetry::Secret;

/// Bytes of one of these files at the most: all authorities of a system have some hundred thousand.
const BYTES_MAX: u64 = 1 << 20;

/// Where the credentials are, for this process.
#[derive(Debug, Clone, Default)]
pub struct Files {
    /// Further authorities to trust, in PEM.
    pub ca: Option<PathBuf>,
    /// A certificate to show and its key, in PEM.
    pub certificate: Option<(PathBuf, PathBuf)>,
    /// A bearer token, on a line of its own.
    pub token: Option<PathBuf>,
    pub copies: Copies,
}

/// Which of them the node gets a copy of: those that it does not have.
#[derive(Debug, Clone, Copy, Default)]
pub struct Copies {
    pub ca: bool,
    pub certificate: bool,
}

impl Copies {
    pub fn any(self) -> bool {
        self.ca || self.certificate
    }
}

/// What was in the files at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Credentials {
    pub ca: Option<Pem>,
    pub certificate: Option<(Pem, Pem)>,
    pub token: Option<Secret>,
}

/// The text of a PEM file; it may be a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pem {
    pub path: PathBuf,
    pub text: Secret,
}

/// What the node gets besides its configuration, in PEM.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Installed {
    pub ca: Option<Secret>,
    /// The certificate and its key in one text: there is no moment in which the one does not fit the other.
    pub certificate: Option<Secret>,
}

/// Why the files cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    #[error("cannot read the {what} in {}", path.display())]
    Unreadable {
        what: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the {what} in {} is larger than {BYTES_MAX} bytes", path.display())]
    TooLarge { what: &'static str, path: PathBuf },
    #[error("{} holds no token: write it on a line of its own, and nothing else", .0.display())]
    NoToken(PathBuf),
}

impl Files {
    /// Reads them all.
    ///
    /// # Errors
    /// The first that cannot be used.
    pub fn read(&self) -> Result<Credentials, CredentialsError> {
        let ca = self.ca.as_deref().map(|path| Pem::read("authority", path)).transpose()?;
        let pair = |(cert, key): &(PathBuf, PathBuf)| Ok((Pem::read("certificate", cert)?, Pem::read("key", key)?));
        let certificate = self.certificate.as_ref().map(pair).transpose()?;
        let token = self.token.as_deref().map(token).transpose()?;
        Ok(Credentials { ca, certificate, token })
    }
}

impl Credentials {
    /// Returns what the node gets of them.
    pub(super) fn installed(&self, copies: Copies) -> Installed {
        let pair = |(cert, key): &(Pem, Pem)| {
            Secret::new(format!("{}\n{}\n", cert.text.expose().trim_end(), key.text.expose().trim_end()))
        };
        Installed {
            ca: self.ca.as_ref().filter(|_| copies.ca).map(|ca| ca.text.clone()),
            certificate: self.certificate.as_ref().filter(|_| copies.certificate).map(pair),
        }
    }
}

impl Pem {
    fn read(what: &'static str, path: &Path) -> Result<Self, CredentialsError> {
        Ok(Self { path: path.to_owned(), text: read(what, path)? })
    }
}

fn token(path: &Path) -> Result<Secret, CredentialsError> {
    let text = read("token", path)?;
    let token = text.expose().trim();
    if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(CredentialsError::NoToken(path.to_owned()));
    }
    Ok(Secret::new(token))
}

fn read(what: &'static str, path: &Path) -> Result<Secret, CredentialsError> {
    let unreadable = |source| CredentialsError::Unreadable { what, path: path.to_owned(), source };
    let mut bytes = Zeroizing::new(Vec::new());
    File::open(path).and_then(|file| file.take(BYTES_MAX + 1).read_to_end(&mut bytes)).map_err(unreadable)?;
    if bytes.len() as u64 > BYTES_MAX {
        return Err(CredentialsError::TooLarge { what, path: path.to_owned() });
    }
    // What is no text in a PEM file stands between its sections, and means nothing.
    Ok(Secret::new(String::from_utf8_lossy(&bytes)))
}
