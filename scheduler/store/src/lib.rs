//! partita-store
