//! A file of bearer tokens: a name, a colon, and the token or its SHA-256.
//!
//! ```text
//! # CI may push
//! ci:3f7d0a…                       the token itself
//! node:sha256:9f86d081884c7d65…    sha256sum of the token
//! ```
//!
//! Tokens are looked for by their hashes, in constant time: an answer's delay tells nothing of them.

use std::fmt;

use sha2::{Digest as _, Sha256};
use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};

use super::files::{ENTRIES_MAX, LineError, lines, split_name};

/// Characters of a token at the least: guessing is bounded by that, not by how slow a hash is.
const TOKEN_LENGTH_MIN: usize = 16;

/// The tokens of a file.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Tokens(Vec<Token>);

#[derive(Clone, PartialEq, Eq)]
struct Token {
    name: String,
    sha256: [u8; 32],
}

impl Tokens {
    /// Reads the text of a file.
    ///
    /// # Errors
    /// The first line that is wrong.
    pub fn parse(text: &str) -> Result<Self, LineError> {
        let mut tokens: Vec<Token> = Vec::new();
        for (number, line) in lines(text) {
            let wrong = |why: String| LineError::new(number, why);
            let (name, token) = split_name(number, line)?;
            let sha256 = match token.strip_prefix("sha256:") {
                Some(hex) => bytes_of(hex).ok_or_else(|| {
                    wrong(format!(
                        "what stands behind sha256: of {name} is no SHA-256; write 64 digits, as sha256sum does"
                    ))
                })?,
                None if token.len() < TOKEN_LENGTH_MIN => {
                    let advice = "make one with openssl rand -hex 32";
                    return Err(wrong(format!(
                        "the token of {name} has less than {TOKEN_LENGTH_MIN} characters; {advice}"
                    )));
                }
                None if !token.bytes().all(|byte| byte.is_ascii_graphic()) => {
                    return Err(wrong(format!("the token of {name} has spaces or letters that no header carries")));
                }
                None => hash(token),
            };
            if tokens.iter().any(|other| other.name == name) {
                return Err(wrong(format!("{name} is there twice; give each token a name of its own")));
            }
            if tokens.iter().any(|other| other.sha256 == sha256) {
                return Err(wrong(format!("{name} has the token of another; give each name its own")));
            }
            if tokens.len() >= ENTRIES_MAX {
                return Err(wrong(format!("there are more than {ENTRIES_MAX} tokens")));
            }
            tokens.push(Token { name: name.to_owned(), sha256 });
        }
        if tokens.is_empty() {
            return Err(LineError::new(1, "there is no token; write a name, a colon and a token"));
        }
        Ok(Self(tokens))
    }

    /// Returns whose token it is. Every token is compared, whichever it is.
    pub(super) fn find(&self, token: &str) -> Option<&str> {
        let sha256 = hash(token);
        let mut found = u32::MAX;
        for (index, token) in (0_u32..).zip(&self.0) {
            let is_it: Choice = token.sha256.ct_eq(&sha256);
            found.conditional_assign(&index, is_it);
        }
        self.0.get(usize::try_from(found).ok()?).map(|token| token.name.as_str())
    }

    /// Returns the SHA-256 of the token of that name.
    pub(super) fn sha256(&self, name: &str) -> Option<[u8; 32]> {
        self.0.iter().find(|token| token.name == name).map(|token| token.sha256)
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.0.iter().any(|token| token.name == name)
    }
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Tokens").field(&self.0.len()).finish()
    }
}

fn hash(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

fn bytes_of(hex: &str) -> Option<[u8; 32]> {
    let digits: Option<Vec<u32>> = hex.chars().map(|digit| digit.to_digit(16)).collect();
    let bytes = digits?
        .chunks(2)
        .map(|pair| u8::try_from(pair.iter().fold(0, |byte, digit| byte * 16 + digit)).ok())
        .collect::<Option<Vec<u8>>>()?;
    if hex.len() == 64 { bytes.try_into().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_or_refused_with_their_number_and_what_to_do() {
        let hex = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";
        for (text, told) in [
            ("ci:0123456789abcdef\n".to_owned(), ""),
            (format!("# two\n\n ci:0123456789abcdef\r\nnode:sha256:{hex}"), ""),
            ("ci:0123456789abcde".to_owned(), "line 1: the token of ci has less than 16 characters; make one with"),
            ("ci:0123456789 abcdef".to_owned(), "line 1: the token of ci has spaces"),
            (format!("ci:sha256:{}", &hex[1..]), "line 1: what stands behind sha256: of ci is no SHA-256"),
            (format!("ci:sha256:{}é", &hex[2..]), "line 1: what stands behind sha256: of ci is no SHA-256"),
            ("ci:0123456789abcdef\nci:0123456789abcdeg".to_owned(), "line 2: ci is there twice"),
            ("a:0123456789abcdef\nb:0123456789abcdef".to_owned(), "line 2: b has the token of another"),
            ("0123456789abcdef".to_owned(), "line 1: there is no colon"),
            (String::new(), "line 1: there is no token"),
        ] {
            let error = Tokens::parse(&text).map_or_else(|error| error.to_string(), |_| String::new());
            assert!(error.starts_with(told) && error.is_empty() == told.is_empty(), "{text:?}: {error}");
            assert!(!error.contains("0123456789"), "S-43: {error}");
        }
    }

    #[test]
    fn a_token_is_found_by_itself_or_by_its_hash_and_nothing_else_is() {
        let tokens = Tokens::parse(
            "ci:0123456789abcdef\nnode:sha256:9F86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        )
        .unwrap();
        assert_eq!(tokens.find("0123456789abcdef"), Some("ci"));
        assert_eq!(tokens.find("test"), Some("node"), "sha256sum of test");
        for token in ["", "0123456789abcdeF", "0123456789abcdef ", "ci", "sha256:9f86"] {
            assert_eq!(tokens.find(token), None, "{token}");
        }
        assert_eq!(format!("{tokens:?}"), "Tokens(2)");
    }
}
