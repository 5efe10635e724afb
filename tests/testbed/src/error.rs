//! What can go wrong while a laboratory is built, started or used.
//!
//! Every variant names its subject, the cause and, where one exists, what to do. The text of a failed program's
//! log travels inside the error, because the state folder is gone by the time somebody reads it.

use std::path::PathBuf;

/// Result of the testbed's own functions.
pub type Result<T, E = TestbedError> = std::result::Result<T, E>;

/// Everything the testbed reports. See the module comment for the form of the messages.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TestbedError {
    /// A program of the laboratory is neither installed nor buildable.
    #[error("{program}: not found ({looked}); {hint}")]
    ProgramMissing {
        /// File name of the program.
        program: String,
        /// Where it was looked for and why each place was rejected.
        looked: String,
        /// What to do.
        hint: String,
    },
    /// `go` failed. The tail of its output is included.
    #[error("{what}: go failed with {status}\n{tail}")]
    Build {
        /// Program or module set.
        what: String,
        /// Exit status.
        status: String,
        /// Last lines of output.
        tail: String,
    },
    /// A program ended although it should run.
    #[error(
        "{component}: ended with {status} while {during}; its log is {log}, last lines:\n{tail}"
    )]
    Exited {
        /// Which program.
        component: String,
        /// Exit status.
        status: String,
        /// What the testbed was doing.
        during: String,
        /// Path of the (kept) log.
        log: PathBuf,
        /// Last lines of it.
        tail: String,
    },
    /// Something did not become true in time.
    #[error(
        "{what}: not so after {waited_ms} ms ({last}); log of the program most likely concerned: {log}, last lines:\n{tail}"
    )]
    NotReady {
        /// The awaited condition.
        what: String,
        /// How long it was waited for.
        waited_ms: u128,
        /// What was seen last.
        last: String,
        /// Path of a log.
        log: PathBuf,
        /// Last lines of it.
        tail: String,
    },
    /// The name of a laboratory is not acceptable.
    #[error("testbed name {0:?}: use 1 to 30 of a-z, 0-9 and '-'")]
    BadName(String),
    /// A laboratory of this name is already running.
    #[error(
        "testbed {name}: already running with pid {pid}; use another --name or take it down first"
    )]
    AlreadyRunning {
        /// Its name.
        name: String,
        /// Its supervisor.
        pid: u32,
    },
    /// No laboratory of this name is running.
    #[error("testbed {0}: not running; start it with `cargo xtask testbed up`")]
    NotRunning(String),
    /// The folder for state cannot be trusted.
    #[error(
        "state folder {path}: {cause}; remove it or set KARAT_TESTBED_DIR to a folder of your own"
    )]
    UnsafeStateDir {
        /// The folder.
        path: PathBuf,
        /// Why.
        cause: String,
    },
    /// A file could not be read or written.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Cause.
        #[source]
        source: std::io::Error,
    },
    /// A program could not be started at all.
    #[error("{program}: cannot be started: {source}")]
    Spawn {
        /// Its path.
        program: PathBuf,
        /// Cause.
        #[source]
        source: std::io::Error,
    },
    /// Certificates could not be made.
    #[error("certificate {name}: {source}")]
    Pki {
        /// Which one.
        name: String,
        /// Cause.
        #[source]
        source: rcgen::Error,
    },
    /// A fixture is not what it should be.
    #[error("fixture {name}, document {document}: {cause}")]
    Fixture {
        /// File name.
        name: String,
        /// Which document, from 1.
        document: usize,
        /// What is wrong.
        cause: String,
    },
    /// The API server refused or could not be reached.
    #[error("{doing}: {source}")]
    Kube {
        /// What was being done.
        doing: String,
        /// Cause.
        #[source]
        source: Box<kube::Error>,
    },
    /// This machine cannot run what was asked for.
    #[error("{what}: {cause}; {hint}")]
    CannotRun {
        /// What was asked for.
        what: String,
        /// Why it cannot be.
        cause: String,
        /// What to do.
        hint: String,
    },
    /// A command of the system, or one that builds something, did not do its work.
    #[error("{what}: {status}\n{tail}")]
    Failed {
        /// What was done.
        what: String,
        /// Exit status, or what was seen instead.
        status: String,
        /// What it said.
        tail: String,
    },
    /// The proxy could not be set up.
    #[error("proxy: {0}")]
    Proxy(String),
    /// The thread that owns the programs is gone; only possible after `stop`.
    #[error("testbed is already stopped")]
    Stopped,
}

impl TestbedError {
    /// For `map_err` on file operations.
    pub(crate) fn io(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { path, source }
    }

    /// For `map_err` on requests.
    pub(crate) fn kube(doing: impl Into<String>) -> impl FnOnce(kube::Error) -> Self {
        let doing = doing.into();
        move |source| Self::Kube {
            doing,
            source: Box::new(source),
        }
    }

    /// True if a program lost the race for a free port, which a second try with other ports cures.
    pub(crate) fn is_port_clash(&self) -> bool {
        match self {
            Self::Exited { tail, .. } | Self::NotReady { tail, .. } => {
                tail.contains("address already in use")
            }
            _ => false,
        }
    }
}
