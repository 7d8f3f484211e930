//! partita-identity
