//! Which unit is taken and given back, and how many are free.
//!
//! A device of a driver where one can be asked for, else a unit of a device plugin. A unit that is missing is somebody else's
//! doing only if somebody else holds it now; everything else is a loss.

use karat_sdk::build::{DraVersion, PodBuilder};
use karat_sdk::discovery::Discovery;
use karat_sdk::inventory::devices::{self, Choice, Devices, Key};
use karat_sdk::inventory::{self, Node};
use karat_sdk::leases;
use karat_sdk::{Case, Conclusion, Error, Object, Query, Reason, Result, Target, json, run};

/// Name of the template that asks for the device.
const TEMPLATE: &str = "unit";

/// What is taken and given back.
#[derive(Debug)]
pub(crate) enum Unit {
    /// A device of a driver; `free` are the devices of the node that were free at first.
    Device {
        version: DraVersion,
        choice: Choice,
        free: Vec<Key>,
    },
    /// Units of a device plugin, of which so many were free at first.
    Extended { resource: String, free: u64 },
}

/// A node with a free unit, and what was counted there at first.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) node: Node,
    pub(crate) namespace: String,
    pub(crate) unit: Unit,
    /// Units that others held at first.
    theirs: u64,
}

/// How the count stands.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Count {
    /// As many as at first.
    Whole,
    /// Somebody else took what is missing.
    Taken(String),
    /// Something is missing.
    Missing(String),
}

impl Place {
    pub(crate) fn device(&self) -> Option<(DraVersion, &Choice)> {
        match &self.unit {
            Unit::Device {
                version, choice, ..
            } => Some((*version, choice)),
            Unit::Extended { .. } => None,
        }
    }

    pub(crate) fn pods(&self) -> Target {
        Target::new("v1", "pods").in_namespace(&self.namespace)
    }

    /// The claims of the sandbox; none without a driver.
    pub(crate) fn claims(&self) -> Option<Query> {
        let (version, _) = self.device()?;
        Some(Query::new(&version.api_version(), "resourceclaims").in_namespace(&self.namespace))
    }

    /// A pod on the node, without a unit.
    pub(crate) fn pod(&self, name: &str) -> Result<PodBuilder> {
        Ok(PodBuilder::tool(name, &run::image(crate::manifest::images::PAUSE)?).on(&self.node))
    }

    /// Gives a pod one unit.
    pub(crate) fn with_unit(&self, pod: PodBuilder) -> PodBuilder {
        match &self.unit {
            Unit::Device { .. } => pod.claim_template(&run::name(TEMPLATE)),
            Unit::Extended { resource, .. } => pod.extended_resource(resource, 1),
        }
    }

    /// Gives a pod what shows that nothing is lost: the same device, or all units that were free.
    pub(crate) fn with_all(&self, pod: PodBuilder) -> PodBuilder {
        match &self.unit {
            Unit::Device { .. } => self.with_unit(pod),
            Unit::Extended { resource, free } => {
                pod.extended_resource(resource, u32::try_from(*free).unwrap_or(u32::MAX))
            }
        }
    }

    /// Counts again.
    pub(crate) fn count(&self) -> Result<Count> {
        match &self.unit {
            Unit::Device { version, free, .. } => self.count_devices(*version, free),
            Unit::Extended { resource, free } => self.count_units(resource, *free),
        }
    }

    fn count_devices(&self, version: DraVersion, free: &[Key]) -> Result<Count> {
        let now = devices::read(version, &run::id())?;
        let usable: Vec<&Key> = now
            .usable_on(&self.node.name)
            .map(|device| &device.key)
            .collect();
        let Some(lost) = free.iter().find(|key| !usable.contains(key)) else {
            return Ok(Count::Whole);
        };
        let holders = holders(version, lost)?;
        let theirs = holders
            .iter()
            .filter(|claim| claim.namespace() != self.namespace)
            .count();
        Ok(if theirs > 0 {
            Count::Taken(format!("{lost} is held by {theirs} claims of others now"))
        } else if let Some(claim) = holders.first() {
            Count::Missing(format!("{lost} is still held by {claim}"))
        } else if now.has(lost) {
            Count::Missing(format!("{lost} is held by nobody, and no pod could get it"))
        } else {
            Count::Missing(format!("{lost} is not published any more"))
        })
    }

    fn count_units(&self, resource: &str, free: u64) -> Result<Count> {
        let nodes = inventory::nodes()?;
        let Some(node) = nodes.iter().find(|node| node.name == self.node.name) else {
            return Ok(Count::Taken(
                "the node is not Ready or not schedulable any more".into(),
            ));
        };
        let pods = inventory::pods_on(&node.name)?;
        let now = inventory::free(node, &pods, resource) / 1000;
        if now >= free {
            return Ok(Count::Whole);
        }
        let theirs = held_by_others(&pods, resource, &self.namespace);
        Ok(if theirs > self.theirs {
            Count::Taken(format!(
                "others hold {theirs} units now, and held {}",
                self.theirs
            ))
        } else {
            Count::Missing(format!(
                "{now} units of {resource} are free, and {free} were; {} of {} are there for pods",
                node.allocatable(resource) / 1000,
                self.node.allocatable(resource) / 1000
            ))
        })
    }

    /// Who has more than there is: a device that two claims hold, or more units than the node has.
    pub(crate) fn double_booked(&self, held: Option<&Key>) -> Result<Option<String>> {
        match &self.unit {
            Unit::Device { version, .. } => {
                let Some(key) = held else {
                    return Ok(None);
                };
                let holders = holders(*version, key)?;
                Ok((holders.len() > 1)
                    .then(|| format!("{key} is allocated to {} claims at once", holders.len())))
            }
            Unit::Extended { resource, .. } => {
                let pods = inventory::pods_on(&self.node.name)?;
                let taken: u64 = pods
                    .iter()
                    .map(|pod| inventory::requested(pod, resource))
                    .sum();
                let has = self.node.allocatable(resource);
                Ok((taken > has).then(|| {
                    format!(
                        "pods hold {} units of {resource}, and the node has {}",
                        taken / 1000,
                        has / 1000
                    )
                }))
            }
        }
    }
}

/// The claims to which a device is allocated, anywhere.
fn holders(version: DraVersion, key: &Key) -> Result<Vec<Object>> {
    let claims = Query::new(&version.api_version(), "resourceclaims")
        .keep(&["/status/allocation/devices/results"])
        .list()?;
    Ok(claims
        .into_iter()
        .filter(|claim| devices::allocated(claim).contains(key))
        .collect())
}

fn held_by_others(pods: &[Object], resource: &str, namespace: &str) -> u64 {
    let theirs = pods.iter().filter(|pod| pod.namespace() != namespace);
    theirs
        .map(|pod| inventory::requested(pod, resource))
        .sum::<u64>()
        / 1000
}

/// Looks for a unit, counts, and makes the template for it.
pub(crate) fn find(case: &Case, namespace: &str, found: &mut Option<Place>) -> Result<Conclusion> {
    // Without a lease the rest only says why there is none.
    let mut lease = match leases::acquire(&[crate::manifest::leases::UNIT], leases::TURN) {
        Ok(lease) => Some(lease),
        Err(Error::Unavailable(_)) => None,
        Err(error) => return Err(error),
    };
    let mut nodes = inventory::nodes()?;
    case.observe("nodes that a pod could use", nodes.len());
    if let Some(lease) = &lease {
        nodes.retain(|node| lease.has(&node.name));
    }
    let discovery = Discovery::read()?;
    let mut exists = false;
    let mut not_understood = false;
    let mut served_by_dra = Vec::new();
    if let Some(version) = DraVersion::newest(&discovery)? {
        let read = devices::read(version, &run::id())?;
        exists = !read.all.is_empty();
        not_understood = read.usable().next().is_some();
        if let Some((node, choice)) = choose(&nodes, &read).filter(|_| lease.is_some())
            && let Some(lease) = lease.take()
        {
            let free: Vec<Key> = read
                .usable_on(&node.name)
                .map(|device| device.key.clone())
                .collect();
            choice.create_template(version, namespace, &run::name(TEMPLATE))?;
            case.observe("node", &node.name);
            case.observe("uid of the node", &node.uid);
            case.observe("class", &choice.class);
            case.observe("selector", &choice.expression);
            case.observe("free devices", free.len());
            lease.keep();
            *found = Some(Place {
                node: node.clone(),
                namespace: namespace.to_owned(),
                unit: Unit::Device {
                    version,
                    choice,
                    free,
                },
                theirs: 0,
            });
            return Ok(Conclusion::Pass);
        }
        served_by_dra = devices::extended_resources(version)?;
    }
    for node in nodes
        .iter()
        .filter(|node| node.extended_resources().next().is_some())
        .take(8)
    {
        let pods = inventory::pods_on(&node.name)?;
        for resource in node
            .extended_resources()
            .filter(|name| !served_by_dra.iter().any(|served| served == name))
        {
            exists = true;
            let free = inventory::free(node, &pods, resource) / 1000;
            let Some(lease) = lease.take_if(|_| free > 0) else {
                continue;
            };
            case.observe("node", &node.name);
            case.observe("uid of the node", &node.uid);
            case.observe("resource", resource);
            case.observe("free units", free);
            lease.keep();
            *found = Some(Place {
                node: node.clone(),
                namespace: namespace.to_owned(),
                theirs: held_by_others(&pods, resource, namespace),
                unit: Unit::Extended {
                    resource: resource.to_owned(),
                    free,
                },
            });
            return Ok(Conclusion::Pass);
        }
    }
    Ok(if not_understood {
        Conclusion::unknown(
            Reason::UnknownAccelerator,
            "devices are free, and no DeviceClass whose expression this probe understands selects one of a single node",
        )
    } else if exists {
        Conclusion::unknown(
            Reason::InsufficientCapacity,
            "every accelerator is taken, tainted or on a node that is not usable; free one",
        )
    } else {
        Conclusion::unknown(
            Reason::NoAccelerator,
            "no node has an accelerator that a driver or a device plugin publishes",
        )
    })
}

/// The first node with a device that can be asked for.
fn choose<'a>(nodes: &'a [Node], read: &Devices) -> Option<(&'a Node, Choice)> {
    if read.is_truncated() {
        return None;
    }
    nodes
        .iter()
        .find_map(|node| Some((node, read.choose_on(&node.name, &run::id())?)))
}

/// A Job that runs a pod once.
pub(crate) fn job(name: &str, pod: &karat_sdk::Value) -> karat_sdk::Value {
    json!({
        "apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name},
        "spec": {"backoffLimit": 0, "template": {"spec": pod["spec"]}},
    })
}
