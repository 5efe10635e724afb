//! What the words of the pods mean. The pod without the RuntimeClass is what a plain container sees on the same node.

use crate::pods::{NEIGHBOUR_PROCESS, Read, SECRET_PORT};
use karat_sdk::pods::Script;
use karat_sdk::{Case, Conclusion, Reason, Result};

/// Judges one thing that the sandbox told.
pub(crate) type Judge = fn(&Case, &Read) -> Result<Conclusion>;

/// Programs of a node, as the kernel names them.
const NODE_PROGRAMS: [&str; 6] = [
    "kubelet",
    "containerd",
    "crio",
    "dockerd",
    "systemd",
    "systemd-journal",
];
/// What leads to the memory of a machine.
pub(crate) const MEMORY: [&str; 3] = ["/dev/mem", "/dev/kmem", "/proc/kcore"];
/// What only a node has.
pub(crate) const NODE_PATHS: [&str; 4] = [
    "/etc/kubernetes",
    "/var/lib/kubelet",
    "/var/log/pods",
    "/run/containerd",
];
/// File systems of disks.
const DISKS: [&str; 8] = [
    "ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "f2fs", "bcachefs",
];
/// Interfaces that a node has and a pod has not: whole names, and beginnings.
const NODE_INTERFACES: [&str; 3] = ["docker0", "cbr0", "cni0"];
const NODE_INTERFACES_BEGIN: [&str; 4] = ["flannel", "br-", "bond", "dummy"];

/// At least one of the signs of a kernel differs from those of the node.
pub(crate) fn kernel(case: &Case, read: &Read) -> Result<Conclusion> {
    let mut differs = false;
    let mut known = 0;
    for (key, name) in [
        ("kernel.release", "release"),
        ("kernel.version", "version"),
        ("kernel.boot", "boot id"),
    ] {
        let (inside, outside) = (first(&read.sandbox, key), first(&read.control, key));
        case.observe(&format!("{name} in the sandbox"), inside);
        case.observe(&format!("{name} of the node"), outside);
        // What cannot be read is no sign: a hidden file hides no kernel.
        if !inside.is_empty() && !outside.is_empty() {
            known += 1;
            differs |= inside != outside;
        }
    }
    Ok(if known == 0 {
        Conclusion::unknown(
            Reason::Deadline,
            "no sign of the kernel could be read in both pods",
        )
    } else if differs {
        Conclusion::Pass
    } else {
        Conclusion::fail(
            "the sandbox has the kernel of its node: release, version and boot id are the same",
        )
    })
}

/// No program of the node is seen.
pub(crate) fn processes(case: &Case, read: &Read) -> Result<Conclusion> {
    let seen: Vec<&str> = read.sandbox.all("process").collect();
    case.observe("processes in the sandbox", seen.join(", "));
    // A sandbox may have no process but ours, whose name says nothing of whose view this is.
    let kernel = first(&read.sandbox, "kernel.version");
    case.observe("kernel of the sandbox", kernel);
    let foreign = seen.iter().find(|name| NODE_PROGRAMS.contains(name));
    Ok(match foreign {
        // Itself at least is there.
        None if seen.is_empty() => not_told("its processes"),
        None => Conclusion::Pass,
        Some(name) => Conclusion::fail(format!("the sandbox sees `{name}`, a program of the node")),
    })
}

/// Nothing leads to the memory of the node.
pub(crate) fn memory(case: &Case, read: &Read) -> Result<Conclusion> {
    let mut got = None;
    for path in MEMORY {
        let answer = first(&read.sandbox, &format!("read.{path}"));
        case.observe(path, answer);
        if answer.is_empty() {
            return Ok(not_told(path));
        }
        // Runtimes hide such files behind an empty one, which can be opened.
        if answer == "ok" {
            got = Some(path);
        }
    }
    Ok(match got {
        None => Conclusion::Pass,
        Some(path) => Conclusion::fail(format!("the sandbox can read {path}")),
    })
}

/// Nothing of the node's files is there.
pub(crate) fn files(case: &Case, read: &Read) -> Result<Conclusion> {
    for path in NODE_PATHS {
        let answer = first(&read.sandbox, &format!("exists.{path}"));
        case.observe(path, answer);
        match answer {
            "no" => {}
            "" => return Ok(not_told(path)),
            _ => {
                return Ok(Conclusion::fail(format!(
                    "the sandbox sees {path}, which only a node has"
                )));
            }
        }
    }
    // The same below a mount is the root of a node, or a part of it, under another name.
    for path in NODE_PATHS {
        let at = first(&read.sandbox, &format!("below.{path}"));
        match at {
            "none" => {}
            "" => return Ok(not_told(path)),
            at => {
                case.observe(&format!("mount with {path}"), at);
                return Ok(Conclusion::fail(format!(
                    "the sandbox sees {at}{path}: a part of the node is mounted at {at}"
                )));
            }
        }
    }
    let mounts: Vec<Mount<'_>> = read.sandbox.all("mount").filter_map(Mount::parse).collect();
    case.observe("mounts in the sandbox", mounts.len());
    if mounts.is_empty() {
        return Ok(not_told("its mounts"));
    }
    // A file or folder of a disk is mounted into every container: /etc/hosts, an emptyDir. A whole disk is the node's.
    let disk = mounts
        .iter()
        .find(|mount| DISKS.contains(&mount.kind) && mount.root == "/");
    Ok(match disk {
        None => Conclusion::Pass,
        Some(mount) => Conclusion::fail(format!(
            "a whole disk ({}) is mounted at {} in the sandbox",
            mount.kind, mount.at
        )),
    })
}

/// One mount: `ext4 / /mnt`, kind, root within the file system, and place.
struct Mount<'a> {
    kind: &'a str,
    root: &'a str,
    at: &'a str,
}

impl<'a> Mount<'a> {
    fn parse(line: &'a str) -> Option<Mount<'a>> {
        let mut words = line.splitn(3, ' ');
        Some(Mount {
            kind: words.next()?,
            root: words.next()?,
            at: words.next()?,
        })
    }
}

/// None of the node's interfaces is there.
pub(crate) fn network(case: &Case, read: &Read) -> Result<Conclusion> {
    let seen: Vec<&str> = read.sandbox.all("interface").collect();
    for name in &seen {
        case.observe("interface in the sandbox", name);
    }
    let foreign = seen.iter().find(|name| {
        NODE_INTERFACES.contains(name)
            || NODE_INTERFACES_BEGIN
                .iter()
                .any(|begin| name.starts_with(begin))
    });
    Ok(match foreign {
        None if seen.is_empty() => not_told("its interfaces"),
        None => Conclusion::Pass,
        Some(name) => Conclusion::fail(format!(
            "the sandbox has `{name}`, an interface of the node"
        )),
    })
}

/// The neighbour's process is not seen, its loopback port not reached.
pub(crate) fn neighbours(case: &Case, read: &Read) -> Result<Conclusion> {
    let port = first(&read.sandbox, &format!("connect.127.0.0.1:{SECRET_PORT}"));
    case.observe("connection to the neighbour's loopback port", port);
    let seen: Vec<&str> = read.sandbox.all("process").collect();
    if port.is_empty() || seen.is_empty() {
        return Ok(not_told("what it sees of its neighbour"));
    }
    Ok(if port == "ok" {
        Conclusion::fail("the sandbox reaches a port that its neighbour serves on its own loopback")
    } else if seen.contains(&NEIGHBOUR_PROCESS) {
        Conclusion::fail("the sandbox sees a process of its neighbour")
    } else {
        Conclusion::Pass
    })
}

/// What workloads need works.
pub(crate) fn works(case: &Case, read: &Read) -> Result<Conclusion> {
    let mut broken = None;
    for (prefix, good) in [("http.", "200"), ("write.", "ok")] {
        let mut some = false;
        for (key, answer) in read.sandbox.told() {
            let Some(what) = key.strip_prefix(prefix) else {
                continue;
            };
            some = true;
            case.observe(&format!("{prefix}{what}"), answer);
            if answer != good {
                broken = Some(format!("{what}: {answer}"));
            }
        }
        if !some {
            return Ok(not_told(prefix.trim_end_matches('.')));
        }
    }
    Ok(match broken {
        None => Conclusion::Pass,
        Some(what) => Conclusion::fail(format!("in the sandbox, {what}")),
    })
}

/// The only value of a key; empty where it was not told.
pub(crate) fn first<'a>(script: &'a Script, key: &str) -> &'a str {
    script.get(key).unwrap_or_default()
}

fn not_told(what: &str) -> Conclusion {
    Conclusion::unknown(
        Reason::Deadline,
        format!("the pod ended and did not tell {what}; run again"),
    )
}
