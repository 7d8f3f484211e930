//! What a guest can ask for anywhere, when no sandbox is around: in unit tests of task functions.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::time::Duration;

use crate::ambient::{Budget, Level};

pub(crate) fn log(level: Level, message: &str) {
    eprintln!("{level}: {message}");
}

pub(crate) fn progress(done: u64, total: u64) {
    eprintln!("progress: {done} of {total}");
}

pub(crate) fn remaining() -> Budget {
    Budget { memory: u64::MAX, cpu_time: Duration::MAX, wall_time: Duration::MAX }
}

pub(crate) fn random_u64() -> u64 {
    RandomState::new().build_hasher().finish()
}
