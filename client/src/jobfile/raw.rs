//! The form of a job file: which keys there are and what kind of value each takes. Meaning is checked by `resolve`.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use partita_types::{ByteSize, LabelName, LabelValue, ResourceName, parse_duration};
use serde::de::{Deserialize, Deserializer, Error, Visitor};
use toml::Spanned;

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Job {
    pub(super) name: Spanned<String>,
    pub(super) deadline: Option<Time>,
    #[serde(default)]
    pub(super) modules: BTreeMap<String, Spanned<Module>>,
    #[serde(default)]
    pub(super) array: Vec<Spanned<Array>>,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Module {
    pub(super) path: Option<PathBuf>,
    pub(super) name: Option<String>,
    pub(super) id: Option<String>,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Array {
    pub(super) name: Spanned<String>,
    pub(super) function: Spanned<String>,
    pub(super) tasks: Option<u32>,
    pub(super) outputs: Option<u32>,
    pub(super) args: Option<Spanned<toml::Value>>,
    pub(super) args_per_task: Option<Spanned<Vec<toml::Value>>>,
    #[serde(default)]
    pub(super) inputs: Vec<Spanned<Edge>>,
    pub(super) memory: Option<Size>,
    pub(super) cpu_time: Option<Time>,
    pub(super) wall_time: Option<Time>,
    pub(super) output: Option<Size>,
    pub(super) log: Option<Size>,
    pub(super) retries: Option<u32>,
    pub(super) backoff: Option<Time>,
    pub(super) priority: Option<i32>,
    pub(super) keep: Option<bool>,
    pub(super) deterministic: Option<bool>,
    pub(super) memory_max: Option<Size>,
    #[serde(default)]
    pub(super) labels: BTreeMap<LabelName, LabelValue>,
    #[serde(default)]
    pub(super) resources: BTreeMap<ResourceName, u64>,
    pub(super) memoise: Option<bool>,
    pub(super) speculate: Option<bool>,
}

/// All keys of all edges; `resolve` says which go together.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Edge {
    pub(super) each: Option<String>,
    pub(super) all: Option<String>,
    pub(super) output: Option<u32>,
    pub(super) slice: Option<String>,
    pub(super) fold: Option<String>,
    pub(super) arity: Option<u32>,
    pub(super) dataset: Option<String>,
    pub(super) split: Option<Size>,
    pub(super) limit: Option<Size>,
    pub(super) literal: Option<String>,
    pub(super) literals: Option<Vec<String>>,
    pub(super) list: Option<Vec<Vec<Spanned<String>>>>,
}

/// A size: `"8MiB"`, or a number of bytes.
#[derive(Clone, Copy)]
pub(super) struct Size(pub(super) ByteSize);

/// A time: `"10s"`.
#[derive(Clone, Copy)]
pub(super) struct Time(pub(super) Duration);

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Read;
        impl Visitor<'_> for Read {
            type Value = Size;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a size such as \"512MiB\"")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Size, E> {
                text.parse().map(Size).map_err(E::custom)
            }

            fn visit_i64<E: Error>(self, bytes: i64) -> Result<Size, E> {
                u64::try_from(bytes).map(|bytes| Size(ByteSize(bytes))).map_err(|_| E::custom("a size is not negative"))
            }
        }
        deserializer.deserialize_any(Read)
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Read;
        impl Visitor<'_> for Read {
            type Value = Time;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a time such as \"10s\"")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Time, E> {
                parse_duration(text).map(Time).map_err(E::custom)
            }
        }
        deserializer.deserialize_any(Read)
    }
}
