//! `Authorization` headers, scopes, and the lines of files of users and tokens, a line each: what is read of a credential is all that the
//! header says (RFC 7617, RFC 6750), and what is wrong in a file is told with a line that it has.

use cachalot::identity::{Credential, Htpasswd, TokenKeys, Tokens};
use cachalot::telemetry::Secret;
use cachalot::wire::Scope;
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue};

pub(super) fn holds(input: &[u8]) {
    for line in super::header_values(input) {
        header(line);
        if let Some(scope) = Scope::parse(line) {
            assert_eq!(scope.to_string(), line, "P-178");
        }
        if let Some(scope) = Scope::of_path(line, "pull") {
            assert_eq!(Scope::parse(&scope.to_string()), Some(scope), "P-178");
        }
    }
    let Ok(text) = std::str::from_utf8(input) else { return };
    let lines = text.split('\n').count();
    for told in
        [Htpasswd::parse(text).err(), Tokens::parse(text).err(), TokenKeys::parse(text).err()].into_iter().flatten()
    {
        let told = told.to_string();
        let number = told.split(|c: char| !c.is_ascii_digit()).find_map(|digits| digits.parse::<usize>().ok());
        assert!(number.is_none_or(|number| number <= lines.max(72)), "{told:?} of {lines} lines");
    }
}

fn header(line: &str) {
    let mut headers = HeaderMap::new();
    headers.extend(HeaderValue::from_str(line).map(|value| (AUTHORIZATION, value)));
    match Credential::read(&headers) {
        Ok(Some(Credential::Basic { user, password })) => {
            assert!(!user.contains(':'), "RFC 7617 §2: {user:?}");
            let shown = Secret::new(format!("{user}:{}", password.expose()));
            let again = Credential::basic_header(&shown).expect("it can be shown again");
            let again = Credential::read(&HeaderMap::from_iter([(AUTHORIZATION, again)]));
            assert_eq!(again, Ok(Some(Credential::Basic { user, password })), "RFC 7617");
        }
        Ok(Some(Credential::Bearer(token))) => assert!(line.contains(token.expose()) && !token.is_empty(), "RFC 6750"),
        Ok(None) => assert!(headers.is_empty()),
        Err(_) => {
            headers.append(AUTHORIZATION, HeaderValue::from_static("Bearer x"));
            assert!(Credential::read(&headers).is_err(), "what is odd does not get better by another");
        }
    }
}
