//! `Link` (RFC 8288), as far as lists in pages need it: where the next page is.

/// Returns the target of the first link with the relation `next`, as it stands; `None` when there is none.
pub fn next<'a>(lines: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    lines.into_iter().find_map(next_of_line)
}

/// Returns the value of a `Link` header to the next page at `target`, a path with its query.
pub fn to_next(target: &str) -> String {
    format!("<{target}>; rel=\"next\"")
}

fn next_of_line(line: &str) -> Option<&str> {
    let mut rest = line;
    loop {
        let (target, after) = rest.split_once('<')?.1.split_once('>')?;
        let (parameters, following) = split_outside_quotes(after, ',');
        if has_relation_next(parameters) {
            return Some(target);
        }
        rest = following;
    }
}

fn has_relation_next(parameters: &str) -> bool {
    let mut rest = parameters;
    while !rest.is_empty() {
        let (parameter, following) = split_outside_quotes(rest, ';');
        if let Some((name, value)) = parameter.split_once('=')
            && name.trim().eq_ignore_ascii_case("rel")
        {
            // RFC 8288 §3.3: only the first `rel` of a link counts; it may list several relations.
            let relations = value.trim().trim_matches('"');
            return relations.split_ascii_whitespace().any(|relation| relation.eq_ignore_ascii_case("next"));
        }
        rest = following;
    }
    false
}

/// Splits at the first `separator` that does not stand in quotes; without one, nothing follows.
fn split_outside_quotes(text: &str, separator: char) -> (&str, &str) {
    let mut is_quoted = false;
    for (at, character) in text.char_indices() {
        match character {
            '"' => is_quoted = !is_quoted,
            _ if character == separator && !is_quoted => {
                let (before, after) = text.split_at(at);
                return (before, after.get(separator.len_utf8()..).unwrap_or_default());
            }
            _ => {}
        }
    }
    (text, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_page_is_found_among_links() {
        let rows: &[(&str, &[&str], Option<&str>)] = &[
            ("plain", &[r#"</v2/a/tags/list?n=2&last=b>; rel="next""#], Some("/v2/a/tags/list?n=2&last=b")),
            ("without quotes", &["<?last=b>;rel=next"], Some("?last=b")),
            ("names in any case", &["<x>; REL=Next"], Some("x")),
            ("several relations", &[r#"<x>; rel="last next""#], Some("x")),
            ("after another link", &[r#"<a,b>; rel="prev"; title="x, <y>", <c>; rel="next""#], Some("c")),
            ("in another line", &[r#"<a>; rel="prev""#, r#"<b>; rel="next""#], Some("b")),
            ("the first relation counts", &[r#"<a>; rel="prev"; rel="next""#], None),
            ("no relation", &["<a>"], None),
            ("none", &[], None),
            ("not a link", &["next", "<a; rel=next", "", ">", "<"], None),
        ];
        for (name, lines, expected) in rows {
            assert_eq!(next(lines.iter().copied()), *expected, "P-95: {name}");
        }
        assert_eq!(next([to_next("/v2/a?n=1").as_str()]), Some("/v2/a?n=1"));
    }
}
