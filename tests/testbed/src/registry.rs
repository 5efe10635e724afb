//! A registry for tests: Debian's docker-registry on a free loopback port, empty, gone with its owner.
//!
//! It keeps what is pushed in a folder of its own, and serves plain HTTP: loopback addresses need no more. With a user it asks
//! for a password and gives nothing without.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::error::{Result, TestbedError};
use crate::node::{REGISTRIES, RealNode};
use crate::supervise::{Fate, Launch, Supervisor, describe};

/// Debian's name of program and package.
const PROGRAM: &str = "docker-registry";
/// How long it may take to listen. It needs a tenth of a second; a busy machine takes its time.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between two looks into its log.
const LOOK: Duration = Duration::from_millis(20);
/// Its output, with a line for each request.
const LOG: &str = "log";
/// Of bcrypt, the least there is: nobody attacks this one.
const COST: u32 = 4;

/// A running registry. It ends when this value is dropped.
#[derive(Debug)]
pub struct Registry {
    supervisor: Supervisor,
    address: SocketAddr,
    folder: tempfile::TempDir,
}

impl Registry {
    /// The program, or why there is none.
    ///
    /// # Errors
    /// What is missing and what to do.
    pub fn can_run() -> std::result::Result<PathBuf, String> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&path)
            .chain(["/usr/bin".into(), "/usr/local/bin".into()])
            .map(|folder| folder.join(PROGRAM))
            .find(|program| program.is_file())
            .ok_or_else(|| format!("{PROGRAM} not found; on Debian: apt-get install {PROGRAM}"))
    }

    /// Starts one on 127.0.0.1, with a user and a password or open to all.
    ///
    /// # Errors
    /// The program is missing or does not start.
    pub fn start(auth: Option<(&str, &str)>) -> Result<Registry> {
        Registry::start_at(IpAddr::V4(Ipv4Addr::LOCALHOST), auth)
    }

    /// The same on another address of this machine: that of a laboratory's bridge, where its nodes can reach it.
    ///
    /// # Errors
    /// As [`Registry::start`].
    pub fn start_at(at: IpAddr, auth: Option<(&str, &str)>) -> Result<Registry> {
        Registry::start_in(&std::env::temp_dir(), at, auth)
    }

    /// With its files in a folder below this one.
    pub(crate) fn start_in(
        below: &Path,
        at: IpAddr,
        auth: Option<(&str, &str)>,
    ) -> Result<Registry> {
        let program = Registry::can_run().map_err(|cause| TestbedError::CannotRun {
            what: "a registry".into(),
            cause,
            hint: "`cargo xtask testbed doctor` says what is missing".into(),
        })?;
        let folder = tempfile::Builder::new()
            .prefix("karat-registry-")
            .tempdir_in(below)
            .map_err(TestbedError::io("a folder for the registry"))?;
        let root = folder.path();
        let config = root.join("config.json");
        let text = settings(root, at, auth)?;
        std::fs::write(&config, text).map_err(TestbedError::io(&config))?;
        let supervisor = Supervisor::new()?;
        let log = root.join(LOG);
        supervisor.start(
            PROGRAM,
            Launch {
                program,
                args: vec!["serve".into(), config.into()],
                log: log.clone(),
            },
        )?;
        let address = listening(&supervisor, &log)?;
        Ok(Registry {
            supervisor,
            address,
            folder,
        })
    }

    /// Lets a real node pull from it in plain HTTP.
    ///
    /// # Errors
    /// The file system refuses.
    pub fn trusted_by(&self, node: &RealNode) -> Result<()> {
        let folder = node.dir().join(REGISTRIES).join(self.host());
        std::fs::create_dir_all(&folder).map_err(TestbedError::io(&folder))?;
        let path = folder.join("hosts.toml");
        let text = format!("server = 'http://{}'\n", self.host());
        std::fs::write(&path, text).map_err(TestbedError::io(&path))
    }

    /// `ADDRESS:PORT`, as image names have it.
    #[must_use]
    pub fn host(&self) -> String {
        self.address.to_string()
    }

    /// Whether a container runtime asked for something at this path: `/v2/karat/tool/manifests/`.
    #[must_use]
    pub fn served_a_runtime(&self, path: &str) -> bool {
        let log = std::fs::read_to_string(self.folder.path().join(LOG)).unwrap_or_default();
        log.lines()
            .any(|line| line.contains(path) && line.contains("containerd/"))
    }

    /// Where it keeps what was pushed.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// Ends the program; what was pushed stays as long as this value.
    ///
    /// # Errors
    /// The supervisor is gone.
    pub fn stop(&self) -> Result<()> {
        self.supervisor.kill(PROGRAM)
    }

    /// A `config.json` of Docker with this user and password for this registry; give its folder as `DOCKER_CONFIG`.
    ///
    /// # Errors
    /// The file system refuses.
    pub fn write_login(&self, folder: &Path, user: &str, password: &str) -> Result<()> {
        use base64::Engine as _;
        let auth = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
        let config = serde_json::json!({"auths": {self.host(): {"auth": auth}}});
        let path = folder.join("config.json");
        std::fs::write(&path, config.to_string()).map_err(TestbedError::io(&path))
    }
}

/// JSON, which is YAML as well. Port 0: the system chooses, and the log says which.
fn settings(root: &Path, at: IpAddr, auth: Option<(&str, &str)>) -> Result<String> {
    let mut config = serde_json::json!({
        "version": "0.1",
        "log": {"level": "info"},
        "storage": {"filesystem": {"rootdirectory": root.join("data")}, "delete": {"enabled": true}},
        "http": {"addr": SocketAddr::new(at, 0).to_string()},
    });
    if let Some((user, password)) = auth {
        let hash = bcrypt::hash(password, COST).map_err(|error| TestbedError::Io {
            path: "a password for the registry".into(),
            source: std::io::Error::other(error),
        })?;
        let path = root.join("htpasswd");
        std::fs::write(&path, format!("{user}:{hash}\n")).map_err(TestbedError::io(&path))?;
        config["auth"] = serde_json::json!({"htpasswd": {"realm": "karat", "path": path}});
    }
    Ok(config.to_string())
}

fn listening(supervisor: &Supervisor, log: &Path) -> Result<SocketAddr> {
    let began = Instant::now();
    loop {
        let text = std::fs::read_to_string(log).unwrap_or_default();
        if let Some(address) = address(&text) {
            return Ok(address);
        }
        let status = match supervisor.fate(PROGRAM)? {
            Fate::Ended(status) => describe(status),
            Fate::Running(_) if began.elapsed() < PATIENCE => {
                std::thread::sleep(LOOK);
                continue;
            }
            _ => format!("does not listen after {} s", PATIENCE.as_secs()),
        };
        let tail: Vec<&str> = text.lines().rev().take(5).collect();
        return Err(TestbedError::Failed {
            what: PROGRAM.into(),
            status,
            tail: tail.join("\n"),
        });
    }
}

/// `… msg="listening on 127.0.0.1:40123" …`
fn address(log: &str) -> Option<SocketAddr> {
    let (_, rest) = log.split_once("listening on ")?;
    let end = rest.find(['"', ' ', '\n', ','])?;
    rest[..end].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_says_the_port() {
        let log = "time=\"x\" level=info msg=\"listening on 127.0.0.1:40123\" go.version=go1.19\n";
        assert_eq!(address(log), Some(([127, 0, 0, 1], 40123).into()));
        assert_eq!(address("level=info msg=\"listening on 127.0.0.1:4"), None);
    }
}
