//! JSON objects as tokens need them: no name twice, nothing but an object.
//!
//! Ordinary parsers keep the last of two equal names. A token that is checked by one program and used by another
//! must mean the same to both.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value;

use super::TokenError;

/// The members of an object in their order.
pub(crate) struct Members(pub(crate) Vec<(String, Value)>);

impl Members {
    /// Decodes one part of a token; `part` names it in errors.
    pub(crate) fn decode(part: &'static str, encoded: &str) -> Result<Self, TokenError> {
        let bytes = URL_SAFE_NO_PAD.decode(encoded).map_err(|_| TokenError::Form)?;
        let members: Self = serde_json::from_slice(&bytes).map_err(|_| TokenError::Json { part })?;
        for (position, (name, _)) in members.0.iter().enumerate() {
            if members.0[..position].iter().any(|(earlier, _)| earlier == name) {
                return Err(TokenError::Duplicate { part, name: shorten(name) });
            }
        }
        Ok(members)
    }

    /// Takes out the member `name`.
    pub(crate) fn take(&mut self, name: &str) -> Option<Value> {
        let position = self.0.iter().position(|(have, _)| have == name)?;
        Some(self.0.remove(position).1)
    }
}

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;

        impl<'de> Visitor<'de> for Object {
            type Value = Members;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }

        deserializer.deserialize_map(Object)
    }
}

/// At most 40 characters, for a message.
pub(crate) fn shorten(text: &str) -> String {
    text.chars().take(40).collect()
}
