//! partita-tests
