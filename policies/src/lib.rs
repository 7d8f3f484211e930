//! Quota and capability policy: parse, validate, evaluate; all pure.

mod quota;

pub use quota::{Quota, TenantPolicy};
