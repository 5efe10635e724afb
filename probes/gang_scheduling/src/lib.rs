//! `gang_scheduling` (KAR-53): with one installed solution, a group of pods starts together when all of them fit, and none of
//! them starts when one place is missing.
//!
//! This file picks a solution and takes the steps of `karat_gang` in their order; what they do and what they refuse to conclude
//! is written there. `README.md` says what a pass is worth.

#[cfg(test)]
mod tests;

karat_sdk::manifest!();

use karat_gang::room;
use karat_gang::upstream::{self, Served};
use karat_gang::{Gang, Room, Upstream, Version, Waits};
use karat_sdk::discovery::Discovery;
use karat_sdk::leases::Lease;
use karat_sdk::{Case, CaseId, Conclusion, Probe, Query, Reason, Result, run};
use manifest::{cases, images, namespaces, settings};
use std::time::Duration;

/// How long nothing must start. As in the manifest.
const QUIET: Duration = Duration::from_secs(30);

struct GangScheduling;

impl Probe for GangScheduling {
    fn check() -> Result<()> {
        let namespace = run::namespace(namespaces::MAIN)?;
        let mut found = None;
        let said = cases::SOLUTION.check("", |case| {
            let discovery = Discovery::read()?;
            let (conclusion, version) = solution(case, &discovery, &namespace)?;
            found = version.map(|version| (version, discovery));
            Ok(conclusion)
        })?;
        let Some((version, discovery)) = found.filter(|_| said.is_pass()) else {
            return without(
                &said,
                &[
                    cases::ROOM,
                    cases::TOGETHER,
                    cases::NONE_STARTS,
                    cases::RELEASED,
                ],
            );
        };

        let mut room = None;
        let mut lease = None;
        let said = cases::ROOM.check("", |case| {
            let lease = lease.insert(room::lease()?);
            Ok(match Room::find(&discovery, &namespace, lease)? {
                Ok(found) => {
                    found.show(case);
                    room = Some(found);
                    Conclusion::Pass
                }
                Err((reason, text)) => Conclusion::unknown(reason, text),
            })
        })?;
        let Some(room) = room.filter(|_| said.is_pass()) else {
            return without(
                &said,
                &[cases::TOGETHER, cases::NONE_STARTS, cases::RELEASED],
            );
        };

        let adapter = Upstream::new(version, &namespace);
        let gang = Gang {
            adapter: &adapter,
            room,
            namespace,
            image: run::image(images::SHELL)?,
            waits: Waits {
                start: settings::START_WAIT.get_or(Duration::from_secs(300))?,
                rejection: settings::REJECTION_WAIT.get_or(Duration::from_secs(60))?,
                quiet: QUIET,
                release: settings::RELEASE_WAIT.get_or(Duration::from_secs(120))?,
            },
        };
        steps(&gang)?;
        lease.map_or(Ok(()), Lease::release)
    }
}

/// The steps in their order. Each rests on the one before, so the first that does not hold ends them.
fn steps(gang: &Gang<'_>) -> Result<()> {
    let said = cases::TOGETHER.check("", |case| gang.together(case))?;
    if !said.is_pass() {
        return without(&said, &[cases::NONE_STARTS, cases::RELEASED]);
    }
    let mut held = None;
    let said = cases::NONE_STARTS.check("", |case| gang.none_starts(case, &mut held))?;
    let Some(held) = held.filter(|_| said.is_pass()) else {
        return without(&said, &[cases::RELEASED]);
    };
    let said = cases::RELEASED.check("", |case| gang.released(case, &held))?;
    if said.is_pass() {
        cases::DEADLOCK.check("", |case| gang.deadlock(case))?;
        cases::FRAGMENTATION.check("", |case| gang.fragmented(case))?;
    }
    Ok(())
}

/// Which solution is installed. Kueue, Volcano, KAI and coscheduling are not spoken yet and not looked for.
fn solution(
    case: &Case,
    discovery: &Discovery,
    namespace: &str,
) -> Result<(Conclusion, Option<Version>)> {
    case.observe("server version", &discovery.version().git_version);
    Ok(match upstream::served(discovery) {
        Served::Known(version) => {
            let groups = Query::new(&version.api_version(), "podgroups").in_namespace(namespace);
            groups.list()?;
            case.observe("solution", "Workload API");
            case.observe("version used", version.as_str());
            (Conclusion::Pass, Some(version))
        }
        Served::Unknown(versions) => {
            let text = format!(
                "scheduling.k8s.io has workloads only in {versions}, which this probe does not know; use another release of it"
            );
            (Conclusion::unknown(Reason::VersionSkew, text), None)
        }
        Served::Absent => {
            let text = "no gang scheduling solution that this probe knows is installed; install one, such as the Workload API of Kubernetes 1.36 or later (scheduling.k8s.io, feature gate GenericWorkload)";
            (Conclusion::unknown(Reason::SolutionAbsent, text), None)
        }
    })
}

/// Cases that cannot be tried say so themselves, so that a reader need not guess.
fn without(said: &Conclusion, ids: &[CaseId]) -> Result<()> {
    let (reason, why) = match said {
        Conclusion::Unknown(reason, text) => (*reason, text.as_str()),
        Conclusion::Fail(text) | Conclusion::NotApplicable(text) => {
            (Reason::Deadline, text.as_str())
        }
        Conclusion::Pass => (Reason::Deadline, "nothing was found"),
    };
    for id in ids {
        id.open("")?.unknown(reason, format!("not tried: {why}"))?;
    }
    Ok(())
}

karat_sdk::probe!(GangScheduling);
