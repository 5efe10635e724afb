//! Leases as a probe sees them: the declared names, taken through the door and recorded like every other call.
//!
//! Node names are pseudonyms. What was granted stands in the facts of the call, where the judge finds it; a replay grants what
//! the recording says, and no inventory is read.

use super::{address::malformed, nothing, text};
use crate::gate::{Answer, Call, Content, Door, Live, MARKERS_MAX};
use crate::lease::{Granted, LeaseError};
use crate::manifest::LeaseLine;
use crate::recording::format::{Failure, LeaseFact, function};
use crate::redact::Class;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Most names of one call; a manifest rarely declares more than three.
const NAMES_MAX: usize = 16;

/// A lease that was granted.
#[derive(Debug)]
pub struct Lease {
    number: u32,
    granted: String,
}

impl Lease {
    /// The JSON of `granted`.
    pub fn granted(&self) -> &str {
        &self.granted
    }
}

/// Takes all the named leases of the manifest, or none. The time counts against the budget `wall` only after the first hour of
/// waiting in the attempt.
///
/// # Errors
/// Refused: a name that the manifest does not declare, and a second lease while one is held. Other: `unavailable: …`,
/// `busy: …`. Malformed: no names, too many, or one twice.
pub async fn acquire(door: &Door, names: &[String], timeout_ms: u32) -> Result<Lease, Failure> {
    let timeout = Duration::from_millis(u64::from(timeout_ms));
    let call = Call::new(
        function::LEASES_ACQUIRE,
        json!({"names": names, "timeout": timeout_ms}),
    );
    let reply = match lines(door, names) {
        Err(failure) => door.refuse(call, failure),
        Ok(lines) => {
            let _pause = door.pause(timeout);
            door.call(call, |wire| async move {
                let granted = wire.live.leases.acquire(&lines, timeout).await;
                let granted = granted.map_err(|error| match error {
                    LeaseError::Unavailable(_) | LeaseError::Busy(_) => {
                        crate::gate::Trouble::Foreign(Failure::Other(error.to_string()))
                    }
                    LeaseError::Holds(_) => Failure::Refused(error.to_string()).into(),
                    LeaseError::Inventory(_) => {
                        crate::gate::Trouble::Foreign(Failure::NoAnswer(error.to_string()))
                    }
                })?;
                Ok(shown(&wire.live, &granted))
            })
            .await
            .0
        }
    };
    let granted = text(function::LEASES_ACQUIRE, reply)?;
    let number = serde_json::from_str::<Value>(&granted)
        .ok()
        .and_then(|value| u32::try_from(value["number"].as_u64()?).ok());
    let number = number.ok_or_else(|| {
        Failure::Malformed("the recorded answer of leases.acquire has no number".to_owned())
    })?;
    Ok(Lease { number, granted })
}

/// Gives a lease back. A second time changes nothing.
///
/// # Errors
/// The attempt is over.
pub fn release(door: &Door, lease: &Lease) -> Result<(), Failure> {
    let number = lease.number;
    let call = Call::new(function::LEASES_RELEASE, json!({"lease": number})).always();
    let reply = door.local(call, |live| {
        live.leases.release(number);
        Ok(Answer::own(Content::Nothing))
    });
    nothing(function::LEASES_RELEASE, reply)
}

/// The lines of the manifest behind the names.
fn lines<'a>(door: &'a Door, names: &[String]) -> Result<Vec<&'a LeaseLine>, Failure> {
    if names.is_empty() || names.len() > NAMES_MAX {
        let text = format!(
            "{} leases; name 1 to {NAMES_MAX} of the manifest",
            names.len()
        );
        return Err(Failure::Malformed(text));
    }
    let mut seen = BTreeSet::new();
    names
        .iter()
        .map(|name| {
            if name.len() > 63 {
                return Err(malformed("lease", name, "is longer than 63 bytes"));
            }
            if !seen.insert(name) {
                return Err(malformed("lease", name, "is named twice"));
            }
            let declared = door
                .manifest()
                .leases
                .iter()
                .find(|line| &line.name == name);
            declared.ok_or_else(|| {
                Failure::Refused(format!(
                    "probe.toml declares no lease {name:?}; add it: [[leases]] name = {name:?}"
                ))
            })
        })
        .collect()
}

/// The answer for the guest, and the facts for the judge.
fn shown(live: &Live, granted: &Granted) -> Answer {
    let mut units: BTreeMap<String, u64> = BTreeMap::new();
    let mut names = Vec::new();
    let mut nodes = Vec::new();
    let mut markers = Vec::new();
    for node in &granted.nodes {
        let name = live.redactor.learn(Class::Node, &node.name);
        // Pods go there although the probe may never read this node, nor them.
        if node.played && markers.len() < MARKERS_MAX {
            markers.push(format!("simulated node: {name} was leased"));
        }
        for (kind, count) in &node.units {
            *units.entry(kind.clone()).or_default() += count;
        }
        nodes.push(json!({
            "name": name,
            "cpu": format!("{}m", node.cpu_millis),
            "memory": node.memory_bytes.to_string(),
            "pods": node.pods,
            "units": node.units,
            "taints": node.taints,
        }));
        names.push(name);
    }
    let text =
        json!({"number": granted.number, "nodes": nodes, "locks": granted.locks}).to_string();
    let mut answer = Answer::own(Content::Own(text));
    answer.facts.lease = Some(LeaseFact {
        number: granted.number,
        nodes: names,
        units,
        locks: granted.locks.clone(),
    });
    answer.facts.markers = markers;
    answer
}

#[cfg(test)]
mod tests;
