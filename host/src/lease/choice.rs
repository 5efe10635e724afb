//! Which nodes an operator gives to a run: section `[nodes]` of `karat.toml`.
//!
//! It bounds what leases grant. A pod of a probe without a lease goes where the scheduler puts it.

use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// Labels that a node must have, all of them, as in a pod's `nodeSelector`. Empty fits every node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct NodeLabels(pub BTreeMap<String, String>);

impl NodeLabels {
    /// Whether they fit every node.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a node with these labels has them.
    pub(super) fn fit(&self, labels: &BTreeMap<String, String>) -> bool {
        let mut all = self.0.iter();
        all.all(|(key, value)| labels.get(key) == Some(value))
    }
}

/// As a label selector writes them: `pool=tests,zone=a`.
impl fmt::Display for NodeLabels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, (key, value)) in self.0.iter().enumerate() {
            let comma = if place == 0 { "" } else { "," };
            write!(f, "{comma}{key}={value}")?;
        }
        Ok(())
    }
}

/// The nodes that leases may take.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeChoice {
    /// For all probes.
    pub all: NodeLabels,
    /// For single probes, by id: instead of those for all.
    pub of: BTreeMap<String, NodeLabels>,
}

impl NodeChoice {
    /// What counts for a probe.
    pub fn of(&self, probe: &str) -> &NodeLabels {
        self.of.get(probe).unwrap_or(&self.all)
    }

    /// Keys of all labels that are asked for.
    pub(super) fn keys(&self) -> BTreeSet<String> {
        let all = self.of.values().chain([&self.all]);
        all.flat_map(|labels| labels.0.keys().cloned()).collect()
    }
}
