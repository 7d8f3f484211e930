//! partita-host
