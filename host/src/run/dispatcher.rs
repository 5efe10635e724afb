//! Starts attempts in the order of the plan, so many at one time, and puts their ends in order: run record, run head, events.
//! It alone writes the record. Stopping ends in the same place as finishing: nothing of the run is left unsaid.

use super::executor::{self, not_started};
use super::prepare::{Prepared, Work};
use super::{Context, PARALLEL_MAX, RunError};
use crate::bundle;
use crate::event::RunEventKind;
use crate::gate::StopSignal;
use crate::lease::{Leases, graph};
use crate::manifest::Manifest;
use crate::model::{AttemptRecord, LeaseRecord, Outcome, RunRecord};
use crate::recording::sha256_hex;
use crate::runfolder::RunHead;
use crate::witness::keeper::{About, Keeper};
use jiff::Timestamp;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// Runs all the work and closes the run.
pub(super) async fn dispatch(prepared: Prepared) -> Result<RunRecord, RunError> {
    let Prepared {
        context,
        record,
        head,
        work,
        parallel,
        stop_now,
        held,
        mut witness,
    } = prepared;
    let context = Arc::new(context);
    let mut book = Book { record, head };
    context.events.send(RunEventKind::RunStarted {
        run: book.record.run.clone(),
        probes: work
            .iter()
            .map(|work| work.probe.manifest().id.clone())
            .collect(),
    });
    let mut waiting = VecDeque::from(work);
    let manifests: Vec<Arc<Manifest>> = waiting
        .iter()
        .map(|work| Arc::new(work.probe.manifest().clone()))
        .collect();
    let began = Instant::now();
    let mut times: Vec<(String, Duration)> = Vec::new();
    let mut running: JoinSet<(usize, AttemptRecord, (String, Duration))> = JoinSet::new();
    let parallel = parallel.clamp(1, PARALLEL_MAX);
    let mut trouble: Option<RunError> = None;
    loop {
        while running.len() < parallel && !context.stop.is_stopping() && trouble.is_none() {
            let Some(Work { place, probe, .. }) = waiting.pop_front() else {
                break;
            };
            match context.folder.new_attempt(&probe.manifest().id) {
                Ok(attempt) => {
                    let context = Arc::clone(&context);
                    running.spawn(async move {
                        let (began, id) = (Instant::now(), probe.manifest().id.clone());
                        let record = executor::attempt(context, probe, attempt).await;
                        (place, record, (id, began.elapsed()))
                    });
                }
                Err(error) => trouble = Some(error.into()),
            }
        }
        let ended = tokio::select! {
            biased;
            () = stop_now.stopped() => {
                // Their temporary files go with them; a task that cannot be ended must not hold up the program.
                let _ = tokio::time::timeout(Duration::from_secs(1), running.shutdown()).await;
                return Err(RunError::StoppedNow {
                    run: book.record.run,
                    folder: context.folder.path().to_owned(),
                });
            }
            ended = running.join_next() => ended,
        };
        match ended {
            None => break,
            Some(Ok((place, attempt, time))) => {
                times.push(time);
                let before = book.record.head.clone();
                if let Err(error) = book.add(&context, place, attempt) {
                    trouble.get_or_insert(error);
                } else if book.record.head != before {
                    let about = About::Head(&book.record.head);
                    ask(&mut witness, about, &context, &stop_now).await;
                }
            }
            // A panic of a task: what it had in hand is in the journal.
            Some(Err(error)) => {
                trouble.get_or_insert(RunError::Defect(error.to_string()));
            }
        }
    }
    book.record.leases = Some(leases(&context.leases, &manifests, &times, began.elapsed()));
    if context.stop.is_stopping() {
        for Work { place, probe, .. } in waiting {
            let attempt = context.folder.new_attempt(&probe.manifest().id)?;
            let attempt = not_started(&probe, attempt.number, Outcome::Interrupted, Vec::new());
            book.add(&context, place, attempt)?;
        }
    }
    // Before the home goes, because the last token is about all of this.
    book.record.ended = Some(Timestamp::now().to_string());
    if let Err(error) = context.folder.write_record(&book.record) {
        trouble.get_or_insert(error.into());
    }
    if witness.is_some() {
        match bundle::statement_of(context.folder.path(), &book.record) {
            Ok(statement) => {
                let digest = sha256_hex(statement.as_bytes());
                ask(&mut witness, About::Statement(&digest), &context, &stop_now).await;
            }
            Err(error) => give_up(&mut witness, &context, &error.to_string()),
        }
    }
    let mut left_behind = tokio::select! {
        biased;
        () = stop_now.stopped() => {
            return Err(RunError::StoppedNow {
                run: book.record.run,
                folder: context.folder.path().to_owned(),
            });
        }
        left_behind = context.homes.close_run() => left_behind,
    };
    let was_held = held.is_some();
    if let Some(held) = held {
        if let Some(holder) = held.lost_to() {
            trouble.get_or_insert(RunError::LockLost {
                run: book.record.run.clone(),
                holder: holder.to_owned(),
            });
        }
        left_behind.extend(held.release().await?);
    }
    if left_behind.is_empty() && (was_held || !context.homes.keep_the_journal()) {
        context.journal.closed()?;
    }
    context
        .events
        .send(RunEventKind::RunFinished { left_behind });
    match trouble {
        None => Ok(book.record),
        Some(trouble) => Err(trouble),
    }
}

/// Has the present state witnessed. A run that stops at once leaves what there is; its next part asks again.
async fn ask(
    witness: &mut Option<Keeper>,
    about: About<'_>,
    context: &Context,
    stop_now: &StopSignal,
) {
    let Some(keeper) = witness else {
        return;
    };
    let asked = tokio::select! {
        biased;
        () = stop_now.stopped() => return,
        asked = keeper.ask(about) => asked,
    };
    if let Err(cause) = asked {
        give_up(witness, context, &cause);
    }
}

fn give_up(witness: &mut Option<Keeper>, context: &Context, cause: &str) {
    if let Some(keeper) = witness.take() {
        keeper.give_up();
        context.events.send(RunEventKind::Warned {
            text: format!(
                "the run has no witness any more, because one with a hole shows nothing: {cause}"
            ),
        });
    }
}

/// What the leases made of the run.
fn leases(
    leases: &Leases,
    manifests: &[Arc<Manifest>],
    times: &[(String, Duration)],
    wall: Duration,
) -> LeaseRecord {
    let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let mut planned = graph::planned(manifests.iter().map(|manifest| &**manifest));
    planned.on_nodes(leases.known_nodes());
    let held = leases.held();
    LeaseRecord {
        held: held.len() as u64,
        planned_ms: planned.longest_ms,
        bound_ms: ms(graph::seen(times, &held, &leases.waits())),
        wall_ms: ms(wall),
    }
}

/// The record and its head, which grow together.
struct Book {
    record: RunRecord,
    head: RunHead,
}

impl Book {
    /// Adds an attempt and saves: a run that is killed now has everything that ended before.
    fn add(
        &mut self,
        context: &Context,
        place: usize,
        mut attempt: AttemptRecord,
    ) -> Result<(), RunError> {
        if let Some(head) = &attempt.head {
            attempt.folded = Some(self.head.fold(head).map_err(RunError::Defect)?);
            self.record.head = self.head.text();
        }
        if let Some(probe) = self.record.probes.get_mut(place) {
            probe.attempts.push(attempt);
        }
        context.folder.write_record(&self.record)?;
        Ok(())
    }
}
