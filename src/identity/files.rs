//! What the files of identities have in common: lines, comments, and an error that names the line.

/// Entries of one file at the most: far above what anybody keeps in a file by hand.
pub(super) const ENTRIES_MAX: usize = 10_000;

/// What is wrong with a line. It never repeats what may be secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {why}")]
pub struct LineError {
    /// Counted from 1.
    pub line: usize,
    pub why: String,
}

impl LineError {
    pub(super) fn new(line: usize, why: impl Into<String>) -> Self {
        Self { line, why: why.into() }
    }
}

/// Returns the lines that say something, with their numbers.
pub(super) fn lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let lines = text.lines().enumerate().map(|(index, line)| (index + 1, line.trim()));
    lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
}

/// Reads the name before the first colon.
pub(super) fn split_name(number: usize, line: &str) -> Result<(&str, &str), LineError> {
    let (name, rest) = line
        .split_once(':')
        .ok_or_else(|| LineError::new(number, "there is no colon; a line is a name, a colon, and the secret"))?;
    if name.is_empty() || name.chars().any(|letter| letter.is_control() || letter.is_whitespace()) {
        return Err(LineError::new(number, "what stands before the colon is no name: it is empty or has spaces"));
    }
    Ok((name, rest))
}
