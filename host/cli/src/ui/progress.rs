//! A run while it goes on. On a terminal a live area shows each running probe with its case; in a pipe and in CI there is
//! one line for each case, and a sign of life when nothing else happened for a while.

use crate::ui::display::{Display, Level, clock};
use crate::ui::printer::Printer;
use crate::ui::text::{counted, duration_ms, shown, shown_within};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use jiff::Timestamp;
use karat_engine::event::{RunEvent, RunEventKind};
use std::collections::BTreeMap;
use std::time::Duration;

/// After this time without a line, a pipe gets a sign of life. CI systems end jobs that are silent for minutes.
const SIGN_OF_LIFE_MS: u64 = 30_000;

/// How often the spinner moves.
const SPIN: Duration = Duration::from_millis(100);

/// What is known of a running probe.
struct Running {
    cases: usize,
    concluded: usize,
    case: String,
    /// What it waits for, while it waits for a lease.
    waits: Option<String>,
    since: Timestamp,
    bar: Option<ProgressBar>,
}

/// Shows events.
pub(crate) struct Progress {
    printer: Printer,
    display: Display,
    running: BTreeMap<String, Running>,
    /// The line of the live area for what is no probe: preparation and clean-up.
    work: Option<ProgressBar>,
    last_line: Option<Timestamp>,
    /// Named when the first signal came.
    stopping: bool,
}

impl Progress {
    /// Nothing runs yet.
    pub(crate) fn new(printer: Printer) -> Progress {
        Progress {
            display: Display::new(printer.err_paint()),
            printer,
            running: BTreeMap::new(),
            work: None,
            last_line: None,
            stopping: false,
        }
    }

    /// Shows what happened.
    pub(crate) fn handle(&mut self, event: &RunEvent) {
        let live = self.printer.live().cloned();
        for line in self.display.lines(event) {
            match line.level {
                Level::Detail => self.printer.detail(&line.text),
                // The live area shows steps in place.
                Level::Step if live.is_some() => self.printer.detail(&line.text),
                Level::Step | Level::Status => self.printer.status(&line.text),
                Level::Warning => self.printer.warn(&line.text),
            }
            self.last_line = Some(event.at);
        }
        self.remember(event, live.as_ref());
    }

    /// Called now and then, whether or not something happened.
    pub(crate) fn tick(&mut self, now: Timestamp) {
        if self.printer.live().is_some() {
            return;
        }
        let Some(last) = self.last_line else {
            return;
        };
        if now.as_millisecond() - last.as_millisecond() < SIGN_OF_LIFE_MS.cast_signed() {
            return;
        }
        self.last_line = Some(now);
        let time = clock(self.display.elapsed_ms(now));
        for (probe, running) in &self.running {
            let since =
                u64::try_from(now.as_millisecond() - running.since.as_millisecond()).unwrap_or(0);
            let case = if let Some(waits) = &running.waits {
                waits.clone()
            } else if running.case.is_empty() {
                "working".to_owned()
            } else {
                format!("still in case {}", running.case)
            };
            self.printer.status(&format!(
                "{time} {}: {case}, for {}",
                shown_within(probe, 60),
                duration_ms(since)
            ));
        }
        if self.running.is_empty() {
            self.printer.status(&format!("{time} still at it"));
        }
    }

    /// Takes the live area away.
    pub(crate) fn finish(&mut self) {
        for running in self.running.values() {
            if let Some(bar) = &running.bar {
                bar.finish_and_clear();
            }
        }
        self.running.clear();
        if let Some(work) = self.work.take() {
            work.finish_and_clear();
        }
    }

    fn remember(&mut self, event: &RunEvent, live: Option<&MultiProgress>) {
        match &event.kind {
            RunEventKind::Preparing { what } => {
                self.work(live, &format!("preparing {}", shown(what)))
            }
            RunEventKind::Waiting { holder, .. } => {
                let text = format!("waiting for run {}", shown_within(holder, 40));
                self.work(live, &text);
            }
            RunEventKind::RunStarted { .. } => self.work_done(),
            RunEventKind::ProbeStarted { probe, cases, .. } => {
                self.work_done();
                let bar = live.map(|live| spinner(live, &shown_within(probe, 40)));
                let running = Running {
                    cases: *cases,
                    concluded: 0,
                    case: String::new(),
                    waits: None,
                    since: event.at,
                    bar,
                };
                self.running.insert(probe.clone(), running);
            }
            RunEventKind::CaseOpened { probe, case, claim } => {
                if let Some(running) = self.running.get_mut(probe) {
                    running.case = shown(&case.to_string());
                    running.since = event.at;
                    running.show(&format!("{}: {}", running.case, shown(claim)));
                }
            }
            RunEventKind::CaseConcluded { probe, .. } => {
                if let Some(running) = self.running.get_mut(probe) {
                    running.concluded += 1;
                    running.case.clear();
                    running.since = event.at;
                    running.show("");
                }
            }
            RunEventKind::LeaseAwaited { probe, why } => {
                if let Some(running) = self.running.get_mut(probe) {
                    running.waits = Some(shown_within(why, 200));
                    running.since = event.at;
                    running.show(&shown_within(why, 200));
                }
            }
            RunEventKind::LeaseGranted { probe, .. } => {
                if let Some(running) = self.running.get_mut(probe) {
                    running.waits = None;
                    running.since = event.at;
                    let case = running.case.clone();
                    running.show(&case);
                }
            }
            RunEventKind::ProbeFinished { probe, .. } => {
                if let Some(running) = self.running.remove(probe)
                    && let Some(bar) = running.bar
                {
                    bar.finish_and_clear();
                }
            }
            RunEventKind::Stopping { .. } => self.stopping = true,
            RunEventKind::CleaningUp { remaining, example } => {
                let hint = if self.stopping {
                    "; once more stops at once"
                } else {
                    ""
                };
                let text = format!(
                    "cleaning up, {} left: {}{hint}",
                    counted(*remaining, "object"),
                    shown_within(example, 100)
                );
                self.work(live, &text);
            }
            RunEventKind::RunFinished { .. } => self.finish(),
            RunEventKind::ClusterReached { .. }
            | RunEventKind::Called { .. }
            | RunEventKind::Logged { .. }
            | RunEventKind::CaseJudged { .. }
            | RunEventKind::LeaseReleased { .. }
            | RunEventKind::Warned { .. } => {}
        }
    }

    fn work(&mut self, live: Option<&MultiProgress>, text: &str) {
        if let Some(live) = live {
            self.work
                .get_or_insert_with(|| spinner(live, "karat"))
                .set_message(text.to_owned());
        }
    }

    fn work_done(&mut self) {
        if let Some(work) = self.work.take() {
            work.finish_and_clear();
        }
    }
}

impl Running {
    fn show(&self, text: &str) {
        if let Some(bar) = &self.bar {
            let done = if self.cases > 0 {
                format!("{} of {} ", self.concluded.min(self.cases), self.cases)
            } else {
                String::new()
            };
            bar.set_message(format!("{done}{text}"));
        }
    }
}

fn spinner(live: &MultiProgress, name: &str) -> ProgressBar {
    let bar = live.add(ProgressBar::new_spinner());
    if let Ok(style) = ProgressStyle::with_template("{spinner} {prefix}  {wide_msg} {elapsed}") {
        bar.set_style(style);
    }
    bar.set_prefix(name.to_owned());
    bar.enable_steady_tick(SPIN);
    bar
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ui::printer::Verbosity;
    use crate::ui::samples::events;

    fn shown_events(verbosity: Verbosity) -> String {
        let (printer, captured) = Printer::captured(verbosity);
        let mut progress = Progress::new(printer);
        for event in events() {
            progress.handle(&event);
        }
        assert_eq!(captured.out(), "", "stdout is for data");
        captured.err()
    }

    #[test]
    fn a_pipe_gets_one_line_a_case() {
        insta::assert_snapshot!(shown_events(Verbosity::Normal));
    }

    #[test]
    fn quiet_keeps_warnings() {
        insta::assert_snapshot!(shown_events(Verbosity::Quiet));
    }

    #[test]
    fn verbose_shows_each_call() {
        assert!(shown_events(Verbosity::Verbose).contains("dra-support #1 kube-read.discover"));
    }

    #[test]
    fn a_silent_case_gives_a_sign_of_life() {
        let (printer, captured) = Printer::captured(Verbosity::Normal);
        let mut progress = Progress::new(printer);
        let all = events();
        let opened = all
            .iter()
            .position(|event| matches!(event.kind, RunEventKind::CaseOpened { .. }))
            .unwrap();
        for event in &all[..=opened] {
            progress.handle(event);
        }
        let before = captured.err();
        let later =
            |ms: i64| Timestamp::from_millisecond(all[opened].at.as_millisecond() + ms).unwrap();
        progress.tick(later(29_000));
        assert_eq!(captured.err(), before, "too early");
        progress.tick(later(45_000));
        progress.tick(later(46_000));
        let said = captured.err()[before.len()..].to_owned();
        assert_eq!(said.lines().count(), 1, "{said}");
        assert!(
            said.contains("dra-support: still in case served, for 45 s"),
            "{said}"
        );
    }
}
