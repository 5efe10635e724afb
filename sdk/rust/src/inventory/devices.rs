//! Which devices exist, which of them a pod could get now, and how to ask for exactly one of them.
//!
//! Only the newest generation of a complete pool counts: slices of older generations stay behind when a driver restarts or a
//! node goes, and a device that only they know is not there any more. Device names are not visible in CEL, so a device is
//! asked for by its attributes; where no attribute tells it apart, every device with the same attributes will do.

use super::{Node, nodes};
use crate::build::{ClaimSpec, DraVersion, claim_template};
use crate::{Object, Query, Result, Target, Value};
use std::collections::BTreeMap;

/// Most slices that are read. A cluster with more has devices enough among them, but a pool can no longer be called complete.
pub const MOST_SLICES: usize = 2000;
/// Usable devices that are compared with all others. More would only cost time: one that can be told apart is enough.
const LOOKED_AT: usize = 32;
/// Driver, pool and name: the identity of a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// Name of the driver.
    pub driver: String,
    /// Name of the pool.
    pub pool: String,
    /// Name of the device in its pool.
    pub device: String,
}

impl Key {
    /// From an entry of `status.allocation.devices.results`.
    pub fn of_result(result: &Value) -> Self {
        let text = |field: &str| result[field].as_str().unwrap_or_default().to_owned();
        Key {
            driver: text("driver"),
            pool: text("pool"),
            device: text("device"),
        }
    }
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}/{}", self.driver, self.pool, self.device)
    }
}

/// A device of the newest generation of a complete pool.
#[derive(Clone, Debug)]
pub struct Device {
    /// Which one it is.
    pub key: Key,
    /// The node that has it; empty where a selector or all nodes reach it.
    pub node: String,
    attributes: BTreeMap<String, Value>,
    /// Whether a pod of this probe could get it, apart from whether it is taken.
    reachable: bool,
    /// Whether it shares counters or is shared: what is free of it cannot be told from allocations alone.
    divided: bool,
}

/// A class through which the devices of a driver are asked for.
#[derive(Clone, Debug)]
struct Class {
    name: String,
    conditions: Vec<Condition>,
}

/// One part of a class's expression, as far as this probe understands it.
#[derive(Clone, Debug)]
enum Condition {
    Driver(String),
    Attribute {
        domain: String,
        name: String,
        value: String,
    },
    Other,
}

/// Words, each once and in their order. A set of the standard library is another kind of map, ten kilobytes of a component.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Words(Vec<String>);

impl Words {
    fn find(&self, word: &str) -> std::result::Result<usize, usize> {
        self.0.binary_search_by(|have| have.as_str().cmp(word))
    }

    fn insert(&mut self, word: String) {
        if let Err(at) = self.find(&word) {
            self.0.insert(at, word);
        }
    }

    fn remove(&mut self, word: &str) {
        if let Ok(at) = self.find(word) {
            self.0.remove(at);
        }
    }

    /// Whether this word is one of them.
    pub fn contains(&self, word: &str) -> bool {
        self.find(word).is_ok()
    }

    /// All of them.
    pub fn as_slice(&self) -> &[String] {
        &self.0
    }
}

/// What was found.
#[derive(Clone, Debug, Default)]
pub struct Devices {
    /// Devices of complete pools in their newest generation.
    pub all: Vec<Device>,
    /// Devices of slices of older generations, and of incomplete pools.
    pub stale: usize,
    /// Devices of allocated claims, as [`Key`] shows them.
    taken: Words,
    /// Versions of the kubelets of usable nodes.
    pub kubelets: Words,
    taints: Words,
    classes: Vec<Class>,
    truncated: bool,
}

/// One device to ask for.
#[derive(Clone, Debug)]
pub struct Choice {
    /// The DeviceClass to ask for.
    pub class: String,
    /// CEL that exactly the `fitting` devices satisfy.
    pub expression: String,
    /// CEL of the same form that no device satisfies.
    pub impossible: String,
    /// The devices that satisfy `expression`, taken ones included.
    pub fitting: Vec<Key>,
    /// Keys of the taints of all usable nodes.
    pub tolerate: Vec<String>,
}

impl Choice {
    /// Creates a template for claims that ask for one such device, in a namespace of the run.
    ///
    /// # Errors
    /// Those of the server and of the door.
    pub fn create_template(
        &self,
        version: DraVersion,
        namespace: &str,
        name: &str,
    ) -> Result<Object> {
        let spec = ClaimSpec::new(&self.class).cel(&self.expression);
        Target::new(&version.api_version(), "resourceclaimtemplates")
            .in_namespace(namespace)
            .create(&claim_template(version, name, &spec))
    }
}

/// The extended resources that drivers serve by their classes, so that no device plugin counts them.
///
/// # Errors
/// Those of the server and of the door: classes must be listable in the whole cluster.
pub fn extended_resources(version: DraVersion) -> Result<Vec<String>> {
    const NAME: &str = "/spec/extendedResourceName";
    let classes = Query::new(&version.api_version(), "deviceclasses");
    let classes = classes.keep(&[NAME]).list()?;
    Ok(classes
        .iter()
        .map(|class| class.text(NAME).to_owned())
        .collect())
}

/// Reads slices, nodes, claims and classes. Classes whose name ends in `ours`, the run id, are left out.
///
/// # Errors
/// Those of the server and of the door: all four must be listable in the whole cluster.
pub fn read(version: DraVersion, ours: &str) -> Result<Devices> {
    let query = |resource: &str| Query::new(&version.api_version(), resource);
    let mut found = Devices::default();
    let mut slices = Vec::new();
    let mut pages = query("resourceslices").keep(&["/spec"]).pages()?;
    while let Some(page) = pages.next_page()? {
        let foreign = |slice: &Object| {
            // Slices of this program, of this run or another one, hold no device.
            !slice.text("/spec/driver").ends_with(".karat.invalid")
        };
        slices.extend(page.into_iter().filter(foreign));
        if slices.len() > MOST_SLICES {
            found.truncated = true;
            break;
        }
    }
    if slices.is_empty() || found.truncated {
        return Ok(found);
    }

    let nodes = nodes()?;
    for node in &nodes {
        for taint in &node.taints {
            found.taints.insert(taint.clone());
        }
        found.kubelets.insert(node.kubelet.clone());
    }
    found.pools(version, &slices, &nodes);
    found.taken = taken(version)?;
    for class in query("deviceclasses").keep(&["/spec/selectors"]).list()? {
        if class.name().ends_with(ours) {
            continue;
        }
        let conditions = class
            .items("/spec/selectors")
            .iter()
            .filter_map(|selector| selector["cel"]["expression"].as_str())
            .flat_map(|text| text.split("&&").map(Condition::parse).collect::<Vec<_>>())
            .collect();
        found.classes.push(Class {
            name: class.name().to_owned(),
            conditions,
        });
    }
    Ok(found)
}

/// The devices of all allocated claims, as [`Key`] shows them.
///
/// # Errors
/// Those of the server and of the door.
pub fn taken(version: DraVersion) -> Result<Words> {
    let claims = Query::new(&version.api_version(), "resourceclaims")
        .keep(&["/status/allocation/devices/results"])
        .list()?;
    let mut taken = Words::default();
    for key in claims.iter().flat_map(allocated) {
        taken.insert(key.to_string());
    }
    Ok(taken)
}

/// The devices of a claim; none when it is not allocated.
pub fn allocated(claim: &Object) -> Vec<Key> {
    let results = claim.items("/status/allocation/devices/results");
    results.iter().map(Key::of_result).collect()
}

impl Devices {
    fn pools(&mut self, version: DraVersion, slices: &[Object], nodes: &[Node]) {
        // A list and not a map: each kind of map or sort is several kilobytes of a component, and pools are few.
        let mut pools: Vec<((&str, &str), Vec<&Object>)> = Vec::new();
        for slice in slices {
            let key = (slice.text("/spec/driver"), slice.text("/spec/pool/name"));
            match pools.iter_mut().find(|(have, _)| *have == key) {
                Some((_, slices)) => slices.push(slice),
                None => pools.push((key, vec![slice])),
            }
        }
        for ((driver, pool), slices) in pools {
            let generation =
                |slice: &&Object| slice.at("/spec/pool/generation").as_i64().unwrap_or(0);
            let newest = slices.iter().map(generation).max().unwrap_or(0);
            let (current, older): (Vec<&Object>, Vec<&Object>) = slices
                .into_iter()
                .partition(|slice| generation(slice) == newest);
            let complete = current.iter().all(|slice| {
                slice.at("/spec/pool/resourceSliceCount").as_u64() == Some(current.len() as u64)
            });
            let count = |slices: &[&Object]| -> usize {
                slices
                    .iter()
                    .map(|slice| slice.items("/spec/devices").len())
                    .sum()
            };
            self.stale += count(&older);
            if !complete {
                self.stale += count(&current);
                continue;
            }
            for slice in current {
                let shared = reachable(slice.at("/spec"), nodes);
                for device in slice.items("/spec/devices") {
                    let body = version.device_body(device);
                    let here = if slice.at("/spec/perDeviceNodeSelection") == true {
                        reachable(body, nodes)
                    } else {
                        shared
                    };
                    let tainted = body["taints"]
                        .as_array()
                        .is_some_and(|taints| taints.iter().any(|taint| taint["effect"] != "None"));
                    self.all.push(Device {
                        key: Key {
                            driver: driver.to_owned(),
                            pool: pool.to_owned(),
                            device: device["name"].as_str().unwrap_or_default().to_owned(),
                        },
                        node: [slice.at("/spec"), body]
                            .iter()
                            .find_map(|place| place["nodeName"].as_str())
                            .unwrap_or_default()
                            .to_owned(),
                        attributes: attributes(driver, body),
                        reachable: here && !tainted,
                        divided: body["consumesCounters"].is_array()
                            || body["allowMultipleAllocations"] == true,
                    });
                }
            }
        }
    }

    /// Whether this device is in the newest generation of a complete pool.
    pub fn has(&self, key: &Key) -> bool {
        self.all.iter().any(|device| device.key == *key)
    }

    /// Whether there were more slices than are read.
    pub fn is_truncated(&self) -> bool {
        self.truncated
    }

    /// Devices that a pod could get now.
    pub fn usable(&self) -> impl Iterator<Item = &Device> {
        self.all.iter().filter(|device| {
            device.reachable && !device.divided && !self.taken.contains(&device.key.to_string())
        })
    }

    /// Devices of one node that a pod could get now.
    pub fn usable_on(&self, node: &str) -> impl Iterator<Item = &Device> {
        self.usable().filter(move |device| device.node == node)
    }

    /// Usable devices of a class that is understood, on each of these nodes.
    pub fn of_class(&self, class: &str, nodes: &[&str]) -> Vec<u64> {
        let class = self.classes.iter().find(|have| have.name == class);
        let mut counts = vec![0; nodes.len()];
        for device in self.usable() {
            let at = nodes.iter().position(|node| device.node == *node);
            let fits =
                class.is_some_and(|class| class.names(&device.key.driver) && class.fits(device));
            if let Some(at) = at.filter(|_| fits) {
                counts[at] += 1;
            }
        }
        counts
    }

    /// The class through which most usable devices of these nodes can be had, with their number on each of them.
    pub fn most_of_one_class(&self, nodes: &[&str]) -> Option<(String, Vec<u64>)> {
        let counted = self
            .classes
            .iter()
            .map(|class| (class.name.clone(), self.of_class(&class.name, nodes)));
        let total = |counts: &[u64]| counts.iter().sum::<u64>();
        let mut best: Option<(String, Vec<u64>)> = None;
        for (name, counts) in counted {
            let most = best.as_ref().map_or(0, |(_, have)| total(have));
            if total(&counts) > most {
                best = Some((name, counts));
            }
        }
        best
    }

    /// Counts devices as free again: those that the probe itself holds.
    pub fn release(&mut self, held: impl IntoIterator<Item = Key>) {
        for key in held {
            self.taken.remove(&key.to_string());
        }
    }

    /// A device to ask for: the one that the fewest others resemble, of a class that is understood.
    pub fn choose(&self, run: &str) -> Option<Choice> {
        self.choose_of(self.usable(), run)
    }

    /// As [`Devices::choose`], among the devices of one node.
    pub fn choose_on(&self, node: &str, run: &str) -> Option<Choice> {
        self.choose_of(self.usable_on(node), run)
    }

    fn choose_of<'a>(
        &'a self,
        devices: impl Iterator<Item = &'a Device>,
        run: &str,
    ) -> Option<Choice> {
        devices
            .take(LOOKED_AT)
            .filter_map(|device| self.ask_for(device, run))
            // Among equals the first, in the order of the lists.
            .min_by_key(|choice| choice.fitting.len())
    }

    /// How to ask for one device; none when no class that is understood selects it.
    pub fn ask_for(&self, device: &Device, run: &str) -> Option<Choice> {
        let class = self.class_for(device)?;
        let driver = &device.key.driver;
        let of_driver: Vec<&Device> = self
            .all
            .iter()
            .filter(|other| other.key.driver == *driver && class.fits(other))
            .collect();
        let base = format!("device.driver == {}", quoted(driver));
        let told: Vec<(&String, &Value)> = device
            .attributes
            .iter()
            .filter(|(name, value)| term(name, value).is_some())
            .collect();
        let alike = |names: &[(&String, &Value)]| -> Vec<&Device> {
            of_driver
                .iter()
                .copied()
                .filter(|other| {
                    names
                        .iter()
                        .all(|(name, value)| other.attributes.get(*name) == Some(value))
                })
                .collect()
        };
        // One attribute that tells it apart, else all of them together.
        let single = told
            .iter()
            .find(|attribute| alike(&[**attribute]).len() == 1);
        let used = single.map_or_else(|| told.clone(), |attribute| vec![*attribute]);
        let expression = used
            .iter()
            .filter_map(|(name, value)| term(name, value))
            .fold(base.clone(), |all, term| format!("{all} && {term}"));
        // The same attribute with a value that no device can have, where its type has one.
        let strange = used.iter().find_map(|(name, value)| match value {
            Value::String(_) => term(name, &Value::from(format!("none-{run}"))),
            Value::Number(_) => term(name, &Value::from(i64::MAX - 1)),
            _ => None,
        });
        let impossible = match strange {
            Some(term) => format!("{base} && {term}"),
            None => format!(
                "device.driver == {}",
                quoted(&format!("none-{run}.invalid"))
            ),
        };
        Some(Choice {
            class: class.name.clone(),
            expression,
            impossible,
            fitting: alike(&used)
                .into_iter()
                .map(|device| device.key.clone())
                .collect(),
            tolerate: self.taints.as_slice().to_vec(),
        })
    }

    /// The class of a device: of those that are understood and fit, the one with the driver's name, else the first.
    fn class_for(&self, device: &Device) -> Option<&Class> {
        self.classes
            .iter()
            .filter(|class| class.names(&device.key.driver) && class.fits(device))
            .min_by_key(|class| class.name != device.key.driver)
    }
}

impl Class {
    /// Whether the class is about this driver.
    fn names(&self, driver: &str) -> bool {
        self.conditions
            .iter()
            .any(|condition| matches!(condition, Condition::Driver(name) if name == driver))
    }

    /// Whether the class is understood and lets the device through.
    fn fits(&self, device: &Device) -> bool {
        self.conditions.iter().all(|condition| match condition {
            Condition::Driver(name) => *name == device.key.driver,
            Condition::Attribute {
                domain,
                name,
                value,
            } => device
                .attributes
                .get(&format!("{domain}/{name}"))
                .is_some_and(|have| match have {
                    Value::String(text) => text == value,
                    Value::Number(number) => number.as_i64() == value.parse().ok(),
                    Value::Bool(have) => Some(*have) == value.parse().ok(),
                    _ => false,
                }),
            Condition::Other => false,
        })
    }
}

impl Condition {
    fn parse(text: &str) -> Condition {
        let unquoted = |text: &str| -> Option<String> {
            let text = text.trim();
            ['"', '\''].iter().find_map(|quote| {
                let inner = text.strip_prefix(*quote)?.strip_suffix(*quote)?;
                (!inner.contains(['"', '\'', '\\'])).then(|| inner.to_owned())
            })
        };
        let parsed = || {
            let (left, right) = text.split_once("==")?;
            if left.trim() == "device.driver" {
                return Some(Condition::Driver(unquoted(right)?));
            }
            let rest = left.trim().strip_prefix("device.attributes[")?;
            let (domain, name) = rest.split_once("].")?;
            let value = unquoted(right).or_else(|| {
                let word = right.trim();
                (word == "true" || word == "false" || word.parse::<i64>().is_ok())
                    .then(|| word.to_owned())
            })?;
            is_identifier(name).then_some(Condition::Attribute {
                domain: unquoted(domain)?,
                name: name.to_owned(),
                value,
            })
        };
        parsed().unwrap_or(Condition::Other)
    }
}

/// The attributes that CEL can compare simply, by qualified name. Versions and lists are left out.
fn attributes(driver: &str, body: &Value) -> BTreeMap<String, Value> {
    // Inserted one by one: to collect into a map sorts first, and the library's sort costs a component six kilobytes.
    let mut simple = BTreeMap::new();
    for (name, typed) in body["attributes"].as_object().into_iter().flatten() {
        let name = if name.contains('/') {
            name.clone()
        } else {
            format!("{driver}/{name}")
        };
        let mut kinds = ["string", "int", "bool"].iter().map(|kind| &typed[*kind]);
        if let Some(value) = kinds.find(|value| !value.is_null()) {
            simple.insert(name, value.clone());
        }
    }
    simple
}

/// `"name" in device.attributes["domain"] && device.attributes["domain"].name == value`. The first half keeps devices without the
/// attribute from ending the evaluation with an error.
fn term(name: &str, value: &Value) -> Option<String> {
    let (domain, name) = name.split_once('/')?;
    if !is_identifier(name) {
        return None;
    }
    let literal = match value {
        Value::String(text) => quoted(text),
        Value::Number(_) | Value::Bool(_) => value.to_string(),
        _ => return None,
    };
    let map = format!("device.attributes[{}]", quoted(domain));
    Some(format!(
        "{} in {map} && {map}.{name} == {literal}",
        quoted(name)
    ))
}

fn is_identifier(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// A CEL string. JSON's escapes are CEL's.
fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

/// Whether `nodeName`, `nodeSelector` or `allNodes` reaches one of the nodes.
fn reachable(spec: &Value, nodes: &[Node]) -> bool {
    if spec["allNodes"] == true {
        return !nodes.is_empty();
    }
    if let Some(name) = spec["nodeName"].as_str() {
        return nodes.iter().any(|node| node.name == name);
    }
    let terms = spec["nodeSelector"]["nodeSelectorTerms"].as_array();
    terms.is_some_and(|terms| {
        nodes
            .iter()
            .any(|node| terms.iter().any(|term| selects(term, node)))
    })
}

/// Whether one term of a node selector selects the node. Operators that compare numbers are taken as no.
fn selects(term: &Value, node: &Node) -> bool {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let fields = list(&term["matchFields"]);
    let labels = list(&term["matchExpressions"]);
    if fields.is_empty() && labels.is_empty() {
        return false;
    }
    let holds = |requirement: &Value, value: Option<&str>| {
        let values = list(&requirement["values"]);
        let within = value.is_some_and(|value| values.iter().any(|have| have == value));
        match requirement["operator"].as_str().unwrap_or_default() {
            "In" => within,
            "NotIn" => !within,
            "Exists" => value.is_some(),
            "DoesNotExist" => value.is_none(),
            _ => false,
        }
    };
    fields.iter().all(|requirement| {
        requirement["key"] == "metadata.name" && holds(requirement, Some(&node.name))
    }) && labels.iter().all(|requirement| {
        let key = requirement["key"].as_str().unwrap_or_default();
        holds(requirement, node.labels[key].as_str())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json;

    #[test]
    fn words_are_kept_once_and_in_their_order() {
        let mut words = Words::default();
        for word in ["b", "a", "c", "a"] {
            words.insert(word.to_owned());
        }
        assert_eq!(words.as_slice(), ["a", "b", "c"]);
        words.remove("b");
        words.remove("x");
        assert!(words.contains("c") && !words.contains("b"));
    }

    #[test]
    fn classes_are_read_as_far_as_they_are_simple() {
        assert!(
            matches!(Condition::parse(" device.driver == 'gpu.nvidia.com' "), Condition::Driver(name) if name == "gpu.nvidia.com")
        );
        assert!(matches!(
            Condition::parse(r#"device.attributes["gpu.nvidia.com"].type == "gpu""#),
            Condition::Attribute { name, value, .. } if name == "type" && value == "gpu"
        ));
        for other in [
            "device.driver.startsWith('gpu')",
            "a || device.driver == 'x'",
            "true",
            "!(device.driver == 'x')",
        ] {
            assert!(
                matches!(Condition::parse(other), Condition::Other),
                "{other}"
            );
        }
    }

    #[test]
    fn selectors_reach_nodes() {
        let node = Node {
            name: "n1".into(),
            labels: json!({"zone": "a"}),
            ..Node::default()
        };
        let by = |key: &str, operator: &str, values: Value| json!({"matchExpressions": [{"key": key, "operator": operator, "values": values}]});
        assert!(selects(&by("zone", "In", json!(["a", "b"])), &node));
        assert!(!selects(&by("zone", "NotIn", json!(["a"])), &node));
        assert!(selects(&by("rack", "DoesNotExist", Value::Null), &node));
        assert!(!selects(&json!({}), &node));
        assert!(selects(
            &json!({"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n1"]}]}),
            &node
        ));
        assert!(reachable(&json!({"nodeName": "n1"}), &[node]));
        assert!(!reachable(&json!({"allNodes": true}), &[]));
    }

    #[test]
    fn values_cannot_leave_their_literal() {
        let term = term("d.example/model", &json!("a\" || true || \"")).unwrap();
        assert!(term.ends_with(r#".model == "a\" || true || \"""#), "{term}");
        assert!(super::term("d.example/bad-name", &json!("x")).is_none());
    }
}
