//! A page of a repository's tags, as it goes over the wire.
//!
//! Source: distribution-spec 1.1 "Listing tags".

use bytes::Bytes;
use serde_json::{Map, Value};

/// A page of tags, in order, with whatever else the registry says beside them (P-99).
#[derive(Debug, Clone, PartialEq)]
pub struct TagList {
    tags: Vec<String>,
    members: Map<String, Value>,
}

/// Why a document is no list of tags.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TagListError {
    #[error("not a JSON object")]
    NotAnObject,
    #[error("`tags` is missing, or not a list of strings")]
    NoTags,
}

impl TagList {
    /// Reads a registry's answer, whatever type it claims to be (P-100); `null` for the tags is an empty list.
    ///
    /// # Errors
    /// When it is no object, or has no tags.
    pub fn read(bytes: &[u8]) -> Result<Self, TagListError> {
        let mut members: Map<String, Value> = serde_json::from_slice(bytes).map_err(|_| TagListError::NotAnObject)?;
        let mut tags = match members.remove("tags") {
            Some(Value::Null) => Vec::new(),
            Some(Value::Array(tags)) => {
                let texts = tags.into_iter().map(|tag| match tag {
                    Value::String(text) => Ok(text),
                    _ => Err(TagListError::NoTags),
                });
                texts.collect::<Result<_, _>>()?
            }
            Some(_) | None => return Err(TagListError::NoTags),
        };
        tags.sort_unstable();
        tags.dedup();
        Ok(Self { tags, members })
    }

    /// Drops `last`, after which the page should begin: some registries repeat it.
    pub fn after(&mut self, last: &str) {
        self.tags.retain(|tag| tag != last);
    }

    /// Makes a page of a list that is whole although a page was asked for: the tags after `last`, at most `n` of them. Returns the last
    /// one when more follow.
    pub fn cut(&mut self, last: Option<&str>, n: Option<usize>) -> Option<&str> {
        // A list without it begins after it.
        if let Some(last) = last.filter(|last| self.tags.iter().any(|tag| tag == last)) {
            self.tags.retain(|tag| tag.as_str() > last);
        }
        let n = n.filter(|n| *n < self.tags.len())?;
        self.tags.truncate(n);
        self.tags.last().map(String::as_str)
    }

    /// Returns a page without its tags: what a client that asks for none of them wants.
    pub fn without_tags(json: &[u8]) -> Bytes {
        let members = Self::read(json).map(|list| list.members).unwrap_or_default();
        Self { tags: Vec::new(), members }.to_json().into()
    }

    /// Returns the document, the tags in ASCII order (P-93).
    pub fn to_json(&self) -> Vec<u8> {
        let mut members = self.members.clone();
        members.insert("tags".to_owned(), self.tags.iter().cloned().map(Value::String).collect());
        // Strings as keys: encoding cannot fail.
        serde_json::to_vec(&members).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_registry_says_becomes_a_page_in_order() {
        for (name, given, expected) in [
            ("sorted", r#"{"name":"a","tags":["b","a","C"]}"#, Ok(r#"{"name":"a","tags":["C","a","b"]}"#)),
            ("once each", r#"{"name":"a","tags":["b","b"]}"#, Ok(r#"{"name":"a","tags":["b"]}"#)),
            ("null", r#"{"name":"a","tags":null}"#, Ok(r#"{"name":"a","tags":[]}"#)),
            ("more beside them", r#"{"child":[],"tags":[]}"#, Ok(r#"{"child":[],"tags":[]}"#)),
            ("no tags", r#"{"name":"a"}"#, Err(TagListError::NoTags)),
            ("not strings", r#"{"tags":[1]}"#, Err(TagListError::NoTags)),
            ("not a list", r#"{"tags":"a"}"#, Err(TagListError::NoTags)),
            ("a list", "[]", Err(TagListError::NotAnObject)),
            ("a page", "<html>", Err(TagListError::NotAnObject)),
        ] {
            let read = TagList::read(given.as_bytes()).map(|list| String::from_utf8(list.to_json()).unwrap());
            assert_eq!(read, expected.map(str::to_owned), "P-93, P-99: {name}");
        }
    }

    #[test]
    fn a_list_that_ignores_what_was_asked_is_cut() {
        for (last, n, tags, next) in [
            (None, None, "abc", None),
            (None, Some(2), "ab", Some("b")),
            (None, Some(3), "abc", None),
            (Some("a"), Some(1), "b", Some("b")),
            (Some("b"), Some(9), "c", None),
            (Some("c"), None, "", None),
            (Some("0"), None, "abc", None),
            (Some("x"), Some(1), "a", Some("a")),
        ] {
            let mut list = TagList::read(br#"{"tags":["c","a","b"]}"#).unwrap();
            assert_eq!(list.cut(last, n).map(str::to_owned).as_deref(), next, "P-94: {last:?} {n:?}");
            assert_eq!(list.tags.concat(), tags, "P-94: {last:?} {n:?}");
        }
    }

    #[test]
    fn a_page_begins_after_the_last_one() {
        let mut list = TagList::read(br#"{"tags":["b","c"]}"#).unwrap();
        list.after("b");
        assert_eq!(list.to_json(), br#"{"tags":["c"]}"#);
        assert_eq!(TagList::without_tags(br#"{"name":"a","tags":["c"]}"#), r#"{"name":"a","tags":[]}"#);
    }
}
