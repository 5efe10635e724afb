//! Runs of guests through the engine's library, as the program does them.

use crate::guests::Guest;
use anyhow::{Context, Result};
use karat_engine::cluster::{Cluster, ConnectOptions};
use karat_engine::component::{self, Probe};
use karat_engine::engine::{Engine, EngineOptions};
use karat_engine::event::Events;
use karat_engine::gate::StopSignal;
use karat_engine::grant::Grants;
use karat_engine::images::{Images, Placement};
use karat_engine::lease::NodeChoice;
use karat_engine::model::{AttemptRecord, Reach, RunRecord};
use karat_engine::recording::{self, Recording};
use karat_engine::redact::Rules;
use karat_engine::run::lock::Lock;
use karat_engine::run::{self, Mode, RunRequest};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tempfile::TempDir;

/// A finished run and its folder, which goes when this is dropped.
pub struct Run {
    /// The record.
    pub record: RunRecord,
    folder: TempDir,
}

impl Run {
    /// A run that a test asked for in its own way; its output is `run` in the folder.
    pub fn of(record: RunRecord, folder: TempDir) -> Run {
        Run { record, folder }
    }

    /// The last attempt of a probe.
    ///
    /// # Panics
    /// If the run has no such probe.
    pub fn attempt(&self, probe: &str) -> &AttemptRecord {
        let found = self
            .record
            .probes
            .iter()
            .find(|record| record.probe == probe);
        found
            .and_then(|record| record.attempts.last())
            .unwrap_or_else(|| panic!("no attempt of {probe}"))
    }

    /// The recording of a probe's last attempt.
    ///
    /// # Errors
    /// If there is none, or it cannot be read.
    pub fn recording(&self, probe: &str) -> Result<Recording> {
        let path = self
            .attempt(probe)
            .recording
            .as_ref()
            .context("never started")?;
        Ok(recording::read(&self.folder().join(path))?)
    }

    /// Where the run wrote.
    pub fn folder(&self) -> PathBuf {
        self.folder.path().join("run")
    }
}

/// An audit policy with answers in full, so that a test can read what the server stored.
pub const AUDIT_IN_FULL: &str = "apiVersion: audit.k8s.io/v1\nkind: Policy\nomitStages: [RequestReceived]\nrules:\n- level: RequestResponse\n";

/// Runs components with everything granted that they ask for, at most two at one time.
///
/// # Errors
/// If the run cannot be prepared; what happens in a guest is in the record.
pub async fn run(kubeconfig: &Path, components: Vec<Vec<u8>>, reach: Reach) -> Result<Run> {
    run_granting(kubeconfig, components, reach, Grants::none()).await
}

/// As [`run()`], with grants beside what the components ask for: exceptions of the guards are never part of a plan.
///
/// # Errors
/// As [`run()`].
pub async fn run_granting(
    kubeconfig: &Path,
    components: Vec<Vec<u8>>,
    reach: Reach,
    grants: Grants,
) -> Result<Run> {
    run_set(kubeconfig, components, reach, grants, BTreeMap::new()).await
}

/// As [`run_granting`], with the operator's settings by probe id and key.
///
/// # Errors
/// As [`run()`].
pub async fn run_set(
    kubeconfig: &Path,
    components: Vec<Vec<u8>>,
    reach: Reach,
    grants: Grants,
    settings: BTreeMap<String, BTreeMap<String, String>>,
) -> Result<Run> {
    let images = Images::default();
    run_with(kubeconfig, components, reach, grants, settings, images).await
}

/// As [`run_set()`], with images of the program and without further grants.
///
/// # Errors
/// As [`run()`].
pub async fn run_with_images(
    kubeconfig: &Path,
    components: Vec<Vec<u8>>,
    reach: Reach,
    settings: BTreeMap<String, BTreeMap<String, String>>,
    images: Images,
) -> Result<Run> {
    let grants = Grants::none();
    run_with(kubeconfig, components, reach, grants, settings, images).await
}

/// The images of the program as the real nodes of laboratories have them. `say` hears how their build goes.
///
/// # Errors
/// They cannot be built.
pub fn own_images(say: impl Fn(&str) + Sync) -> Result<Images> {
    own_images_as(say, Placement::default())
}

/// The images of the program, and those of manifests, where an operator says that they are.
///
/// # Errors
/// As [`own_images`].
pub fn own_images_at(placement: Placement) -> Result<Images> {
    own_images_as(|_| {}, placement)
}

fn own_images_as(say: impl Fn(&str) + Sync, placement: Placement) -> Result<Images> {
    let built = karat_testbed::images::build(say)?.images;
    let digests = built.into_iter().filter_map(|image| {
        let name = image.name.rsplit('/').next()?.split(':').next()?;
        Some((name.to_owned(), image.digest.clone()))
    });
    Ok(Images::new(&digests.collect(), placement))
}

/// As [`run_set()`], with images of the program.
///
/// # Errors
/// As [`run()`].
pub async fn run_with(
    kubeconfig: &Path,
    components: Vec<Vec<u8>>,
    reach: Reach,
    grants: Grants,
    settings: BTreeMap<String, BTreeMap<String, String>>,
    images: Images,
) -> Result<Run> {
    let engine = Engine::new(&EngineOptions::default())?;
    let probes = components
        .into_iter()
        .map(|bytes| Ok(component::load(&engine, bytes)?))
        .collect::<Result<Vec<Probe>>>()?;
    let more = More {
        grants,
        settings,
        images,
        ..More::default()
    };
    run_all(kubeconfig, engine, probes, reach, more).await
}

/// As [`run_set()`], with probes that are compiled already: for many runs of the same ones.
///
/// # Errors
/// As [`run()`].
pub async fn run_loaded(
    kubeconfig: &Path,
    engine: Engine,
    probes: Vec<Probe>,
    reach: Reach,
    grants: Grants,
    settings: BTreeMap<String, BTreeMap<String, String>>,
    images: Images,
) -> Result<Run> {
    let more = More {
        grants,
        settings,
        images,
        ..More::default()
    };
    run_all(kubeconfig, engine, probes, reach, more).await
}

/// Wraps guests and runs them with what an operator wants hidden.
///
/// # Errors
/// As [`run()`], or if a guest cannot be wrapped.
pub async fn redacting(kubeconfig: &Path, guests: &[Guest], redaction: Arc<Rules>) -> Result<Run> {
    let engine = Engine::new(&EngineOptions::default())?;
    let probes = guests
        .iter()
        .map(|guest| Ok(component::load(&engine, guest.component()?)?))
        .collect::<Result<Vec<Probe>>>()?;
    let more = More {
        redaction,
        ..More::default()
    };
    run_all(kubeconfig, engine, probes, Reach::Sandbox, more).await
}

/// What an operator may say of a run beside its reach.
#[derive(Default)]
struct More {
    grants: Grants,
    settings: BTreeMap<String, BTreeMap<String, String>>,
    redaction: Arc<Rules>,
    images: Images,
}

async fn run_all(
    kubeconfig: &Path,
    engine: Engine,
    probes: Vec<Probe>,
    reach: Reach,
    more: More,
) -> Result<Run> {
    let More {
        mut grants,
        settings,
        redaction,
        images,
    } = more;
    for probe in &probes {
        grants.extend(Grants::all_asked(probe.manifest()));
    }
    let connect = || {
        Cluster::connect(ConnectOptions {
            kubeconfig: Some(kubeconfig.to_owned()),
            ..ConnectOptions::default()
        })
    };
    let folder = tempfile::tempdir()?;
    let record = run::run(RunRequest {
        engine,
        probes,
        left_out: Vec::new(),
        engine_cluster: connect().await?,
        probe_cluster: connect().await?,
        grants,
        reach,
        settings,
        images,
        nodes: NodeChoice::default(),
        parallel: 2,
        out: folder.path().join("run"),
        mode: Mode::New,
        // Tests share a cluster, and look at what belongs to their own run.
        lock: Lock::None,
        enforce: BTreeSet::new(),
        redaction,
        nonce: None,
        witness: false,
        events: Events::silent(),
        stop: StopSignal::never(),
        stop_now: StopSignal::never(),
    })
    .await?;
    Ok(Run { record, folder })
}

/// Wraps guests and runs them.
///
/// # Errors
/// As [`run()`], or if a guest cannot be wrapped.
pub async fn guests(kubeconfig: &Path, guests: &[Guest], reach: Reach) -> Result<Run> {
    let components = guests.iter().map(Guest::component).collect::<Result<_>>()?;
    run(kubeconfig, components, reach).await
}
