//! How many requests a peer leaves us: `ratelimit-limit` and `ratelimit-remaining`, as Docker Hub sends them (U-5).
//!
//! ```text
//! ratelimit-limit: 100;w=21600
//! ratelimit-remaining: 76;w=21600
//! ```
//! Other forms of draft-ietf-httpapi-ratelimit-headers begin with the same number; what follows it is read as far as it is understood.

use std::time::Duration;

use http::HeaderMap;

/// What is left of a quota.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quota {
    pub limit: u64,
    pub remaining: u64,
    /// The time that the limit is for, when it is told.
    pub window: Option<Duration>,
}

impl Quota {
    /// Reads the headers of an answer; `None` when they do not tell both numbers.
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        let value = |name: &str| headers.get(name)?.to_str().ok();
        let (limit, window) = parse(value("ratelimit-limit")?)?;
        let (remaining, window_left) = parse(value("ratelimit-remaining")?)?;
        Some(Self { limit, remaining, window: window.or(window_left) })
    }
}

/// Reads `<number>[;w=<seconds>]`, and of a list the first element.
fn parse(value: &str) -> Option<(u64, Option<Duration>)> {
    let first = value.split(',').next()?;
    let mut parts = first.split(';').map(str::trim);
    let number = digits(parts.next()?)?;
    let window = parts.find_map(|part| digits(part.strip_prefix("w=")?)).map(Duration::from_secs);
    Some((number, window))
}

fn digits(text: &str) -> Option<u64> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_numbers_are_read_or_none() {
        let quota = |limit, remaining, window: Option<u64>| {
            Some(Quota { limit, remaining, window: window.map(Duration::from_secs) })
        };
        for (limit, remaining, expected) in [
            (Some("100;w=21600"), Some("76;w=21600"), quota(100, 76, Some(21_600))),
            (Some("100"), Some("0"), quota(100, 0, None)),
            (Some("100, 100;w=60"), Some("5"), quota(100, 5, None)),
            (Some(" 200 ; w=60 ; comment=x"), Some("5"), quota(200, 5, Some(60))),
            (Some("100;w=soon"), Some("5"), quota(100, 5, None)),
            (Some("100"), None, None),
            (None, Some("5"), None),
            (Some("many"), Some("5"), None),
            (Some("-1"), Some("5"), None),
            (Some(""), Some(""), None),
            (Some("99999999999999999999"), Some("5"), None),
        ] {
            let mut headers = HeaderMap::new();
            for (name, value) in [("ratelimit-limit", limit), ("ratelimit-remaining", remaining)] {
                if let Some(value) = value {
                    headers.insert(name, value.parse().expect("a header"));
                }
            }
            assert_eq!(Quota::of(&headers), expected, "U-5: {limit:?} {remaining:?}");
        }
    }
}
