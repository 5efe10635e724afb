//! Which node, and what its pods will compete for.
//!
//! Units of a device plugin where there are any. A driver's devices alone will not do: the scheduler of Kubernetes 1.37 says
//! "preemption is not helpful" to a pod that lacks only a device. There, and without accelerators, the pods compete for CPU; with a
//! driver each of those that may give way holds a device as well.

use karat_sdk::build::DraVersion;
use karat_sdk::discovery::Discovery;
use karat_sdk::inventory::devices::{self, Choice, Devices};
use karat_sdk::inventory::{self, Node};
use karat_sdk::leases::{self, Lease};
use karat_sdk::{Case, Conclusion, Object, Query, Reason, Result, run};

/// Most pods that fill the room.
const MOST: u64 = 4;
/// CPU that stays free, in thousandths, for a last small pod that looks for the device.
const REST: u64 = 200;
/// Least share of CPU, in thousandths: well above the rest, so that nothing fits into what stays free.
const LEAST_SHARE: u64 = 500;
/// Below this, others could be victims of this probe.
pub(crate) const FLOOR: i64 = -900;

/// What the pods compete for.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Unit {
    /// An extended resource of a device plugin.
    Extended(String),
    /// CPU.
    Cpu,
}

/// Devices of a driver on the node, each with how to ask for it.
#[derive(Debug)]
pub(crate) struct DeviceRoom {
    pub(crate) version: DraVersion,
    pub(crate) choices: Vec<Choice>,
}

/// A node with room.
#[derive(Debug)]
pub(crate) struct Room {
    pub(crate) node: Node,
    pub(crate) unit: Unit,
    /// What each pod takes: units, or thousandths of CPU.
    pub(crate) shares: Vec<u64>,
    pub(crate) devices: Option<DeviceRoom>,
    /// uids of the pods that were on the node before.
    pub(crate) before: Vec<String>,
}

impl Room {
    /// The smallest share: what the pod of high priority asks for, so that one victim makes room for it.
    pub(crate) fn asked(&self) -> u64 {
        self.shares.iter().copied().min().unwrap_or(1)
    }

    fn resource(&self) -> &str {
        match &self.unit {
            Unit::Extended(name) => name,
            Unit::Cpu => "cpu",
        }
    }

    /// What somebody else did to the node since it was chosen; none when it is as it was, apart from this run's own pods.
    pub(crate) fn disturbed(&self, namespace: &str) -> Result<Option<String>> {
        let nodes = inventory::nodes()?;
        let Some(now) = nodes.iter().find(|node| node.name == self.node.name) else {
            return Ok(Some(
                "the node is not Ready or not schedulable any more".into(),
            ));
        };
        if now.taints.iter().any(|key| !self.node.taints.contains(key)) {
            return Ok(Some(format!(
                "the node has new taints: {}",
                now.taints.join(", ")
            )));
        }
        let resource = self.resource();
        if now.allocatable(resource) < self.node.allocatable(resource) {
            return Ok(Some(format!("the node has less {resource} than before")));
        }
        let mut others = inventory::pods_on(&self.node.name)?;
        let nominated = Query::new("v1", "pods")
            .fields(format!("status.nominatedNodeName={}", self.node.name))
            .keep(&["/spec/nodeName", "/status/phase"])
            .list()?;
        others.extend(nominated);
        let foreign = |pod: &&Object| {
            pod.namespace() != namespace && !self.before.iter().any(|uid| uid == pod.uid())
        };
        let came = others.iter().filter(foreign).count();
        Ok((came > 0).then(|| format!("{came} pods of others came to the node meanwhile")))
    }
}

/// A node as it could be used, best first: devices of a plugin, devices of a driver, CPU.
struct Offer {
    node: Node,
    unit: Unit,
    free: u64,
    devices: usize,
    before: Vec<Object>,
}

impl Offer {
    fn rank(&self) -> (bool, usize) {
        (
            matches!(self.unit, Unit::Extended(_)),
            self.devices.min(MOST as usize),
        )
    }
}

/// A node with an accelerator where there is one, else any.
fn lease() -> Result<Lease> {
    use crate::manifest::leases::{ACCELERATORS, ANY_NODE, ORDER};
    leases::acquire_either(&[ACCELERATORS, ORDER], &[ANY_NODE, ORDER], leases::TURN)
}

/// Looks for a node.
pub(crate) fn find(case: &Case, found: &mut Option<Room>) -> Result<Conclusion> {
    let lease = lease()?;
    let discovery = Discovery::read()?;
    let mut served_by_dra = Vec::new();
    let mut devices = None;
    if let Some(version) = DraVersion::newest(&discovery)? {
        served_by_dra = devices::extended_resources(version)?;
        let read = devices::read(version, &run::id())?;
        devices = (!read.is_truncated()).then_some((version, read));
    }
    let nodes = inventory::nodes()?;
    case.observe("nodes that a pod could use", nodes.len());
    let mut best: Option<Offer> = None;
    let mut low = 0;
    let leased = |node: &&Node| lease.has(&node.name);
    for node in nodes.iter().filter(leased) {
        let before = inventory::pods_on(&node.name)?;
        if before
            .iter()
            .any(|pod| pod.at("/spec/priority").as_i64().unwrap_or(0) < FLOOR)
        {
            low += 1;
            continue;
        }
        let extended = node
            .extended_resources()
            .filter(|name| !served_by_dra.iter().any(|served| served == name))
            .map(|name| (name, inventory::free(node, &before, name) / 1000))
            .find(|(_, free)| *free > 0);
        let usable = devices
            .as_ref()
            .map_or(0, |(_, found)| found.usable_on(&node.name).count());
        let (unit, free) = match extended {
            Some((name, free)) => (Unit::Extended(name.to_owned()), free),
            None => (Unit::Cpu, inventory::free(node, &before, "cpu")),
        };
        if unit == Unit::Cpu && free < REST + LEAST_SHARE {
            continue;
        }
        let offer = Offer {
            node: node.clone(),
            unit,
            free,
            devices: usable,
            before,
        };
        if best.as_ref().is_none_or(|best| offer.rank() > best.rank()) {
            best = Some(offer);
        }
    }
    let Some(offer) = best else {
        return Ok(Conclusion::unknown(
            Reason::InsufficientCapacity,
            if low > 0 {
                format!(
                    "{low} leased nodes have pods of a priority below {FLOOR}, which this probe could displace"
                )
            } else {
                "the leased node has neither a free unit nor 0.7 CPU; free one".to_owned()
            },
        ));
    };
    let choices: Vec<Choice> = devices
        .iter()
        .flat_map(|(_, found)| asked_on(&offer.node, found))
        .collect();
    let devices = devices.filter(|_| offer.unit == Unit::Cpu && !choices.is_empty());
    let devices = devices.map(|(version, _)| DeviceRoom { version, choices });
    let room = divide(offer, devices);
    case.observe("node", &room.node.name);
    case.observe("uid of the node", &room.node.uid);
    case.observe("competed for", room.resource());
    case.observe("allocatable", room.node.allocatable(room.resource()) / 1000);
    case.observe("pods to fill it", room.shares.len());
    case.observe("share of each", room.asked());
    lease.keep();
    *found = Some(room);
    Ok(Conclusion::Pass)
}

/// How to ask for each of at most three devices of a node.
fn asked_on(node: &Node, found: &Devices) -> Vec<Choice> {
    let devices = found.usable_on(&node.name);
    let choices = devices.filter_map(|device| found.ask_for(device, &run::id()));
    choices.take(MOST as usize - 1).collect()
}

/// Shares the free units among at most four pods, all of it for units, nearly all of it for CPU. With devices there is one pod for
/// each, and one without that has as high a priority as the one to come.
fn divide(offer: Offer, devices: Option<DeviceRoom>) -> Room {
    let Offer {
        node,
        unit,
        free,
        before,
        ..
    } = offer;
    let shares = match &unit {
        Unit::Extended(_) => {
            let pods = free.min(MOST);
            (0..pods)
                .map(|at| free / pods + u64::from(at < free % pods))
                .collect()
        }
        Unit::Cpu => {
            let room = free - REST;
            let most = devices
                .as_ref()
                .map_or(MOST, |devices| devices.choices.len() as u64 + 1);
            let pods = (room / LEAST_SHARE).clamp(1, most);
            vec![room / pods; pods as usize]
        }
    };
    Room {
        node,
        unit,
        shares,
        devices,
        before: before.iter().map(|pod| pod.uid().to_owned()).collect(),
    }
}
