//! The networks of one laboratory with real nodes: a bridge on the host, and what leads from it into the nodes.
//!
//! Number `n` of a laboratory gives it 10.188.n.0/24 (bridge and nodes), 10.189.8n.0/21 (pods, a /24 for each node) and
//! 10.190.n.0/24 (services). The host has routes to all three, so the API server and tests reach pods and services
//! directly. Nothing leads out: no node has a default route, and no address is translated.
//!
//! A number is held by an abstract Unix socket, which the kernel frees with its last holder. The janitor is one of the
//! holders, so a number is not given away while somebody still cleans it.

use std::io::Write as _;
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::Path;
use std::process::{Command, Stdio};

use super::needs::program;
use crate::error::{Result, TestbedError};
use crate::supervise::describe;

/// Laboratories with real nodes at one time. 10.189 has room for 32 with eight nodes each.
const NUMBERS: u8 = 32;

/// A number that this process holds, and the names and addresses that follow from it.
#[derive(Debug)]
pub(crate) struct Net {
    number: u8,
    claim: UnixListener,
}

impl Net {
    /// Takes the first number that nobody holds and whose addresses this machine does not use.
    pub(crate) fn claim() -> Result<Self> {
        sweep();
        let used = routes("/proc/net/route");
        for number in 0..NUMBERS {
            let Some(claim) = hold(number) else { continue };
            let net = Self { number, claim };
            if !used.iter().any(|route| net.overlaps(*route)) {
                return Ok(net);
            }
        }
        Err(TestbedError::CannotRun {
            what: "real nodes".into(),
            cause: format!(
                "all {NUMBERS} networks below 10.188, 10.189 and 10.190 are in use on this machine"
            ),
            hint: "take other laboratories down, or the routes that overlap".into(),
        })
    }

    /// Another handle of the claim, for the process that cleans up.
    pub(crate) fn share(&self) -> Result<OwnedFd> {
        self.claim
            .try_clone()
            .map(OwnedFd::from)
            .map_err(TestbedError::io("claim of a network"))
    }

    /// The interface on the host to which all nodes are connected.
    pub(crate) fn bridge(&self) -> String {
        format!("{BRIDGE}{}", self.number)
    }

    /// Begin of the names of the nodes' cgroups; the node's index follows.
    pub(crate) fn cgroups(&self) -> String {
        format!("{CGROUP}{}-", self.number)
    }

    /// Begin of the names of the host's ends of the links to the nodes; the node's index follows.
    pub(crate) fn links(&self) -> String {
        format!("{LINK}{}-", self.number)
    }

    /// The host's address, on which the API server listens.
    pub(crate) fn host(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, 188, self.number, 1)
    }

    pub(crate) fn node(&self, index: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 188, self.number, 2 + index)
    }

    /// First address of a node's pod network; its bridge has it, and the node's DNS server listens there.
    pub(crate) fn pods(&self, index: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 189, self.number * 8 + index, 1)
    }

    pub(crate) fn pod_range(&self, index: u8) -> String {
        format!("10.189.{}.0/24", self.number * 8 + index)
    }

    /// The pod networks of all nodes.
    pub(crate) fn all_pods(&self) -> String {
        format!("10.189.{}.0/21", self.number * 8)
    }

    /// The address that the Service `kubernetes` gets.
    pub(crate) fn first_service(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, 190, self.number, 1)
    }

    pub(crate) fn services(&self) -> String {
        format!("10.190.{}.0/24", self.number)
    }

    fn overlaps(&self, (address, mask): (u32, u32)) -> bool {
        let ours = [
            (self.host(), 24),
            (self.pods(0), 21),
            (self.first_service(), 24),
        ];
        ours.iter().any(|(ip, bits)| {
            let both = mask & (u32::MAX << (32 - bits));
            u32::from(*ip) & both == address & both
        })
    }

    /// Makes the bridge. The API server can listen on it before any node is there.
    pub(crate) fn up(&self) -> Result<()> {
        let bridge = self.bridge();
        ip(&format!(
            "link add {bridge} type bridge\naddress add {}/24 dev {bridge}\nlink set {bridge} up\n",
            self.host()
        ))
    }

    /// Connects the network namespace of a process as node `index`. The kernel undoes it when the namespace ends.
    pub(crate) fn attach(&self, index: u8, pid: u32) -> Result<()> {
        let link = format!("{}{index}", self.links());
        let mut batch = format!(
            "link add {link} type veth peer name eth0 netns {pid}\nlink set {link} master {bridge}\nlink set {link} up\nroute add {pods} via {node} dev {bridge}\n",
            bridge = self.bridge(),
            pods = self.pod_range(index),
            node = self.node(index),
        );
        if index == 0 {
            batch.push_str(&format!(
                "route add {} via {} dev {}\n",
                self.services(),
                self.node(0),
                self.bridge()
            ));
        }
        ip(&batch)
    }

    /// What the node itself has to do, as input of `ip -batch`, once its `eth0` is there.
    pub(crate) fn inside(&self, index: u8, nodes: u8) -> String {
        let mut batch = format!(
            "link set lo up\naddress add {}/24 dev eth0\nlink set eth0 up\nlink add cni0 type bridge\naddress add {}/24 dev cni0\nlink set cni0 up\n",
            self.node(index),
            self.pods(index)
        );
        for other in (0..nodes).filter(|other| *other != index) {
            batch.push_str(&format!(
                "route add {} via {}\n",
                self.pod_range(other),
                self.node(other)
            ));
        }
        batch
    }
}

const BRIDGE: &str = "ktb";
const LINK: &str = "kv";
const CGROUP: &str = "karat-tb";

fn hold(number: u8) -> Option<UnixListener> {
    let name = format!("karat-testbed-net-{number}");
    let address = SocketAddr::from_abstract_name(name.as_bytes()).ok()?;
    UnixListener::bind_addr(&address).ok()
}

/// Removes bridges, links and cgroups that belong to nobody: owner and janitor of their laboratory were both killed.
pub(crate) fn sweep() {
    let mut numbers: Vec<u8> = names("/sys/class/net")
        .iter()
        .filter_map(|name| {
            let link = || name.strip_prefix(LINK)?.split_once('-').map(|(n, _)| n);
            name.strip_prefix(BRIDGE).or_else(link)?.parse().ok()
        })
        .collect();
    let hierarchies = names("/sys/fs/cgroup");
    let below = hierarchies
        .iter()
        .flat_map(|name| names(&format!("/sys/fs/cgroup/{name}")));
    numbers.extend(hierarchies.iter().cloned().chain(below).filter_map(|name| {
        name.strip_prefix(CGROUP)?
            .split_once('-')?
            .0
            .parse::<u8>()
            .ok()
    }));
    numbers.sort_unstable();
    numbers.dedup();
    for number in numbers.into_iter().filter(|n| *n < NUMBERS) {
        if let Some(claim) = hold(number) {
            let net = Net { number, claim };
            crate::supervise::clean(None, Some(&net));
        }
    }
}

fn names(dir: &str) -> Vec<String> {
    std::fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect()
}

/// Destination and mask of every IPv4 route but the default one.
fn routes(table: impl AsRef<Path>) -> Vec<(u32, u32)> {
    let text = std::fs::read_to_string(table).unwrap_or_default();
    text.lines()
        .skip(1)
        .filter_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let number = |i: usize| {
                u32::from_str_radix(fields.get(i)?, 16)
                    .ok()
                    .map(u32::swap_bytes)
            };
            Some((number(1)?, number(7)?)).filter(|(_, mask)| *mask != 0)
        })
        .collect()
}

/// Runs several `ip` commands in one process; the first that fails ends it.
fn ip(batch: &str) -> Result<()> {
    let path = program("ip").unwrap_or_else(|| "ip".into());
    let spawn = |source| TestbedError::Spawn {
        program: path.clone(),
        source,
    };
    let mut child = Command::new(&path)
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(spawn)?;
    if let Some(mut input) = child.stdin.take() {
        // A command that ended early says on its standard error why.
        let _ = input.write_all(batch.as_bytes());
    }
    let output = child.wait_with_output().map_err(spawn)?;
    if output.status.success() {
        return Ok(());
    }
    Err(TestbedError::Failed {
        what: "ip -batch".into(),
        status: describe(output.status),
        tail: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(number: u8) -> Net {
        let name = format!("karat-testbed-test-{}-{number}", std::process::id());
        let address = SocketAddr::from_abstract_name(name.as_bytes()).unwrap();
        Net {
            number,
            claim: UnixListener::bind_addr(&address).unwrap(),
        }
    }

    #[test]
    fn the_last_number_stays_inside_its_networks() {
        let last = net(NUMBERS - 1);
        assert_eq!(last.pods(7), Ipv4Addr::new(10, 189, 255, 1));
        assert_eq!(last.all_pods(), "10.189.248.0/21");
    }

    #[test]
    fn names_of_interfaces_fit_the_kernel() {
        assert!(net(NUMBERS - 2).bridge().len() < 16);
        assert!(format!("{}7", net(NUMBERS - 1).links()).len() < 16);
    }

    #[test]
    fn routes_of_others_are_seen_and_the_default_route_is_not() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(
            file.path(),
            "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\n\
             eth0\t00000000\t0102000A\t0003\t0\t0\t0\t00000000\n\
             cbr0\t0004BD0A\t00000000\t0001\t0\t0\t0\t00FFFFFF\n",
        )
        .unwrap();
        let seen = routes(file.path());
        assert_eq!(
            seen,
            [(u32::from(Ipv4Addr::new(10, 189, 4, 0)), 0xFFFF_FF00)]
        );
        assert!(net(0).overlaps(seen[0]));
        assert!(!net(1).overlaps(seen[0]));
    }

    #[test]
    fn a_number_is_free_again_when_its_last_holder_is_gone() {
        // Far from those that laboratories take.
        let first = hold(200).unwrap();
        let second = first.try_clone().unwrap();
        drop(first);
        assert!(hold(200).is_none());
        drop(second);
        assert!(hold(200).is_some());
    }
}
