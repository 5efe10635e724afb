//! A probe's view of the run's shared snapshots: only what its manifest declares, reduced to what it asks for.

use super::address::malformed;
use super::kube_read::{Checked, Cursor, CursorSource, Query};
use crate::gate::keep::Keep;
use crate::gate::snapshots::Spool;
use crate::gate::{Answer, Call, Content, Door};
use crate::manifest::SnapshotLine;
use crate::recording::format::{Facts, Failure, Reply};
use serde_json::Value;
use std::sync::Arc;

/// A snapshot that is being read.
#[derive(Debug)]
pub(crate) struct SnapshotState {
    /// None in a replay.
    spool: Option<Arc<Spool>>,
    keep: Keep,
    namespace: String,
    page: usize,
}

/// Opens the snapshot of a resource. Waits for its listing if no probe asked for it before.
///
/// # Errors
/// The manifest declares no such snapshot, or fewer paths; no permission; all that a list may answer.
pub async fn open_snapshot(door: &Door, query: &Query) -> Result<Cursor, Failure> {
    let call = Call::new("kube-read.query.open-snapshot", query.arguments());
    let mut state = SnapshotState {
        spool: None,
        keep: Keep::default(),
        namespace: query.namespace.clone().unwrap_or_default(),
        page: 0,
    };
    let checked = query.check().and_then(Checked::of_collection);
    let prepared = checked.and_then(|checked| {
        let (line, keep) = declared(door, query, &checked)?;
        Ok((checked, line, keep))
    });
    match prepared {
        Err(failure) => {
            door.refuse(call, failure)?;
        }
        Ok((checked, line, keep)) => {
            state.keep = keep;
            let call = checked.listing(call);
            let spool = &mut state.spool;
            let (reply, _) = door
                .call(call, |wire| async move {
                    if wire.labels != line.labels {
                        // The guard lets the probe see only a part; a snapshot is the same for everybody.
                        return Err(Failure::Refused(format!(
                            "{} cannot be read through a snapshot, which is shared; list them",
                            line.resource
                        ))
                        .into());
                    }
                    *spool = Some(wire.live.snapshots.open(&line).await?);
                    Ok(Answer::own(Content::Nothing))
                })
                .await;
            reply?;
        }
    }
    Ok(Cursor::new(door, CursorSource::Snapshot(Box::new(state))))
}

/// The line of the manifest that declares the snapshot, and what the query keeps of it.
fn declared(
    door: &Door,
    query: &Query,
    checked: &Checked,
) -> Result<(SnapshotLine, Keep), Failure> {
    if !query.fields.is_empty() {
        let why = "cannot select from a snapshot; select in the probe, or list";
        return Err(malformed("field selector", &query.fields, why));
    }
    let lines = &door.manifest().snapshots;
    let same = |line: &&SnapshotLine| {
        line.api_version == query.api_version
            && line.resource == query.resource
            && line.labels == query.labels
    };
    for line in lines.iter().filter(same) {
        let offered = Keep::parse(&line.keep).map_err(Failure::Malformed)?;
        if query.keep.is_empty() {
            return Ok((line.clone(), offered));
        }
        if offered.covers(&checked.keep) {
            return Ok((line.clone(), checked.keep.clone()));
        }
    }
    Err(Failure::Refused(format!(
        "probe.toml declares no snapshot that holds this; add it: [[snapshots]] api-version = {:?}, resource = {:?}, labels = {:?}, \
         keep = {:?}",
        query.api_version, query.resource, query.labels, query.keep
    )))
}

impl SnapshotState {
    pub(crate) fn next(&mut self, door: &Door, call: Call, _done: bool) -> (Reply, bool) {
        let (spool, namespace, at) = (&self.spool, &self.namespace, self.page);
        let reply = door.local(call.keeping(&self.keep), |_| {
            let nothing = || Ok(Answer::own(Content::Nothing));
            let Some(spool) = spool else {
                return nothing();
            };
            let Some(mut page) = spool.page(at)? else {
                return nothing();
            };
            if !namespace.is_empty() {
                let here = |object: &Value| object["metadata"]["namespace"] == namespace.as_str();
                page.objects.retain(here);
                page.facts.retain(|fact| fact.namespace == *namespace);
            }
            Ok(Answer {
                content: Content::Spooled(page.objects, spool.position.clone()),
                facts: Facts {
                    objects: page.facts,
                    markers: page.markers,
                    ..Facts::default()
                },
            })
        });
        if reply.is_ok() {
            self.page += 1;
        }
        (reply, false)
    }
}
