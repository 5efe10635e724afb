//! What the probe knows of each operator: names, one valid object, one flaw that only its webhook sees, what must come of it.
//!
//! All of it is data (`operators/*.json`); a further operator is a further file and its lines in `probe.toml`. In its texts
//! `@name` stands for the object's name, `@pod` for the spec of a pod that ends, `@stays` for one that does not, `@gated`
//! for one that no scheduler takes, `@pod/node` for one whose container is called `node`. All of them lie on the nodes of the lease.

use karat_sdk::build::{PodBuilder, from_text};
use karat_sdk::leases::LeasedNode;
use karat_sdk::{Result, Value, json, run};

use crate::manifest::images;

/// AI operators first; the others count where none of them is installed.
const TEXTS: [&str; 3] = [
    include_str!("operators/trainer.json"),
    include_str!("operators/jobset.json"),
    include_str!("operators/leaderworkerset.json"),
];

/// One operator.
#[derive(Clone, Debug)]
pub(crate) struct Operator {
    data: Value,
}

impl Operator {
    /// Those that the probe knows, in the order in which one is chosen.
    pub(crate) fn all() -> impl Iterator<Item = Operator> {
        TEXTS.into_iter().map(|text| Operator {
            data: from_text(text),
        })
    }

    pub(crate) fn text(&self, field: &str) -> &str {
        self.data[field].as_str().unwrap_or_default()
    }

    /// Whether it is an operator for AI in particular.
    pub(crate) fn is_specific(&self) -> bool {
        self.data["specific"] == true
    }

    /// `jobsets.jobset.x-k8s.io`.
    pub(crate) fn definition(&self) -> String {
        format!("{}.{}", self.text("resource"), self.text("group"))
    }

    /// The version of its kind that is spoken here, if the definition serves it.
    pub(crate) fn version<'a>(&self, definition: &'a Value) -> Option<&'a str> {
        let known = self.data["versions"].as_array().map(Vec::as_slice);
        let served = definition["spec"]["versions"].as_array()?;
        let mut names = served
            .iter()
            .filter(|version| version["served"] == true)
            .filter_map(|version| version["name"].as_str());
        names.find(|name| known.unwrap_or_default().iter().any(|known| known == name))
    }

    /// A valid object with pods on these nodes. `lasting` stays as it is until it is deleted, `short` comes to an end; none if there
    /// is no such one.
    pub(crate) fn object(
        &self,
        which: &str,
        version: &str,
        name: &str,
        nodes: &[LeasedNode],
    ) -> Result<Option<Value>> {
        self.filled(self.text("kind"), &self.data[which], version, name, nodes)
    }

    /// What must be there before a valid object of the same name, with its resource: what a TrainJob runs. None where an object says
    /// everything itself.
    pub(crate) fn first(
        &self,
        which: &str,
        version: &str,
        name: &str,
        nodes: &[LeasedNode],
    ) -> Result<Option<Value>> {
        let first = &self.data["first"];
        let kind = first["kind"].as_str().unwrap_or_default();
        self.filled(kind, &first[which], version, name, nodes)
    }

    /// The resource of [`Operator::first`].
    pub(crate) fn first_resource(&self) -> &str {
        self.data["first"]["resource"].as_str().unwrap_or_default()
    }

    /// An object of the operator's group; none without a spec.
    fn filled(
        &self,
        kind: &str,
        spec: &Value,
        version: &str,
        name: &str,
        nodes: &[LeasedNode],
    ) -> Result<Option<Value>> {
        if spec.is_null() {
            return Ok(None);
        }
        let mut spec = spec.clone();
        let image = run::image(images::SHELL)?;
        let filling = Filling {
            name,
            image: &image,
            nodes,
        };
        filling.fill(&mut spec);
        Ok(Some(json!({
            "apiVersion": format!("{}/{version}", self.text("group")),
            "kind": kind,
            "metadata": {"name": name},
            "spec": spec,
        })))
    }

    /// The lasting object with the flaw.
    pub(crate) fn flawed(
        &self,
        version: &str,
        name: &str,
        nodes: &[LeasedNode],
    ) -> Result<Option<Value>> {
        let mut object = self.object("lasting", version, name, nodes)?;
        if let Some(object) = &mut object {
            for (field, value) in self.data["flaw"].as_object().into_iter().flatten() {
                object["spec"][field] = value.clone();
            }
        }
        Ok(object)
    }

    /// What is edited in the spec of the lasting object.
    pub(crate) fn change(&self) -> Value {
        json!({"spec": self.data["change"]})
    }

    /// Whether a child shows the edit.
    pub(crate) fn has_followed(&self, child: &Value) -> bool {
        self.data["changed"]
            .as_object()
            .into_iter()
            .flatten()
            .all(|(pointer, wanted)| child.pointer(pointer) == Some(wanted))
    }

    /// API version and resource of the objects that it makes, and how many of them there must be.
    pub(crate) fn child(&self) -> (&str, &str, usize) {
        let child = &self.data["child"];
        let count = child["count"].as_u64().unwrap_or(1);
        (
            child["api-version"].as_str().unwrap_or_default(),
            child["resource"].as_str().unwrap_or_default(),
            usize::try_from(count).unwrap_or(1),
        )
    }

    /// A part of how it heals: `api-version`, `resource`, the selector of what is deleted (`delete`) and of what comes back
    /// under another uid (`returns`). Empty where a child is deleted and comes back.
    pub(crate) fn heal(&self, part: &str, name: &str) -> String {
        let text = self.data["heal"][part].as_str().unwrap_or_default();
        text.replace("@name", name)
    }
}

/// What stands for the words of the texts.
struct Filling<'a> {
    name: &'a str,
    image: &'a str,
    nodes: &'a [LeasedNode],
}

impl Filling<'_> {
    fn fill(&self, value: &mut Value) {
        match value {
            Value::String(text) if text == "@name" => *value = json!(self.name),
            Value::String(text) if text.starts_with('@') => *value = self.pod(text),
            Value::Object(fields) => fields.values_mut().for_each(|value| self.fill(value)),
            Value::Array(items) => items.iter_mut().for_each(|value| self.fill(value)),
            _ => {}
        }
    }

    /// The spec of a pod.
    fn pod(&self, text: &str) -> Value {
        let (kind, container) = text.split_once('/').unwrap_or((text, ""));
        let stays = kind == "@stays";
        let sleep = if stays { "3600" } else { "1" };
        let mut pod = PodBuilder::tool("filled", self.image)
            .command(&["sleep", sleep])
            .on_leased(self.nodes)
            .build();
        let mut spec = pod["spec"].take();
        if !container.is_empty() {
            spec["containers"][0]["name"] = json!(container);
        }
        if kind == "@gated" {
            spec["schedulingGates"] = json!([{"name": "karat.internal/held"}]);
        }
        // A StatefulSet takes no pod that ends.
        if let Some(spec) = spec.as_object_mut().filter(|_| stays) {
            spec.remove("restartPolicy");
            spec.remove("activeDeadlineSeconds");
        }
        spec
    }
}
