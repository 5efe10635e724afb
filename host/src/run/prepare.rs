//! What all attempts of a run share, made before the first one: identity of the cluster, run id, folder, journal, redaction,
//! snapshots, namespaces. A run that continues an earlier one is checked here against what that one was.

use super::homes::{self, Homes};
use super::lock::{Held, Lock, Taking};
use super::plan;
use super::{Context, Mode, RunError, RunRequest};
use crate::cluster::Cluster;
use crate::component::Probe;
use crate::engine;
use crate::event::{Events, RunEventKind};
use crate::gate::{Snapshots, StopSignal};
use crate::grant::Effective;
use crate::journal::{Journal, JournalHead};
use crate::lease::Leases;
use crate::model::{ClusterRecord, Outcome, ProbeRecord, RunRecord, Verdict};
use crate::recording::sha256_hex;
use crate::redact::{Class, Redactor};
use crate::runfolder::{self, RunFolder, RunHead};
use crate::sandbox::pull_secrets::PullSecrets;
use crate::seal::RunKey;
use crate::witness;
use crate::witness::keeper::{self, About, Keeper};
use jiff::Timestamp;
use serde_json::Value;
use std::fmt::Write as _;
use std::sync::Arc;
use tokio::time::Instant;

/// Nodes and namespaces whose names are taught to the redaction before the first call. More are met on the way.
const INVENTORY_MAX: usize = 50_000;

/// A run that can be dispatched.
pub(super) struct Prepared {
    pub(super) context: Context,
    pub(super) record: RunRecord,
    pub(super) head: RunHead,
    pub(super) work: Vec<Work>,
    pub(super) parallel: usize,
    pub(super) stop_now: StopSignal,
    /// The cluster's Lease; none for a run that only reads.
    pub(super) held: Option<Held>,
    pub(super) witness: Option<Keeper>,
}

/// One attempt to make.
pub(super) struct Work {
    /// Place of the probe in the record.
    pub(super) place: usize,
    pub(super) probe: Probe,
    /// Whether it gets an account of its own.
    pub(super) enforced: bool,
}

impl Work {
    /// Whether anything is written to the cluster for it.
    pub(super) fn writes(&self) -> bool {
        self.enforced || plan::writes(self.probe.manifest())
    }
}

pub(super) async fn prepare(request: RunRequest) -> Result<Prepared, RunError> {
    let identity = identify(&request.engine_cluster).await?;
    request.events.send(RunEventKind::ClusterReached {
        server_version: identity.server_version.clone(),
        server: request.engine_cluster.server().to_owned(),
    });
    for probe in &request.probes {
        let missing = |error| RunError::Prepare(format!("{}: {error}", probe.manifest().id));
        request.images.of(probe.manifest()).map_err(missing)?;
    }
    let pull_secrets = pull_secrets(&request).await?;
    let digest = plan_digest(&request);
    let mut taking = taking(&request)?;
    if let Some(taking) = &mut taking {
        // Before there is a folder: a run that cannot begin leaves nothing.
        taking.free().await?;
    }
    let (folder, mut record, journal) = match request.mode {
        Mode::New => begin(&request, &identity, &digest)?,
        Mode::RerunFailed | Mode::Resume => go_on(&request, &identity, &digest)?,
    };
    let head = runfolder::head_of(&record).map_err(RunError::Prepare)?;
    for probe in &request.probes {
        folder.keep_component(probe.digest(), probe.bytes())?;
    }
    let work = select(&request, &record);
    record.ended = None;
    folder.write_record(&record)?;

    let rules = Arc::clone(&request.redaction);
    let redactor = Arc::new(Redactor::with_rules(&record.run, rules)?);
    teach(&request.engine_cluster, &redactor, &request.events).await;
    pull_secrets.teach(&redactor, journal.head());
    let snapshots = Snapshots::new(
        request.engine_cluster.clone(),
        Arc::clone(&redactor),
        journal.ledger(),
        &record.run,
        folder.path(),
        work.iter().map(|work| work.probe.manifest()),
    )
    .map_err(RunError::Prepare)?;
    let held = match &mut taking {
        Some(taking) if Homes::are_needed(&journal, &work) => {
            taking.continued = Some(record.run.clone());
            Some(
                taking
                    .take(
                        &journal,
                        &purpose(&work),
                        &homes::expires(&work, request.witness),
                    )
                    .await?,
            )
        }
        _ => None,
    };
    let homes = match Homes::prepare(&request, &journal, &work, pull_secrets).await {
        Ok(homes) => homes,
        Err(error) => {
            if let Some(held) = held {
                // Nothing of this run goes on; what remains is in the journal.
                held.release().await?;
            }
            return Err(error);
        }
    };
    let witness = if request.witness {
        match witness(&request, &homes, &folder, &record.head).await {
            Ok(keeper) => Some(keeper),
            Err(cause) => {
                // Nobody has begun yet, so all of it can go. What cannot is in the journal.
                homes.close_run().await;
                if let Some(held) = held {
                    held.release().await?;
                }
                return Err(RunError::Prepare(format!("witness: {cause}")));
            }
        }
    } else {
        None
    };
    let stop = match &held {
        Some(held) => request.stop.clone().or(held.lost_signal()),
        None => request.stop.clone(),
    };
    drop(taking);
    Ok(Prepared {
        held,
        witness,
        work,
        head,
        parallel: request.parallel,
        stop_now: request.stop_now,
        context: Context {
            engine: request.engine,
            run: record.run.clone(),
            salt: record.salt.clone(),
            nonce: record.nonce.clone(),
            identity,
            probe_cluster: request.probe_cluster,
            grants: request.grants,
            reach: request.reach,
            enforce: request.enforce,
            settings: request.settings,
            images: request.images,
            redactor,
            journal,
            leases: Leases::new(
                request.engine_cluster.clone(),
                &record.run,
                request.nodes,
                request.events.clone(),
            ),
            engine_cluster: request.engine_cluster,
            snapshots,
            homes,
            folder,
            events: request.events,
            stop,
        },
        record,
    })
}

/// What the kubelet is to pull with. A run whose probes make no pods needs none.
async fn pull_secrets(request: &RunRequest) -> Result<PullSecrets, RunError> {
    let start = |probe: &Probe| !probe.manifest().images.is_empty();
    if !request.probes.iter().any(start) {
        return Ok(PullSecrets::default());
    }
    PullSecrets::read(&request.engine_cluster, request.images.pull_secrets())
        .await
        .map_err(|error| RunError::Prepare(error.to_string()))
}

/// Begins the witness with a token about the head that the run has now.
async fn witness(
    request: &RunRequest,
    homes: &Homes,
    folder: &RunFolder,
    head: &str,
) -> Result<Keeper, String> {
    request.events.send(RunEventKind::Preparing {
        what: "witness".to_owned(),
    });
    let account = homes.witness().await?;
    let (mut keeper, warnings) =
        Keeper::begin(request.engine_cluster.clone(), folder.path(), account).await?;
    for text in warnings {
        request.events.send(RunEventKind::Warned { text });
    }
    keeper.ask(About::Head(head)).await?;
    Ok(keeper)
}

/// What it takes to hold the cluster's Lease; none for a run whose probes only read.
fn taking(request: &RunRequest) -> Result<Option<Taking<'_>>, RunError> {
    let Lock::Lease(options) = &request.lock else {
        return Ok(None);
    };
    let mut probes = request.probes.iter();
    let writes = |probe: &Probe| {
        plan::writes(probe.manifest()) || request.enforce.contains(&probe.manifest().id)
    };
    if !probes.any(writes) {
        return Ok(None);
    }
    Ok(Some(Taking {
        cluster: &request.engine_cluster,
        options,
        events: &request.events,
        stop: &request.stop,
        continued: match request.mode {
            Mode::New => None,
            Mode::RerunFailed | Mode::Resume => Some(RunFolder::open(&request.out)?.1.run),
        },
        until: Instant::now() + options.wait,
        watched: None,
    }))
}

/// What others read who meet this run's Lease.
fn purpose(work: &[Work]) -> String {
    const NAMED: usize = 3;
    let ids: Vec<&str> = work
        .iter()
        .take(NAMED)
        .map(|work| work.probe.manifest().id.as_str())
        .collect();
    let more = match work.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let word = if work.len() == 1 { "probe" } else { "probes" };
    format!("{word} {}{more}", ids.join(", "))
}

/// The uid of `kube-system` serves as the cluster's id: it lives as long as the cluster and is nobody's to change.
async fn identify(cluster: &Cluster) -> Result<ClusterRecord, RunError> {
    let failed = |cause: String| RunError::Identity {
        server: cluster.server().to_owned(),
        cause,
    };
    let version = cluster.get_json("/version").await;
    let version = version.map_err(|error| failed(error.to_string()))?;
    let system = cluster.get_json("/api/v1/namespaces/kube-system").await;
    let system = system.map_err(|error| failed(error.to_string()))?;
    let text = |value: &Value| {
        value
            .as_str()
            .unwrap_or_default()
            .chars()
            .take(128)
            .collect::<String>()
    };
    let identity = ClusterRecord {
        uid: text(&system["metadata"]["uid"]),
        server_version: text(&version["gitVersion"]),
    };
    if identity.uid.is_empty() || identity.server_version.is_empty() {
        return Err(failed(
            "it gives no version, or `kube-system` has no uid".to_owned(),
        ));
    }
    Ok(identity)
}

/// Everything that two runs must share to be one: probes, permissions, settings, mirrors, reach.
fn plan_digest(request: &RunRequest) -> String {
    let mut text = String::from("karat plan v1\n");
    let mut probes: Vec<&Probe> = request.probes.iter().collect();
    probes.sort_by_key(|probe| probe.manifest().id.as_str());
    for probe in probes {
        let manifest = probe.manifest();
        let effective = Effective::new(manifest, &request.grants, std::iter::empty::<&str>());
        let settings = super::settings_of(manifest, &request.settings);
        // Writing to a String cannot fail. `{:?}` keeps values with line breaks from looking like other lines.
        let _ = writeln!(
            text,
            "{:?} {} {} {settings:?}",
            manifest.id,
            probe.digest(),
            effective.digest()
        );
    }
    let _ = writeln!(text, "{:?} {}", request.images, request.reach);
    // Whoever forgets the rules when a run goes on would publish what they hid.
    if let Some(rules) = request.redaction.digest() {
        let _ = writeln!(text, "redaction {rules}");
    }
    sha256_hex(text.as_bytes())
}

fn begin(
    request: &RunRequest,
    identity: &ClusterRecord,
    plan: &str,
) -> Result<(RunFolder, RunRecord, Journal), RunError> {
    let folder = RunFolder::create(&request.out)?;
    if request.witness {
        // Before there is a record, so that whoever continues the run sees that it has one.
        keeper::make_room(folder.path())?;
    }
    let salt = runfolder::new_salt()?;
    let run = runfolder::run_id(&salt, request.nonce.as_deref());
    let started = Timestamp::now().to_string();
    let journal = Journal::create(
        &folder.journal(),
        JournalHead {
            run: run.clone(),
            key: RunKey::generate()?,
            cluster: identity.uid.clone(),
            server: request.engine_cluster.server().to_owned(),
            started: started.clone(),
        },
    )?;
    let left_out = request.left_out.iter().map(|(probe, outcome)| {
        let mut record = probe_record(probe);
        record.attempts.push(super::executor::not_started(
            probe,
            1,
            outcome.clone(),
            Vec::new(),
        ));
        record
    });
    let record = RunRecord {
        leases: None,
        redacted: Vec::new(),
        format: runfolder::RUN_FORMAT.to_owned(),
        run,
        salt: data_encoding::HEXLOWER.encode(&salt),
        nonce: request.nonce.clone(),
        engine: engine::VERSION.to_owned(),
        plan: plan.to_owned(),
        started,
        ended: None,
        cluster: identity.clone(),
        reach: request.reach,
        head: RunHead::new().text(),
        probes: request
            .probes
            .iter()
            .map(probe_record)
            .chain(left_out)
            .collect(),
    };
    Ok((folder, record, journal))
}

fn probe_record(probe: &Probe) -> ProbeRecord {
    let manifest = probe.manifest();
    ProbeRecord {
        probe: manifest.id.clone(),
        version: manifest.version.clone(),
        title: manifest.title.clone(),
        requirements: manifest.requirements.clone(),
        digest: probe.digest().to_owned(),
        contract: manifest.contract.clone(),
        attempts: Vec::new(),
    }
}

/// Opens a run that is there, and refuses to mix it with something else.
fn go_on(
    request: &RunRequest,
    identity: &ClusterRecord,
    plan: &str,
) -> Result<(RunFolder, RunRecord, Journal), RunError> {
    let (folder, record) = RunFolder::open(&request.out)?;
    for (what, before, now) in [
        (
            "the cluster",
            record.cluster.uid.as_str(),
            identity.uid.as_str(),
        ),
        (
            "the server's version",
            &record.cluster.server_version,
            &identity.server_version,
        ),
        ("the engine", &record.engine, engine::VERSION),
        (
            "the reach",
            &record.reach.to_string(),
            &request.reach.to_string(),
        ),
        (
            "the set of probes, permissions and settings",
            &record.plan,
            plan,
        ),
    ] {
        if before != now {
            return Err(RunError::Changed {
                run: record.run,
                what,
                before: before.to_owned(),
                now: now.to_owned(),
            });
        }
    }
    let on = |witness: bool| if witness { "on" } else { "off" };
    if witness::is_there(&request.out) != request.witness {
        return Err(RunError::Changed {
            run: record.run,
            what: "the witness",
            before: on(!request.witness).to_owned(),
            now: on(request.witness).to_owned(),
        });
    }
    if let Some(nonce) = &request.nonce
        && record.nonce.as_ref() != Some(nonce)
    {
        return Err(RunError::Changed {
            run: record.run,
            what: "the nonce",
            before: record.nonce.unwrap_or_else(|| "none".to_owned()),
            now: nonce.clone(),
        });
    }
    let journal = Journal::resume(&folder.journal())?;
    Ok((folder, record, journal))
}

/// What is to be done: all of a new run, the rest of an interrupted one, or again what did not pass.
fn select(request: &RunRequest, record: &RunRecord) -> Vec<Work> {
    let wanted = |place: usize| {
        let last = record
            .probes
            .get(place)
            .and_then(|probe| probe.attempts.last());
        match (request.mode, last) {
            (Mode::New, _) | (_, None) => true,
            (Mode::Resume, Some(last)) => last.outcome == Outcome::Interrupted,
            (Mode::RerunFailed, Some(last)) => !matches!(
                last.judgement.verdict,
                Some(Verdict::Pass | Verdict::NotApplicable)
            ),
        }
    };
    request
        .probes
        .iter()
        .filter_map(|probe| {
            let place = record
                .probes
                .iter()
                .position(|known| known.digest == probe.digest())?;
            wanted(place).then(|| Work {
                place,
                probe: probe.clone(),
                enforced: request.enforce.contains(&probe.manifest().id),
            })
        })
        .collect()
}

/// Teaches the redaction names that may turn up in text before they turn up in an object. A credential that may not list
/// nodes gives a warning: their names are then known only from the answers they appear in.
async fn teach(cluster: &Cluster, redactor: &Redactor, events: &Events) {
    events.send(RunEventKind::Preparing {
        what: "inventory".to_owned(),
    });
    for (class, path) in [
        (Class::Node, "/api/v1/nodes"),
        (Class::Namespace, "/api/v1/namespaces"),
    ] {
        let mut next = String::new();
        let mut seen = 0;
        loop {
            let page = match cluster.get_json(&format!("{path}?limit=500{next}")).await {
                Ok(page) => page,
                Err(error) => {
                    events.send(RunEventKind::Warned {
                        text: format!("names for redaction could not be listed: {error}"),
                    });
                    break;
                }
            };
            for item in page["items"].as_array().into_iter().flatten() {
                seen += 1;
                if let Some(name) = item["metadata"]["name"].as_str() {
                    redactor.learn(class, name);
                }
                if class == Class::Node {
                    redactor.learn_machine(item);
                }
                for address in item["status"]["addresses"].as_array().into_iter().flatten() {
                    if let Some(address) = address["address"].as_str() {
                        redactor.learn(Class::Address, address);
                    }
                }
            }
            match page["metadata"]["continue"].as_str() {
                Some(token) if !token.is_empty() && seen < INVENTORY_MAX => {
                    next = format!("&continue={}", crate::cluster::encode(token));
                }
                _ => break,
            }
        }
    }
}
