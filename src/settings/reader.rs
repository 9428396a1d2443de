//! Takes typed values out of one section, and collects what is wrong instead of stopping at it.

use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

use config::{Map, Value, ValueKind};

use super::layers::Places;
use super::problem::{Place, Problem};
use super::{suggest, units};

/// One section while it is read. A key that is absent or wrong yields `None`; what is wrong is reported on the way.
pub(super) struct Section<'a> {
    /// `store`, `upstream[0]`.
    path: String,
    values: Map<String, Value>,
    places: &'a Places,
    problems: &'a mut Vec<Problem>,
}

impl<'a> Section<'a> {
    /// Reports the unknown keys at once.
    pub(super) fn new(
        path: String,
        values: Map<String, Value>,
        places: &'a Places,
        problems: &'a mut Vec<Problem>,
    ) -> Self {
        let mut section = Self { path, values, places, problems };
        let name = without_index(&section.path).to_owned();
        let unknown = |key: &String| suggest::unknown_key(&name, key).map(|text| (key.clone(), text));
        let unknown: Vec<(String, String)> = section.values.keys().filter_map(unknown).collect();
        for (key, text) in unknown {
            let place = section.places.key(&section.path_of(&key));
            section.report_at(place, &key, text);
        }
        section
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.values.contains_key(key)
    }

    /// Takes a text and reads it.
    pub(super) fn text<T>(&mut self, key: &str, read: impl FnOnce(&str) -> Result<T, String>) -> Option<T> {
        let text = match self.values.remove(key)?.kind {
            ValueKind::String(text) => text,
            other => return self.wrong_type(key, &other, "a text in quotes"),
        };
        self.noted(key, read(&text))
    }

    /// Takes a duration.
    pub(super) fn duration(&mut self, key: &str, bounds: &RangeInclusive<Duration>) -> Option<Duration> {
        self.measure(key, |text| units::duration(text, bounds))
    }

    /// Takes a text with a unit; a bare number is read as well, so that the reader can say which unit is missing.
    pub(super) fn measure<T>(&mut self, key: &str, read: impl FnOnce(&str) -> Result<T, String>) -> Option<T> {
        let text = match self.values.remove(key)?.kind {
            ValueKind::String(text) => text,
            ValueKind::I64(number) => number.to_string(),
            ValueKind::Float(number) => number.to_string(),
            other => return self.wrong_type(key, &other, "a text with a number and a unit"),
        };
        self.noted(key, read(&text))
    }

    /// Takes a whole number.
    pub(super) fn number(&mut self, key: &str, bounds: &RangeInclusive<u32>) -> Option<u32> {
        let is_variable = self.is_variable(key);
        let number = match self.values.remove(key)?.kind {
            ValueKind::I64(number) => Some(number),
            ValueKind::String(text) if is_variable => text.trim().parse().ok(),
            other => return self.wrong_type(key, &other, "a whole number without quotes"),
        };
        let number = number.and_then(|number| u32::try_from(number).ok()).filter(|number| bounds.contains(number));
        let wanted = || format!("is out of bounds; write a whole number from {} to {}", bounds.start(), bounds.end());
        self.noted(key, number.ok_or_else(wanted))
    }

    /// Takes `true` or `false`.
    pub(super) fn switch(&mut self, key: &str) -> Option<bool> {
        let is_variable = self.is_variable(key);
        match self.values.remove(key)?.kind {
            ValueKind::Boolean(value) => Some(value),
            ValueKind::String(text) if is_variable => {
                let wanted = |_| format!("{text:?} is neither true nor false");
                let value = text.trim().to_ascii_lowercase().parse().map_err(wanted);
                self.noted(key, value)
            }
            other => self.wrong_type(key, &other, "true or false, without quotes"),
        }
    }

    /// Takes a list without duplicates; each element that is wrong is reported by itself. In a variable, commas separate.
    pub(super) fn list<T: PartialEq + fmt::Display>(
        &mut self,
        key: &str,
        read: impl Fn(&str) -> Result<T, String>,
    ) -> Option<Vec<T>> {
        let is_variable = self.is_variable(key);
        let items = match self.values.remove(key)?.kind {
            ValueKind::Array(items) => items,
            ValueKind::String(text) if is_variable => {
                let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
                items.map(|item| Value::new(None, item)).collect()
            }
            // What stands before an @ may be a secret.
            ValueKind::String(text) if text.contains('@') => {
                return self.reject(key, "is not a list; write it in brackets".to_owned());
            }
            ValueKind::String(text) => return self.reject(key, format!("is not a list; write [{text:?}]")),
            other => return self.wrong_type(key, &other, "a list of texts, in brackets"),
        };
        let mut values: Vec<T> = Vec::new();
        let mut is_wrong = false;
        for (index, item) in items.into_iter().enumerate() {
            let value = match item.kind {
                ValueKind::String(text) => read(&text),
                other => Err(format!("holds {} in the list; write a text in quotes", type_name(&other))),
            };
            let problem = match value {
                Ok(value) if values.contains(&value) => format!("{value} is in the list twice; take one out"),
                Ok(value) => {
                    values.push(value);
                    continue;
                }
                Err(text) => text,
            };
            is_wrong = true;
            self.report_at(self.element_place(key, index), key, problem);
        }
        // What is left of a wrong list is not what was written: it may look empty, and its elements have lost their places.
        (!is_wrong).then_some(values)
    }

    /// Reports a problem with the value of a key.
    pub(super) fn report(&mut self, key: &str, text: String) {
        self.report_at(self.value_place(key), key, text);
    }

    /// Reports a problem with the section as a whole.
    pub(super) fn report_section(&mut self, text: String) {
        let (place, key) = (self.places.value(&self.path), without_index(&self.path).to_owned());
        self.problems.push(Problem { place, key, text });
    }

    /// Reports what follows from several keys.
    pub(super) fn report_at(&mut self, place: Place, key: &str, text: String) {
        let key = format!("{}.{key}", without_index(&self.path));
        self.problems.push(Problem { place, key, text });
    }

    pub(super) fn value_place(&self, key: &str) -> Place {
        self.places.value(&self.path_of(key))
    }

    pub(super) fn element_place(&self, key: &str, index: usize) -> Place {
        self.places.value(&format!("{}[{index}]", self.path_of(key)))
    }

    /// Variables hold text only; a file has types and is held to them.
    fn is_variable(&self, key: &str) -> bool {
        matches!(self.value_place(key), Place::Variable(_))
    }

    fn path_of(&self, key: &str) -> String {
        format!("{}.{key}", self.path)
    }

    fn noted<T>(&mut self, key: &str, value: Result<T, String>) -> Option<T> {
        value.map_err(|text| self.report(key, text)).ok()
    }

    fn wrong_type<T>(&mut self, key: &str, kind: &ValueKind, wanted: &str) -> Option<T> {
        self.reject(key, format!("holds {}; write {wanted}", type_name(kind)))
    }

    fn reject<T>(&mut self, key: &str, text: String) -> Option<T> {
        self.report(key, text);
        None
    }
}

fn type_name(kind: &ValueKind) -> &'static str {
    match kind {
        ValueKind::Nil => "nothing",
        ValueKind::Boolean(_) => "true or false",
        ValueKind::I64(_) | ValueKind::I128(_) | ValueKind::U64(_) | ValueKind::U128(_) => "a whole number",
        ValueKind::Float(_) => "a fraction",
        ValueKind::String(_) => "a text",
        ValueKind::Table(_) => "a table",
        ValueKind::Array(_) => "a list",
    }
}

/// `upstream[0]` → `upstream`: the line says which one.
fn without_index(path: &str) -> &str {
    path.split('[').next().unwrap_or(path)
}
