//! Checks a bundle without trusting who made it: limits, structure, digests, signatures, the chain, then every verdict
//! computed again by the probes that the reviewer trusts. No cluster, and no network unless the reviewer wants the issuer of a
//! witness to be asked ([`Reviewer::online`]).
//!
//! What is found is told in two kinds. A [`Finding`] is something wrong. [`VerifyReport::unchecked`] is what could not be
//! checked here, and why; it keeps the answer from being a plain yes. What no bundle can show is told in words by
//! [`VerifyReport::limits_of_proof`], whatever was found.
//!
//! Later checks do not run on what earlier ones refused: nothing is opened in a folder whose structure is wrong.

use crate::bundle::signature::{Envelope, PublicKey};
use crate::bundle::statement::{Predicate, Statement};
use crate::bundle::{self, BundleError, File, Limits, Place, STATEMENT_FILE, list};
use crate::component::{self, Probe};
use crate::engine::Engine;
use crate::form::Form;
use crate::model::{AttemptRecord, ProbeRecord, RunRecord, Tier, Verdict};
use crate::recording::format::{RECORDING_FILE, RECORDING_MAX};
use crate::recording::sha256_hex;
use crate::replay::{self, Depth, NoComponent, ReplayedAttempt};
use crate::runfolder::{self, RUN_FILE};
use crate::witness::check::{self, Expected, Keys};
use crate::witness::issuer::Online;
use crate::witness::keys::KeySet;
use crate::witness::{Grade, Witnessed};
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;

/// Most bytes of one envelope: a statement in base64 and some signatures.
const ENVELOPE_MAX: u64 = 16 << 20;

/// What the reviewer brings.
#[derive(Clone, Debug, Default)]
pub struct Reviewer {
    /// Keys of which each must have signed the bundle.
    pub keys: Vec<PublicKey>,
    /// Components that may be run, by digest (`sha256:…`), with their bytes where the reviewer has them.
    pub trusted: BTreeMap<String, Option<Arc<[u8]>>>,
    /// Whether components that are not trusted may be run too. They are sandboxed all the same.
    pub run_foreign: bool,
    /// The nonce that was given for this run.
    pub nonce: Option<String>,
    /// Keys of the issuer that must have signed the witness.
    pub issuer_keys: Option<KeySet>,
    /// With what to fetch the keys that the issuer of the witness publishes now.
    pub online: Option<Online>,
    /// The official checklist whose requirements the bundle should answer.
    pub form: Option<Form>,
    /// Most that the bundle may hold.
    pub limits: Limits,
}

impl Reviewer {
    /// Trusts probes by their digests alone; the bundle brings the bytes.
    pub fn trusting(digests: impl IntoIterator<Item = String>) -> Reviewer {
        Reviewer {
            trusted: digests.into_iter().map(|digest| (digest, None)).collect(),
            ..Reviewer::default()
        }
    }
}

/// Which check a line belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Check {
    /// Files and folders: names, kinds, number, size.
    Structure,
    /// The statement and the digests in it.
    Digest,
    /// Signatures.
    Signature,
    /// `run.json` in itself, and against the statement.
    Record,
    /// What the cluster's issuer signed while the run went on.
    Witness,
    /// Recordings, components and verdicts, computed again.
    Replay,
    /// The checklist.
    Form,
}

impl Check {
    /// The word of reports.
    pub fn word(self) -> &'static str {
        match self {
            Check::Structure => "structure",
            Check::Digest => "digest",
            Check::Signature => "signature",
            Check::Record => "record",
            Check::Witness => "witness",
            Check::Replay => "replay",
            Check::Form => "form",
        }
    }
}

/// One line. Both texts may quote the bundle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Which check.
    pub check: Check,
    /// File, probe or requirement.
    pub subject: String,
    /// What is wrong, or why it could not be checked.
    pub message: String,
}

/// Who signed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum Signed {
    /// There is no signature.
    No,
    /// There are signatures, and the reviewer gave no key.
    Unknown {
        /// Ids of keys as the envelopes claim them.
        claimed: Vec<String>,
    },
    /// The reviewer's keys that signed it.
    By {
        /// Ids of keys.
        keys: Vec<String>,
    },
}

/// What a bundle says about one requirement of a checklist.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Answered {
    /// Id.
    pub id: String,
    /// `MUST` or `SHOULD`.
    pub level: String,
    /// Id of the probe that answers it; of several, the one with the worst verdict.
    pub probe: Option<String>,
    /// Verdict of its last attempt.
    pub verdict: Option<Verdict>,
    /// What that rests on.
    pub tier: Option<Tier>,
    /// Whether this verdict was computed again here.
    pub recomputed: bool,
}

/// Everything that was found out.
#[derive(Clone, Debug)]
pub struct VerifyReport {
    /// The run record, where it could be read.
    pub record: Option<RunRecord>,
    /// What is wrong.
    pub findings: Vec<Finding>,
    /// What could not be checked.
    pub unchecked: Vec<Finding>,
    /// Who signed.
    pub signed: Signed,
    /// What the witness comes to.
    pub witnessed: Witnessed,
    /// Every attempt that was looked at.
    pub attempts: Vec<ReplayedAttempt>,
    /// The requirements of the checklist, where one was given.
    pub answered: Vec<Answered>,
}

impl VerifyReport {
    /// Whether nothing is wrong and everything was checked.
    pub fn holds(&self) -> bool {
        self.findings.is_empty() && self.unchecked.is_empty()
    }

    /// What this bundle cannot show, whatever was found, one sentence each.
    pub fn limits_of_proof(&self) -> Vec<String> {
        let mut said = Vec::new();
        match &self.signed {
            Signed::No => said.push(
                "Nobody signed it: whoever had it in hands could have made all of it anew.".to_owned(),
            ),
            Signed::Unknown { .. } => said.push(
                "Its signatures were not checked: give the vendor's public key with --key.".to_owned(),
            ),
            Signed::By { .. } => said.push(
                "A signature shows who vouches for it and that nobody else changed it since; not that its answers are true."
                    .to_owned(),
            ),
        }
        said.push(
            "A replay shows that these probes, given these answers, give these verdicts; not where the answers came from."
                .to_owned(),
        );
        let nonce = self
            .record
            .as_ref()
            .and_then(|record| record.nonce.as_deref());
        said.push(match nonce {
            Some(_) => {
                "It answers a nonce, so it was made after that nonce was given out.".to_owned()
            }
            None if self.witnessed.grade > Grade::SelfAsserted => {
                "It answers no nonce: of its beginning only the witness speaks.".to_owned()
            }
            None => "It answers no nonce: nothing shows when it was made.".to_owned(),
        });
        said.extend(self.witness_in_words());
        said.push(
            "Truth comes from a run that you start yourself, from the audit log of the cluster (every request carries the run's id), or from trust in the signer."
                .to_owned(),
        );
        said
    }
}

impl VerifyReport {
    /// What the witness shows, and what not; none without a witness.
    fn witness_in_words(&self) -> Option<String> {
        let Witnessed {
            issuer,
            first,
            last,
            fetched,
            ..
        } = &self.witnessed;
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let whose = match self.witnessed.grade {
            Grade::None => return None,
            Grade::SelfAsserted => {
                return Some(
                    "Its witness is self-asserted: the issuer's keys come from the bundle itself, so it is worth as much as the vendor's signature."
                        .to_owned(),
                );
            }
            Grade::Pinned => "whose keys you gave".to_owned(),
            Grade::Issuer => format!("whose keys were fetched at {}", text(fetched)),
        };
        Some(format!(
            "Its witness shows that this evidence existed at the issuer {}, {whose}, from {} to {} by its clock, and was not edited later. \
             It is worth as much as your trust in whoever holds those keys, and does not show that the answers are true: a proxy or another cluster can stand behind it.",
            text(issuer),
            text(first),
            text(last),
        ))
    }
}

/// Checks a bundle.
///
/// # Errors
/// There is no such folder. Everything else is a finding.
pub async fn verify(
    engine: &Engine,
    folder: &Path,
    reviewer: &Reviewer,
) -> Result<VerifyReport, BundleError> {
    fs::read_dir(folder).map_err(|source| BundleError::Io {
        action: "open",
        path: folder.to_path_buf(),
        source,
    })?;
    let mut work = Verify {
        engine,
        folder,
        reviewer,
        report: VerifyReport {
            record: None,
            findings: Vec::new(),
            unchecked: Vec::new(),
            signed: Signed::No,
            witnessed: Witnessed::default(),
            attempts: Vec::new(),
            answered: Vec::new(),
        },
    };
    work.run().await;
    Ok(work.report)
}

struct Verify<'a> {
    engine: &'a Engine,
    folder: &'a Path,
    reviewer: &'a Reviewer,
    report: VerifyReport,
}

impl Verify<'_> {
    async fn run(&mut self) {
        let files = match list(self.folder, &self.reviewer.limits) {
            Ok(files) => files,
            Err(BundleError::Structure { path, cause }) => {
                return self.find(Check::Structure, path, cause);
            }
            Err(error) => return self.find(Check::Structure, "bundle", error.to_string()),
        };
        for file in files.iter().filter(|file| file.place == Place::Other) {
            self.find(
                Check::Structure,
                &file.path,
                "no part of a bundle: it was added",
            );
        }
        let statement = self.statement(&files);
        let record = match runfolder::read_record(self.folder) {
            Ok(record) => record,
            Err(error) => return self.find(Check::Record, RUN_FILE, error.to_string()),
        };
        if let Some(statement) = &statement {
            self.stated(&statement.predicate, &record);
        }
        self.record(&record, &files);
        if let Some(nonce) = &self.reviewer.nonce
            && record.nonce.as_ref() != Some(nonce)
        {
            self.find(
                Check::Record,
                RUN_FILE,
                "it does not answer the nonce that you gave",
            );
        }
        self.witness(&record).await;
        self.replay(&record).await;
        self.report.record = Some(record);
        self.answer();
    }

    fn find(&mut self, check: Check, subject: impl Into<String>, message: impl Into<String>) {
        self.report.findings.push(Finding {
            check,
            subject: subject.into(),
            message: message.into(),
        });
    }

    fn skip(&mut self, check: Check, subject: impl Into<String>, message: impl Into<String>) {
        self.report.unchecked.push(Finding {
            check,
            subject: subject.into(),
            message: message.into(),
        });
    }

    /// The statement, every digest in it, and every signature around it.
    fn statement(&mut self, files: &[File]) -> Option<Statement> {
        let bytes = match bundle::statement_bytes(self.folder) {
            Ok(bytes) => bytes,
            Err(error) => {
                self.find(Check::Digest, STATEMENT_FILE, error.to_string());
                return None;
            }
        };
        self.signatures(files, &bytes);
        let statement = match Statement::parse(&bytes) {
            Ok(statement) => statement,
            Err(error) => {
                self.find(Check::Digest, STATEMENT_FILE, error.to_string());
                return None;
            }
        };
        let stated = |file: &File| matches!(file.place, Place::Record | Place::Recording(_));
        for file in files.iter().filter(|file| stated(file)) {
            match statement.subjects.get(&file.path) {
                None => self.find(
                    Check::Digest,
                    &file.path,
                    "the statement does not name it: it was added",
                ),
                Some(expected) => match digest_of(&self.folder.join(&file.path)) {
                    Ok(found) if found == *expected => {}
                    Ok(_) => self.find(
                        Check::Digest,
                        &file.path,
                        "other bytes than the statement says: it was changed",
                    ),
                    Err(error) => self.find(Check::Digest, &file.path, error),
                },
            }
        }
        let there: BTreeSet<&str> = files.iter().map(|file| file.path.as_str()).collect();
        for name in statement.subjects.keys() {
            if !there.contains(name.as_str()) {
                self.find(
                    Check::Digest,
                    name.chars().take(300).collect::<String>(),
                    "the statement names it and it is not there: it was removed",
                );
            }
        }
        Some(statement)
    }

    fn signatures(&mut self, files: &[File], statement: &[u8]) {
        let mut claimed = BTreeSet::new();
        let mut signed = BTreeSet::new();
        for file in files.iter().filter(|file| file.place == Place::Signature) {
            let envelope = read_limited(&self.folder.join(&file.path), ENVELOPE_MAX)
                .and_then(|bytes| Envelope::parse(&bytes));
            let envelope = match envelope {
                Ok(envelope) => envelope,
                Err(error) => {
                    self.find(Check::Signature, &file.path, error);
                    continue;
                }
            };
            if envelope.payload() != statement {
                self.find(
                    Check::Signature,
                    &file.path,
                    format!("it signs another text than {STATEMENT_FILE}"),
                );
                continue;
            }
            claimed.extend(
                envelope
                    .claimed_keys()
                    .map(|id| id.chars().take(64).collect::<String>()),
            );
            for key in &self.reviewer.keys {
                if envelope.is_signed_by(key) {
                    signed.insert(key.id());
                }
            }
        }
        for key in &self.reviewer.keys {
            let id = key.id();
            if !signed.contains(&id) {
                self.find(
                    Check::Signature,
                    bundle::SIGNATURES,
                    format!("no signature by the key {id}"),
                );
            }
        }
        self.report.signed = match (signed.is_empty(), claimed.is_empty()) {
            (false, _) => Signed::By {
                keys: signed.into_iter().collect(),
            },
            (true, false) => Signed::Unknown {
                claimed: claimed.into_iter().collect(),
            },
            (true, true) => Signed::No,
        };
    }

    /// The statement's words about the run against `run.json`.
    fn stated(&mut self, stated: &Predicate, record: &RunRecord) {
        if *stated != Predicate::from(record) {
            self.find(
                Check::Record,
                STATEMENT_FILE,
                "it speaks of another run than run.json: id, head, cluster, engine or times differ",
            );
        }
    }

    /// `run.json` against the files, and against the order in which attempts are made.
    fn record(&mut self, record: &RunRecord, files: &[File]) {
        let mut named = BTreeSet::new();
        let mut ids = BTreeSet::new();
        for probe in &record.probes {
            if !ids.insert(&probe.probe) {
                self.find(Check::Record, &probe.probe, "it stands twice in run.json");
            }
            for (at, attempt) in probe.attempts.iter().enumerate() {
                self.attempt(probe, attempt, at);
                named.extend(attempt.recording.as_deref());
            }
        }
        for file in files {
            let (Place::Recording(attempt) | Place::Blob(attempt, _)) = &file.place else {
                continue;
            };
            if !named.contains(attempt.as_str()) {
                self.find(
                    Check::Record,
                    &file.path,
                    "no attempt in run.json names it: an attempt was dropped, or this was added",
                );
            }
        }
        let components: BTreeSet<&str> = record
            .probes
            .iter()
            .filter_map(|probe| probe.digest.strip_prefix("sha256:"))
            .collect();
        for file in files {
            if let Place::Component(digest) = &file.place
                && !components.contains(digest.as_str())
            {
                self.find(
                    Check::Record,
                    &file.path,
                    "no probe in run.json has this component",
                );
            }
        }
    }

    fn attempt(&mut self, probe: &ProbeRecord, attempt: &AttemptRecord, at: usize) {
        let subject = format!("{} attempt {}", probe.probe, attempt.attempt);
        if attempt.attempt as usize != at + 1 {
            self.find(
                Check::Record,
                &subject,
                format!("attempts count from 1, and this is number {} of them: one was dropped or moved", at + 1),
            );
        }
        if let Some(recording) = &attempt.recording {
            let own = runfolder::probe_folder(&probe.probe)
                .map(|name| format!("probes/{name}/attempt-{}", attempt.attempt));
            if own.ok().as_ref() != Some(recording) {
                self.find(
                    Check::Record,
                    &subject,
                    "it names the recording of another attempt",
                );
            }
        }
    }

    /// What the issuer signed, against the heads of `run.json` (which the replay compares with the recordings) and the
    /// statement.
    async fn witness(&mut self, record: &RunRecord) {
        let Ok(heads) = runfolder::heads_of(record) else {
            // Told already: such a record is not read.
            return;
        };
        let expected = Expected {
            run: &record.run,
            heads,
            statement: bundle::statement_bytes(self.folder)
                .ok()
                .map(|bytes| sha256_hex(&bytes)),
        };
        let keys = Keys {
            pinned: self.reviewer.issuer_keys.as_ref(),
            online: self.reviewer.online.as_ref(),
        };
        let checked = check::check(self.folder, &expected, keys).await;
        for (subject, message) in checked.findings {
            self.find(Check::Witness, subject, message);
        }
        for (subject, message) in checked.unchecked {
            self.skip(Check::Witness, subject, message);
        }
        self.report.witnessed = checked.witnessed;
    }

    async fn replay(&mut self, record: &RunRecord) {
        let load = |digest: &str| component(self.engine, self.folder, self.reviewer, digest);
        let attempts = replay::replay_with(self.engine, self.folder, record, None, load).await;
        for attempt in &attempts {
            let subject = format!("{} attempt {}", attempt.probe, attempt.attempt);
            for finding in &attempt.findings {
                let message = format!(
                    "{}: recorded {}, computed again {}",
                    finding.what, finding.recorded, finding.replayed
                );
                self.find(Check::Replay, &subject, message);
            }
            let is_last = !attempts
                .iter()
                .any(|other| other.probe == attempt.probe && other.attempt > attempt.attempt);
            let claims = attempt.verdict.is_some() || is_last;
            match &attempt.depth {
                Depth::Full => {}
                _ if !attempt.findings.is_empty() || !claims => {}
                Depth::NotRecomputable(why) => self.skip(
                    Check::Replay,
                    &subject,
                    format!("how it ended cannot be computed again: {why}"),
                ),
                Depth::None(why) => self.skip(Check::Replay, &subject, why),
            }
        }
        self.report.attempts = attempts;
    }

    /// What the bundle says about each requirement of the checklist.
    fn answer(&mut self) {
        let (Some(form), Some(record)) = (&self.reviewer.form, &self.report.record) else {
            return;
        };
        let mut answered = Vec::new();
        for requirement in &form.requirements {
            let worst = record
                .probes
                .iter()
                .filter(|probe| probe.requirements.contains(&requirement.id))
                .filter_map(|probe| Some((probe, probe.attempts.last()?)))
                .max_by_key(|(_, attempt)| badness(attempt.judgement.verdict));
            let recomputed = worst.is_some_and(|(probe, attempt)| {
                self.report.attempts.iter().any(|done| {
                    done.probe == probe.probe
                        && done.attempt == attempt.attempt
                        && done.depth == Depth::Full
                        && done.findings.is_empty()
                })
            });
            answered.push(Answered {
                id: requirement.id.clone(),
                level: requirement.level.to_string(),
                probe: worst.map(|(probe, _)| probe.probe.clone()),
                verdict: worst.and_then(|(_, attempt)| attempt.judgement.verdict),
                tier: worst.map(|(_, attempt)| attempt.judgement.tier),
                recomputed,
            });
        }
        for one in answered.iter().filter(|one| one.level == "MUST") {
            let (verdict, tier) = (one.verdict, one.tier);
            match (verdict, tier) {
                (None, _) => self.skip(
                    Check::Form,
                    &one.id,
                    "a MUST without a verdict in this bundle",
                ),
                (Some(Verdict::Fail), _) => self.find(Check::Form, &one.id, "a MUST that failed"),
                (Some(Verdict::Unknown), _) => {
                    self.skip(Check::Form, &one.id, "a MUST that could not be told");
                }
                (Some(_), Some(Tier::Simulated)) => {
                    self.skip(Check::Form, &one.id, "a MUST that was only simulated");
                }
                (Some(Verdict::Pass | Verdict::NotApplicable), _) => {}
            }
        }
        self.report.answered = answered;
    }
}

/// A component, if the reviewer lets it run.
pub(crate) fn component(
    engine: &Engine,
    folder: &Path,
    reviewer: &Reviewer,
    digest: &str,
) -> Result<Probe, NoComponent> {
    let trusted = reviewer.trusted.get(digest);
    if trusted.is_none() && !reviewer.run_foreign {
        return Err(NoComponent::Absent(format!(
            "the probe {digest} is none that you trust: its verdict was not computed again (--probes names trusted ones, --run-foreign-probes runs any, sandboxed)"
        )));
    }
    if let Some(Some(bytes)) = trusted {
        return component::load(engine, bytes.to_vec())
            .map_err(|error| NoComponent::Damaged(error.to_string()));
    }
    if runfolder::component_path(folder, digest).is_ok_and(|path| !path.exists()) {
        return Err(NoComponent::Absent(format!(
            "the probe {digest} is not in this copy: bring it, for example with --probes-from"
        )));
    }
    replay::load(engine, folder, digest).map_err(NoComponent::Damaged)
}

/// The worst verdict decides where several probes answer one requirement.
fn badness(verdict: Option<Verdict>) -> u8 {
    match verdict {
        Some(Verdict::Pass) => 0,
        Some(Verdict::NotApplicable) => 1,
        None => 2,
        Some(Verdict::Unknown) => 3,
        Some(Verdict::Fail) => 4,
    }
}

fn digest_of(path: &Path) -> Result<String, String> {
    let name = path.file_name().unwrap_or_default();
    // A recording is compressed, and no compressed one is larger than what it may unpack to.
    let limit = if name == RECORDING_FILE {
        RECORDING_MAX
    } else {
        64 << 20
    };
    let file = fs::File::open(path).map_err(|error| error.to_string())?;
    let mut hash = Sha256::new();
    let read =
        std::io::copy(&mut file.take(limit + 1), &mut hash).map_err(|error| error.to_string())?;
    if read > limit {
        return Err(format!("larger than {limit} bytes"));
    }
    Ok(data_encoding::HEXLOWER.encode(&hash.finalize()))
}

fn read_limited(path: &Path, limit: u64) -> Result<Vec<u8>, String> {
    let file = fs::File::open(path).map_err(|error| error.to_string())?;
    let mut bytes = Vec::new();
    file.take(limit + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| error.to_string())?;
    if bytes.len() as u64 > limit {
        return Err(format!("larger than {limit} bytes"));
    }
    Ok(bytes)
}
