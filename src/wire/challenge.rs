//! What `WWW-Authenticate` asks for: which scheme, and for a bearer token where to get it.
//!
//! Source: RFC 9110 §11.6.1 and RFC 6750 §3; several headers, several challenges in one header, any case, quoted and
//! unquoted values, commas inside quotes, unknown schemes (P-163). It is lenient, for a challenge gives nothing away:
//! what is done with a realm is decided elsewhere.

/// Bytes of all header values read at the most; real ones have some hundreds.
const LENGTH_MAX: usize = 8 << 10;

/// A challenge that can be answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Challenge {
    Bearer(Bearer),
    Basic,
}

/// A challenge for a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bearer {
    /// Where the token is to be had; not checked in any way.
    pub realm: String,
    pub service: Option<String>,
    /// Scopes, separated by spaces, as sent.
    pub scope: Option<String>,
    /// `invalid_token`, `insufficient_scope` …
    pub error: Option<String>,
}

/// Parses the values of all `WWW-Authenticate` headers of one answer; schemes that cannot be answered are left out.
pub fn parse<'a>(values: impl IntoIterator<Item = &'a str>) -> Vec<Challenge> {
    let mut left = LENGTH_MAX;
    let mut challenges = Vec::new();
    for value in values {
        if value.len() > left {
            break;
        }
        left -= value.len();
        challenges.extend(raw_challenges(value).into_iter().filter_map(Raw::into_challenge));
    }
    challenges
}

/// Picks the challenge to answer: Bearer before Basic (P-163).
pub fn choose(challenges: Vec<Challenge>) -> Option<Challenge> {
    let mut basic = None;
    for challenge in challenges {
        match challenge {
            Challenge::Bearer(_) => return Some(challenge),
            Challenge::Basic => basic = Some(challenge),
        }
    }
    basic
}

/// A scheme with its parameters.
struct Raw<'a> {
    scheme: &'a str,
    parameters: Vec<(&'a str, String)>,
}

impl Raw<'_> {
    fn into_challenge(self) -> Option<Challenge> {
        if self.scheme.eq_ignore_ascii_case("basic") {
            return Some(Challenge::Basic);
        }
        if !self.scheme.eq_ignore_ascii_case("bearer") {
            return None;
        }
        // The first of several parameters of one name counts; an empty one is as good as none.
        let parameter = |name: &str| {
            let found = self.parameters.iter().find(|(key, _)| key.eq_ignore_ascii_case(name))?;
            Some(found.1.clone()).filter(|value| !value.is_empty())
        };
        Some(Challenge::Bearer(Bearer {
            realm: parameter("realm")?,
            service: parameter("service"),
            scope: parameter("scope"),
            error: parameter("error"),
        }))
    }
}

/// Splits one header value. A word before `=` is a parameter of the challenge under way, any other word begins one.
fn raw_challenges(text: &str) -> Vec<Raw<'_>> {
    let mut challenges: Vec<Raw<'_>> = Vec::new();
    let mut rest = skip_separators(text);
    while !rest.is_empty() {
        let (word, after) = split_word(rest);
        if word.is_empty() {
            // Not a token: a token68 of an unknown scheme, or nonsense. The next comma ends it.
            rest = skip_separators(after.split_once(',').map_or("", |(_, rest)| rest));
            continue;
        }
        if let Some(after) = after.trim_start_matches(is_space).strip_prefix('=') {
            let (value, after) = split_value(after.trim_start_matches(is_space));
            if let Some(challenge) = challenges.last_mut() {
                challenge.parameters.push((word, value));
            }
            rest = skip_separators(after);
        } else {
            challenges.push(Raw { scheme: word, parameters: Vec::new() });
            rest = skip_separators(after);
        }
    }
    challenges
}

/// Splits off a token (RFC 9110 §5.6.2).
fn split_word(text: &str) -> (&str, &str) {
    let is_token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    split_at(text, text.find(|c| !is_token(c)))
}

/// Splits off a quoted string, or what stands before the next comma or space.
fn split_value(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let (value, rest) = split_at(text, text.find(|c| c == ',' || is_space(c)));
        return (value.to_owned(), rest);
    };
    let mut value = String::new();
    let mut characters = quoted.chars();
    while let Some(c) = characters.next() {
        match c {
            '"' => break,
            '\\' => value.extend(characters.next()),
            _ => value.push(c),
        }
    }
    (value, characters.as_str())
}

fn split_at(text: &str, place: Option<usize>) -> (&str, &str) {
    text.split_at_checked(place.unwrap_or(text.len())).unwrap_or((text, ""))
}

fn skip_separators(text: &str) -> &str {
    text.trim_start_matches(|c| c == ',' || is_space(c))
}

fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bearer(realm: &str, service: Option<&str>, scope: Option<&str>, error: Option<&str>) -> Challenge {
        let owned = |text: Option<&str>| text.map(str::to_owned);
        let (service, scope, error) = (owned(service), owned(scope), owned(error));
        Challenge::Bearer(Bearer { realm: realm.to_owned(), service, scope, error })
    }

    #[test]
    fn challenges_of_real_registries_and_of_odd_ones_are_understood() {
        let hub = "https://auth.docker.io/token";
        let rows: Vec<(&str, Vec<&str>, Vec<Challenge>)> = vec![
            (
                "docker.io",
                vec![
                    r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:library/alpine:pull""#,
                ],
                vec![bearer(hub, Some("registry.docker.io"), Some("repository:library/alpine:pull"), None)],
            ),
            (
                "a comma inside quotes, an error after it",
                vec![r#"Bearer realm="https://a/t",scope="repository:a:pull,push",error="insufficient_scope""#],
                vec![bearer("https://a/t", None, Some("repository:a:pull,push"), Some("insufficient_scope"))],
            ),
            (
                "unquoted",
                vec!["Bearer realm=https://a/t?x=1,service=s"],
                vec![bearer("https://a/t?x=1", Some("s"), None, None)],
            ),
            (
                "any case, any space",
                vec!["bEARER  REALM = \"r\" , Service\t=s"],
                vec![bearer("r", Some("s"), None, None)],
            ),
            ("an escape", vec![r#"Bearer realm="a\"b\\c""#], vec![bearer(r#"a"b\c"#, None, None, None)]),
            ("an open quote", vec![r#"Bearer realm="abc"#], vec![bearer("abc", None, None, None)]),
            (
                "two in one header",
                vec![r#"Basic realm="x, y", Bearer realm="r""#],
                vec![Challenge::Basic, bearer("r", None, None, None)],
            ),
            (
                "two headers",
                vec!["Basic", r#"Bearer realm="r""#],
                vec![Challenge::Basic, bearer("r", None, None, None)],
            ),
            (
                "unknown schemes, one with a token68",
                vec![r#"Negotiate YII/abc+def==, Digest realm="d", nonce="n", Bearer realm="r""#],
                vec![bearer("r", None, None, None)],
            ),
            ("no realm", vec![r#"Bearer service="s""#, r#"Bearer realm="""#], vec![]),
            ("nothing", vec!["", ",, ,", "=", "\"\"", "realm=\"r\""], vec![]),
            ("a missing comma", vec![r#"Bearer realm="r" service="s""#], vec![bearer("r", Some("s"), None, None)]),
        ];
        for (name, values, expected) in rows {
            assert_eq!(parse(values), expected, "{name}");
        }
    }

    #[test]
    fn bearer_goes_before_basic() {
        assert_eq!(choose(parse([r#"Basic realm="b", Bearer realm="r""#])), Some(bearer("r", None, None, None)));
        assert_eq!(choose(parse(["Basic"])), Some(Challenge::Basic));
        assert_eq!(choose(parse(["Negotiate"])), None);
    }

    #[test]
    fn more_than_the_limit_is_not_read() {
        let long = format!("Bearer realm=\"{}\"", "r".repeat(LENGTH_MAX));
        assert_eq!(parse([long.as_str()]), vec![]);
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic_or_hang(text in "\\PC{0,200}") {
            let _ = parse([text.as_str()]);
        }
    }
}
