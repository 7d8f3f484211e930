//! partita-client
