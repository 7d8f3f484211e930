//! partita-guest-macros
