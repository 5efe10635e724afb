//! Where there is a device that can be had: by a claim or as a unit of an extended resource, on which node, and which files its
//! devices are.
//!
//! A claim where a driver of the table has a free device, else a unit that a device plugin counts; a setting wins. An extended
//! resource that a DeviceClass names is served by a driver, so no plugin counts it.

use crate::manifest::{leases, settings};
use crate::profile::Profile;
use karat_sdk::build::DraVersion;
use karat_sdk::discovery::Discovery;
use karat_sdk::inventory::devices::{self, Devices};
use karat_sdk::inventory::{self, Node};
use karat_sdk::leases::{self as lease, LeasedNode};
use karat_sdk::{Case, Conclusion, Error, Reason, Result, Value, run};

/// How devices are asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ask {
    /// One device of a driver, by a claim.
    Claim {
        version: DraVersion,
        driver: String,
        class: String,
    },
    /// So many units of an extended resource.
    Units { resource: String, count: u32 },
}

impl Ask {
    /// So many devices are asked for.
    pub(crate) fn count(&self) -> usize {
        match self {
            Ask::Claim { .. } => 1,
            Ask::Units { count, .. } => *count as usize,
        }
    }
}

impl std::fmt::Display for Ask {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Ask::Claim { class, .. } => write!(f, "one device of {class}"),
            Ask::Units { resource, count } => write!(f, "{count} of {resource}"),
        }
    }
}

/// The node, set aside, and what can be asked for there.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) node: String,
    pub(crate) tolerate: Vec<String>,
    pub(crate) profile: Profile,
    /// What the first container asks for.
    pub(crate) first: Ask,
    /// What the second asks for; none where one device is all there is.
    pub(crate) second: Option<Ask>,
    /// Why two units may be one device; none where they must not be.
    pub(crate) shared: Option<&'static str>,
}

/// What the operator said about it.
struct Wish {
    claims: bool,
    units: bool,
    resource: String,
    paths: String,
}

impl Wish {
    fn read() -> Result<Self> {
        let allocation = settings::ALLOCATION.get_or(String::new())?;
        let resource = settings::RESOURCE.get_or(String::new())?;
        Ok(Wish {
            claims: allocation != "device-plugin" && resource.is_empty(),
            units: allocation != "dra" || !resource.is_empty(),
            resource,
            paths: settings::DEVICE_PATHS.get_or(String::new())?,
        })
    }

    /// The extended resources of a node that may be meant.
    fn resources<'a>(&'a self, node: &'a Node) -> impl Iterator<Item = &'a str> {
        let meant = |name: &&str| {
            self.units && (self.resource.is_empty() || *name == self.resource.as_str())
        };
        node.extended_resources().filter(meant)
    }
}

/// What was found on a node, or what keeps it from being used.
enum Found {
    Place(Box<Place>),
    /// A driver or an extended resource that no table knows.
    Unknown(String),
    Nothing,
}

pub(crate) fn find(case: &Case, place: &mut Option<Place>) -> Result<Conclusion> {
    let wish = Wish::read()?;
    let version = DraVersion::newest(&Discovery::read()?)?;
    let read = || match version.filter(|_| wish.claims) {
        Some(version) => devices::read(version, &run::id()),
        None => Ok(Devices::default()),
    };
    let found = read()?;
    case.observe("devices in complete pools", found.all.len());
    if found.all.is_empty() {
        let nodes = inventory::nodes()?;
        if !nodes
            .iter()
            .any(|node| wish.resources(node).next().is_some())
        {
            return Ok(nothing(&wish));
        }
    }
    let taken = lease::acquire_either(&[leases::PAIR], &[leases::SINGLE], lease::TURN);
    let lease = match taken {
        Ok(lease) => lease,
        Err(Error::Unavailable(why)) => {
            return Ok(Conclusion::unknown(
                Reason::InsufficientCapacity,
                format!("no node with a free device can be set aside: {why}"),
            ));
        }
        Err(error) => return Err(error),
    };
    // Others of the run may have had the node until now.
    let found = read()?;
    let nodes = inventory::nodes()?;
    let mut unknown = None;
    for leased in lease.nodes() {
        match look(case, &wish, version, &found, &nodes, leased)? {
            Found::Place(chosen) => {
                *place = Some(*chosen);
                lease.keep();
                return Ok(Conclusion::Pass);
            }
            Found::Unknown(name) => unknown = Some(name),
            Found::Nothing => {}
        }
    }
    Ok(match unknown {
        Some(name) => Conclusion::unknown(
            Reason::UnknownAccelerator,
            format!(
                "{name} is in no table of this probe; say by the setting device-paths what the files of its devices begin with"
            ),
        ),
        None => Conclusion::unknown(
            Reason::InsufficientCapacity,
            "the node that was set aside has no free device of a class that is understood, and no free unit of a device plugin",
        ),
    })
}

fn nothing(wish: &Wish) -> Conclusion {
    let why = if wish.resource.is_empty() {
        "no driver publishes a device, and no usable node has units of a device plugin".to_owned()
    } else {
        format!("no usable node has units of {}", wish.resource)
    };
    Conclusion::unknown(Reason::NoAccelerator, why)
}

/// What one node has.
fn look(
    case: &Case,
    wish: &Wish,
    version: Option<DraVersion>,
    found: &Devices,
    nodes: &[Node],
    leased: &LeasedNode,
) -> Result<Found> {
    let mut unknown = None;
    let mut claim = None;
    let choice = found.choose_on(leased.name(), &run::id());
    let choice = choice.and_then(|choice| Some((choice.fitting.first()?.driver.clone(), choice)));
    if let Some((version, (driver, choice))) = version.zip(choice) {
        match Profile::of_driver(&driver, &wish.paths) {
            Some(profile) => {
                let of_driver = found.usable_on(leased.name());
                let free = of_driver
                    .filter(|device| device.key.driver == driver)
                    .count();
                case.observe("driver", &driver);
                case.observe("class", &choice.class);
                case.observe("free devices of the driver there", free);
                let ask = Ask::Claim {
                    version,
                    driver,
                    class: choice.class,
                };
                claim = Some((ask, free, profile, choice.tolerate));
            }
            None => unknown = Some(format!("driver {driver}")),
        }
    }
    let mut units = Vec::new();
    let node = nodes.iter().find(|node| node.name == leased.name());
    if let Some(node) = node {
        case.observe("kubelet", &node.kubelet);
    }
    if let Some(node) = node.filter(|node| wish.resources(node).next().is_some()) {
        let served = match version {
            Some(version) => devices::extended_resources(version)?,
            None => Vec::new(),
        };
        let pods = inventory::pods_on(&node.name)?;
        for resource in wish.resources(node) {
            if served.iter().any(|name| name == resource) {
                case.observe("served by a DeviceClass", resource);
                continue;
            }
            let free = inventory::free(node, &pods, resource) / 1000;
            let free = u32::try_from(free).unwrap_or(u32::MAX);
            match Profile::of_resource(resource, &wish.paths) {
                Some(profile) if free > 0 => {
                    case.observe(&format!("free units of {resource}"), free);
                    units.push((resource, free, profile, sharing(&node.labels, resource)));
                }
                Some(_) => {}
                None => unknown = unknown.or(Some(format!("resource {resource}"))),
            }
        }
    }
    let place = match (claim, units.first()) {
        (Some((first, free, profile, tolerate)), _) => {
            // Driver and plugin may both give out the same hardware, and neither knows of the other: then all units are looked at. That
            // units share devices among themselves is no excuse for sharing with a claim.
            let mut others = units.iter().map(|(resource, count, theirs, shared)| {
                let count = if shared.is_some() { 1 } else { *count };
                (*resource, count, theirs)
            });
            let second = match others
                .find(|(name, _, theirs)| of_one_vendor(&first, &profile, name, theirs))
            {
                Some((resource, count, _)) => Some(Ask::Units {
                    resource: resource.to_owned(),
                    count,
                }),
                None if free > 1 => Some(first.clone()),
                None => None,
            };
            (first, second, profile, tolerate, None)
        }
        (None, Some((resource, free, profile, shared))) => {
            case.observe("resource", resource);
            let first = Ask::Units {
                resource: (*resource).to_owned(),
                count: 1,
            };
            let second = (*free > 1).then(|| first.clone());
            let taints = leased.taints().to_vec();
            (first, second, profile.clone(), taints, *shared)
        }
        (None, None) => return Ok(unknown.map_or(Found::Nothing, Found::Unknown)),
    };
    let (first, second, profile, tolerate, shared) = place;
    case.observe("node", leased.name());
    case.observe("files of devices", profile.counted.join(", "));
    Ok(Found::Place(Box::new(Place {
        node: leased.name().to_owned(),
        tolerate,
        profile,
        first,
        second,
        shared,
    })))
}

/// Whether a driver and a device plugin may give out the same hardware: one row of the table, or the driver's name in the domain of
/// the resource.
fn of_one_vendor(claim: &Ask, profile: &Profile, resource: &str, theirs: &Profile) -> bool {
    let Ask::Claim { driver, .. } = claim else {
        return false;
    };
    if profile.vendor.is_empty() && theirs.vendor.is_empty() {
        let domain = resource.split('/').next().unwrap_or_default();
        let above = driver.strip_suffix(domain);
        return above.is_some_and(|above| above.is_empty() || above.ends_with('.'));
    }
    profile.vendor == theirs.vendor
}

/// Why two units of a resource may be one device: its name, or the node's label, says so.
fn sharing(labels: &Value, resource: &str) -> Option<&'static str> {
    let strategy = || labels["nvidia.com/gpu.sharing-strategy"].as_str();
    if resource.ends_with(".shared") {
        Some("the name of the resource says that units share devices")
    } else if resource.starts_with("nvidia.com/mig-") || resource == "aws.amazon.com/neuroncore" {
        Some("units are parts of a device")
    } else if resource.starts_with("nvidia.com/")
        && matches!(strategy(), Some("time-slicing" | "mps"))
    {
        Some("a label of the node says that units share devices")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use karat_sdk::json;

    #[test]
    fn a_driver_and_a_plugin_of_one_vendor_are_known_by_table_or_domain() {
        let same = |driver: &str, resource: &str| {
            let claim = Ask::Claim {
                version: DraVersion::V1,
                driver: driver.to_owned(),
                class: "any".to_owned(),
            };
            let ours = Profile::of_driver(driver, "/dev/x").unwrap();
            let theirs = Profile::of_resource(resource, "/dev/x").unwrap();
            of_one_vendor(&claim, &ours, resource, &theirs)
        };
        assert!(same("gpu.nvidia.com", "nvidia.com/gpu"));
        assert!(same("neuron.aws.com", "aws.amazon.com/neurondevice"));
        assert!(same("gpu.vendor.example", "vendor.example/gpu"));
        assert!(!same("gpu.nvidia.com", "amd.com/gpu"));
        assert!(!same("gpu.nvidia.com", "vendor.example/gpu"));
        assert!(!same("gpu.vendor.example", "rdma/hca"));
        assert!(!same("gpuvendor.example", "vendor.example/gpu"));
    }

    #[test]
    fn units_share_a_device_only_where_that_is_said() {
        let said = |strategy: &str, resource: &str| {
            let labels = json!({"nvidia.com/gpu.sharing-strategy": strategy});
            sharing(&labels, resource).is_some()
        };
        assert!(said("time-slicing", "nvidia.com/gpu"));
        assert!(said("mps", "nvidia.com/gpu"));
        assert!(!said("none", "nvidia.com/gpu"));
        assert!(!said("time-slicing", "amd.com/gpu"));
        for parts in [
            "nvidia.com/gpu.shared",
            "nvidia.com/mig-1g.10gb",
            "aws.amazon.com/neuroncore",
        ] {
            assert!(said("none", parts), "{parts}");
        }
        assert!(sharing(&Value::Null, "aws.amazon.com/neuron").is_none());
    }
}
