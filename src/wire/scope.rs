//! What a token is asked for: `repository:<name>:<actions>`, in which the name may have colons itself (P-178).
//!
//! Source: "Token Scope Documentation" of the distribution project.

use std::fmt;

/// A scope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scope {
    /// `repository`, `registry`.
    pub kind: String,
    pub name: String,
    /// Separated by commas.
    pub actions: String,
}

impl Scope {
    /// Reads a scope: the kind ends at the first colon, the actions begin behind the last.
    pub fn parse(text: &str) -> Option<Self> {
        let (kind, rest) = text.split_once(':')?;
        let (name, actions) = rest.rsplit_once(':')?;
        let is_plain = |text: &str| text.bytes().all(|byte| byte.is_ascii_graphic() && !b"\"\\".contains(&byte));
        let is_whole = !kind.is_empty() && !name.is_empty() && is_plain(text);
        is_whole.then(|| Self { kind: kind.to_owned(), name: name.to_owned(), actions: actions.to_owned() })
    }

    /// Returns the scope of what a path of the API is about, by the repository's name as the client writes it. Only the path is looked
    /// at: a name that is known and one that is not have the same.
    pub fn of_path(path: &str, actions: &str) -> Option<Self> {
        let components: Vec<&str> = path.split('/').collect();
        let version = components.iter().position(|component| *component == "v2")?;
        let ([name @ .., "blobs", "uploads", _]
        | [name @ .., "tags", "list"]
        | [name @ .., "manifests" | "blobs" | "referrers", _]) = components.get(version + 1..)?
        else {
            return None;
        };
        Self::parse(&format!("repository:{}:{actions}", name.join("/")))
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.kind, self.name, self.actions)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_have_colons() {
        for (text, expected) in [
            ("repository:library/alpine:pull", Some(("repository", "library/alpine", "pull"))),
            ("repository:localhost:5000/a/b:pull,push", Some(("repository", "localhost:5000/a/b", "pull,push"))),
            ("registry:catalog:*", Some(("registry", "catalog", "*"))),
            ("repository(plugin):a:pull", Some(("repository(plugin)", "a", "pull"))),
            ("repository:a:", Some(("repository", "a", ""))),
            ("repository:a", None),
            ("repository::pull", None),
            (":a:pull", None),
            ("", None),
            ("repository:a\":pull", None),
            ("repository:a b:pull", None),
        ] {
            let scope = Scope::parse(text);
            let parts = scope.as_ref().map(|scope| (scope.kind.as_str(), scope.name.as_str(), scope.actions.as_str()));
            assert_eq!(parts, expected, "P-178: {text}");
            assert!(scope.is_none_or(|scope| scope.to_string() == text));
        }
    }

    #[test]
    fn the_scope_of_a_path_has_the_name_that_the_client_writes() {
        for (path, expected) in [
            ("/v2/library/alpine/manifests/3.20", "repository:library/alpine:pull"),
            ("/v2/docker.io/library/alpine/blobs/sha256:aa", "repository:docker.io/library/alpine:pull"),
            ("/docker.io/v2/a/tags/list", "repository:a:pull"),
            ("/v2/localhost:5000/a/referrers/sha256:aa", "repository:localhost:5000/a:pull"),
            ("/v2/a/blobs/uploads/", "repository:a:pull"),
            ("/v2/a/blobs/uploads/x", "repository:a:pull"),
            ("/v2/a/manifests/b/manifests/c", "repository:a/manifests/b:pull"),
            ("/v2/", "-"),
            ("/v2/manifests/a", "-"),
            ("/v2/a/other", "-"),
            ("/token", "-"),
            ("/v2/a\"b/manifests/c", "-"),
        ] {
            let scope = Scope::of_path(path, "pull").map_or("-".to_owned(), |scope| scope.to_string());
            assert_eq!(scope, expected, "P-178: {path}");
        }
    }
}
