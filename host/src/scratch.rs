//! One attempt without a run around it, for unit tests, integration tests and benches: a door whose recording, journal and
//! snapshots lie in a temporary folder. Not part of the library's promises.
//!
//! What a run puts together in `run/prepare.rs` and `run/executor.rs` from a plan and a cluster stands here with fixed
//! values, once.

use crate::cluster::Cluster;
use crate::event::Events;
use crate::gate::{LiveDoor, Snapshots, StopSignal, expiry};
use crate::grant::{Effective, Grants};
use crate::journal::{Journal, JournalHead};
use crate::lease::{Leases, NodeChoice};
use crate::manifest::Manifest;
use crate::model::ClusterRecord;
use crate::recording::format::{FORMAT, Header, Limits};
use crate::recording::recorder::BlobSink;
use crate::recording::{Recorder, sha256_hex};
use crate::redact::{self, Redactor};
use crate::seal::RunKey;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// When every scratch run began.
const STARTED: &str = "2026-11-21T10:00:00Z";

/// What an attempt is given.
#[derive(Clone, Debug)]
pub struct Scratch {
    /// Run id.
    pub run: String,
    /// The probe; it is granted all that it asks for.
    pub manifest: Arc<Manifest>,
    /// Limits of the attempt.
    pub limits: Limits,
    /// Sandbox namespaces by alias.
    pub namespaces: BTreeMap<String, String>,
    /// Settings by key.
    pub settings: BTreeMap<String, String>,
    /// What happens to answers.
    pub sink: BlobSink,
}

impl Scratch {
    /// An attempt of a probe with its own budget, no namespaces and no settings.
    pub fn new(run: &str, manifest: Arc<Manifest>) -> Scratch {
        Scratch {
            run: run.to_owned(),
            limits: Limits::from(&manifest.budget),
            manifest,
            namespaces: BTreeMap::new(),
            settings: BTreeMap::new(),
            sink: BlobSink::Files,
        }
    }

    /// The first line of its recording.
    pub fn header(&self) -> Header {
        let digest = sha256_hex(b"scratch");
        Header {
            format: FORMAT.to_owned(),
            run: self.run.clone(),
            salt: "00".repeat(16),
            nonce: None,
            probe: self.manifest.id.clone(),
            probe_version: self.manifest.version.clone(),
            component: format!("sha256:{digest}"),
            manifest: digest.clone(),
            contract: self.manifest.contract.clone(),
            engine: env!("CARGO_PKG_VERSION").to_owned(),
            rules: crate::judge::RULES.to_owned(),
            redaction: redact::VERSION.to_owned(),
            attempt: 1,
            started: STARTED.to_owned(),
            limits: self.limits.clone(),
            settings: self.settings.clone(),
            namespaces: self.namespaces.clone(),
            images: BTreeMap::new(),
            granted: digest,
            cluster: ClusterRecord::default(),
        }
    }

    /// The parts of a door onto `cluster`, with everything that is written below `folder`: `journal.jsonl` and `attempt-1`.
    ///
    /// # Errors
    /// The folder cannot be written, or the system has no randomness.
    pub fn door(&self, folder: &Path, cluster: Cluster) -> Result<LiveDoor, String> {
        let text = |error: &dyn std::fmt::Display| error.to_string();
        let head = JournalHead {
            run: self.run.clone(),
            key: RunKey::generate().map_err(|e| text(&e))?,
            cluster: "scratch".to_owned(),
            server: cluster.server().to_owned(),
            started: STARTED.to_owned(),
        };
        let journal = Journal::create(&folder.join("journal.jsonl"), head).map_err(|e| text(&e))?;
        let redactor = Arc::new(Redactor::new(&self.run).map_err(|e| text(&e))?);
        let snapshots = Snapshots::new(
            cluster.clone(),
            Arc::clone(&redactor),
            journal.ledger(),
            &self.run,
            folder,
            [&*self.manifest],
        )
        .map_err(|e| text(&e))?;
        let leases = Leases::new(
            cluster.clone(),
            &self.run,
            NodeChoice::default(),
            Events::silent(),
        );
        let recorder = Recorder::create_with(&folder.join("attempt-1"), &self.header(), self.sink)
            .map_err(|e| text(&e))?;
        let grants = Grants::all_asked(&self.manifest);
        let effective = Effective::new(&self.manifest, &grants, self.namespaces.values());
        Ok(LiveDoor {
            run: self.run.clone(),
            attempt: 1,
            manifest: Arc::clone(&self.manifest),
            started: tokio::time::Instant::now(),
            limits: self.limits.clone(),
            cluster,
            recorder,
            effective: Arc::new(effective),
            redactor,
            journal,
            snapshots,
            leases,
            settings: self.settings.clone(),
            namespaces: self.namespaces.clone(),
            images: BTreeMap::new(),
            reach: self.manifest.reach,
            priority_classes: BTreeMap::new(),
            pull_secrets: Vec::new(),
            expires: expiry(Duration::from_secs(300)),
            stop: StopSignal::never(),
            events: Events::silent(),
        })
    }
}
