//! A recording as one plain text file, small enough to be read in review: `probes/<id>/recordings/{pass,fail}.jsonl`.
//!
//! The first line is the header, then one line a call with its reply inside, then the end. There are no hashes: a fixture is
//! a test's input that people may edit, never evidence. A text that is compact JSON stands as JSON under `$json`, so that
//! an object can be read without counting backslashes; it becomes the same bytes again when it is loaded.

use super::blobs::{Blobs, seal};
use super::error::RecordError;
use super::format::{
    Access, ENTRIES_MAX, End, EndDraft, Entry, Facts, Header, LINE_MAX, RECORDING_MAX, Reply,
    ReplyKind, SALT_BYTES,
};
use super::reader::{Recording, reads};
use super::sha256_hex;
use crate::model::{CaseKey, Outcome, Usage};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

/// Key under which a text that is JSON stands as JSON.
const JSON: &str = "$json";

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Call {
    function: String,
    arguments: Value,
    reply: Value,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    case: Option<CaseKey>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    access: Option<Access>,
    #[serde(default)]
    facts: Facts,
    #[serde(default)]
    at_ms: u64,
    #[serde(default)]
    done_ms: u64,
    #[serde(default = "once")]
    tries: u32,
}

fn once() -> u32 {
    1
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Last {
    outcome: Outcome,
    #[serde(default)]
    usage: Usage,
    #[serde(default)]
    alive: BTreeMap<String, bool>,
    #[serde(default)]
    left_behind: Vec<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Line {
    Header(Box<Header>),
    Call(Box<Call>),
    End(Last),
}

/// Writes a recording as a fixture.
///
/// # Errors
/// An answer is withheld or unreadable.
pub fn export(recording: &Recording) -> Result<String, RecordError> {
    let mut out = String::new();
    push(&mut out, &Line::Header(Box::new(recording.header.clone())))?;
    for entry in &recording.entries {
        let reply = recording.reply(entry)?;
        let unwritable = |cause: String| RecordError::Fixture {
            line: entry.sequence + 1,
            cause,
        };
        let mut reply =
            serde_json::to_value(&reply).map_err(|error| unwritable(error.to_string()))?;
        let mut arguments = entry.arguments.clone();
        if has_marker(&arguments) {
            return Err(unwritable(format!(
                "arguments with a key {JSON} cannot be written as a fixture"
            )));
        }
        fold(&mut reply);
        fold(&mut arguments);
        push(
            &mut out,
            &Line::Call(Box::new(Call {
                function: entry.function.clone(),
                arguments,
                reply,
                case: entry.case.clone(),
                access: entry.access.clone(),
                facts: entry.facts.clone(),
                at_ms: entry.at_ms,
                done_ms: entry.done_ms,
                tries: entry.tries,
            })),
        )?;
    }
    if let Some(end) = &recording.end {
        push(
            &mut out,
            &Line::End(Last {
                outcome: end.outcome.clone(),
                usage: end.usage,
                alive: end.alive.clone(),
                left_behind: end.left_behind.clone(),
            }),
        )?;
    }
    Ok(out)
}

/// Reads a fixture. Empty lines and lines that begin with `//` are comments.
///
/// # Errors
/// A line that is no part of a fixture, named with its number; a format that this engine does not read.
pub fn load(text: &str) -> Result<Recording, RecordError> {
    if text.len() as u64 > RECORDING_MAX {
        return Err(RecordError::TooLarge {
            path: PathBuf::from("fixture"),
            what: "the fixture".to_owned(),
            limit: RECORDING_MAX,
        });
    }
    let mut builder: Option<Builder> = None;
    for (index, line) in text.lines().enumerate() {
        let number = index as u64 + 1;
        let wrong = |cause: String| RecordError::Fixture {
            line: number,
            cause,
        };
        if line.trim().is_empty() || line.starts_with("//") {
            continue;
        }
        if line.len() > LINE_MAX {
            return Err(wrong(format!("longer than {LINE_MAX} bytes")));
        }
        let line: Line = serde_json::from_str(line).map_err(|error| wrong(error.to_string()))?;
        match (line, builder.as_mut()) {
            (Line::Header(header), None) => {
                if !reads(&header.format) {
                    return Err(wrong(format!(
                        "recording format {}, this engine reads {}",
                        header.format,
                        super::format::FORMAT
                    )));
                }
                builder = Some(Builder::new(*header).map_err(|error| wrong(error.to_string()))?);
            }
            (Line::Header(_), Some(_)) => return Err(wrong("a second header".to_owned())),
            (_, None) => return Err(wrong("the first line must be the header".to_owned())),
            (_, Some(builder)) if builder.end.is_some() => {
                return Err(wrong("a line behind the end".to_owned()));
            }
            (Line::Call(call), Some(builder)) => builder.call(*call).map_err(wrong)?,
            (Line::End(last), Some(builder)) => builder.end(last).map_err(wrong)?,
        }
    }
    let builder = builder.ok_or_else(|| RecordError::Fixture {
        line: 1,
        cause: "there is no header".to_owned(),
    })?;
    Ok(builder.build())
}

/// Builds a recording in memory, as if it had been recorded: for the fake cluster of tests and for [`load`].
///
/// # Errors
/// A value that cannot be written as JSON, which no value of these types is.
pub fn build(
    header: Header,
    calls: Vec<(super::format::EntryDraft, Reply)>,
    end: Option<EndDraft>,
) -> Result<Recording, RecordError> {
    let wrong = |line: u64| move |cause: String| RecordError::Fixture { line, cause };
    let mut builder = Builder::new(header).map_err(|error| wrong(1)(error.to_string()))?;
    for (index, (draft, reply)) in calls.into_iter().enumerate() {
        builder
            .entry(draft, &reply)
            .map_err(wrong(index as u64 + 2))?;
    }
    if let Some(end) = end {
        builder
            .end(Last {
                outcome: end.outcome,
                usage: end.usage,
                alive: end.alive,
                left_behind: end.left_behind,
            })
            .map_err(wrong(0))?;
    }
    Ok(builder.build())
}

struct Builder {
    header: Header,
    previous: String,
    entries: Vec<Entry>,
    blobs: BTreeMap<String, Vec<u8>>,
    end: Option<End>,
}

impl Builder {
    fn new(header: Header) -> Result<Builder, serde_json::Error> {
        Ok(Builder {
            previous: sha256_hex(&serde_json::to_vec(&header)?),
            header,
            entries: Vec::new(),
            blobs: BTreeMap::new(),
            end: None,
        })
    }

    fn call(&mut self, mut call: Call) -> Result<(), String> {
        unfold(&mut call.reply).map_err(|cause| format!("reply: {cause}"))?;
        unfold(&mut call.arguments).map_err(|cause| format!("arguments: {cause}"))?;
        let reply: Reply =
            serde_json::from_value(call.reply).map_err(|error| format!("reply: {error}"))?;
        self.entry(
            super::format::EntryDraft {
                at_ms: call.at_ms,
                done_ms: call.done_ms,
                case: call.case,
                function: call.function,
                arguments: call.arguments,
                access: call.access,
                facts: call.facts,
                tries: call.tries,
            },
            &reply,
        )
    }

    fn entry(&mut self, draft: super::format::EntryDraft, reply: &Reply) -> Result<(), String> {
        let sequence = self.entries.len() as u64 + 1;
        if sequence > ENTRIES_MAX {
            return Err(format!("more than {ENTRIES_MAX} calls"));
        }
        // No secrets here, so the number serves as salt: equal fixtures give equal recordings.
        let mut salt = [0u8; SALT_BYTES];
        salt[..8].copy_from_slice(&sequence.to_be_bytes());
        let (blob, digest) = seal(&salt, reply).map_err(|error| error.to_string())?;
        let entry = Entry {
            sequence,
            previous: self.previous.clone(),
            at_ms: draft.at_ms,
            done_ms: draft.done_ms,
            case: draft.case,
            function: draft.function,
            arguments: draft.arguments,
            access: draft.access,
            reply: digest.clone(),
            reply_bytes: (blob.len() - SALT_BYTES) as u64,
            result: ReplyKind::of(reply),
            facts: draft.facts,
            tries: draft.tries,
        };
        self.previous = sha256_hex(&serde_json::to_vec(&entry).map_err(|error| error.to_string())?);
        self.blobs.insert(digest, blob);
        self.entries.push(entry);
        Ok(())
    }

    fn end(&mut self, last: Last) -> Result<(), String> {
        let end = End {
            entries: self.entries.len() as u64,
            previous: self.previous.clone(),
            outcome: last.outcome,
            usage: last.usage,
            alive: last.alive,
            left_behind: last.left_behind,
        };
        self.previous = sha256_hex(&serde_json::to_vec(&end).map_err(|error| error.to_string())?);
        self.end = Some(end);
        Ok(())
    }

    fn build(self) -> Recording {
        Recording {
            path: PathBuf::from("fixture"),
            header: self.header,
            entries: self.entries,
            end: self.end,
            head: self.previous,
            blobs: Blobs::Memory(Arc::new(self.blobs)),
            withheld: BTreeSet::new(),
        }
    }
}

fn push(out: &mut String, line: &Line) -> Result<(), RecordError> {
    let text = serde_json::to_string(line).map_err(|error| RecordError::Fixture {
        line: out.lines().count() as u64 + 1,
        cause: error.to_string(),
    })?;
    out.push_str(&text);
    out.push('\n');
    Ok(())
}

fn has_marker(value: &Value) -> bool {
    match value {
        Value::Object(map) => map.contains_key(JSON) || map.values().any(has_marker),
        Value::Array(items) => items.iter().any(has_marker),
        _ => false,
    }
}

/// Turns every text that is the compact form of a JSON object or list into that object or list.
fn fold(value: &mut Value) {
    match value {
        Value::String(text) if text.starts_with(['{', '[']) => {
            if let Ok(inner) = serde_json::from_str::<Value>(text) {
                let compact = inner.to_string();
                if compact == *text && !has_marker(&inner) {
                    *value = Value::Object([(JSON.to_owned(), inner)].into_iter().collect());
                }
            }
        }
        Value::Object(map) => map.values_mut().for_each(fold),
        Value::Array(items) => items.iter_mut().for_each(fold),
        _ => {}
    }
}

/// The way back.
fn unfold(value: &mut Value) -> Result<(), String> {
    match value {
        Value::Object(map) if map.contains_key(JSON) => {
            if map.len() != 1 {
                return Err(format!("{JSON} stands alone in its object"));
            }
            *value = Value::String(map[JSON].to_string());
            Ok(())
        }
        Value::Object(map) => map.values_mut().try_for_each(unfold),
        Value::Array(items) => items.iter_mut().try_for_each(unfold),
        _ => Ok(()),
    }
}
