//! `cargo xtask mutants`: runs the probes on clusters that are broken on purpose, and says how many faults they found.
//!
//! The clusters and the program that makes them are in `tests/broken`; it needs the engine, which nothing here links, so
//! it is built and started. It prints the last line itself.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::Args;
use tokio::process::Command;
use tokio::signal::unix::{SignalKind, signal};

use crate::timing::{human, last, remember, step};
use crate::workspace::{cargo, root, run as run_command, target};
use crate::{lab, probes, say::say};

#[derive(Args)]
pub(crate) struct MutantsArgs {
    /// Only this probe; repeatable
    #[arg(long, value_name = "ID")]
    probe: Vec<String>,
    /// Only entries of this name; repeatable
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// Show the entries and stop
    #[arg(long)]
    list: bool,
    /// Where the results go [default: mutants.json in the build folder]
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Control planes at one time
    #[arg(long, value_name = "N", default_value_t = 2)]
    parallel: usize,
    /// Run each entry so often: a verdict that is right by chance shows
    #[arg(long, value_name = "N", default_value_t = 1)]
    repeat: u16,
    /// Write the recordings that probes are tested with anew, from the entries that say so
    #[arg(long)]
    record: bool,
}

pub(crate) fn run(args: &MutantsArgs) -> Result<ExitCode> {
    let everything =
        args.probe.is_empty() && args.only.is_empty() && !args.list && args.repeat == 1;
    if let Some(seconds) = last("mutants").filter(|_| everything) {
        say(&format!("all of it took {} the last time", human(seconds)));
    }
    let began = std::time::Instant::now();
    if !args.list {
        lab::prepare()?;
        lab::prepare_nodes()?;
        probes::build_all()?;
    }
    step(
        "build the broken clusters",
        "the compiler's message above",
        || run_command(cargo().args(["build", "--workspace", "--bin", "mutants"])),
    )?;
    let code = lab::runtime()?.block_on(attend(args))?;
    if everything && code <= 1 {
        remember("mutants", began.elapsed().as_secs_f64());
    }
    Ok(ExitCode::from(u8::try_from(code).unwrap_or(1)))
}

async fn attend(args: &MutantsArgs) -> Result<i32> {
    let program = target().join("debug/mutants");
    let json = match &args.json {
        Some(file) => std::path::absolute(file)?,
        None => target().join("mutants.json"),
    };
    let mut command = Command::new(&program);
    for (flag, values) in [("--probe", &args.probe), ("--only", &args.only)] {
        for value in values {
            command.args([flag, value]);
        }
    }
    command.arg("--json").arg(json);
    command.arg("--components").arg(target().join("components"));
    command.arg("--parallel").arg(args.parallel.to_string());
    command.arg("--repeat").arg(args.repeat.to_string());
    for (flag, on) in [("--list", args.list), ("--record", args.record)] {
        if on {
            command.arg(flag);
        }
    }
    let (mut int, mut term, mut hup) = (
        signal(SignalKind::interrupt())?,
        signal(SignalKind::terminate())?,
        signal(SignalKind::hangup())?,
    );
    let mut child = command
        .current_dir(root())
        .env_remove("KUBECONFIG")
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("{}: cannot be started", program.display()))?;
    let pid = child
        .id()
        .and_then(|id| i32::try_from(id).ok())
        .and_then(rustix::process::Pid::from_raw);
    let pass_on = |signal| {
        if let Some(pid) = pid {
            let _ = rustix::process::kill_process(pid, signal);
        }
    };
    loop {
        tokio::select! {
            status = child.wait() => {
                let status = status?;
                let signal = std::os::unix::process::ExitStatusExt::signal(&status);
                return Ok(status.code().unwrap_or_else(|| 128 + signal.unwrap_or_default()));
            }
            // Ctrl-C reaches the whole foreground group, so the program has it already; a second one does no harm.
            _ = int.recv() => pass_on(rustix::process::Signal::INT),
            _ = term.recv() => pass_on(rustix::process::Signal::TERM),
            _ = hup.recv() => pass_on(rustix::process::Signal::HUP),
        }
    }
}
