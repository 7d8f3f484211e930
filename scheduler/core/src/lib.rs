//! partita-core
