//! The part of WASI 0.2 that standard libraries of languages need, without anything behind it.
//!
//! Standard output and error become lines of the log; the environment, standard input and the file system are empty;
//! clocks start at the job's submission and advance by a fixed step per call; a sleep moves the clock and returns at
//! once; random numbers follow from the attempt's seed. Nothing here waits, so no system call is made, and streams and
//! pollables are mere numbers: there is no table that a guest could fill.

use partita_types::Cause;
use wasmtime::Result;
use wasmtime::component::{HasSelf, Linker, Resource};
use wasmtime_wasi::filesystem::{WasiFilesystem, WasiFilesystemCtxView};
use wasmtime_wasi::p2::bindings::sync::filesystem::types as filesystem_types;
use wasmtime_wasi::p2::bindings::sync::io::{poll, streams};
use wasmtime_wasi::p2::bindings::{cli, clocks, filesystem, random};
use wasmtime_wasi::p2::{DynInputStream, DynOutputStream, DynPollable, IoError, StreamError, StreamResult};
use wasmtime_wasi_io::bindings::wasi::io::error;

use super::context::{State, TRANSFER_MAX};
use super::log::Stream;

/// By how much the guest's clock advances with each look at it.
const CLOCK_STEP_NS: u64 = 1_000;
/// Most random bytes of one call.
const RANDOM_MAX: u64 = 64 << 10;
/// Numbers of the streams and of the only pollable.
const STDIN: u32 = 0;
const STDOUT: u32 = 1;
const STDERR: u32 = 2;
const ALWAYS_READY: u32 = 0;
/// What a guest may write to a stream at once.
const PERMIT: u64 = 64 << 10;

pub(super) fn add_to_linker(linker: &mut Linker<State>) -> Result<()> {
    type Own = HasSelf<State>;
    cli::environment::add_to_linker::<_, Own>(linker, |state| state)?;
    cli::exit::add_to_linker::<_, Own>(linker, |state| state)?;
    cli::stdin::add_to_linker::<_, Own>(linker, |state| state)?;
    cli::stdout::add_to_linker::<_, Own>(linker, |state| state)?;
    cli::stderr::add_to_linker::<_, Own>(linker, |state| state)?;
    cli::terminal_input::add_to_linker::<_, Own>(linker, |state| state)?;
    cli::terminal_output::add_to_linker::<_, Own>(linker, |state| state)?;
    cli::terminal_stdin::add_to_linker::<_, Own>(linker, |state| state)?;
    cli::terminal_stdout::add_to_linker::<_, Own>(linker, |state| state)?;
    cli::terminal_stderr::add_to_linker::<_, Own>(linker, |state| state)?;
    clocks::wall_clock::add_to_linker::<_, Own>(linker, |state| state)?;
    clocks::monotonic_clock::add_to_linker::<_, Own>(linker, |state| state)?;
    random::random::add_to_linker::<_, Own>(linker, |state| state)?;
    random::insecure::add_to_linker::<_, Own>(linker, |state| state)?;
    random::insecure_seed::add_to_linker::<_, Own>(linker, |state| state)?;
    error::add_to_linker::<_, Own>(linker, |state| state)?;
    poll::add_to_linker::<_, Own>(linker, |state| state)?;
    streams::add_to_linker::<_, Own>(linker, |state| state)?;
    // Modules made from WASI 0.1 always import these. Without a preopened directory no descriptor exists to use them on.
    filesystem::preopens::add_to_linker::<_, WasiFilesystem>(linker, no_files)?;
    filesystem_types::add_to_linker::<_, WasiFilesystem>(linker, no_files)
}

fn no_files(state: &mut State) -> WasiFilesystemCtxView<'_> {
    WasiFilesystemCtxView { ctx: &mut state.no_files, table: &mut state.table }
}

impl State {
    /// Advances the clock by one step and returns nanoseconds since the attempt's start.
    fn tick(&mut self) -> u64 {
        self.clock_ns = self.clock_ns.saturating_add(CLOCK_STEP_NS);
        self.clock_ns
    }

    fn fill_random(&mut self, bytes: &mut [u8]) {
        let seed = &self.seed;
        self.random.get_or_insert_with(|| blake3::Hasher::new_keyed(seed).finalize_xof()).fill(bytes);
    }

    fn random_bytes(&mut self, length: u64) -> Result<Vec<u8>> {
        if length > RANDOM_MAX {
            let message = format!("the guest asked for {length} random bytes in one call, the limit is {RANDOM_MAX}");
            return Err(self.fail(Cause::SandboxLimit, message));
        }
        // At most 64 KiB, so it fits.
        let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
        self.fill_random(&mut bytes);
        Ok(bytes)
    }

    fn random_u64(&mut self) -> u64 {
        let mut bytes = [0; 8];
        self.fill_random(&mut bytes);
        u64::from_le_bytes(bytes)
    }

    fn print(&mut self, stream: &Resource<DynOutputStream>, bytes: &[u8]) -> StreamResult<()> {
        match stream.rep() {
            STDOUT => self.log.print(Stream::Output, bytes),
            STDERR => self.log.print(Stream::Error, bytes),
            _ => return Err(StreamError::Closed),
        }
        Ok(())
    }

    fn exited(&mut self, status: u8) -> wasmtime::Error {
        self.fail(Cause::Trap, format!("the guest called exit with status {status}"))
    }
}

impl cli::environment::Host for State {
    fn get_environment(&mut self) -> Result<Vec<(String, String)>> {
        Ok(Vec::new())
    }

    fn get_arguments(&mut self) -> Result<Vec<String>> {
        Ok(Vec::new())
    }

    fn initial_cwd(&mut self) -> Result<Option<String>> {
        Ok(None)
    }
}

impl cli::exit::Host for State {
    fn exit(&mut self, status: std::result::Result<(), ()>) -> Result<()> {
        Err(self.exited(u8::from(status.is_err())))
    }

    fn exit_with_code(&mut self, status: u8) -> Result<()> {
        Err(self.exited(status))
    }
}

impl cli::stdin::Host for State {
    fn get_stdin(&mut self) -> Result<Resource<DynInputStream>> {
        Ok(Resource::new_own(STDIN))
    }
}

impl cli::stdout::Host for State {
    fn get_stdout(&mut self) -> Result<Resource<DynOutputStream>> {
        Ok(Resource::new_own(STDOUT))
    }
}

impl cli::stderr::Host for State {
    fn get_stderr(&mut self) -> Result<Resource<DynOutputStream>> {
        Ok(Resource::new_own(STDERR))
    }
}

impl cli::terminal_input::Host for State {}
impl cli::terminal_input::HostTerminalInput for State {
    fn drop(&mut self, _terminal: Resource<cli::terminal_input::TerminalInput>) -> Result<()> {
        Ok(())
    }
}

impl cli::terminal_output::Host for State {}
impl cli::terminal_output::HostTerminalOutput for State {
    fn drop(&mut self, _terminal: Resource<cli::terminal_output::TerminalOutput>) -> Result<()> {
        Ok(())
    }
}

impl cli::terminal_stdin::Host for State {
    fn get_terminal_stdin(&mut self) -> Result<Option<Resource<cli::terminal_stdin::TerminalInput>>> {
        Ok(None)
    }
}

impl cli::terminal_stdout::Host for State {
    fn get_terminal_stdout(&mut self) -> Result<Option<Resource<cli::terminal_stdout::TerminalOutput>>> {
        Ok(None)
    }
}

impl cli::terminal_stderr::Host for State {
    fn get_terminal_stderr(&mut self) -> Result<Option<Resource<cli::terminal_stderr::TerminalOutput>>> {
        Ok(None)
    }
}

impl clocks::wall_clock::Host for State {
    fn now(&mut self) -> Result<clocks::wall_clock::Datetime> {
        let since_start = self.tick();
        let micros = self.started_at.micros.saturating_add(since_start / 1_000);
        let nanoseconds = u32::try_from(micros % 1_000_000 * 1_000).unwrap_or(0);
        Ok(clocks::wall_clock::Datetime { seconds: micros / 1_000_000, nanoseconds })
    }

    fn resolution(&mut self) -> Result<clocks::wall_clock::Datetime> {
        Ok(clocks::wall_clock::Datetime { seconds: 0, nanoseconds: 1_000 })
    }
}

impl clocks::monotonic_clock::Host for State {
    fn now(&mut self) -> Result<u64> {
        Ok(self.tick())
    }

    fn resolution(&mut self) -> Result<u64> {
        Ok(CLOCK_STEP_NS)
    }

    fn subscribe_instant(&mut self, when: u64) -> Result<Resource<DynPollable>> {
        self.clock_ns = self.clock_ns.max(when);
        Ok(Resource::new_own(ALWAYS_READY))
    }

    fn subscribe_duration(&mut self, duration: u64) -> Result<Resource<DynPollable>> {
        self.clock_ns = self.clock_ns.saturating_add(duration);
        Ok(Resource::new_own(ALWAYS_READY))
    }
}

impl random::random::Host for State {
    fn get_random_bytes(&mut self, length: u64) -> Result<Vec<u8>> {
        self.random_bytes(length)
    }

    fn get_random_u64(&mut self) -> Result<u64> {
        Ok(self.random_u64())
    }
}

impl random::insecure::Host for State {
    fn get_insecure_random_bytes(&mut self, length: u64) -> Result<Vec<u8>> {
        self.random_bytes(length)
    }

    fn get_insecure_random_u64(&mut self) -> Result<u64> {
        Ok(self.random_u64())
    }
}

impl random::insecure_seed::Host for State {
    fn insecure_seed(&mut self) -> Result<(u64, u64)> {
        Ok((self.random_u64(), self.random_u64()))
    }
}

impl error::Host for State {}
impl error::HostError for State {
    fn to_debug_string(&mut self, _error: Resource<IoError>) -> Result<String> {
        Ok("closed".to_owned())
    }

    fn drop(&mut self, _error: Resource<IoError>) -> Result<()> {
        Ok(())
    }
}

impl poll::Host for State {
    fn poll(&mut self, pollables: Vec<Resource<DynPollable>>) -> Result<Vec<u32>> {
        if pollables.is_empty() {
            return Err(self.fail(Cause::Trap, "the guest polled an empty list".to_owned()));
        }
        Ok((0..u32::try_from(pollables.len()).unwrap_or(u32::MAX)).collect())
    }
}

impl poll::HostPollable for State {
    fn ready(&mut self, _pollable: Resource<DynPollable>) -> Result<bool> {
        Ok(true)
    }

    fn block(&mut self, _pollable: Resource<DynPollable>) -> Result<()> {
        Ok(())
    }

    fn drop(&mut self, _pollable: Resource<DynPollable>) -> Result<()> {
        Ok(())
    }
}

impl streams::Host for State {
    fn convert_stream_error(&mut self, error: StreamError) -> Result<streams::StreamError> {
        match error {
            StreamError::Trap(error) => Err(error),
            // No operation of ours fails in another way.
            StreamError::Closed | StreamError::LastOperationFailed(_) => Ok(streams::StreamError::Closed),
        }
    }
}

/// Standard input is at its end from the beginning.
impl streams::HostInputStream for State {
    fn read(&mut self, _stream: Resource<DynInputStream>, _length: u64) -> StreamResult<Vec<u8>> {
        Err(StreamError::Closed)
    }

    fn blocking_read(&mut self, _stream: Resource<DynInputStream>, _length: u64) -> StreamResult<Vec<u8>> {
        Err(StreamError::Closed)
    }

    fn skip(&mut self, _stream: Resource<DynInputStream>, _length: u64) -> StreamResult<u64> {
        Err(StreamError::Closed)
    }

    fn blocking_skip(&mut self, _stream: Resource<DynInputStream>, _length: u64) -> StreamResult<u64> {
        Err(StreamError::Closed)
    }

    fn subscribe(&mut self, _stream: Resource<DynInputStream>) -> Result<Resource<DynPollable>> {
        Ok(Resource::new_own(ALWAYS_READY))
    }

    fn drop(&mut self, _stream: Resource<DynInputStream>) -> Result<()> {
        Ok(())
    }
}

impl streams::HostOutputStream for State {
    fn check_write(&mut self, _stream: Resource<DynOutputStream>) -> StreamResult<u64> {
        Ok(PERMIT)
    }

    fn write(&mut self, stream: Resource<DynOutputStream>, bytes: Vec<u8>) -> StreamResult<()> {
        self.print(&stream, &bytes)
    }

    fn blocking_write_and_flush(&mut self, stream: Resource<DynOutputStream>, bytes: Vec<u8>) -> StreamResult<()> {
        self.print(&stream, &bytes)
    }

    fn flush(&mut self, _stream: Resource<DynOutputStream>) -> StreamResult<()> {
        Ok(())
    }

    fn blocking_flush(&mut self, _stream: Resource<DynOutputStream>) -> StreamResult<()> {
        Ok(())
    }

    fn subscribe(&mut self, _stream: Resource<DynOutputStream>) -> Result<Resource<DynPollable>> {
        Ok(Resource::new_own(ALWAYS_READY))
    }

    fn write_zeroes(&mut self, stream: Resource<DynOutputStream>, length: u64) -> StreamResult<()> {
        if length > u64::from(TRANSFER_MAX) {
            let message = format!("the guest wrote {length} zeroes in one call, the limit is {TRANSFER_MAX}");
            return Err(StreamError::Trap(self.fail(Cause::SandboxLimit, message)));
        }
        self.print(&stream, &vec![0; usize::try_from(length).unwrap_or(0)])
    }

    fn blocking_write_zeroes_and_flush(&mut self, stream: Resource<DynOutputStream>, length: u64) -> StreamResult<()> {
        self.write_zeroes(stream, length)
    }

    fn splice(
        &mut self,
        _to: Resource<DynOutputStream>,
        _from: Resource<DynInputStream>,
        _length: u64,
    ) -> StreamResult<u64> {
        Err(StreamError::Closed)
    }

    fn blocking_splice(
        &mut self,
        _to: Resource<DynOutputStream>,
        _from: Resource<DynInputStream>,
        _length: u64,
    ) -> StreamResult<u64> {
        Err(StreamError::Closed)
    }

    fn drop(&mut self, _stream: Resource<DynOutputStream>) -> Result<()> {
        Ok(())
    }
}
