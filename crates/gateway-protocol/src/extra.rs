//! Fields that nobody here knows by name.

use alloc::{boxed::Box, string::String, vec::Vec};
use core::fmt;

use crate::Payload;

/// Fields of an open JSON object beyond the ones that its type names, in the order in which they came.
///
/// Newer gateways add fields all the time. They are kept here as raw JSON and written back on encoding, so
/// that passing an object on loses nothing.
///
/// A field that *is* known by name but does not hold what the protocol says (a number where text belongs,
/// `null` in place of absence) is kept here as well. On encoding, a field in this list takes the place of the
/// typed one of the same name.
#[derive(Clone, Default)]
pub struct Extra(Option<Box<List>>);

/// Behind a pointer, because nearly every message has no extra fields and every message type has this list.
#[derive(Clone, Default)]
struct List(Vec<(String, Payload)>);

impl Extra {
    /// An empty list.
    pub const fn new() -> Self {
        Self(None)
    }

    fn fields(&self) -> &[(String, Payload)] {
        self.0.as_deref().map_or(&[], |list| &list.0)
    }

    /// The value of a field; of the last one when the name is there more than once, as JavaScript reads it.
    pub fn get(&self, name: &str) -> Option<&Payload> {
        self.fields()
            .iter()
            .rev()
            .find(|(found, _)| found == name)
            .map(|(_, value)| value)
    }

    /// True when a field of this name is in the list.
    pub fn contains(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// Sets a field, replacing any earlier value of the same name.
    pub fn insert(&mut self, name: impl Into<String>, value: Payload) {
        let name = name.into();
        self.remove(&name);
        self.push(name, value);
    }

    /// Appends without looking for an earlier field of the same name: decoding must stay linear.
    pub(crate) fn push(&mut self, name: String, value: Payload) {
        self.0.get_or_insert_default().0.push((name, value));
    }

    /// Takes a field out of the list.
    pub fn remove(&mut self, name: &str) -> Option<Payload> {
        let found = self.get(name).cloned();
        if found.is_some()
            && let Some(list) = &mut self.0
        {
            list.0.retain(|(other, _)| other != name);
        }
        found
    }

    /// Number of fields.
    pub fn len(&self) -> usize {
        self.fields().len()
    }

    /// True when there are none.
    pub fn is_empty(&self) -> bool {
        self.fields().is_empty()
    }

    /// The fields in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Payload)> {
        self.fields()
            .iter()
            .map(|(name, value)| (name.as_str(), value))
    }
}

/// The order of fields means nothing in JSON, so it does not count here; repeated fields count once.
impl PartialEq for Extra {
    fn eq(&self, other: &Self) -> bool {
        let within =
            |one: &Self, two: &Self| one.iter().all(|(name, _)| one.get(name) == two.get(name));
        within(self, other) && within(other, self)
    }
}

impl fmt::Debug for Extra {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl From<Vec<(String, Payload)>> for Extra {
    fn from(fields: Vec<(String, Payload)>) -> Self {
        fields.into_iter().collect()
    }
}

impl FromIterator<(String, Payload)> for Extra {
    fn from_iter<I: IntoIterator<Item = (String, Payload)>>(fields: I) -> Self {
        let mut extra = Self::new();
        for (name, value) in fields {
            extra.insert(name, value);
        }
        extra
    }
}

impl IntoIterator for Extra {
    type Item = (String, Payload);
    type IntoIter = alloc::vec::IntoIter<(String, Payload)>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.map_or_else(Vec::new, |list| list.0).into_iter()
    }
}
