//! Starts programs so that they cannot outlive their owner, and removes the state folder when the owner is gone.
//!
//! `PR_SET_PDEATHSIG` fires when the *thread* that forked a child ends, not its process. All children are therefore
//! started by one thread that lives as long as the [`Supervisor`]. `kill -9` of the process ends that thread and the
//! kernel kills the children; nothing of ours has to run for it.
//! Files cannot be cleaned that way, so a *janitor* (a shell that waits for the end of its input) removes the state
//! folder as soon as the pipe to it closes, whatever closed it.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use crate::error::{Result, TestbedError};
use crate::node::net::Net;

/// What to start.
#[derive(Clone, Debug)]
pub(crate) struct Launch {
    pub(crate) program: PathBuf,
    pub(crate) args: Vec<OsString>,
    pub(crate) log: PathBuf,
}

/// What became of a program.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fate {
    Running(u32),
    Ended(ExitStatus),
    NeverStarted,
}

enum Order {
    Start(&'static str, Launch, Sender<io::Result<u32>>),
    Kill(&'static str, Sender<()>),
    Fate(&'static str, Sender<Fate>),
}

/// Owns the programs of one laboratory. Dropping it kills them all and waits until they are gone.
#[derive(Debug)]
pub(crate) struct Supervisor {
    orders: Option<Sender<Order>>,
    thread: Option<JoinHandle<()>>,
}

impl Supervisor {
    pub(crate) fn new() -> Result<Self> {
        let (orders, inbox) = channel();
        let thread = std::thread::Builder::new()
            .name("testbed-supervisor".into())
            .spawn(move || serve(&inbox))
            .map_err(TestbedError::io("supervisor thread"))?;
        Ok(Self {
            orders: Some(orders),
            thread: Some(thread),
        })
    }

    /// Starts a program under a name; a running one of that name is killed first.
    pub(crate) fn start(&self, name: &'static str, launch: Launch) -> Result<u32> {
        let program = launch.program.clone();
        self.ask(|reply| Order::Start(name, launch, reply))?
            .map_err(|source| TestbedError::Spawn { program, source })
    }

    /// Kills a program and waits for its end. No effect if it is not running.
    pub(crate) fn kill(&self, name: &'static str) -> Result<()> {
        self.ask(|reply| Order::Kill(name, reply))
    }

    pub(crate) fn fate(&self, name: &'static str) -> Result<Fate> {
        self.ask(|reply| Order::Fate(name, reply))
    }

    fn ask<T>(&self, order: impl FnOnce(Sender<T>) -> Order) -> Result<T> {
        let (reply, answer) = channel();
        let orders = self.orders.as_ref().ok_or(TestbedError::Stopped)?;
        orders
            .send(order(reply))
            .map_err(|_| TestbedError::Stopped)?;
        answer.recv().map_err(|_| TestbedError::Stopped)
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        // Closing the channel is the order to end.
        drop(self.orders.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn serve(inbox: &Receiver<Order>) {
    let mut children: BTreeMap<&'static str, Child> = BTreeMap::new();
    while let Ok(order) = inbox.recv() {
        match order {
            Order::Start(name, launch, reply) => {
                if let Some(mut old) = children.remove(name) {
                    end(&mut old);
                }
                let started = spawn(&launch).map(|child| {
                    let pid = child.id();
                    children.insert(name, child);
                    pid
                });
                let _ = reply.send(started);
            }
            Order::Kill(name, reply) => {
                if let Some(child) = children.get_mut(name) {
                    end(child);
                }
                let _ = reply.send(());
            }
            Order::Fate(name, reply) => {
                let fate = match children.get_mut(name) {
                    None => Fate::NeverStarted,
                    Some(child) => match child.try_wait() {
                        Ok(Some(status)) => Fate::Ended(status),
                        _ => Fate::Running(child.id()),
                    },
                };
                let _ = reply.send(fate);
            }
        }
    }
    // SIGKILL, not SIGTERM: the API server's graceful stop takes ten seconds and its data is thrown away.
    for child in children.values_mut() {
        let _ = child.kill();
    }
    for child in children.values_mut() {
        let _ = child.wait();
    }
}

fn end(child: &mut Child) {
    let _ = child.kill();
    let _ = child.wait();
}

fn spawn(launch: &Launch) -> io::Result<Child> {
    let log = OpenOptions::new()
        .create(true)
        .append(true)
        .open(&launch.log)?;
    let mut command = Command::new(&launch.program);
    // An own process group: Ctrl-C reaches the program at the terminal first, which still needs its cluster to clean up.
    command
        .args(&launch.args)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .process_group(0);
    die_with_parent(&mut command);
    command.spawn()
}

/// Asks the kernel to kill the child when the calling thread ends.
pub fn die_with_parent(command: &mut Command) {
    let parent = rustix::process::getpid();
    let hook = move || {
        rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
        // The parent may have died before the line above; then nobody would ever send the signal.
        if rustix::process::getppid() != Some(parent) {
            return Err(io::Error::from(io::ErrorKind::BrokenPipe));
        }
        Ok(())
    };
    #[expect(
        unsafe_code,
        reason = "pre_exec is the only place where a child can ask for its parent's death signal"
    )]
    // SAFETY: the hook makes two system calls and allocates nothing, so it may run between fork and exec of a
    // process with several threads. `io::Error::from(ErrorKind)` and errno errors do not allocate either.
    unsafe {
        command.pre_exec(hook);
    }
}

/// How a status reads in a message: "exit status 1", "signal 9".
pub(crate) fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        _ => "unknown status".to_owned(),
    }
}

/// Removes the state folder, and the bridge and cgroups of real nodes, when this value is dropped or its process dies,
/// however it dies.
#[derive(Debug)]
pub(crate) struct Janitor {
    shell: Child,
    dir: PathBuf,
}

/// Arguments: folder, bridge, and how the names of cgroups and of links to the nodes begin; each may be empty.
///
/// The order matters. First the cgroups, which cannot go before the last process in them: only then have the node's
/// connections been closed by both ends. Links that were cut earlier would leave connections that the kernel keeps open for
/// minutes, and the node's network with them. The folder goes last, because who waits for the end of a laboratory waits
/// for that.
const JANITOR: &str = r#"trap '' INT TERM HUP
cat >/dev/null
exec 2>/dev/null
again() {
    tries=$1
    shift
    while [ "$tries" -gt 0 ] && "$@"; do tries=$((tries-1)); sleep 0.1; done
}
groups() {
    for group in /sys/fs/cgroup/"$1"* /sys/fs/cgroup/*/"$1"*; do
        if [ -d "$group" ]; then find "$group" -depth -type d -exec rmdir {} \; ; fi
        if [ -d "$group" ]; then return 0; fi
    done
    return 1
}
links() {
    for link in /sys/class/net/"$1"*; do
        if [ -e "$link" ]; then return 0; fi
    done
    return 1
}
folder() { ! rm -rf -- "$1"; }
if [ -n "$2" ]; then
    again 100 groups "$3"
    again 20 links "$4"
    for link in /sys/class/net/"$4"* "/sys/class/net/$2"; do
        if [ -e "$link" ]; then ip link delete "${link##*/}"; fi
    done
fi
if [ -n "$1" ]; then again 100 folder "$1"; fi"#;

impl Janitor {
    pub(crate) fn watch(dir: &Path, net: Option<&Net>) -> Result<Self> {
        let shell = shell(Some(dir), net, Stdio::piped())?;
        Ok(Self {
            shell,
            dir: dir.to_owned(),
        })
    }
}

/// Does a janitor's work now. What cannot be removed stays for the next one.
pub(crate) fn clean(dir: Option<&Path>, net: Option<&Net>) {
    if let Ok(mut shell) = shell(dir, net, Stdio::null()) {
        let _ = shell.wait();
    }
}

fn shell(dir: Option<&Path>, net: Option<&Net>, input: Stdio) -> Result<Child> {
    // Its standard output is the claim of the networks: they are not free before it has ended.
    let claim: Stdio = match net {
        Some(net) => net.share()?.into(),
        None => Stdio::null(),
    };
    let mut path = std::env::var_os("PATH").unwrap_or_default();
    path.push(":/usr/sbin:/sbin:/usr/bin:/bin");
    Command::new("/bin/sh")
        .args(["-c", JANITOR, "karat-testbed-janitor"])
        .arg(dir.unwrap_or(Path::new("")))
        .arg(net.map(Net::bridge).unwrap_or_default())
        .arg(net.map(Net::cgroups).unwrap_or_default())
        .arg(net.map(Net::links).unwrap_or_default())
        .env("PATH", path)
        .current_dir("/")
        .stdin(input)
        .stdout(claim)
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .map_err(|source| TestbedError::Spawn {
            program: "/bin/sh".into(),
            source,
        })
}

impl Drop for Janitor {
    fn drop(&mut self) {
        drop(self.shell.stdin.take());
        let _ = self.shell.wait();
        let _ = fs::remove_dir_all(&self.dir);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alive(pid: u32) -> bool {
        Path::new(&format!("/proc/{pid}/exe")).read_link().is_ok()
    }

    fn sleeper(dir: &Path) -> Launch {
        Launch {
            program: "/bin/sleep".into(),
            args: vec!["600".into()],
            log: dir.join("log"),
        }
    }

    #[test]
    fn dropping_the_supervisor_ends_its_programs() {
        let dir = tempfile::tempdir().unwrap();
        let supervisor = Supervisor::new().unwrap();
        let pid = supervisor.start("a", sleeper(dir.path())).unwrap();
        assert!(alive(pid));
        assert!(matches!(supervisor.fate("a").unwrap(), Fate::Running(p) if p == pid));
        drop(supervisor);
        assert!(!alive(pid));
    }

    #[test]
    fn a_killed_program_is_reported_with_its_signal() {
        let dir = tempfile::tempdir().unwrap();
        let supervisor = Supervisor::new().unwrap();
        supervisor.start("a", sleeper(dir.path())).unwrap();
        supervisor.kill("a").unwrap();
        let Fate::Ended(status) = supervisor.fate("a").unwrap() else {
            panic!("still running")
        };
        assert_eq!(describe(status), "signal 9");
        assert!(matches!(supervisor.fate("b").unwrap(), Fate::NeverStarted));
    }

    #[test]
    fn a_missing_program_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let supervisor = Supervisor::new().unwrap();
        let launch = Launch {
            program: "/nonexistent/etcd".into(),
            args: vec![],
            log: dir.path().join("log"),
        };
        assert!(
            supervisor
                .start("a", launch)
                .unwrap_err()
                .to_string()
                .contains("/nonexistent/etcd")
        );
    }

    #[test]
    fn the_janitor_removes_its_folder() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        fs::create_dir_all(path.join("a/b")).unwrap();
        let janitor = Janitor::watch(&path, None).unwrap();
        assert!(path.exists());
        drop(janitor);
        assert!(!path.exists());
    }
}
