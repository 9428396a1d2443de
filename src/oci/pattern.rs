//! Patterns for names of repositories and for tags, as an operator writes them.
//!
//! | in the pattern | stands for |
//! |---|---|
//! | `*` | any characters but `/`, also none |
//! | `**` | any characters, also none |
//! | `?` | one character but `/` |
//! | anything else | itself |
//!
//! A pattern fits the whole name: `library/*` fits `library/alpine` and not `library/a/b`; `v*` fits `v1.2`.

use std::fmt;
use std::str::FromStr;

/// Characters of a pattern at the most: a repository's name has 255.
const PATTERN_CHARS_MAX: usize = 256;

/// A pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern(String);

/// Why a text is no pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    #[error("is empty")]
    Empty,
    #[error("is longer than {PATTERN_CHARS_MAX} characters")]
    TooLong,
    #[error("holds {0:?}, which no name has")]
    Character(char),
}

impl Pattern {
    /// Reads a pattern of names that have more letters than those of repositories and tags: of principals (`user:a@b`,
    /// `cert:spiffe://a/b`), and of repositories with the upstream in front (`localhost:5000/**`).
    ///
    /// # Errors
    /// As [`FromStr`].
    pub fn of_principals(text: &str) -> Result<Self, PatternError> {
        Self::parse(text, "._-/*?:@%+=,~")
    }

    fn parse(text: &str, besides: &str) -> Result<Self, PatternError> {
        let is_allowed = |c: char| c.is_ascii_alphanumeric() || besides.contains(c);
        match text.chars().find(|c| !is_allowed(*c)) {
            _ if text.is_empty() => Err(PatternError::Empty),
            _ if text.len() > PATTERN_CHARS_MAX => Err(PatternError::TooLong),
            Some(character) => Err(PatternError::Character(character)),
            None => Ok(Self(text.to_owned())),
        }
    }

    /// Returns true when the pattern fits the whole of `name`. Takes time in proportion to both lengths multiplied, at the worst.
    pub fn matches(&self, name: &str) -> bool {
        let (pattern, name) = (self.0.as_bytes(), name.as_bytes());
        // reach[n]: what has been read of the pattern fits the first n bytes of the name.
        let mut reach = vec![false; name.len() + 1];
        if let Some(start) = reach.first_mut() {
            *start = true;
        }
        let mut rest = pattern;
        while let Some((first, others)) = rest.split_first() {
            let is_double = *first == b'*' && others.first() == Some(&b'*');
            rest = if is_double { others.get(1..).unwrap_or_default() } else { others };
            let mut next = vec![false; reach.len()];
            let mut can_extend = false;
            for (index, fits) in next.iter_mut().enumerate() {
                let before = index.checked_sub(1).and_then(|last| Some((*name.get(last)?, *reach.get(last)?)));
                let here = reach.get(index).copied().unwrap_or_default();
                *fits = match (first, before) {
                    (b'*', before) => {
                        let may_cross = is_double || before.is_none_or(|(byte, _)| byte != b'/');
                        can_extend = here || (can_extend && may_cross);
                        can_extend
                    }
                    (b'?', Some((byte, reached))) => reached && byte != b'/',
                    (literal, Some((byte, reached))) => reached && byte == *literal,
                    (_, None) => false,
                };
            }
            reach = next;
        }
        reach.last().copied().unwrap_or_default()
    }
}

impl FromStr for Pattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        Self::parse(text, "._-/*?")
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_fit_whole_names() {
        for (pattern, fits, does_not) in [
            ("library/*", &["library/alpine", "library/"][..], &["library/a/b", "library", "xlibrary/a"][..]),
            ("team/**", &["team/a", "team/a/b/c"], &["team", "teams/a"]),
            ("**/app", &["a/app", "a/b/app"], &["app", "a/apps"]),
            ("**", &["", "a", "a/b"], &[]),
            ("*", &["a", ""], &["a/b"]),
            ("a*b*c", &["abc", "aXbYc", "abbc"], &["ab", "abcd", "a/bc"]),
            ("v?.*", &["v1.2", "v1."], &["v10.2", "v/.2"]),
            ("a/*/c", &["a/b/c", "a//c"], &["a/b/d/c"]),
            ("a/**/c", &["a/b/c", "a/b/d/c"], &["a/c"]),
            ("v1", &["v1"], &["v10", "v"]),
        ] {
            let parsed: Pattern = pattern.parse().expect("a pattern");
            for name in fits {
                assert!(parsed.matches(name), "{pattern} fits {name}");
            }
            for name in does_not {
                assert!(!parsed.matches(name), "{pattern} does not fit {name}");
            }
        }
    }

    #[test]
    fn a_pattern_that_branches_everywhere_is_no_trap() {
        let pattern: Pattern = "*a".repeat(128).parse().expect("a pattern");
        assert!(!pattern.matches(&"a".repeat(127)) && pattern.matches(&"a".repeat(255)));
    }

    #[test]
    fn principals_have_letters_that_repositories_have_not() {
        let pattern = Pattern::of_principals("cert:spiffe://cluster/**").expect("a pattern");
        assert!(pattern.matches("cert:spiffe://cluster/ns/a") && !pattern.matches("cert:node"));
        assert_eq!("user:a".parse::<Pattern>(), Err(PatternError::Character(':')));
        assert_eq!(Pattern::of_principals("a b"), Err(PatternError::Character(' ')));
    }

    #[test]
    fn what_no_name_has_is_no_pattern() {
        for (text, expected) in [
            ("", PatternError::Empty),
            ("a b", PatternError::Character(' ')),
            ("é", PatternError::Character('é')),
            ("{a,b}", PatternError::Character('{')),
            ("[ab]", PatternError::Character('[')),
        ] {
            assert_eq!(text.parse::<Pattern>(), Err(expected), "{text:?}");
        }
        assert_eq!("a".repeat(257).parse::<Pattern>(), Err(PatternError::TooLong));
    }
}
