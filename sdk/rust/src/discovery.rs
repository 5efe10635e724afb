//! What the server serves, and which version a probe should speak.
//!
//! A check that is written for one API version skips or crashes on another. So: discovery first, one builder per version, and
//! a cluster that serves only versions the probe does not know is `unknown (version_skew)`, never a silent pass.

use crate::error::{Error, Result};
use crate::host;
use serde_json::Value;
use std::cmp::Ordering;

/// The discovery documents of a server, read once.
///
/// Kept as JSON and looked up by hand: derived readers for three small types would be a tenth of a probe's size.
#[derive(Clone, Debug)]
pub struct Discovery {
    version: ServerVersion,
    document: Value,
}

/// The answer of `/version`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerVersion {
    /// Major number, as the server writes it.
    pub major: String,
    /// Minor number, as the server writes it; some platforms append a `+`.
    pub minor: String,
    /// `v1.37.0`, often with a suffix of the platform.
    pub git_version: String,
}

impl ServerVersion {
    /// Whether the server is at least of this Kubernetes version; none when its numbers cannot be read.
    pub fn at_least(&self, major: u32, minor: u32) -> Option<bool> {
        let number = |text: &str| -> Option<u32> {
            let digits: String = text.chars().take_while(char::is_ascii_digit).collect();
            digits.parse().ok()
        };
        Some((number(&self.major)?, number(&self.minor)?) >= (major, minor))
    }
}

/// One resource that a version serves.
#[derive(Clone, Copy, Debug)]
pub struct ServedResource<'a>(&'a Value);

impl ServedResource<'_> {
    /// Kind of its objects.
    pub fn kind(&self) -> &str {
        self.0["kind"].as_str().unwrap_or_default()
    }

    /// Whether its objects live in namespaces.
    pub fn is_namespaced(&self) -> bool {
        self.0["namespaced"] == true
    }

    /// Whether it has this verb: `list`, `watch`, …
    pub fn has_verb(&self, verb: &str) -> bool {
        items(&self.0["verbs"]).iter().any(|have| have == verb)
    }

    /// Whether it has this subresource: `status`, `scale`, …
    pub fn has_subresource(&self, name: &str) -> bool {
        items(&self.0["subresources"])
            .iter()
            .any(|have| have == name)
    }
}

fn items(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

impl Discovery {
    /// Asks the server.
    ///
    /// # Errors
    /// Those of the server and of the door.
    pub fn read() -> Result<Self> {
        Discovery::parse(serde_json::from_str(&host::discover()?)?)
    }

    fn parse(document: Value) -> Result<Self> {
        if !document["groups"].is_array() {
            return Err(Error::Unexpected(
                "a discovery document without groups".into(),
            ));
        }
        let text = |field: &str| {
            document["version"][field]
                .as_str()
                .unwrap_or_default()
                .to_owned()
        };
        Ok(Discovery {
            version: ServerVersion {
                major: text("major"),
                minor: text("minor"),
                git_version: text("gitVersion"),
            },
            document,
        })
    }

    fn group(&self, group: &str) -> impl Iterator<Item = &Value> {
        items(&self.document["groups"])
            .iter()
            .filter(move |have| have["group"] == group)
            .flat_map(|have| items(&have["versions"]))
    }

    /// The server's version.
    pub fn version(&self) -> &ServerVersion {
        &self.version
    }

    /// The versions of a group, newest first; empty when the group is not served.
    pub fn versions(&self, group: &str) -> Vec<&str> {
        let mut versions: Vec<&str> = Vec::new();
        // Inserted one by one: sorting half a dozen words with the library's sort costs a component six kilobytes.
        for version in self
            .group(group)
            .filter_map(|have| have["version"].as_str())
        {
            let at = versions
                .iter()
                .take_while(|have| compare(have, version) != Ordering::Less)
                .count();
            versions.insert(at, version);
        }
        versions
    }

    /// The newest version of a group that is served and in `known`; none when the group is absent or has only versions older
    /// than every known one.
    ///
    /// # Errors
    /// [`Error::VersionSkew`] when only versions are served that are newer than what the probe knows.
    pub fn newest(&self, group: &str, known: &[&str]) -> Result<Option<String>> {
        let served = self.versions(group);
        if let Some(found) = served.iter().find(|version| known.contains(version)) {
            return Ok(Some((*found).to_owned()));
        }
        let newest_known = known.iter().copied().max_by(|a, b| compare(a, b));
        let newer = served.first().is_some_and(|version| {
            newest_known.is_none_or(|known| compare(version, known) == Ordering::Greater)
        });
        if newer {
            return Err(Error::VersionSkew(format!(
                "{group} is served only as {}, and this probe knows {}; use a newer probe",
                served.join(", "),
                known.join(", ")
            )));
        }
        Ok(None)
    }

    /// What a version serves under this plural name.
    pub fn resource(&self, group: &str, version: &str, name: &str) -> Option<ServedResource<'_>> {
        self.group(group)
            .filter(|have| have["version"] == version)
            .flat_map(|have| items(&have["resources"]))
            .find(|have| have["name"] == name)
            .map(ServedResource)
    }
}

/// Kubernetes' order of versions: `v2` > `v1` > `v1beta2` > `v1beta1` > `v1alpha1` > anything else.
fn compare(a: &str, b: &str) -> Ordering {
    fn rank(version: &str) -> Option<(u8, u32, u32)> {
        let rest = version.strip_prefix('v')?;
        let digits = rest
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(rest.len());
        let (major, rest) = rest.split_at(digits);
        let major = major.parse().ok()?;
        if rest.is_empty() {
            return Some((2, major, 0));
        }
        if let Some(minor) = rest.strip_prefix("beta") {
            return Some((1, major, minor.parse().ok()?));
        }
        let minor = rest.strip_prefix("alpha")?.parse().ok()?;
        Some((0, major, minor))
    }
    match (rank(a), rank(b)) {
        (Some(a), Some(b)) => a.cmp(&b),
        (Some(_), None) => Ordering::Greater,
        (None, Some(_)) => Ordering::Less,
        (None, None) => b.cmp(a),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn serving(versions: &[&str]) -> Discovery {
        let versions: Vec<_> = versions
            .iter()
            .map(|version| json!({"version": version, "preferred": false, "resources": []}))
            .collect();
        Discovery::parse(
            json!({"version": {"major": "1", "minor": "34+", "gitVersion": "v1.34.1-eks"},
            "groups": [{"group": "g", "versions": versions}]}),
        )
        .unwrap()
    }

    #[test]
    fn the_newest_known_version_wins_whatever_the_order() {
        let known = ["v1", "v1beta2", "v1beta1"];
        let newest = |versions: &[&str]| serving(versions).newest("g", &known);
        assert_eq!(newest(&["v1beta1", "v1", "v1beta2"]), Ok(Some("v1".into())));
        assert_eq!(newest(&["v1beta1", "v1beta2"]), Ok(Some("v1beta2".into())));
        assert_eq!(newest(&["v2", "v1"]), Ok(Some("v1".into())));
        assert_eq!(newest(&["v1alpha3"]), Ok(None));
        assert_eq!(newest(&[]), Ok(None));
        assert!(matches!(newest(&["v2alpha1"]), Ok(None)));
        assert!(matches!(newest(&["v2"]), Err(Error::VersionSkew(_))));
    }

    #[test]
    fn version_numbers_with_a_suffix() {
        let version = serving(&[]).version;
        assert_eq!(version.at_least(1, 34), Some(true));
        assert_eq!(version.at_least(1, 35), Some(false));
        assert_eq!(ServerVersion::default().at_least(1, 34), None);
    }
}
