//! What a module says about itself.

use serde::{Deserialize, Serialize};

use crate::{ByteSize, ModuleId};

/// One function of a module, as its `describe` export lists it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FunctionInfo {
    /// The name by which arrays refer to it.
    pub name: String,
    /// First paragraph of its documentation.
    pub doc: String,
    /// How many input edges it takes; `None` if any number will do.
    pub inputs: Option<u32>,
    /// How many outputs it writes; `None` if the array decides.
    pub outputs: Option<u32>,
}

/// A module that a tenant has pushed and a host has inspected.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModuleInfo {
    /// The SHA-256 of the component.
    pub id: ModuleId,
    /// The name given at the push; several modules may carry one name, the latest is meant by it.
    pub name: String,
    /// Size of the component.
    pub size: ByteSize,
    /// What it can run.
    pub functions: Vec<FunctionInfo>,
}
