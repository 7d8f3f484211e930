//! partita-policy
