//! Which version of `resource.k8s.io` this run speaks, and the objects it creates in it.
//!
//! No object here can reach hardware: the driver lies below `.invalid`, which no program can serve, and the slice selects a
//! node by a name that no node has.

use karat_sdk::build::{ClaimSpec, DraVersion, claim, claim_template};
use karat_sdk::{Query, Target, Value, json, run};

/// Label that tells the sets of objects of one check apart.
pub(crate) const SET: &str = "dra-support/set";

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

    fn labelled(mut object: Value, set: &str) -> Value {
        object["metadata"]["labels"] = json!({SET: set});
        object
    }

    pub(crate) fn device_class(&self, prefix: &str, set: &str) -> Value {
        let expression = format!("device.driver == \"{}\"", driver());
        let object = json!({
            "apiVersion": self.version.api_version(),
            "kind": "DeviceClass",
            "metadata": {"name": run::name(prefix)},
            "spec": {"selectors": [{"cel": {"expression": expression}}]},
        });
        Api::labelled(object, set)
    }

    /// Two devices with one attribute of each kind and one capacity, on a node that does not exist.
    pub(crate) fn resource_slice(&self, prefix: &str, set: &str) -> Value {
        let device = |name: &str, index: i64| {
            self.version.device(
                name,
                &json!({
                    "model": {"string": "none"},
                    "index": {"int": index},
                    "healthy": {"bool": true},
                    "firmware": {"version": "1.2.3"},
                }),
                &json!({"memory": {"value": "1Gi"}}),
            )
        };
        let object = json!({
            "apiVersion": self.version.api_version(),
            "kind": "ResourceSlice",
            "metadata": {"name": run::name(prefix)},
            "spec": {
                "driver": driver(),
                "pool": {"name": run::name(prefix), "generation": 1, "resourceSliceCount": 1},
                "nodeSelector": {"nodeSelectorTerms": [
                    {"matchFields": [{"key": "metadata.name", "operator": "In", "values": [run::name("none")]}]},
                ]},
                "devices": [device("device-0", 0), device("device-1", 1)],
            },
        });
        Api::labelled(object, set)
    }

    pub(crate) fn claim_template(&self, prefix: &str, set: &str) -> Value {
        let object = claim_template(self.version, &run::name(prefix), &unreachable_request());
        Api::labelled(object, set)
    }

    pub(crate) fn claim(&self, prefix: &str, set: &str) -> Value {
        let object = claim(self.version, &run::name(prefix), &unreachable_request());
        Api::labelled(object, set)
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
