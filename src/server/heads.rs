//! What a request head must be before it is looked at any further: clear about whom it is for, and where it ends.

use http::header::{HOST, TRANSFER_ENCODING};
use http::request::Parts;
use http::{Method, StatusCode, Version};

use super::limits::HEADERS_MAX;
use super::respond::Problem;
use crate::oci::ErrorCode;

/// Lets a head pass.
///
/// # Errors
/// What is wrong with it.
pub(super) fn check(request: &Parts) -> Result<(), Problem> {
    let wrong = |message: &str| Err(Problem::new(StatusCode::BAD_REQUEST, ErrorCode::Unsupported, message));
    // HTTP/1.1 counts while it reads; HTTP/2 counts bytes only.
    if request.headers.len() > HEADERS_MAX {
        let message = format!("the request has more than {HEADERS_MAX} header lines");
        return Err(Problem::new(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, ErrorCode::Unsupported, message));
    }
    // RFC 9112 §3.2: a server MUST answer 400 to a request that lacks Host, or has more than one.
    match request.headers.get_all(HOST).iter().count() {
        0 if request.version == Version::HTTP_11 => return wrong("the request has no Host"),
        0 | 1 => {}
        _ => return wrong("the request has more than one Host"),
    }
    // A body of which the sender does not know the length belongs to a push. Elsewhere it is a way to hide a second request from whoever
    // reads the same bytes by another rule (S-22).
    if request.headers.contains_key(TRANSFER_ENCODING)
        && [Method::GET, Method::HEAD, Method::DELETE].contains(&request.method)
    {
        return wrong("a request of this method has no Transfer-Encoding");
    }
    Ok(())
}

/// Returns whom the request is for: what its target says goes before the header (RFC 9112 §3.2.2, RFC 9113 §8.3.1).
pub(super) fn host(request: &Parts) -> Option<&str> {
    let authority = request.uri.authority().map(http::uri::Authority::as_str);
    authority.or_else(|| request.headers.get(HOST)?.to_str().ok())
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn parts(method: &str, uri: &str, headers: &[(&str, &str)]) -> Parts {
        let request = Request::builder().method(method).uri(uri);
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        request.body(()).unwrap().into_parts().0
    }

    #[test]
    fn a_head_must_be_clear() {
        for (method, headers, expected) in [
            ("GET", &[("host", "a")][..], None),
            ("GET", &[], Some(400)),
            ("GET", &[("host", "a"), ("host", "a")], Some(400)),
            ("GET", &[("host", "a"), ("transfer-encoding", "chunked")], Some(400)),
            ("PATCH", &[("host", "a"), ("transfer-encoding", "chunked")], None),
            ("GET", &[("host", "a"); HEADERS_MAX + 1], Some(431)),
        ] {
            let checked = check(&parts(method, "/v2/", headers));
            assert_eq!(
                checked.err().map(|problem| problem.status.as_u16()),
                expected,
                "S-22, S-33: {method} {headers:?}"
            );
        }
        let mut old = parts("GET", "/v2/", &[]);
        old.version = Version::HTTP_10;
        assert_eq!(check(&old), Ok(()));
    }

    #[test]
    fn the_target_says_whom_a_request_is_for_before_its_header() {
        assert_eq!(host(&parts("GET", "http://a.test:80/v2/", &[("host", "b.test")])), Some("a.test:80"));
        assert_eq!(host(&parts("GET", "/v2/", &[("host", "b.test")])), Some("b.test"));
        assert_eq!(host(&parts("GET", "/v2/", &[])), None);
    }
}
