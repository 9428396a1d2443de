//! Authorities and certificates, and a directory whose files are replaced all at once.

use std::path::PathBuf;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, SanType, date_time_ymd};
use tempfile::TempDir;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

/// Who signs certificates.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        Self(CertifiedIssuer::self_signed(params, key).unwrap())
    }

    pub(crate) fn pem(&self) -> String {
        self.0.pem()
    }

    pub(crate) fn der(&self) -> CertificateDer<'static> {
        self.0.der().clone()
    }

    /// Returns a certificate for loopback and its key, in PEM.
    pub(crate) fn server(&self) -> (String, String) {
        let params = CertificateParams::new(["127.0.0.1".to_owned(), "localhost".to_owned()]).unwrap();
        let key = KeyPair::generate().unwrap();
        (params.signed_by(&key, &self.0).unwrap().pem(), key.serialize_pem())
    }

    /// Returns a client's certificate and its key.
    pub(crate) fn client(&self, name: &str) -> Shown {
        self.client_until(name, 4000)
    }

    /// Returns one that was good until the beginning of that year.
    pub(crate) fn client_until(&self, name: &str, year: i32) -> Shown {
        let mut params = CertificateParams::new([format!("{name}.test")]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.subject_alt_names.push(SanType::URI(format!("spiffe://test/{name}").try_into().unwrap()));
        params.not_after = date_time_ymd(year, 1, 1);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        (certificate.der().clone(), PrivatePkcs8KeyDer::from(key.serialize_der()).into())
    }
}

/// What a client shows.
pub(crate) type Shown = (CertificateDer<'static>, PrivateKeyDer<'static>);

/// A directory as Kubernetes mounts a secret: each file leads through `..data`, which is put in the place of another at once.
pub(crate) struct Mounted(TempDir);

impl Mounted {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Returns the path as it stands in a configuration.
    pub(crate) fn quoted(&self, name: &str) -> String {
        format!("{:?}", self.path(name).display().to_string())
    }

    /// Replaces all files.
    pub(crate) fn put(&self, files: &[(&str, &str)]) {
        let version = format!("..version-{:016x}", fastrand::u64(..));
        std::fs::create_dir(self.path(&version)).unwrap();
        for (name, text) in files {
            std::fs::write(self.path(&version).join(name), text).unwrap();
            if !self.path(name).exists() {
                std::os::unix::fs::symlink(format!("..data/{name}"), self.path(name)).unwrap();
            }
        }
        std::os::unix::fs::symlink(&version, self.path("..data_tmp")).unwrap();
        std::fs::rename(self.path("..data_tmp"), self.path("..data")).unwrap();
    }
}
