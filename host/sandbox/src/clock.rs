//! Clocks: the daemon's own, and the kernel's CPU clock of an executor, which nobody inside can forge.

use std::time::Instant;

use partita_types::CpuTime;

/// Now, for limits and deadlines of this crate.
#[expect(clippy::disallowed_methods, reason = "limits are enforced here, on the clock of this machine")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// CPU time that process `pid` has used; `None` if there is no such process.
///
/// While the process runs, the value moves in steps of up to 9 ms; it is exact once the process blocks or is stopped.
#[allow(unsafe_code, reason = "clocks of other processes have no safe wrapper")]
pub(crate) fn cpu_time(pid: u32) -> Option<CpuTime> {
    let mut clock = 0;
    // SAFETY: the pointer is to a live local.
    let status = unsafe { libc::clock_getcpuclockid(pid.cast_signed(), &raw mut clock) };
    // For a process that has gone the id stays 0, which is the wall clock: the status must be looked at.
    if status != 0 {
        return None;
    }
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a live local.
    if unsafe { libc::clock_gettime(clock, &raw mut time) } != 0 {
        return None;
    }
    let micros = time.tv_sec.cast_unsigned().saturating_mul(1_000_000) + time.tv_nsec.cast_unsigned() / 1_000;
    Some(CpuTime::from_micros(micros))
}

/// What people call a signal.
pub(crate) fn signal_name(signal: i32) -> String {
    let name = match signal {
        libc::SIGABRT => "SIGABRT",
        libc::SIGBUS => "SIGBUS",
        libc::SIGFPE => "SIGFPE",
        libc::SIGILL => "SIGILL",
        libc::SIGKILL => "SIGKILL",
        libc::SIGSEGV => "SIGSEGV",
        libc::SIGSYS => "SIGSYS (a forbidden system call)",
        libc::SIGTERM => "SIGTERM",
        libc::SIGXCPU => "SIGXCPU",
        libc::SIGXFSZ => "SIGXFSZ",
        other => return format!("signal {other}"),
    };
    name.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_does_not_exist_has_no_clock() {
        // The largest process id that Linux gives out is below 2^22.
        assert_eq!(cpu_time(0x7fff_fff0), None);
        assert!(cpu_time(std::process::id()).unwrap().micros > 0);
    }
}
