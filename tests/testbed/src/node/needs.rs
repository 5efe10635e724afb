//! What a machine must have for real nodes, asked by trying it.
//!
//! Nothing here is guessed from a version or a name of a distribution: namespaces, interfaces and nft tables are made in a
//! namespace that ends at once.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::programs::Origin;
use crate::version::KubernetesVersion;

/// One thing that real nodes need.
#[derive(Clone, Debug)]
pub struct Need {
    /// Its name.
    pub name: &'static str,
    /// True if this machine has it.
    pub met: bool,
    /// Where it is, or what is missing and what to do.
    pub text: String,
}

/// The programs of the system that a node uses, with the Debian package of each.
const PROGRAMS: [(&str, &str); 5] = [
    ("ip", "iproute2"),
    ("unshare", "util-linux"),
    ("mount", "mount"),
    ("nft", "nftables"),
    ("runc", "runc"),
];

/// Plug-ins that the nodes' network configuration names.
const CNI_PLUGINS: [&str; 4] = ["bridge", "host-local", "loopback", "portmap"];

/// Folders where distributions and other installers put them; `CNI_PATH` comes first.
const CNI_PLACES: [&str; 3] = ["/usr/lib/cni", "/opt/cni/bin", "/usr/libexec/cni"];

/// Controllers without which the kubelet does not start.
const CONTROLLERS: [&str; 5] = ["cpu", "cpuset", "memory", "pids", "devices"];

/// How a node is unshared from its machine; a program and its arguments follow.
pub(crate) const UNSHARE: [&str; 8] = [
    "--mount",
    "--propagation=private",
    "--net",
    "--pid",
    "--fork",
    "--kill-child",
    "--mount-proc",
    "--",
];

/// Everything that real nodes need from this machine, met or not. Programs that are built are told by [`crate::survey`].
#[must_use]
pub fn node_needs() -> Vec<Need> {
    let mut needs = vec![user()];
    needs.extend(PROGRAMS.map(|(name, package)| match program(name) {
        Some(path) => need(name, true, path.display().to_string()),
        None => need(
            name,
            false,
            format!("not found; on Debian: apt-get install {package}"),
        ),
    }));
    needs.push(match cni_plugins() {
        Some(dir) => need("CNI plug-ins", true, dir.display().to_string()),
        None => need(
            "CNI plug-ins",
            false,
            format!(
                "{} not found together; on Debian: apt-get install containernetworking-plugins",
                CNI_PLUGINS.join(", ")
            ),
        ),
    });
    needs.push(cgroups(Path::new("/sys/fs/cgroup")));
    let overlay =
        std::fs::read_to_string("/proc/filesystems").is_ok_and(|text| text.contains("\toverlay\n"));
    needs.push(need(
        "overlay",
        overlay,
        if overlay {
            "the kernel has it"
        } else {
            "the kernel has no overlay file system; try: modprobe overlay"
        },
    ));
    needs.push(if needs.iter().all(|n| n.met) {
        namespaces()
    } else {
        need("namespaces", false, "not tried before the rest is there")
    });
    needs
}

/// Says why this machine cannot run real nodes, in one line.
///
/// # Errors
/// The needs that are not met.
pub fn can_run_nodes() -> std::result::Result<(), String> {
    let missing: Vec<_> = node_needs()
        .into_iter()
        .filter(|n| !n.met)
        .map(|n| format!("{}: {}", n.name, n.text))
        .collect();
    if missing.is_empty() {
        Ok(())
    } else {
        Err(missing.join("; "))
    }
}

/// Whether gVisor works here, found out with one small sandbox. It is not part of [`can_run_nodes`]: a node without it runs
/// everything else.
#[must_use]
pub fn gvisor_need(version: KubernetesVersion) -> Need {
    const NAME: &str = "gVisor";
    let runsc = crate::programs::survey_nodes(version)
        .into_iter()
        .find(|p| p.name == "runsc" && p.origin != Origin::Build);
    let (Some(runsc), Ok(state)) = (runsc, tempfile::tempdir()) else {
        return need(NAME, false, "not tried before it is built");
    };
    let output = Command::new(&runsc.path)
        .arg("--root")
        .arg(state.path())
        .args(["--network=none", "--ignore-cgroups", "--platform=systrap"])
        .args(["do", "/bin/cat", "/proc/version"])
        .stdin(Stdio::null())
        .output();
    match output {
        Ok(output) if output.status.success() => {
            let kernel = String::from_utf8_lossy(&output.stdout).trim().to_owned();
            need(NAME, true, format!("a sandbox sees {kernel}"))
        }
        Ok(output) => need(
            NAME,
            false,
            String::from_utf8_lossy(&output.stderr)
                .lines()
                .last()
                .unwrap_or("the sandbox ended without a word")
                .to_owned(),
        ),
        Err(e) => need(NAME, false, e.to_string()),
    }
}

fn need(name: &'static str, met: bool, text: impl Into<String>) -> Need {
    Need {
        name,
        met,
        text: text.into(),
    }
}

fn user() -> Need {
    if rustix::process::geteuid().is_root() {
        need("root", true, "this is root")
    } else {
        need(
            "root",
            false,
            "not root; a kubelet mounts and makes cgroups",
        )
    }
}

/// A program of the system, also in the folders that an ordinary user's `PATH` leaves out.
pub(crate) fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin", "/usr/bin", "/bin"].map(PathBuf::from))
        .map(|dir| dir.join(name))
        .find(|p| p.is_file())
}

/// The folder that has all plug-ins.
pub(crate) fn cni_plugins() -> Option<PathBuf> {
    let own = std::env::var_os("CNI_PATH").unwrap_or_default();
    std::env::split_paths(&own)
        .chain(CNI_PLACES.map(PathBuf::from))
        .find(|dir| CNI_PLUGINS.iter().all(|p| dir.join(p).is_file()))
}

fn cgroups(root: &Path) -> Need {
    // Version 2 has one hierarchy and a list, version 1 a folder for each controller.
    if let Ok(text) = std::fs::read_to_string(root.join("cgroup.controllers")) {
        let has: Vec<&str> = text.split_whitespace().collect();
        // Version 2 confines devices by programs in the kernel, not by a controller.
        let missing: Vec<_> = CONTROLLERS
            .iter()
            .filter(|c| **c != "devices" && !has.contains(c))
            .copied()
            .collect();
        return if missing.is_empty() {
            need("cgroups", true, "version 2")
        } else {
            need(
                "cgroups",
                false,
                format!("version 2 without {}", missing.join(", ")),
            )
        };
    }
    let missing: Vec<_> = CONTROLLERS
        .iter()
        .filter(|c| !root.join(c).join("cgroup.procs").exists())
        .copied()
        .collect();
    if missing.is_empty() {
        need("cgroups", true, "version 1")
    } else {
        need(
            "cgroups",
            false,
            format!("{} has no {}", root.display(), missing.join(", ")),
        )
    }
}

/// Makes what a node is made of, in a namespace that ends with the command.
fn namespaces() -> Need {
    const TRIAL: &str = "ip link add t0 type veth peer name t1 && ip link add t2 type bridge && nft add table ip trial && mount -t tmpfs tmpfs /run";
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut dirs: Vec<PathBuf> = std::env::split_paths(&path).collect();
    dirs.extend(["/usr/sbin", "/sbin"].map(PathBuf::from));
    let output = Command::new(program("unshare").unwrap_or_else(|| "unshare".into()))
        .args(UNSHARE)
        .args(["/bin/sh", "-c", TRIAL])
        .env("PATH", std::env::join_paths(dirs).unwrap_or_default())
        .stdin(Stdio::null())
        .output();
    match output {
        Ok(output) if output.status.success() => need(
            "namespaces",
            true,
            "mount, pid and network, with veth, bridge and nft",
        ),
        Ok(output) => need(
            "namespaces",
            false,
            String::from_utf8_lossy(&output.stderr)
                .lines()
                .next()
                .unwrap_or("refused without a word")
                .to_owned(),
        ),
        Err(e) => need("namespaces", false, e.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_of_the_system_are_found_without_path() {
        assert!(program("sh").is_some());
        assert!(program("no-such-program").is_none());
    }

    #[test]
    fn missing_controllers_are_named() {
        let dir = tempfile::tempdir().unwrap();
        for controller in ["cpu", "cpuset", "memory", "devices"] {
            std::fs::create_dir(dir.path().join(controller)).unwrap();
            std::fs::write(dir.path().join(controller).join("cgroup.procs"), "").unwrap();
        }
        let one = cgroups(dir.path());
        assert!(!one.met && one.text.ends_with("has no pids"), "{one:?}");
        std::fs::write(
            dir.path().join("cgroup.controllers"),
            "cpuset cpu io memory pids\n",
        )
        .unwrap();
        assert!(cgroups(dir.path()).met);
        std::fs::write(dir.path().join("cgroup.controllers"), "hugetlb\n").unwrap();
        assert!(
            cgroups(dir.path())
                .text
                .contains("without cpu, cpuset, memory, pids")
        );
    }

    #[test]
    fn every_need_says_something() {
        assert!(node_needs().iter().all(|n| !n.text.is_empty()));
    }
}
