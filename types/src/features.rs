//! What tells hosts apart beyond their size, and what tasks ask for of that.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{LabelName, LabelValue, NameError, ResourceName};

/// Most labels, and most resources, of a host or an array.
pub const MAX_FEATURES: usize = 32;
/// Most of one resource.
pub const MAX_RESOURCE: u64 = 1_000_000;

/// Labels and countable resources: those that a host has, or those that each task of an array needs.
///
/// A task runs at a host that has all its labels with the same values. While it runs it holds its resources, so that a host
/// with two `gpu` runs two tasks at once that need one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub struct Features {
    /// Such as `zone = "a"`.
    pub labels: BTreeMap<LabelName, LabelValue>,
    /// Such as `gpu = 2`.
    pub resources: BTreeMap<ResourceName, u64>,
}

/// Labels or resources that cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FeatureError {
    /// Too many at once.
    #[error("{count} {what} are too many, the most is {MAX_FEATURES}")]
    TooMany {
        /// Labels or resources.
        what: &'static str,
        /// How many there are.
        count: usize,
    },
    /// None of a resource, or more than anybody has.
    #[error("resource {name} with an amount of {amount}: give 1 to {MAX_RESOURCE}")]
    Amount {
        /// Of what.
        name: ResourceName,
        /// How much.
        amount: u64,
    },
    /// The same one twice.
    #[error("{name:?} is given twice")]
    Twice {
        /// Which.
        name: String,
    },
    /// Not `name=value`.
    #[error("{text:?} is not of the form {form}")]
    Form {
        /// What there is.
        text: String,
        /// What is needed.
        form: &'static str,
    },
    /// A name or value that cannot be used.
    #[error(transparent)]
    Name(#[from] NameError),
}

impl Features {
    /// Whether nothing is asked for or offered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty() && self.resources.is_empty()
    }

    /// Checks the numbers.
    ///
    /// # Errors
    /// If there are too many labels or resources, or an amount makes no sense.
    pub fn check(&self) -> Result<(), FeatureError> {
        for (what, count) in [("labels", self.labels.len()), ("resources", self.resources.len())] {
            if count > MAX_FEATURES {
                return Err(FeatureError::TooMany { what, count });
            }
        }
        let wrong = self.resources.iter().find(|(_, amount)| **amount == 0 || **amount > MAX_RESOURCE);
        wrong.map_or(Ok(()), |(name, amount)| Err(FeatureError::Amount { name: name.clone(), amount: *amount }))
    }

    /// Adds a label.
    ///
    /// # Errors
    /// If there is one with that name already.
    pub fn add_label(&mut self, Label { name, value }: Label) -> Result<(), FeatureError> {
        match self.labels.insert(name.clone(), value) {
            None => Ok(()),
            Some(_) => Err(FeatureError::Twice { name: name.into() }),
        }
    }

    /// Adds a resource.
    ///
    /// # Errors
    /// If there is one with that name already.
    pub fn add_resource(&mut self, Resource { name, amount }: Resource) -> Result<(), FeatureError> {
        match self.resources.insert(name.clone(), amount) {
            None => Ok(()),
            Some(_) => Err(FeatureError::Twice { name: name.into() }),
        }
    }
}

impl fmt::Display for Features {
    /// As `zone=a gpu=2`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let labels = self.labels.iter().map(|(name, value)| format!("{name}={value}"));
        let resources = self.resources.iter().map(|(name, amount)| format!("{name}={amount}"));
        f.pad(&labels.chain(resources).collect::<Vec<_>>().join(" "))
    }
}

/// One label, written `name=value`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Label {
    /// Its name.
    pub name: LabelName,
    /// Its value.
    pub value: LabelValue,
}

impl FromStr for Label {
    type Err = FeatureError;

    fn from_str(text: &str) -> Result<Self, FeatureError> {
        let (name, value) = split(text, "name=value")?;
        Ok(Self { name: name.parse()?, value: value.parse()? })
    }
}

/// So much of one resource, written `name=amount`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resource {
    /// Its name.
    pub name: ResourceName,
    /// How much of it.
    pub amount: u64,
}

impl FromStr for Resource {
    type Err = FeatureError;

    fn from_str(text: &str) -> Result<Self, FeatureError> {
        const FORM: &str = "name=amount, with a whole number";
        let (name, amount) = split(text, FORM)?;
        let amount = amount.parse().map_err(|_| FeatureError::Form { text: shorten(text), form: FORM })?;
        Ok(Self { name: name.parse()?, amount })
    }
}

fn split<'t>(text: &'t str, form: &'static str) -> Result<(&'t str, &'t str), FeatureError> {
    text.split_once('=').ok_or_else(|| FeatureError::Form { text: shorten(text), form })
}

fn shorten(text: &str) -> String {
    text.chars().take(80).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_and_resources_are_read_with_their_faults_named() {
        let label: Label = "zone=eu-1".parse().unwrap();
        assert_eq!((label.name.as_str(), label.value.as_str()), ("zone", "eu-1"));
        let resource: Resource = "gpu=2".parse().unwrap();
        assert_eq!((resource.name.as_str(), resource.amount), ("gpu", 2));
        for (text, fault) in
            [("zone", "not of the form name=value"), ("Zone=a", "label name"), ("zone=", "label value")]
        {
            let error = text.parse::<Label>().unwrap_err().to_string();
            assert!(error.contains(fault), "{text:?}: {error}");
        }
        for text in ["gpu", "gpu=", "gpu=1.5", "gpu=-1", "=1"] {
            assert!(text.parse::<Resource>().is_err(), "{text:?} was accepted");
        }
    }

    #[test]
    fn amounts_are_at_least_one_and_names_are_given_once() {
        let mut features = Features::default();
        features.add_resource("gpu=0".parse().unwrap()).unwrap();
        assert!(features.check().unwrap_err().to_string().contains("gpu with an amount of 0"));
        assert_eq!(features.add_resource("gpu=1".parse().unwrap()).unwrap_err().to_string(), "\"gpu\" is given twice");
    }
}
