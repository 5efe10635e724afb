//! ResourceClaims and their templates, one form per API version.
//!
//! `v1` and `v1beta2` wrap the request in `exactly`; in `v1beta1` the same fields sit in the request itself.

use crate::discovery::Discovery;
use crate::error::Result;
use serde_json::{Value, json};

/// Versions of `resource.k8s.io` that the builders know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DraVersion {
    /// Stable since Kubernetes 1.34.
    V1,
    /// Since 1.33, gone in 1.39.
    V1Beta2,
    /// Since 1.32, gone in 1.38.
    V1Beta1,
}

impl DraVersion {
    /// The group of all versions.
    pub const GROUP: &str = "resource.k8s.io";
    /// What to give to [`Discovery::newest`].
    pub const KNOWN: &[&str] = &["v1", "v1beta2", "v1beta1"];

    /// The version of this name; none for one that the builders do not know.
    pub fn parse(version: &str) -> Option<Self> {
        match version {
            "v1" => Some(DraVersion::V1),
            "v1beta2" => Some(DraVersion::V1Beta2),
            "v1beta1" => Some(DraVersion::V1Beta1),
            _ => None,
        }
    }

    /// The newest version that a server has and the builders know; none when it has nothing of the group.
    ///
    /// # Errors
    /// As [`Discovery::newest`].
    pub fn newest(discovery: &Discovery) -> Result<Option<Self>> {
        let newest = discovery.newest(DraVersion::GROUP, DraVersion::KNOWN)?;
        Ok(newest.as_deref().and_then(DraVersion::parse))
    }

    /// `v1`.
    pub fn as_str(self) -> &'static str {
        match self {
            DraVersion::V1 => "v1",
            DraVersion::V1Beta2 => "v1beta2",
            DraVersion::V1Beta1 => "v1beta1",
        }
    }

    /// `resource.k8s.io/v1`.
    pub fn api_version(self) -> String {
        format!("{}/{}", DraVersion::GROUP, self.as_str())
    }

    /// A device of a ResourceSlice in the form of this version: `v1beta1` wraps attributes and capacity in `basic`.
    pub fn device(self, name: &str, attributes: &Value, capacity: &Value) -> Value {
        let body = json!({"attributes": attributes, "capacity": capacity});
        match self {
            DraVersion::V1Beta1 => json!({"name": name, "basic": body}),
            DraVersion::V1 | DraVersion::V1Beta2 => {
                json!({"name": name, "attributes": attributes, "capacity": capacity})
            }
        }
    }

    /// Attributes, capacity and taints of a device, wherever this version keeps them.
    pub fn device_body(self, device: &Value) -> &Value {
        match self {
            DraVersion::V1Beta1 => &device["basic"],
            DraVersion::V1 | DraVersion::V1Beta2 => device,
        }
    }
}

/// One request for devices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimSpec {
    request: String,
    class: String,
    count: u32,
    selectors: Vec<String>,
}

impl ClaimSpec {
    /// Exactly one device of a class; the request is called `device`.
    pub fn new(class: &str) -> Self {
        ClaimSpec {
            request: "device".to_owned(),
            class: class.to_owned(),
            count: 1,
            selectors: Vec::new(),
        }
    }

    /// Another name for the request.
    #[must_use]
    pub fn request(mut self, name: &str) -> Self {
        self.request = name.to_owned();
        self
    }

    /// So many devices.
    #[must_use]
    pub fn count(mut self, count: u32) -> Self {
        self.count = count;
        self
    }

    /// One more CEL expression that every device must satisfy.
    #[must_use]
    pub fn cel(mut self, expression: &str) -> Self {
        self.selectors.push(expression.to_owned());
        self
    }

    /// The entry of `spec.devices.requests`.
    pub fn to_request(&self, version: DraVersion) -> Value {
        let mut exactly = json!({
            "deviceClassName": self.class,
            "allocationMode": "ExactCount",
            "count": self.count,
        });
        if !self.selectors.is_empty() {
            exactly["selectors"] = self
                .selectors
                .iter()
                .map(|expression| json!({"cel": {"expression": expression}}))
                .collect();
        }
        match version {
            DraVersion::V1 | DraVersion::V1Beta2 => {
                json!({"name": self.request, "exactly": exactly})
            }
            DraVersion::V1Beta1 => {
                exactly["name"] = json!(self.request);
                exactly
            }
        }
    }

    fn to_spec(&self, version: DraVersion) -> Value {
        json!({"devices": {"requests": [self.to_request(version)]}})
    }
}

/// A ResourceClaim.
pub fn claim(version: DraVersion, name: &str, spec: &ClaimSpec) -> Value {
    json!({
        "apiVersion": version.api_version(),
        "kind": "ResourceClaim",
        "metadata": {"name": name},
        "spec": spec.to_spec(version),
    })
}

/// A ResourceClaimTemplate.
pub fn claim_template(version: DraVersion, name: &str, spec: &ClaimSpec) -> Value {
    json!({
        "apiVersion": version.api_version(),
        "kind": "ResourceClaimTemplate",
        "metadata": {"name": name},
        "spec": {"spec": spec.to_spec(version)},
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_version_has_its_form() {
        let spec = ClaimSpec::new("gpu.nvidia.com").cel("device.driver == \"gpu.nvidia.com\"");
        let v1 = claim(DraVersion::V1, "c-abcd2345", &spec);
        assert_eq!(v1["apiVersion"], "resource.k8s.io/v1");
        assert_eq!(
            v1["spec"]["devices"]["requests"][0]["exactly"]["deviceClassName"],
            "gpu.nvidia.com"
        );
        let old = claim_template(DraVersion::V1Beta1, "t-abcd2345", &spec);
        let request = &old["spec"]["spec"]["devices"]["requests"][0];
        assert_eq!(request["deviceClassName"], "gpu.nvidia.com");
        assert_eq!(
            request["selectors"][0]["cel"]["expression"],
            "device.driver == \"gpu.nvidia.com\""
        );
        assert!(request["exactly"].is_null());
    }
}
