//! Whether an answer is older than what the server said before.
//!
//! Reads are asked for without a resource version, so the API promises the newest state. A cache in between, or a server
//! that lost its store, gives an older one with a success code; a probe that believed it would miss its own writes and call
//! that the platform's fault. Resource versions of Kubernetes grow, per object and per collection, so the door can tell.
//! What it cannot tell: a list that claims to be of this moment and lacks an object.

use serde::Deserialize;
use serde_json::Value;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

/// Objects that are remembered in one attempt; those that come later are not compared.
const OBJECTS_MAX: usize = 20_000;

/// The newest resource versions that one attempt has seen.
#[derive(Debug, Default)]
pub(crate) struct Freshness(Mutex<Newest>);

#[derive(Debug, Default)]
struct Newest {
    /// By group and resource.
    collections: HashMap<(String, String), u64>,
    /// By uid.
    objects: HashMap<String, u64>,
}

/// Aggregated servers may have other words for versions; such are not compared.
fn number(version: &str) -> Option<u64> {
    version.parse().ok().filter(|number| *number > 0)
}

impl Freshness {
    fn lock(&self) -> std::sync::MutexGuard<'_, Newest> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes note of an object. Gives the version that was seen before, if that is newer.
    pub(crate) fn object(&self, group: &str, resource: &str, object: &Value) -> Option<u64> {
        let meta = &object["metadata"];
        let version = meta["resourceVersion"].as_str().and_then(number)?;
        let uid = meta["uid"].as_str().filter(|uid| !uid.is_empty())?;
        let mut newest = self.lock();
        let collection = newest.collection(group, resource);
        *collection = version.max(*collection);
        if let Some(seen) = newest.objects.get_mut(uid) {
            let before = *seen;
            *seen = version.max(before);
            return (before > version).then_some(before);
        }
        if newest.objects.len() < OBJECTS_MAX {
            newest.objects.insert(uid.to_owned(), version);
        }
        None
    }

    /// The newest version of a collection that was seen so far; 0 if none was. To be asked before a request whose answer
    /// is then compared by [`is_older`], where other requests are under way at the same time.
    pub(crate) fn newest(&self, group: &str, resource: &str) -> u64 {
        *self.lock().collection(group, resource)
    }

    /// Takes note of the version of a whole list. Gives the version that was seen before, if that is newer.
    pub(crate) fn list(&self, group: &str, resource: &str, position: &str) -> Option<u64> {
        let version = number(position)?;
        let mut newest = self.lock();
        let seen = newest.collection(group, resource);
        let before = *seen;
        *seen = version.max(before);
        (before > version).then_some(before)
    }
}

/// Whether a list is older than what was seen when it was asked for.
pub(crate) fn is_older(position: &str, floor: u64) -> bool {
    number(position).is_some_and(|version| version < floor)
}

/// The resource version of a list, of which nothing else is looked at; empty if it has none.
pub(crate) fn position(list: &[u8]) -> String {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Head {
        metadata: Meta,
    }
    #[derive(Default, Deserialize)]
    #[serde(default, rename_all = "camelCase")]
    struct Meta {
        resource_version: String,
    }
    let head = serde_json::from_slice::<Head>(list).unwrap_or_default();
    head.metadata.resource_version
}

impl Newest {
    fn collection(&mut self, group: &str, resource: &str) -> &mut u64 {
        self.collections
            .entry((group.to_owned(), resource.to_owned()))
            .or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(uid: &str, version: &str) -> Value {
        json!({"metadata": {"uid": uid, "resourceVersion": version}})
    }

    #[test]
    fn what_is_older_than_what_was_seen_is_found() {
        let seen = Freshness::default();
        let object = |uid, version| seen.object("", "pods", &pod(uid, version));
        assert_eq!(object("a", "5"), None);
        assert_eq!(object("a", "9"), None);
        assert_eq!(object("a", "9"), None);
        assert_eq!(object("a", "5"), Some(9));
        // Another object may well be older, but a list that knows neither may not.
        assert_eq!(object("b", "3"), None);
        assert_eq!(seen.list("", "pods", "8"), Some(9));
        assert_eq!(seen.list("", "pods", "12"), None);
        assert_eq!(seen.list("", "pods", "11"), Some(12));
        assert_eq!(seen.list("apps", "pods", "1"), None);
        assert_eq!(seen.newest("", "pods"), 12);
        assert!(is_older("11", 12) && !is_older("12", 12) && !is_older("x", 12));
        let list = br#"{"kind":"PodList","items":[{"metadata":{"resourceVersion":"3"}}],"metadata":{"resourceVersion":"7"}}"#;
        assert_eq!(position(list), "7");
        assert_eq!(position(b"[]"), "");
    }

    #[test]
    fn versions_that_are_no_numbers_are_not_compared() {
        let seen = Freshness::default();
        assert_eq!(seen.list("metrics.k8s.io", "pods", "9"), None);
        for version in ["", "0", "a1", "-3"] {
            assert_eq!(seen.list("metrics.k8s.io", "pods", version), None);
            assert_eq!(seen.object("", "pods", &pod("a", version)), None);
        }
        assert_eq!(seen.object("", "pods", &pod("", "4")), None);
    }
}
