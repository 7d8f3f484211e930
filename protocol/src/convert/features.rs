//! Labels and resources.

use partita_types::{FeatureError, Features, Label, Resource};

use super::DecodeError;
use crate::job as wire;

/// Labels and resources as messages.
#[must_use]
pub fn features_to_wire(features: &Features) -> (Vec<wire::Label>, Vec<wire::Resource>) {
    let labels = features.labels.iter();
    let labels = labels.map(|(name, value)| wire::Label { name: name.to_string(), value: value.to_string() });
    let resources = features.resources.iter();
    let resources = resources.map(|(name, amount)| wire::Resource { name: name.to_string(), amount: *amount });
    (labels.collect(), resources.collect())
}

/// Labels and resources from messages.
///
/// # Errors
/// If a name is wrong or stands there twice, or an amount makes no sense.
pub fn features_from_wire(labels: Vec<wire::Label>, resources: Vec<wire::Resource>) -> Result<Features, DecodeError> {
    let read = || -> Result<Features, FeatureError> {
        let mut features = Features::default();
        for wire::Label { name, value } in &labels {
            features.add_label(Label { name: name.parse()?, value: value.parse()? })?;
        }
        for wire::Resource { name, amount } in &resources {
            features.add_resource(Resource { name: name.parse()?, amount: *amount })?;
        }
        features.check()?;
        Ok(features)
    };
    Ok(read()?)
}
