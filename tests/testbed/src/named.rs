//! Laboratories that outlive the command that started them, found again by name.
//!
//! A supervisor process in a session of its own owns the programs; [`serve`] is its whole life. Everybody else reads the
//! small description it leaves in its state folder and sends it a signal. Because the supervisor holds the folder's
//! lock, a description whose owner died is never taken for a living one, and a recycled pid is never signalled.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};

use crate::components::Component;
use crate::config::ControlPlaneBuilder;
use crate::error::{Result, TestbedError};
use crate::state;

/// What a running laboratory says about itself.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Description {
    /// Its name.
    pub name: String,
    /// Process that owns it.
    pub pid: u32,
    /// Kubernetes version.
    pub version: String,
    /// Address of the API server.
    pub url: String,
    /// Kubeconfig of the administrator.
    pub kubeconfig: PathBuf,
    /// Folder with everything, logs below `log/`.
    pub state_dir: PathBuf,
    /// Address of [`crate::AddOn::Registry`], where it was asked for.
    #[serde(default)]
    pub registry: Option<String>,
    /// Program and process id.
    pub programs: Vec<(String, u32)>,
    /// Time from the command to ready, in milliseconds.
    pub ready_after_ms: u64,
}

const DESCRIPTION: &str = "testbed.json";

/// How long a supervisor may take to end before it is killed; its programs die with it either way.
const STOP_GRACE: Duration = Duration::from_secs(15);

/// All laboratories that are ready. Folders of dead ones are removed on the way.
///
/// # Errors
/// If the state folder cannot be read.
pub fn list() -> Result<Vec<Description>> {
    Ok(state::living_names()?
        .iter()
        .filter_map(|name| status(name).ok().flatten())
        .collect())
}

/// The description of one laboratory; `None` if it is not running or not ready yet.
///
/// # Errors
/// A bad name.
pub fn status(name: &str) -> Result<Option<Description>> {
    let dir = state::named_path(name)?;
    Ok(state::owner(&dir).and_then(|_| read(&dir)))
}

fn read(dir: &Path) -> Option<Description> {
    serde_json::from_slice(&std::fs::read(dir.join(DESCRIPTION)).ok()?).ok()
}

/// Ends a laboratory and waits until its processes and files are gone.
///
/// # Errors
/// [`TestbedError::NotRunning`], or files that cannot be removed.
pub fn stop(name: &str) -> Result<()> {
    let dir = state::named_path(name)?;
    let Some(pid) = state::owner(&dir) else {
        // Removes what a dead owner may have left.
        state::living_names()?;
        return Err(TestbedError::NotRunning(name.to_owned()));
    };
    signal(pid, Signal::TERM);
    let began = Instant::now();
    let mut killed = false;
    while dir.exists() {
        if !killed && began.elapsed() > STOP_GRACE {
            // The kernel ends its programs, its janitor removes the files.
            if let Some(pid) = state::owner(&dir) {
                signal(pid, Signal::KILL);
            }
            killed = true;
        }
        if began.elapsed() > 2 * STOP_GRACE {
            return Err(TestbedError::Io {
                path: dir,
                source: std::io::Error::new(
                    std::io::ErrorKind::TimedOut,
                    "still there after its owner was killed",
                ),
            });
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

fn signal(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        let _ = kill_process(pid, signal);
    }
}

/// Runs a named laboratory until SIGTERM, SIGINT or SIGHUP. Meant for a process of its own.
///
/// # Errors
/// The laboratory could not be started.
pub async fn serve(name: &str, builder: ControlPlaneBuilder) -> Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let io = || TestbedError::io("signal handlers");
    // Before the start, so that an early `down` does not leave a half-built laboratory for the kernel to end.
    let mut term = signal(SignalKind::terminate()).map_err(io())?;
    let mut int = signal(SignalKind::interrupt()).map_err(io())?;
    let mut hup = signal(SignalKind::hangup()).map_err(io())?;
    let began = Instant::now();
    let version = builder.config.version;
    let run = async {
        let lab = builder.name(name).start().await?;
        let description = Description {
            name: name.to_owned(),
            pid: std::process::id(),
            version: version.to_string(),
            url: lab.url(),
            kubeconfig: lab.kubeconfig(),
            state_dir: lab.state_dir().to_owned(),
            registry: lab.registry().map(crate::Registry::host),
            programs: Component::ALL
                .into_iter()
                .filter_map(|c| Some((c.name().to_owned(), lab.pid(c)?)))
                .chain(
                    lab.real_nodes()
                        .iter()
                        .filter_map(|node| Some((node.name().to_owned(), node.first_process()?))),
                )
                .collect(),
            ready_after_ms: u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
        };
        let path = lab.state_dir().join(DESCRIPTION);
        let beside = lab.state_dir().join("testbed.json.new");
        let text = serde_json::to_vec_pretty(&description).unwrap_or_default();
        std::fs::write(&beside, text).map_err(TestbedError::io(&beside))?;
        std::fs::rename(&beside, &path).map_err(TestbedError::io(&path))?;
        // Holds `lab` until a signal drops this future.
        std::future::pending::<()>().await;
        drop(lab);
        Ok(())
    };
    tokio::select! {
        result = run => result,
        _ = term.recv() => Ok(()),
        _ = int.recv() => Ok(()),
        _ = hup.recv() => Ok(()),
    }
}
