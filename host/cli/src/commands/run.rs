//! `karat run`: plan, consent, run, results. The work is the engine's; this file asks, watches and reports.
//!
//! stdout carries the result (the table, or the run record with `--json`), stderr everything else.

use super::bundle::{self, IN_RUN, signing_key};
use super::plan::{self, Asked, Made, connect};
use super::{Context, block_on};
use crate::args::{LockArg, RerunArg, RunArgs};
use crate::exit::Exit;
use crate::probes::{Probe, Probes};
use crate::settings::{Selection, connect_options};
use crate::signals::Signals;
use crate::telemetry::Telemetry;
use crate::ui::diagnostics::{Classify as _, CommandError, CommandResult};
use crate::ui::plan::{Shown, cluster_line, lines};
use crate::ui::printer::{Paint, Printer, Style};
use crate::ui::progress::Progress;
use crate::ui::text::{counted, duration_ms, shown, shown_within};
use crate::ui::verdicts::{next_steps, summary, table};
use anyhow::anyhow;
use jiff::Timestamp;
use karat_engine::bundle::create;
use karat_engine::bundle::signature::SigningKey;
use karat_engine::cluster::ConnectOptions;
use karat_engine::component;
use karat_engine::engine::Engine;
use karat_engine::event::{Events, RunEvent, RunEventKind};
use karat_engine::gate::StopSignal;
use karat_engine::model::{LeaseRecord, Outcome, RunRecord};
use karat_engine::report::open::of_record;
use karat_engine::report::{Format, render};
use karat_engine::run::lock::{LeaseOptions, Lock};
use karat_engine::run::plan::LeftOutWhy;
use karat_engine::run::plan::trial::TrialResult;
use karat_engine::run::{self, Mode, RunError, RunRequest};
use karat_engine::runfolder::{FolderError, RUN_FILE};
use karat_engine::witness::is_there;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where runs go unless `--out` says otherwise.
const RUNS: &str = "karat-runs";

/// How often a pipe is looked after; see [`Progress::tick`].
const TICK: Duration = Duration::from_secs(1);

/// How long a run that was told to stop at once may take to let go.
const LET_GO: Duration = Duration::from_secs(5);

/// Runs.
pub(crate) fn execute(context: &Context, args: &RunArgs) -> CommandResult {
    let printer = &context.printer;
    if !args.yes && !printer.is_interactive() {
        return Err(CommandError::usage(anyhow!(
            "there is no terminal on which the plan could be shown and accepted"
        ))
        .hint("add --yes to start without asking; `karat plan` shows what a run would do"));
    }
    // Before anything is done, so that a wrong key costs nothing.
    let key = args.sign.as_deref().map(signing_key).transpose()?;
    let folder = Folder::choose(args)?;
    let selection = selection(context, args, &folder)?;
    let made = plan::make(&selection)?;
    if made.plan.probes.is_empty() {
        return Err(nothing_to_run(&made));
    }
    let options = connect_options(&args.cluster)?;
    let telemetry = Telemetry::start(&context.environment, printer);
    let done = block_on(async {
        let mut start = Start {
            context,
            args,
            folder,
            key,
            selection,
            made,
            telemetry,
        };
        let result = start.go(options).await;
        (result, start.telemetry)
    })?;
    let (result, telemetry) = done;
    // Outside of the runtime, because the exporters wait for their own threads.
    if let Some(telemetry) = telemetry {
        telemetry.finish(printer);
    }
    result
}

/// Everything between the arguments and the run.
struct Start<'a> {
    context: &'a Context,
    args: &'a RunArgs,
    folder: Folder,
    key: Option<SigningKey>,
    selection: Selection,
    made: Made,
    telemetry: Option<Telemetry>,
}

impl Start<'_> {
    async fn go(&mut self, options: ConnectOptions) -> CommandResult {
        let printer = &self.context.printer;
        printer.status(&format!(
            "karat {}: {}, reaching the cluster",
            env!("CARGO_PKG_VERSION"),
            counted(self.made.plan.probes.len(), "probe")
        ));
        if let Some(line) = self.selection.redaction_line() {
            printer.status(&line);
        }
        let engine_cluster = connect(options.clone()).await?;
        let probe_cluster = connect(ConnectOptions {
            pace: Some(engine_cluster.pace()),
            ..options
        })
        .await?;
        let asked = plan::ask(&engine_cluster, &self.selection, &mut self.made.plan).await?;
        if !self.consent(&asked, engine_cluster.context()) {
            return Err(CommandError::stopped(Exit::Usage, "nothing was started"));
        }

        let engine = self.context.engine()?;
        let (probes, left_out) = self.load(&engine).await?;
        let (events, stream) = Events::channel();
        let (stop, stop_signal) = StopSignal::pair();
        let (stop_now, stop_now_signal) = StopSignal::pair();
        let request = RunRequest {
            engine,
            probes,
            left_out,
            engine_cluster,
            probe_cluster,
            grants: std::mem::take(&mut self.made.grants),
            reach: self.selection.reach,
            settings: std::mem::take(&mut self.selection.settings),
            images: std::mem::take(&mut self.selection.images),
            nodes: std::mem::take(&mut self.selection.nodes),
            parallel: self.selection.parallel,
            out: self.folder.path.clone(),
            mode: self.folder.mode,
            enforce: std::mem::take(&mut self.selection.enforce),
            lock: lock(self.args),
            redaction: std::sync::Arc::clone(&self.selection.redaction),
            nonce: self.args.nonce.clone(),
            witness: self.selection.witness,
            events,
            stop: stop_signal,
            stop_now: stop_now_signal,
        };
        let signals = Signals::listen().environment("cannot listen to signals")?;
        let watch = Watch {
            printer: printer.clone(),
            progress: Progress::new(printer.clone()),
            telemetry: self.telemetry.as_mut(),
            signals,
            stop,
            stop_now,
        };
        let (result, signalled) = watch.run(request, stream).await;
        let record = result.map_err(|error| describe(error, signalled, &self.folder.path))?;
        self.report(&record)?;
        if let Some(exit) = signalled {
            return Ok(exit);
        }
        let explicit = !self.selection.wanted.is_empty();
        // What was left out for its reach was not selected, unless the user named it.
        Ok(Exit::of_probes(record.probes.iter().filter(|probe| {
            explicit
                || !matches!(
                    probe.attempts.last().map(|attempt| &attempt.outcome),
                    Some(Outcome::Skipped(_))
                )
        })))
    }

    /// Shows the plan and asks, or says the part of it that nobody should miss.
    fn consent(&self, asked: &Asked, context: Option<&str>) -> bool {
        let printer = &self.context.printer;
        let plan = &self.made.plan;
        if self.selection.witness {
            printer.status(
                "the cluster's token issuer witnesses this run: its evidence will name the issuer, and with it often provider, region or project",
            );
        }
        if self.args.yes {
            printer.status(&format!(
                "cluster: {}",
                cluster_line(context, &asked.preflight)
            ));
            for left in &plan.left_out {
                let id = shown(&left.probe);
                match &left.why {
                    LeftOutWhy::Reach(reach) => {
                        printer.status(&format!("left out: {id} needs --reach {reach}"));
                    }
                    LeftOutWhy::NotGranted(_) => {
                        printer.warn(&format!("{id} is not granted what it needs"))
                    }
                    LeftOutWhy::NoImage(why) => printer.warn(&format!("{id}: {}", shown(why))),
                }
            }
            let missing = asked.preflight.missing.len();
            if missing > 0 {
                printer.warn(&format!(
                    "your account lacks {missing} of {} accesses; `karat plan` names them and prints the RBAC",
                    asked.preflight.asked
                ));
            }
            for tried in &asked.trials {
                let kind = shown(&tried.kind);
                match &tried.result {
                    TrialResult::Refused(why) => {
                        printer.warn(&format!("a policy may refuse {kind}: {}", shown(why)));
                    }
                    TrialResult::Changed(changes) => {
                        let changes = shown(&changes.join(", "));
                        printer.warn(&format!("somebody changes {kind}: {changes}"));
                    }
                    TrialResult::Accepted | TrialResult::NotTried(_) => {}
                }
            }
            return true;
        }
        let shown_plan = Shown {
            plan,
            preflight: Some(&asked.preflight),
            trials: &asked.trials,
        };
        for line in lines(&shown_plan, context, printer.err_paint()) {
            printer.always(&line);
        }
        printer.always("");
        printer.ask(&format!("run {}?", counted(plan.probes.len(), "probe")))
    }

    /// Compiles the probes of the plan, in its order, off the threads that talk.
    async fn load(
        &self,
        engine: &Engine,
    ) -> Result<(Vec<component::Probe>, Vec<(component::Probe, Outcome)>), CommandError> {
        let find = |id: &str| {
            self.selection
                .probes
                .iter()
                .find(|probe| probe.manifest.id == id)
                .cloned()
                .ok_or_else(|| CommandError::bug(anyhow!("probe {id} is planned and not there")))
        };
        let mut probes = Vec::new();
        for planned in &self.made.plan.probes {
            probes.push(compile(engine, find(&planned.probe)?).await?);
        }
        let mut left_out = Vec::new();
        for left in &self.made.plan.left_out {
            let outcome = match &left.why {
                LeftOutWhy::Reach(reach) => Outcome::Skipped(format!("it needs reach {reach}")),
                LeftOutWhy::NotGranted(refusal) | LeftOutWhy::NoImage(refusal) => {
                    Outcome::Denied(refusal.clone())
                }
            };
            left_out.push((compile(engine, find(&left.probe)?).await?, outcome));
        }
        Ok((probes, left_out))
    }

    /// The result on stdout, or the record; the words about it on the other stream.
    fn report(&self, record: &RunRecord) -> Result<(), CommandError> {
        let printer = &self.context.printer;
        let paint = if self.args.json {
            printer.err_paint()
        } else {
            printer.out_paint()
        };
        let say = |line: &str| {
            if self.args.json {
                printer.status(line);
            } else {
                printer.data(line);
            }
        };
        if self.args.json {
            printer.json(record).bug("cannot write the run record")?;
        }
        say("");
        for line in table(&record.probes).lines(paint) {
            say(&line);
        }
        say("");
        say(&paint.paint(
            Style::Strong,
            &format!("{} (run {})", summary(&record.probes), shown(&record.run)),
        ));
        if let Some(leases) = &record.leases {
            say(&lease_line(leases));
        }
        let folder = self.folder.path.display().to_string();
        let steps = next_steps(&record.probes, &folder, paint);
        if !steps.is_empty() {
            say("");
            say("what to do next");
            for line in &steps {
                say(line);
            }
        }
        for line in files(&self.folder.path) {
            printer.status(&line);
        }
        let page = self.folder.path.join("report.html");
        match write_page(&self.folder.path, record, &page) {
            Ok(()) => printer.status(&format!("report for people: {}", page.display())),
            Err(error) => printer.warn(&format!(
                "no report was written: {}; `karat report {folder} --to html` tries again",
                error.lines(Paint::Never).join(" ")
            )),
        }
        match create(
            &self.folder.path,
            &self.folder.path.join(IN_RUN),
            self.key.as_ref(),
        ) {
            Ok(made) => {
                for line in bundle::lines(&made, &self.folder.path.join(IN_RUN)) {
                    printer.status(&line);
                }
            }
            // The run itself is whole, and the bundle can be made from it at any time.
            Err(error) => printer.warn(&format!(
                "no bundle was made: {}; `karat bundle create {folder}` tries again",
                shown(&error.to_string())
            )),
        }
        if !steps.is_empty() {
            printer.status(&format!(
                "what did not pass, again:    karat run --out {folder} --rerun failed"
            ));
        }
        let left: usize = record
            .probes
            .iter()
            .filter_map(|probe| probe.attempts.last())
            .map(|attempt| attempt.left_behind.len())
            .sum();
        if left > 0 {
            printer.warn(&format!(
                "{} could not be removed; `karat clean {folder}` tries again",
                counted(left, "object")
            ));
        }
        Ok(())
    }
}

/// The report as one page, beside the record.
fn write_page(folder: &Path, record: &RunRecord, page: &Path) -> Result<(), CommandError> {
    let files = render(&of_record(folder, record), Format::Html).bug("cannot write the report")?;
    files
        .iter()
        .try_for_each(|file| super::report::write(page, &file.bytes))
}

/// How close the run came to what its leases allow.
fn lease_line(leases: &LeaseRecord) -> String {
    let planned = match leases.planned_ms {
        0 => String::new(),
        ms => format!("planned {}, ", duration_ms(ms)),
    };
    let ratio = match leases.bound_ms {
        0 => String::new(),
        bound => {
            let hundredths = leases.wall_ms.saturating_mul(100).div_ceil(bound);
            format!(", {}.{:02} times", hundredths / 100, hundredths % 100)
        }
    };
    format!(
        "longest path: {planned}{} by what was held ({}); took {}{ratio}",
        duration_ms(leases.bound_ms),
        counted(usize::try_from(leases.held).unwrap_or(usize::MAX), "lease"),
        duration_ms(leases.wall_ms)
    )
}

/// A run in progress: events to the screen and to telemetry, signals to the run.
struct Watch<'a> {
    printer: Printer,
    progress: Progress,
    telemetry: Option<&'a mut Telemetry>,
    signals: Signals,
    stop: karat_engine::gate::StopHandle,
    stop_now: karat_engine::gate::StopHandle,
}

impl Watch<'_> {
    async fn run(
        mut self,
        request: RunRequest,
        mut stream: tokio::sync::mpsc::UnboundedReceiver<RunEvent>,
    ) -> (Result<RunRecord, Broken>, Option<Exit>) {
        let mut run = tokio::spawn(run::run(request));
        let mut tick = tokio::time::interval(TICK);
        let mut let_go = None;
        let joined = loop {
            let timeout = async {
                match let_go {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                joined = &mut run => break Some(joined),
                Some(event) = stream.recv() => self.handle(&event),
                came = self.signals.next() => match came.count {
                    1 => {
                        self.handle(&event_now(RunEventKind::Stopping { cause: came.name.to_owned() }));
                        self.printer.status(
                            "probes get two seconds, then everything is removed; the same signal again stops at once",
                        );
                        self.stop.stop();
                    }
                    2 => {
                        self.printer.status("stopping at once");
                        self.stop_now.stop();
                        let_go = Some(tokio::time::Instant::now() + LET_GO);
                    }
                    _ => break None,
                },
                () = timeout => break None,
                _ = tick.tick() => self.progress.tick(Timestamp::now()),
            }
        };
        while let Ok(event) = stream.try_recv() {
            self.handle(&event);
        }
        self.progress.finish();
        let result = match joined {
            Some(Ok(result)) => result.map_err(Broken::Run),
            Some(Err(error)) => Err(Broken::Run(RunError::Defect(error.to_string()))),
            None => {
                run.abort();
                Err(Broken::LeftAsItIs)
            }
        };
        (result, self.signals.exit())
    }

    fn handle(&mut self, event: &RunEvent) {
        self.progress.handle(event);
        if let Some(telemetry) = &mut self.telemetry {
            telemetry.handle(event);
        }
    }
}

/// Why a run has no record to show.
#[derive(Debug, thiserror::Error)]
enum Broken {
    /// The engine says.
    #[error(transparent)]
    Run(#[from] RunError),
    /// It was told to stop at once and did not.
    #[error("the run did not let go in time and was left as it is")]
    LeftAsItIs,
}

fn event_now(kind: RunEventKind) -> RunEvent {
    RunEvent {
        at: Timestamp::now(),
        kind,
    }
}

async fn compile(engine: &Engine, probe: Probe) -> Result<component::Probe, CommandError> {
    let engine = engine.clone();
    let origin = probe.origin.clone();
    tokio::task::spawn_blocking(move || component::load(&engine, probe.bytes.to_vec()))
        .await
        .bug("the compiler of probes broke off")?
        .usage(format!("cannot run {origin}"))
}

/// The output folder and what is to be done with it.
#[derive(Debug)]
struct Folder {
    path: PathBuf,
    mode: Mode,
    /// The record that is continued.
    record: Option<RunRecord>,
}

impl Folder {
    fn choose(args: &RunArgs) -> Result<Folder, CommandError> {
        let mode = match (args.rerun, args.resume) {
            (Some(RerunArg::Failed), _) => Mode::RerunFailed,
            (None, true) => Mode::Resume,
            (None, false) => Mode::New,
        };
        if mode == Mode::New {
            let path = match &args.out {
                Some(path) => path.clone(),
                None => {
                    let time = Timestamp::now().strftime("%Y%m%dT%H%M%SZ").to_string();
                    Path::new(RUNS).join(time)
                }
            };
            if path.join(RUN_FILE).exists() {
                return Err(CommandError::usage(anyhow!(
                    "{} holds a run already",
                    path.display()
                ))
                .hint("choose another --out, or continue that run with --resume or --rerun failed"));
            }
            return Ok(Folder {
                path,
                mode,
                record: None,
            });
        }
        let path = match &args.out {
            Some(path) => path.clone(),
            None => newest(Path::new(RUNS))?,
        };
        let record = super::explain::read_run_record(&path)?;
        Ok(Folder {
            path,
            mode,
            record: Some(record),
        })
    }
}

/// The newest run below a folder, by its name, which is a time.
fn newest(runs: &Path) -> Result<PathBuf, CommandError> {
    let mut found: Vec<PathBuf> = std::fs::read_dir(runs)
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| path.join(RUN_FILE).is_file())
        .collect();
    found.sort();
    found.pop().ok_or_else(|| {
        CommandError::usage(anyhow!("there is no earlier run in {}", runs.display()))
            .hint("give its output folder with --out")
    })
}

/// What the flags select. A run that is continued brings its own probes and reach, so that they need not be repeated.
fn selection(
    context: &Context,
    args: &RunArgs,
    folder: &Folder,
) -> Result<Selection, CommandError> {
    let Some(record) = &folder.record else {
        return Selection::new(&args.selection, &context.environment);
    };
    let mut selection = if args.selection.sources.probes_from.is_empty() {
        let mut files = Vec::new();
        for probe in &record.probes {
            let path = karat_engine::runfolder::component_path(&folder.path, &probe.digest)
                .usage(format!("{} names a probe badly", folder.path.display()))?;
            // Probes that were left out are not kept.
            if path.is_file() {
                files.push(path);
            }
        }
        let probes = Probes::load(&files)?;
        for probe in probes.iter() {
            let known = record
                .probes
                .iter()
                .any(|known| known.digest == probe.digest);
            if !known {
                return Err(CommandError::usage(anyhow!(
                    "{} is not the probe that ran: its digest is {}",
                    probe.origin,
                    probe.digest
                )));
            }
        }
        Selection::with_probes(&args.selection, probes)?
    } else {
        Selection::new(&args.selection, &context.environment)?
    };
    if args.selection.reach.is_none() {
        selection.reach = record.reach;
    }
    // A run that began with a witness goes on with it.
    selection.witness |= is_there(&folder.path);
    Ok(selection)
}

fn nothing_to_run(made: &Made) -> CommandError {
    let error = CommandError::usage(anyhow!("there is nothing to run"));
    made.plan
        .left_out
        .iter()
        .fold(error, |error, left| match &left.why {
            LeftOutWhy::Reach(reach) => error.hint(format!(
                "{} needs more reach: add --reach {reach}",
                left.probe
            )),
            LeftOutWhy::NotGranted(refusal) | LeftOutWhy::NoImage(refusal) => {
                error.hint(format!("{} is denied: {refusal}", left.probe))
            }
        })
}

/// How this run is kept apart from others.
fn lock(args: &RunArgs) -> Lock {
    match args.lock {
        LockArg::None => Lock::None,
        LockArg::Lease => Lock::Lease(LeaseOptions {
            wait: args.wait.unwrap_or_default(),
            ..LeaseOptions::default()
        }),
    }
}

/// Whose doing an error of a run is.
fn describe(error: Broken, signalled: Option<Exit>, folder: &Path) -> CommandError {
    if let (Some(exit), Broken::Run(RunError::StoppedWaiting { .. })) = (signalled, &error) {
        return CommandError::stopped_because(exit, error);
    }
    if let Some(exit) = signalled {
        return CommandError::stopped_because(exit, error).hint(format!(
            "`karat clean {}` removes what is left",
            folder.display()
        ));
    }
    let error = match error {
        Broken::Run(error) => error,
        error @ Broken::LeftAsItIs => return CommandError::environment(error),
    };
    match &error {
        RunError::Folder(FolderError::Io { .. }) => {
            CommandError::environment(error).doing("cannot write the output folder")
        }
        RunError::Folder(_) => CommandError::usage(error).doing("cannot use the output folder"),
        RunError::Changed { .. } => CommandError::usage(error),
        RunError::Defect(_) => CommandError::bug(error),
        RunError::Identity { .. } | RunError::Prepare(_) => CommandError::environment(error)
            .hint("`karat plan` says what this account may not do, and prints the RBAC for it"),
        RunError::Held { holder, own, .. } => {
            let advice = if *own {
                "let it end, or stop it where it runs, and continue the run then".to_owned()
            } else {
                format!(
                    "wait for it with `--wait 30m`. A run that died is taken over {} s after its last sign of life, also with --wait; \
                     `karat clean --run-id {}` removes what it left",
                    holder.duration.as_secs(),
                    shown_within(&holder.run, 40)
                )
            };
            CommandError::environment(error).hint(advice)
        }
        RunError::Lock { forbidden: true, .. } => CommandError::environment(error).hint(
            "`karat plan` prints the RBAC for it; with `--lock none` the run goes without, and you see to it that no other one is going",
        ),
        RunError::LockLost { .. } => CommandError::environment(error).hint(format!(
            "the rest: karat run --out {} --resume",
            folder.display()
        )),
        RunError::Lock { .. }
        | RunError::StoppedWaiting { .. }
        | RunError::Journal(_)
        | RunError::Randomness(_)
        | RunError::StoppedNow { .. } => CommandError::environment(error),
    }
}

/// What was written, for the last lines.
fn files(folder: &Path) -> Vec<String> {
    let name = folder.display();
    vec![
        format!(
            "written to {name}: run.json (the record), probes/ (recordings), components/ (the probes as they ran),"
        ),
        "  journal.jsonl (what was created; it holds the run's key, so keep it private)".to_owned(),
        format!("the verdicts again, offline: karat replay {name}"),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Cli, Command};
    use crate::env::Environment;
    use crate::ui::printer::Verbosity;
    use crate::ui::samples::{component, probe_record, run_record};
    use clap::Parser as _;
    use karat_engine::model::Verdict;

    fn args(line: &[&str]) -> RunArgs {
        let cli = Cli::try_parse_from(["karat", "run"].iter().chain(line)).unwrap();
        match cli.command {
            Command::Run(args) => args,
            _ => unreachable!(),
        }
    }

    fn text(error: &CommandError) -> String {
        error.lines(Paint::Never).join("\n")
    }

    fn attempt(line: &[&str]) -> CommandError {
        let (printer, _) = Printer::captured(Verbosity::Normal);
        let context = Context {
            printer,
            environment: Environment::fixed(&[]),
        };
        execute(&context, &args(line)).unwrap_err()
    }

    #[test]
    fn without_a_terminal_consent_must_be_given() {
        let error = attempt(&[]);
        assert_eq!(error.exit().code(), 3);
        insta::assert_snapshot!(text(&error), @r"
        error: there is no terminal on which the plan could be shown and accepted
          hint: add --yes to start without asking; `karat plan` shows what a run would do
        ");
    }

    #[test]
    fn too_little_reach_says_how_much_is_needed() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.wasm");
        std::fs::write(&file, component("a", "0.1.0")).unwrap();
        let error = attempt(&["--yes", "--probes-from", file.to_str().unwrap()]);
        assert_eq!(error.exit().code(), 3);
        insta::assert_snapshot!(text(&error), @r"
        error: there is nothing to run
          hint: a needs more reach: add --reach cluster-objects
        ");
    }

    #[test]
    fn a_folder_is_not_run_over() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().to_str().unwrap();
        std::fs::write(folder.path().join(RUN_FILE), "{}").unwrap();
        let error = Folder::choose(&args(&["--out", path])).unwrap_err();
        assert!(text(&error).contains("holds a run already"));
        assert!(text(&error).contains("--rerun failed"));
    }

    #[test]
    fn the_newest_run_is_continued() {
        let runs = tempfile::tempdir().unwrap();
        for name in ["20260101T000000Z", "20260102T000000Z", "20260103T000000Z"] {
            std::fs::create_dir(runs.path().join(name)).unwrap();
        }
        for name in ["20260101T000000Z", "20260102T000000Z"] {
            std::fs::write(runs.path().join(name).join(RUN_FILE), "{}").unwrap();
        }
        assert_eq!(
            newest(runs.path()).unwrap(),
            runs.path().join("20260102T000000Z")
        );
        assert!(newest(&runs.path().join("absent")).is_err());
    }

    #[test]
    fn a_continued_run_needs_its_record() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().to_str().unwrap();
        let error = Folder::choose(&args(&["--resume", "--out", path])).unwrap_err();
        assert!(text(&error).contains("there is no run record"));
        let record = run_record(vec![probe_record(
            "a",
            Some(Verdict::Pass),
            Outcome::Concluded,
        )]);
        std::fs::write(
            folder.path().join(RUN_FILE),
            serde_json::to_vec(&record).unwrap(),
        )
        .unwrap();
        let chosen = Folder::choose(&args(&["--rerun", "failed", "--out", path])).unwrap();
        assert_eq!(chosen.mode, Mode::RerunFailed);
        assert_eq!(chosen.record, Some(record));
    }
}
