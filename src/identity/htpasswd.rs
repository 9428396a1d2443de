//! An htpasswd file: users and the hashes of their passwords, by bcrypt only.
//!
//! `htpasswd -B` writes them. Everything else that the file may hold (MD5, SHA-1, crypt, plain text) is refused with its line: it can be
//! guessed by the billion.

use std::collections::BTreeMap;
use std::fmt;

use bcrypt::HashParts;

use super::files::{ENTRIES_MAX, LineError, lines, split_name};
use crate::telemetry::Secret;

/// The highest cost of a hash: about a second of a core for each password that is tried.
const COST_MAX: u32 = 14;

/// The lowest: what `htpasswd -B` writes unasked is 5.
const COST_MIN: u32 = 4;

/// The users of a file.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Htpasswd {
    users: BTreeMap<String, Secret>,
    cost: u32,
}

impl Htpasswd {
    /// Reads the text of a file.
    ///
    /// # Errors
    /// The first line that is wrong.
    pub fn parse(text: &str) -> Result<Self, LineError> {
        let mut file = Self { users: BTreeMap::new(), cost: COST_MIN };
        for (number, line) in lines(text) {
            let (name, hash) = split_name(number, line)?;
            let cost = cost(hash).map_err(|why| LineError::new(number, format!("the hash of {name} {why}")))?;
            file.cost = file.cost.max(cost);
            if file.users.insert(name.to_owned(), Secret::new(hash)).is_some() {
                return Err(LineError::new(number, format!("{name} is there twice; take one of the lines out")));
            }
            if file.users.len() > ENTRIES_MAX {
                return Err(LineError::new(number, format!("there are more than {ENTRIES_MAX} users")));
            }
        }
        if file.users.is_empty() {
            return Err(LineError::new(1, "there is no user; add one with htpasswd -B FILE NAME"));
        }
        Ok(file)
    }

    pub fn has(&self, user: &str) -> bool {
        self.users.contains_key(user)
    }

    /// Returns the hash to compare with: for a user that is not there, one that no password has and that takes as long.
    pub(super) fn hash(&self, user: &str) -> Secret {
        self.users.get(user).cloned().unwrap_or_else(|| nobodys_hash(self.cost))
    }
}

impl fmt::Debug for Htpasswd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Htpasswd").field("users", &self.users.len()).finish_non_exhaustive()
    }
}

/// A well-formed hash of nothing: its last characters are the same whatever its password would be, and nobody looks for that.
fn nobodys_hash(cost: u32) -> Secret {
    Secret::new(format!("$2b${cost:02}${}{}", "N".repeat(21), "O".repeat(32)))
}

/// Reads the cost of a bcrypt hash, or says what else it is.
fn cost(hash: &str) -> Result<u32, String> {
    let again = "make it again with htpasswd -B";
    // 2x is what a library once made of letters that are not ASCII; nothing else reads it.
    if !["$2a$", "$2b$", "$2y$"].iter().any(|prefix| hash.starts_with(prefix)) {
        let kind = match hash {
            hash if hash.starts_with("$apr1$") || hash.starts_with("$1$") => "is MD5",
            hash if hash.starts_with("{SHA}") || hash.starts_with("{SSHA}") => "is SHA-1",
            hash if hash.starts_with("$5$") || hash.starts_with("$6$") => "is SHA-crypt",
            hash if hash.starts_with('$') || hash.starts_with('{') => "is of a kind that is not known here",
            _ => "is crypt or plain text",
        };
        return Err(format!("{kind}; only bcrypt is accepted: {again}"));
    }
    match hash.parse::<HashParts>().map(|parts| parts.get_cost()) {
        Ok(cost) if cost > COST_MAX => {
            Err(format!("has cost {cost}, which takes too long; {again} -C 10, at most {COST_MAX}"))
        }
        Ok(cost) if cost >= COST_MIN => Ok(cost),
        Ok(_) | Err(_) => Err(format!("is no whole bcrypt hash; {again}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `htpasswd -nbB alice secret` printed.
    const ALICE: &str = "alice:$2y$05$P3QfFcPNDiuSMhSZh9edk.DRGWsW.SL3ElXF04l3vb57YWcnPbdae";

    #[test]
    fn lines_are_read_or_refused_with_their_number_and_what_to_do() {
        let hash = ALICE.split_once(':').map_or("", |(_, hash)| hash);
        for (text, told) in [
            (format!("{ALICE}\n"), ""),
            (format!("# users\r\n\r\n  {ALICE}\r\nbob:{hash}"), ""),
            (format!("{ALICE}\n{ALICE}\n"), "line 2: alice is there twice"),
            (
                format!("{ALICE}\nbob:$apr1$x$y\n"),
                "line 2: the hash of bob is MD5; only bcrypt is accepted: make it again with htpasswd -B",
            ),
            ("bob:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=".to_owned(), "line 1: the hash of bob is SHA-1"),
            ("bob:$6$salt$hash".to_owned(), "line 1: the hash of bob is SHA-crypt"),
            ("bob:$7$hash".to_owned(), "line 1: the hash of bob is of a kind that is not known"),
            (ALICE.replace("$2y$", "$2x$"), "line 1: the hash of alice is of a kind that is not known"),
            ("bob:hunter2".to_owned(), "line 1: the hash of bob is crypt or plain text"),
            ("bob:".to_owned(), "line 1: the hash of bob is crypt or plain text"),
            ("bob".to_owned(), "line 1: there is no colon"),
            (":x".to_owned(), "line 1: what stands before the colon is no name"),
            (format!("a b{}", ALICE.replace("alice", "")), "line 1: what stands before the colon is no name"),
            (ALICE.replace("$05$", "$15$"), "line 1: the hash of alice has cost 15, which takes too long"),
            (ALICE.replace("$05$", "$03$"), "line 1: the hash of alice is no whole bcrypt hash"),
            (ALICE.replace("$05$", "$x5$"), "line 1: the hash of alice is no whole bcrypt hash"),
            (ALICE.replace("dae", "da"), "line 1: the hash of alice is no whole bcrypt hash"),
            (ALICE.replace("dae", "dé"), "line 1: the hash of alice is no whole bcrypt hash"),
            ("# nobody\n".to_owned(), "line 1: there is no user; add one with htpasswd -B"),
        ] {
            let error = Htpasswd::parse(&text).map_or_else(|error| error.to_string(), |_| String::new());
            assert!(error.starts_with(told) && error.is_empty() == told.is_empty(), "{text:?}: {error}");
            assert!(!error.contains("hunter2") && !error.contains("salt"), "S-43: {error}");
        }
    }

    #[test]
    fn who_is_not_there_costs_as_much_as_who_is_and_has_no_password() {
        let file = Htpasswd::parse(ALICE).unwrap();
        assert!(bcrypt::verify("secret", file.hash("alice").expose()).unwrap());
        let nobody = file.hash("mallory");
        assert!(nobody.expose().starts_with("$2b$05$"));
        for password in ["", "secret", "mallory"] {
            assert_eq!(bcrypt::verify(password, nobody.expose()).ok(), Some(false), "it is computed, and wrong");
        }
        assert!(!format!("{file:?}").contains("$2"));
    }
}
