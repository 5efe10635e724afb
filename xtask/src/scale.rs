//! `cargo xtask testbed scale` and `cargo xtask scale-check`: a large simulated cluster, and what reading it costs.
//!
//! The check compares the program with the least that any client must do: one paged LIST of the same objects, parsed and
//! dropped. It prints ratios and fails only where something could not be measured; a bound is the reader's business.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use clap::Args;
use karat_testbed::proxy::Proxy;
use karat_testbed::scale::{Progress, Reading, populate, read_raw};
use karat_testbed::{client_of, named};

use crate::lab::{NameArgs, runtime};
use crate::probes;
use crate::say::say;
use crate::timing::human;
use crate::workspace::{root, run, target};

/// Bounds of the design, printed beside what was measured.
const TIME_RATIO: f64 = 1.3;
const RESIDENT_MIB: u64 = 150;
const REQUEST_RATIO: f64 = 0.4;
/// What the read-only part reads.
const PATHS: [&str; 2] = ["/api/v1/nodes", "/api/v1/pods"];

#[derive(Args)]
pub(crate) struct ScaleArgs {
    #[command(flatten)]
    name: NameArgs,
    /// Simulated nodes in all
    #[arg(long, default_value_t = 5_000)]
    nodes: usize,
    /// Pods on them in all
    #[arg(long, default_value_t = 50_000)]
    pods: usize,
}

/// Makes what is missing; a second call goes on where the first was broken off.
pub(crate) fn scale(args: &ScaleArgs) -> Result<()> {
    let (lab, began) = (running(&args.name.name)?, Instant::now());
    let tell = |progress: Progress| {
        say(&format!(
            "    {}: {} of {}, {:.0} a second, {}",
            progress.kind,
            progress.there,
            progress.wanted,
            progress.rate(),
            human(progress.after.as_secs_f64())
        ));
    };
    runtime()?.block_on(async {
        let client = client_of(&lab.kubeconfig).await?;
        populate(&client, args.nodes, args.pods, &tell).await
    })?;
    let name = &args.name.name;
    say(&format!(
        "testbed {name}: {} nodes and {} pods after {}; they go with it",
        args.nodes,
        args.pods,
        human(began.elapsed().as_secs_f64())
    ));
    Ok(())
}

fn running(name: &str) -> Result<named::Description> {
    named::status(name)?.with_context(|| {
        format!("testbed {name}: not running; start it with `cargo xtask testbed up --name {name}`")
    })
}

#[derive(Args)]
pub(crate) struct CheckArgs {
    #[command(flatten)]
    name: NameArgs,
    /// Program to measure [default: build one with the development profile]
    #[arg(long)]
    karat: Option<PathBuf>,
}

/// One run of the program.
struct Measured {
    seconds: f64,
    /// Time of the probes alone, without the run around them.
    reading: f64,
    resident_mib: u64,
}

pub(crate) fn check(args: &CheckArgs) -> Result<ExitCode> {
    let lab = running(&args.name.name)?;
    let karat = match &args.karat {
        Some(path) => path.clone(),
        None => probes::build_program()?,
    };
    let folder = target().join("scale-check");
    if folder.exists() {
        std::fs::remove_dir_all(&folder).with_context(|| folder.display().to_string())?;
    }
    std::fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    let readers = ["one", "two", "three"]
        .map(|name| reader(&karat, &folder, name))
        .into_iter()
        .collect::<Result<Vec<PathBuf>>>()?;

    let runtime = runtime()?;
    let raw = runtime.block_on(async {
        let client = client_of(&lab.kubeconfig).await?;
        // The first reading warms the server; the program gets a warm one as well.
        raw(&client).await?;
        raw(&client).await
    })?;
    say(&format!(
        "one raw paged LIST: {} objects, {:.1} MB, {} requests, {:.2} s",
        raw.objects,
        megabytes(raw.bytes),
        raw.requests,
        raw.time.as_secs_f64()
    ));
    ensure!(
        raw.objects > 0,
        "the cluster is empty; run `cargo xtask testbed scale` first"
    );

    let one = measure(&karat, &lab.kubeconfig, &readers[..1], &folder.join("run"))?;
    let ratio = one.reading / raw.time.as_secs_f64();
    say(&format!(
        "the program: {:.2} s, of them {:.2} s reading; {ratio:.2} x the raw LIST (bound {TIME_RATIO} x)",
        one.seconds, one.reading
    ));
    say(&format!(
        "resident at most: {} MiB (bound {RESIDENT_MIB} MiB)",
        one.resident_mib
    ));

    let proxy = runtime.block_on(Proxy::before(&lab.kubeconfig, &folder))?;
    let mut reads = Vec::new();
    for (name, readers) in [("alone", &readers[..1]), ("full", &readers[..])] {
        let before = proxy.seen().len();
        measure(&karat, proxy.kubeconfig(), readers, &folder.join(name))?;
        let seen = proxy.seen();
        let is_read = |seen: &&karat_testbed::proxy::Seen| {
            seen.method == "GET" && !seen.uri.contains("watch=1")
        };
        reads.push(seen.iter().skip(before).filter(is_read).count());
    }
    let &[alone, full] = reads.as_slice() else {
        bail!("two runs were expected");
    };
    let sum = alone * readers.len();
    let share = ratio_of(full, sum);
    say(&format!(
        "GET and LIST of a run of {} readers: {full}, alone {alone} each, so {share:.2} x their sum (bound {REQUEST_RATIO} x)",
        readers.len()
    ));
    Ok(ExitCode::SUCCESS)
}

async fn raw(client: &karat_testbed::scale::Client) -> Result<Reading> {
    let mut all = Reading::default();
    for path in PATHS {
        let one = read_raw(client, path).await?;
        all.objects += one.objects;
        all.bytes += one.bytes;
        all.requests += one.requests;
        all.time += one.time;
    }
    Ok(all)
}

fn ratio_of(part: usize, whole: usize) -> f64 {
    let number = |n: usize| f64::from(u32::try_from(n).unwrap_or(u32::MAX));
    number(part) / number(whole).max(1.0)
}

fn megabytes(bytes: usize) -> f64 {
    f64::from(u32::try_from(bytes / 1000).unwrap_or(u32::MAX)) / 1000.0
}

/// A probe that reads all nodes and pods through the run's snapshots and counts them.
fn reader(karat: &Path, folder: &Path, name: &str) -> Result<PathBuf> {
    let core = target().join("hostile-guests/guest-hostile.core.wasm");
    ensure!(
        core.is_file(),
        "{} is missing; build it with `cargo xtask probes`",
        core.display()
    );
    let script = serde_json::json!([
        {"do": "open", "id": "read"},
        {"do": "list", "api": "v1", "resource": "namespaces", "keep": ["/metadata/name"]},
        {"do": "observe", "name": "a namespace", "value": "kube-system"},
        {"do": "count-snapshot", "api": "v1", "resource": "nodes"},
        {"do": "count-snapshot", "api": "v1", "resource": "pods"},
        {"do": "conclude", "outcome": "pass"},
    ]);
    let manifest = format!(
        r#"id = "scale-reader-{name}"
version = "0.0.1"
title = "Reads nodes and pods"
claim = "All nodes and pods can be read."
misleads = "It only counts."
contract = "0.1.0-dev.1"
requirements = []
reach = "sandbox"
capabilities = ["kube-read", "kube-write", "leases"]
cases = [
  {{ id = "read", kind = "observation", required = "always", effect = ["list namespaces"], claim = "they can be read", expected = "all" }},
]
[[permissions]]
api-groups = [""]
resources = ["namespaces", "nodes", "pods"]
verbs = ["list"]
scope = "cluster"
why = "to be read"
[[snapshots]]
api-version = "v1"
resource = "nodes"
keep = ["/status/allocatable"]
[[snapshots]]
api-version = "v1"
resource = "pods"
keep = ["/spec/nodeName", "/status/phase"]
[settings.attack]
type = "string"
default = "script"
help = "What it does."
[settings.script]
type = "string"
default = {script:?}
help = "Its calls."
[budget]
seen = "256Mi"
cpu = "2m"
"#,
        script = script.to_string()
    );
    let (source, component) = (
        folder.join(format!("{name}.toml")),
        folder.join(format!("{name}.wasm")),
    );
    std::fs::write(&source, manifest).with_context(|| source.display().to_string())?;
    let mut command = Command::new(karat);
    command
        .args(["probe", "build", "--core"])
        .arg(&core)
        .arg("--manifest")
        .arg(&source)
        .arg("-o")
        .arg(&component)
        .stdout(Stdio::null());
    run(&mut command)?;
    Ok(component)
}

/// Runs probes and looks at the program's memory while it runs.
fn measure(karat: &Path, kubeconfig: &Path, probes: &[PathBuf], out: &Path) -> Result<Measured> {
    let mut command = Command::new(karat);
    command
        .arg("run")
        .arg("--kubeconfig")
        .arg(kubeconfig)
        .arg("--yes")
        .arg("--out")
        .arg(out)
        .current_dir(root())
        .env_remove("KUBECONFIG")
        .env_remove("KARAT_PROBES")
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    for probe in probes {
        command.arg("--probes-from").arg(probe);
    }
    let began = Instant::now();
    let mut child = command
        .spawn()
        .with_context(|| format!("{}: cannot be started", karat.display()))?;
    let said = child.stderr.take().context("no standard error")?;
    let said = std::thread::spawn(move || std::io::read_to_string(said).unwrap_or_default());
    let peak = AtomicU64::new(0);
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        // The kernel keeps the high-water mark, so looking often only makes sure to see the last one.
        peak.fetch_max(high_water(child.id()), Ordering::Relaxed);
        std::thread::sleep(Duration::from_millis(10));
    };
    let seconds = began.elapsed().as_secs_f64();
    let said = said.join().unwrap_or_default();
    ensure!(status.code() == Some(0), "karat run: {status}\n{said}");
    Ok(Measured {
        seconds,
        reading: reading(out)?,
        resident_mib: peak.into_inner() / 1024,
    })
}

/// `VmHWM` of a process in KiB; 0 where it cannot be read any more.
fn high_water(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let number = line.and_then(|rest| rest.split_whitespace().next());
    number.and_then(|n| n.parse().ok()).unwrap_or_default()
}

/// The longest time of an attempt, from the run's record.
fn reading(out: &Path) -> Result<f64> {
    let path = out.join("run.json");
    let text = std::fs::read(&path).with_context(|| path.display().to_string())?;
    let record: serde_json::Value = serde_json::from_slice(&text)?;
    let attempts = record["probes"].as_array().into_iter().flatten();
    let longest = attempts
        .filter_map(|probe| probe["attempts"][0]["usage"]["wall_ms"].as_u64())
        .max();
    let ms = longest.context("the record has no time of an attempt")?;
    Ok(Duration::from_millis(ms).as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_memory_of_a_living_process_is_known_and_of_none_is_nothing() {
        assert!(high_water(std::process::id()) > 1000);
        assert_eq!(high_water(u32::MAX), 0);
    }

    #[test]
    fn shares_are_of_the_whole() {
        assert!((ratio_of(3, 4) - 0.75).abs() < 1e-9);
        assert!((ratio_of(3, 0) - 3.0).abs() < 1e-9);
    }
}
