//! `karat clean`: removes what an interrupted run left, by its journal or, without one, by the seals on the cluster. What
//! would go is listed first; deletions carry the uid, so another object of the same name stays.

use super::plan::connect;
use super::{Context, block_on};
use crate::args::CleanArgs;
use crate::exit::Exit;
use crate::settings::connect_options;
use crate::ui::diagnostics::{Classify as _, CommandError, CommandResult};
use crate::ui::printer::{Paint, Printer, Style};
use crate::ui::text::{counted, shown, shown_within};
use crate::ui::verdicts::push_wrapped;
use anyhow::anyhow;
use jiff::Timestamp;
use karat_engine::clean::{
    CleanError, CleanPlan, CleanSource, SealFilter, execute as remove, plan_clean,
};
use karat_engine::cluster::Cluster;
use karat_engine::journal::ObjectRef;
use karat_engine::run_lease::is_alive;
use karat_engine::runfolder::JOURNAL_FILE;
use karat_engine::sandbox::remove::Options;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// How long the removal may take: namespaces with volumes and load balancers need minutes.
const PATIENCE: Duration = Duration::from_secs(300);

/// Cleans.
pub(crate) fn execute(context: &Context, args: &CleanArgs) -> CommandResult {
    let printer = &context.printer;
    if !args.yes && !args.dry_run && !printer.is_interactive() {
        return Err(CommandError::usage(anyhow!(
            "there is no terminal on which the list could be shown and accepted"
        ))
        .hint("add --yes to remove without asking, or --dry-run to only list"));
    }
    let source = source(args)?;
    let options = connect_options(&args.cluster)?;
    block_on(async {
        let cluster = connect(options).await?;
        let place = match cluster.context() {
            Some(context) => format!("{} (context {})", cluster.server(), shown(context)),
            None => cluster.server().to_owned(),
        };
        printer.status(&format!("looking at {place}"));
        let mut plan = plan_clean(&cluster, &source).await.map_err(describe)?;
        let mut going = None;
        if !args.dry_run && !args.force {
            going = set_aside(&cluster, printer, &mut plan).await?;
        }
        // What is set aside has its own last word.
        if going.is_none() || !plan.is_empty() {
            printer.data_lines(lines(&plan, Timestamp::now(), printer.out_paint()));
        }
        if args.dry_run || plan.is_empty() {
            return going.map_or(Ok(Exit::Passed), Err);
        }
        if !args.yes && !printer.ask("remove all of this?") {
            return Err(CommandError::stopped(Exit::Usage, "nothing was removed"));
        }
        let last = AtomicUsize::new(usize::MAX);
        let progress = |remaining: usize, example: &ObjectRef| {
            // Only news: the same number may be told many times.
            if last.swap(remaining, Ordering::Relaxed) != remaining {
                let example = shown_within(&example.to_string(), 150);
                printer.status(&format!("{} left: {example}", counted(remaining, "object")));
            }
        };
        let removed = remove(
            &cluster,
            &plan,
            Options {
                patience: PATIENCE,
                progress: &progress,
            },
        )
        .await;
        printer.data(&format!("removed {}", counted(removed.gone, "object")));
        if removed.left.is_empty() {
            return going.map_or(Ok(Exit::Passed), Err);
        }
        let list: Vec<String> = removed.left.iter().map(ToString::to_string).collect();
        Err(CommandError::environment(anyhow!(
            "{} could not be removed:\n{}",
            counted(removed.left.len(), "object"),
            list.join("\n")
        ))
        .hint("look at the finalizers and conditions named above, then run `karat clean` again"))
    })?
}

/// Takes a run out of the plan whose Lease lives, with the error that says so. One Lease is in a cluster, so one run at most.
async fn set_aside(
    cluster: &Cluster,
    printer: &Printer,
    plan: &mut CleanPlan,
) -> Result<Option<CommandError>, CommandError> {
    let found = plan
        .runs
        .iter()
        .enumerate()
        .find_map(|(at, run)| run.lease.clone().map(|lease| (at, lease)));
    let Some((at, lease)) = found else {
        return Ok(None);
    };
    let (run, seconds) = (
        shown_within(&lease.holder.run, 40),
        lease.holder.duration.as_secs(),
    );
    printer.status(&format!(
        "run {run} holds the cluster's Lease; watching for up to {seconds} s whether it renews it (--force does not look)"
    ));
    let alive = is_alive(cluster, &lease)
        .await
        .environment("cannot see whether the run is still going")?;
    if !alive {
        return Ok(None);
    }
    plan.runs.remove(at);
    Ok(Some(
        CommandError::environment(anyhow!(
            "run {run} is still going: it renews its Lease default/karat-run; nothing of it was touched"
        ))
        .hint("let it end, or stop it where it runs; `--force` removes what it has made all the same"),
    ))
}

fn source(args: &CleanArgs) -> Result<CleanSource, CommandError> {
    let Some(folder) = &args.run else {
        return Ok(CleanSource::Seals(SealFilter {
            run: args.run_id.clone(),
            expired: args.expired,
            older_than: None,
        }));
    };
    let journal = folder.join(JOURNAL_FILE);
    if !journal.is_file() {
        return Err(
            CommandError::usage(anyhow!("there is no journal {}", journal.display()))
                .hint("give the output folder of a run; without one, `karat clean` goes by the seals on the cluster"),
        );
    }
    Ok(CleanSource::Journal(journal))
}

fn describe(error: CleanError) -> CommandError {
    match error {
        CleanError::Journal(_) | CleanError::OtherCluster { .. } => {
            CommandError::usage(error).doing("cannot clean by this journal")
        }
        CleanError::Api { .. } => {
            CommandError::environment(error).doing("cannot look for what is left")
        }
    }
}

fn lines(plan: &CleanPlan, now: Timestamp, paint: Paint) -> Vec<String> {
    let mut out = Vec::new();
    for run in plan.runs.iter().filter(|run| !run.targets.is_empty()) {
        let began = if run.began.is_empty() {
            String::new()
        } else {
            format!(", begun {}", shown_within(&run.began, 40))
        };
        let name = paint.paint(
            Style::Strong,
            &format!("run {}", shown_within(&run.run, 40)),
        );
        out.push(format!(
            "{name}{began}: {}",
            counted(run.targets.len(), "object")
        ));
        if run.lease.is_some() {
            let text = "  it holds the cluster's Lease, so it may still be going";
            out.push(paint.paint(Style::Unsure, text));
        } else if run.may_be_alive(now) {
            let text = format!(
                "its time is not up before {}: it may still be going, perhaps on another machine",
                shown_within(&run.expires, 40)
            );
            out.push(paint.paint(Style::Unsure, &format!("  {text}")));
        }
        for target in &run.targets {
            out.push(format!("  {}", shown(&target.object.to_string())));
        }
    }
    if plan.is_empty() {
        out.push("nothing is left to remove".to_owned());
    }
    if !plan.left_alone.is_empty() {
        out.push("left alone:".to_owned());
        for left in &plan.left_alone {
            let text = format!("{}: {}", shown(&left.object.to_string()), shown(&left.why));
            push_wrapped(&mut out, "  ", &text);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Cli, Command};
    use crate::env::Environment;
    use crate::ui::printer::Verbosity;
    use crate::ui::samples::HOSTILE;
    use clap::Parser as _;
    use karat_engine::sandbox::remove::Left;

    fn args(line: &[&str]) -> CleanArgs {
        let cli = Cli::try_parse_from(["karat", "clean"].iter().chain(line)).unwrap();
        match cli.command {
            Command::Clean(args) => args,
            _ => unreachable!(),
        }
    }

    #[test]
    fn without_a_terminal_consent_must_be_given() {
        let (printer, _) = Printer::captured(Verbosity::Normal);
        let context = Context {
            printer,
            environment: Environment::fixed(&[]),
        };
        let error = execute(&context, &args(&[])).unwrap_err();
        assert_eq!(error.exit().code(), 3);
        assert!(error.lines(Paint::Never).join("\n").contains("--dry-run"));
    }

    #[test]
    fn a_folder_without_a_journal_says_what_else_can_be_done() {
        let folder = tempfile::tempdir().unwrap();
        let error = source(&args(&[folder.path().to_str().unwrap()])).unwrap_err();
        assert!(
            error
                .lines(Paint::Never)
                .join("\n")
                .contains("by the seals on the cluster")
        );
    }

    #[test]
    fn seals_can_be_narrowed() {
        let CleanSource::Seals(filter) =
            source(&args(&["--run-id", "k7f2mq3a", "--expired"])).unwrap()
        else {
            panic!("not by seals")
        };
        assert_eq!(filter.run.as_deref(), Some("k7f2mq3a"));
        assert!(filter.expired);
    }

    #[test]
    fn hostile_objects_stay_on_their_line() {
        let plan = CleanPlan {
            runs: Vec::new(),
            left_alone: vec![Left {
                object: ObjectRef {
                    group: String::new(),
                    version: "v1".to_owned(),
                    resource: "configmaps".to_owned(),
                    namespace: String::new(),
                    name: HOSTILE.to_owned(),
                },
                why: HOSTILE.to_owned(),
            }],
        };
        let lines = lines(&plan, Timestamp::UNIX_EPOCH, Paint::Never);
        assert_eq!(lines[0], "nothing is left to remove");
        for line in lines {
            assert!(
                !line.chars().any(|c| c.is_control() || c == '\u{202e}'),
                "{line:?}"
            );
        }
    }
}
