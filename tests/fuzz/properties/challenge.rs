//! Values of `WWW-Authenticate`, a line each: what is read of a challenge is read again from the challenge that says just that (P-163).

use cachalot::wire::challenge::{Bearer, Challenge, choose, parse};

pub(super) fn holds(input: &[u8]) {
    let lines = super::header_values(input);
    let challenges = parse(lines.iter().copied());
    let bytes: usize = lines.iter().map(|line| line.len()).sum();
    assert!(challenges.len() <= bytes, "no more challenges than bytes");
    for challenge in &challenges {
        if let Challenge::Bearer(bearer) = challenge {
            let again = parse([written(bearer).as_str()]);
            assert!(again == [challenge.clone()] || written(bearer).len() > 8 << 10, "{bearer:?} became {again:?}");
        }
    }
    let has_bearer = challenges.iter().any(|challenge| matches!(challenge, Challenge::Bearer(_)));
    let (count, chosen) = (challenges.len(), choose(challenges));
    assert_eq!(chosen.is_some(), count > 0);
    assert_eq!(matches!(chosen, Some(Challenge::Bearer(_))), has_bearer, "Bearer before Basic");
}

fn written(bearer: &Bearer) -> String {
    let Bearer { realm, service, scope, error } = bearer;
    let quoted = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"");
    let mut text = format!("Bearer realm=\"{}\"", quoted(realm));
    for (name, value) in [("service", service), ("scope", scope), ("error", error)] {
        text.extend(value.as_ref().map(|value| format!(",{name}=\"{}\"", quoted(value))));
    }
    text
}
