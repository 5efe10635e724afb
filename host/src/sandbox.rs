//! The places in the cluster that a run may write to, and their end.
//!
//! [`Sandbox::open`] makes the run's home namespace, which holds nothing but the run's key. [`Sandbox::open_probe`] makes
//! the namespaces that a manifest declares, each with what the *server* enforces there because the door cannot read what
//! controllers create: Pod Security (proved by a privileged pod that must be refused), quotas against load balancers, node
//! ports and pods of a priority class above 0, and a default account without a mounted token and with the run's pull secrets
//! ([`pull_secrets`]). Everything is journalled
//! before it is created and sealed as it is created. [`account`] gives a probe an identity of its own,
//! [`Sandbox::open_witness`] the run one that can do nothing. [`remove`] takes it away again; [`crate::clean`] does the same for a
//! run that died.
//!
//! These are calls of the engine, with its own [`Cluster`]; no probe call passes here.

pub mod account;
pub mod pull_secrets;
pub mod remove;
mod witness;

use crate::cluster::{ApiError, Cluster};
use crate::journal::{Journal, JournalError, LedgerEntry, ObjectRef, account_of};
use crate::manifest::{Manifest, PodSecurity};
use crate::names::{home_namespace, sandbox_namespace};
use crate::run_lease::lease_ref;
use crate::seal::{self, Stamp};
use pull_secrets::PullSecrets;
use remove::{Left, Options};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Name of the Secret that holds the run's key.
pub const KEY_SECRET: &str = "karat-run-key";
/// Its type: no controller knows it.
pub const KEY_SECRET_TYPE: &str = "karat.internal/run-key";
/// How long the controller manager may take to make the default account and to read a quota.
const CONTROLLERS_PATIENCE: Duration = Duration::from_secs(20);
/// Classes that every cluster has, above all others.
const SYSTEM_CLASSES: &[&str] = &["system-cluster-critical", "system-node-critical"];

/// What to do where Pod Security does not refuse a privileged pod.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Unproved {
    /// Open no sandbox.
    #[default]
    Refuse,
    /// Open it, with a warning.
    Warn,
}

/// How sandboxes are made.
#[derive(Clone, Debug)]
pub struct SandboxOptions {
    /// Time (RFC 3339) after which a later run may sweep what is left.
    pub expires: String,
    /// What to do where Pod Security does not refuse a privileged pod.
    pub unproved: Unproved,
    /// What the kubelet pulls images of probes with.
    pub pull_secrets: PullSecrets,
}

/// Consents of the operator that change a probe's quota.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Consents {
    /// Services of type LoadBalancer.
    pub load_balancers: bool,
    /// Services of type NodePort.
    pub node_ports: bool,
    /// Namespaces of level `privileged`.
    pub privileged: bool,
}

/// Why a sandbox could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// The API server said no, or nothing.
    #[error("{what}: {source}")]
    Api {
        /// What was being done.
        what: String,
        /// What came back.
        source: ApiError,
    },
    /// The journal cannot be written, so nothing may be created.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// An object that is not ours has a name that we need.
    #[error("{object} exists and was not made by this run; nothing of it was touched")]
    Taken {
        /// The object.
        object: ObjectRef,
    },
    /// Pod Security lets a privileged pod pass.
    #[error(
        "namespace {namespace} would take a privileged pod although it is labelled `{level}`: Pod Security admission is off, or this user is exempt; run as another user, or accept it"
    )]
    Unproved {
        /// The namespace.
        namespace: String,
        /// The level it is labelled with.
        level: &'static str,
    },
    /// The proof gave an answer that says nothing about Pod Security.
    #[error("namespace {namespace}: whether Pod Security works could not be seen: {cause}")]
    Unclear {
        /// The namespace.
        namespace: String,
        /// The answer.
        cause: String,
    },
    /// The controller manager did not do its part.
    #[error("namespace {namespace}: {what} within {} s; is the controller manager running?", CONTROLLERS_PATIENCE.as_secs())]
    Controllers {
        /// The namespace.
        namespace: String,
        /// What is missing.
        what: &'static str,
    },
    /// A probe's own account cannot be used.
    #[error("account {account}: {cause}")]
    Account {
        /// The user name of the account.
        account: String,
        /// What is wrong.
        cause: String,
    },
    /// The manifest asks for a privileged namespace and nobody consented.
    #[error(
        "namespace `{alias}` of probe {probe} is `privileged`, which needs the operator's consent: an `[[exception]]` with `probe = \"{probe}\"` and `privileged = true` in the grants file"
    )]
    Privileged {
        /// Probe id.
        probe: String,
        /// Alias of the namespace.
        alias: String,
    },
}

/// The sandboxes of one run.
#[derive(Clone, Debug)]
pub struct Sandbox {
    cluster: Cluster,
    journal: Journal,
    options: SandboxOptions,
    priority_classes: BTreeMap<String, i64>,
    warnings: Vec<String>,
}

/// The namespaces of one probe.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProbeSandbox {
    /// Real names by alias.
    pub namespaces: BTreeMap<String, String>,
    /// What the operator should know.
    pub warnings: Vec<String>,
}

/// What an end of sandboxes came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Closed {
    /// Number of objects that were seen gone, those inside of namespaces not counted.
    pub gone: usize,
    /// What remains, with the reason.
    pub left: Vec<Left>,
}

impl Sandbox {
    /// Makes the run's home namespace with its key, and looks at the cluster's priority classes. `cluster` must be the
    /// engine's own connection.
    ///
    /// # Errors
    /// Anything that keeps the home namespace from being made; what was made by then stands in the journal.
    pub async fn open(
        cluster: Cluster,
        journal: Journal,
        options: SandboxOptions,
    ) -> Result<Sandbox, SandboxError> {
        let mut sandbox = Sandbox {
            cluster,
            journal,
            options,
            priority_classes: BTreeMap::new(),
            warnings: Vec::new(),
        };
        sandbox.read_priority_classes().await;
        let run = sandbox.journal.head().run.clone();
        let home = home_namespace(&run);
        let body = json!({
            "apiVersion": "v1", "kind": "Namespace",
            "metadata": {"name": home, "labels": pod_security_labels(PodSecurity::Restricted)},
        });
        sandbox.create(&namespace_ref(&home), "", body).await?;
        let secret = namespaced("", "secrets", &home, KEY_SECRET);
        let body = json!({
            "apiVersion": "v1", "kind": "Secret", "type": KEY_SECRET_TYPE, "immutable": true,
            "metadata": {"name": KEY_SECRET},
            "stringData": {"key": sandbox.journal.head().key.to_hex()},
        });
        sandbox.create_inside(&secret, None, body).await?;
        Ok(sandbox)
    }

    /// The cluster's priority classes with their values, for [`crate::guard::GuardContext`].
    pub fn priority_classes(&self) -> &BTreeMap<String, i64> {
        &self.priority_classes
    }

    /// What the operator should know about the cluster.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    async fn read_priority_classes(&mut self) {
        match self
            .cluster
            .list_json("/apis/scheduling.k8s.io/v1/priorityclasses", "")
            .await
        {
            Ok(classes) => {
                for class in classes {
                    let value = class["value"].as_i64().unwrap_or_default();
                    let name = class["metadata"]["name"].as_str().unwrap_or_default();
                    if class["globalDefault"] == true && value > 0 {
                        self.warnings.push(format!(
                            "the cluster's default priority class `{name}` has value {value}: pods of probes get it and can push out others"
                        ));
                        // A quota against it would forbid every pod.
                        self.priority_classes.insert(name.to_owned(), 0);
                    } else {
                        self.priority_classes.insert(name.to_owned(), value);
                    }
                }
            }
            Err(e) => self.warnings.push(format!(
                "priority classes cannot be listed ({e}); pods of probes may use none but their own"
            )),
        }
    }

    /// Makes the namespaces that a manifest declares, ready for the probe.
    ///
    /// # Errors
    /// Anything that keeps one of them from being as safe as it must be. What was made by then is removed by the caller's
    /// [`Sandbox::close_probe`].
    pub async fn open_probe(
        &self,
        manifest: &Manifest,
        consents: Consents,
    ) -> Result<ProbeSandbox, SandboxError> {
        let mut made = ProbeSandbox::default();
        for line in &manifest.namespaces {
            if line.pod_security == PodSecurity::Privileged && !consents.privileged {
                return Err(SandboxError::Privileged {
                    probe: manifest.id.clone(),
                    alias: line.alias.clone(),
                });
            }
            let name = sandbox_namespace(&self.journal.head().run, &manifest.id, &line.alias);
            let body = json!({
                "apiVersion": "v1", "kind": "Namespace",
                "metadata": {"name": name, "labels": pod_security_labels(line.pod_security)},
            });
            self.create(&namespace_ref(&name), &manifest.id, body)
                .await?;
            made.namespaces.insert(line.alias.clone(), name);
        }
        // All are named before the first one is furnished: the controller manager works on them meanwhile.
        for line in &manifest.namespaces {
            let name = &made.namespaces[&line.alias];
            self.furnish(name, line.pods, consents, &manifest.id)
                .await?;
            match self.prove(name, line.pod_security).await {
                Ok(()) => {}
                Err(e @ (SandboxError::Unproved { .. } | SandboxError::Unclear { .. }))
                    if self.options.unproved == Unproved::Warn =>
                {
                    made.warnings.push(e.to_string());
                }
                Err(e) => return Err(e),
            }
        }
        Ok(made)
    }

    /// Quotas, and the default account without a token.
    async fn furnish(
        &self,
        namespace: &str,
        pods: u32,
        consents: Consents,
        probe: &str,
    ) -> Result<(), SandboxError> {
        let mut hard = json!({"pods": pods.to_string()});
        if !consents.load_balancers {
            hard["services.loadbalancers"] = "0".into();
            // A load balancer takes node ports by itself, so the two go together.
            if !consents.node_ports {
                hard["services.nodeports"] = "0".into();
            }
        }
        let above: Vec<&str> = SYSTEM_CLASSES
            .iter()
            .copied()
            .chain(
                self.priority_classes
                    .iter()
                    .filter(|(name, value)| **value > 0 && !SYSTEM_CLASSES.contains(&name.as_str()))
                    .map(|(name, _)| name.as_str()),
            )
            .collect();
        let quotas = [
            ("karat", json!({"hard": hard})),
            (
                "karat-priority",
                json!({
                    "hard": {"pods": "0"},
                    "scopeSelector": {"matchExpressions": [
                        {"scopeName": "PriorityClass", "operator": "In", "values": above},
                    ]},
                }),
            ),
        ];
        for (name, spec) in quotas {
            let body = json!({
                "apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": name}, "spec": spec,
            });
            let object = namespaced("", "resourcequotas", namespace, name);
            self.create_inside(&object, Some(probe), body).await?;
        }
        let pulled_with = self.copy_pull_secrets(namespace).await?;
        self.default_account(namespace, &pulled_with).await?;
        for name in ["karat", "karat-priority"] {
            self.quota_is_read(namespace, name).await?;
        }
        Ok(())
    }

    /// Waits for the default account, takes its mounted token away, and gives its pods what they are pulled with.
    async fn default_account(
        &self,
        namespace: &str,
        pulled_with: &[String],
    ) -> Result<(), SandboxError> {
        let path = namespaced("", "serviceaccounts", namespace, "default").path();
        let mut patch = json!({"automountServiceAccountToken": false});
        if !pulled_with.is_empty() {
            let names = pulled_with.iter().map(|name| json!({"name": name}));
            patch["imagePullSecrets"] = names.collect();
        }
        let mut patience = Patience::new();
        let mut unclear;
        loop {
            match self.cluster.merge_json(&path, &patch).await {
                Ok(_) => return Ok(()),
                // The same patch twice does no harm, so a lost answer may be repeated.
                Err(e) if e.is_not_found() || e.code().is_none_or(|code| code >= 500) => {
                    unclear = Some(e).filter(|e| !e.is_not_found());
                }
                Err(source) => {
                    return Err(SandboxError::Api {
                        what: format!("taking the token from the default account of {namespace}"),
                        source,
                    });
                }
            }
            if !patience.wait().await {
                return Err(match unclear {
                    Some(source) => SandboxError::Api {
                        what: format!("taking the token from the default account of {namespace}"),
                        source,
                    },
                    None => SandboxError::Controllers {
                        namespace: namespace.to_owned(),
                        what: "no default service account was made",
                    },
                });
            }
        }
    }

    /// A quota whose status nobody has written refuses every pod with "status unknown".
    async fn quota_is_read(&self, namespace: &str, name: &str) -> Result<(), SandboxError> {
        let path = namespaced("", "resourcequotas", namespace, name).path();
        let mut patience = Patience::new();
        loop {
            let quota = self
                .cluster
                .get_json(&path)
                .await
                .map_err(|source| SandboxError::Api {
                    what: format!("reading quota {name} of {namespace}"),
                    source,
                })?;
            if quota["status"]["hard"].is_object() {
                return Ok(());
            }
            if !patience.wait().await {
                return Err(SandboxError::Controllers {
                    namespace: namespace.to_owned(),
                    what: "the quota was not read",
                });
            }
        }
    }

    /// Asks the server, without creating anything, for a pod that Pod Security must refuse.
    async fn prove(&self, namespace: &str, level: PodSecurity) -> Result<(), SandboxError> {
        if level == PodSecurity::Privileged {
            return Ok(());
        }
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "karat-proof"},
            "spec": {"automountServiceAccountToken": false, "containers": [{
                "name": "proof", "image": "karat.invalid/never-pulled",
                "securityContext": {"privileged": true},
            }]},
        });
        let path = format!("/api/v1/namespaces/{namespace}/pods?dryRun=All");
        match self.cluster.create_json(&path, &pod).await {
            Ok(_) => Err(SandboxError::Unproved {
                namespace: namespace.to_owned(),
                level: level.label(),
            }),
            Err(ApiError::Answered {
                code: 403, message, ..
            }) if message.contains("PodSecurity") => Ok(()),
            Err(e) => Err(SandboxError::Unclear {
                namespace: namespace.to_owned(),
                cause: e.to_string(),
            }),
        }
    }

    /// Creates an object that is journalled: first the note, then the POST, then the uid.
    async fn create(
        &self,
        object: &ObjectRef,
        probe: &str,
        body: Value,
    ) -> Result<(), SandboxError> {
        let label = (!probe.is_empty()).then_some(probe);
        self.create_for(object, probe, label, body).await
    }

    /// As [`Sandbox::create`], in the journal under `probe` and on the cluster with the label of another.
    async fn create_for(
        &self,
        object: &ObjectRef,
        probe: &str,
        label: Option<&str>,
        mut body: Value,
    ) -> Result<(), SandboxError> {
        self.stamp(object, label, &mut body);
        self.intend(object, probe).await?;
        let failed = |source| SandboxError::Api {
            what: format!("creating {object}"),
            source,
        };
        let uid = match self
            .cluster
            .create_json(&object.collection_path(), &body)
            .await
        {
            Ok(made) => made["metadata"]["uid"].as_str().map(str::to_owned),
            // The server may or may not have created it, so the object itself is asked.
            Err(e) if e.code().is_none_or(|code| code >= 500 || code == 409) => {
                let present = self
                    .cluster
                    .find_json(&object.path())
                    .await
                    .map_err(failed)?;
                match present {
                    // A POST without an answer may still arrive; the note stays, and the clean-up looks again.
                    None => return Err(failed(e)),
                    Some(present)
                        if self.is_sealed(object, &present) && self.is_of(object, probe) =>
                    {
                        present["metadata"]["uid"].as_str().map(str::to_owned)
                    }
                    Some(_) => {
                        self.journal.refused(object, probe)?;
                        return Err(SandboxError::Taken {
                            object: object.clone(),
                        });
                    }
                }
            }
            Err(e) => {
                self.journal.refused(object, probe)?;
                return Err(failed(e));
            }
        };
        if let Some(uid) = uid {
            self.journal.created(object, probe, &uid)?;
        }
        Ok(())
    }

    /// Two probes of different vendors may have the same last name, and so the same namespace.
    fn is_of(&self, object: &ObjectRef, probe: &str) -> bool {
        let entry = self.journal.ledger().entry(object);
        entry.is_some_and(|entry| entry.probe == probe)
    }

    fn is_sealed(&self, object: &ObjectRef, present: &Value) -> bool {
        let head = self.journal.head();
        seal::carried(present).is_some_and(|text| seal::verify(&head.key, &head.run, object, text))
    }

    /// Creates an object inside of a namespace of ours; it goes with the namespace and is not journalled.
    async fn create_inside(
        &self,
        object: &ObjectRef,
        probe: Option<&str>,
        mut body: Value,
    ) -> Result<(), SandboxError> {
        self.stamp(object, probe, &mut body);
        match self
            .cluster
            .create_json(&object.collection_path(), &body)
            .await
        {
            Ok(_) => Ok(()),
            // After a lost answer, or in a resumed run.
            Err(e) if e.is_conflict() || e.code().is_none_or(|code| code >= 500) => {
                match self.cluster.find_json(&object.path()).await {
                    Ok(Some(present)) if self.is_sealed(object, &present) => Ok(()),
                    Ok(Some(_)) => Err(SandboxError::Taken {
                        object: object.clone(),
                    }),
                    _ => Err(SandboxError::Api {
                        what: format!("creating {object}"),
                        source: e,
                    }),
                }
            }
            Err(source) => Err(SandboxError::Api {
                what: format!("creating {object}"),
                source,
            }),
        }
    }

    fn stamp(&self, object: &ObjectRef, probe: Option<&str>, body: &mut Value) {
        let head = self.journal.head();
        Stamp {
            key: &head.key,
            run: &head.run,
            probe,
            expires: &self.options.expires,
        }
        .apply(object, body, &[]);
    }

    async fn intend(&self, object: &ObjectRef, probe: &str) -> Result<(), JournalError> {
        let (journal, object, probe) = (self.journal.clone(), object.clone(), probe.to_owned());
        // The sync of the disk must not hold up other probes.
        tokio::task::spawn_blocking(move || journal.intend(&object, &probe))
            .await
            .unwrap_or_else(|e| std::panic::resume_unwind(e.into_panic()))
    }

    /// Removes everything of one probe: its objects in the cluster scope and its namespaces with all they hold.
    pub async fn close_probe(&self, probe: &str, options: Options<'_>) -> Closed {
        let ledger = self.journal.ledger();
        let mut entries = ledger.of_probe(probe);
        entries.extend(ledger.of_probe(&account_of(probe)));
        self.close_entries(entries, options).await
    }

    /// Removes everything of the run, its home namespace last.
    pub async fn close(&self, options: Options<'_>) -> Closed {
        // The run lets its Lease go when all of this is gone, not before.
        let lease = lease_ref();
        let mut entries = self.journal.ledger().entries();
        entries.retain(|entry| entry.object != lease);
        let closed = self.close_entries(entries, options).await;
        if closed.left.is_empty() && self.journal.ledger().entries().is_empty() {
            // The journal is only a help from here on; a full disk must not turn a clean end into an error.
            let _ = self.journal.closed();
        }
        closed
    }

    async fn close_entries(&self, entries: Vec<LedgerEntry>, options: Options<'_>) -> Closed {
        let head = self.journal.head();
        let on_gone = |object: &ObjectRef| {
            let _ = self.journal.gone(object);
        };
        let (mut targets, mut left) =
            remove::confirm(&self.cluster, &head.key, &head.run, entries, &on_gone).await;
        let home = namespace_ref(&home_namespace(&head.run));
        let home = targets
            .iter()
            .position(|target| target.object == home)
            .map(|at| targets.swap_remove(at));
        let removed = remove::remove(&self.cluster, targets, home, options, &on_gone).await;
        left.extend(removed.left);
        Closed {
            gone: removed.gone,
            left,
        }
    }
}

/// Waits a little longer each time, up to [`CONTROLLERS_PATIENCE`] in all.
struct Patience {
    until: Instant,
    next: Duration,
}

impl Patience {
    fn new() -> Patience {
        Patience {
            until: Instant::now() + CONTROLLERS_PATIENCE,
            next: Duration::from_millis(20),
        }
    }

    /// False when the time is up.
    async fn wait(&mut self) -> bool {
        if Instant::now() >= self.until {
            return false;
        }
        sleep(self.next).await;
        self.next = (self.next * 2).min(Duration::from_secs(1));
        true
    }
}

pub(crate) fn namespace_ref(name: &str) -> ObjectRef {
    namespaced("", "namespaces", "", name)
}

fn namespaced(group: &str, resource: &str, namespace: &str, name: &str) -> ObjectRef {
    ObjectRef {
        group: group.to_owned(),
        version: "v1".to_owned(),
        resource: resource.to_owned(),
        namespace: namespace.to_owned(),
        name: name.to_owned(),
    }
}

fn pod_security_labels(level: PodSecurity) -> Value {
    json!({
        "pod-security.kubernetes.io/enforce": level.label(),
        "pod-security.kubernetes.io/enforce-version": "latest",
    })
}
