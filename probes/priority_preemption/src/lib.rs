//! `priority_preemption`: a pod of higher priority displaces exactly one of lower priority, orderly; one that may not displace
//! anybody waits.
//!
//! Only pods of this run can give way: their classes lie at -1000 and -900, and the probe does not start on a node where
//! somebody has less. Read in this order: `room` (which node, which units), `crew` (classes, pods), `waits` (the negative), `preempts`
//! (its control), `after` (what is seen when it is over). `README.md` says what a pass is worth.

mod after;
mod crew;
mod preempts;
mod room;
#[cfg(test)]
mod tests;
mod waits;

karat_sdk::manifest!();

use karat_sdk::{Probe, Result, run};
use manifest::{cases, namespaces};

struct PriorityPreemption;

impl Probe for PriorityPreemption {
    fn check() -> Result<()> {
        let namespace = run::namespace(namespaces::MAIN)?;
        let mut found = None;
        cases::ROOM.check("", |case| room::find(case, &mut found))?;
        let Some(room) = found else {
            return Ok(());
        };
        if !cases::CLASSES.check("", crew::classes)?.is_pass() {
            return Ok(());
        }
        let mut filled = None;
        cases::FILLED.check("", |case| crew::fill(case, &room, &namespace, &mut filled))?;
        let Some(crew) = filled else {
            return Ok(());
        };
        // The negative first: afterwards the room is not as full as it was.
        let calm = cases::NEVER_WAITS.check("", |case| waits::check(case, &room, &crew))?;
        if !calm.is_pass() {
            return Ok(());
        }
        let mut seen = None;
        let passed =
            cases::PREEMPTS.check("", |case| preempts::check(case, &room, &crew, &mut seen))?;
        let Some(seen) = seen.filter(|_| passed.is_pass()) else {
            return Ok(());
        };
        cases::ORDERLY.check("", |case| after::orderly(case, &crew, &seen))?;
        if crew.budget.is_some() {
            cases::BUDGET.check("", |case| after::budget(case, &crew, &seen))?;
        }
        if room.devices.is_some() && !seen.victims.is_empty() {
            cases::DEVICE.check("", |case| after::device(case, &room, &crew, &seen))?;
        }
        Ok(())
    }
}

karat_sdk::probe!(PriorityPreemption);
