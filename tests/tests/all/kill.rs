//! `kill -9` at any moment of a run, then `karat clean`: nothing of ours is left, and nothing else has changed.

use anyhow::{Context, Result, ensure};
use karat_testbed::ControlPlane;
use karat_tests::{program, state};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};
use tokio::process::Command;

/// How often the run is killed; each time at another random moment.
const KILLS: u32 = 30;

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_left_after_a_kill_at_any_moment() -> Result<()> {
    let lab = ControlPlane::builder().start().await?;
    // Without devices there is no quiet window of 30 s, in which nothing changes: more of the moments hit something.
    let client = lab.client().await?;
    let kubeconfig = lab.kubeconfig();
    let folder = tempfile::tempdir()?;
    let before = state::of(&client).await?;

    // A run that nobody kills shows how long there is something to kill, and that it cleans up by itself.
    let started = Instant::now();
    let status = run(&kubeconfig, &folder.path().join("whole"))
        .status()
        .await?;
    let whole = started.elapsed();
    ensure!(status.success(), "the undisturbed run ended with {status}");
    same(&before, &state::of(&client).await?, "an undisturbed run")?;

    for round in 0..KILLS {
        let after = moment(whole)?;
        let out = folder.path().join(format!("run-{round}"));
        let mut child = run(&kubeconfig, &out).spawn()?;
        let ended = tokio::time::timeout(after, child.wait()).await.is_ok();
        if !ended {
            child.start_kill()?;
            child.wait().await?;
        }
        // Every other time the run folder is lost as well, and only the seals in the cluster show what was ours.
        let journal = out.join("journal.jsonl").exists() && round % 2 == 0;
        let mut clean = Command::new(program::karat()?);
        clean.arg("clean");
        if journal {
            clean.arg(&out);
        }
        let output = clean
            // The run is known to be dead; else its Lease would be watched for half a minute each time.
            .args(["--yes", "--force", "--kubeconfig"])
            .arg(&kubeconfig)
            .output()
            .await?;
        let what = format!(
            "kill {round} after {after:?}, clean {}: {}{}",
            if journal {
                "with the journal"
            } else {
                "by the seals"
            },
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr),
        );
        ensure!(output.status.success(), "{what}");
        same(&before, &state::of(&client).await?, &what)?;
    }
    Ok(())
}

fn run(kubeconfig: &Path, out: &Path) -> Command {
    let mut command = Command::new(program::karat().unwrap_or_default());
    command
        .args([
            "run",
            "--probe",
            "dra_support",
            "--reach",
            "cluster-objects",
            "--yes",
            "--kubeconfig",
        ])
        .arg(kubeconfig)
        .arg("--out")
        .arg(out)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true);
    command
}

fn same(before: &state::State, after: &state::State, what: &str) -> Result<()> {
    let lines = state::differences(before, after);
    ensure!(lines.is_empty(), "{what}\n{}", lines.join("\n"));
    Ok(())
}

/// A random moment within the run.
fn moment(whole: Duration) -> Result<Duration> {
    let mut bytes = [0; 4];
    getrandom::fill(&mut bytes)
        .map_err(|error| anyhow::anyhow!("{error}"))
        .context("random bytes")?;
    Ok(whole.mul_f64(f64::from(u32::from_le_bytes(bytes)) / f64::from(u32::MAX)))
}
