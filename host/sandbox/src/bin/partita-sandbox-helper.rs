//! The helper program of this crate's own tests: `zygote` and `compiler`, and `probe`, which confines itself as an
//! executor does and then tries one thing that must not work. Deployed hosts use the main program instead.
//!
//! A probe is real: where confinement failed it would do what it tries. So each aims at nothing but the throw-away
//! file or process that the test names.

use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["zygote"] => partita_sandbox::zygote_main(),
        ["compiler"] => partita_sandbox::compiler_main(),
        ["probe", action, target] => probe(action, target),
        _ => {
            eprintln!("usage: partita-sandbox-helper zygote|compiler|probe ACTION TARGET");
            ExitCode::FAILURE
        }
    }
}

fn probe(action: &str, target: &str) -> ! {
    partita_sandbox::probe(|| match action {
        "nothing" => Ok(()),
        "open" => std::fs::File::open(target).map(drop),
        "create" => std::fs::File::create(target).map(drop),
        "unlink" => std::fs::remove_file(target),
        "socket" => std::net::UdpSocket::bind("127.0.0.1:0").map(drop),
        "connect" => std::net::TcpStream::connect(target).map(drop),
        "unix-socket" => std::os::unix::net::UnixDatagram::unbound().map(drop),
        "exec" => std::process::Command::new(target).spawn().map(drop),
        "thread" => std::thread::Builder::new().spawn(|| {}).map(drop),
        "kill" => kill(target),
        "executable-memory" => executable_memory(),
        _ => Err(std::io::ErrorKind::InvalidInput.into()),
    })
}

fn kill(target: &str) -> std::io::Result<()> {
    let pid = target.parse().ok().and_then(rustix::process::Pid::from_raw).ok_or(std::io::ErrorKind::InvalidInput)?;
    Ok(rustix::process::kill_process(pid, rustix::process::Signal::TERM)?)
}

#[allow(unsafe_code, reason = "mapping memory is an unsafe call")]
fn executable_memory() -> std::io::Result<()> {
    use rustix::mm::{MapFlags, ProtFlags};
    let access = ProtFlags::READ | ProtFlags::WRITE | ProtFlags::EXEC;
    // SAFETY: a new mapping at an address that the kernel chooses, used for nothing.
    unsafe { rustix::mm::mmap_anonymous(std::ptr::null_mut(), 4096, access, MapFlags::PRIVATE) }?;
    Ok(())
}
