//! Queries that are listed once for all probes of a run.
//!
//! The manifests declare them, so the union of the wanted paths is known before anything is read. The first probe that
//! opens a snapshot has it listed, the others wait; pages lie compressed on disk, already redacted and reduced to the
//! union, and each probe gets its own reduction of them. A snapshot is not live: it never counts as an effect.

use super::Trouble;
use super::facts::note;
use super::keep::Keep;
use super::reduce::{each_item, strip};
use crate::capability::address::{self, Resource};
use crate::cluster::{Cluster, Request};
use crate::journal::Ledger;
use crate::manifest::{Manifest, SnapshotLine};
use crate::recording::format::{Facts, Failure, ObjectFact};
use crate::redact::Redactor;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use tokio::sync::OnceCell;

/// Objects of a page.
const PAGE: u32 = 500;
/// Largest page over the wire.
const PAGE_MAX: u64 = 64 << 20;
/// Largest page on disk after decompression: what we wrote ourselves, with room.
const SPOOL_MAX: u64 = 128 << 20;
/// How often a list that expired half way is begun anew.
const RESTARTS: u32 = 3;

/// The shared snapshots of a run. Cheap to clone. The folder it spools to vanishes with the last clone.
#[derive(Clone)]
pub struct Snapshots {
    inner: Arc<Inner>,
}

struct Inner {
    cluster: Cluster,
    redactor: Arc<Redactor>,
    ledger: Ledger,
    run: String,
    folder: tempfile::TempDir,
    entries: BTreeMap<Key, Entry>,
    requests: AtomicU32,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    api_version: String,
    resource: String,
    labels: String,
}

impl Key {
    fn of(line: &SnapshotLine) -> Key {
        Key {
            api_version: line.api_version.clone(),
            resource: line.resource.clone(),
            labels: line.labels.clone(),
        }
    }
}

struct Entry {
    /// What any probe wants of the objects.
    keep: Keep,
    spool: OnceCell<Arc<Spool>>,
}

/// One snapshot on disk.
#[derive(Debug)]
pub(crate) struct Spool {
    pages: Vec<PathBuf>,
    /// Resource version of the list.
    pub(crate) position: String,
}

/// One page of it.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct SpooledPage {
    pub(crate) objects: Vec<Value>,
    pub(crate) facts: Vec<ObjectFact>,
    pub(crate) markers: Vec<String>,
}

impl Snapshots {
    /// Prepares the snapshots that the manifests declare; lists nothing yet. `cluster` is the engine's own connection,
    /// `folder` the run's folder.
    ///
    /// # Errors
    /// A manifest declares a path that is none, or the folder cannot be written.
    pub fn new<'a>(
        cluster: Cluster,
        redactor: Arc<Redactor>,
        ledger: Ledger,
        run: &str,
        folder: &Path,
        manifests: impl IntoIterator<Item = &'a Manifest>,
    ) -> Result<Snapshots, String> {
        let mut entries: BTreeMap<Key, Entry> = BTreeMap::new();
        for manifest in manifests {
            for line in &manifest.snapshots {
                let keep = Keep::parse(&line.keep).map_err(|e| {
                    format!("probe {}, snapshot of {}: {e}", manifest.id, line.resource)
                })?;
                entries
                    .entry(Key::of(line))
                    .and_modify(|entry| entry.keep = entry.keep.union(&keep))
                    .or_insert_with(|| Entry {
                        keep,
                        spool: OnceCell::new(),
                    });
            }
        }
        let folder = tempfile::Builder::new()
            .prefix("snapshots-")
            .tempdir_in(folder)
            .map_err(|e| format!("{}: {e}", folder.display()))?;
        Ok(Snapshots {
            inner: Arc::new(Inner {
                cluster,
                redactor,
                ledger,
                run: run.to_owned(),
                folder,
                entries,
                requests: AtomicU32::new(0),
            }),
        })
    }

    /// The snapshot for a line of a manifest, listed now if nobody asked before.
    pub(crate) async fn open(&self, line: &SnapshotLine) -> Result<Arc<Spool>, Trouble> {
        let entry = self.inner.entries.get(&Key::of(line)).ok_or_else(|| {
            let text = format!(
                "the run prepared no snapshot of {} ({})",
                line.resource, line.api_version
            );
            Failure::Refused(text)
        })?;
        let spool = entry
            .spool
            .get_or_try_init(|| self.inner.list(line, &entry.keep))
            .await?;
        Ok(Arc::clone(spool))
    }
}

impl Inner {
    async fn list(&self, line: &SnapshotLine, keep: &Keep) -> Result<Arc<Spool>, Trouble> {
        let resource = Resource::parse(&line.api_version, &line.resource)?;
        let path = address::path(&resource.access("list", "", ""));
        let mut restarts = 0;
        let mut limit = PAGE;
        let mut pages: Vec<PathBuf> = Vec::new();
        let mut next = String::new();
        loop {
            let query = address::query(&[
                ("labelSelector", &line.labels),
                ("limit", &limit.to_string()),
                ("continue", &next),
            ]);
            let number = self.requests.fetch_add(1, Ordering::Relaxed) + 1;
            let request = Request::get(format!("{path}{query}"))
                .limited(PAGE_MAX)
                .audited(format!("karat-{}-snapshot-{number}", self.run));
            let answer = match self.cluster.send(&request).await {
                Err(crate::cluster::SendError::TooLarge { .. }) if limit > 1 => {
                    limit = (limit / 8).max(1);
                    continue;
                }
                other => other?,
            };
            if answer.code == 410 && !next.is_empty() && restarts < RESTARTS {
                restarts += 1;
                pages.clear();
                next.clear();
                continue;
            }
            if answer.code != 200 {
                return Err(Trouble::Answered(answer.code, answer.body));
            }
            let mut page = SpooledPage::default();
            let mut facts = Facts::default();
            let api_version = resource.api_version();
            let head = each_item(&answer.body, &api_version, |mut object| {
                strip(&mut object);
                self.redactor
                    .redact(&resource.group, &resource.resource, &mut object);
                note(&mut facts, &object, |uid| self.ledger.ever_created(uid));
                keep.apply(&mut object);
                page.objects.push(object);
                Some(())
            })
            .map_err(|_| {
                Failure::NoAnswer("the server answered something that is no list".to_owned())
            })?;
            drop(answer);
            page.facts = facts.objects;
            page.markers = facts.markers;
            let file = self.folder.path().join(format!("{number}.zst"));
            let failed = |e: &dyn std::fmt::Display| {
                Failure::NoAnswer(format!("the snapshot could not be written to disk: {e}"))
            };
            let bytes = serde_json::to_vec(&page).map_err(|e| failed(&e))?;
            drop(page);
            let packed = zstd::encode_all(bytes.as_slice(), 1).map_err(|e| failed(&e))?;
            tokio::fs::write(&file, packed)
                .await
                .map_err(|e| failed(&e))?;
            pages.push(file);
            if head.next.is_empty() {
                return Ok(Arc::new(Spool {
                    pages,
                    position: head.position,
                }));
            }
            next = head.next;
        }
    }
}

impl Spool {
    /// Reads a page; none behind the last one.
    pub(crate) fn page(&self, at: usize) -> Result<Option<SpooledPage>, Failure> {
        let Some(path) = self.pages.get(at) else {
            return Ok(None);
        };
        let read = || -> std::io::Result<SpooledPage> {
            let file = std::fs::File::open(path)?;
            let mut bytes = Vec::new();
            let plain = zstd::Decoder::new(file)?;
            std::io::Read::read_to_end(&mut std::io::Read::take(plain, SPOOL_MAX), &mut bytes)?;
            Ok(serde_json::from_slice(&bytes)?)
        };
        read().map(Some).map_err(|e| {
            Failure::NoAnswer(format!(
                "the snapshot could not be read back from disk: {e}"
            ))
        })
    }
}
