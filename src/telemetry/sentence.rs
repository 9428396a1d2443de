//! An error and its causes as one sentence, for people.

use std::error::Error;

/// Returns `error` and everything that caused it, outermost first, joined by colons.
pub fn sentence(error: &(dyn Error + 'static)) -> String {
    let mut sentence = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        sentence.push_str(": ");
        sentence.push_str(&error.to_string());
        cause = error.source();
    }
    sentence
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("outer")]
    struct Outer(#[source] std::io::Error);

    #[test]
    fn causes_follow_in_order() {
        assert_eq!(sentence(&Outer(std::io::Error::other("inner"))), "outer: inner");
    }
}
