//! partita-testkit
