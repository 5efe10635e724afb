//! `resource_reclamation`: a whole accelerator is free again after every kind of end of the pod that held it.
//!
//! Each case is the same story with another end: a pod gets a unit, ends, and within the declared time as many units are free as
//! before, nothing names the dead pod, and a new pod gets the same unit. Read in this order: `place` (which unit, how it is
//! counted), `story` (from the beginning to the heir), `ends` (how pods end). Memory and fractions are left to hardware.

mod ends;
mod place;
mod story;
#[cfg(test)]
mod tests;

karat_sdk::manifest!();

use ends::End;
use karat_sdk::{CaseId, Conclusion, Probe, Result, log, run};
use manifest::{cases, namespaces};

struct ResourceReclamation;

impl Probe for ResourceReclamation {
    fn check() -> Result<()> {
        let namespace = run::namespace(namespaces::MAIN)?;
        let mut found = None;
        cases::BASELINE.check("", |case| place::find(case, &namespace, &mut found))?;
        let Some(place) = found else {
            return Ok(());
        };
        let mut wanted: Vec<(CaseId, End)> = vec![
            (cases::SUCCESS, End::Success),
            (cases::DELETION, End::Deletion),
            (cases::EVICTION, End::Eviction),
            (cases::OWNER, End::Owner),
        ];
        let others = [End::Failure, End::Deadline];
        // A real kubelet brings about every end; on a played node it depends on the play.
        let possible = if place.node.played {
            ends::played(&place, &others)?
        } else {
            others.to_vec()
        };
        for (case, end) in [cases::FAILURE, cases::DEADLINE].into_iter().zip(others) {
            if possible.contains(&end) {
                wanted.push((case, end));
            } else {
                log::info(format!(
                    "{} is not exercised: the played node does not play this end",
                    case.as_str()
                ));
            }
        }
        for (case, end) in wanted {
            // A unit that was lost is missing in every later count.
            if case.check("", |case| story::tell(case, &place, end))? != Conclusion::Pass {
                return Ok(());
            }
        }
        if place.device().is_some() {
            cases::ORPHANS.check("", |case| story::orphans(case, &place))?;
        }
        cases::FORCED.check("", |case| story::tell(case, &place, End::Forced))?;
        Ok(())
    }
}

karat_sdk::probe!(ResourceReclamation);
