//! Values in a policy: how each kind is written, read and described in the schema.

use std::borrow::Cow;
use std::time::Duration;

use partita_types::{ByteSize, Isolation, MilliCpu, format_duration, parse_duration};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use toml::de::DeValue;

use crate::fault::{Problem, shorten};

/// A value that a file may give, and where it does.
#[derive(Debug, Clone)]
pub(crate) struct Setting<T>(pub(crate) Option<Found<T>>);

impl<T> Default for Setting<T> {
    fn default() -> Self {
        Self(None)
    }
}

/// A value in a file.
#[derive(Debug, Clone)]
pub(crate) struct Found<T> {
    pub(crate) value: T,
    /// Byte of the file where the value stands.
    pub(crate) at: usize,
}

/// A kind of value.
pub(crate) trait Kind: Sized {
    /// How it is written, for messages: "a size such as ...".
    const EXPECTED: &'static str;

    /// Whether it is written as a value of this type, in whatever form.
    fn is_written_as(value: &DeValue<'_>) -> bool {
        value.is_str()
    }

    /// Reads it; `None` if the type or the form is wrong.
    fn read(value: &DeValue<'_>) -> Option<Self>;

    /// How it is described to editors.
    fn schema() -> Schema;

    /// For messages.
    fn show(&self) -> String;
}

impl<T: Kind> JsonSchema for Setting<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Setting".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        T::schema()
    }
}

/// Says what is wrong with a value that `T` could not read.
pub(crate) fn misread<T: Kind>(key: String, value: &DeValue<'_>) -> Problem {
    if !T::is_written_as(value) {
        return Problem::Type { key, expected: T::EXPECTED, found: kind_of(value) };
    }
    let text = match value {
        DeValue::String(text) => shorten(text),
        DeValue::Integer(number) => shorten(number.as_str()),
        DeValue::Float(number) => shorten(number.as_str()),
        _ => kind_of(value).to_owned(),
    };
    Problem::Form { key, text, expected: T::EXPECTED }
}

/// The type of a value in words.
pub(crate) fn kind_of(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a float",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "an array",
        DeValue::Table(_) => "a table",
    }
}

impl Kind for ByteSize {
    const EXPECTED: &'static str = "a size such as \"512MiB\" (B, KiB, MiB, GiB, TiB)";

    fn read(value: &DeValue<'_>) -> Option<Self> {
        // A bare number of bytes is more likely a forgotten unit.
        value.as_str().filter(|text| text.ends_with('B'))?.parse().ok()
    }

    fn schema() -> Schema {
        json_schema!({ "type": "string", "pattern": r"^[0-9]+(\.[0-9]+)? *(B|KiB|MiB|GiB|TiB)$", "examples": ["512MiB"] })
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

impl Kind for Duration {
    const EXPECTED: &'static str = "a time such as \"10m\" (us, ms, s, m, h, d)";

    fn read(value: &DeValue<'_>) -> Option<Self> {
        parse_duration(value.as_str()?).ok()
    }

    fn schema() -> Schema {
        json_schema!({ "type": "string", "pattern": r"^[0-9]+(\.[0-9]+)? *(us|ms|s|m|h|d)$", "examples": ["10m"] })
    }

    fn show(&self) -> String {
        format_duration(*self)
    }
}

impl Kind for MilliCpu {
    const EXPECTED: &'static str = "a number of cores such as 2.5, with at most three decimals";

    fn is_written_as(value: &DeValue<'_>) -> bool {
        value.is_integer() || value.is_float()
    }

    fn read(value: &DeValue<'_>) -> Option<Self> {
        let text = match value {
            DeValue::Integer(number) if number.radix() == 10 => number.as_str(),
            DeValue::Float(number) => number.as_str(),
            _ => return None,
        };
        let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
        // Read as digits, because a float would not say whether 0.1 was meant.
        if fraction.len() > 3 || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let thousandths: u64 = format!("{fraction:0<3}").parse().ok()?;
        whole.parse::<u64>().ok()?.checked_mul(1000)?.checked_add(thousandths).map(Self)
    }

    fn schema() -> Schema {
        json_schema!({ "type": "number", "multipleOf": 0.001, "minimum": 0 })
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

/// A number of things.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Count(pub(crate) u64);

impl Kind for Count {
    const EXPECTED: &'static str = "a whole number from 0 to 18446744073709551615";

    fn is_written_as(value: &DeValue<'_>) -> bool {
        value.is_integer()
    }

    fn read(value: &DeValue<'_>) -> Option<Self> {
        let number = value.as_integer()?;
        u64::from_str_radix(number.as_str(), number.radix()).ok().map(Self)
    }

    fn schema() -> Schema {
        json_schema!({ "type": "integer", "minimum": 1 })
    }

    fn show(&self) -> String {
        self.0.to_string()
    }
}

impl Kind for Isolation {
    const EXPECTED: &'static str = "one of \"process\", \"seccomp\", \"full\"";

    fn read(value: &DeValue<'_>) -> Option<Self> {
        let text = value.as_str()?;
        [Self::Process, Self::Seccomp, Self::Full].into_iter().find(|level| level.as_str() == text)
    }

    fn schema() -> Schema {
        json_schema!({ "enum": ["process", "seccomp", "full"] })
    }

    fn show(&self) -> String {
        self.as_str().to_owned()
    }
}

impl Kind for String {
    const EXPECTED: &'static str = "a string";

    fn read(value: &DeValue<'_>) -> Option<Self> {
        value.as_str().map(str::to_owned)
    }

    fn schema() -> Schema {
        json_schema!({ "type": "string" })
    }

    fn show(&self) -> String {
        shorten(self)
    }
}

/// A list of texts, each with its place.
impl Kind for Vec<Found<String>> {
    const EXPECTED: &'static str = "an array of strings";

    fn is_written_as(_: &DeValue<'_>) -> bool {
        false
    }

    fn read(value: &DeValue<'_>) -> Option<Self> {
        value
            .as_array()?
            .iter()
            .map(|entry| {
                let at = entry.span().start;
                String::read(entry.get_ref()).map(|value| Found { value, at })
            })
            .collect()
    }

    fn schema() -> Schema {
        json_schema!({ "type": "array", "items": { "type": "string" } })
    }

    fn show(&self) -> String {
        format!("{} entries", self.len())
    }
}
