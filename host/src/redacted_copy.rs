//! A copy of a finished run in which more is hidden: for evidence that shall be public and names what only the operator
//! knows to be private.
//!
//! Rules of the operator are applied to answers, arguments, facts and the record; answers get new salts, recordings new
//! chains and heads, the run a new run head. The record says which head it was copied from. Then every attempt is judged
//! and replayed from the copy, and where a verdict, a reason or a case would be another one, there is no copy. It is
//! written beside its place and renamed when all holds, so that no half of it is ever found. Nothing is signed here, and
//! the original is only read.
//!
//! The program's own rules are not applied again: what they hid is hidden already, and what it stood for is forgotten.

use crate::component::Probe;
use crate::engine::Engine;
use crate::judge::{self, Evidence};
use crate::model::{
    AttemptRecord, CaseKey, Conclusion, Judgement, Outcome, RedactionRecord, RunRecord,
};
use crate::recording::format::{
    Access, Bytes, EndDraft, Entry, EntryDraft, FORMAT, Facts, Failure, Header, ObjectFact, Reply,
    Seen,
};
use crate::recording::{self, ReadOptions, Recorder, Recording};
use crate::redact::{Redactor, Rules};
use crate::replay::{self, Depth, ReplayError};
use crate::runfolder::{self, FolderError, RunFolder, RunHead};
use serde::Serialize;
use serde_json::json;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Why there is no copy.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CopyError {
    /// The folder holds no run that can be read, or the copy cannot be written.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// There is nothing to hide.
    #[error("there is no rule, so the copy would be the same run under another head")]
    NoRules,
    /// The run is still going, or was killed.
    #[error("run {run} has not ended; finish it with `karat run --resume`, then copy it")]
    Unfinished {
        /// Run id.
        run: String,
    },
    /// The place of the copy is taken.
    #[error("{} exists; name a new folder", path.display())]
    Exists {
        /// The folder.
        path: PathBuf,
    },
    /// An attempt cannot be read or written.
    #[error("attempt {attempt} of {probe}: {cause}")]
    Attempt {
        /// Probe id.
        probe: String,
        /// Counts from 1.
        attempt: u32,
        /// Why.
        cause: String,
    },
    /// An attempt would say something else.
    #[error(
        "attempt {attempt} of {probe} would not be the same: {what} was {before} and would be {after}; narrow the rules"
    )]
    Differs {
        /// Probe id.
        probe: String,
        /// Counts from 1.
        attempt: u32,
        /// What differs: `verdict`, `case authorised`, `calls`.
        what: String,
        /// In the original.
        before: String,
        /// In the copy.
        after: String,
    },
    /// The copy cannot be replayed.
    #[error(transparent)]
    Replay(#[from] ReplayError),
    /// No random bytes.
    #[error(transparent)]
    Randomness(#[from] crate::seal::NoRandomness),
    /// The file system refused.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// What was done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Copied {
    /// Run id.
    pub run: String,
    /// Run head of the original.
    pub from: String,
    /// Run head of the copy.
    pub head: String,
    /// SHA-256 of the rules.
    pub rules: String,
    /// Every attempt that has a recording.
    pub attempts: Vec<CopiedAttempt>,
}

/// One attempt of the copy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CopiedAttempt {
    /// Probe id.
    pub probe: String,
    /// Counts from 1.
    pub attempt: u32,
    /// Calls of the recording.
    pub calls: u64,
    /// Calls whose arguments or facts changed.
    pub calls_changed: u64,
    /// Answers that changed.
    pub answers_changed: u64,
    /// Whether the guest ran again from its first call to its return. An attempt that a budget or a stop ended cannot.
    pub replayed: bool,
}

/// Copies the run in `folder` to `out`, with what the rules find hidden in the copy.
///
/// # Errors
/// [`CopyError`]; then `out` is not there.
pub async fn redacted_copy(
    engine: &Engine,
    folder: &Path,
    rules: Arc<Rules>,
    out: &Path,
) -> Result<Copied, CopyError> {
    let digest = rules.digest().map(str::to_owned);
    let Some(digest) = digest.filter(|_| !rules.is_empty()) else {
        return Err(CopyError::NoRules);
    };
    let record = runfolder::read_record(folder)?;
    if record.ended.is_none() {
        return Err(CopyError::Unfinished { run: record.run });
    }
    if out.symlink_metadata().is_ok() {
        return Err(CopyError::Exists {
            path: out.to_owned(),
        });
    }
    let parent = match out.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    std::fs::create_dir_all(parent).map_err(io_error("create", parent))?;
    // Goes with everything in it, whatever happens below.
    let beside = tempfile::Builder::new()
        .prefix(".karat-redact-")
        .tempdir_in(parent)
        .map_err(io_error("create a folder in", parent))?;
    let place = beside.path().join("run");
    let work = Work {
        engine,
        folder,
        redactor: Redactor::only(&record.run, rules)?,
        digest,
    };
    let copied = work.copy(record, &place).await?;
    std::fs::rename(&place, out).map_err(io_error("move the copy to", out))?;
    std::fs::File::open(parent)
        .and_then(|parent| parent.sync_all())
        .map_err(io_error("sync", parent))?;
    Ok(copied)
}

fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> CopyError {
    let path = path.to_path_buf();
    move |source| CopyError::Io {
        action,
        path,
        source,
    }
}

struct Work<'a> {
    engine: &'a Engine,
    folder: &'a Path,
    redactor: Redactor,
    digest: String,
}

impl Work<'_> {
    async fn copy(&self, mut record: RunRecord, place: &Path) -> Result<Copied, CopyError> {
        let from = record.head.clone();
        let new = RunFolder::create(place)?;
        let mut order: Vec<(u32, usize, usize)> = Vec::new();
        for (at, probe) in record.probes.iter().enumerate() {
            for (number, attempt) in probe.attempts.iter().enumerate() {
                match (&attempt.recording, attempt.folded) {
                    (None, _) => {}
                    (Some(_), Some(folded)) => order.push((folded, at, number)),
                    (Some(_), None) => {
                        return Err(CopyError::Attempt {
                            probe: probe.probe.clone(),
                            attempt: attempt.attempt,
                            cause: "run.json names no head for its recording".to_owned(),
                        });
                    }
                }
            }
        }
        order.sort_unstable();
        // Twice: a value that a path names at the end may stand in a message at the beginning.
        for (_, probe, attempt) in &order {
            let probe = &record.probes[*probe];
            self.learn(&probe.probe, &probe.attempts[*attempt])?;
        }
        let mut loaded: BTreeMap<String, Probe> = BTreeMap::new();
        let mut head = RunHead::new();
        let mut attempts = Vec::new();
        for (_, at, number) in order {
            let owner = &record.probes[at];
            let failed = |cause: String| CopyError::Attempt {
                probe: owner.probe.clone(),
                attempt: owner.attempts[number].attempt,
                cause,
            };
            let digest = owner.digest.clone();
            if !loaded.contains_key(&digest) {
                let probe = replay::load(self.engine, self.folder, &digest).map_err(failed)?;
                new.keep_component(&digest, probe.bytes())?;
                loaded.insert(digest.clone(), probe);
            }
            let probe = &loaded[&digest];
            let (attempt, done) = self.attempt(&new, probe, &owner.attempts[number])?;
            let folded = head.fold(attempt.head.as_deref().unwrap_or_default());
            let attempt = AttemptRecord {
                folded: Some(folded.map_err(failed)?),
                ..attempt
            };
            attempts.push(done);
            record.probes[at].attempts[number] = attempt;
        }
        for attempt in record
            .probes
            .iter_mut()
            .flat_map(|probe| &mut probe.attempts)
        {
            if attempt.recording.is_none() {
                self.not_started(attempt);
            }
        }
        record.head = head.text();
        record.redacted.push(RedactionRecord {
            from: from.clone(),
            rules: self.digest.clone(),
        });
        new.write_record(&record)?;
        self.check(place, &mut attempts).await?;
        new.leave()?;
        Ok(Copied {
            run: record.run,
            from,
            head: record.head,
            rules: self.digest.clone(),
            attempts,
        })
    }

    fn read(&self, probe: &str, attempt: &AttemptRecord) -> Result<Recording, CopyError> {
        let failed = |cause: String| CopyError::Attempt {
            probe: probe.to_owned(),
            attempt: attempt.attempt,
            cause,
        };
        let relative = attempt.recording.as_deref().unwrap_or_default();
        let path = runfolder::recording(self.folder, relative)?;
        let options = ReadOptions {
            expected_head: attempt.head.clone(),
            withheld: true,
            ..ReadOptions::default()
        };
        let recording = recording::read_with(&path, &options).map_err(|e| failed(e.to_string()))?;
        match recording.withheld().len() {
            0 => Ok(recording),
            some => Err(failed(format!(
                "{some} answers are withheld from this copy, so it cannot be replayed; redact the whole run, then withhold"
            ))),
        }
    }

    fn learn(&self, probe: &str, attempt: &AttemptRecord) -> Result<(), CopyError> {
        let recording = self.read(probe, attempt)?;
        for entry in recording.entries() {
            let reply = recording.reply(entry).map_err(|e| CopyError::Attempt {
                probe: probe.to_owned(),
                attempt: attempt.attempt,
                cause: e.to_string(),
            })?;
            // Only to learn from it.
            let _ = self.reply(reply);
            self.redactor.redact_value(&mut entry.arguments.clone());
        }
        Ok(())
    }

    /// Writes one recording anew and judges it.
    fn attempt(
        &self,
        new: &RunFolder,
        probe: &Probe,
        attempt: &AttemptRecord,
    ) -> Result<(AttemptRecord, CopiedAttempt), CopyError> {
        let id = &probe.manifest().id;
        let failed = |cause: String| CopyError::Attempt {
            probe: id.clone(),
            attempt: attempt.attempt,
            cause,
        };
        let recording = self.read(id, attempt)?;
        let relative = attempt.recording.as_deref().unwrap_or_default();
        let folder = new.place(relative)?;
        let header = self.header(recording.header().clone());
        let mut recorder = Recorder::create(&folder, &header).map_err(|e| failed(e.to_string()))?;
        let mut done = CopiedAttempt {
            probe: id.clone(),
            attempt: attempt.attempt,
            calls: recording.entries().len() as u64,
            calls_changed: 0,
            answers_changed: 0,
            replayed: false,
        };
        for entry in recording.entries() {
            let before = recording.reply(entry).map_err(|e| failed(e.to_string()))?;
            let reply = self.reply(before.clone());
            let draft = self.entry(entry);
            done.answers_changed += u64::from(reply != before);
            done.calls_changed += u64::from(
                draft.arguments != entry.arguments
                    || draft.facts != entry.facts
                    || draft.access != entry.access
                    || draft.case != entry.case,
            );
            recorder
                .append(draft, &reply)
                .map_err(|e| failed(e.to_string()))?;
        }
        let end = recording
            .end()
            .ok_or_else(|| failed("its recording has no end".to_owned()))?;
        let end = EndDraft {
            outcome: self.outcome(&end.outcome),
            usage: end.usage,
            alive: end.alive.clone(),
            left_behind: self.texts(&end.left_behind),
        };
        let (outcome, left_behind) = (end.outcome.clone(), end.left_behind.clone());
        let head = recorder.finish(end).map_err(|e| failed(e.to_string()))?;
        let copy = recording::read_with(
            &folder,
            &ReadOptions {
                expected_head: Some(head.clone()),
                ..ReadOptions::default()
            },
        )
        .map_err(|e| failed(e.to_string()))?;
        let judgement = judge::judge(probe.manifest(), &Evidence::from(&copy))
            .map_err(|e| failed(e.to_string()))?;
        if let Some((what, before, after)) = self.difference(&attempt.judgement, &judgement) {
            return Err(CopyError::Differs {
                probe: id.clone(),
                attempt: attempt.attempt,
                what,
                before,
                after,
            });
        }
        let record = AttemptRecord {
            outcome,
            judgement,
            head: Some(head),
            left_behind,
            ..attempt.clone()
        };
        Ok((record, done))
    }

    /// Replays the whole copy.
    async fn check(&self, place: &Path, attempts: &mut [CopiedAttempt]) -> Result<(), CopyError> {
        let report = replay::replay(self.engine, place, None).await?;
        if let Some(finding) = report.findings().next() {
            return Err(CopyError::Differs {
                probe: finding.probe.clone(),
                attempt: finding.attempt,
                what: finding.what.clone(),
                before: finding.recorded.clone(),
                after: finding.replayed.clone(),
            });
        }
        for (copied, replayed) in attempts.iter_mut().flat_map(|copied| {
            let found = report
                .attempts
                .iter()
                .find(|one| one.probe == copied.probe && one.attempt == copied.attempt);
            found.map(|found| (copied, found))
        }) {
            match &replayed.depth {
                Depth::Full => copied.replayed = true,
                Depth::NotRecomputable(_) => {}
                Depth::None(why) => {
                    return Err(CopyError::Attempt {
                        probe: copied.probe.clone(),
                        attempt: copied.attempt,
                        cause: format!("the copy cannot be replayed: {why}"),
                    });
                }
            }
        }
        Ok(())
    }

    fn text(&self, text: &str) -> String {
        self.redactor.redact_document(text)
    }

    fn texts(&self, texts: &[String]) -> Vec<String> {
        texts.iter().map(|text| self.text(text)).collect()
    }

    fn header(&self, header: Header) -> Header {
        let values = |map: BTreeMap<String, String>| {
            map.into_iter()
                .map(|(key, value)| (key, self.text(&value)))
                .collect()
        };
        Header {
            format: FORMAT.to_owned(),
            redaction: format!("{}+{}", header.redaction, self.digest),
            settings: values(header.settings),
            images: values(header.images),
            ..header
        }
    }

    fn entry(&self, entry: &Entry) -> EntryDraft {
        let mut arguments = entry.arguments.clone();
        self.redactor.redact_value(&mut arguments);
        EntryDraft {
            at_ms: entry.at_ms,
            done_ms: entry.done_ms,
            case: entry.case.as_ref().map(|case| self.case(case)),
            function: entry.function.clone(),
            arguments,
            access: entry.access.clone().map(|access| self.access(access)),
            facts: self.facts(&entry.facts),
            tries: entry.tries,
        }
    }

    fn case(&self, case: &CaseKey) -> CaseKey {
        CaseKey {
            id: case.id.clone(),
            subject: self.text(&case.subject),
        }
    }

    fn access(&self, access: Access) -> Access {
        match access {
            Access::Resource(mut at) => {
                at.namespace = self.text(&at.namespace);
                at.name = self.text(&at.name);
                at.path = self.text(&at.path);
                Access::Resource(at)
            }
            Access::NonResource { path } => Access::NonResource {
                path: self.text(&path),
            },
            Access::Discovery => Access::Discovery,
        }
    }

    fn facts(&self, facts: &Facts) -> Facts {
        let mut facts = facts.clone();
        for object in &mut facts.objects {
            self.object_fact(object);
        }
        facts.markers = self.texts(&facts.markers);
        facts.changed = self.texts(&facts.changed);
        if let Some(lease) = &mut facts.lease {
            lease.nodes = self.texts(&lease.nodes);
            lease.locks = self.texts(&lease.locks);
        }
        facts
    }

    /// The door notes facts after redaction, so they must say what the answer says, also where a name is short.
    fn object_fact(&self, fact: &mut ObjectFact) {
        let mut object = json!({
            "kind": fact.kind,
            "metadata": {"name": fact.name, "namespace": fact.namespace},
            "spec": {"nodeName": fact.node},
            "status": {"phase": fact.phase},
        });
        self.redactor.redact_value(&mut object);
        let text = |path: &str| {
            object
                .pointer(path)
                .and_then(serde_json::Value::as_str)
                .unwrap_or_default()
                .to_owned()
        };
        fact.name = text("/metadata/name");
        fact.namespace = text("/metadata/namespace");
        fact.node = text("/spec/nodeName");
        fact.phase = text("/status/phase");
        fact.images = self.texts(&fact.images);
    }

    fn reply(&self, reply: Reply) -> Reply {
        match reply {
            Ok(seen) => Ok(match seen {
                Seen::Text(text) => Seen::Text(self.text(&text)),
                Seen::Page { objects, position } => Seen::Page {
                    objects: self.texts(&objects),
                    position,
                },
                Seen::Event { kind, text } => Seen::Event {
                    kind,
                    text: self.text(&text),
                },
                Seen::Raw {
                    code,
                    content_type,
                    body,
                } => Seen::Raw {
                    code,
                    content_type,
                    body: self.text(&body),
                },
                Seen::Bytes(Bytes::Text(text)) => Seen::Bytes(Bytes::Text(self.text(&text))),
                // Rules speak of text. What is none is withheld rather than passed on unread.
                Seen::Bytes(Bytes::Base64(_)) => {
                    Seen::Bytes(Bytes::Text("redacted: no text".to_owned()))
                }
                other @ (Seen::Nothing | Seen::Ready(_) | Seen::Number(_) | Seen::Numbers(_)) => {
                    other
                }
            }),
            Err(failure) => Err(match failure {
                Failure::Answered {
                    code,
                    reason,
                    message,
                    body,
                } => Failure::Answered {
                    code,
                    reason,
                    message: self.text(&message),
                    body: self.text(&body),
                },
                Failure::Refused(text) => Failure::Refused(self.text(&text)),
                Failure::NoAnswer(text) => Failure::NoAnswer(self.text(&text)),
                Failure::Budget(text) => Failure::Budget(self.text(&text)),
                Failure::Malformed(text) => Failure::Malformed(self.text(&text)),
                Failure::Other(text) => Failure::Other(self.text(&text)),
                other @ (Failure::Expired | Failure::Stopping) => other,
            }),
        }
    }

    fn outcome(&self, outcome: &Outcome) -> Outcome {
        let text = |text: &str| self.text(text);
        match outcome {
            Outcome::ProbeError(why) => Outcome::ProbeError(text(why)),
            Outcome::Denied(why) => Outcome::Denied(text(why)),
            Outcome::OverBudget(why) => Outcome::OverBudget(text(why)),
            Outcome::Trapped(why) => Outcome::Trapped(text(why)),
            Outcome::Skipped(why) => Outcome::Skipped(text(why)),
            Outcome::Untrusted(why) => Outcome::Untrusted(text(why)),
            Outcome::Concluded => Outcome::Concluded,
            Outcome::Interrupted => Outcome::Interrupted,
        }
    }

    /// An attempt that never reached its guest has words and no recording.
    fn not_started(&self, attempt: &mut AttemptRecord) {
        attempt.outcome = self.outcome(&attempt.outcome);
        attempt.left_behind = self.texts(&attempt.left_behind);
        attempt.judgement.explanation = self.text(&attempt.judgement.explanation);
        for case in &mut attempt.judgement.cases {
            case.explanation = self.text(&case.explanation);
        }
    }

    /// The first thing that two judgements see in another way. Words may differ in what was hidden.
    fn difference(
        &self,
        before: &Judgement,
        after: &Judgement,
    ) -> Option<(String, String, String)> {
        let mut parts = vec![
            (
                "verdict".to_owned(),
                show(&before.verdict),
                show(&after.verdict),
            ),
            (
                "reason".to_owned(),
                show(&before.reason),
                show(&after.reason),
            ),
            (
                "tier".to_owned(),
                before.tier.to_string(),
                after.tier.to_string(),
            ),
            (
                "number of cases".to_owned(),
                before.cases.len().to_string(),
                after.cases.len().to_string(),
            ),
        ];
        for (then, now) in before.cases.iter().zip(&after.cases) {
            let name = format!("case {}", then.case);
            parts.push((
                name.clone(),
                self.case(&then.case).to_string(),
                now.case.to_string(),
            ));
            parts.push((
                name.clone(),
                format!("{} ({})", then.verdict, show(&then.reason)),
                format!("{} ({})", now.verdict, show(&now.reason)),
            ));
            parts.push((
                format!("{name}, what the probe said"),
                then.concluded.as_ref().map_or("nothing", word).to_owned(),
                now.concluded.as_ref().map_or("nothing", word).to_owned(),
            ));
            let seen = |result: &crate::model::CaseResult| {
                let marks = result.observations.iter().map(|one| one.from_answer);
                format!(
                    "{:?} in calls {:?}",
                    marks.collect::<Vec<_>>(),
                    result.calls
                )
            };
            parts.push((
                format!("{name}, which observations stand in an answer"),
                seen(then),
                seen(now),
            ));
        }
        parts.into_iter().find(|(_, before, after)| before != after)
    }
}

fn show<T: std::fmt::Display>(value: &Option<T>) -> String {
    value
        .as_ref()
        .map_or_else(|| "none".to_owned(), |value| value.to_string())
}

fn word(conclusion: &Conclusion) -> &'static str {
    match conclusion {
        Conclusion::Pass => "pass",
        Conclusion::Fail => "fail",
        Conclusion::Unknown(_) => "unknown",
        Conclusion::NotApplicable(_) => "not-applicable",
        Conclusion::Other(_) => "other",
    }
}
