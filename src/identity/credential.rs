//! What a request shows: the one `Authorization` header, read.

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue};
use zeroize::Zeroizing;

use crate::telemetry::Secret;

/// Bytes of a header at the most: the token of a service account has a thousand, one that an identity provider gives up to several.
const LENGTH_MAX: usize = 16 * 1024;

/// Clients leave the padding out, or not.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// A credential.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Credential {
    Basic { user: String, password: Secret },
    Bearer(Secret),
}

/// A header that shows something else, or several things.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("Authorization is neither one Basic nor one Bearer credential")]
pub struct CredentialError;

impl Credential {
    /// Reads the credential of a request; `None` when it shows none.
    ///
    /// # Errors
    /// When there are several headers, or one in another form: who shows something odd is not taken for nobody.
    pub fn read(headers: &HeaderMap) -> Result<Option<Self>, CredentialError> {
        let mut values = headers.get_all(AUTHORIZATION).into_iter();
        match (values.next(), values.next()) {
            (None, _) => Ok(None),
            (Some(value), None) => Self::parse(value).map(Some).ok_or(CredentialError),
            (Some(_), Some(_)) => Err(CredentialError),
        }
    }

    /// Makes one of a user and a password, if a header could show them: what a name holds is the same however it comes.
    pub fn basic(user: String, password: Secret) -> Option<Self> {
        let is_plain = !user.contains(':') && !user.chars().chain(password.expose().chars()).any(char::is_control);
        is_plain.then_some(Self::Basic { user, password })
    }

    /// Returns the credential as a header that shows it.
    pub fn basic_header(credential: &Secret) -> Option<HeaderValue> {
        let text = Zeroizing::new(format!("Basic {}", *Zeroizing::new(BASE64.encode(credential.expose()))));
        let mut value = HeaderValue::from_str(&text).ok()?;
        value.set_sensitive(true);
        Some(value)
    }

    fn parse(value: &HeaderValue) -> Option<Self> {
        let text = value.to_str().ok().filter(|text| text.len() <= LENGTH_MAX)?;
        let (scheme, rest) = text.trim().split_once(' ')?;
        let rest = rest.trim();
        if scheme.eq_ignore_ascii_case("bearer") {
            let is_token = !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_graphic());
            return is_token.then(|| Self::Bearer(Secret::new(rest)));
        }
        if !scheme.eq_ignore_ascii_case("basic") {
            return None;
        }
        // RFC 7617 §2: the first colon ends the user.
        let decoded = Zeroizing::new(BASE64.decode(rest).ok()?);
        let decoded = std::str::from_utf8(&decoded).ok()?;
        let (user, password) = decoded.split_once(':')?;
        Self::basic(user.to_owned(), Secret::new(password))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_credential_is_read_and_odd_ones_are_refused() {
        let basic = |user: &str, password: &str| {
            Ok(Some(Credential::Basic { user: user.to_owned(), password: Secret::new(password) }))
        };
        let bearer = |token: &str| Ok(Some(Credential::Bearer(Secret::new(token))));
        for (values, expected) in [
            (&[][..], Ok(None)),
            (&["Basic YWxpY2U6c2VjcmV0"], basic("alice", "secret")),
            (&["bASIC   YWxpY2U6czpl  "], basic("alice", "s:e")),
            (&["Basic YTo="], basic("a", "")),
            (&["Basic YTo"], basic("a", "")),
            (&["Basic OmE="], basic("", "a")),
            (&["BEARER abc.def"], bearer("abc.def")),
            (&["Basic"], Err(CredentialError)),
            (&["Basic "], Err(CredentialError)),
            (&["Bearer "], Err(CredentialError)),
            (&["Bearer a b"], Err(CredentialError)),
            (&["Basic !!!"], Err(CredentialError)),
            (&["Basic YWxpY2U="], Err(CredentialError)),
            (&["Basic YQBiOmM="], Err(CredentialError)),
            (&["Digest username=\"a\""], Err(CredentialError)),
            (&[""], Err(CredentialError)),
            (&["Basic YTo=", "Bearer a"], Err(CredentialError)),
            (&["Basic YTo=", "Basic YTo="], Err(CredentialError)),
        ] {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(AUTHORIZATION, value.parse().unwrap());
            }
            assert_eq!(Credential::read(&headers), expected, "{values:?}");
        }
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, format!("Bearer {}", "a".repeat(LENGTH_MAX)).parse().unwrap());
        assert_eq!(Credential::read(&headers), Err(CredentialError), "it is too long");
        headers.insert(AUTHORIZATION, HeaderValue::from_bytes(b"Bearer \xff").unwrap());
        assert_eq!(Credential::read(&headers), Err(CredentialError));
    }
}
