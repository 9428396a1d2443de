//! Lays file, environment and flags over one another, and remembers where each value was written.
//!
//! `config` merges the values, key by key: a list is replaced as a whole. Every key path (`store.path`,
//! `upstream[0].endpoints[1]`) has its place beside, so that a problem found later can still point at the line.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use config::{Config, ConfigBuilder, ConfigError, Map, Source, Value, ValueKind};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::defaults::FILE_BYTES_MAX;
use super::keys::{SECTIONS, is_repeated, written};
use super::problem::{Place, Problem};
use super::suggest::{unknown_section, unknown_variable};
use super::{Flags, Sources};

/// What every environment variable of ours begins with.
const VARIABLE_PREFIX: &str = "CACHALOT_";
/// What stands between section and key in the name of a variable. Kubernetes puts `CACHALOT_PORT` and the like into the
/// environment of every container beside a service of our name: without this separator a variable is not ours.
const VARIABLE_SEPARATOR: &str = "__";

/// All layers, ready to be merged.
#[derive(Default)]
pub(super) struct Layers {
    stack: Vec<Layer>,
    pub(super) places: Places,
    pub(super) problems: Vec<Problem>,
    /// The file could not be understood as a whole: what else would be found wrong may be a consequence only.
    pub(super) is_broken: bool,
}

impl Layers {
    pub(super) fn new(sources: &Sources) -> Self {
        let mut layers = Self::default();
        if let Some(path) = &sources.file {
            layers.add_file(path);
        }
        layers.add_environment(&sources.environment);
        layers.add_flags(&sources.flags);
        layers
    }

    /// Merges the layers; the later ones win.
    pub(super) fn merge(&self) -> Result<Config, ConfigError> {
        self.stack
            .iter()
            .cloned()
            .fold(Config::builder(), ConfigBuilder::<config::builder::DefaultState>::add_source)
            .build()
    }

    fn add_file(&mut self, path: &Path) {
        let name = path.display().to_string();
        let text = match read_text(path, &name) {
            Ok(text) => text,
            Err((place, text)) => {
                self.problems.push(Problem { place, key: String::new(), text });
                self.is_broken = true;
                return;
            }
        };
        let (table, errors) = DeTable::parse_recoverable(&text);
        let mut file = FileLayer { name: &name, text: &text, layers: self };
        for error in &errors {
            file.report_syntax(error);
        }
        if !file.layers.is_broken {
            let values = file.sections(table.into_inner());
            self.stack.push(Layer { values });
        }
    }

    fn add_environment(&mut self, environment: &[(String, String)]) {
        for (variable, value) in environment {
            let Some(name) = variable.strip_prefix(VARIABLE_PREFIX) else { continue };
            let Some((section, key)) = name.split_once(VARIABLE_SEPARATOR) else {
                if let Some((section, key)) = key_with_one_underscore(&name.to_ascii_lowercase()) {
                    let text = "has one underscore where two belong: between the section and the key".to_owned();
                    let place = Place::Variable(variable.clone());
                    self.problems.push(Problem { place, key: format!("{section}.{key}"), text });
                }
                continue;
            };
            let (section, key) = (section.to_ascii_lowercase(), key.to_ascii_lowercase());
            let place = Place::Variable(variable.clone());
            match unknown_variable(&section, &key) {
                Some(text) => self.problems.push(Problem { place, key: format!("{section}.{key}"), text }),
                None => self.add_value(&section, &key, place, Value::new(None, value.as_str())),
            }
        }
    }

    fn add_flags(&mut self, flags: &Flags) {
        if !flags.listen.is_empty() {
            self.add_value("server", "listen", Place::Flag("--listen"), Value::new(None, flags.listen.clone()));
        }
        if let Some(address) = &flags.admin {
            self.add_value("admin", "listen", Place::Flag("--admin"), Value::new(None, address.as_str()));
        }
        if let Some(path) = &flags.store {
            let place = Place::Flag("--store");
            match path.to_str() {
                Some(path) => self.add_value("store", "path", place, Value::new(None, path)),
                None => self.problems.push(Problem {
                    place,
                    key: "store.path".into(),
                    text: format!("{} is not UTF-8; write another path", path.display()),
                }),
            }
        }
    }

    fn add_value(&mut self, section: &str, key: &str, place: Place, value: Value) {
        self.places.replace(&format!("{section}.{key}"), place);
        let section_values = Map::from([(key.to_owned(), value)]);
        self.stack.push(Layer { values: Map::from([(section.to_owned(), Value::new(None, section_values))]) });
    }
}

/// Reads the file as text, or says where and why it is none.
fn read_text(path: &Path, name: &str) -> Result<String, (Place, String)> {
    let whole = || Place::WholeFile { name: name.to_owned() };
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes));
    read.map_err(|error| (whole(), format!("cannot be read: {error}")))?;
    if u64::try_from(bytes.len()).is_ok_and(|length| length > FILE_BYTES_MAX) {
        return Err((whole(), format!("is larger than {}; is it the right file?", bytesize::ByteSize(FILE_BYTES_MAX))));
    }
    String::from_utf8(bytes).map_err(|error| {
        let good = error.utf8_error().valid_up_to();
        let before = String::from_utf8_lossy(error.as_bytes().get(..good).unwrap_or_default()).into_owned();
        (place_in(name, &before, good), "is not UTF-8 from here on".to_owned())
    })
}

/// Returns the place of the byte at `offset` of a text.
fn place_in(name: &str, text: &str, offset: usize) -> Place {
    let before = text.get(..offset).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |line_break| line_break + 1);
    Place::File {
        name: name.to_owned(),
        line: before.matches('\n').count() + 1,
        column: before.chars().count() - before.get(..line_start).map_or(0, |lines| lines.chars().count()) + 1,
    }
}

/// Returns the key that `section_key` means; none of Kubernetes' variables has such a name.
fn key_with_one_underscore(name: &str) -> Option<(&'static str, &'static str)> {
    let of_section = |(section, keys): &(&'static str, &[&'static str])| {
        let key = name.strip_prefix(section)?.strip_prefix('_')?;
        Some((*section, *keys.iter().find(|known| **known == key)?))
    };
    SECTIONS.iter().filter(|(section, _)| !is_repeated(section)).find_map(of_section)
}

/// Where the values are written, by key path.
#[derive(Debug, Default)]
pub(super) struct Places {
    keys: HashMap<String, Place>,
    values: HashMap<String, Place>,
}

impl Places {
    /// Returns where a key is written.
    pub(super) fn key(&self, path: &str) -> Place {
        self.keys.get(path).cloned().unwrap_or_else(|| self.value(path))
    }

    /// Returns where a value is written; an element of a list has the place of the list when it has none of its own.
    pub(super) fn value(&self, path: &str) -> Place {
        let list = path.rsplit_once('[').map(|(list, _)| list);
        let place = self.values.get(path).or_else(|| self.values.get(list?));
        place.cloned().unwrap_or(Place::Default)
    }

    /// Puts a later layer's value over an earlier one's.
    fn replace(&mut self, path: &str, place: Place) {
        let elements = format!("{path}[");
        self.values.retain(|key, _| !key.starts_with(&elements));
        self.keys.remove(path);
        self.values.insert(path.to_owned(), place);
    }
}

/// One layer as `config` wants it: section → values.
#[derive(Debug, Clone)]
struct Layer {
    values: Map<String, Value>,
}

impl Source for Layer {
    fn clone_into_box(&self) -> Box<dyn Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<Map<String, Value>, ConfigError> {
        Ok(self.values.clone())
    }
}

/// The file while it is taken apart.
struct FileLayer<'a> {
    name: &'a str,
    text: &'a str,
    layers: &'a mut Layers,
}

impl FileLayer<'_> {
    /// Keeps the sections that exist and have the right shape: what goes on from here is a table of known sections.
    fn sections(&mut self, table: DeTable<'_>) -> Map<String, Value> {
        let mut sections = Map::new();
        for (key, value) in table {
            let (place, name) = (self.place(key.span().start), key.into_inner().into_owned());
            let is_shaped = match value.get_ref() {
                DeValue::Array(items) if is_repeated(&name) => items.iter().all(|item| item.get_ref().is_table()),
                other => !is_repeated(&name) && other.is_table(),
            };
            let text = if !SECTIONS.iter().any(|(section, _)| *section == name) {
                unknown_section(&name)
            } else if !is_shaped {
                format!("is not a section; write {} on a line of its own, and the keys below it", written(&name))
            } else {
                let value = self.value(&name, value);
                sections.insert(name, value);
                continue;
            };
            self.layers.problems.push(Problem { place, key: name, text });
        }
        sections
    }

    fn value(&mut self, path: &str, value: Spanned<DeValue<'_>>) -> Value {
        let place = self.place(value.span().start);
        self.layers.places.values.insert(path.to_owned(), place.clone());
        let kind = match value.into_inner() {
            DeValue::String(text) => ValueKind::String(text.into_owned()),
            DeValue::Boolean(value) => ValueKind::Boolean(value),
            DeValue::Integer(number) => match i64::from_str_radix(number.as_str(), number.radix()) {
                Ok(number) => ValueKind::I64(number),
                // Too large for every bound; the reader says which one.
                Err(_) => ValueKind::I64(i64::MAX),
            },
            DeValue::Float(number) => ValueKind::Float(number.as_str().parse().unwrap_or(f64::NAN)),
            DeValue::Datetime(time) => ValueKind::String(time.to_string()),
            DeValue::Array(items) => {
                let item = |(index, item)| self.value(&format!("{path}[{index}]"), item);
                ValueKind::Array(items.into_iter().enumerate().map(item).collect())
            }
            DeValue::Table(table) => ValueKind::Table(self.table(path, table)),
        };
        Value::new(None, kind)
    }

    fn table(&mut self, path: &str, table: DeTable<'_>) -> Map<String, Value> {
        let mut values = Map::new();
        for (key, value) in table {
            let path = format!("{path}.{}", key.get_ref());
            let place = self.place(key.span().start);
            self.layers.places.keys.insert(path.clone(), place);
            let value = self.value(&path, value);
            values.insert(key.into_inner().into_owned(), value);
        }
        values
    }

    fn report_syntax(&mut self, error: &toml::de::Error) {
        // A key that is there twice leaves the rest of the file as clear as it was.
        let is_duplicate = error.message().starts_with("duplicate key");
        self.layers.is_broken |= !is_duplicate;
        let place = self.place(error.span().map_or(0, |span| span.start));
        let (key, text) = if is_duplicate {
            let key = error.span().and_then(|span| self.text.get(span)).unwrap_or_default();
            (key.to_owned(), "stands above already; take one of them out".to_owned())
        } else {
            (String::new(), error.message().replace('\n', "; "))
        };
        self.layers.problems.push(Problem { place, key, text });
    }

    fn place(&self, offset: usize) -> Place {
        place_in(self.name, self.text, offset)
    }
}
