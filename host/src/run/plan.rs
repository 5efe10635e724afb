//! What a run will do, worked out before it does anything.
//!
//! [`make`] is pure: manifests, selection, reach and grants in, [`Plan`] out. It selects and orders probes, sets what they
//! ask for beside what is granted, and adds up what the run may cost. [`preflight`] then asks a cluster two things: whether
//! the operator's own account may do all this ([`rbac`] writes what is missing as YAML), and whether policies of the
//! cluster would accept one object of each kind. It creates nothing: every trial is a dry run.
//!
//! A plan never decides what a probe may do while it runs; that is the door's ([`crate::gate`]).

pub mod preflight;
pub mod rbac;
pub mod trial;

use crate::images::Images;
use crate::lease::graph::{self, Graph};
use crate::lease::{NodeChoice, NodeLabels};
use crate::manifest::{Manifest, PodSecurity, Required, Scope, Wish};
use crate::model::Reach;
use crate::names;
use crate::recording::format::{Access, ResourceAccess};
use serde::Serialize;
use std::time::Duration;

/// Stands for the run id where it is not known yet. It cannot be one: run ids hold no `0`.
pub const RUN_PLACEHOLDER: &str = "00000000";

/// Most objects outside of namespaces that one run may create.
pub const CLUSTER_OBJECTS_MAX: u32 = 20;

/// A probe that could be run.
#[derive(Clone, Copy, Debug)]
pub struct Offer<'a> {
    /// What it states about itself.
    pub manifest: &'a Manifest,
    /// Digest of the component, `sha256:…`.
    pub digest: &'a str,
    /// Whether it gets an account of its own.
    pub enforced: bool,
}

/// What the operator wants.
#[derive(Clone, Debug)]
pub struct Wishes {
    /// Probe ids or requirement ids; empty means all.
    pub wanted: Vec<String>,
    /// How far the run may go.
    pub reach: Reach,
    /// How many probes run at one time; at least 1.
    pub parallel: usize,
    /// The program's own images, and mirrors.
    pub images: Images,
    /// The nodes that leases may take.
    pub nodes: NodeChoice,
}

/// Says whether the operator granted an access to a probe; the text says which line would.
pub type Granted<'a> = dyn Fn(&Manifest, &Access) -> Result<(), String> + 'a;

/// What a run will do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// Reach that is allowed.
    pub reach: Reach,
    /// The probes in the order in which they start.
    pub probes: Vec<PlannedProbe>,
    /// Probes that were wanted and will not be started.
    pub left_out: Vec<LeftOut>,
    /// What the run may cost.
    pub cost: Cost,
    /// What probes hold for themselves, and how long the run must take because of it.
    pub leases: Graph,
}

/// One probe of a plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PlannedProbe {
    /// Probe id.
    pub probe: String,
    /// Version.
    pub version: String,
    /// Title of the manifest.
    pub title: String,
    /// Requirement ids it answers.
    pub requirements: Vec<String>,
    /// Digest of the component.
    pub digest: String,
    /// How far it goes.
    pub reach: Reach,
    /// Whether anything is written to the cluster for it; such a run holds the cluster's Lease.
    pub writes: bool,
    /// Whether it gets an account of its own, so that the API server enforces its permissions as well.
    pub enforced: bool,
    /// Its cases in the order of the manifest.
    pub cases: Vec<PlannedCase>,
    /// What it asks for and whether it is granted, line by line.
    pub permissions: Vec<PlannedPermission>,
    /// Namespaces it gets.
    pub namespaces: Vec<PlannedNamespace>,
    /// Images it may start.
    pub images: Vec<String>,
    /// Labels of the nodes that its leases may take; empty where any will do, or where it takes none.
    pub nodes: NodeLabels,
    /// Kinds of objects it may create: `pods`, `resourceclaims.resource.k8s.io`.
    pub creates: Vec<String>,
    /// The same outside of namespaces.
    pub creates_in_cluster: Vec<String>,
    /// Longest time in milliseconds.
    pub wall_ms: u64,
    /// Most host calls.
    pub calls: u64,
    /// Most memory in bytes.
    pub memory_bytes: u64,
}

/// One case of a probe.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PlannedCase {
    /// Id in the manifest.
    pub id: String,
    /// `observation`, `positive` or `negative`.
    pub kind: crate::manifest::CaseKind,
    /// When it must be concluded.
    pub required: Required,
    /// The claim.
    pub claim: String,
    /// Whether it leaves pods pending on purpose.
    pub pending: bool,
}

/// One permission line of a probe.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PlannedPermission {
    /// `get list pods, pods/log` or `get /version`.
    pub what: String,
    /// `in its own namespaces`, `in namespace x`, `in the whole cluster`.
    pub place: String,
    /// Why the probe needs it.
    pub why: String,
    /// Whether it works without.
    pub optional: bool,
    /// None when all of the line is granted; else which line would grant it.
    pub refused: Option<String>,
}

/// One sandbox namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PlannedNamespace {
    /// Its name with `<run>` for the run id.
    pub name: String,
    /// Pod Security level.
    pub pod_security: PodSecurity,
    /// Most pods at one time.
    pub pods: u32,
}

/// A probe that will not be started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LeftOut {
    /// Probe id.
    pub probe: String,
    /// Title of the manifest.
    pub title: String,
    /// Why.
    pub why: LeftOutWhy,
}

/// Why a probe is left out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "kind", content = "detail")]
pub enum LeftOutWhy {
    /// It needs this reach.
    Reach(Reach),
    /// Something it cannot work without is not granted; it is recorded as `denied`.
    NotGranted(String),
    /// An image that the program should bring is not there; it is recorded as `denied`.
    NoImage(String),
}

/// What a run may cost at most.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Cost {
    /// Longest time in milliseconds, if each probe uses all of its own.
    pub wall_ms: u64,
    /// Namespaces that are created, the run's own among them.
    pub namespaces: u32,
    /// Most pods at one time.
    pub pods: u32,
    /// Most objects outside of namespaces.
    pub cluster_objects: u32,
    /// Most calls of all probes.
    pub calls: u64,
    /// Cases that leave pods pending on purpose, as `probe/case`: an autoscaler would add nodes for them.
    pub pending: Vec<String>,
}

/// Selects, orders and prices.
#[must_use]
pub fn make(offers: &[Offer<'_>], wishes: &Wishes, granted: &Granted<'_>) -> Plan {
    let mut chosen: Vec<&Offer<'_>> = offers
        .iter()
        .filter(|offer| is_wanted(offer.manifest, &wishes.wanted))
        .collect();
    // What touches nothing comes first; within a reach the longest first, which keeps the whole short; ids break ties so
    // that equal input gives an equal plan.
    chosen.sort_by(|a, b| {
        let (a, b) = (a.manifest, b.manifest);
        (a.reach, std::cmp::Reverse(a.budget.wall), &a.id).cmp(&(
            b.reach,
            std::cmp::Reverse(b.budget.wall),
            &b.id,
        ))
    });

    let mut plan = Plan {
        reach: wishes.reach,
        probes: Vec::new(),
        left_out: Vec::new(),
        cost: Cost::default(),
        leases: Graph::default(),
    };
    for offer in chosen {
        let left_out = |why| LeftOut {
            probe: offer.manifest.id.clone(),
            title: offer.manifest.title.clone(),
            why,
        };
        if offer.manifest.reach > wishes.reach {
            plan.left_out
                .push(left_out(LeftOutWhy::Reach(offer.manifest.reach)));
            continue;
        }
        let images = match wishes.images.of(offer.manifest) {
            Ok(images) => images.into_values().collect(),
            Err(missing) => {
                plan.left_out
                    .push(left_out(LeftOutWhy::NoImage(missing.to_string())));
                continue;
            }
        };
        let probe = planned(offer, granted, images, &wishes.nodes);
        let refused = probe
            .permissions
            .iter()
            .find(|line| !line.optional && line.refused.is_some());
        match refused.and_then(|line| line.refused.clone()) {
            Some(refusal) => plan
                .left_out
                .push(left_out(LeftOutWhy::NotGranted(refusal))),
            None => plan.probes.push(probe),
        }
    }
    plan.cost = cost(&plan.probes, wishes.parallel.max(1));
    let started = |offer: &&Offer<'_>| plan.probes.iter().any(|one| one.probe == offer.manifest.id);
    let manifests = offers.iter().filter(started).map(|offer| offer.manifest);
    plan.leases = graph::planned(manifests);
    plan
}

/// Whether a probe was asked for, by its id or by a requirement it answers.
#[must_use]
pub fn is_wanted(manifest: &Manifest, wanted: &[String]) -> bool {
    wanted.is_empty()
        || wanted
            .iter()
            .any(|word| *word == manifest.id || manifest.requirements.contains(word))
}

/// Whether anything is written to the cluster for a probe: by itself, or by the engine around it.
#[must_use]
pub fn writes(manifest: &Manifest) -> bool {
    manifest.reach > Reach::Read || !manifest.namespaces.is_empty()
}

/// Every single access that a permission line asks for. Sandbox lines stand for all namespaces of the probe; since those
/// do not exist yet, each alias gives one namespace with the placeholder as run id.
#[must_use]
pub fn accesses(manifest: &Manifest, line: &crate::manifest::PermissionLine) -> Vec<Access> {
    let mut all: Vec<Access> = line
        .non_resource
        .iter()
        .map(|path| Access::NonResource { path: path.clone() })
        .collect();
    let namespaces: Vec<String> = match &line.scope {
        Scope::Sandbox => manifest
            .namespaces
            .iter()
            .map(|namespace| {
                names::sandbox_namespace(RUN_PLACEHOLDER, &manifest.id, &namespace.alias)
            })
            .collect(),
        Scope::Cluster => vec![String::new()],
        Scope::Namespace(name) => vec![name.clone()],
    };
    let names: Vec<String> = if line.names.is_empty() {
        vec![String::new()]
    } else {
        line.names.clone()
    };
    for group in &line.api_groups {
        for path in &line.resources {
            let (resource, subresource) = path.split_once('/').unwrap_or((path, ""));
            for verb in &line.verbs {
                for namespace in &namespaces {
                    for name in &names {
                        all.push(Access::Resource(ResourceAccess {
                            verb: verb.clone(),
                            group: group.clone(),
                            version: String::new(),
                            resource: resource.to_owned(),
                            subresource: subresource.to_owned(),
                            namespace: namespace.clone(),
                            name: name.clone(),
                            path: String::new(),
                        }));
                    }
                }
            }
        }
    }
    all
}

/// A resource and its group in one word: `pods`, `resourceclaims.resource.k8s.io`.
#[must_use]
pub fn group_resource(group: &str, resource: &str) -> String {
    if group.is_empty() {
        resource.to_owned()
    } else {
        format!("{resource}.{group}")
    }
}

fn planned(
    offer: &Offer<'_>,
    granted: &Granted<'_>,
    images: Vec<String>,
    nodes: &NodeChoice,
) -> PlannedProbe {
    let manifest = offer.manifest;
    let mut leases = manifest.leases.iter();
    let takes_nodes = leases.any(|line| matches!(line.wish, Wish::Nodes(_)));
    let mut creates = Vec::new();
    let mut creates_in_cluster = Vec::new();
    let mut permissions = Vec::new();
    for line in &manifest.permissions {
        let refused = accesses(manifest, line)
            .iter()
            .find_map(|access| granted(manifest, access).err());
        if refused.is_none() && line.verbs.iter().any(|verb| verb == "create") {
            let kinds = match line.scope {
                Scope::Cluster => &mut creates_in_cluster,
                Scope::Sandbox | Scope::Namespace(_) => &mut creates,
            };
            for group in &line.api_groups {
                // Commands and evictions are no objects.
                for resource in line.resources.iter().filter(|name| !name.contains('/')) {
                    kinds.push(group_resource(group, resource));
                }
            }
        }
        permissions.push(PlannedPermission {
            what: describe(line),
            place: match &line.scope {
                Scope::Sandbox => "in its own namespaces".to_owned(),
                Scope::Cluster => "in the whole cluster".to_owned(),
                Scope::Namespace(name) => format!("in namespace {name}"),
            },
            why: line.why.clone(),
            optional: line.optional,
            refused,
        });
    }
    for kinds in [&mut creates, &mut creates_in_cluster] {
        kinds.sort();
        kinds.dedup();
    }
    PlannedProbe {
        probe: manifest.id.clone(),
        version: manifest.version.clone(),
        title: manifest.title.clone(),
        requirements: manifest.requirements.clone(),
        digest: offer.digest.to_owned(),
        reach: manifest.reach,
        writes: writes(manifest) || offer.enforced,
        enforced: offer.enforced,
        cases: manifest
            .cases
            .iter()
            .map(|case| PlannedCase {
                id: case.id.clone(),
                kind: case.kind,
                required: case.required,
                claim: case.claim.clone(),
                pending: case.pending,
            })
            .collect(),
        permissions,
        namespaces: manifest
            .namespaces
            .iter()
            .map(|namespace| PlannedNamespace {
                name: names::sandbox_namespace("<run>", &manifest.id, &namespace.alias),
                pod_security: namespace.pod_security,
                pods: namespace.pods,
            })
            .collect(),
        images,
        nodes: if takes_nodes {
            nodes.of(&manifest.id).clone()
        } else {
            NodeLabels::default()
        },
        creates,
        creates_in_cluster,
        wall_ms: millis(manifest.budget.wall),
        calls: manifest.budget.calls,
        memory_bytes: manifest.budget.memory_bytes,
    }
}

/// A permission line in one sentence.
#[must_use]
pub fn describe(line: &crate::manifest::PermissionLine) -> String {
    if !line.non_resource.is_empty() {
        return format!("get {}", line.non_resource.join(", "));
    }
    let mut kinds = Vec::new();
    for group in &line.api_groups {
        for resource in &line.resources {
            kinds.push(group_resource(group, resource));
        }
    }
    let mut text = format!("{} {}", line.verbs.join(" "), kinds.join(", "));
    if !line.names.is_empty() {
        text.push_str(" named ");
        text.push_str(&line.names.join(", "));
    }
    text.push_str(&crate::grant::describe_proxy(&line.proxy));
    text
}

fn cost(probes: &[PlannedProbe], parallel: usize) -> Cost {
    let mut lanes = vec![0u64; parallel];
    let mut cost = Cost {
        namespaces: u32::from(probes.iter().any(|probe| probe.writes)),
        ..Cost::default()
    };
    for probe in probes {
        // The next free lane takes the next probe, as the dispatcher does.
        if let Some(lane) = lanes.iter_mut().min() {
            *lane = lane.saturating_add(probe.wall_ms);
        }
        cost.namespaces += u32::try_from(probe.namespaces.len()).unwrap_or(u32::MAX);
        for namespace in &probe.namespaces {
            cost.pods = cost.pods.saturating_add(namespace.pods);
        }
        if !probe.creates_in_cluster.is_empty() {
            cost.cluster_objects = CLUSTER_OBJECTS_MAX;
        }
        cost.calls = cost.calls.saturating_add(probe.calls);
        for case in probe.cases.iter().filter(|case| case.pending) {
            cost.pending.push(format!("{}/{}", probe.probe, case.id));
        }
    }
    cost.wall_ms = lanes.into_iter().max().unwrap_or(0);
    cost
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::manifest::{Budget, Case, CaseKind, NamespaceLine, PermissionLine};
    use std::collections::BTreeMap;

    pub(crate) fn manifest(id: &str, reach: Reach, seconds: u64) -> Manifest {
        Manifest {
            id: id.to_owned(),
            version: "0.1.0".to_owned(),
            title: format!("title of {id}"),
            claim: "c".to_owned(),
            misleads: "m".to_owned(),
            contract: names::CONTRACT_VERSION.to_owned(),
            requirements: vec![format!("req_{id}")],
            reach,
            capabilities: vec!["kube-read".to_owned()],
            permissions: vec![
                line(&["get", "create"], &["pods", "pods/log"], Scope::Sandbox),
                line(&["create"], &["deviceclasses"], Scope::Cluster),
            ],
            namespaces: vec![NamespaceLine {
                alias: "main".to_owned(),
                pod_security: PodSecurity::Restricted,
                pods: 7,
            }],
            images: Vec::new(),
            snapshots: Vec::new(),
            leases: Vec::new(),
            settings: BTreeMap::new(),
            budget: Budget {
                wall: Duration::from_secs(seconds),
                ..Budget::default()
            },
            cases: vec![Case {
                id: "waits".to_owned(),
                kind: CaseKind::Positive,
                required: Required::Always,
                claim: "it waits".to_owned(),
                expected: "x".to_owned(),
                needs: Vec::new(),
                effect: Vec::new(),
                controls: Vec::new(),
                quiet: None,
                pending: true,
                line: 1,
            }],
        }
    }

    fn line(verbs: &[&str], resources: &[&str], scope: Scope) -> PermissionLine {
        let own = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        PermissionLine {
            api_groups: vec![String::new()],
            resources: own(resources),
            verbs: own(verbs),
            scope,
            names: Vec::new(),
            non_resource: Vec::new(),
            proxy: crate::manifest::ProxyLine::default(),
            optional: false,
            why: "w".to_owned(),
            line: 1,
        }
    }

    fn offers(manifests: &[Manifest]) -> Vec<Offer<'_>> {
        manifests
            .iter()
            .map(|manifest| Offer {
                manifest,
                digest: "sha256:00",
                enforced: false,
            })
            .collect()
    }

    fn wishes(reach: Reach) -> Wishes {
        Wishes {
            wanted: Vec::new(),
            reach,
            parallel: 2,
            images: Images::default(),
            nodes: NodeChoice::default(),
        }
    }

    fn all(_: &Manifest, _: &Access) -> Result<(), String> {
        Ok(())
    }

    #[test]
    fn the_gentle_and_the_long_start_first() {
        let manifests = [
            manifest("b", Reach::Sandbox, 10),
            manifest("a", Reach::Sandbox, 10),
            manifest("long", Reach::Sandbox, 20),
            manifest("read", Reach::Read, 1),
            manifest("cluster", Reach::ClusterObjects, 99),
        ];
        let plan = make(&offers(&manifests), &wishes(Reach::Sandbox), &all);
        let order: Vec<_> = plan
            .probes
            .iter()
            .map(|probe| probe.probe.as_str())
            .collect();
        assert_eq!(order, ["read", "long", "a", "b"]);
        assert_eq!(plan.left_out.len(), 1);
        assert_eq!(
            plan.left_out[0].why,
            LeftOutWhy::Reach(Reach::ClusterObjects)
        );
        // Lanes: read 1 + a 10 + … : 1, 20 → a joins the first lane, b joins it again at 11.
        assert_eq!(plan.cost.wall_ms, 21_000);
        assert_eq!(plan.cost.namespaces, 5);
        assert_eq!(plan.cost.pods, 28);
        assert_eq!(
            plan.cost.pending,
            ["read/waits", "long/waits", "a/waits", "b/waits"]
        );
    }

    #[test]
    fn words_select_probes_and_requirements() {
        let manifests = [
            manifest("a", Reach::Read, 1),
            manifest("b", Reach::Read, 1),
            manifest("c", Reach::Read, 1),
        ];
        let mut wishes = wishes(Reach::Read);
        wishes.wanted = vec!["a".to_owned(), "req_c".to_owned()];
        let plan = make(&offers(&manifests), &wishes, &all);
        let order: Vec<_> = plan
            .probes
            .iter()
            .map(|probe| probe.probe.as_str())
            .collect();
        assert_eq!(order, ["a", "c"]);
    }

    #[test]
    fn a_probe_without_a_needed_grant_is_not_started() {
        let mut optional = manifest("optional", Reach::Read, 1);
        optional.permissions[1].optional = true;
        let manifests = [manifest("needs", Reach::Read, 1), optional];
        let no_cluster = |_: &Manifest, access: &Access| match access {
            Access::Resource(resource) if resource.namespace.is_empty() => {
                Err("add line 7".to_owned())
            }
            _ => Ok(()),
        };
        let plan = make(&offers(&manifests), &wishes(Reach::Read), &no_cluster);
        assert_eq!(
            plan.left_out[0].why,
            LeftOutWhy::NotGranted("add line 7".to_owned())
        );
        assert_eq!(plan.probes[0].probe, "optional");
        assert_eq!(
            plan.probes[0].permissions[1].refused.as_deref(),
            Some("add line 7")
        );
        assert!(
            plan.probes[0].creates_in_cluster.is_empty(),
            "what is refused is not created"
        );
        assert_eq!(plan.cost.cluster_objects, 0);
    }

    #[test]
    fn a_line_is_every_combination() {
        let manifest = manifest("a", Reach::Read, 1);
        let all = accesses(&manifest, &manifest.permissions[0]);
        assert_eq!(all.len(), 4);
        let Access::Resource(last) = &all[3] else {
            panic!("no resource")
        };
        assert_eq!(
            (
                last.resource.as_str(),
                last.subresource.as_str(),
                last.verb.as_str()
            ),
            ("pods", "log", "create")
        );
        assert_eq!(last.namespace, "karat-00000000-a-main");
    }

    #[test]
    fn lines_read_like_kubernetes() {
        let mut named = line(&["get"], &["nodes"], Scope::Cluster);
        named.names = vec!["n1".to_owned()];
        assert_eq!(describe(&named), "get nodes named n1");
        named.non_resource = vec!["/version".to_owned(), "/metrics".to_owned()];
        assert_eq!(describe(&named), "get /version, /metrics");
        let mut claims = line(&["create", "delete"], &["resourceclaims"], Scope::Sandbox);
        claims.api_groups = vec!["resource.k8s.io".to_owned()];
        assert_eq!(
            describe(&claims),
            "create delete resourceclaims.resource.k8s.io"
        );
    }
}
