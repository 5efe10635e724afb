//! A finished run folder without a cluster: the recordings that the probes bring, written by the engine's own writers and
//! judged by its own rules. What a test wants to be otherwise, it edits on the way.

use anyhow::{Context as _, Result, anyhow};
use jiff::{SignedDuration, Timestamp};
use karat_engine::judge::{Evidence, judge};
use karat_engine::manifest::{Manifest, section};
use karat_engine::model::{AttemptRecord, Outcome, ProbeRecord, Reach, RunRecord, Usage};
use karat_engine::recording::format::{EndDraft, EntryDraft, Reply};
use karat_engine::recording::{Recorder, Recording, fixture, read, sha256_hex};
use karat_engine::runfolder::{RUN_FORMAT, RunFolder, RunHead, run_id};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// When the runs that are made here began.
const BEGAN: &str = "2026-01-02T03:04:05Z";

/// One probe of the folder.
#[derive(Clone, Copy, Debug)]
pub struct Part<'a> {
    /// Folder below `probes/`.
    pub probe: &'a str,
    /// Its recordings in the order of the attempts: `pass`, `fail`.
    pub attempts: &'a [&'a str],
}

/// What a test changes.
pub trait Edit {
    /// A call before it is recorded.
    fn call(&mut self, _draft: &mut EntryDraft, _reply: &mut Reply) {}
    /// The record before it is written. Whatever is hashed in it stays as it is.
    fn record(&mut self, _record: &mut RunRecord) {}
}

/// Changes nothing.
#[derive(Clone, Copy, Debug)]
pub struct AsItWas;

impl Edit for AsItWas {}

/// All files below a folder with what they hold, recordings unpacked.
///
/// # Errors
/// The file system refuses, or a recording is no zstd.
pub fn files(folder: &Path) -> Result<BTreeMap<PathBuf, Vec<u8>>> {
    let mut all = BTreeMap::new();
    let mut waiting = vec![folder.to_owned()];
    while let Some(folder) = waiting.pop() {
        for entry in fs::read_dir(&folder)? {
            let path = entry?.path();
            if path.is_dir() {
                waiting.push(path);
                continue;
            }
            let mut bytes = fs::read(&path)?;
            if path.extension().is_some_and(|end| end == "zst") {
                bytes = zstd::decode_all(bytes.as_slice())?;
            }
            all.insert(path, bytes);
        }
    }
    Ok(all)
}

/// Makes a folder out of the recordings of the probes of a repository.
///
/// # Errors
/// There is no such recording, it cannot be judged, or the file system refuses.
pub fn write(root: &Path, out: &Path, parts: &[Part<'_>], edit: &mut dyn Edit) -> Result<()> {
    let folder = RunFolder::create(out)?;
    let salt = [1u8; 16];
    let began: Timestamp = BEGAN.parse()?;
    let mut head = RunHead::new();
    let mut record = RunRecord {
        format: RUN_FORMAT.to_owned(),
        run: run_id(&salt, None),
        salt: "01".repeat(16),
        nonce: None,
        engine: "karat for a test".to_owned(),
        plan: "0".repeat(64),
        started: BEGAN.to_owned(),
        ended: None,
        cluster: Default::default(),
        reach: Reach::ClusterObjects,
        head: String::new(),
        probes: Vec::new(),
        leases: None,
        redacted: Vec::new(),
    };
    let mut last = 0;
    for part in parts {
        let path = root.join("probes").join(part.probe);
        let text =
            fs::read_to_string(path.join("probe.toml")).context(path.display().to_string())?;
        let manifest = Manifest::parse(&text, "probe.toml")?;
        let component = section::embed(b"\0asm\x0d\0\x01\0", &text)?;
        let digest = format!("sha256:{}", sha256_hex(&component));
        folder.keep_component(&digest, &component)?;
        let mut attempts = Vec::new();
        // An attempt begins when the one before it is over; the probes begin together.
        let mut offset = 200;
        for name in part.attempts {
            let fixture = path.join("recordings").join(format!("{name}.jsonl"));
            let told = fixture::load(
                &fs::read_to_string(&fixture).context(fixture.display().to_string())?,
            )?;
            let place = folder.new_attempt(&manifest.id)?;
            let recorded = copy(&told, &place.folder, edit)?;
            let recording = read(&place.folder)?;
            record.cluster = recording.header().cluster.clone();
            let end = recording
                .end()
                .ok_or_else(|| anyhow!("{name} has no end"))?;
            let started = began.checked_add(SignedDuration::from_millis(offset))?;
            attempts.push(AttemptRecord {
                attempt: place.number,
                started: started.to_string(),
                outcome: end.outcome.clone(),
                judgement: judge(&manifest, &Evidence::from(&recording))?,
                usage: Usage {
                    calls: recording.entries().len() as u64,
                    ..end.usage
                },
                recording: Some(place.relative),
                folded: Some(head.fold(&recorded).map_err(|error| anyhow!(error))?),
                head: Some(recorded),
                left_behind: Vec::new(),
            });
            let took = recording.entries().last().map_or(0, |entry| entry.done_ms);
            offset += i64::try_from(took)? + 500;
            last = last.max(offset);
        }
        record.probes.push(ProbeRecord {
            probe: manifest.id.clone(),
            version: manifest.version.clone(),
            title: manifest.title.clone(),
            requirements: manifest.requirements.clone(),
            digest,
            contract: manifest.contract.clone(),
            attempts,
        });
    }
    record.ended = Some(
        began
            .checked_add(SignedDuration::from_millis(last))?
            .to_string(),
    );
    record.head = head.text();
    edit.record(&mut record);
    folder.write_record(&record)?;
    Ok(())
}

fn copy(told: &Recording, place: &Path, edit: &mut dyn Edit) -> Result<String> {
    let mut recorder = Recorder::create(place, told.header())?;
    for entry in told.entries() {
        let mut reply = told.reply(entry)?;
        let mut draft = EntryDraft {
            at_ms: entry.at_ms,
            done_ms: entry.done_ms,
            case: entry.case.clone(),
            function: entry.function.clone(),
            arguments: entry.arguments.clone(),
            access: entry.access.clone(),
            facts: entry.facts.clone(),
            tries: entry.tries,
        };
        edit.call(&mut draft, &mut reply);
        recorder.append(draft, &reply)?;
    }
    let end = told.end();
    Ok(recorder.finish(EndDraft {
        outcome: end.map_or(Outcome::Interrupted, |end| end.outcome.clone()),
        usage: end.map(|end| end.usage).unwrap_or_default(),
        alive: end.map(|end| end.alive.clone()).unwrap_or_default(),
        left_behind: Vec::new(),
    })?)
}
