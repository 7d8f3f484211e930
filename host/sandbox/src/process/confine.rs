//! Takes everything from a process that running or compiling a guest does not need. There is no way back.
//!
//! Three walls, each closed for itself: seccomp allows some twenty system calls with restricted arguments and kills the
//! process at any other; Landlock allows no path, no network and no signal to the outside; and there is no capability, no
//! way to gain one, and an rlimit on everything that can be counted.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::RawFd;

use landlock::{ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, Ruleset, RulesetAttr, RulesetStatus, Scope};
use partita_types::{ByteSize, Isolation};
use rustix::process::{DumpableBehavior, Resource, Rlimit, Signal, setrlimit};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
};

/// Descriptor 0 of every helper process is its socket, so the filter can name it.
pub(crate) const SOCKET: RawFd = 0;
const STDERR: u64 = 2;

/// `ioctl` that tells which pages of a range were written to.
const PAGEMAP_SCAN: u64 = 0xc060_6610;
/// `futex` operation that wakes threads of the same process. Waiting would be for ever: there is no other thread.
const FUTEX_WAKE_PRIVATE: u64 = 129;

/// What a process may still use.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Allowance {
    /// Private memory.
    pub(crate) data: Option<ByteSize>,
    /// Address space. Not for executors: their reservations alone are 16 GiB.
    pub(crate) address_space: Option<ByteSize>,
    /// Length of one memory file.
    pub(crate) file: ByteSize,
    /// Open descriptors.
    pub(crate) descriptors: u64,
    /// CPU seconds, where the kernel is to be the one who counts them.
    pub(crate) cpu_seconds: Option<u64>,
}

/// The filter, compiled once and applied in each process.
pub(crate) fn filter() -> Result<BpfProgram, seccompiler::Error> {
    let target = std::env::consts::ARCH.try_into()?;
    let filter = SeccompFilter::new(rules()?, SeccompAction::KillProcess, SeccompAction::Allow, target)?;
    Ok(BpfProgram::try_from(filter)?)
}

fn rules() -> Result<BTreeMap<i64, Vec<SeccompRule>>, seccompiler::Error> {
    let any = [
        libc::SYS_munmap,
        libc::SYS_brk,
        libc::SYS_rt_sigreturn,
        libc::SYS_exit_group,
        libc::SYS_exit,
        libc::SYS_close,
        libc::SYS_clock_gettime,
        libc::SYS_getrandom,
        libc::SYS_memfd_create,
        libc::SYS_ftruncate,
        libc::SYS_fstat,
        libc::SYS_pread64,
        libc::SYS_pwrite64,
    ];
    let no_exec = || condition(2, SeccompCmpOp::MaskedEq(libc::PROT_EXEC.cast_unsigned().into()), 0);
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = any.into_iter().map(|call| (call, Vec::new())).collect();
    rules.insert(libc::SYS_recvmsg, vec![argument(0, SOCKET.cast_unsigned().into())?]);
    rules.insert(libc::SYS_sendmsg, vec![argument(0, SOCKET.cast_unsigned().into())?]);
    rules.insert(libc::SYS_write, vec![argument(0, STDERR)?]);
    rules.insert(libc::SYS_ioctl, vec![argument(1, PAGEMAP_SCAN)?]);
    rules.insert(libc::SYS_madvise, vec![argument(2, libc::MADV_DONTNEED.cast_unsigned().into())?]);
    rules.insert(libc::SYS_mremap, vec![argument(3, libc::MREMAP_MAYMOVE.cast_unsigned().into())?]);
    rules.insert(libc::SYS_futex, vec![argument(1, FUTEX_WAKE_PRIVATE)?]);
    // In builds with debug assertions the standard library asks for a descriptor's flags before it closes it.
    let commands = [libc::F_ADD_SEALS, libc::F_GET_SEALS, libc::F_GETFD];
    let commands = commands.into_iter().map(|command| argument(1, command.cast_unsigned().into()));
    rules.insert(libc::SYS_fcntl, commands.collect::<Result<_, _>>()?);
    rules.insert(libc::SYS_mmap, vec![SeccompRule::new(vec![no_exec()?])?]);
    rules.insert(libc::SYS_mprotect, vec![SeccompRule::new(vec![no_exec()?])?]);
    Ok(rules)
}

fn argument(number: u8, value: u64) -> Result<SeccompRule, seccompiler::Error> {
    Ok(SeccompRule::new(vec![condition(number, SeccompCmpOp::Eq, value)?])?)
}

fn condition(number: u8, operator: SeccompCmpOp, value: u64) -> Result<SeccompCondition, seccompiler::Error> {
    Ok(SeccompCondition::new(number, SeccompCmpArgLen::Dword, operator, value)?)
}

/// Ends this process when its parent ends. `parent` is asked for again afterwards, in case it ended just before.
pub(crate) fn die_with(parent: rustix::process::Pid) -> io::Result<()> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    if rustix::process::getppid() == Some(parent) { Ok(()) } else { Err(io::Error::other("the parent has ended")) }
}

/// Gives up capabilities and the ways to get any. A zygote does this too.
pub(crate) fn drop_privileges() -> io::Result<()> {
    rustix::thread::set_no_new_privs(true)?;
    let none = rustix::thread::CapabilitySet::empty();
    rustix::thread::set_capabilities(
        None,
        rustix::thread::CapabilitySets { effective: none, permitted: none, inheritable: none },
    )?;
    limit(Resource::Core, 0)
}

/// Confines this process for good and says how strongly.
pub(crate) fn confine(allowance: &Allowance, nice: u8, filter: &BpfProgram) -> io::Result<Isolation> {
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    rustix::process::setpriority_process(None, i32::from(nice.min(19)))?;
    limit(Resource::Nproc, 0)?;
    limit(Resource::Memlock, 0)?;
    limit(Resource::Sigpending, 16)?;
    limit(Resource::Fsize, allowance.file.0)?;
    limit(Resource::Nofile, allowance.descriptors)?;
    for (resource, value) in [
        (Resource::Data, allowance.data.map(|size| size.0)),
        (Resource::As, allowance.address_space.map(|size| size.0)),
        (Resource::Cpu, allowance.cpu_seconds),
    ] {
        if let Some(value) = value {
            limit(resource, value)?;
        }
    }
    drop_privileges()?;
    let landlock = landlock();
    match seccompiler::apply_filter(filter) {
        Ok(()) if landlock => Ok(Isolation::Full),
        Ok(()) => Ok(Isolation::Seccomp),
        // A kernel without seccomp is not a place for guests of strangers, but the policy may say that it is.
        Err(_) => Ok(Isolation::Process),
    }
}

/// Sets a limit, or leaves a lower one that is there already.
fn limit(resource: Resource, value: u64) -> io::Result<()> {
    let value = rustix::process::getrlimit(resource).maximum.map_or(value, |maximum| maximum.min(value));
    Ok(setrlimit(resource, Rlimit { current: Some(value), maximum: Some(value) })?)
}

/// Forbids every path, every TCP port, and signals and abstract sockets to the outside. `false` if the kernel cannot
/// forbid at least paths and ports.
fn landlock() -> bool {
    let restrict = || {
        Ruleset::default()
            .set_compatibility(CompatLevel::HardRequirement)
            .handle_access(AccessFs::from_all(ABI::V4))?
            .handle_access(AccessNet::from_all(ABI::V4))?
            .set_compatibility(CompatLevel::BestEffort)
            .handle_access(AccessFs::from_all(ABI::V6))?
            .scope(Scope::from_all(ABI::V6))?
            .create()?
            .set_compatibility(CompatLevel::BestEffort)
            .restrict_self()
    };
    restrict().is_ok_and(|status| !matches!(status.ruleset, RulesetStatus::NotEnforced))
}
