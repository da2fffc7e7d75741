//! `linkerd-await`: waits until the proxy is ready, then becomes the given program, or runs it and ends the proxy behind it. And `sleep`,
//! which an image without a shell needs in front of a proxy's end.

use anyhow::{Context, bail};
use clap::Parser;
use nix::{
    sys::signal::{SigSet, Signal, kill},
    unistd::Pid,
};
use std::{
    env,
    ffi::OsString,
    io::{self, BufRead, BufReader, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    os::unix::process::CommandExt,
    process::{Command, ExitCode, ExitStatus},
    thread,
    time::{Duration, Instant},
};
use weft_model::{duration, names::port};

#[derive(Parser)]
#[command(name = "linkerd-await", version, about = "Waits for the proxy of this pod to be ready")]
pub(crate) struct Flags {
    /// The port of the proxy's admin server.
    #[arg(short, long, default_value_t = port::ADMIN)]
    port: u16,
    /// How long to wait between two questions.
    #[arg(short, long, default_value = "1s", value_parser = parse)]
    backoff: Duration,
    /// Runs the program as a child, which gets SIGTERM passed on, and ends the proxy when it has ended.
    #[arg(short = 'S', long, requires = "command")]
    shutdown: bool,
    /// Tells what it waits for, or why it does not wait.
    #[arg(short, long, env = "LINKERD_AWAIT_VERBOSE")]
    verbose: bool,
    /// Gives up after this time.
    #[arg(short, long, value_parser = parse)]
    timeout: Option<Duration>,
    /// What to run once the proxy is ready.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<OsString>,
}

#[derive(Parser)]
#[command(name = "sleep")]
pub(crate) struct Sleep {
    /// Seconds.
    seconds: u32,
}

/// As sysexits.h numbers them: EX_UNAVAILABLE and EX_OSERR.
const UNAVAILABLE: u8 = 69;
const OS_ERROR: u8 = 71;
/// Either of them says why there is nothing to wait for.
const DISABLED: &[&str] = &["LINKERD_AWAIT_DISABLED", "LINKERD_DISABLED"];
/// For one question.
const PATIENCE: Duration = Duration::from_secs(5);
/// The longest first line of an answer that is read.
const LINE: u64 = 1024;

fn parse(text: &str) -> Result<Duration, &'static str> {
    duration::parse(text).ok_or("a duration is a number and one of ms, s, m, h, such as 30s")
}

pub(crate) fn run(flags: &Flags) -> ExitCode {
    let disabled = DISABLED.iter().find_map(|name| env::var(name).ok().filter(|reason| !reason.is_empty()));
    let meshed = disabled.is_none();
    match &disabled {
        Some(reason) if flags.verbose => eprintln!("not waiting for the proxy: {reason}"),
        Some(_) => {}
        None => {
            if let Err(error) = until_ready(flags) {
                eprintln!("{error:#}");
                return ExitCode::from(UNAVAILABLE);
            }
        }
    }
    let Some((program, arguments)) = flags.command.split_first() else { return ExitCode::SUCCESS };
    let mut command = Command::new(program);
    command.args(arguments);
    if !(flags.shutdown && meshed) {
        let error = command.exec();
        eprintln!("starting {}: {error}", program.display());
        return ExitCode::from(OS_ERROR);
    }
    let status = as_child(&mut command);
    if let Err(error) = ask(flags.port, "POST /shutdown") {
        eprintln!("the proxy could not be ended: {error:#}");
    }
    match status {
        Ok(status) => ExitCode::from(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(OS_ERROR)),
        Err(error) => {
            eprintln!("running {}: {error}", program.display());
            ExitCode::from(OS_ERROR)
        }
    }
}

/// Runs a child to its end, and passes on the signal by which a pod is told to end.
fn as_child(command: &mut Command) -> io::Result<ExitStatus> {
    let signals = SigSet::from_iter([Signal::SIGTERM]);
    signals.thread_block()?; // the child begins without a blocked signal: the standard library sees to it
    let mut child = command.spawn()?;
    let pid = Pid::from_raw(child.id().cast_signed());
    thread::spawn(move || {
        while signals.wait().is_ok() {
            let _ = kill(pid, Signal::SIGTERM);
        }
    });
    child.wait()
}

fn until_ready(flags: &Flags) -> anyhow::Result<()> {
    let start = Instant::now();
    loop {
        let error = match ask(flags.port, "GET /ready") {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        if flags.verbose {
            eprintln!("waiting for the proxy: {error:#}");
        }
        let left = flags.timeout.map(|timeout| timeout.saturating_sub(start.elapsed()));
        if left.is_some_and(|left| left.is_zero()) {
            return Err(error).with_context(|| format!("the proxy was not ready after {:?}", start.elapsed()));
        }
        thread::sleep(left.unwrap_or(flags.backoff).min(flags.backoff));
    }
}

/// One request to the admin server of the proxy in this pod; anything but success is an error.
fn ask(port: u16, request: &str) -> anyhow::Result<()> {
    let to = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut stream = TcpStream::connect_timeout(&to, PATIENCE).with_context(|| format!("connecting to {to}"))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(stream, "{request} HTTP/1.1\r\nhost: localhost:{port}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")?;
    let mut line = String::new();
    BufReader::new(stream.take(LINE)).read_line(&mut line).with_context(|| format!("reading from {to}"))?;
    match line.split(' ').nth(1) {
        Some(status) if status.starts_with('2') => Ok(()),
        Some(status) => bail!("{to} answers {status}"),
        None => bail!("{to} does not speak HTTP"),
    }
}

pub(crate) fn sleep(flags: &Sleep) -> anyhow::Result<()> {
    thread::sleep(Duration::from_secs(flags.seconds.into()));
    Ok(())
}
