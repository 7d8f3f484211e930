//! Walks a parsed TOML document: takes out what is known, and reports what is not.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::fault::{Faults, Problem, shorten};
use crate::setting::{Found, Kind, Setting, kind_of, misread};

/// Parses a file as far as possible; what is not TOML is noted in `faults`.
pub(crate) fn parse<'i>(text: &'i str, faults: &mut Faults<'_>) -> DeTable<'i> {
    let (table, errors) = DeTable::parse_recoverable(text);
    for error in errors {
        let span = error.span().unwrap_or(0..0);
        let problem = match text.get(span.clone()) {
            Some(key) if error.message() == "duplicate key" => Problem::DuplicateKey { key: shorten(key) },
            _ => Problem::Syntax { message: error.message().replace('\n', ", ") },
        };
        faults.add(span.start, problem);
    }
    table.into_inner()
}

/// One table of the document. Every key is asked for once; what nobody asked for is unknown.
pub(crate) struct Section<'t, 'i> {
    path: String,
    at: usize,
    table: &'t DeTable<'i>,
    known: Vec<&'static str>,
}

impl<'t, 'i> Section<'t, 'i> {
    /// A table that stands at byte `at` and is called `path` in messages.
    pub(crate) fn new(path: String, at: usize, table: &'t DeTable<'i>) -> Self {
        Self { path, at, table, known: Vec::new() }
    }

    /// What the table is called in messages.
    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    /// The whole path of one of its keys.
    fn key(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// Reads the value of `key`, if it is there.
    pub(crate) fn setting<T: Kind>(&mut self, key: &'static str, faults: &mut Faults<'_>) -> Setting<T> {
        let Some(value) = self.value(key) else { return Setting(None) };
        let at = value.span().start;
        match T::read(value.get_ref()) {
            Some(value) => Setting(Some(Found { value, at })),
            None => {
                faults.add(at, misread::<T>(self.key(key), value.get_ref()));
                Setting(None)
            }
        }
    }

    /// As [`Section::setting`], but the key must be there.
    pub(crate) fn required<T: Kind>(&mut self, key: &'static str, faults: &mut Faults<'_>) -> Setting<T> {
        if !self.table.keys().any(|name| name.get_ref() == key) {
            faults.add(self.at, Problem::MissingKey { key, section: self.path.clone() });
        }
        self.setting(key, faults)
    }

    /// The table under `key`, if it is there.
    pub(crate) fn section(&mut self, key: &'static str, faults: &mut Faults<'_>) -> Option<Section<'t, 'i>> {
        let value = self.value(key)?;
        self.as_section(self.key(key), value, faults)
    }

    /// The tables of the array under `key`.
    pub(crate) fn sections(&mut self, key: &'static str, faults: &mut Faults<'_>) -> Vec<Section<'t, 'i>> {
        let Some(value) = self.value(key) else { return Vec::new() };
        let Some(entries) = value.get_ref().as_array() else {
            let found = kind_of(value.get_ref());
            faults.add(value.span().start, Problem::Type { key: self.key(key), expected: "an array of tables", found });
            return Vec::new();
        };
        let name = |position| format!("{}[{position}]", self.key(key));
        entries
            .iter()
            .enumerate()
            .filter_map(|(position, entry)| self.as_section(name(position), entry, faults))
            .collect()
    }

    /// All tables in this one, with the names that people gave them.
    pub(crate) fn named(&self, faults: &mut Faults<'_>) -> Vec<(Found<String>, Section<'t, 'i>)> {
        let mut sections = Vec::new();
        for (name, value) in self.table {
            let found = Found { value: name.get_ref().to_string(), at: name.span().start };
            if let Some(section) = self.as_section(self.key(&shorten(&found.value)), value, faults) {
                sections.push((found, section));
            }
        }
        sections
    }

    /// Reports keys that nobody asked for.
    pub(crate) fn finish(mut self, faults: &mut Faults<'_>) {
        self.known.sort_unstable();
        for key in self.table.keys().filter(|key| !self.known.contains(&key.get_ref().as_ref())) {
            let problem = Problem::UnknownKey {
                key: shorten(key.get_ref()),
                section: self.path.clone(),
                suggestion: suggestion(key.get_ref(), &self.known),
                known: self.known.clone(),
            };
            faults.add(key.span().start, problem);
        }
    }

    fn value(&mut self, key: &'static str) -> Option<&'t Spanned<DeValue<'i>>> {
        self.known.push(key);
        self.table.iter().find(|(name, _)| name.get_ref() == key).map(|(_, value)| value)
    }

    fn as_section(
        &self,
        path: String,
        value: &'t Spanned<DeValue<'i>>,
        faults: &mut Faults<'_>,
    ) -> Option<Section<'t, 'i>> {
        let at = value.span().start;
        match value.get_ref().as_table() {
            Some(table) => Some(Section::new(path, at, table)),
            None => {
                faults.add(at, Problem::Type { key: path, expected: "a table", found: kind_of(value.get_ref()) });
                None
            }
        }
    }
}

/// The known key that is nearest to `key`, if one is near.
fn suggestion(key: &str, known: &[&'static str]) -> Option<&'static str> {
    // Longer words would only cost time: no key of ours is near to them.
    if key.len() > 40 {
        return None;
    }
    let (distance, nearest) = known.iter().map(|candidate| (distance(key, candidate), *candidate)).min()?;
    (distance <= 1 + nearest.len() / 4).then_some(nearest)
}

/// How many letters must be changed, added, removed, or swapped with a neighbour (optimal string alignment).
fn distance(left: &str, right: &str) -> usize {
    let (left, right): (Vec<char>, Vec<char>) = (left.chars().collect(), right.chars().collect());
    let mut rows: Vec<Vec<usize>> = vec![(0..=right.len()).collect()];
    for (i, a) in left.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, b) in right.iter().enumerate() {
            let mut cost = (rows[i][j] + usize::from(a != b)).min(rows[i][j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && *a == right[j - 1] && left[i - 1] == *b {
                cost = cost.min(rows[i - 1][j - 1] + 1);
            }
            row.push(cost);
        }
        rows.push(row);
    }
    rows[left.len()][right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_swap_of_neighbours_is_one_mistake() {
        assert_eq!(distance("memroy", "memory"), 1);
        assert_eq!(distance("", "log"), 3);
        assert_eq!(distance("wall_time", "cpu_time"), 4);
        assert_eq!(distance("same", "same"), 0);
    }

    #[test]
    fn only_near_keys_are_suggested() {
        let known = ["cpu_time", "memory", "log"];
        assert_eq!(suggestion("memroy", &known), Some("memory"));
        assert_eq!(suggestion("cputime", &known), Some("cpu_time"));
        assert_eq!(suggestion("weight", &known), None);
        assert_eq!(suggestion(&"m".repeat(1000), &known), None);
    }
}
