//! The one program of Karat's images: many small commands, no shell, nothing that it was not told to do.
//!
//! What a probe asks of a container is a command with arguments and an answer that a program can read, so `open` names the
//! error of the kernel where a shell would print a sentence. Reading order: this list, `files`, `net`, then the servers.
//! It keeps no state, opens no port unless told to, and never starts another program.

mod beside;
mod echo;
mod files;
mod look;
mod metrics;
mod model;
mod net;
mod serve;
mod traffic;

use std::io::{self, Write as _};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use signal_hook::consts::{SIGCHLD, SIGINT, SIGTERM};

/// Why a command did not do what it was asked to; the text is for people.
type Failure = Box<dyn std::error::Error>;

const HELP: &str = "commands: pause, sleep, say, cat, write, ls, env, open, mknod, get, connect, look, beside, exit, echo, metrics, model, traffic";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args_os()
        .skip(1)
        .map(|a| a.to_string_lossy().into_owned())
        .collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match run(&args) {
        Ok(code) => code,
        Err(why) => {
            let _ = writeln!(io::stderr(), "tool: {why}");
            ExitCode::from(2)
        }
    }
}

fn run(args: &[&str]) -> Result<ExitCode, Failure> {
    // These have something to do before they end.
    if !matches!(args, ["pause" | "model" | "traffic", ..]) {
        // The first process of a container gets no signal that it did not ask for.
        for signal in [SIGTERM, SIGINT] {
            let at_once = Arc::new(AtomicBool::new(true));
            signal_hook::flag::register_conditional_shutdown(signal, 0, at_once)?;
        }
    }
    let done = Ok(ExitCode::SUCCESS);
    match args {
        ["pause"] => pause(),
        ["sleep", "forever"] => loop {
            std::thread::park();
        },
        ["sleep", seconds] => {
            std::thread::sleep(Duration::try_from_secs_f64(seconds.parse()?)?);
            done
        }
        ["say", text, rest @ ..] if rest.len() <= 2 => {
            let count: u64 = rest.first().map_or(Ok(1), |n| n.parse())?;
            let gap: u64 = rest.get(1).map_or(Ok(0), |n| n.parse())?;
            for n in 1..=count {
                let mut out = io::stdout();
                writeln!(out, "{text} {n}")?;
                out.flush()?;
                if n < count {
                    std::thread::sleep(Duration::from_millis(gap));
                }
            }
            done
        }
        ["exit", code] => Ok(ExitCode::from(code.parse::<u8>()?)),
        ["cat", paths @ ..] if !paths.is_empty() => files::cat(paths),
        ["write", path, text] => {
            std::fs::write(path, text).map_err(|e| format!("{path}: {e}"))?;
            done
        }
        ["ls", paths @ ..] if !paths.is_empty() => files::ls(paths),
        ["env", names @ ..] => files::env(names),
        ["open", "--write", paths @ ..] if !paths.is_empty() => files::open(paths, true),
        ["open", paths @ ..] if !paths.is_empty() => files::open(paths, false),
        ["mknod", path, major, minor] => files::mknod(path, major.parse()?, minor.parse()?),
        ["get", url] => net::get(url, 10),
        ["get", url, seconds] => net::get(url, seconds.parse()?),
        ["connect", address] => net::connect(address, 10),
        ["connect", address, seconds] => net::connect(address, seconds.parse()?),
        ["look", words @ ..] if !words.is_empty() => {
            look::look(&items(words)?, &mut io::stdout())?;
            done
        }
        ["beside", name, hidden, open, words @ ..] => {
            beside::run(name, hidden.parse()?, open.parse()?, &items(words)?)
        }
        ["echo"] => echo::run(8080),
        ["echo", port] => echo::run(port.parse()?),
        ["metrics", rest @ ..] => metrics::run(rest),
        ["model", rest @ ..] => model::run(rest),
        ["traffic", rest @ ..] => traffic::run(rest),
        [] | ["help"] => {
            writeln!(io::stdout(), "{HELP}")?;
            done
        }
        other => Err(format!("{}: unknown, or wrong arguments; {HELP}", other.join(" ")).into()),
    }
}

fn items(words: &[&str]) -> Result<Vec<look::Item>, Failure> {
    let item = |word: &&str| {
        look::Item::parse(word).ok_or_else(|| format!("{word}: nothing to look at").into())
    };
    words.iter().map(item).collect()
}

/// Ends when told to; until then collects whoever died and has no other parent.
fn pause() -> Result<ExitCode, Failure> {
    let mut signals = signal_hook::iterator::Signals::new([SIGTERM, SIGINT, SIGCHLD])?;
    for signal in signals.forever() {
        if signal != SIGCHLD {
            break;
        }
        while let Ok(Some(_)) = rustix::process::wait(rustix::process::WaitOptions::NOHANG) {}
    }
    Ok(ExitCode::SUCCESS)
}

/// One line of JSON about one attempt: what was tried, whether it went well, and the kernel's name of the error.
fn report(key: &str, what: &str, verb: &str, result: &io::Result<()>) -> Result<(), Failure> {
    let errno = result.as_ref().err().map(errno);
    let line = serde_json::json!({ key: what, verb: result.is_ok(), "errno": errno });
    writeln!(io::stdout(), "{line}")?;
    Ok(())
}

/// `EPERM` for 1 and so on; names of those that mean something to a probe, numbers of the others.
fn errno(error: &io::Error) -> String {
    let Some(number) = error.raw_os_error() else {
        return error.kind().to_string();
    };
    let name = match number {
        1 => "EPERM",
        2 => "ENOENT",
        5 => "EIO",
        6 => "ENXIO",
        11 => "EAGAIN",
        13 => "EACCES",
        16 => "EBUSY",
        17 => "EEXIST",
        19 => "ENODEV",
        20 => "ENOTDIR",
        21 => "EISDIR",
        22 => "EINVAL",
        26 => "ETXTBSY",
        30 => "EROFS",
        38 => "ENOSYS",
        40 => "ELOOP",
        95 => "EOPNOTSUPP",
        101 => "ENETUNREACH",
        104 => "ECONNRESET",
        110 => "ETIMEDOUT",
        111 => "ECONNREFUSED",
        113 => "EHOSTUNREACH",
        _ => return number.to_string(),
    };
    name.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_have_the_names_of_the_kernel() {
        assert_eq!(errno(&io::Error::from_raw_os_error(1)), "EPERM");
        assert_eq!(errno(&io::Error::from_raw_os_error(9999)), "9999");
    }

    #[test]
    fn what_is_unknown_is_refused_with_the_list() {
        let why = run(&["sh", "-c", "true"]).unwrap_err().to_string();
        assert!(why.contains("sh -c true") && why.contains("open"), "{why}");
        assert!(run(&["sleep", "-1"]).is_err());
        assert!(run(&["exit", "256"]).is_err());
    }
}
