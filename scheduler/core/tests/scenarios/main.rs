//! Core scenarios: events in, consequences out. The names of the tests are what the scheduler promises.

mod admission;
mod edges;
mod failures;
mod hosts;
mod quotas;
mod restart;
mod results;
