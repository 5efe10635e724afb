//! What is scarce, where, and how many pods fit.
//!
//! Pods are confined to a few nodes, and all of them ask for the same amount of one scarce thing, so that the number of pods
//! that fit is known: counted node by node, because what is left over on two nodes makes no place for one pod.

use crate::adapter::GROUP;
use karat_sdk::build::{ClaimSpec, DraVersion, PodBuilder, claim_template};
use karat_sdk::discovery::Discovery;
use karat_sdk::inventory::{self, Node, devices};
use karat_sdk::leases::{self, Lease};
use karat_sdk::{Case, Conclusion, Query, Reason, Result, Target, Value, run};

/// Most pods that fit; more would only take longer.
const MOST_PODS: u64 = 16;
/// Most nodes that are looked at. Each costs requests, and one that is free is soon found.
const LOOKED_AT: usize = 16;
/// Most nodes that are used.
const MOST_NODES: usize = 4;
/// What a pod requests besides the scarce thing, in thousandths: 10m CPU and 32Mi.
const BESIDES: [(&str, u64); 2] = [("cpu", 10), ("memory", 32 * 1024 * 1024 * 1000)];

/// What pods of a group compete for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scarce {
    /// Devices of a class.
    Devices(DraVersion, String),
    /// An extended resource.
    Extended(String),
    /// CPU in thousandths; on played nodes only, where nobody misses it.
    Cpu,
}

/// A few nodes and what is free on them.
#[derive(Clone, Debug)]
pub struct Room {
    /// The nodes with the free amount of the scarce thing.
    pub places: Vec<(String, u64)>,
    /// The scarce thing.
    pub scarce: Scarce,
    /// How much of it a pod of a group takes.
    pub size: u64,
    /// Keys of the taints of the nodes.
    pub taints: Vec<String>,
    /// Versions of their kubelets.
    pub kubelets: Vec<String>,
    /// Whether all of the nodes are played.
    pub played: bool,
    pub(crate) namespace: String,
}

/// The sum over nodes of the pods of a size that fit on each.
pub fn fitting(places: &[(String, u64)], size: u64) -> u64 {
    places.iter().map(|(_, free)| free / size.max(1)).sum()
}

/// Leases that a manifest must declare: nodes with all free units of accelerators, and nodes as they are.
const LEASES: [&str; 2] = ["units", "nodes"];

/// Takes nodes with accelerators for the probe alone; where there are none, nodes without.
///
/// # Errors
/// `Error::Unavailable` and `Error::Busy`, and those of the door.
pub fn lease() -> Result<Lease> {
    leases::acquire_either(&LEASES[..1], &LEASES[1..], leases::TURN)
}

/// The room, or why there is none.
pub type Found = std::result::Result<Room, (Reason, String)>;

impl Room {
    /// Looks for the scarce thing on the nodes of a lease: devices, if `claims` may be used, else an extended resource, else CPU.
    ///
    /// # Errors
    /// Those of the server and of the door.
    pub fn find(
        discovery: &Discovery,
        namespace: &str,
        lease: &Lease,
        claims: bool,
    ) -> Result<Found> {
        let nodes: Vec<Node> = inventory::nodes()?
            .into_iter()
            .filter(|node| lease.has(&node.name))
            .collect();
        if nodes.is_empty() {
            let text =
                "no node takes pods of this probe; it needs one that is Ready and not cordoned";
            return Ok(Err((Reason::InsufficientCapacity, text.to_owned())));
        }
        let mut reason = Reason::NoAccelerator;
        // A version from the future is no reason to give up: there are other scarce things.
        if claims && let Ok(Some(version)) = DraVersion::newest(discovery) {
            let found = devices::read(version, &run::id())?;
            let names: Vec<&str> = nodes.iter().map(|node| node.name.as_str()).collect();
            if let Some((class, counts)) = found.most_of_one_class(&names) {
                reason = Reason::InsufficientCapacity;
                let free = nodes.iter().zip(counts);
                if let Some(room) = choose(free, Scarce::Devices(version, class), namespace)? {
                    return Ok(Ok(room));
                }
            }
        }
        let mut names: Vec<&str> = Vec::new();
        for name in nodes.iter().flat_map(Node::extended_resources) {
            if !names.contains(&name) {
                names.push(name);
            }
        }
        for name in names {
            reason = Reason::InsufficientCapacity;
            let with_some = nodes.iter().filter(|node| node.allocatable(name) > 0);
            let mut free = Vec::new();
            for node in with_some.take(LOOKED_AT) {
                let pods = inventory::pods_on(&node.name)?;
                free.push((node, inventory::free(node, &pods, name) / 1000));
            }
            if let Some(room) = choose(free.into_iter(), Scarce::Extended(name.into()), namespace)?
            {
                return Ok(Ok(room));
            }
        }
        let played: Vec<&Node> = nodes.iter().filter(|node| node.played).collect();
        if !played.is_empty() && reason == Reason::NoAccelerator {
            reason = Reason::InsufficientCapacity;
            let mut free = Vec::new();
            for node in played.into_iter().take(LOOKED_AT) {
                let pods = inventory::pods_on(&node.name)?;
                free.push((node, inventory::free(node, &pods, "cpu")));
            }
            if let Some(room) = choose(free.into_iter(), Scarce::Cpu, namespace)? {
                return Ok(Ok(room));
            }
        }
        let text = match reason {
            Reason::NoAccelerator => {
                "no node has an accelerator; a group needs something scarce to wait for"
            }
            _ => "fewer than two pods fit; free two units on nodes that are Ready",
        };
        Ok(Err((reason, text.to_owned())))
    }

    /// Pods of the usual size that fit while nobody of this probe is there.
    pub fn fits(&self) -> u64 {
        fitting(&self.places, self.size)
    }

    /// What is free now, our own pods left out; none when a node takes no pods any more or has other taints.
    ///
    /// # Errors
    /// Those of the server and of the door.
    pub fn now(&self) -> Result<Option<Vec<(String, u64)>>> {
        let nodes = inventory::nodes()?;
        let ours = |name: &str| nodes.iter().find(|node| node.name == name);
        let mut free = Vec::new();
        let devices = match &self.scarce {
            Scarce::Devices(version, class) => {
                let mut found = devices::read(*version, &run::id())?;
                let claims = Query::new(&version.api_version(), "resourceclaims")
                    .in_namespace(&self.namespace)
                    .list()?;
                found.release(claims.iter().flat_map(devices::allocated));
                let names: Vec<&str> = self.places.iter().map(|(name, _)| name.as_str()).collect();
                Some(found.of_class(class, &names))
            }
            _ => None,
        };
        for (at, (name, _)) in self.places.iter().enumerate() {
            let Some(node) = ours(name) else {
                return Ok(None);
            };
            if node.taints.iter().any(|key| !self.taints.contains(key)) {
                return Ok(None);
            }
            let amount = match (&self.scarce, &devices) {
                (_, Some(counts)) => counts.get(at).copied().unwrap_or(0),
                (scarce, None) => {
                    let others: Vec<_> = inventory::pods_on(name)?
                        .into_iter()
                        .filter(|pod| pod.namespace() != self.namespace)
                        .collect();
                    match scarce {
                        Scarce::Extended(unit) => inventory::free(node, &others, unit) / 1000,
                        _ => inventory::free(node, &others, "cpu"),
                    }
                }
            };
            free.push((name.clone(), amount));
        }
        Ok(Some(free))
    }

    /// What a fail becomes: nothing else, if what is free is what it was; otherwise nobody can tell.
    ///
    /// # Errors
    /// Those of the server and of the door.
    pub fn unless_changed(&self, text: impl Into<String>) -> Result<Conclusion> {
        Ok(if self.now()?.as_ref() == Some(&self.places) {
            Conclusion::fail(text)
        } else {
            Conclusion::unknown(
                Reason::CompetingWorkload,
                format!(
                    "{}; but what is free on the nodes changed meanwhile, so run again when the cluster is quieter",
                    text.into()
                ),
            )
        })
    }

    /// Shows what is scarce and where.
    pub fn show(&self, case: &Case) {
        let (kind, what) = match &self.scarce {
            Scarce::Devices(_, class) => ("devices of class", class.as_str()),
            Scarce::Extended(name) => ("extended resource", name.as_str()),
            Scarce::Cpu => ("CPU of played nodes", "cpu"),
        };
        case.observe("scarce thing", kind);
        case.observe("resource", what);
        case.observe("amount a pod takes", self.amount(self.size));
        for (name, free) in &self.places {
            case.observe("node", name);
            case.observe("free", self.amount(*free));
        }
        for kubelet in &self.kubelets {
            case.observe("kubelet", kubelet);
        }
        case.observe("pods that fit", self.fits());
    }

    /// An amount of the scarce thing, for people and for requests.
    pub fn amount(&self, size: u64) -> String {
        match self.scarce {
            Scarce::Cpu => format!("{size}m"),
            _ => size.to_string(),
        }
    }

    /// Makes what pods of a size refer to: a claim template, in `dra` mode.
    ///
    /// # Errors
    /// Those of the server and of the door.
    pub fn prepare(&self, size: u64) -> Result<()> {
        let Scarce::Devices(version, class) = &self.scarce else {
            return Ok(());
        };
        let count = u32::try_from(size).unwrap_or(u32::MAX);
        let template = claim_template(
            *version,
            &template_name(size),
            &ClaimSpec::new(class).count(count),
        );
        let target = Target::new(&version.api_version(), "resourceclaimtemplates")
            .in_namespace(&self.namespace);
        match target.create(&template) {
            Err(error) if !error.is_already_exists() => Err(error),
            _ => Ok(()),
        }
    }

    /// A pod that takes so much of the scarce thing, on the nodes of this room only.
    pub fn pod(&self, name: &str, image: &str, size: u64, group: &str) -> Value {
        let pod = PodBuilder::tool(name, image)
            .tolerate(self.taints.iter().map(String::as_str))
            .pin_to(self.places.iter().map(|(name, _)| name.as_str()));
        let pod = if group.is_empty() {
            pod
        } else {
            pod.label(GROUP, group)
        };
        match &self.scarce {
            Scarce::Devices(..) => pod.claim_template(&template_name(size)),
            Scarce::Extended(unit) => {
                pod.extended_resource(unit, u32::try_from(size).unwrap_or(u32::MAX))
            }
            Scarce::Cpu => pod.request("cpu", &self.amount(size)),
        }
        .build()
    }
}

fn template_name(size: u64) -> String {
    run::name(&format!("units-{size}"))
}

/// Picks nodes and the size of a pod so that between 2 and 16 pods fit; none when fewer do.
fn choose<'a>(
    free: impl Iterator<Item = (&'a Node, u64)>,
    scarce: Scarce,
    namespace: &str,
) -> Result<Option<Room>> {
    let mut candidates = Vec::new();
    for (node, free) in free {
        if free > 0 && has_the_rest(node, &scarce)? {
            candidates.push((node, free));
        }
        if candidates.len() == MOST_NODES {
            break;
        }
    }
    let amounts: Vec<u64> = candidates.iter().map(|(_, free)| *free).collect();
    let Some((size, used)) = plan(&amounts, scarce == Scarce::Cpu) else {
        return Ok(None);
    };
    let chosen: Vec<&(&Node, u64)> = candidates
        .iter()
        .zip(used)
        .filter_map(|(candidate, used)| used.then_some(candidate))
        .collect();
    let mut taints: Vec<String> = Vec::new();
    for taint in chosen.iter().flat_map(|(node, _)| &node.taints) {
        if !taints.contains(taint) {
            taints.push(taint.clone());
        }
    }
    Ok(Some(Room {
        places: chosen
            .iter()
            .map(|(node, free)| (node.name.clone(), *free))
            .collect(),
        kubelets: chosen
            .iter()
            .map(|(node, _)| node.kubelet.clone())
            .collect(),
        scarce,
        size,
        taints,
        played: chosen.iter().all(|(node, _)| node.played),
        namespace: namespace.to_owned(),
    }))
}

/// Whether a node has so much of everything else that only the scarce thing decides, and nobody on it would be put aside for
/// a pod of ours.
fn has_the_rest(node: &Node, scarce: &Scarce) -> Result<bool> {
    let pods = inventory::pods_on(&node.name)?;
    let yields = pods
        .iter()
        .any(|pod| pod.at("/spec/priority").as_i64().is_some_and(|at| at < 0));
    let slots = (node.allocatable("pods") / 1000).saturating_sub(pods.len() as u64);
    let rest = BESIDES.iter().all(|(resource, each)| {
        (*resource == "cpu" && *scarce == Scarce::Cpu)
            || inventory::free(node, &pods, resource) >= each * (MOST_PODS + 1)
    });
    Ok(!yields && slots > MOST_PODS && rest)
}

/// The size of a pod and which of the nodes are used; none when fewer than two pods fit.
fn plan(free: &[u64], cpu: bool) -> Option<(u64, Vec<bool>)> {
    let sizes: Vec<u64> = if cpu {
        // 60 % of one of the nodes: then one pod fits on a node like it, and what is left makes no place for another.
        free.iter().map(|free| free * 3 / 5).collect()
    } else {
        // One unit, or more where a single node has more than enough of them.
        let smallest = free.iter().copied().min().unwrap_or(0);
        vec![smallest.div_ceil(MOST_PODS).max(1)]
    };
    let mut best: Option<(u64, u64, Vec<bool>)> = None;
    for size in sizes.into_iter().filter(|size| *size > 0) {
        let mut sum = 0;
        let used: Vec<bool> = free
            .iter()
            .map(|free| {
                let fits = free / size;
                let take = fits > 0 && sum + fits <= MOST_PODS;
                sum += if take { fits } else { 0 };
                take
            })
            .collect();
        if sum >= 2 && best.as_ref().is_none_or(|(have, ..)| sum > *have) {
            best = Some((sum, size, used));
        }
    }
    best.map(|(_, size, used)| (size, used))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_counted_one_by_one_until_there_are_enough() {
        assert_eq!(plan(&[2, 2], false), Some((1, vec![true, true])));
        assert_eq!(plan(&[1, 1, 1], false), Some((1, vec![true; 3])));
        assert_eq!(plan(&[8, 8, 8], false), Some((1, vec![true, true, false])));
        assert_eq!(plan(&[56, 56], false), Some((4, vec![true, false])));
        assert_eq!(plan(&[1], false), None);
        assert_eq!(plan(&[], false), None);
    }

    #[test]
    fn cpu_is_taken_by_more_than_half_a_node() {
        let (size, used) = plan(&[32_000, 32_000], true).unwrap();
        assert_eq!((size, used), (19_200, vec![true, true]));
        assert_eq!(plan(&[32_000], true), None);
        let (size, used) = plan(&[64_000, 32_000, 32_000], true).unwrap();
        assert_eq!(
            (size, used.iter().filter(|used| **used).count()),
            (19_200, 3)
        );
        let places = [("a".to_owned(), 64_000), ("b".to_owned(), 32_000)];
        assert_eq!(fitting(&places, 19_200), 4);
        assert_eq!(fitting(&places, 0), 96_000);
    }
}
