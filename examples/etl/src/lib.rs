//! How many countries does each part of the world have, and which has the longest name? A table goes in and a table comes
//! out, both as CSV: `extract` filters rows and deals them out by group, `summarise` works on the groups that one output
//! of every `extract` has, `table` puts the result together.
//!
//! Rows are streamed: no task holds more than what it has to say about its groups. Pieces of a table are cut at line ends,
//! so a row must not contain any. Only the first piece has the row of headings.

use std::collections::BTreeMap;

use partita::prelude::*;
use serde::{Deserialize, Serialize};

partita::module!(extract, summarise, table);

/// The headings of the table that goes in.
const HEADINGS: [&str; 6] = ["name", "alpha2", "alpha3", "numeric", "region", "sub_region"];

/// A row of the table that goes in.
#[derive(Debug, Deserialize)]
struct Country {
    name: String,
    _alpha2: String,
    _alpha3: String,
    _numeric: String,
    region: String,
    sub_region: String,
}

/// A row on its way to its group.
#[derive(Debug, Serialize, Deserialize)]
struct Member {
    region: String,
    sub_region: String,
    name: String,
}

/// A row of the table that comes out.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Summary {
    region: String,
    sub_region: String,
    countries: u64,
    longest_name: String,
}

/// Rows of CSV without headings.
fn rows(input: Reader) -> csv::Reader<Reader> {
    csv::ReaderBuilder::new().has_headers(false).from_reader(input)
}

/// Arguments of [`extract`].
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Filter {
    /// Only countries of this region; all if there is none.
    region: Option<String>,
}

/// Keeps the countries that belong to a region and sends each to the output that its sub-region belongs to.
#[partita::task]
pub fn extract(piece: Reader, Args(filter): Args<Filter>, count: Outputs, mut outputs: Writers) -> Result<()> {
    let mut writers: Vec<_> =
        outputs.iter_mut().map(|output| csv::WriterBuilder::new().has_headers(false).from_writer(output)).collect();
    let (mut kept, mut dropped) = (0_u64, 0_u64);
    for record in rows(piece).records() {
        let record = record?;
        if record.iter().eq(HEADINGS) {
            continue;
        }
        let country: Country = record.deserialize(None)?;
        let wanted = filter.region.as_ref().is_none_or(|region| *region == country.region);
        if country.region.is_empty() || !wanted {
            dropped += 1;
            continue;
        }
        kept += 1;
        let Country { name, region, sub_region, .. } = country;
        writers[count.index_of(sub_region.as_bytes())].serialize(Member { region, sub_region, name })?;
    }
    for writer in &mut writers {
        writer.flush()?;
    }
    partita::info!("{kept} rows kept, {dropped} dropped");
    Ok(())
}

/// Counts the countries of each sub-region and finds the longest name.
#[partita::task]
pub fn summarise(parts: Many<Reader>) -> Result<String> {
    let mut groups: BTreeMap<(String, String), (u64, String)> = BTreeMap::new();
    for part in parts {
        for member in rows(part?).into_deserialize() {
            let Member { region, sub_region, name } = member?;
            let (countries, longest) = groups.entry((region, sub_region)).or_default();
            *countries += 1;
            if is_longer(&name, longest) {
                *longest = name;
            }
        }
    }
    let summary =
        |((region, sub_region), (countries, longest_name))| Summary { region, sub_region, countries, longest_name };
    write(groups.into_iter().map(summary), false)
}

/// Whether `name` has more letters than `other`, or as many and comes first.
fn is_longer(name: &str, other: &str) -> bool {
    let (letters, others) = (name.chars().count(), other.chars().count());
    letters > others || (letters == others && name < other)
}

/// Puts the summaries together, in the order of the regions, under a row of headings.
#[partita::task]
pub fn table(parts: Many<Reader>) -> Result<String> {
    let mut all: Vec<Summary> = Vec::new();
    for part in parts {
        for summary in rows(part?).into_deserialize() {
            all.push(summary?);
        }
    }
    all.sort();
    write(all, true)
}

/// CSV with or without a row of headings.
fn write(summaries: impl IntoIterator<Item = Summary>, headings: bool) -> Result<String> {
    let mut writer = csv::WriterBuilder::new().has_headers(headings).from_writer(Vec::new());
    for summary in summaries {
        writer.serialize(summary)?;
    }
    let bytes = writer.into_inner().map_err(|error| Error::new(error.to_string()))?;
    Ok(String::from_utf8(bytes)?)
}

#[cfg(test)]
mod tests;
