//! Who asks, as a name: what logs, rules and tokens say of a caller.

use std::fmt;
use std::str::FromStr;

/// How Kubernetes names its service accounts.
const SERVICE_ACCOUNT: &str = "system:serviceaccount:";

/// Who asks. Its text is what `match` of a `[[principal]]` is compared with.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Principal {
    /// `anonymous`: whoever shows nothing.
    Anonymous,
    /// `user:alice`, of an htpasswd file.
    User(String),
    /// `token:ci`, of a file of tokens.
    Token(String),
    /// `cert:node-1.example`, of a client certificate.
    Certificate(String),
    /// `system:serviceaccount:ns:name`, of a Kubernetes cluster.
    ServiceAccount { namespace: String, name: String },
}

/// Which name of a client certificate its bearer goes by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CertificateName {
    /// The common name of its subject.
    CommonName,
    /// The first DNS name.
    Dns,
    /// The first URI, such as a SPIFFE ID.
    Uri,
}

/// A text that names nobody.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("names nobody")]
pub struct PrincipalError;

impl Principal {
    pub fn is_anonymous(&self) -> bool {
        *self == Self::Anonymous
    }

    /// Reads the subject of a service account's token.
    pub(super) fn service_account(subject: &str) -> Option<Self> {
        let (namespace, name) = subject.strip_prefix(SERVICE_ACCOUNT)?.split_once(':')?;
        let is_name = |text: &str| {
            let is_letter = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-.".contains(&byte);
            !text.is_empty() && text.len() <= 253 && text.bytes().all(is_letter)
        };
        let is_both = is_name(namespace) && is_name(name);
        is_both.then(|| Self::ServiceAccount { namespace: namespace.to_owned(), name: name.to_owned() })
    }
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Anonymous => f.write_str("anonymous"),
            Self::User(name) => write!(f, "user:{name}"),
            Self::Token(name) => write!(f, "token:{name}"),
            Self::Certificate(name) => write!(f, "cert:{name}"),
            Self::ServiceAccount { namespace, name } => write!(f, "{SERVICE_ACCOUNT}{namespace}:{name}"),
        }
    }
}

impl FromStr for Principal {
    type Err = PrincipalError;

    fn from_str(text: &str) -> Result<Self, PrincipalError> {
        if let Some(account) = Self::service_account(text) {
            return Ok(account);
        }
        match text.split_once(':') {
            None if text == "anonymous" => Ok(Self::Anonymous),
            Some(("user", name)) if !name.is_empty() => Ok(Self::User(name.to_owned())),
            Some(("token", name)) if !name.is_empty() => Ok(Self::Token(name.to_owned())),
            Some(("cert", name)) if !name.is_empty() => Ok(Self::Certificate(name.to_owned())),
            _ => Err(PrincipalError),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_principal_is_read_as_it_is_written() {
        for text in [
            "anonymous",
            "user:alice",
            "token:ci",
            "cert:spiffe://a/b:c",
            "system:serviceaccount:ns:name-1",
            "user:x:y",
        ] {
            assert_eq!(text.parse::<Principal>().map(|principal| principal.to_string()), Ok(text.to_owned()));
        }
        for text in ["", "alice", "user:", "root:alice", "system:serviceaccount:ns", "system:node:a"] {
            assert_eq!(text.parse::<Principal>(), Err(PrincipalError), "{text}");
        }
    }

    #[test]
    fn only_names_as_kubernetes_gives_them_are_service_accounts() {
        for text in [
            "system:serviceaccount::name",
            "system:serviceaccount:ns:",
            "system:serviceaccount:ns:a:b",
            "system:serviceaccount:NS:a",
            "system:node:a",
        ] {
            assert_eq!(Principal::service_account(text), None, "{text}");
        }
    }
}
