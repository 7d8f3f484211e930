//! partita-example-wordfreq
