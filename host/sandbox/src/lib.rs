//! partita-sandbox
