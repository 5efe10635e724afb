//! Every name that Karat leaves on clusters or in files, in one place.
//!
//! These words outlive releases: `karat clean` must recognise what an older version left. The prefix ends in `.internal`,
//! which ICANN reserves for private use, so nobody else can own it.

/// Prefix of labels and annotations, and API group of our own kinds.
pub const PREFIX: &str = "karat.internal";
/// Label with the run id, on everything the run creates.
pub const LABEL_RUN: &str = "karat.internal/run";
/// Label with the probe id (`/` written as `.`), on everything a probe creates.
pub const LABEL_PROBE: &str = "karat.internal/probe";
/// Kubernetes' recommended label for the tool that manages an object.
pub const LABEL_MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// Value of [`LABEL_MANAGED_BY`].
pub const MANAGED_BY: &str = "karat";
/// Annotation with the seal, [`crate::seal`].
pub const ANNOTATION_SEAL: &str = "karat.internal/seal";
/// Annotation with the time (RFC 3339) after which a later run may sweep the object.
pub const ANNOTATION_EXPIRES: &str = "karat.internal/expires";
/// Annotation with the time (RFC 3339) at which a run took its Lease.
pub const ANNOTATION_STARTED: &str = "karat.internal/started";
/// Annotation that says for people what a run holds its Lease for.
pub const ANNOTATION_PURPOSE: &str = "karat.internal/for";
/// Namespace of the Lease that every run holds while it writes: there is one in each cluster, and it is everybody's.
pub const LEASE_NAMESPACE: &str = "default";
/// Name of that Lease.
pub const LEASE_NAME: &str = "karat-run";
/// Name of the account whose tokens witness a run, in the run's home.
pub const WITNESS_ACCOUNT: &str = "karat-witness";
/// Field manager of every write of the door.
pub const FIELD_MANAGER: &str = "karat";
/// Custom section of a component that holds its manifest.
pub const MANIFEST_SECTION: &str = "karat:manifest";
/// WIT package of the contract, without its version.
pub const CONTRACT_PACKAGE: &str = "karat:probe";
/// The contract version that this engine serves.
pub const CONTRACT_VERSION: &str = "0.1.0-dev.1";
/// Header that carries the audit id of a request to the API server, which keeps a client's value.
pub const AUDIT_ID_HEADER: &str = "audit-id";
/// Suffix of DNS names that cannot exist (RFC 2606); drivers made by a run live below it.
pub const INVALID_SUFFIX: &str = ".karat.invalid";
/// Longest DNS label.
pub const DNS_LABEL_MAX: usize = 63;

/// Name of the run's home namespace, which holds the run key, accounts, and nothing of a probe.
pub fn home_namespace(run: &str) -> String {
    format!("karat-{run}-home")
}

/// Name of a sandbox namespace: at most 63 characters by the limits of run id (8), probe id (40) and alias (7).
pub fn sandbox_namespace(run: &str, probe: &str, alias: &str) -> String {
    format!("{}{alias}", sandbox_prefix(run, probe))
}

/// What the names of all sandbox namespaces of a probe begin with.
pub fn sandbox_prefix(run: &str, probe: &str) -> String {
    format!("karat-{run}-{}-", probe.rsplit('/').next().unwrap_or(probe))
}
