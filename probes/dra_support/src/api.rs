//! Which version of `resource.k8s.io` this run speaks, and the objects it creates in it.
//!
//! No object here can reach hardware: the driver lies below `.invalid`, which no program can serve, and the slice selects a
//! node by a name that no node has.

use karat_sdk::build::{ClaimSpec, DraVersion, claim, claim_template, from_text};
use karat_sdk::{Query, Target, Value, json, run};

/// Label that tells the sets of objects of one check apart.
pub(crate) const SET: &str = "dra-support/set";

const SLICE: &str = r#"{
    "kind": "ResourceSlice",
    "metadata": {},
    "spec": {
        "pool": {"generation": 1, "resourceSliceCount": 1},
        "nodeSelector": {"nodeSelectorTerms": [
            {"matchFields": [{"key": "metadata.name", "operator": "In", "values": [null]}]}
        ]},
        "devices": [null, null]
    }
}"#;
const ATTRIBUTES: &str = r#"{
    "model": {"string": "none"},
    "index": {"int": 0},
    "healthy": {"bool": true},
    "firmware": {"version": "1.2.3"}
}"#;

/// The version that is spoken, and the sandbox.
#[derive(Clone, Debug)]
pub(crate) struct Api {
    pub(crate) version: DraVersion,
    pub(crate) namespace: String,
}

impl Api {
    pub(crate) fn query(&self, resource: &str) -> Query {
        Query::new(&self.version.api_version(), resource)
    }

    pub(crate) fn cluster(&self, resource: &str) -> Target {
        Target::new(&self.version.api_version(), resource)
    }

    pub(crate) fn sandboxed(&self, resource: &str) -> Target {
        self.cluster(resource).in_namespace(&self.namespace)
    }

    fn named(&self, mut object: Value, prefix: &str, set: &str) -> Value {
        object["apiVersion"] = json!(self.version.api_version());
        object["metadata"]["name"] = json!(run::name(prefix));
        object["metadata"]["labels"][SET] = json!(set);
        object
    }

    pub(crate) fn device_class(&self, prefix: &str, set: &str) -> Value {
        let mut object = from_text(
            r#"{"kind": "DeviceClass", "metadata": {}, "spec": {"selectors": [{"cel": {}}]}}"#,
        );
        object["spec"]["selectors"][0]["cel"]["expression"] =
            json!(format!("device.driver == \"{}\"", driver()));
        self.named(object, prefix, set)
    }

    /// Two devices with one attribute of each kind and one capacity, on a node that does not exist.
    pub(crate) fn resource_slice(&self, prefix: &str, set: &str) -> Value {
        let mut object = from_text(SLICE);
        let attributes = from_text(ATTRIBUTES);
        let capacity = from_text(r#"{"memory": {"value": "1Gi"}}"#);
        object["spec"]["driver"] = json!(driver());
        object["spec"]["pool"]["name"] = json!(run::name(prefix));
        object["spec"]["nodeSelector"]["nodeSelectorTerms"][0]["matchFields"][0]["values"][0] =
            json!(run::name("none"));
        for (at, name) in ["device-0", "device-1"].iter().enumerate() {
            object["spec"]["devices"][at] = self.version.device(name, &attributes, &capacity);
        }
        self.named(object, prefix, set)
    }

    pub(crate) fn claim_template(&self, prefix: &str, set: &str) -> Value {
        let object = claim_template(self.version, &run::name(prefix), &unreachable_request());
        self.named(object, prefix, set)
    }

    pub(crate) fn claim(&self, prefix: &str, set: &str) -> Value {
        let object = claim(self.version, &run::name(prefix), &unreachable_request());
        self.named(object, prefix, set)
    }
}

/// A driver name of this run that nothing can serve.
pub(crate) fn driver() -> String {
    format!("{}.karat.invalid", run::name("dra-support"))
}

/// A request with an attribute selector, for a class that does not exist.
fn unreachable_request() -> ClaimSpec {
    let driver = driver();
    ClaimSpec::new(&run::name("none")).cel(&format!(
        "device.driver == \"{driver}\" && device.attributes[\"{driver}\"].model == \"none\""
    ))
}
