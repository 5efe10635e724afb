//! Events as lines, without printing them. Keeps the little that a line needs of earlier events: when the run began, and
//! what a probe said of its cases, so that a different judgement of the engine stands out.

use crate::ui::printer::{Paint, Style};
use crate::ui::text::{bytes, counted, duration_ms, shown, shown_within};
use crate::ui::verdicts::verdict_word;
use jiff::Timestamp;
use karat_engine::event::{RunEvent, RunEventKind};
use karat_engine::model::{Outcome, Reason, Verdict};
use std::collections::{BTreeMap, BTreeSet};

/// From this wait on, who got a lease is shown.
const WAITED_MS: u64 = 1000;

/// Who wants to read a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Level {
    /// Only with `--verbose`.
    Detail,
    /// A step that a live area shows anyway.
    Step,
    /// What happened.
    Status,
    /// What should not be missed, even when quiet.
    Warning,
}

/// One line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Line {
    /// Who wants it.
    pub(crate) level: Level,
    /// Harmless text with the time before it.
    pub(crate) text: String,
}

/// What the lines remember.
pub(crate) struct Display {
    paint: Paint,
    began: Option<Timestamp>,
    /// What a probe said of a case, by probe and case.
    said: BTreeMap<(String, String), String>,
    /// Probes whose last attempt ended before it was done: that its cases are missing is no news.
    broken_off: BTreeSet<String>,
    /// What was last said of a clean-up, which tells the same many times.
    cleaning: String,
}

impl Display {
    /// Nothing remembered.
    pub(crate) fn new(paint: Paint) -> Display {
        Display {
            paint,
            began: None,
            said: BTreeMap::new(),
            broken_off: BTreeSet::new(),
            cleaning: String::new(),
        }
    }

    /// Milliseconds since the first event.
    pub(crate) fn elapsed_ms(&self, at: Timestamp) -> u64 {
        let began = self.began.unwrap_or(at);
        u64::try_from(at.as_millisecond() - began.as_millisecond()).unwrap_or(0)
    }

    /// The lines of an event.
    pub(crate) fn lines(&mut self, event: &RunEvent) -> Vec<Line> {
        self.began.get_or_insert(event.at);
        let time = clock(self.elapsed_ms(event.at));
        let time = self.paint.paint(Style::Faint, &time);
        self.texts(&event.kind)
            .into_iter()
            .map(|(level, text)| Line {
                level,
                // A warning is labelled by the printer, and its time would only part it from the label.
                text: if level == Level::Warning {
                    text
                } else {
                    format!("{time} {text}")
                },
            })
            .collect()
    }

    fn texts(&mut self, kind: &RunEventKind) -> Vec<(Level, String)> {
        let one = |level, text: String| vec![(level, text)];
        match kind {
            RunEventKind::ClusterReached {
                server_version,
                server,
            } => one(
                Level::Status,
                format!(
                    "reached {}, Kubernetes {}",
                    shown_within(server, 200),
                    shown_within(server_version, 60)
                ),
            ),
            RunEventKind::RunStarted { run, probes } => one(
                Level::Status,
                format!(
                    "run {}: {}",
                    shown_within(run, 40),
                    counted(probes.len(), "probe")
                ),
            ),
            RunEventKind::Preparing { what } => {
                one(Level::Step, format!("preparing {}", shown(what)))
            }
            RunEventKind::Waiting {
                holder,
                since,
                purpose,
                left_ms,
            } => {
                let since = match since.as_str() {
                    "" => String::new(),
                    since => format!(" since {}", shown_within(since, 40)),
                };
                let purpose = match purpose.as_str() {
                    "" => String::new(),
                    purpose => format!(" for {}", shown_within(purpose, 120)),
                };
                one(
                    Level::Status,
                    format!(
                        "waiting for run {}, which holds the cluster{since}{purpose}; {} left",
                        shown_within(holder, 40),
                        duration_ms(*left_ms)
                    ),
                )
            }
            RunEventKind::ProbeStarted {
                probe,
                attempt,
                cases,
            } => {
                let again = if *attempt > 1 {
                    format!(", attempt {attempt}")
                } else {
                    String::new()
                };
                let cases = counted(*cases, "case");
                one(
                    Level::Step,
                    format!("{}: started{again}, {cases}", self.name(probe)),
                )
            }
            RunEventKind::CaseOpened { probe, case, claim } => one(
                Level::Detail,
                format!(
                    "{}: case {}: {}",
                    self.name(probe),
                    shown(&case.to_string()),
                    shown(claim)
                ),
            ),
            RunEventKind::CaseConcluded { probe, case, word } => {
                let case = case.to_string();
                self.said
                    .insert((probe.clone(), case.clone()), word.clone());
                let word = shown_within(word, 200);
                one(
                    Level::Step,
                    format!("{}: case {}: {word}", self.name(probe), shown(&case)),
                )
            }
            RunEventKind::LeaseAwaited { probe, why } => one(
                Level::Step,
                format!("{}: {}", self.name(probe), shown_within(why, 300)),
            ),
            RunEventKind::LeaseGranted {
                probe,
                nodes,
                locks,
                waited_ms,
            } => {
                let mut what = Vec::new();
                if *nodes > 0 {
                    what.push(counted(*nodes, "node"));
                }
                what.extend(
                    locks
                        .iter()
                        .map(|lock| format!("lock {}", shown_within(lock, 100))),
                );
                // Only who waited for it is news.
                let level = if *waited_ms >= WAITED_MS {
                    Level::Step
                } else {
                    Level::Detail
                };
                one(
                    level,
                    format!(
                        "{}: has {} after {}",
                        self.name(probe),
                        what.join(", "),
                        duration_ms(*waited_ms)
                    ),
                )
            }
            RunEventKind::LeaseReleased { probe, held_ms } => one(
                Level::Detail,
                format!(
                    "{}: gave its lease back after {}",
                    self.name(probe),
                    duration_ms(*held_ms)
                ),
            ),
            RunEventKind::CaseJudged { probe, result } => {
                let key = (probe.clone(), result.case.to_string());
                let (word, style) = verdict_word(result.verdict);
                let said = self.said.remove(&key);
                // The probe's own word was shown already; only another judgement is news.
                let same = said.as_deref().is_some_and(|said| said.starts_with(word));
                let expected = result.reason == Some(Reason::NotExercised)
                    && (!result.required || self.broken_off.contains(probe));
                if same || expected {
                    return Vec::new();
                }
                let reason = result
                    .reason
                    .map_or(String::new(), |reason| format!(" ({reason})"));
                let word = self.paint.paint(style, word);
                let text = format!(
                    "{}: case {}: judged {word}{reason}",
                    self.name(probe),
                    shown(&result.case.to_string())
                );
                one(Level::Step, text)
            }
            RunEventKind::Called {
                probe,
                sequence,
                function,
                target,
                outcome,
                took_us,
                bytes: seen,
            } => {
                let target = if target.is_empty() {
                    String::new()
                } else {
                    format!(" {}", shown_within(target, 200))
                };
                one(
                    Level::Detail,
                    format!(
                        "{} #{sequence} {}{target}: {}, {}.{} ms, {}",
                        self.name(probe),
                        shown_within(function, 80),
                        shown_within(outcome, 200),
                        took_us / 1000,
                        took_us % 1000 / 100,
                        bytes(*seen)
                    ),
                )
            }
            RunEventKind::Logged { probe, level, text } => one(
                Level::Detail,
                format!(
                    "{} {}: {}",
                    self.name(probe),
                    shown_within(level, 10),
                    shown(text)
                ),
            ),
            RunEventKind::ProbeFinished {
                probe,
                outcome,
                judgement,
                usage,
                ..
            } => {
                if *outcome == Outcome::Concluded {
                    self.broken_off.remove(probe);
                } else {
                    self.broken_off.insert(probe.clone());
                }
                let (word, style) = match (outcome, judgement.verdict) {
                    (Outcome::Concluded | Outcome::ProbeError(_), Some(verdict)) => {
                        verdict_word(verdict)
                    }
                    (outcome, _) => (outcome.word(), Style::Unsure),
                };
                let reason = judgement
                    .reason
                    .map_or(String::new(), |reason| format!(" ({reason})"));
                let detail = match judgement.verdict {
                    Some(Verdict::Pass) => String::new(),
                    _ => outcome
                        .detail()
                        .map_or(String::new(), |text| format!(": {}", shown(text))),
                };
                let word = self.paint.paint(style, word);
                one(
                    Level::Status,
                    format!(
                        "{}: {word}{reason}{detail}, {}, {}",
                        self.name(probe),
                        duration_ms(usage.wall_ms),
                        counted(usize::try_from(usage.calls).unwrap_or(usize::MAX), "call")
                    ),
                )
            }
            RunEventKind::Stopping { cause } => one(
                Level::Status,
                format!("stopping: {}", shown_within(cause, 200)),
            ),
            RunEventKind::CleaningUp { remaining, example } => {
                let example = if example.is_empty() {
                    String::new()
                } else {
                    format!(", {}", shown_within(example, 150))
                };
                let text = format!(
                    "cleaning up: {} left{example}",
                    counted(*remaining, "object")
                );
                if text == self.cleaning {
                    return Vec::new();
                }
                self.cleaning.clone_from(&text);
                one(Level::Step, text)
            }
            RunEventKind::Warned { text } => one(Level::Warning, shown(text)),
            RunEventKind::RunFinished { left_behind } => {
                let mut lines = one(Level::Detail, "finished".to_owned());
                for object in left_behind {
                    lines.push((
                        Level::Warning,
                        format!("could not be removed: {}", shown(object)),
                    ));
                }
                lines
            }
        }
    }

    fn name(&self, probe: &str) -> String {
        self.paint.paint(Style::Strong, &shown_within(probe, 60))
    }
}

/// The time before a line: seconds with a tenth, always of one width for the first hours.
pub(crate) fn clock(ms: u64) -> String {
    format!("[{:>6}.{} s]", ms / 1000, ms % 1000 / 100)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ui::samples::{HOSTILE, events, judgement};
    use karat_engine::model::{CaseKey, Usage};

    #[test]
    fn a_run_line_by_line() {
        let mut display = Display::new(Paint::Never);
        let lines: Vec<String> = events()
            .iter()
            .flat_map(|event| display.lines(event))
            .map(|line| format!("{:8} {}", format!("{:?}", line.level), line.text))
            .collect();
        insta::assert_snapshot!(lines.join("\n"));
    }

    #[test]
    fn a_judgement_that_differs_is_news() {
        let mut display = Display::new(Paint::Never);
        let case = CaseKey {
            id: "allocated".to_owned(),
            subject: String::new(),
        };
        let judged = judgement(Some(Verdict::Unknown), Some(Reason::NoEffect));
        let result = Box::new(judged.cases[1].clone());
        let said = RunEventKind::CaseConcluded {
            probe: "a".to_owned(),
            case,
            word: "pass".to_owned(),
        };
        let told = RunEventKind::CaseJudged {
            probe: "a".to_owned(),
            result,
        };
        display.texts(&said);
        assert_eq!(
            display.texts(&told),
            [(
                Level::Step,
                "a: case allocated: judged unknown (no_effect)".to_owned()
            )]
        );
    }

    #[test]
    fn hostile_text_stays_on_its_line() {
        let text = || HOSTILE.to_owned();
        let case = || CaseKey {
            id: text(),
            subject: text(),
        };
        let mut judged = judgement(Some(Verdict::Unknown), None);
        judged.cases[1].case = case();
        let kinds = [
            RunEventKind::ClusterReached {
                server_version: text(),
                server: text(),
            },
            RunEventKind::Preparing { what: text() },
            RunEventKind::Waiting {
                holder: text(),
                since: text(),
                purpose: text(),
                left_ms: 1000,
            },
            RunEventKind::ProbeStarted {
                probe: text(),
                attempt: 1,
                cases: 1,
            },
            RunEventKind::CaseOpened {
                probe: text(),
                case: case(),
                claim: text(),
            },
            RunEventKind::CaseConcluded {
                probe: text(),
                case: case(),
                word: text(),
            },
            RunEventKind::LeaseAwaited {
                probe: text(),
                why: text(),
            },
            RunEventKind::LeaseGranted {
                probe: text(),
                nodes: 2,
                locks: vec![text()],
                waited_ms: 5_000,
            },
            RunEventKind::LeaseReleased {
                probe: text(),
                held_ms: 5_000,
            },
            RunEventKind::CaseJudged {
                probe: text(),
                result: Box::new(judged.cases[1].clone()),
            },
            RunEventKind::Called {
                probe: text(),
                sequence: 1,
                function: text(),
                target: text(),
                outcome: text(),
                took_us: 1,
                bytes: 1,
            },
            RunEventKind::Logged {
                probe: text(),
                level: text(),
                text: text(),
            },
            RunEventKind::ProbeFinished {
                probe: text(),
                attempt: 1,
                outcome: Outcome::Trapped(text()),
                judgement: Box::new(judged),
                usage: Usage::default(),
            },
            RunEventKind::Stopping { cause: text() },
            RunEventKind::CleaningUp {
                remaining: 1,
                example: text(),
            },
            RunEventKind::Warned { text: text() },
            RunEventKind::RunFinished {
                left_behind: vec![text()],
            },
        ];
        let mut display = Display::new(Paint::Never);
        for kind in kinds {
            let lines = display.lines(&RunEvent {
                at: Timestamp::UNIX_EPOCH,
                kind,
            });
            assert!(!lines.is_empty());
            for line in lines {
                assert!(
                    !line.text.chars().any(|c| c.is_control() || c == '\u{202e}'),
                    "{line:?}"
                );
                assert!(!line.text.contains("##vso["), "{line:?}");
            }
        }
    }
}
