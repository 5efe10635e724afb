//! One page for people: `report.html`. One file, no network, readable without script, by keyboard, on a phone and on paper.
//!
//! The template escapes everything ([askama](https://askama.rs)), foreign text is made visible before ([`Foreign::html`]), and
//! should something slip through both, the page's own policy runs no script and loads no style but the two whose digests it
//! names, and reaches no network. For that reason there are no `style` attributes: positions are attributes of SVG.
//!
//! The conversation is what makes a page long. Where a page would be larger than [`PAGE_MAX`], calls are shown with less.

use super::model::{
    Attempt, Call, Case, CaseFacts, Conversation, Counts, Lease, ObjectFact, Observation, Probe,
    Report, Requirement, Source, Standing, State, category_title,
};
use super::text::Foreign;
use super::words::{bytes, counted, duration_ms, ranges};
use crate::model::Tier;
use crate::recording::format::{ReplyKind, function};
use askama::Template;
use jiff::Timestamp;
use sha2::{Digest as _, Sha256};
use std::fmt::Write as _;

/// Most bytes of a page, as far as leaving out details can reach it. Mail and code hosts show files of this size.
const PAGE_MAX: usize = 2_000_000;

/// Width of a lane of the timeline, in units of its drawing.
const LANE: u64 = 10_000;

/// A pause between two attempts after which the timeline begins anew, in milliseconds: a rerun on the next day would
/// press everything else into one line.
const PAUSE: u64 = 600_000;

/// How much of a conversation is shown.
#[derive(Clone, Copy, Debug)]
struct Detail {
    /// Characters of arguments and answers.
    text: usize,
    /// Objects of a call.
    objects: usize,
    /// Calls of an attempt.
    calls: usize,
    /// Observations and objects of a case.
    case: usize,
}

/// From everything to little; the first that fits is taken.
const DETAILS: &[Detail] = &[
    Detail {
        text: 4_000,
        objects: 12,
        calls: 6_000,
        case: 200,
    },
    Detail {
        text: 1_200,
        objects: 6,
        calls: 6_000,
        case: 100,
    },
    Detail {
        text: 400,
        objects: 3,
        calls: 6_000,
        case: 60,
    },
    Detail {
        text: 160,
        objects: 2,
        calls: 3_000,
        case: 40,
    },
    Detail {
        text: 80,
        objects: 1,
        calls: 1_000,
        case: 20,
    },
    Detail {
        text: 40,
        objects: 0,
        calls: 200,
        case: 10,
    },
    Detail {
        text: 20,
        objects: 0,
        calls: 0,
        case: 3,
    },
];

const STYLE: &str = include_str!("html/style.css");
const SCRIPT: &str = include_str!("html/script.js");

#[derive(Template)]
#[template(path = "report.html")]
struct Page<'a> {
    report: &'a Report,
    policy: String,
    style: &'static str,
    script: &'static str,
    detail: Detail,
    headline: String,
    tone: State,
    bar: Vec<Segment>,
    levels: Vec<LevelRow>,
    groups: Vec<Group<'a>>,
    next: Vec<Step<'a>>,
    timeline: Vec<Part<'a>>,
    waits: Vec<String>,
    coverage: String,
    /// Probes with a verdict, and those among them that saw a simulation.
    judged: usize,
    simulated: usize,
}

/// A piece of the bar of states.
struct Segment {
    state: State,
    count: usize,
    x: usize,
    width: usize,
}

struct LevelRow {
    name: &'static str,
    note: String,
    bar: Vec<Segment>,
}

struct Group<'a> {
    title: String,
    rows: Vec<&'a Requirement>,
}

/// Something to do.
struct Step<'a> {
    at: usize,
    probe: &'a Probe,
    attempt: &'a Attempt,
    deciding: Vec<&'a Case>,
}

/// One stretch of the timeline without a long pause.
struct Part<'a> {
    began: String,
    took: String,
    ticks: Vec<String>,
    lanes: Vec<Lane<'a>>,
}

struct Lane<'a> {
    at: usize,
    probe: &'a Probe,
    attempt: &'a Attempt,
    label: String,
    bars: Vec<Bar>,
}

/// A rectangle of a lane.
struct Bar {
    class: &'static str,
    x: String,
    width: String,
    title: String,
}

pub(super) fn render(report: &Report) -> askama::Result<String> {
    let mut page = Page::of(report);
    let mut text = String::new();
    for detail in DETAILS {
        page.detail = *detail;
        text = page.render()?;
        text.truncate(text.trim_end().len());
        text.push('\n');
        if text.len() <= PAGE_MAX {
            break;
        }
    }
    Ok(text)
}

/// A digest as policies write it. Base64 by hand would be a second encoder; this is the one of the workspace.
fn source(text: &str) -> String {
    use base64::Engine as _;
    let digest = Sha256::digest(text.as_bytes());
    format!(
        "'sha256-{}'",
        base64::engine::general_purpose::STANDARD.encode(digest)
    )
}

impl<'a> Page<'a> {
    fn of(report: &'a Report) -> Page<'a> {
        let (headline, tone) = headline(&report.summary.probes);
        let (timeline, waits) = timeline(report);
        let judged: Vec<&Attempt> = report
            .probes
            .iter()
            .filter_map(Probe::counting)
            .filter(|attempt| attempt.verdict.is_some())
            .collect();
        Page {
            report,
            policy: format!(
                "default-src 'none'; style-src {}; script-src {}; base-uri 'none'; form-action 'none'; \
                 require-trusted-types-for 'script'; trusted-types 'none'",
                source(STYLE),
                source(SCRIPT)
            ),
            style: STYLE,
            script: SCRIPT,
            detail: DETAILS[0],
            headline,
            tone,
            bar: bar(&report.summary.probes),
            levels: levels(report),
            groups: groups(report),
            next: next(report),
            timeline,
            waits,
            coverage: coverage(report),
            judged: judged.len(),
            simulated: judged
                .iter()
                .filter(|attempt| attempt.tier == Tier::Simulated)
                .count(),
        }
    }

    /// Whether the page has the reason to speak of levels.
    fn version(&self) -> &str {
        self.report.checklist.as_deref().unwrap_or("")
    }

    fn took(&self) -> String {
        self.report
            .run
            .took_ms
            .map_or("did not end".to_owned(), duration_ms)
    }

    fn began(&self) -> String {
        moment(&self.report.run.started)
    }

    /// The calls that are shown.
    fn calls<'c>(&self, conversation: &'c Conversation) -> &'c [Call] {
        &conversation.calls[..conversation.calls.len().min(self.detail.calls)]
    }

    fn calls_left(&self, conversation: &Conversation) -> u64 {
        let cut = conversation.calls.len() - self.calls(conversation).len();
        conversation.more + cut as u64
    }

    /// Objects of a call that are shown.
    fn objects<'c>(&self, call: &'c Call) -> &'c [Foreign] {
        &call.objects[..call.objects.len().min(self.detail.objects)]
    }

    fn objects_left(&self, call: &Call) -> u64 {
        let cut = call.objects.len() - self.objects(call).len();
        call.more_objects + cut as u64
    }

    fn observed<'c>(&self, case: &'c Case, from_answers: bool) -> Vec<&'c Observation> {
        let source = if from_answers {
            Source::Answer
        } else {
            Source::Probe
        };
        case.observations
            .iter()
            .filter(|observation| observation.source == source)
            .take(self.detail.case)
            .collect()
    }

    /// Objects of a case that are shown.
    fn case_objects<'c>(&self, facts: &'c CaseFacts) -> &'c [ObjectFact] {
        &facts.objects[..facts.objects.len().min(self.detail.case)]
    }

    fn case_objects_left(&self, facts: &CaseFacts) -> u64 {
        let cut = facts.objects.len() - self.case_objects(facts).len();
        facts.more_objects.saturating_add(cut as u64)
    }

    fn observations_left(&self, case: &Case) -> usize {
        let shown = self.observed(case, true).len() + self.observed(case, false).len();
        case.observations.len() - shown
    }

    /// Text of a call, as much as is shown.
    fn cut(&self, text: &Foreign) -> String {
        text.html(self.detail.text)
    }

    fn opens(&self, case: &Case) -> bool {
        case.required && !matches!(case.state(), State::Pass | State::NotApplicable)
    }
}

fn headline(counts: &Counts) -> (String, State) {
    let run = counts.run();
    let of = |count: usize, what: &str| {
        if count == run {
            match run {
                1 => format!("The one probe {what}"),
                _ => format!("All {run} probes {what}"),
            }
        } else {
            format!("{count} of {run} probes {what}")
        }
    };
    let verb =
        |count: usize, one: &'static str, many: &'static str| if count == 1 { one } else { many };
    if run == 0 {
        ("No probe was run".to_owned(), State::NotRun)
    } else if counts.fail > 0 {
        let what = verb(counts.fail, "fails", "fail");
        (of(counts.fail, what), State::Fail)
    } else if counts.unknown > 0 {
        (of(counts.unknown, "could not tell"), State::Unknown)
    } else if counts.pass > 0 {
        let what = verb(counts.pass, "passes", "pass");
        (of(counts.pass, what), State::Pass)
    } else {
        ("Nothing applies here".to_owned(), State::NotApplicable)
    }
}

fn bar(counts: &Counts) -> Vec<Segment> {
    let all = counts.all().max(1);
    let mut x = 0;
    let mut out = Vec::new();
    for state in State::ALL {
        let count = counts.of(state);
        let width = 1000 * count / all;
        if count > 0 {
            out.push(Segment {
                state,
                count,
                x,
                width,
            });
            x += width;
        }
    }
    out
}

fn levels(report: &Report) -> Vec<LevelRow> {
    let summary = &report.summary;
    let rows = [
        ("MUST", "", &summary.must),
        ("SHOULD", "", &summary.should),
        ("Others", ", inform only", &summary.others),
    ];
    rows.into_iter()
        .filter(|(_, _, counts)| counts.all() > 0)
        .map(|(name, note, counts)| LevelRow {
            name,
            note: format!("{}{note}", counted(counts.all(), "requirement")),
            bar: bar(counts),
        })
        .collect()
}

/// How much of the checklist this run speaks about: a headline about probes must not be read as one about the platform.
fn coverage(report: &Report) -> String {
    let Some(version) = &report.checklist else {
        return "There is no checklist for this version of Kubernetes, so nothing here counts towards one."
            .to_owned();
    };
    let part = |counts: &Counts, word: &str| {
        (counts.all() > 0).then(|| format!("{} of {} {word}", counts.run(), counts.all()))
    };
    let summary = &report.summary;
    let parts: Vec<String> = [part(&summary.must, "MUST"), part(&summary.should, "SHOULD")]
        .into_iter()
        .flatten()
        .collect();
    let mut out = format!(
        "This run answers {} requirements of the checklist of {version}",
        parts.join(" and ")
    );
    if summary.others.all() > 0 {
        let _ = write!(
            out,
            ", and {} that inform only",
            counted(summary.others.all(), "other")
        );
    }
    out.push('.');
    out
}

fn groups(report: &Report) -> Vec<Group<'_>> {
    let mut out: Vec<Group<'_>> = Vec::new();
    for requirement in &report.requirements {
        let title = match (requirement.standing, requirement.category) {
            (Standing::Official | Standing::OtherVersion, Some(key)) => {
                category_title(key).to_owned()
            }
            (Standing::Extension, _) => "Extensions".to_owned(),
            _ => "Others".to_owned(),
        };
        match out.iter_mut().find(|group| group.title == title) {
            Some(group) => group.rows.push(requirement),
            None => out.push(Group {
                title,
                rows: vec![requirement],
            }),
        }
    }
    out
}

fn next(report: &Report) -> Vec<Step<'_>> {
    let mut out = Vec::new();
    for (at, probe) in report.probes.iter().enumerate() {
        let Some(attempt) = probe.counting() else {
            continue;
        };
        if matches!(attempt.state(), State::Pass | State::NotApplicable) {
            continue;
        }
        out.push(Step {
            at,
            probe,
            attempt,
            deciding: attempt
                .cases
                .iter()
                .filter(|case| case.required && case.state() == attempt.state())
                .take(5)
                .collect(),
        });
    }
    // What failed comes first: the others may follow from it.
    out.sort_by_key(|step| step.attempt.state() != State::Fail);
    out
}

/// A moment for people, in UTC; the text itself where it is no time.
fn moment(text: &Foreign) -> String {
    match text.as_data().parse::<Timestamp>() {
        Ok(time) => time.strftime("%-d %B %Y, %H:%M UTC").to_string(),
        Err(_) => text.html(40),
    }
}

/// The lanes of all attempts with known times, and in words what was waited for.
fn timeline(report: &Report) -> (Vec<Part<'_>>, Vec<String>) {
    let mut attempts: Vec<(u64, u64, usize, &Probe, &Attempt)> = Vec::new();
    for (at, probe) in report.probes.iter().enumerate() {
        for attempt in &probe.attempts {
            if let (Some(offset), true) = (attempt.offset_ms, attempt.recording.is_some()) {
                let told = attempt
                    .conversation
                    .as_ref()
                    .map_or(0, |found| found.ended_ms);
                let until = offset.saturating_add(attempt.usage.wall_ms.max(told));
                attempts.push((offset, until, at, probe, attempt));
            }
        }
    }
    attempts.sort_by_key(|(offset, _, at, _, attempt)| (*offset, *at, attempt.attempt));
    let mut parts: Vec<Vec<_>> = Vec::new();
    let mut last = 0;
    for found in attempts {
        if parts.is_empty() || found.0 > last + PAUSE {
            parts.push(Vec::new());
        }
        last = last.max(found.1);
        if let Some(part) = parts.last_mut() {
            part.push(found);
        }
    }
    let mut waits = Vec::new();
    let parts = parts
        .into_iter()
        .map(|attempts| {
            let base = attempts.iter().map(|found| found.0).min().unwrap_or(0);
            let end = attempts.iter().map(|found| found.1).max().unwrap_or(0);
            let scale = Scale {
                base,
                total: (end - base).max(1),
            };
            let began = report
                .run
                .started
                .as_data()
                .parse::<Timestamp>()
                .ok()
                .and_then(|time| {
                    let ms = i64::try_from(base).ok()?;
                    time.checked_add(jiff::SignedDuration::from_millis(ms)).ok()
                })
                .map_or(String::new(), |time| {
                    time.strftime("%H:%M:%S UTC").to_string()
                });
            Part {
                began,
                took: duration_ms(scale.total),
                ticks: (0..=4)
                    .map(|tick| duration_ms(scale.total * tick / 4))
                    .collect(),
                lanes: attempts
                    .into_iter()
                    .map(|(offset, until, at, probe, attempt)| {
                        lane(
                            report,
                            &scale,
                            (offset, until),
                            at,
                            probe,
                            attempt,
                            &mut waits,
                        )
                    })
                    .collect(),
            }
        })
        .collect();
    (parts, waits)
}

struct Scale {
    base: u64,
    total: u64,
}

impl Scale {
    fn bar(&self, class: &'static str, from: u64, until: u64, title: String) -> Bar {
        let place = |time: u64| {
            let part = u128::from(time.saturating_sub(self.base)) * u128::from(LANE);
            u64::try_from(part / u128::from(self.total))
                .unwrap_or(LANE)
                .min(LANE)
        };
        let x = place(from).min(LANE - 15);
        // What is too short to be seen is still there.
        let width = place(until).saturating_sub(x).max(15);
        let number = |units: u64| format!("{}.{}", units / 10, units % 10);
        Bar {
            class,
            x: number(x),
            width: number(width),
            title,
        }
    }
}

fn lane<'a>(
    report: &'a Report,
    scale: &Scale,
    (offset, until): (u64, u64),
    at: usize,
    probe: &'a Probe,
    attempt: &'a Attempt,
    waits: &mut Vec<String>,
) -> Lane<'a> {
    let mut bars = vec![scale.bar("t-all", offset, until, duration_ms(until - offset))];
    let mut said = Vec::new();
    for case in &attempt.cases {
        let Some(began) = case.began_ms else {
            continue;
        };
        let ended = case.ended_ms.unwrap_or(attempt.usage.wall_ms).max(began);
        let class = match case.state() {
            State::Pass => "t-pass",
            State::Fail => "t-fail",
            State::Unknown => "t-unknown",
            State::NotApplicable | State::NotRun => "t-not-applicable",
        };
        let title = format!(
            "case {}: {}, {}",
            case_title(case),
            case.state().word(),
            duration_ms(ended - began)
        );
        said.push(title.clone());
        bars.push(scale.bar(class, offset + began, offset + ended, title));
    }
    for lease in &attempt.leases {
        if lease.granted {
            let title = format!("held {}", lease_words(lease));
            bars.push(scale.bar(
                "t-held",
                offset.saturating_add(lease.answered_ms),
                offset.saturating_add(lease.released_ms),
                title,
            ));
        }
        if lease.waited_ms() >= 100 {
            let words = wait_words(report, probe, lease);
            bars.push(scale.bar(
                "t-wait",
                offset.saturating_add(lease.asked_ms),
                offset.saturating_add(lease.answered_ms),
                words.clone(),
            ));
            said.push(words.clone());
            if waits.len() < 200 {
                waits.push(words);
            }
        }
    }
    Lane {
        at,
        probe,
        attempt,
        label: said.join("; "),
        bars,
    }
}

fn lease_words(lease: &Lease) -> String {
    let mut parts = Vec::new();
    if !lease.nodes.is_empty() {
        parts.push(counted(lease.nodes.len(), "node"));
    }
    for lock in &lease.locks {
        parts.push(format!("lock {}", lock.html(60)));
    }
    if parts.is_empty() {
        parts.extend(lease.names.iter().map(|name| name.html(60)));
    }
    parts.join(", ")
}

fn wait_words(report: &Report, probe: &Probe, lease: &Lease) -> String {
    let names: Vec<String> = lease.names.iter().map(|name| name.html(60)).collect();
    let mut out = format!(
        "{} waited {} for {}",
        probe.id.html(60),
        duration_ms(lease.waited_ms()),
        names.join(", ")
    );
    if lease.granted {
        let _ = write!(out, " ({})", lease_words(lease));
    } else {
        out.push_str(" and did not get it");
    }
    let after: Vec<String> = lease
        .after
        .iter()
        .filter_map(|at| report.probes.get(*at))
        .map(|probe| probe.id.html(60))
        .collect();
    if !after.is_empty() {
        let _ = write!(out, ", held meanwhile by {}", after.join(", "));
    }
    out
}

/// A case with its subject.
fn case_title(case: &Case) -> String {
    if case.subject.is_empty() {
        case.id.html(80)
    } else {
        format!("{} [{}]", case.id.html(80), case.subject.html(80))
    }
}

// Templates hand in references.
fn took(ms: &u64) -> String {
    duration_ms(*ms)
}

fn size(count: &u64) -> String {
    bytes(*count)
}

/// Seconds with milliseconds, as narrow as a column wants them.
fn clock(ms: &u64) -> String {
    format!("{}.{:03}", ms / 1000, ms % 1000)
}

/// How a call ended, in one or two words.
fn result(call: &Call) -> String {
    let kind = match call.result {
        ReplyKind::Ok => {
            return match call.code {
                Some(code) => code.to_string(),
                None if !call.event.is_empty() => call.event.html(20),
                None => "ok".to_owned(),
            };
        }
        ReplyKind::Refused => "refused by the door",
        ReplyKind::Answered => {
            return match call.code {
                Some(code) => format!("{code} {}", call.reason.html(40)),
                None => "error".to_owned(),
            };
        }
        ReplyKind::NoAnswer => "no answer",
        ReplyKind::Expired => "expired",
        ReplyKind::Budget => "over budget",
        ReplyKind::Stopping => "stopping",
        ReplyKind::Malformed => "malformed",
        ReplyKind::Other => "other",
    };
    kind.to_owned()
}

/// Classes of a call, for the filter and for the eye: `x` ended badly, `l` a server answered, `m` the probe speaks, `o` it opens a case.
fn classes(call: &Call) -> &'static str {
    let bad = call.result != ReplyKind::Ok;
    let function = call.function.as_data();
    let speaks = function.starts_with("cases.") || function.starts_with("log.");
    match (bad, call.live, speaks) {
        (true, true, _) => "x l",
        (true, false, _) => "x",
        (false, true, _) => "l",
        (false, false, true) if function == function::CASES_OPEN => "m o",
        (false, false, true) => "m",
        (false, false, false) => "",
    }
}

/// Whether there is more to a call than its line.
fn has_more(call: &Call) -> bool {
    !(call.arguments.is_empty()
        && call.objects.is_empty()
        && call.more_objects == 0
        && call.notes.is_empty()
        && call.answer.is_none()
        && !call.withheld
        && call.tries <= 1)
}

/// Sequence numbers, shortened.
fn call_ranges(case: &Case) -> String {
    let text = ranges(&case.calls);
    match text.char_indices().nth(120) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

/// Whether an attempt needs no more than a line beside its verdict.
fn is_plain(attempt: &Attempt) -> bool {
    matches!(attempt.state(), State::Pass | State::NotApplicable)
        && attempt.reason.is_none()
        && attempt.detail.is_none()
        && attempt.to_do.is_none()
}

fn objects_counted(facts: &CaseFacts) -> String {
    let more = usize::try_from(facts.more_objects).unwrap_or(usize::MAX);
    counted(facts.objects.len().saturating_add(more), "object")
}

fn meaning(reason: &crate::model::Reason) -> &'static str {
    reason.meaning().0
}

/// How many calls there were.
fn calls_counted(conversation: &Conversation) -> String {
    let more = usize::try_from(conversation.more).unwrap_or(usize::MAX);
    counted(conversation.calls.len().saturating_add(more), "call")
}
