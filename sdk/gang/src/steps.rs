//! The steps that every probe about groups takes: a group that fits starts together, a group that lacks one place does not
//! start at all, and starts when the place is free.
//!
//! One quiet window in all. Before a step becomes a fail it is counted again what is free: if others came or went, the answer
//! is `unknown (competing_workload)`.

use crate::adapter::{Adapter, Decision, Group};
use crate::room::{self, Room};
use crate::watching::{Tally, Watching};
use karat_sdk::discovery::Discovery;
use karat_sdk::leases::Lease;
use karat_sdk::settings::Setting;
use karat_sdk::wait::Deadline;
use karat_sdk::{Case, CaseId, Conclusion, Reason, Result, Target, clock, inventory, log, run};
use std::time::Duration;

/// Most pods of the group of the first step.
const SMALL: u64 = 4;
/// How long pods sleep where they shall end by themselves.
const NAP: &str = "20";
/// How long the other pods would sleep; they are deleted before.
const LONG: &str = "540";

/// How long a decision may be told later than what came of it.
const DECIDED: Duration = Duration::from_secs(5);

/// How long to wait for what.
#[derive(Clone, Copy, Debug)]
pub struct Waits {
    /// Until a group that fits runs.
    pub start: Duration,
    /// Until the solution says no.
    pub rejection: Duration,
    /// During which nothing may start.
    pub quiet: Duration,
    /// Until a group starts whose missing place is free again.
    pub release: Duration,
}

/// What a probe about groups brings from its manifest.
pub struct Needs<'a> {
    /// The case that there is room.
    pub room: CaseId,
    /// The cases that are not tried without it.
    pub rest: &'a [CaseId],
    /// Name of an image with a shell.
    pub shell: &'a str,
    /// The `quiet` of the cases in which nothing may start.
    pub quiet: Duration,
    /// Setting for [`Waits::start`].
    pub start: Setting<Duration>,
    /// Setting for [`Waits::rejection`].
    pub rejection: Setting<Duration>,
    /// Setting for [`Waits::release`].
    pub release: Setting<Duration>,
}

/// A solution, a place to use it, and what the probe has for it. Its nodes are given back when it is dropped.
pub struct Gang<'a> {
    /// The solution.
    pub adapter: &'a dyn Adapter,
    /// What is scarce.
    pub room: Room,
    /// The sandbox.
    pub namespace: String,
    /// An image with a shell.
    pub image: String,
    /// Patience.
    pub waits: Waits,
    _lease: Lease,
}

/// A group that waits for one place, and the pod that holds it.
#[derive(Clone, Debug)]
pub struct Held {
    /// The group.
    pub group: Group,
    /// Name of the pod.
    pub placeholder: String,
}

impl<'a> Gang<'a> {
    /// Takes nodes, looks for room on them and concludes the case about it. None without room; the rest has said so then.
    ///
    /// # Errors
    /// Those of the server and of the door that end no case.
    pub fn open(
        adapter: &'a dyn Adapter,
        discovery: &Discovery,
        namespace: String,
        needs: &Needs<'_>,
    ) -> Result<Option<Self>> {
        let mut room = None;
        let mut lease = None;
        let said = needs.room.check("", |case| {
            let lease = lease.insert(room::lease()?);
            let claims = adapter.takes_claims();
            Ok(match Room::find(discovery, &namespace, lease, claims)? {
                Ok(found) => {
                    found.show(case);
                    room = Some(found);
                    Conclusion::Pass
                }
                Err((reason, text)) => Conclusion::unknown(reason, text),
            })
        })?;
        let (true, Some(room), Some(lease)) = (said.is_pass(), room, lease.take()) else {
            said.leaves_untried(needs.rest)?;
            return Ok(None);
        };
        Ok(Some(Gang {
            adapter,
            room,
            namespace,
            image: run::image(needs.shell)?,
            waits: Waits {
                start: needs.start.get_or(Duration::from_secs(300))?,
                rejection: needs.rejection.get_or(Duration::from_secs(60))?,
                quiet: needs.quiet,
                release: needs.release.get_or(Duration::from_secs(120))?,
            },
            _lease: lease,
        }))
    }

    pub(crate) fn pods(&self) -> Target {
        Target::new("v1", "pods").in_namespace(&self.namespace)
    }

    /// Begins to watch the sandbox.
    ///
    /// # Errors
    /// Those of the server and of the door.
    pub fn watch(&self) -> Result<Watching<'a>> {
        Watching::begin(self.adapter, &self.namespace)
    }

    /// A group of so many pods of a size; its objects do not exist yet.
    pub fn group(&self, prefix: &str, count: u64, size: u64, nap: bool) -> Group {
        let name = run::name(prefix);
        let mut pod = self.room.pod(&name, &self.image, size, &name);
        let sleep = if nap { NAP } else { LONG };
        pod["spec"]["containers"][0]["command"] = karat_sdk::json!(["sleep", sleep]);
        Group { name, count, pod }
    }

    /// Creates group and pods; the conclusion when the cluster does not let them be a group.
    pub(crate) fn submit(&self, case: &Case, group: &Group) -> Result<Option<Conclusion>> {
        if let Some(stored) = self.adapter.create(group)?
            && stored != group.count
        {
            // No reason to stop: whether the pods start together is seen below. But a reader should know.
            case.observe("minimum asked for", group.count);
            case.observe("minimum as stored", stored);
        }
        Ok((!self.adapter.start(group)?).then(unlinked))
    }

    /// A group that fits: all of its pods run.
    ///
    /// # Errors
    /// Those of the server and of the door.
    pub fn together(&self, case: &Case) -> Result<Conclusion> {
        let count = self.room.fits().min(SMALL);
        if let Some(conclusion) = self.adapter.prepare(&self.room)? {
            return Ok(conclusion);
        }
        self.room.prepare(self.room.size)?;
        let group = self.group("together", count, self.room.size, !self.room.played);
        case.observe("pods of the group", count);
        let mut seen = self.watch()?;
        let result = match self.submit(case, &group)? {
            Some(conclusion) => conclusion,
            None => self.all_run(case, &mut seen, &group, self.waits.start)?,
        };
        let result = if result.is_pass() {
            self.was_decided(&mut seen, &group)?
        } else {
            result
        };
        let result = if result.is_pass() {
            self.all_end(case, &mut seen, &group)?
        } else {
            result
        };
        let result = self.clear(&mut seen, &[&group], &[], result)?;
        seen.close();
        Ok(result)
    }

    /// Pods that a solution lets exist run because it said so. Where it says nothing, somebody else started them.
    fn was_decided(&self, seen: &mut Watching<'_>, group: &Group) -> Result<Conclusion> {
        if !self.adapter.by_quota() {
            return Ok(Conclusion::Pass);
        }
        let said = seen.until(DECIDED, |seen| seen.decision(&group.name))?;
        Ok(match said {
            Some(_) => Conclusion::Pass,
            None => Conclusion::unknown(
                Reason::FeatureGateOff,
                format!(
                    "all pods ran, and {} decided nothing about them: it does not manage their owner in this namespace; look at its integrations and its namespace selector",
                    self.adapter.describe()
                ),
            ),
        })
    }

    /// Waits until all pods of a group run.
    ///
    /// # Errors
    /// Those of the server and of the door.
    pub fn all_run(
        &self,
        case: &Case,
        seen: &mut Watching<'_>,
        group: &Group,
        patience: Duration,
    ) -> Result<Conclusion> {
        let name = group.name.as_str();
        let done = seen.until(patience, |seen| {
            let tally = seen.tally(name);
            (tally.ran >= group.count || tally.failed > 0).then_some(tally)
        })?;
        let tally = done.unwrap_or_else(|| seen.tally(name));
        if tally.failed > 0 {
            let why = seen.members(name).find_map(|member| {
                let text = |path| member.pod.text(path).to_owned();
                (text("/status/phase") == "Failed")
                    .then(|| format!("{} {}", text("/status/reason"), text("/status/message")))
            });
            return self.room.unless_changed(format!(
                "{} of {} pods failed: {}",
                tally.failed,
                group.count,
                why.unwrap_or_default()
            ));
        }
        if done.is_some() {
            self.show_times(case, seen, group);
            return Ok(Conclusion::Pass);
        }
        self.not_running(seen, group, tally, patience)
    }

    fn not_running(
        &self,
        seen: &Watching<'_>,
        group: &Group,
        tally: Tally,
        patience: Duration,
    ) -> Result<Conclusion> {
        let seconds = patience.as_secs();
        let count = group.count;
        if tally.bound >= count {
            let waiting = seen.waiting(&group.name).unwrap_or_default();
            return Ok(Conclusion::unknown(
                inventory::reason_of(&waiting),
                format!(
                    "all {count} pods are bound, and {} run after {seconds} s {waiting}",
                    tally.ran
                ),
            ));
        }
        let decision = seen.decision(&group.name);
        if tally.bound == 0 && decision.is_none() {
            return Ok(Conclusion::unknown(
                Reason::Deadline,
                format!(
                    "nobody decided about the group within {seconds} s; is {} at work, and does it manage this namespace?",
                    self.adapter.describe()
                ),
            ));
        }
        let said = match decision {
            Some(Decision::Rejected(said) | Decision::Trouble(said))
                if !self.adapter.owns_quota() && tally.bound == 0 =>
            {
                let text = format!("the queue that was named does not let the group start: {said}");
                return Ok(Conclusion::unknown(Reason::InsufficientCapacity, text));
            }
            Some(Decision::Rejected(said) | Decision::Trouble(said)) => said,
            Some(Decision::Admitted) => "it says that the group was admitted".to_owned(),
            None => "it says nothing about the group".to_owned(),
        };
        self.room.unless_changed(format!(
            "{} pods fit, and {} of the {count} pods of the group were bound after {seconds} s; {said}",
            self.room.fits(),
            tally.bound
        ))
    }

    fn show_times(&self, case: &Case, seen: &Watching<'_>, group: &Group) {
        let spread = |times: &mut dyn Iterator<Item = Duration>| {
            let (mut first, mut last) = (Duration::MAX, Duration::ZERO);
            times.for_each(|time| {
                first = first.min(time);
                last = last.max(time);
            });
            last.saturating_sub(first).as_millis()
        };
        let name = group.name.as_str();
        let bound = spread(&mut seen.members(name).filter_map(|member| member.bound));
        let ran = spread(&mut seen.members(name).filter_map(|member| member.ran));
        case.observe("first to last binding as seen", format!("{bound} ms"));
        case.observe("first to last start as seen", format!("{ran} ms"));
        for member in seen.members(name) {
            case.observe("pod", member.pod.uid());
            case.observe("node", member.pod.text("/spec/nodeName"));
        }
    }

    /// Waits until all pods ended well, where pods end.
    fn all_end(&self, case: &Case, seen: &mut Watching<'_>, group: &Group) -> Result<Conclusion> {
        if self.room.played {
            case.observe(
                "end of the pods",
                "not waited for: played pods do not end by themselves",
            );
            return Ok(Conclusion::Pass);
        }
        let name = group.name.as_str();
        let patience = Duration::from_secs(120);
        let ended = seen.until(patience, |seen| {
            let tally = seen.tally(name);
            (tally.succeeded + tally.failed >= group.count).then_some(tally)
        })?;
        Ok(match ended {
            Some(tally) if tally.failed == 0 => {
                case.observe("pods that ended well", tally.succeeded);
                Conclusion::Pass
            }
            Some(tally) => {
                Conclusion::fail(format!("{} pods started together and failed", tally.failed))
            }
            None => Conclusion::unknown(
                Reason::Deadline,
                format!(
                    "the pods sleep {NAP} s, and did not all end within {} s",
                    patience.as_secs()
                ),
            ),
        })
    }

    /// A group that lacks one place: none of its pods starts.
    ///
    /// # Errors
    /// Those of the server and of the door.
    pub fn none_starts(&self, case: &Case, held: &mut Option<Held>) -> Result<Conclusion> {
        let count = self.room.fits();
        let mut seen = self.watch()?;
        if let Some(busy) = self.changed("before the window")? {
            return Ok(busy);
        }
        let placeholder = run::name("placeholder");
        let mut pod = self.room.pod(&placeholder, &self.image, self.room.size, "");
        pod["spec"]["containers"][0]["command"] = karat_sdk::json!(["sleep", LONG]);
        self.pods().create(&pod)?;
        let runs = seen.until(self.waits.start, |seen| seen.pod(&placeholder)?.ran)?;
        if runs.is_none() {
            return Ok(match self.changed("while the placeholder waited")? {
                Some(busy) => busy,
                None => Conclusion::unknown(
                    Reason::Deadline,
                    "the pod that takes one place did not run; without it nothing is missing",
                ),
            });
        }
        // Quota and free places are equal again, else a group that starts in part would be the quota's doing.
        if let Some(conclusion) = self.adapter.set_quota(&self.room, count - 1)? {
            return Ok(conclusion);
        }
        case.observe("pods that fit without the placeholder", count);
        case.observe("pods of the group", count);
        let group = self.group("lacking", count, self.room.size, false);
        *held = Some(Held {
            group: group.clone(),
            placeholder,
        });
        if let Some(conclusion) = self.submit(case, &group)? {
            return Ok(conclusion);
        }
        let conclusion = self.waits_as_a_whole(case, &mut seen, &group)?;
        let conclusion = match conclusion {
            Conclusion::Pass => self
                .changed("during the window")?
                .unwrap_or(Conclusion::Pass),
            other => other,
        };
        case.observe("pods that ever had a node", seen.tally(&group.name).bound);
        seen.close();
        Ok(conclusion)
    }

    fn waits_as_a_whole(
        &self,
        case: &Case,
        seen: &mut Watching<'_>,
        group: &Group,
    ) -> Result<Conclusion> {
        let name = group.name.as_str();
        enum First {
            Said(String),
            Started,
        }
        let first = seen.until(self.waits.rejection, |seen| {
            if seen.tally(name).ran > 0 {
                return Some(First::Started);
            }
            match seen.decision(name) {
                Some(Decision::Rejected(said)) => Some(First::Said(said)),
                _ => None,
            }
        })?;
        match first {
            Some(First::Started) => return self.started_in_part(seen, group),
            Some(First::Said(said)) => case.observe("rejection", said),
            None => {
                let said = match seen.decision(name) {
                    Some(Decision::Admitted) => "the solution says that the group was admitted",
                    Some(_) => "the solution says something else",
                    None => "the solution says nothing about the group",
                };
                return Ok(Conclusion::unknown(
                    Reason::Deadline,
                    format!(
                        "no pod of the group started, and no rejection was visible within {} s: {said}",
                        self.waits.rejection.as_secs()
                    ),
                ));
            }
        }
        // After a gap the window begins again: what happened in it was not seen.
        for _ in 0..3 {
            let gaps = seen.gaps;
            let deadline = Deadline::after(self.waits.quiet);
            while seen.gaps == gaps && seen.advance(deadline)? {
                if seen.tally(name).ran > 0 {
                    return self.started_in_part(seen, group);
                }
            }
            if seen.gaps == gaps {
                case.observe("quiet window", format!("{} s", self.waits.quiet.as_secs()));
                let pods: Vec<_> = seen.members(name).map(|member| member.pod.uid()).collect();
                case.observe("pods watched", pods.len());
                let fewer = (pods.len() as u64) < group.count && !self.adapter.by_quota();
                if seen.tally(name).gone > 0 || fewer {
                    return Ok(Conclusion::unknown(
                        Reason::CompetingWorkload,
                        "pods of the group went away during the window; somebody deletes them",
                    ));
                }
                return Ok(Conclusion::Pass);
            }
        }
        Ok(Conclusion::unknown(
            Reason::Deadline,
            "the watch lost continuity again and again; run again",
        ))
    }

    fn started_in_part(&self, seen: &mut Watching<'_>, group: &Group) -> Result<Conclusion> {
        // A moment more, so that the number says how many started and not how fast the first was.
        let deadline = Deadline::after(Duration::from_secs(2));
        while seen.advance(deadline)? {}
        let tally = seen.tally(&group.name);
        self.room.unless_changed(format!(
            "one place of {} is taken, and {} of {} pods of the group started all the same",
            self.room.fits(),
            tally.ran,
            group.count
        ))
    }

    /// What is free changed: nothing can be told.
    fn changed(&self, when: &str) -> Result<Option<Conclusion>> {
        let now = self.room.now()?;
        Ok((now.as_ref() != Some(&self.room.places)).then(|| {
            Conclusion::unknown(
                Reason::CompetingWorkload,
                format!("what is free on the nodes changed {when}; run again when the cluster is quieter"),
            )
        }))
    }

    /// Whether pods of a group stay until they are deleted. Played pods that a Job owns end at once, and give back what they held.
    pub fn pods_stay(&self) -> bool {
        !(self.room.played && self.adapter.by_quota())
    }

    /// The missing place is given back: the whole group starts.
    ///
    /// # Errors
    /// Those of the server and of the door.
    pub fn released(&self, case: &Case, held: &Held) -> Result<Conclusion> {
        let mut seen = self.watch()?;
        let began = clock::elapsed();
        self.pods().delete(&held.placeholder)?;
        let quota = self.adapter.set_quota(&self.room, held.group.count)?;
        if let Some(conclusion) = quota {
            return self.clear(&mut seen, &[&held.group], &[], conclusion);
        }
        let conclusion = self.all_run(case, &mut seen, &held.group, self.waits.release)?;
        if conclusion.is_pass() {
            let took = clock::elapsed().saturating_sub(began);
            case.observe(
                "from release to the last start",
                format!("{} ms", took.as_millis()),
            );
        }
        let gone = seen
            .pod(&held.placeholder)
            .is_none_or(|placeholder| placeholder.gone);
        let conclusion = match conclusion {
            Conclusion::Pass => Conclusion::Pass,
            _ if !gone => Conclusion::unknown(
                Reason::Deadline,
                "the pod that held the missing place was deleted, and is still there",
            ),
            // The group had been decided about, so silence now is no scheduler that never looked.
            Conclusion::Unknown(Reason::Deadline, text)
                if seen.tally(&held.group.name).bound == 0 =>
            {
                self.room
                    .unless_changed(format!("the missing place is free: {text}"))?
            }
            other => other,
        };
        let conclusion = self.clear(&mut seen, &[&held.group], &[], conclusion)?;
        seen.close();
        Ok(conclusion)
    }

    /// Deletes pods and groups and waits until the pods are gone. What comes after counts on their places, so a pass does not
    /// outlive a pod that stays.
    ///
    /// # Errors
    /// Those after which nothing can go on.
    pub fn clear(
        &self,
        seen: &mut Watching<'_>,
        groups: &[&Group],
        pods: &[&str],
        conclusion: Conclusion,
    ) -> Result<Conclusion> {
        let why = match self.remove(seen, groups, pods) {
            Err(error) if error.ends_the_probe() => return Err(error),
            Err(error) => error.to_string(),
            Ok(false) => "they are still ending after 60 s".to_owned(),
            Ok(true) => return Ok(conclusion),
        };
        log::warn(format!("pods of a group could not be removed: {why}"));
        Ok(if conclusion.is_pass() {
            let text = format!("all of it held, and the pods could not be removed: {why}");
            Conclusion::unknown(Reason::Deadline, text)
        } else {
            conclusion
        })
    }

    fn remove(&self, seen: &mut Watching<'_>, groups: &[&Group], pods: &[&str]) -> Result<bool> {
        let mut names: Vec<String> = pods.iter().map(|name| (*name).to_owned()).collect();
        if self.adapter.by_quota() {
            // Whoever made the pods would make them again.
            for group in groups {
                self.adapter.remove(&group.name)?;
            }
        }
        for group in groups {
            let members = seen.members(&group.name).filter(|member| !member.gone);
            names.extend(members.map(|member| member.pod.name().to_owned()));
        }
        for name in &names {
            ignoring_absence(self.pods().delete(name))?;
        }
        for group in groups {
            self.adapter.remove(&group.name)?;
        }
        seen.until_gone(&names, Duration::from_secs(60))
    }
}

fn ignoring_absence(result: Result<()>) -> Result<()> {
    match result {
        Err(error) if error.is_not_found() => Ok(()),
        other => other,
    }
}

/// The cluster drops what ties a pod to its group.
pub fn unlinked() -> Conclusion {
    Conclusion::unknown(
        Reason::FeatureGateOff,
        "the server dropped the field that ties a pod to its group; turn on the feature gate of the solution in the API server",
    )
}
