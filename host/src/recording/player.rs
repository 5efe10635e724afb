//! Answers calls from a recording instead of a cluster.
//!
//! *Strict*, for runs and bundles: a guest is sequential and all it learns comes through the door, so the n-th call must be
//! the n-th entry, and nothing may be left over. *Fixture*, for authors' tests: an answer is found by its request, in order
//! among equal requests; what is left over is reported and allowed.
//!
//! A player never makes an answer up: whatever is not recorded ends the replay with a message that shows both sides.

use super::error::RecordError;
use super::format::{Entry, Header, Reply};
use super::reader::{Recording, read};
use serde_json::Value;
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::path::Path;

/// A recorded answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Played {
    /// The whole entry: facts, times, access, sequence.
    pub entry: Entry,
    /// What the guest sees.
    pub reply: Reply,
}

/// Why a replay ends.
#[derive(Debug, thiserror::Error)]
pub enum PlayError {
    /// The guest did something else than it did when it was recorded.
    #[error(transparent)]
    Divergence(#[from] Divergence),
    /// An answer cannot be had: withheld, or the folder changed under the replay.
    #[error(transparent)]
    Record(#[from] RecordError),
}

/// A call on one side of a comparison.
#[derive(Clone, Debug, PartialEq)]
pub struct Side {
    /// Interface, resource and function.
    pub function: String,
    /// Its arguments.
    pub arguments: Value,
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Arguments may be whole manifests; a message wants their beginning.
        let arguments = self.arguments.to_string();
        let shown: String = arguments.chars().take(400).collect();
        let cut = if shown.len() < arguments.len() {
            "…"
        } else {
            ""
        };
        write!(f, "{} {shown}{cut}", self.function)
    }
}

/// A replay and its recording part ways.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Divergence {
    /// Another call than the recorded one.
    #[error("call {sequence} differs\n  recorded: {recorded}\n  called:   {called}")]
    Other {
        /// Sequence number.
        sequence: u64,
        /// What the recording has there.
        recorded: Box<Side>,
        /// What the guest did.
        called: Box<Side>,
    },
    /// A call after the last entry.
    #[error(
        "call {sequence} is not in the recording, which has {entries} entries\n  called:   {called}"
    )]
    Beyond {
        /// Sequence number the call would have.
        sequence: u64,
        /// Entries there are.
        entries: u64,
        /// What the guest did.
        called: Box<Side>,
    },
    /// The guest returned before the recording was used up.
    #[error(
        "{count} recorded calls were not made, the first is {sequence}\n  recorded: {recorded}"
    )]
    Unused {
        /// How many.
        count: u64,
        /// Sequence number of the first.
        sequence: u64,
        /// What the recording has there.
        recorded: Box<Side>,
    },
    /// No recorded answer (any more) for this request.
    #[error("no recorded answer {} for this request\n  called:   {called}{}", if *used == 0 { "was found".to_owned() } else { format!("is left (all {used} were given)") }, nearest.as_ref().map(|side| format!("\n  nearest:  {side}")).unwrap_or_default())]
    NoAnswer {
        /// Equal requests that were answered before.
        used: u64,
        /// What the guest did.
        called: Box<Side>,
        /// A recorded call of the same function, to show what differs.
        nearest: Option<Box<Side>>,
    },
}

impl Side {
    fn of(entry: &Entry) -> Box<Side> {
        Box::new(Side {
            function: entry.function.clone(),
            arguments: entry.arguments.clone(),
        })
    }

    fn called(function: &str, arguments: &Value) -> Box<Side> {
        Box::new(Side {
            function: function.to_owned(),
            arguments: arguments.clone(),
        })
    }
}

/// Gives recorded answers.
#[derive(Debug)]
pub struct Player {
    recording: Recording,
    mode: Mode,
}

#[derive(Debug)]
enum Mode {
    Strict {
        next: usize,
    },
    Fixture {
        /// Entries not yet given, by function and arguments in canonical form.
        waiting: BTreeMap<(String, String), VecDeque<usize>>,
        used: BTreeMap<(String, String), u64>,
    },
}

impl Player {
    /// Opens a recording for strict replay.
    ///
    /// # Errors
    /// See [`read`].
    pub fn open(folder: &Path) -> Result<Player, RecordError> {
        Ok(Player::strict(read(folder)?))
    }

    /// Strict replay: the n-th call is the n-th entry.
    pub fn strict(recording: Recording) -> Player {
        Player {
            recording,
            mode: Mode::Strict { next: 0 },
        }
    }

    /// Replay by request, for authors' tests.
    pub fn fixture(recording: Recording) -> Player {
        let mut waiting: BTreeMap<_, VecDeque<usize>> = BTreeMap::new();
        for (index, entry) in recording.entries.iter().enumerate() {
            waiting
                .entry(request(&entry.function, &entry.arguments))
                .or_default()
                .push_back(index);
        }
        Player {
            recording,
            mode: Mode::Fixture {
                waiting,
                used: BTreeMap::new(),
            },
        }
    }

    /// The header: run id, settings, namespaces and images as the guest sees them.
    pub fn header(&self) -> &Header {
        &self.recording.header
    }

    /// The recording behind this player.
    pub fn recording(&self) -> &Recording {
        &self.recording
    }

    /// Entries that were not given yet.
    pub fn remaining(&self) -> u64 {
        match &self.mode {
            Mode::Strict { next } => (self.recording.entries.len() - next) as u64,
            Mode::Fixture { waiting, .. } => {
                waiting.values().map(|indices| indices.len() as u64).sum()
            }
        }
    }

    /// The recorded answer to a call.
    ///
    /// # Errors
    /// The call is not the recorded one, or its answer is not in this copy. The replay ends there.
    pub fn next(&mut self, function: &str, arguments: &Value) -> Result<Played, PlayError> {
        let entries = &self.recording.entries;
        let index = match &mut self.mode {
            Mode::Strict { next } => {
                let Some(entry) = entries.get(*next) else {
                    return Err(Divergence::Beyond {
                        sequence: *next as u64 + 1,
                        entries: entries.len() as u64,
                        called: Side::called(function, arguments),
                    }
                    .into());
                };
                if entry.function != function || entry.arguments != *arguments {
                    return Err(Divergence::Other {
                        sequence: entry.sequence,
                        recorded: Side::of(entry),
                        called: Side::called(function, arguments),
                    }
                    .into());
                }
                *next += 1;
                *next - 1
            }
            Mode::Fixture { waiting, used } => {
                let request = request(function, arguments);
                match waiting.get_mut(&request).and_then(VecDeque::pop_front) {
                    Some(index) => {
                        *used.entry(request).or_default() += 1;
                        index
                    }
                    None => {
                        return Err(Divergence::NoAnswer {
                            used: used.get(&request).copied().unwrap_or_default(),
                            called: Side::called(function, arguments),
                            nearest: entries
                                .iter()
                                .find(|entry| {
                                    entry.function == function && entry.arguments != *arguments
                                })
                                .map(Side::of),
                        }
                        .into());
                    }
                }
            }
        };
        let entry = entries[index].clone();
        let reply = self.recording.reply(&entry)?;
        Ok(Played { entry, reply })
    }

    /// Ends the replay after the guest returned. Gives the sequence numbers that a fixture left unused.
    ///
    /// # Errors
    /// Strict: something is left over.
    pub fn finish(self) -> Result<Vec<u64>, Divergence> {
        let count = self.remaining();
        match self.mode {
            Mode::Strict { next } => match self.recording.entries.get(next) {
                None => Ok(Vec::new()),
                Some(entry) => Err(Divergence::Unused {
                    count,
                    sequence: entry.sequence,
                    recorded: Side::of(entry),
                }),
            },
            Mode::Fixture { waiting, .. } => {
                let mut unused: Vec<u64> = waiting
                    .into_values()
                    .flatten()
                    .map(|index| index as u64 + 1)
                    .collect();
                unused.sort_unstable();
                Ok(unused)
            }
        }
    }
}

/// A key under which equal requests meet: the order of an object's keys does not matter.
fn request(function: &str, arguments: &Value) -> (String, String) {
    let mut text = String::new();
    canonical(arguments, &mut text);
    (function.to_owned(), text)
}

fn canonical(value: &Value, out: &mut String) {
    match value {
        Value::Object(map) => {
            let mut keys: Vec<&String> = map.keys().collect();
            keys.sort_unstable();
            out.push('{');
            for key in keys {
                out.push_str(&Value::String(key.clone()).to_string());
                out.push(':');
                canonical(&map[key], out);
                out.push(',');
            }
            out.push('}');
        }
        Value::Array(items) => {
            out.push('[');
            for item in items {
                canonical(item, out);
                out.push(',');
            }
            out.push(']');
        }
        scalar => out.push_str(&scalar.to_string()),
    }
}
