//! partita-example-etl
