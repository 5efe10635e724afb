//! Sets that come to an end: by their success policy, after a restart, without one, and in order.

use crate::sets::{DRIVER, PORT, Sets, WORKERS};
use crate::story::{End, Story};
use karat_sdk::admission::is_unknown_field;
use karat_sdk::{Case, Conclusion, Reason, Result, Value, json, run};
use std::time::Duration;

/// A replicated job that others wait for.
const BEFORE: &str = "before";
/// The one that waits.
const AFTER: &str = "after";
/// How long nothing more may happen to a set that gave up, and how long news of a set that ended may be late.
const CALM: Duration = Duration::from_secs(5);

/// Creates a set and follows it to its end, or for as long as its pods may take.
fn follow(
    case: &Case,
    sets: &Sets,
    prefix: &str,
    jobs: Value,
    more: Value,
) -> Result<(String, Story)> {
    let name = run::name(prefix);
    let mut story = Story::open(sets, &name)?;
    let set = sets.create(&name, jobs, more)?;
    case.observe("set", set.uid());
    // Pods start, and end, within the one time; JobSet acts within the other.
    story.until(sets.pods, |story| {
        story.end().is_some() || is_last_word(story)
    })?;
    story.until(sets.step, |story| story.end().is_some())?;
    for uid in story.uids() {
        case.observe("Job", uid);
    }
    Ok((name, story))
}

/// Whether a Job has ended and JobSet has to act.
fn is_last_word(story: &Story) -> bool {
    [DRIVER, WORKERS, BEFORE].into_iter().any(|of| {
        let mut jobs = story.jobs_of(of);
        jobs.any(|job| job.failed || job.complete)
    })
}

/// Of a set whose pods did not come as far as the claim needs.
fn no_end(story: &Story) -> Conclusion {
    let text = if story.uids().next().is_some() {
        "no pod of the set came to its end in time"
    } else {
        "the set has no Jobs"
    };
    Conclusion::unknown(Reason::Deadline, text)
}

/// The driver ends once a worker has answered, and with it the set; the workers would go on for ever.
pub(crate) fn succeeds(case: &Case, sets: &Sets) -> Result<Conclusion> {
    let name = run::name("first");
    let port = PORT.to_string();
    let answer = [
        "http=http://",
        &name,
        "-",
        WORKERS,
        "-0-0.",
        &name,
        ":",
        &port,
        "/",
    ]
    .concat();
    let jobs = json!([
        sets.job(DRIVER, 1, &["look", &answer]),
        sets.job(WORKERS, 2, &["echo", &port]),
    ]);
    let policy = json!({"successPolicy": {"operator": "All", "targetReplicatedJobs": [DRIVER]}});
    let (name, mut story) = follow(case, sets, "first", jobs, policy)?;
    let ended = |story: &Story| story.jobs_of(DRIVER).any(|job| job.complete);
    let conclusion = match story.end() {
        Some(End::Failed) => Conclusion::fail("the set failed, although none of its pods did"),
        None if ended(&story) => Conclusion::fail(
            "the driver has ended well, and the set is not Completed: its success policy was not followed",
        ),
        None => no_end(&story),
        Some(End::Completed) if !story.until(CALM, ended)? => {
            Conclusion::fail("the set is Completed, and its driver had not ended")
        }
        Some(End::Completed) => {
            let gone = |story: &Story| story.jobs_of(WORKERS).all(|job| job.gone);
            if story.until(sets.step, gone)? {
                Conclusion::Pass
            } else {
                Conclusion::fail("the set is Completed, and its workers were not ended")
            }
        }
    };
    finish(sets, &name, story)?;
    Ok(conclusion)
}

/// The only worker fails in the first attempt.
pub(crate) fn restarts(case: &Case, sets: &Sets) -> Result<Conclusion> {
    let jobs = json!([
        sets.job(DRIVER, 1, &["sleep", "forever"]),
        sets.fails_once(WORKERS),
    ]);
    let policies = json!({
        "failurePolicy": {"maxRestarts": 3},
        "successPolicy": {"operator": "All", "targetReplicatedJobs": [WORKERS]},
    });
    let (name, mut story) = follow(case, sets, "again", jobs, policies)?;
    if story.end().is_none() {
        // The second attempt needs its pods, too.
        story.until(sets.pods, |story| story.end().is_some())?;
    }
    let failed = |story: &Story| {
        let mut jobs = story.jobs_of(WORKERS);
        jobs.any(|job| job.attempt == "0" && job.failed)
    };
    let twice = |story: &Story, of: &str| {
        let has = |attempt: &str| story.jobs_of(of).any(|job| job.attempt == attempt);
        has("0") && has("1")
    };
    let restarts = story.restarts();
    case.observe("restarts", restarts);
    let conclusion = match story.end() {
        Some(End::Completed) => {
            let both = story.until(CALM, |story| twice(story, DRIVER) && twice(story, WORKERS))?;
            if restarts != 1 {
                Conclusion::fail(format!(
                    "the set is Completed after one restart, and says {restarts}"
                ))
            } else if both {
                Conclusion::Pass
            } else {
                Conclusion::fail("the worker failed once, and not the whole set was made anew")
            }
        }
        Some(End::Failed) => Conclusion::fail(format!(
            "a worker failed once, and the set failed with it after {restarts} restarts in place of 3"
        )),
        None if !failed(&story) => no_end(&story),
        None if !twice(&story, WORKERS) => {
            Conclusion::fail("a worker failed, and the set was not restarted")
        }
        None if story.jobs_of(WORKERS).any(|job| job.complete) => Conclusion::fail(
            "after the restart the worker has ended well, and the set is not Completed",
        ),
        None => no_end(&story),
    };
    finish(sets, &name, story)?;
    Ok(conclusion)
}

/// A worker fails, and nothing comes after it.
pub(crate) fn gives_up(case: &Case, sets: &Sets) -> Result<Conclusion> {
    let jobs = json!([sets.job(WORKERS, 1, &["exit", "1"])]);
    let policy = json!({"failurePolicy": {"maxRestarts": 0}});
    let (name, mut story) = follow(case, sets, "never", jobs, policy)?;
    let again = |story: &Story| {
        let again = story.jobs_of(WORKERS).any(|job| job.attempt != "0");
        again || story.restarts() > 0
    };
    let more = story.until(CALM, again)?;
    let failed = story.jobs_of(WORKERS).any(|job| job.failed);
    let restarts = story.restarts();
    case.observe("restarts", restarts);
    let conclusion = match story.end() {
        _ if more => Conclusion::fail(format!(
            "the set may not restart, and did so {restarts} times"
        )),
        Some(End::Failed) => Conclusion::Pass,
        Some(End::Completed) => {
            Conclusion::fail("its only worker failed, and the set is Completed")
        }
        None if failed => Conclusion::fail("its only worker failed, and the set is not Failed"),
        None => no_end(&story),
    };
    finish(sets, &name, story)?;
    Ok(conclusion)
}

/// The second job is created when the first is over.
pub(crate) fn waits(case: &Case, sets: &Sets) -> Result<Conclusion> {
    let mut after = sets.job(AFTER, 1, &["sleep", "1"]);
    after["dependsOn"] = json!([{"name": BEFORE, "status": "Complete"}]);
    let jobs = json!([sets.job(BEFORE, 1, &["sleep", "1"]), after]);
    let name = run::name("order");
    let mut story = Story::open(sets, &name)?;
    let set = match sets.create(&name, jobs, json!({})) {
        Err(error) if is_unknown_field(&error) => {
            let text = "this release of JobSet knows no dependsOn";
            return Ok(Conclusion::unknown(Reason::VersionSkew, text));
        }
        set => set?,
    };
    case.observe("set", set.uid());
    let mut early = false;
    let ends = story.until(sets.pods + sets.step, |story| {
        let over = story.jobs_of(BEFORE).any(|job| job.complete);
        early |= !over && story.jobs_of(AFTER).next().is_some();
        early || story.end().is_some()
    })?;
    for uid in story.uids() {
        case.observe("Job", uid);
    }
    let conclusion = match story.end() {
        _ if story.has_gap => Conclusion::unknown(
            Reason::Deadline,
            "the watch had a gap, so the order is not known",
        ),
        _ if early => Conclusion::fail("the second job was created before the first was Complete"),
        Some(End::Completed) => Conclusion::Pass,
        Some(End::Failed) => Conclusion::fail("the set failed, although none of its pods did"),
        None if !ends
            && story.jobs_of(BEFORE).any(|job| job.complete)
            && story.jobs_of(AFTER).next().is_none() =>
        {
            Conclusion::fail("the first job is Complete, and the second was never created")
        }
        None => no_end(&story),
    };
    finish(sets, &name, story)?;
    Ok(conclusion)
}

/// Takes a set away and ends its story.
fn finish(sets: &Sets, name: &str, story: Story) -> Result<()> {
    story.close();
    sets.target().discard(name, None)
}
