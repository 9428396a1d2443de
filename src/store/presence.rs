//! The presence record of a partial file: which of its bytes were written, and whether that still counts.
//!
//! Pure: text and lengths are arguments. What the text says is believed only as far as it can be true of the file beside it.

use serde::{Deserialize, Serialize};

use super::{Class, Present};

/// A record holds at most so many runs of bytes, some 40 KiB of text; a blob in more pieces is not kept.
const RUNS_MAX: usize = 1024;

/// A record's text is read up to here.
pub(super) const TEXT_BYTES_MAX: u64 = 64 * 1024;

/// Which bytes of a partial file are there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PresenceRecord {
    boot: String,
    class: RecordClass,
    size_bytes: u64,
    runs: Vec<(u64, u64)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum RecordClass {
    Layer,
    Metadata,
}

/// What a record is believed to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Believed {
    pub class: Class,
    pub size_bytes: u64,
    pub present: Present,
}

impl PresenceRecord {
    /// Returns the record of a partial file of a blob of `size_bytes`, written while the machine ran as `boot` says; `None` when it has
    /// too many runs.
    pub fn new(boot: &str, class: Class, size_bytes: u64, present: &Present) -> Option<Self> {
        let runs: Vec<_> = present.runs().map(|run| (run.start, run.end)).collect();
        let class = match class {
            Class::Layer => RecordClass::Layer,
            Class::Metadata => RecordClass::Metadata,
        };
        (runs.len() <= RUNS_MAX).then(|| Self { boot: boot.to_owned(), class, size_bytes, runs })
    }

    /// Reads one.
    pub fn parse(text: &[u8]) -> Option<Self> {
        serde_json::from_slice(text).ok()
    }

    /// Returns it as text.
    ///
    /// # Errors
    /// None: every record can be written.
    pub fn to_text(&self) -> serde_json::Result<Vec<u8>> {
        serde_json::to_vec(self)
    }

    /// Returns what is to be believed of it beside a file of `written` bytes, on a machine that runs as `boot` says; `None` when it is of
    /// another run of the machine, or claims bytes beyond the file or the blob.
    pub fn believed(&self, boot: &str, written: u64) -> Option<Believed> {
        let mut present = Present::default();
        for (start, end) in &self.runs {
            present.insert(*start..*end);
        }
        let class = match self.class {
            RecordClass::Layer => Class::Layer,
            RecordClass::Metadata => Class::Metadata,
        };
        let is_sound = self.boot == boot && present.end() <= written.min(self.size_bytes);
        is_sound.then_some(Believed { class, size_bytes: self.size_bytes, present })
    }
}
