//! The statement of a bundle: an in-toto statement whose subjects are the files that are not named by their own digest.
//!
//! Source: in-toto attestation framework, `spec/v1/statement.md`. The predicate repeats who, where and when from `run.json`,
//! so that a signature is worth reading without the rest.

use super::{BundleError, io_error};
use crate::model::{ClusterRecord, RunRecord};
use crate::recording::format::RECORDING_FILE;
use crate::recording::{is_digest, sha256_hex};
use crate::runfolder::{self, RUN_FILE};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// Type of the statement.
pub const STATEMENT_TYPE: &str = "https://in-toto.io/Statement/v1";
/// Type of the predicate. Another number means another meaning.
pub const PREDICATE_TYPE: &str = "urn:karat:run:1";
/// Most bytes of a statement.
pub const STATEMENT_MAX: u64 = 8 << 20;

/// What is stated about a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Predicate {
    /// Run id.
    pub run: String,
    /// Run head: commits to every finished recording.
    pub head: String,
    /// The reviewer's nonce.
    pub nonce: Option<String>,
    /// Engine version.
    pub engine: String,
    /// The cluster.
    pub cluster: ClusterRecord,
    /// RFC 3339.
    pub started: String,
    /// RFC 3339; none after a crash.
    pub ended: Option<String>,
}

impl From<&RunRecord> for Predicate {
    fn from(record: &RunRecord) -> Self {
        Predicate {
            run: record.run.clone(),
            head: record.head.clone(),
            nonce: record.nonce.clone(),
            engine: record.engine.clone(),
            cluster: record.cluster.clone(),
            started: record.started.clone(),
            ended: record.ended.clone(),
        }
    }
}

/// A statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
    /// SHA-256 in hexadecimal digits by path below the bundle.
    pub subjects: BTreeMap<String, String>,
    /// What is stated.
    pub predicate: Predicate,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Written {
    #[serde(rename = "_type")]
    kind: String,
    subject: Vec<Subject>,
    predicate_type: String,
    predicate: Predicate,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Subject {
    name: String,
    digest: Sha256Only,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Sha256Only {
    sha256: String,
}

/// The statement of what lies in a run folder or a bundle, as its bytes. Equal folders give equal bytes.
///
/// # Errors
/// A file that the record names cannot be read.
pub(crate) fn of(folder: &Path, record: &RunRecord) -> Result<String, BundleError> {
    let digest = |path: &Path| {
        let bytes = fs::read(path).map_err(io_error("read", path))?;
        Ok::<_, BundleError>(sha256_hex(&bytes))
    };
    let mut subjects = BTreeMap::from([(RUN_FILE.to_owned(), digest(&folder.join(RUN_FILE))?)]);
    let attempts = record.probes.iter().flat_map(|probe| &probe.attempts);
    for relative in attempts.filter_map(|attempt| attempt.recording.as_deref()) {
        let path = runfolder::recording(folder, relative)?.join(RECORDING_FILE);
        subjects.insert(format!("{relative}/{RECORDING_FILE}"), digest(&path)?);
    }
    let statement = Statement {
        subjects,
        predicate: Predicate::from(record),
    };
    Ok(statement.to_json())
}

impl Statement {
    /// The statement as JSON with a newline: the bytes that are signed.
    pub fn to_json(&self) -> String {
        let written = Written {
            kind: STATEMENT_TYPE.to_owned(),
            subject: self
                .subjects
                .iter()
                .map(|(name, sha256)| Subject {
                    name: name.clone(),
                    digest: Sha256Only {
                        sha256: sha256.clone(),
                    },
                })
                .collect(),
            predicate_type: PREDICATE_TYPE.to_owned(),
            predicate: self.predicate.clone(),
        };
        let mut text = serde_json::json!(written).to_string();
        text.push('\n');
        text
    }

    /// Reads a statement.
    ///
    /// # Errors
    /// Another kind of document, an unknown key, a digest that is none, a file that is named twice.
    pub fn parse(bytes: &[u8]) -> Result<Statement, BundleError> {
        let refused = |cause: String| BundleError::Structure {
            path: super::STATEMENT_FILE.to_owned(),
            cause,
        };
        let written: Written = serde_json::from_slice(bytes)
            .map_err(|error| refused(format!("no statement about a run: {error}")))?;
        for (what, found, wanted) in [
            ("type", &written.kind, STATEMENT_TYPE),
            ("predicate type", &written.predicate_type, PREDICATE_TYPE),
        ] {
            if found != wanted {
                let found: String = found.chars().take(80).collect();
                return Err(refused(format!(
                    "its {what} is {found}, this release reads {wanted}"
                )));
            }
        }
        let mut subjects = BTreeMap::new();
        for subject in written.subject {
            let name: String = subject.name.chars().take(300).collect();
            if !is_digest(&subject.digest.sha256) {
                return Err(refused(format!("the digest of {name} is no SHA-256")));
            }
            if subjects
                .insert(subject.name, subject.digest.sha256)
                .is_some()
            {
                return Err(refused(format!("it names {name} twice")));
            }
        }
        Ok(Statement {
            subjects,
            predicate: written.predicate,
        })
    }
}
