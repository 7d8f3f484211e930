//! partita-guest
