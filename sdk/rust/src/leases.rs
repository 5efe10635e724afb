//! Nodes, accelerator units and locks that the probe has for itself for a while.
//!
//! Probes run side by side. What must not be disturbed, a quiet window or the order in which a scheduler picks victims, is
//! taken first, by the names of `[[leases]]` in `probe.toml`, all at once. A lease spans cases.
//!
//! ```no_run
//! # use karat_sdk::{leases, Result};
//! # use std::time::Duration;
//! # fn check() -> Result<()> {
//! let lease = leases::acquire(&["gang", "order"], Duration::from_secs(300))?;
//! for node in lease.nodes() {
//!     let (name, units) = (node.name(), node.units());
//! }
//! lease.release()
//! # }
//! ```

use crate::case::CaseId;
use crate::error::{Error, Result};
use crate::host;
use crate::kube::Object;
use serde_json::Value;
use std::time::Duration;

/// Takes all the named leases of `probe.toml` at once, or none. Waiting does not count against the budget `wall`, up to an
/// hour in the whole attempt.
///
/// # Errors
/// [`Error::Unavailable`] when this cluster never has what is asked for, [`Error::Busy`] when others of the run still hold it
/// when the time is up. Refused: a name that `probe.toml` does not declare, and a second lease while one is held.
pub fn acquire(names: &[&str], timeout: Duration) -> Result<Lease> {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let timeout = u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX);
    let handle = host::acquire(&names, timeout)?;
    let granted = Granted::read(&Object::parse(&handle.granted())?)?;
    Ok(Lease {
        handle: Some(handle),
        granted,
    })
}

/// How long a probe may wait for others of the run who hold what it needs, where nothing speaks for less: a quarter of an hour.
pub const TURN: Duration = Duration::from_secs(15 * 60);

/// As [`acquire`] for the first of two lists of names; for the second where this cluster never has what the first asks for.
///
/// # Errors
/// As [`acquire`].
pub fn acquire_either(first: &[&str], second: &[&str], timeout: Duration) -> Result<Lease> {
    match acquire(first, timeout) {
        Err(Error::Unavailable(_)) => acquire(second, timeout),
        other => other,
    }
}

/// As [`acquire`] with [`TURN`], for `cases` that all rest on it: where it cannot be had each of them says why, and none is given.
///
/// # Errors
/// Only those after which nothing can go on.
pub fn acquire_for(names: &[&str], cases: &[CaseId]) -> Result<Option<Lease>> {
    match acquire(names, TURN) {
        Ok(lease) => Ok(Some(lease)),
        Err(error) if error.ends_the_probe() => Err(error),
        Err(error) => error.conclusion().leaves_untried(cases).map(|()| None),
    }
}

/// What was granted. Given back by [`Lease::release`], when it is dropped, and with the attempt at the latest.
#[derive(Debug)]
pub struct Lease {
    handle: Option<host::Lease>,
    granted: Granted,
}

#[derive(Clone, Debug)]
struct Granted {
    number: u32,
    nodes: Vec<LeasedNode>,
    locks: Vec<String>,
}

// Read by hand: what serde derives for these two types is forty kilobytes of a component, with all that can be said of a wrong
// type and the floats in it.
impl Granted {
    fn read(document: &Object) -> Result<Self> {
        let number = document.at("/number").as_u64();
        let Some(number) = number.and_then(|number| u32::try_from(number).ok()) else {
            return Err(Error::Unexpected("a lease without its number".into()));
        };
        Ok(Granted {
            number,
            nodes: document
                .items("/nodes")
                .iter()
                .map(LeasedNode::read)
                .collect(),
            locks: words(document.at("/locks")),
        })
    }
}

fn words(list: &Value) -> Vec<String> {
    let words = list
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str);
    words.map(str::to_owned).collect()
}

/// A node of a lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeasedNode {
    name: String,
    cpu: String,
    memory: String,
    pods: u64,
    units: Vec<(String, u64)>,
    taints: Vec<String>,
}

impl Lease {
    /// Counts from 1 in the attempt; `same = ["lease"]` of a control compares it.
    pub fn number(&self) -> u32 {
        self.granted.number
    }

    /// The nodes, by name.
    pub fn nodes(&self) -> &[LeasedNode] {
        &self.granted.nodes
    }

    /// Whether the node of this name is among them.
    pub fn has(&self, node: &str) -> bool {
        self.nodes().iter().any(|leased| leased.name() == node)
    }

    /// The locks.
    pub fn locks(&self) -> &[String] {
        &self.granted.locks
    }

    /// Gives everything back. Delete what was made on the nodes first.
    ///
    /// # Errors
    /// None in this release.
    pub fn release(mut self) -> Result<()> {
        self.give_back();
        Ok(())
    }

    /// Holds everything until the attempt has ended and the pods that stay are gone: giving it back here would be too soon.
    pub fn keep(mut self) {
        let _ = std::mem::ManuallyDrop::new(self.handle.take());
    }

    fn give_back(&mut self) {
        if let Some(handle) = self.handle.take() {
            handle.release();
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.give_back();
    }
}

impl LeasedNode {
    fn read(node: &Value) -> Self {
        let text = |key: &str| node[key].as_str().unwrap_or_default().to_owned();
        let units = node["units"].as_object().into_iter().flatten();
        LeasedNode {
            name: text("name"),
            cpu: text("cpu"),
            memory: text("memory"),
            pods: node["pods"].as_u64().unwrap_or_default(),
            units: units
                .filter_map(|(name, count)| Some((name.clone(), count.as_u64()?)))
                .collect(),
            taints: words(&node["taints"]),
        }
    }

    /// Name of the node, a pseudonym like everywhere; the door puts the real one into requests.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Thousandths of a CPU that pods can still request.
    pub fn cpu_millis(&self) -> u64 {
        thousandths(&self.cpu).unwrap_or_default()
    }

    /// Bytes of memory that pods can still request.
    pub fn memory_bytes(&self) -> u64 {
        thousandths(&self.memory).unwrap_or_default() / 1000
    }

    /// Pods that still fit.
    pub fn pods(&self) -> u64 {
        self.pods
    }

    /// Units of the lease on this node, by extended resource or driver.
    pub fn units(&self) -> &[(String, u64)] {
        &self.units
    }

    /// Keys of the taints that pods must tolerate to run there.
    pub fn taints(&self) -> &[String] {
        &self.taints
    }
}

/// A quantity of Kubernetes that is not negative, in thousandths, fractions of a thousandth cut off.
pub(crate) fn thousandths(text: &str) -> Option<u64> {
    const SUFFIXES: [(&str, u64, u64); 11] = [
        ("Ki", 1 << 10, 1),
        ("Mi", 1 << 20, 1),
        ("Gi", 1 << 30, 1),
        ("Ti", 1 << 40, 1),
        ("Pi", 1 << 50, 1),
        ("m", 1, 1000),
        ("k", 1000, 1),
        ("M", 1_000_000, 1),
        ("G", 1_000_000_000, 1),
        ("T", 1_000_000_000_000, 1),
        ("P", 1_000_000_000_000_000, 1),
    ];
    let (number, times, per) = SUFFIXES
        .into_iter()
        .find_map(|(suffix, times, per)| Some((text.strip_suffix(suffix)?, times, per)))
        .unwrap_or((text, 1, 1));
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = format!("{whole}{fraction}");
    if digits.is_empty() || fraction.len() > 9 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let scale = 10_u128.pow(u32::try_from(fraction.len()).ok()?);
    let value = digits.parse::<u128>().ok()? * 1000 * u128::from(times) / u128::from(per) / scale;
    u64::try_from(value).ok()
}

impl From<Denied> for Error {
    fn from(denied: Denied) -> Self {
        let text = denied.0;
        match text.split_once(": ") {
            Some(("unavailable", rest)) => Error::Unavailable(rest.to_owned()),
            Some(("busy", rest)) => Error::Busy(rest.to_owned()),
            // A word of a later host.
            _ => Error::NoAnswer(text),
        }
    }
}

/// `other(text)` of the contract, as an answer to `acquire`.
pub(crate) struct Denied(pub(crate) String);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_read_in_thousandths() {
        for (text, wanted) in [
            ("4", Some(4000)),
            ("3900m", Some(3900)),
            ("0.5", Some(500)),
            ("2Ki", Some(2_048_000)),
            ("1.5k", Some(1_500_000)),
            ("", None),
            ("-1", None),
            ("x", None),
            ("99999999999999999999P", None),
        ] {
            assert_eq!(thousandths(text), wanted, "{text}");
        }
    }

    #[test]
    fn the_words_of_the_host_become_errors() {
        let error = |text: &str| Error::from(Denied(text.to_owned()));
        assert_eq!(
            error("unavailable: 2 nodes: none"),
            Error::Unavailable("2 nodes: none".into())
        );
        assert_eq!(error("busy: held by x"), Error::Busy("held by x".into()));
        assert_eq!(error("later"), Error::NoAnswer("later".into()));
    }
}
