//! From a recording to what people want to know of it: the calls, which case was open when, what was waited for, and what the
//! door itself noted. Follows the recorded calls of `cases` and `leases`; what an entry says about its own case is not used.
//!
//! Answers are opened only where they are short or failures: a page of pods is told by its objects.

use super::model::{Call, CaseFacts, Conversation, ErrorFact, Lease, ObjectFact};
use super::open::Budget;
use super::text::Foreign;
use crate::model::{CaseKey, Conclusion};
use crate::recording::Recording;
use crate::recording::format::{
    Access, Bytes, Entry, Failure, ObjectFact as Object, ReplyKind, Seen, function,
};
use std::collections::{BTreeMap, BTreeSet};

/// Largest answer that is opened, in bytes: the answers that people read are messages.
const ANSWER_MAX: u64 = 16 << 10;

/// Longest answer that is shown, in characters.
const ANSWER_SHOWN: usize = 1_000;

/// Longest arguments that are kept, in characters. A created object is longer than everything else and rarely above this.
const ARGUMENTS_MAX: usize = 4_000;

/// Objects of one call that are kept.
const CALL_OBJECTS_MAX: usize = 12;

/// Objects of one case that are kept.
const CASE_OBJECTS_MAX: usize = 24;

/// Phases of one object that are kept.
const PHASES_MAX: usize = 8;

/// Different errors of one case that are kept.
const ERRORS_MAX: usize = 12;

/// What a recording tells.
#[derive(Debug, Default)]
pub(super) struct Told {
    pub(super) conversation: Conversation,
    pub(super) leases: Vec<Lease>,
    /// By case: when it was open and what the door noted.
    pub(super) cases: BTreeMap<CaseKey, Span>,
}

/// A case as the recording shows it.
#[derive(Debug)]
pub(super) struct Span {
    pub(super) began_ms: u64,
    pub(super) ended_ms: Option<u64>,
    pub(super) facts: CaseFacts,
}

/// Reads a recording. `position` says where a case stands in the report, `calls_max` how many calls are kept.
pub(super) fn tell(
    recording: &Recording,
    position: &BTreeMap<CaseKey, usize>,
    calls_max: usize,
    budget: &mut Budget,
) -> Told {
    let mut told = Told::default();
    let mut open: Option<CaseKey> = None;
    let mut held: BTreeMap<u32, usize> = BTreeMap::new();
    let entries = recording.entries();
    let over = entries.last().map_or(0, |entry| entry.done_ms);
    for entry in entries {
        let done = entry.result == ReplyKind::Ok;
        let mut closes = false;
        match entry.function.as_str() {
            function::CASES_OPEN if done && open.is_none() => {
                if let Some(key) = key_of(entry) {
                    told.cases.entry(key.clone()).or_insert_with(|| Span {
                        began_ms: entry.at_ms,
                        ended_ms: None,
                        facts: CaseFacts::default(),
                    });
                    open = Some(key);
                }
            }
            function::CASES_CONCLUDE if done => closes = true,
            function::LEASES_ACQUIRE => {
                let lease = lease(entry, over, budget);
                if let Some(fact) = &entry.facts.lease {
                    held.insert(fact.number, told.leases.len());
                }
                if told.leases.len() < super::open::LEASES_MAX {
                    told.leases.push(lease);
                }
            }
            function::LEASES_RELEASE if done => {
                let number = entry.arguments["lease"].as_u64();
                let at = number
                    .and_then(|number| u32::try_from(number).ok())
                    .and_then(|number| held.remove(&number));
                if let Some(lease) = at.and_then(|at| told.leases.get_mut(at)) {
                    lease.released_ms = entry.done_ms;
                }
            }
            _ => {}
        }
        if let Some(span) = open.as_ref().and_then(|key| told.cases.get_mut(key)) {
            note(&mut span.facts, entry, budget);
            if closes {
                span.ended_ms = Some(entry.done_ms);
            }
        }
        if told.conversation.calls.len() < calls_max && !budget.is_spent() {
            let case = open.as_ref().and_then(|key| position.get(key)).copied();
            told.conversation
                .calls
                .push(call(recording, entry, case, budget));
        } else {
            told.conversation.more += 1;
        }
        if closes {
            open = None;
        }
    }
    told.conversation.finished = recording.end().is_some();
    told.conversation.withheld = recording.withheld().len() as u64;
    told.conversation.ended_ms = over;
    told
}

fn key_of(entry: &Entry) -> Option<CaseKey> {
    serde::Deserialize::deserialize(&entry.arguments).ok()
}

fn lease(entry: &Entry, over: u64, budget: &mut Budget) -> Lease {
    let names = entry.arguments["names"].as_array();
    let fact = entry.facts.lease.as_ref();
    let mut texts = |list: &[String]| -> Vec<Foreign> {
        list.iter().take(64).map(|text| budget.text(text)).collect()
    };
    let asked: Vec<String> = names
        .into_iter()
        .flatten()
        .filter_map(|name| name.as_str().map(str::to_owned))
        .collect();
    Lease {
        names: texts(&asked),
        asked_ms: entry.at_ms,
        answered_ms: entry.done_ms,
        granted: fact.is_some() && entry.result == ReplyKind::Ok,
        released_ms: if fact.is_some() { over } else { entry.done_ms },
        nodes: texts(fact.map_or(&[], |fact| &fact.nodes)),
        locks: texts(fact.map_or(&[], |fact| &fact.locks)),
        after: Vec::new(),
    }
}

/// Adds what the door noted about one call to its case.
fn note(facts: &mut CaseFacts, entry: &Entry, budget: &mut Budget) {
    if entry.result == ReplyKind::Refused {
        facts.refused += 1;
    }
    if !entry.facts.live {
        return;
    }
    facts.live += 1;
    if let Some(code) = entry.facts.code.filter(|code| *code >= 400) {
        let reason = entry.facts.reason.as_str();
        let has_room = facts.errors.len() < ERRORS_MAX;
        match facts
            .errors
            .iter_mut()
            .find(|known| known.code == code && known.reason.is(reason))
        {
            Some(known) => known.count += 1,
            None if has_room => facts.errors.push(ErrorFact {
                code,
                reason: budget.text(reason),
                count: 1,
            }),
            None => {}
        }
    }
    for object in &entry.facts.objects {
        note_object(facts, object, budget);
    }
}

fn note_object(facts: &mut CaseFacts, object: &Object, budget: &mut Budget) {
    let has_room = facts.objects.len() < CASE_OBJECTS_MAX;
    let known = facts.objects.iter_mut().find(|known| {
        known.kind.is(&object.kind)
            && known.name.is(&object.name)
            && known.namespace.is(&object.namespace)
            && known.uid.is(&object.uid)
    });
    match known {
        Some(known) => {
            if !object.node.is_empty() && !known.node.is(&object.node) {
                known.node = budget.text(&object.node);
            }
            let stays = known
                .phases
                .last()
                .is_some_and(|last| last.is(&object.phase));
            if !object.phase.is_empty() && !stays && known.phases.len() < PHASES_MAX {
                known.phases.push(budget.text(&object.phase));
            }
        }
        None if has_room => facts.objects.push(ObjectFact {
            kind: budget.text(&object.kind),
            namespace: budget.text(&object.namespace),
            name: budget.text(&object.name),
            uid: budget.text(&object.uid),
            node: budget.text(&object.node),
            phases: (!object.phase.is_empty())
                .then(|| budget.text(&object.phase))
                .into_iter()
                .collect(),
            ours: object.ours,
        }),
        None => facts.more_objects += 1,
    }
}

fn call(recording: &Recording, entry: &Entry, case: Option<usize>, budget: &mut Budget) -> Call {
    let facts = &entry.facts;
    let arguments = match &entry.arguments {
        serde_json::Value::Null => String::new(),
        serde_json::Value::Object(members) if members.is_empty() => String::new(),
        other => other.to_string(),
    };
    let mut notes = Vec::new();
    let mut seen = BTreeSet::new();
    for marker in facts.markers.iter().filter(|marker| seen.insert(*marker)) {
        notes.push(budget.text(&format!("marker of a simulation: {marker}")));
    }
    if let Some(lease) = &facts.lease {
        notes.push(budget.text(&lease_words(lease)));
    }
    for change in facts.changed.iter().take(CALL_OBJECTS_MAX) {
        notes.push(budget.text(&format!("changed by others: {change}")));
    }
    let withheld = recording.withheld().contains(&entry.sequence);
    let answer = (!withheld)
        .then(|| answer(recording, entry))
        .flatten()
        .map(|text| budget.cut(&text, ANSWER_SHOWN));
    Call {
        sequence: entry.sequence,
        at_ms: entry.at_ms,
        took_ms: entry.done_ms.saturating_sub(entry.at_ms),
        case,
        function: budget.text(&entry.function),
        target: budget.text(&target(entry)),
        arguments: budget.cut(&arguments, ARGUMENTS_MAX),
        result: entry.result,
        live: facts.live,
        dry_run: facts.dry_run,
        code: facts.code,
        reason: budget.text(&facts.reason),
        event: budget.text(&facts.event),
        objects: facts
            .objects
            .iter()
            .take(CALL_OBJECTS_MAX)
            .map(|object| budget.text(&object_words(object)))
            .collect(),
        more_objects: facts.objects.len().saturating_sub(CALL_OBJECTS_MAX) as u64,
        notes,
        answer,
        withheld,
        tries: entry.tries,
    }
}

fn lease_words(lease: &crate::recording::format::LeaseFact) -> String {
    let mut parts = Vec::new();
    if !lease.nodes.is_empty() {
        parts.push(format!("nodes {}", lease.nodes.join(", ")));
    }
    for (kind, count) in &lease.units {
        parts.push(format!("{count} × {kind}"));
    }
    if !lease.locks.is_empty() {
        parts.push(format!("locks {}", lease.locks.join(", ")));
    }
    format!("granted: {}", parts.join("; "))
}

/// An object in words: `Pod ns/name on node-1, Running`.
fn object_words(object: &Object) -> String {
    let mut out = object.kind.clone();
    out.push(' ');
    if !object.namespace.is_empty() {
        out.push_str(&object.namespace);
        out.push('/');
    }
    out.push_str(&object.name);
    if !object.node.is_empty() {
        out.push_str(" on ");
        out.push_str(&object.node);
    }
    if !object.phase.is_empty() {
        out.push_str(", ");
        out.push_str(&object.phase);
    }
    if object.ours {
        out.push_str(", made by this run");
    }
    out
}

/// What a call is about, in a few words.
fn target(entry: &Entry) -> String {
    let text = |key: &str| entry.arguments[key].as_str().unwrap_or_default();
    match (&entry.access, entry.function.as_str()) {
        (Some(Access::Discovery), _) => "discovery".to_owned(),
        (Some(Access::NonResource { path }), _) => format!("get {path}"),
        (Some(Access::Resource(access)), _) => {
            let mut out = format!("{} {}", access.verb, access.resource);
            if !access.subresource.is_empty() {
                out.push('/');
                out.push_str(&access.subresource);
            }
            if !access.group.is_empty() {
                out.push('.');
                out.push_str(&access.group);
            }
            if !access.name.is_empty() {
                out.push(' ');
                out.push_str(&access.name);
            }
            out
        }
        (None, function::CASES_OPEN) => match text("subject") {
            "" => text("id").to_owned(),
            subject => format!("{}[{subject}]", text("id")),
        },
        (None, function::CASES_OBSERVE) => format!("{} = {}", text("name"), text("value")),
        (None, function::CASES_CONCLUDE) => {
            let outcome: Option<Conclusion> =
                serde::Deserialize::deserialize(&entry.arguments["outcome"]).ok();
            match outcome {
                Some(Conclusion::Pass) => "pass".to_owned(),
                Some(Conclusion::Fail) => "fail".to_owned(),
                Some(Conclusion::Unknown(why)) => format!("unknown: {why}"),
                Some(Conclusion::NotApplicable(why)) => format!("not applicable: {why}"),
                Some(Conclusion::Other(word)) => word,
                None => String::new(),
            }
        }
        (None, function::LEASES_ACQUIRE) => {
            let names = entry.arguments["names"].as_array();
            let names: Vec<&str> = names
                .into_iter()
                .flatten()
                .filter_map(serde_json::Value::as_str)
                .collect();
            names.join(", ")
        }
        _ => ["text", "message", "alias", "key", "name", "prefix"]
            .into_iter()
            .map(text)
            .find(|found| !found.is_empty())
            .unwrap_or_default()
            .to_owned(),
    }
}

/// The message of a failure, or a short text. Objects are told by the door's facts.
fn answer(recording: &Recording, entry: &Entry) -> Option<String> {
    let own = entry.function.starts_with("cases.") || entry.function.starts_with("log.");
    if own && entry.result == ReplyKind::Ok || entry.reply_bytes > ANSWER_MAX {
        return None;
    }
    match recording.reply(entry).ok()? {
        Ok(Seen::Text(text)) if text.chars().count() <= ANSWER_SHOWN => Some(text),
        Ok(Seen::Event { kind, text }) if kind == "gap" => Some(text),
        Ok(Seen::Number(number)) => Some(number.to_string()),
        Ok(Seen::Raw { body, .. } | Seen::Bytes(Bytes::Text(body))) => Some(body),
        Ok(_) => None,
        Err(failure) => Some(failure_words(&failure)),
    }
}

fn failure_words(failure: &Failure) -> String {
    match failure {
        Failure::Answered {
            code,
            reason,
            message,
            ..
        } => format!("{code} {reason}: {message}"),
        Failure::Refused(text) => format!("refused by the door: {text}"),
        Failure::NoAnswer(text) => format!("no answer: {text}"),
        Failure::Expired => "the place was lost".to_owned(),
        Failure::Budget(text) => format!("a budget is used up: {text}"),
        Failure::Stopping => "the run is ending".to_owned(),
        Failure::Malformed(text) => format!("the request made no sense: {text}"),
        Failure::Other(text) => text.clone(),
    }
}
