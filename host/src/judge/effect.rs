//! Which recorded calls count: patterns against what a call reached for, answers that say something about the platform, and
//! watches that saw a whole quiet time.

use super::timeline::{Opened, Timeline};
use super::{Evidence, Replies};
use crate::manifest::{Case, EffectPattern};
use crate::recording::format::{Access, Entry, Failure, ReplyKind, function};
use std::collections::BTreeSet;
use std::time::Duration;

/// Whether a call is of the kind that a pattern names.
pub(super) fn matches(pattern: &EffectPattern, access: &Access) -> bool {
    let verb = |verb: &str| pattern.verb.as_deref().is_none_or(|wanted| wanted == verb);
    match access {
        Access::Resource(access) => {
            let (resource, subresource) = pattern
                .resource
                .split_once('/')
                .unwrap_or((&pattern.resource, ""));
            !pattern.resource.starts_with('/')
                && verb(&access.verb)
                && (resource == "*" || resource == access.resource)
                && (subresource == "*" || subresource == access.subresource)
                && pattern
                    .group
                    .as_ref()
                    .is_none_or(|group| *group == access.group)
        }
        Access::NonResource { path } => verb("get") && pattern.resource == *path,
        // `discover` reads these documents, whichever of them the server has.
        Access::Discovery => {
            verb("get") && ["/api", "/apis", "/version"].contains(&pattern.resource.as_str())
        }
    }
}

fn is_watch(entry: &Entry) -> bool {
    matches!(&entry.access, Some(Access::Resource(access)) if access.verb == "watch")
}

/// The verb of the resource API, empty for everything else.
pub(super) fn verb(entry: &Entry) -> &str {
    match &entry.access {
        Some(Access::Resource(access)) => &access.verb,
        _ => "",
    }
}

/// The calls of an open case that match its `effect`. An observation that declares none may rest on any live answer.
pub(super) fn effects<'a>(
    timeline: &Timeline<'a>,
    opened: &Opened<'_>,
) -> impl Iterator<Item = &'a Entry> {
    let case: &Case = opened.case;
    let any = case.effect.is_empty() && case.kind == crate::manifest::CaseKind::Observation;
    timeline.calls(opened).filter(move |entry| {
        entry
            .access
            .as_ref()
            .is_some_and(|access| any || case.effect.iter().any(|pattern| matches(pattern, access)))
    })
}

/// The calls of a negative case that attempt the forbidden thing. Watching for it is no attempt.
pub(super) fn attempts<'a>(
    timeline: &Timeline<'a>,
    opened: &Opened<'_>,
) -> impl Iterator<Item = &'a Entry> {
    effects(timeline, opened).filter(|entry| !is_watch(entry))
}

/// It happened: the platform did what was asked, in earnest.
pub(super) fn happened(entry: &Entry) -> bool {
    entry.facts.live
        && !entry.facts.dry_run
        && entry.result == ReplyKind::Ok
        && entry.facts.code.is_none_or(|code| code < 400)
}

/// The platform answered at all, yes or no. A dry run is an answer only when it is a no.
pub(super) fn answered(entry: &Entry) -> bool {
    happened(entry)
        || entry.facts.live
            && (entry.result == ReplyKind::Answered
                || entry.result == ReplyKind::Ok && !entry.facts.dry_run)
}

/// Whether a call reaches into a pod: its log, or a command in it. What is tried there is tried by the container, and only its
/// own words tell what came of it.
pub(super) fn is_inside(entry: &Entry) -> bool {
    matches!(&entry.access, Some(Access::Resource(access))
        if access.group.is_empty() && access.resource == "pods" && matches!(access.subresource.as_str(), "log" | "exec"))
}

/// Whether a container told something: a piece of its log, of a command's output, or an exit code. That a stream was opened
/// tells nothing yet.
pub(super) fn is_report(entry: &Entry) -> bool {
    is_inside(entry)
        && happened(entry)
        && matches!(
            entry.function.as_str(),
            function::STREAM_READ | function::EXECUTION_EXIT
        )
}

/// What a refusal is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The platform refused the thing itself.
    Platform,
    /// The platform refused us: authentication or authorisation.
    Permission,
    /// The server could not answer now; says nothing.
    Trouble,
    /// The thing asked for does not exist, or not in this way.
    Missing,
}

/// Reads a refusal. None for calls that were not refused by a server.
///
/// 401 and the authoriser's 403 are about our rights: somebody with more of them might have succeeded. Admission also
/// answers 403; the authoriser's message tells them apart. That a log or a command cannot be had (a pod that is gone, a container
/// that has not started) is no refusal of what the container was to try. 429 is a refusal only for an eviction, which a disruption budget
/// blocks that way. 404, 405 and 410 on a write mean that there was nothing to refuse; on a read they say that it is gone.
pub(super) fn refusal(entry: &Entry, replies: &dyn Replies) -> Option<Refusal> {
    if !entry.facts.live || entry.result != ReplyKind::Answered {
        return None;
    }
    let reply = replies.reply(entry);
    let code = match (&reply, entry.facts.code) {
        (Some(Err(Failure::Answered { code, .. })), _) => *code,
        (_, Some(code)) => code,
        (_, None) => return Some(Refusal::Trouble),
    };
    let reading = matches!(verb(entry), "get" | "list" | "watch" | "");
    Some(match code {
        401 | 407 => Refusal::Permission,
        403 => match reply {
            Some(Err(Failure::Answered { message, .. })) if !is_authoriser(&message) => {
                Refusal::Platform
            }
            _ => Refusal::Permission,
        },
        _ if is_inside(entry) => Refusal::Trouble,
        404 | 410 if reading => Refusal::Platform,
        404 | 405 | 410 => Refusal::Missing,
        408 => Refusal::Trouble,
        429 if is_eviction(entry) => Refusal::Platform,
        429 => Refusal::Trouble,
        400..=499 => Refusal::Platform,
        _ => Refusal::Trouble,
    })
}

/// The authoriser's message has one form since Kubernetes has RBAC: `… is forbidden: User "x" cannot get resource "pods" …`.
pub(crate) fn is_authoriser(message: &str) -> bool {
    message.contains("User \"")
        && message.contains("\" cannot ")
        && (message.contains(" resource \"") || message.contains(" path \""))
}

fn is_eviction(entry: &Entry) -> bool {
    matches!(&entry.access, Some(Access::Resource(access)) if access.subresource == "eviction")
}

/// Whether an answer says something about the platform that a fail may rest on.
pub(super) fn is_definite(entry: &Entry, replies: &dyn Replies) -> bool {
    if entry.result == ReplyKind::Ok {
        return answered(entry) && entry.facts.code.is_none_or(|code| code < 500);
    }
    matches!(
        refusal(entry, replies),
        Some(Refusal::Platform | Refusal::Missing)
    )
}

/// What watches saw of a quiet time.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Quiet {
    /// Longest span in milliseconds that one watch saw without gap, after the attempt and inside the case.
    pub(super) longest_ms: u64,
    /// Whether a watch lost continuity while the case was open.
    pub(super) gap: bool,
    /// Whether a watch ran at all.
    pub(super) watched: bool,
}

impl Quiet {
    pub(super) fn covers(&self, wanted: Duration) -> bool {
        self.watched && u128::from(self.longest_ms) >= wanted.as_millis()
    }
}

/// Looks for the longest gap-free stretch of any watch between the attempt and the conclusion. A stretch begins when the
/// present objects were delivered (`synced`) and reaches to the end of the last wait at which the watch was seen to live: one
/// that nobody waited for saw nothing, and one that is merely silent may hang.
pub(super) fn quiet(
    evidence: &Evidence<'_>,
    timeline: &Timeline<'_>,
    opened: &Opened<'_>,
    attempted_ms: u64,
) -> Quiet {
    let from_ms = attempted_ms.max(timeline.opened_ms(opened));
    let named: Vec<&EffectPattern> = opened
        .case
        .effect
        .iter()
        .filter(|pattern| pattern.verb.as_deref() == Some("watch"))
        .collect();
    let until = &evidence.entries[..opened.until];
    let numbers: BTreeSet<u32> = until
        .iter()
        .filter(|entry| {
            entry.function == function::WATCH_OPEN
                && entry.result == ReplyKind::Ok
                && entry.facts.live
        })
        .filter(|entry| {
            named.is_empty()
                || entry
                    .access
                    .as_ref()
                    .is_some_and(|access| named.iter().any(|pattern| matches(pattern, access)))
        })
        .filter_map(|entry| entry.facts.watch)
        .collect();
    let mut found = Quiet::default();
    for number in numbers {
        let mut since: Option<u64> = None;
        for (index, entry) in until.iter().enumerate() {
            let inside = index > opened.from;
            if entry.function == function::WAIT_ANY {
                if let Some(since) = since
                    && inside
                    && entry.facts.proved.contains(&number)
                {
                    found.watched = true;
                    found.longest_ms = found.longest_ms.max(entry.done_ms.saturating_sub(since));
                }
                continue;
            }
            if entry.facts.watch != Some(number) {
                continue;
            }
            match (entry.function.as_str(), entry.result) {
                (function::WATCH_CLOSE, _) => break,
                (function::WATCH_NEXT, ReplyKind::Ok) => match entry.facts.event.as_str() {
                    "synced" => since = Some(entry.done_ms.max(from_ms)),
                    "gap" => {
                        since = None;
                        found.gap |= inside;
                    }
                    _ => {}
                },
                (function::WATCH_NEXT, _) => {
                    since = None;
                    found.gap |= inside;
                }
                _ => {}
            }
        }
    }
    found
}
