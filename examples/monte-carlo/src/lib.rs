//! partita-example-monte-carlo
