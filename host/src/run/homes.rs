//! Where probes live in the cluster while they run: the run's home and the sandbox namespaces of each probe. A run whose probes
//! only read makes neither, unless it has a witness, whose account lives in the home.

use super::prepare::Work;
use super::{RunError, RunRequest};
use crate::cluster::Cluster;
use crate::event::{Events, RunEventKind};
use crate::gate::expiry;
use crate::grant::{Effective, Grants};
use crate::journal::{Journal, ObjectRef};
use crate::manifest::Manifest;
use crate::model::Reach;
use crate::sandbox::pull_secrets::PullSecrets;
use crate::sandbox::remove::Options;
use crate::sandbox::{Closed, Consents, Sandbox, SandboxOptions, Unproved};
use crate::witness::ServiceAccount;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// How long the removal of one probe's objects may take: namespaces wait for pods to end, and those for their grace period.
const PROBE_PATIENCE: Duration = Duration::from_secs(120);

/// How long the removal of the rest may take.
const RUN_PATIENCE: Duration = Duration::from_secs(120);

/// Home and sandboxes of a run.
pub(super) struct Homes {
    /// None when no probe of the run writes and it has no witness.
    sandbox: Option<Sandbox>,
    events: Events,
}

/// Until when everything of these attempts should be over. The home of a witnessed run is needed by all of them.
pub(super) fn expires(work: &[Work], witness: bool) -> String {
    let users = work.iter().filter(|work| witness || work.writes());
    expiry(users.map(|work| work.probe.manifest().budget.wall).sum())
}

impl Homes {
    /// Whether this run writes, or has to remove what an earlier part of it wrote.
    pub(super) fn are_needed(journal: &Journal, work: &[Work]) -> bool {
        work.iter().any(Work::writes) || !journal.ledger().entries().is_empty()
    }

    /// Makes the home, and removes what a crash of the same run left of its probes.
    pub(super) async fn prepare(
        request: &RunRequest,
        journal: &Journal,
        work: &[Work],
        pull_secrets: PullSecrets,
    ) -> Result<Homes, RunError> {
        let leftovers: BTreeSet<String> = journal
            .ledger()
            .entries()
            .into_iter()
            .map(|entry| entry.probe)
            .collect();
        let mut homes = Homes {
            sandbox: None,
            events: request.events.clone(),
        };
        if !request.witness && !Homes::are_needed(journal, work) {
            return Ok(homes);
        }
        request.events.send(RunEventKind::Preparing {
            what: "home namespace".to_owned(),
        });
        let options = SandboxOptions {
            expires: expires(work, request.witness),
            unproved: Unproved::Refuse,
            pull_secrets,
        };
        let sandbox = Sandbox::open(request.engine_cluster.clone(), journal.clone(), options)
            .await
            .map_err(|error| RunError::Prepare(format!("home namespace: {error}")))?;
        for text in sandbox.warnings() {
            homes.warn(text.clone());
        }
        homes.sandbox = Some(sandbox);
        for probe in leftovers.iter().filter(|probe| !probe.is_empty()) {
            let left = homes.close(probe).await;
            if !left.is_empty() {
                return Err(RunError::Prepare(format!(
                    "what an earlier attempt of {probe} left cannot be removed: {}",
                    left.join(", ")
                )));
            }
        }
        Ok(homes)
    }

    /// The cluster's PriorityClasses with their values; empty for a run that creates nothing.
    pub(super) fn priority_classes(&self) -> BTreeMap<String, i64> {
        self.sandbox
            .as_ref()
            .map(|sandbox| sandbox.priority_classes().clone())
            .unwrap_or_default()
    }

    /// What the copies of pull secrets are called in the namespaces of probes.
    pub(super) fn pull_secrets(&self) -> Vec<String> {
        self.sandbox
            .as_ref()
            .map(Sandbox::pull_secrets)
            .unwrap_or_default()
    }

    /// Makes the namespaces of a probe and gives their names by alias.
    pub(super) async fn open(
        &self,
        manifest: &Manifest,
        grants: &Grants,
    ) -> Result<BTreeMap<String, String>, String> {
        let Some(sandbox) = &self.sandbox else {
            return Ok(BTreeMap::new());
        };
        let made = sandbox
            .open_probe(manifest, consents(manifest, grants))
            .await
            .map_err(|error| format!("sandbox: {error}"))?;
        for text in made.warnings {
            self.warn(text);
        }
        Ok(made.namespaces)
    }

    /// Makes the account of a probe and gives the connection that acts as it.
    pub(super) async fn account(
        &self,
        effective: &Effective,
        namespaces: &BTreeMap<String, String>,
        reach: Reach,
        probe_cluster: &Cluster,
    ) -> Result<Cluster, String> {
        let Some(sandbox) = &self.sandbox else {
            return Err("the run has no home for an account".to_owned());
        };
        sandbox
            .open_account(effective, namespaces, reach, probe_cluster)
            .await
            .map_err(|error| {
                format!(
                    "--rbac enforce: {error}; with `--rbac off` the door alone limits the probe"
                )
            })
    }

    /// Makes the account whose tokens witness the run.
    pub(super) async fn witness(&self) -> Result<ServiceAccount, String> {
        let Some(sandbox) = &self.sandbox else {
            return Err("the run has no home for an account".to_owned());
        };
        let account = sandbox.open_witness().await;
        account.map_err(|error| error.to_string())
    }

    /// Removes everything of a probe. Gives what remains.
    pub(super) async fn close(&self, probe: &str) -> Vec<String> {
        let Some(sandbox) = &self.sandbox else {
            return Vec::new();
        };
        let progress = |remaining: usize, object: &ObjectRef| self.tell(remaining, object);
        let options = Options {
            patience: PROBE_PATIENCE,
            progress: &progress,
        };
        left(sandbox.close_probe(probe, options).await)
    }

    /// Removes everything of the run, the home last. Gives what remains.
    pub(super) async fn close_run(&self) -> Vec<String> {
        let Some(sandbox) = &self.sandbox else {
            return Vec::new();
        };
        let progress = |remaining: usize, object: &ObjectRef| self.tell(remaining, object);
        let options = Options {
            patience: RUN_PATIENCE,
            progress: &progress,
        };
        left(sandbox.close(options).await)
    }

    /// Whether [`Homes::close_run`] notes the end in the journal itself.
    pub(super) fn keep_the_journal(&self) -> bool {
        self.sandbox.is_some()
    }

    fn tell(&self, remaining: usize, object: &ObjectRef) {
        self.events.send(RunEventKind::CleaningUp {
            remaining,
            example: object.to_string(),
        });
    }

    fn warn(&self, text: String) {
        self.events.send(RunEventKind::Warned { text });
    }
}

/// What the operator's exceptions change in the quotas of a probe's namespaces. Without this the server would refuse what the
/// guards let pass.
fn consents(manifest: &Manifest, grants: &Grants) -> Consents {
    let effective = Effective::new(manifest, grants, std::iter::empty::<&str>());
    Consents {
        load_balancers: effective.exceptions().load_balancers,
        node_ports: effective.exceptions().node_ports,
        privileged: effective.exceptions().privileged,
    }
}

fn left(closed: Closed) -> Vec<String> {
    closed.left.iter().map(ToString::to_string).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exceptions_for_a_probe_open_the_quotas_of_its_namespaces_alone() {
        let text = crate::test_guests::manifest(&[], "");
        let manifest = Manifest::parse(&text, "probe.toml").unwrap();
        let granted = |probe: &str| {
            let file = format!(
                "[[exception]]\nprobe = {probe:?}\nload-balancers = true\nprivileged = true\n"
            );
            consents(&manifest, &Grants::parse(&file, "grants.toml").unwrap())
        };
        assert!(granted(&manifest.id).load_balancers && granted(&manifest.id).privileged);
        assert!(!granted(&manifest.id).node_ports);
        assert_eq!(granted("other"), Consents::default());
        let accepted = consents(&manifest, &Grants::all_asked(&manifest));
        assert_eq!(accepted, Consents::default());
    }
}
