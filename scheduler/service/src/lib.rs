//! partita-scheduler
