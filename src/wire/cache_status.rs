//! Why an answer was given: the closed set of cache outcomes, and the `Cache-Status` header that tells them (P-147).
//!
//! The same words are the `result` label of metrics and a field of the access log.
//!
//! | outcome | header | when |
//! |---|---|---|
//! | hit | `hit` | from the store, nobody was asked |
//! | miss | `fwd=miss; stored` | fetched, and kept |
//! | coalesced | `fwd=miss; collapsed` | joined the fill that another request had started |
//! | revalidated | `fwd=stale; detail=revalidated` | the upstream confirmed what was at hand |
//! | stale | `fwd=stale; detail=stale` | the upstream could not confirm it, and policy allows that |
//! | negative | `hit; detail=negative` | absence was remembered |
//! | bypass | `fwd=bypass` | streamed through, not kept |
//! | error | `fwd=miss; detail=error` | no answer could be had |
//!
//! Source: RFC 9211.

use http::HeaderValue;

/// What the cache did for one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    Hit,
    Miss,
    Coalesced,
    Revalidated,
    Stale,
    Negative,
    Bypass,
    Error,
}

impl Outcome {
    pub const ALL: [Self; 8] = [
        Self::Hit,
        Self::Miss,
        Self::Coalesced,
        Self::Revalidated,
        Self::Stale,
        Self::Negative,
        Self::Bypass,
        Self::Error,
    ];

    /// Returns the word for metrics and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Miss => "miss",
            Self::Coalesced => "coalesced",
            Self::Revalidated => "revalidated",
            Self::Stale => "stale",
            Self::Negative => "negative",
            Self::Bypass => "bypass",
            Self::Error => "error",
        }
    }

    /// Returns the header's value without `detail`.
    fn base(self) -> &'static str {
        match self {
            Self::Hit | Self::Negative => "cachalot; hit",
            Self::Miss => "cachalot; fwd=miss; stored",
            Self::Coalesced => "cachalot; fwd=miss; collapsed",
            Self::Revalidated | Self::Stale => "cachalot; fwd=stale",
            Self::Bypass => "cachalot; fwd=bypass",
            Self::Error => "cachalot; fwd=miss",
        }
    }

    /// Returns the header's value where there is nothing else to tell.
    fn plain(self) -> &'static str {
        match self {
            Self::Hit | Self::Miss | Self::Coalesced | Self::Bypass => self.base(),
            Self::Negative => "cachalot; hit; detail=negative",
            Self::Revalidated => "cachalot; fwd=stale; detail=revalidated",
            Self::Stale => "cachalot; fwd=stale; detail=stale",
            Self::Error => "cachalot; fwd=miss; detail=error",
        }
    }
}

/// Characters of a detail at the most; it is a word or a short sentence.
const DETAIL_LENGTH_MAX: usize = 128;

/// Returns the value of `Cache-Status`; without a detail it is static.
pub fn header(outcome: Outcome, detail: Option<&str>) -> HeaderValue {
    header_with_ttl(outcome, None, detail)
}

/// Returns the value of `Cache-Status` with the seconds that the answer stays fresh, negative when it is stale.
pub fn header_with_ttl(outcome: Outcome, ttl_seconds: Option<i64>, detail: Option<&str>) -> HeaderValue {
    let plain = HeaderValue::from_static(outcome.plain());
    if ttl_seconds.is_none() && detail.is_none() {
        return plain;
    }
    let base = if detail.is_some() { outcome.base() } else { outcome.plain() };
    let ttl = ttl_seconds.map(|ttl| format!("; ttl={ttl}")).unwrap_or_default();
    let detail = detail.map(|detail| format!("; detail={}", item(detail))).unwrap_or_default();
    // `item` leaves printable ASCII only, which every header value may hold.
    HeaderValue::from_str(&format!("{base}{ttl}{detail}")).unwrap_or(plain)
}

/// Writes a token where the text is one, else a string (RFC 8941 §3.3.3, §3.3.4); what neither may hold becomes `?`.
fn item(text: &str) -> String {
    let is_token = text.starts_with(|first: char| first.is_ascii_alphabetic())
        && text.len() <= DETAIL_LENGTH_MAX
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~:/".contains(&byte));
    if is_token {
        return text.to_owned();
    }
    let mut quoted = String::from("\"");
    for letter in text.chars().take(DETAIL_LENGTH_MAX) {
        match letter {
            '"' | '\\' => quoted.extend(['\\', letter]),
            ' '..='~' => quoted.push(letter),
            _ => quoted.push('?'),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(value: &HeaderValue) -> &str {
        value.to_str().expect("ASCII")
    }

    #[test]
    fn each_outcome_has_its_header() {
        let rows = [
            (Outcome::Hit, "cachalot; hit", "cachalot; hit; detail=x"),
            (Outcome::Miss, "cachalot; fwd=miss; stored", "cachalot; fwd=miss; stored; detail=x"),
            (Outcome::Coalesced, "cachalot; fwd=miss; collapsed", "cachalot; fwd=miss; collapsed; detail=x"),
            (Outcome::Revalidated, "cachalot; fwd=stale; detail=revalidated", "cachalot; fwd=stale; detail=x"),
            (Outcome::Stale, "cachalot; fwd=stale; detail=stale", "cachalot; fwd=stale; detail=x"),
            (Outcome::Negative, "cachalot; hit; detail=negative", "cachalot; hit; detail=x"),
            (Outcome::Bypass, "cachalot; fwd=bypass", "cachalot; fwd=bypass; detail=x"),
            (Outcome::Error, "cachalot; fwd=miss; detail=error", "cachalot; fwd=miss; detail=x"),
        ];
        assert_eq!(rows.map(|(outcome, ..)| outcome), Outcome::ALL, "P-147");
        for (outcome, plain, detailed) in rows {
            assert_eq!(text(&header(outcome, None)), plain, "P-147");
            assert_eq!(text(&header(outcome, Some("x"))), detailed, "P-147");
        }
    }

    #[test]
    fn details_and_times_are_structured_fields() {
        let rows = [
            (Some(-412), Some("upstream_error"), "cachalot; fwd=stale; ttl=-412; detail=upstream_error"),
            (Some(7), None, "cachalot; fwd=stale; detail=stale; ttl=7"),
            (None, Some("two words"), r#"cachalot; fwd=stale; detail="two words""#),
            (None, Some("a\"b\\c\r\né"), r#"cachalot; fwd=stale; detail="a\"b\\c???""#),
            (None, Some(""), r#"cachalot; fwd=stale; detail="""#),
            (None, Some("429"), r#"cachalot; fwd=stale; detail="429""#),
        ];
        for (ttl_seconds, detail, expected) in rows {
            assert_eq!(text(&header_with_ttl(Outcome::Stale, ttl_seconds, detail)), expected, "RFC 9211 §2");
        }
    }

    proptest! {
        #[test]
        fn any_detail_gives_a_bounded_header(detail in "\\PC{0,300}|[\\x00-\\x7f]{0,300}") {
            let value = header(Outcome::Bypass, Some(&detail));
            prop_assert!(text(&value).starts_with("cachalot; fwd=bypass; detail="));
            prop_assert!(value.len() <= 2 * DETAIL_LENGTH_MAX + 40);
        }
    }
}
