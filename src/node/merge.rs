//! Our host table in a `hosts.toml` of somebody else's: before their hosts, every byte of theirs kept.
//!
//! containerd asks hosts in the order in which their tables stand. TOML wants keys of the file (`server`) before the first table, so
//! the place is right before theirs. What is inserted comes out again as it went in, also after they changed the rest.

/// Where a text is inserted, and what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Insertion {
    pub merged: Vec<u8>,
    /// With a line break in front where theirs has none.
    pub inserted: String,
}

/// Why theirs is left alone.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum MergeError {
    #[error("it is not TOML, and containerd cannot read it either: {0}")]
    NotToml(String),
    #[error("it has a host of this name already")]
    Present,
    #[error("its hosts are written in a way that takes no further table")]
    Structure,
}

/// Inserts the table of one host, `block`, before all tables of `theirs`.
pub(super) fn prepend(theirs: &[u8], block: &str) -> Result<Insertion, MergeError> {
    let not_toml = |error: toml::de::Error| MergeError::NotToml(error.message().to_owned());
    let text = std::str::from_utf8(theirs).map_err(|error| MergeError::NotToml(error.to_string()))?;
    let before: toml::Table = text.parse().map_err(not_toml)?;
    let ours: toml::Table = block.parse().map_err(not_toml)?;
    let place = first_table(text);
    let gap = if text.get(..place).is_some_and(|above| above.is_empty() || above.ends_with('\n')) { "" } else { "\n" };
    let inserted = format!("{gap}{block}");
    let (above, below) = text.split_at(place);
    let merged = format!("{above}{inserted}{below}");

    let mut expected = before;
    let hosts = expected.entry("host").or_insert_with(|| toml::Table::new().into());
    let hosts = hosts.as_table_mut().ok_or(MergeError::Structure)?;
    for (name, host) in ours.get("host").and_then(toml::Value::as_table).into_iter().flatten() {
        if hosts.insert(name.clone(), host.clone()).is_some() {
            return Err(MergeError::Present);
        }
    }
    match merged.parse::<toml::Table>() {
        Ok(after) if after == expected => Ok(Insertion { merged: merged.into_bytes(), inserted }),
        Ok(_) | Err(_) => Err(MergeError::Structure),
    }
}

/// Takes out what was inserted; `None` where it is not there as it went in, or more than once.
pub(super) fn cut(merged: &[u8], inserted: &str) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(merged).ok()?;
    let mut parts = text.split(inserted);
    match (parts.next(), parts.next(), parts.next()) {
        (Some(above), Some(below), None) => Some([above, below].concat().into_bytes()),
        _ => None,
    }
}

/// Returns the offset of the first line that begins a table, or of the comment right above it, or the length. A bracket in a string
/// or an array of several lines is told apart by what stands before it, which is no document then.
fn first_table(text: &str) -> usize {
    let mut offset = 0;
    for line in text.split_inclusive('\n') {
        let is_document = || text.get(..offset).is_some_and(|above| above.parse::<toml::Table>().is_ok());
        if line.trim_start().starts_with('[') && is_document() {
            return text.get(..offset).map_or(offset, comment_start);
        }
        offset += line.len();
    }
    offset
}

/// Returns where the comment begins with which a text ends.
fn comment_start(text: &str) -> usize {
    let lines = text.split_inclusive('\n').rev().take_while(|line| line.trim_start().starts_with('#'));
    text.len() - lines.map(str::len).sum::<usize>()
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLOCK: &str = "# begin\n[host.\"http://cache:5000\"]\n  capabilities = [\"pull\"]\n# end\n";

    #[test]
    fn ours_comes_before_their_tables_and_goes_out_without_a_trace() {
        let rows = [
            ("", 0),
            ("server = \"https://a\"\n", 21),
            ("server = \"https://a\"", 20),
            ("server = \"https://a\"\n\n# theirs\n[host.\"https://b\"]\n  ca = \"x\"\n", 22),
            ("[host.\"https://b\"]\n", 0),
            ("  [host.\"https://b\"]\r\n", 0),
            ("capabilities = [\n[\"pull\"][0],\n", usize::MAX),
            ("ca = [\n  # [host]\n  \"a\",\n[][0]", usize::MAX),
            ("a = \"\"\"\n[host.x]\n\"\"\"\n[header]\nx = \"y\"\n", 21),
            ("client = [\n[\"a.cert\", \"a.key\"]\n]\n[host.\"https://b\"]\n", 33),
        ];
        for (theirs, place) in rows {
            let Ok(insertion) = prepend(theirs.as_bytes(), BLOCK) else {
                assert_eq!(place, usize::MAX, "{theirs:?}");
                continue;
            };
            assert_eq!(first_table(theirs), place, "{theirs:?}");
            assert_eq!(cut(&insertion.merged, &insertion.inserted).unwrap(), theirs.as_bytes(), "{theirs:?}");
        }
    }

    #[test]
    fn what_takes_no_table_is_left_alone() {
        let refusal = |theirs: &[u8]| prepend(theirs, BLOCK).unwrap_err();
        assert_eq!(refusal(b"[host.\"http://cache:5000\"]\n"), MergeError::Present);
        assert_eq!(refusal(b"host = \"a\"\n"), MergeError::Structure);
        assert_eq!(refusal(b"host = { \"https://b\" = { ca = \"x\" } }\n"), MergeError::Structure);
        assert!(matches!(refusal(b"server = \n"), MergeError::NotToml(_)));
        assert!(matches!(refusal(b"\xff"), MergeError::NotToml(_)));
    }

    #[test]
    fn what_they_changed_since_stays() {
        let insertion = prepend(b"server = \"https://a\"\n[host.\"https://b\"]\n", BLOCK).unwrap();
        let text = String::from_utf8(insertion.merged).unwrap();
        let edited = text.replace("https://b", "https://c") + "  ca = \"x\"\n";
        let cut_out = cut(edited.as_bytes(), &insertion.inserted).unwrap();
        assert_eq!(cut_out, b"server = \"https://a\"\n[host.\"https://c\"]\n  ca = \"x\"\n");
        assert_eq!(cut(text.replace("[\"pull\"]", "[]").as_bytes(), &insertion.inserted), None);
        assert_eq!(cut((text.clone() + &text).as_bytes(), &insertion.inserted), None);
    }
}
