//! The program behind `cargo xtask mutants`: chooses entries, runs them, tells, and counts.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command that talks to a person"
)]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use anyhow::{Result, ensure};
use clap::Parser;
use karat_broken::one::{Done, Surroundings};
use karat_broken::pool::{self, Progress};
use karat_broken::report::{self, Sums};
use karat_broken::table::{self, Entry};
use karat_broken::verdict::{Mark, said};
use karat_engine::images::Images;
use karat_tests::runs;
use tokio::signal::unix::{SignalKind, signal};

#[derive(Parser)]
#[command(
    name = "mutants",
    about = "Runs probes on clusters that are broken on purpose"
)]
struct Args {
    /// Only this probe; repeatable
    #[arg(long, value_name = "ID")]
    probe: Vec<String>,
    /// Only entries of this name; repeatable
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// Show the entries and stop
    #[arg(long)]
    list: bool,
    /// Where the results go
    #[arg(long, value_name = "FILE", default_value = "target/mutants.json")]
    json: PathBuf,
    /// Folder with the wrapped probes
    #[arg(long, value_name = "DIR", default_value = "target/components")]
    components: PathBuf,
    /// Control planes at one time
    #[arg(long, value_name = "N", default_value_t = 2)]
    parallel: usize,
    /// Run each entry so often: a verdict that is right by chance shows
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    repeat: u16,
    /// Write the recordings that probes are tested with anew, from the entries that say so
    #[arg(long)]
    record: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(4)
        .enable_all()
        .build();
    let result = match runtime {
        Ok(runtime) => {
            let result = runtime.block_on(run(&args));
            runtime.shutdown_background();
            result
        }
        Err(error) => Err(error.into()),
    };
    result.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}

async fn run(args: &Args) -> Result<ExitCode> {
    let entries = selected(table::load(&table::folder())?, args)?;
    if args.list {
        list(&entries);
        return Ok(ExitCode::SUCCESS);
    }
    let around = Surroundings {
        components: args.components.clone(),
        record_below: args.record.then(|| table::folder().join("../../probes")),
        images: own_images(),
    };
    let entries: Vec<Entry> = (0..args.repeat).flat_map(|_| entries.clone()).collect();
    let before = report::seconds_of(&args.json);
    eprintln!("{}", announced(&entries, &before, args.parallel));
    let count = entries.len();
    let begun = Instant::now();
    let results = Mutex::new(Vec::<Done>::new());
    let tell = |progress: Progress<'_>| {
        let mut results = results.lock().unwrap_or_else(PoisonError::into_inner);
        if let Progress::Done(done) = &progress {
            results.push((*done).clone());
            // An interrupted table keeps what it has.
            let kept = report::write(&args.json, &results, count)
                .and_then(|()| report::remember(&args.json, &results));
            if let Err(error) = kept {
                eprintln!("warning: {error:#}");
            }
        }
        show(&progress, results.len(), count);
    };
    let stopped = tokio::select! {
        _ = pool::run(entries, args.parallel, &around, &tell) => None,
        signal = stop() => Some(signal?),
    };
    let results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
    if let Some(signal) = stopped {
        // The control planes went with the future that held them.
        eprintln!(
            "stopped after {} of {count}; all control planes are down",
            results.len()
        );
        return Ok(ExitCode::from(u8::try_from(128 + signal).unwrap_or(1)));
    }
    Ok(summed_up(&results, begun, &args.json))
}

/// The images of the program as real nodes have them. Without a compiler for them there are no real nodes either.
fn own_images() -> Images {
    runs::own_images(|line| eprintln!("    {line}")).unwrap_or_else(|error| {
        eprintln!("warning: no images of the program: {error:#}");
        Images::default()
    })
}

fn selected(entries: Vec<Entry>, args: &Args) -> Result<Vec<Entry>> {
    for probe in &args.probe {
        let known = entries.iter().any(|e| e.probe == *probe);
        ensure!(known, "probe {probe}: has no table in tests/broken");
    }
    for name in &args.only {
        let known = entries.iter().any(|e| e.name == *name || e.id() == *name);
        ensure!(known, "entry {name}: not known; `--list` shows them all");
    }
    let chosen: Vec<Entry> = entries
        .into_iter()
        .filter(|e| args.probe.is_empty() || args.probe.contains(&e.probe))
        .filter(|e| {
            let mut only = args.only.iter();
            args.only.is_empty() || only.any(|name| e.name == *name || e.id() == *name)
        })
        .collect();
    ensure!(!chosen.is_empty(), "nothing is selected");
    Ok(chosen)
}

fn list(entries: &[Entry]) {
    for entry in entries {
        let kind = if entry.conforming {
            "conforming"
        } else {
            "broken"
        };
        let expected = entry.expect.verdict();
        println!("{}\t{kind}\t{expected}\t{}", entry.id(), entry.what);
    }
}

fn announced(entries: &[Entry], before: &BTreeMap<String, f64>, parallel: usize) -> String {
    let conforming = entries.iter().filter(|e| e.conforming).count();
    let known: Vec<f64> = entries
        .iter()
        .filter_map(|e| before.get(&e.id()).copied())
        .collect();
    let estimate = if known.is_empty() {
        "first time".to_owned()
    } else {
        // What is new counts like the average of the others.
        let all = known.iter().sum::<f64>() / known.len() as f64 * entries.len() as f64;
        format!(
            "about {:.0} s, from the last time",
            all / parallel.max(1) as f64
        )
    };
    format!(
        "==> {} broken and {conforming} conforming clusters ({estimate})",
        entries.len() - conforming
    )
}

fn show(progress: &Progress<'_>, done: usize, count: usize) {
    match progress {
        Progress::Starting(entries) => {
            let first = entries.first().map(Entry::id).unwrap_or_default();
            eprintln!("    a control plane for {first}");
        }
        Progress::Begun(entry) => eprintln!("    {}: {}", entry.id(), entry.what),
        Progress::Done(result) => {
            let entry = &result.entry;
            let known = match (result.mark, &entry.known_miss) {
                (Mark::Missed, Some(why)) => format!(" (known: {why})"),
                (Mark::Found, Some(_)) => " (no longer a miss: take `known-miss` away)".to_owned(),
                _ => String::new(),
            };
            eprintln!(
                "[{done:3}/{count}] {:<12} {} · {} · {:.0} s{known}",
                result.mark.word(),
                entry.id(),
                said(result.verdict, result.reason),
                result.took.as_secs_f64()
            );
            if result.mark != Mark::Found && result.mark != Mark::Cleared {
                for line in result.wrong.iter().chain(&result.notes) {
                    eprintln!("          {line}");
                }
            }
        }
        Progress::Spoilt(entry, why) => {
            eprintln!(
                "    control plane after {} is thrown away: {why}",
                entry.id()
            );
        }
    }
}

fn summed_up(results: &[Done], begun: Instant, json: &std::path::Path) -> ExitCode {
    let sums = Sums::of(results);
    eprintln!(
        "==> {} entries in {:.0} s, {} conforming clusters not accused, results in {}",
        results.len(),
        begun.elapsed().as_secs_f64(),
        sums.cleared,
        json.display()
    );
    let wrong = results
        .iter()
        .filter(|d| matches!(d.mark, Mark::Missed | Mark::FalseAccusation));
    for done in wrong {
        let why = done.entry.known_miss.as_deref();
        let why = why.map_or_else(|| done.wrong.join("; "), |why| format!("known: {why}"));
        eprintln!("    {} {}: {why}", done.mark.word(), done.entry.id());
    }
    for done in results.iter().filter(|d| d.mark == Mark::NotRun) {
        eprintln!("    not run {}: {}", done.entry.id(), done.notes.join("; "));
    }
    println!("{sums}");
    if sums.fine() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// The number of the signal that ends the program.
async fn stop() -> Result<i32> {
    let mut int = signal(SignalKind::interrupt())?;
    let mut term = signal(SignalKind::terminate())?;
    let mut hup = signal(SignalKind::hangup())?;
    Ok(tokio::select! {
        _ = int.recv() => 2,
        _ = term.recv() => 15,
        _ = hup.recv() => 1,
    })
}
