//! The Lease object by which runs on one cluster see each other, as it is read: who holds it, and whether that run lives.
//!
//! Whether it lives is found by watching, never by comparing its times with a clock of ours. [`crate::run::lock`] takes it
//! and keeps it; [`crate::clean`] leaves a run alone whose Lease lives.

use crate::cluster::{ApiError, Cluster};
use crate::journal::ObjectRef;
use crate::names::{ANNOTATION_PURPOSE, ANNOTATION_STARTED, LEASE_NAME, LEASE_NAMESPACE};
use serde_json::Value;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// How long a Lease lasts that is not renewed.
pub(crate) const DURATION: Duration = Duration::from_secs(30);
/// Longest duration that a Lease can claim: a hostile one must not park every run.
const DURATION_MAX: u64 = 3600;
/// How often a Lease is looked at, at most.
pub(crate) const LOOK: Duration = Duration::from_secs(1);
/// Longest text that is taken from a Lease.
const TEXT_MAX: usize = 200;

/// Who holds the Lease, as the Lease says. All of it is text of the cluster, cut and otherwise unchecked.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Holder {
    /// Run id.
    pub run: String,
    /// Since when, RFC 3339; empty where it does not say.
    pub since: String,
    /// What for; empty where it does not say.
    pub purpose: String,
    /// After this time without renewal it counts as dead.
    #[serde(skip)]
    pub duration: Duration,
}

/// The Lease as it was at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Who holds it.
    pub holder: Holder,
    /// uid.
    pub uid: String,
    pub(crate) version: String,
}

impl Seen {
    fn of(lease: &Value) -> Seen {
        let text = |value: &Value| -> String {
            let text = value.as_str().unwrap_or_default();
            text.chars().take(TEXT_MAX).collect()
        };
        let annotations = &lease["metadata"]["annotations"];
        let since = match text(&annotations[ANNOTATION_STARTED]) {
            since if since.is_empty() => text(&lease["metadata"]["creationTimestamp"]),
            since => since,
        };
        let seconds = lease["spec"]["leaseDurationSeconds"].as_u64();
        let seconds = seconds.unwrap_or(DURATION.as_secs()).clamp(1, DURATION_MAX);
        Seen {
            holder: Holder {
                run: text(&lease["spec"]["holderIdentity"]),
                since,
                purpose: text(&annotations[ANNOTATION_PURPOSE]),
                duration: Duration::from_secs(seconds),
            },
            uid: text(&lease["metadata"]["uid"]),
            version: text(&lease["metadata"]["resourceVersion"]),
        }
    }
}

/// The Lease of runs.
#[must_use]
pub fn lease_ref() -> ObjectRef {
    ObjectRef {
        group: "coordination.k8s.io".to_owned(),
        version: "v1".to_owned(),
        resource: "leases".to_owned(),
        namespace: LEASE_NAMESPACE.to_owned(),
        name: LEASE_NAME.to_owned(),
    }
}

/// Who holds the Lease now; none when nobody does.
///
/// # Errors
/// The server forbids to look, or does not answer.
pub async fn seen(cluster: &Cluster) -> Result<Option<Seen>, ApiError> {
    let found = cluster.find_json(&lease_ref().path()).await?;
    Ok(found.as_ref().map(Seen::of))
}

/// Watches a Lease until it is renewed (true), or was not for its duration, or is gone (false).
///
/// # Errors
/// The server forbids to look, or does not answer.
pub async fn is_alive(cluster: &Cluster, first: &Seen) -> Result<bool, ApiError> {
    let until = Instant::now() + first.holder.duration;
    loop {
        match seen(cluster).await? {
            Some(now) if now.uid == first.uid && now.version == first.version => {}
            Some(_) => return Ok(true),
            None => return Ok(false),
        }
        if Instant::now() >= until {
            return Ok(false);
        }
        sleep(pause(first.holder.duration)).await;
    }
}

/// The time between two looks.
pub(crate) fn pause(duration: Duration) -> Duration {
    LOOK.min(duration / 4)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_a_lease_says_is_cut_and_bounded() {
        let lease = json!({
            "metadata": {"uid": "u", "resourceVersion": "7", "creationTimestamp": "2026-01-02T03:04:05Z",
                "annotations": {ANNOTATION_PURPOSE: "x".repeat(5000)}},
            "spec": {"holderIdentity": "abcdefgh", "leaseDurationSeconds": 4_000_000_000_u64},
        });
        let seen = Seen::of(&lease);
        assert_eq!(seen.holder.run, "abcdefgh");
        assert_eq!(seen.holder.since, "2026-01-02T03:04:05Z");
        assert_eq!(seen.holder.purpose.len(), TEXT_MAX);
        assert_eq!(seen.holder.duration, Duration::from_secs(DURATION_MAX));
        let empty = Seen::of(&json!({"spec": {"leaseDurationSeconds": -1}}));
        assert_eq!(empty.holder.duration, DURATION);
        assert_eq!(empty.holder.run, "");
    }
}
