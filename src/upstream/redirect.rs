//! Whether a redirect is followed, and whether the `Authorization` goes along.
//!
//! | next location | verdict |
//! |---|---|
//! | the eleventh | refused |
//! | not a URL, also relative to where we are | refused |
//! | neither `http` nor `https` | refused |
//! | `http` from `https` | refused |
//! | with userinfo | refused |
//! | same scheme, host and port | followed with the `Authorization` |
//! | any other | followed without; nobody adds it again later |
//!
//! Source: U-59, U-60, S-30; distribution-spec "API" (dev). Which addresses may be dialled is decided elsewhere.

use url::Url;

/// Redirects in a row at the most (U-59).
pub(super) const HOPS_MAX: usize = 10;

/// What to do with a redirect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    Follow {
        url: Url,
        /// Scheme, host and port are the same as before.
        keeps_authorization: bool,
    },
    Refuse(Refusal),
}

/// Why a redirect is not followed. Never with the location: it may hold a signature (S-40).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    #[error("more than {HOPS_MAX} redirects")]
    TooMany,
    #[error("redirect to something that is not a URL")]
    NotAUrl,
    #[error("redirect to a scheme other than http and https")]
    Scheme,
    #[error("redirect from https to http")]
    Downgrade,
    #[error("redirect to a URL with userinfo")]
    Userinfo,
}

/// Decides about the redirect from `current` to `location` after `hops` redirects that were followed.
pub(super) fn decide(current: &Url, location: &str, hops: usize) -> Verdict {
    if hops >= HOPS_MAX {
        return Verdict::Refuse(Refusal::TooMany);
    }
    let Ok(mut url) = current.join(location) else { return Verdict::Refuse(Refusal::NotAUrl) };
    match (current.scheme(), url.scheme()) {
        ("https", "http") => return Verdict::Refuse(Refusal::Downgrade),
        (_, "http" | "https") => {}
        _ => return Verdict::Refuse(Refusal::Scheme),
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Verdict::Refuse(Refusal::Userinfo);
    }
    url.set_fragment(None);
    let keeps_authorization = url.origin() == current.origin();
    Verdict::Follow { url, keeps_authorization }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a row expects: the URL and whether the authorization is kept, or the refusal.
    type Expected = Result<(&'static str, bool), Refusal>;

    #[test]
    fn every_kind_of_location_has_its_verdict() {
        let rows: &[(&str, &str, Expected)] = &[
            ("https://a/v2/x", "https://a/y", Ok(("https://a/y", true))),
            ("https://a/v2/x", "https://a:443/y", Ok(("https://a/y", true))),
            ("https://a/v2/x", "https://A/y", Ok(("https://a/y", true))),
            ("https://a/v2/x", "/y?z=1", Ok(("https://a/y?z=1", true))),
            ("https://a/v2/x", "y", Ok(("https://a/v2/y", true))),
            ("https://a/v2/x", "?z", Ok(("https://a/v2/x?z", true))),
            ("https://a/v2/x", "https://a/y#part", Ok(("https://a/y", true))),
            ("https://a/v2/x", "https://a:444/y", Ok(("https://a:444/y", false))),
            ("https://a/v2/x", "https://b/y", Ok(("https://b/y", false))),
            ("https://a/v2/x", "https://a.b/y", Ok(("https://a.b/y", false))),
            ("https://a/v2/x", "//b/y", Ok(("https://b/y", false))),
            ("https://a/v2/x", "\\\\b\\y", Ok(("https://b/y", false))),
            ("http://a/v2/x", "https://a/y", Ok(("https://a/y", false))),
            ("http://a:5000/x", "http://a:5001/y", Ok(("http://a:5001/y", false))),
            ("https://a/v2/x", "http://a/y", Err(Refusal::Downgrade)),
            ("https://a/v2/x", "http://b/y", Err(Refusal::Downgrade)),
            ("https://a/v2/x", "file:///etc/passwd", Err(Refusal::Scheme)),
            ("http://a/v2/x", "gopher://a/", Err(Refusal::Scheme)),
            ("http://a/v2/x", "javascript:1", Err(Refusal::Scheme)),
            ("https://a/v2/x", "https://user@a/y", Err(Refusal::Userinfo)),
            ("https://a/v2/x", "https://:password@b/y", Err(Refusal::Userinfo)),
            ("https://a/v2/x", "https://", Err(Refusal::NotAUrl)),
            ("https://a/v2/x", "https://[::1/y", Err(Refusal::NotAUrl)),
        ];
        for (current, location, expected) in rows {
            let verdict = decide(&Url::parse(current).expect("a URL"), location, 0);
            let expected = match expected {
                Ok((url, keeps_authorization)) => {
                    Verdict::Follow { url: Url::parse(url).expect("a URL"), keeps_authorization: *keeps_authorization }
                }
                Err(refusal) => Verdict::Refuse(*refusal),
            };
            assert_eq!(verdict, expected, "{current} → {location}");
        }
    }

    #[test]
    fn the_tenth_redirect_is_followed_and_the_eleventh_is_not() {
        let url = Url::parse("https://a/").expect("a URL");
        assert!(matches!(decide(&url, "/b", HOPS_MAX - 1), Verdict::Follow { .. }));
        assert_eq!(decide(&url, "/b", HOPS_MAX), Verdict::Refuse(Refusal::TooMany));
    }
}
