//! Which units the pods get: two devices of a driver, or two units of a device plugin, on nodes that are leased. And who holds them.

use crate::manifest::leases::{PAIR, SPREAD};
use crate::steps::Lab;
use karat_sdk::build::{ClaimSpec, DraVersion, PodBuilder, claim_template};
use karat_sdk::discovery::Discovery;
use karat_sdk::inventory;
use karat_sdk::inventory::devices::{self, Key};
use karat_sdk::leases::{self, LeasedNode};
use karat_sdk::{Case, Conclusion, Error, Object, Query, Reason, Result, Target, run, wait};
use std::time::Duration;

/// Name of the template that asks for one device.
const TEMPLATE: &str = "unit";
/// Pods of which each has a unit, at most.
pub(crate) const MOST: u64 = 2;
/// How long the unit of a pod that went may take to be free.
const RELEASE: Duration = Duration::from_secs(60);
/// How often that is looked at.
const LOOK: Duration = Duration::from_secs(2);

/// What a pod holds.
enum Unit {
    /// A device of this class.
    Device { version: DraVersion, class: String },
    /// A unit of a device plugin.
    Extended { resource: String },
}

/// Nodes that are held, and what is asked for there.
pub(crate) struct Place {
    nodes: Vec<LeasedNode>,
    namespace: String,
    unit: Unit,
    /// Units that were free at first.
    free: u64,
}

/// Takes the units, and makes the template for them.
pub(crate) fn find(case: &Case, namespace: &str, found: &mut Option<Place>) -> Result<Conclusion> {
    let lease = match leases::acquire_either(&[PAIR], &[SPREAD], leases::TURN) {
        Ok(lease) => lease,
        Err(Error::Unavailable(why)) => return none(&why),
        Err(error) => return Err(error),
    };
    let kind = lease.nodes().first().and_then(|node| node.units().first());
    let Some((kind, _)) = kind.cloned() else {
        return Ok(Conclusion::unknown(
            Reason::InsufficientCapacity,
            "a lease without units was given",
        ));
    };
    let unit = if inventory::is_extended(&kind) {
        Unit::Extended { resource: kind }
    } else {
        let Some(version) = DraVersion::newest(&Discovery::read()?)? else {
            return Ok(Conclusion::unknown(
                Reason::NoAccelerator,
                "dynamic resource allocation is not served any more",
            ));
        };
        let names: Vec<&str> = lease.nodes().iter().map(LeasedNode::name).collect();
        let read = devices::read(version, &run::id())?;
        let enough = read
            .most_of_one_class(&names)
            .filter(|(_, counts)| counts.iter().sum::<u64>() >= MOST);
        let Some((class, _)) = enough else {
            return Ok(Conclusion::unknown(
                Reason::UnknownAccelerator,
                "devices are free, and no DeviceClass whose expression this probe understands selects two of them",
            ));
        };
        case.observe("class", &class);
        Target::new(&version.api_version(), "resourceclaimtemplates")
            .in_namespace(namespace)
            .create(&claim_template(
                version,
                &run::name(TEMPLATE),
                &ClaimSpec::new(&class),
            ))?;
        Unit::Device { version, class }
    };
    let mut place = Place {
        nodes: lease.nodes().to_vec(),
        namespace: namespace.to_owned(),
        unit,
        free: 0,
    };
    place.free = place.free()?;
    if let Unit::Extended { resource } = &place.unit {
        case.observe("resource", resource);
    }
    for node in inventory::nodes()? {
        if place.has(&node.name) {
            case.observe("node", &node.name);
            case.observe("uid of the node", &node.uid);
        }
    }
    case.observe("free units there", place.free);
    lease.keep();
    *found = Some(place);
    Ok(Conclusion::Pass)
}

/// Why there are no two units: nothing at all, or nothing free.
fn none(why: &str) -> Result<Conclusion> {
    let mut exists = inventory::nodes()?
        .iter()
        .any(|node| node.extended_resources().next().is_some());
    if let Some(version) = DraVersion::newest(&Discovery::read()?)? {
        exists |= !devices::read(version, &run::id())?.all.is_empty();
    }
    Ok(if exists {
        Conclusion::unknown(
            Reason::InsufficientCapacity,
            format!("two free units of an accelerator, where containers run, are needed: {why}"),
        )
    } else {
        Conclusion::unknown(
            Reason::NoAccelerator,
            "no node has an accelerator that a driver or a device plugin publishes",
        )
    })
}

impl Place {
    /// Whether a node is one of those that are held.
    pub(crate) fn has(&self, node: &str) -> bool {
        self.nodes.iter().any(|one| one.name() == node)
    }

    /// Gives a pod one unit, and keeps it on the nodes that are held.
    pub(crate) fn with_unit(&self, pod: PodBuilder) -> PodBuilder {
        let pod = pod.on_leased(&self.nodes);
        match &self.unit {
            Unit::Device { .. } => pod.claim_template(&run::name(TEMPLATE)),
            Unit::Extended { resource } => pod.extended_resource(resource, 1),
        }
    }

    /// Units that nobody holds on the nodes that are held.
    pub(crate) fn free(&self) -> Result<u64> {
        match &self.unit {
            Unit::Device { version, class } => {
                let names: Vec<&str> = self.nodes.iter().map(LeasedNode::name).collect();
                let read = devices::read(*version, &run::id())?;
                Ok(read.of_class(class, &names).iter().sum())
            }
            Unit::Extended { resource } => {
                let mut free = 0;
                for node in inventory::nodes()? {
                    if self.has(&node.name) {
                        let pods = inventory::pods_on(&node.name)?;
                        free += inventory::free(&node, &pods, resource) / 1000;
                    }
                }
                Ok(free)
            }
        }
    }

    /// The allocated claims of the sandbox; none without a driver.
    fn claims(&self) -> Result<Vec<Object>> {
        let Unit::Device { version, .. } = &self.unit else {
            return Ok(Vec::new());
        };
        let all = Query::new(&version.api_version(), "resourceclaims")
            .in_namespace(&self.namespace)
            .list()?;
        let held = all
            .into_iter()
            .filter(|claim| !devices::allocated(claim).is_empty());
        Ok(held.collect())
    }

    /// The unit of a pod in words, with the device where it is one; or why it has none.
    fn unit_of(&self, pod: &Object, claims: &[Object]) -> std::result::Result<Held, String> {
        let node = pod.text("/spec/nodeName");
        if !self.has(node) {
            return Err(format!(
                "{pod} runs on {node}, which is none of the nodes with the accelerator that it asks for"
            ));
        }
        match &self.unit {
            Unit::Device { .. } => {
                let own = claims.iter().filter(|claim| claim.is_owned_by(pod.uid()));
                let key = own.flat_map(devices::allocated).next();
                match key {
                    Some(key) => Ok(Held {
                        words: key.to_string(),
                        key: Some(key),
                    }),
                    None => Err(format!("{pod} runs, and no device is allocated to it")),
                }
            }
            Unit::Extended { resource } => {
                if inventory::requested(pod, resource) < 1000 {
                    return Err(format!("{pod} runs without a unit of {resource}"));
                }
                Ok(Held {
                    words: format!("a unit of {resource}"),
                    key: None,
                })
            }
        }
    }
}

struct Held {
    words: String,
    key: Option<Key>,
}

/// Whether each of the pods holds a unit of its own.
pub(crate) fn holders(case: &Case, lab: &Lab<'_>) -> Result<Conclusion> {
    let pods = lab.workload.pods()?;
    let claims = lab.place.claims()?;
    let mut keys: Vec<Key> = Vec::new();
    for pod in &pods {
        let held = match lab.place.unit_of(pod, &claims) {
            Ok(held) => held,
            Err(why) => return Ok(Conclusion::fail(why)),
        };
        case.observe("pod", pod.uid());
        case.observe("its node", pod.text("/spec/nodeName"));
        case.observe("its unit", &held.words);
        if let Some(key) = held.key {
            if keys.contains(&key) {
                return Ok(Conclusion::fail(format!("two pods were given {key}")));
            }
            keys.push(key);
        }
    }
    if (pods.len() as u64) < MOST {
        return Ok(Conclusion::unknown(
            Reason::CompetingWorkload,
            "one of the two pods went before its unit was looked at",
        ));
    }
    Ok(Conclusion::Pass)
}

/// Whether only the pod that is left holds a unit.
pub(crate) fn released(case: &Case, lab: &Lab<'_>) -> Result<Conclusion> {
    let place = lab.place;
    let mut left = (0, 0);
    let free = wait::poll(LOOK, RELEASE, "the return of the unit", || {
        let pods = lab.workload.pods()?;
        if let Some(pod) = pods.first() {
            case.observe("pod that is left", pod.uid());
        }
        left = (place.claims()?.len(), place.free()?);
        Ok((left.0 <= 1 && left.1 + 1 >= place.free).then_some(left.1))
    });
    match free {
        Ok(free) => {
            case.observe("free units", free);
            Ok(Conclusion::Pass)
        }
        Err(error) if error.is_deadline() && left.0 > 1 => Ok(Conclusion::fail(format!(
            "{} claims of the Deployment are still allocated, with one pod left",
            left.0
        ))),
        Err(error) if error.is_deadline() => Ok(Conclusion::unknown(
            Reason::CompetingWorkload,
            format!(
                "{} units are free, and {} were: others took some",
                left.1, place.free
            ),
        )),
        Err(error) => Err(error),
    }
}
