//! Steps beyond the two claims: two groups that would block each other, a group that fits in sum and nowhere in particular,
//! pods that come before their group, and a group that must stay in one domain.
//!
//! They are short: where nothing must start, the solution's rejection is waited for, and a few seconds more.

use crate::adapter::{Decision, Group};
use crate::room::{Room, fitting};
use crate::steps::{Gang, unlinked};
use crate::upstream::Upstream;
use crate::watching::Watching;
use karat_sdk::wait::Deadline;
use karat_sdk::{Case, Conclusion, Reason, Result, json, run};
use std::time::Duration;

/// How long after a rejection nothing may start, in these steps.
pub const SHORT: Duration = Duration::from_secs(5);
/// How long pods without their group must wait. Without a group nothing tells that a scheduler looked at them, so this is only
/// long enough for one that does not care about groups.
const ALONE: Duration = Duration::from_secs(2);
/// Every node is a domain of its own under this key.
const HOSTNAME: &str = "kubernetes.io/hostname";

/// A size of pods, and what is held on each node, for which more pods fit in sum than node by node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Layout {
    size: u64,
    held: u64,
    count: u64,
}

fn layout(places: &[(String, u64)], usual: u64, divisible: bool) -> Option<Layout> {
    let with = |size: u64, held: u64| {
        let left: Vec<(String, u64)> = places
            .iter()
            .map(|(name, free)| (name.clone(), free.saturating_sub(held)))
            .collect();
        let count = left.iter().map(|(_, free)| free).sum::<u64>() / size.max(1);
        let found = Layout { size, held, count };
        (count >= 2 && count > fitting(&left, size)).then_some(found)
    };
    let largest = places.iter().map(|(_, free)| *free).max().unwrap_or(0);
    if divisible {
        return with(usual, 0);
    }
    (2..=largest.min(16)).find_map(|size| (0..size).find_map(|held| with(size, held)))
}

impl Gang<'_> {
    /// Waits until a group is rejected and a few seconds more; why not, if something else happened.
    fn rejected_briefly(
        &self,
        case: &Case,
        seen: &mut Watching<'_>,
        group: &Group,
    ) -> Result<std::result::Result<(), Conclusion>> {
        let name = group.name.as_str();
        let started = |seen: &Watching<'_>| {
            let ran = seen.tally(name).ran;
            format!("{ran} of {} pods of the group started", group.count)
        };
        let said = seen.until(self.waits.rejection, |seen| match seen.decision(name) {
            _ if seen.tally(name).ran > 0 => Some(None),
            Some(Decision::Rejected(said)) => Some(Some(said)),
            _ => None,
        })?;
        match said {
            Some(Some(said)) => case.observe("rejection", said),
            Some(None) => return self.room.unless_changed(started(seen)).map(Err),
            None => {
                return Ok(Err(Conclusion::unknown(
                    Reason::Deadline,
                    "no pod of the group started, and no rejection was visible",
                )));
            }
        }
        let deadline = Deadline::after(SHORT);
        while seen.advance(deadline)? {
            if seen.tally(name).ran > 0 {
                return self.room.unless_changed(started(seen)).map(Err);
            }
        }
        for member in seen.members(name) {
            case.observe("pod", member.pod.uid());
        }
        Ok(Ok(()))
    }

    /// Two groups of which only one fits: one runs, the other waits as a whole, and runs when the first is gone.
    ///
    /// # Errors
    /// Those of the server and of the door.
    pub fn deadlock(&self, case: &Case) -> Result<Conclusion> {
        let count = self.room.fits().div_ceil(2) + 1;
        let mut seen = self.watch()?;
        let groups =
            ["first", "second"].map(|prefix| self.group(prefix, count, self.room.size, false));
        case.observe("pods of each group", count);
        for group in &groups {
            if let Some(conclusion) = self.submit(case, group)? {
                return self.clear(&mut seen, &[&groups[0], &groups[1]], &[], conclusion);
            }
        }
        let mut left = vec![&groups[0], &groups[1]];
        let conclusion = self.one_after_the_other(case, &mut seen, &mut left)?;
        let conclusion = self.clear(&mut seen, &left, &[], conclusion)?;
        seen.close();
        Ok(conclusion)
    }

    /// `left` are the groups that are there: the one that ran first is taken off.
    fn one_after_the_other(
        &self,
        case: &Case,
        seen: &mut Watching<'_>,
        left: &mut Vec<&Group>,
    ) -> Result<Conclusion> {
        let whole = |seen: &Watching<'_>| {
            left.iter()
                .position(|group| seen.tally(&group.name).ran >= group.count)
        };
        let Some(winner) = seen.until(self.waits.start, whole)? else {
            let ran: Vec<String> = left
                .iter()
                .map(|group| seen.tally(&group.name).ran.to_string())
                .collect();
            return self.room.unless_changed(format!(
                "neither of two groups runs as a whole after {} s: {} pods run",
                self.waits.start.as_secs(),
                ran.join(" and ")
            ));
        };
        let first = left.remove(winner);
        let other = left[0];
        let rejected = self.rejected_briefly(case, seen, other)?;
        case.observe("group that ran first", &first.name);
        let so_far = rejected.err().unwrap_or(Conclusion::Pass);
        match self.clear(seen, &[first], &[], so_far)? {
            Conclusion::Pass => self.all_run(case, seen, other, self.waits.release),
            conclusion => Ok(conclusion),
        }
    }

    /// More pods fit in sum than node by node: none of such a group starts. None when no size of pods leaves such remainders.
    ///
    /// # Errors
    /// Those of the server and of the door.
    pub fn fragmented(&self, case: &Case) -> Result<Conclusion> {
        let cpu = self.room.scarce == crate::Scarce::Cpu;
        let Some(found) = layout(&self.room.places, self.room.size, cpu) else {
            return Ok(Conclusion::unknown(
                Reason::InsufficientCapacity,
                "the free amounts leave no remainders from which a pod could be counted twice",
            ));
        };
        let mut seen = self.watch()?;
        let mut holders = Vec::new();
        if found.held > 0 {
            self.room.prepare(found.held)?;
            for (at, place) in self.room.places.iter().enumerate() {
                let there = Room {
                    places: vec![place.clone()],
                    ..self.room.clone()
                };
                let name = run::name(&format!("holder-{at}"));
                let mut pod = there.pod(&name, &self.image, found.held, "");
                pod["spec"]["containers"][0]["command"] = json!(["sleep", "540"]);
                self.pods().create(&pod)?;
                holders.push(name);
            }
        }
        let names: Vec<&str> = holders.iter().map(String::as_str).collect();
        let held = seen.until(self.waits.start, |seen| {
            names
                .iter()
                .all(|name| seen.pod(name).is_some_and(|member| member.ran.is_some()))
                .then_some(())
        })?;
        self.room.prepare(found.size)?;
        let group = self.group("scattered", found.count, found.size, false);
        case.observe("amount a pod takes", self.room.amount(found.size));
        case.observe("pods that fit in sum", found.count);
        let conclusion = if held.is_none() {
            Conclusion::unknown(Reason::Deadline, "the pods that take the rest did not run")
        } else if let Some(conclusion) = self.submit(case, &group)? {
            conclusion
        } else {
            match self.rejected_briefly(case, &mut seen, &group)? {
                Ok(()) => Conclusion::Pass,
                Err(conclusion) => conclusion,
            }
        };
        let conclusion = self.clear(&mut seen, &[&group], &names, conclusion)?;
        seen.close();
        Ok(conclusion)
    }

    /// Pods that come before their group wait, and start when it appears.
    ///
    /// Says `unknown (feature_gate_off)` when they start without it: then the kinds are there, and nobody obeys them.
    ///
    /// # Errors
    /// Those of the server and of the door.
    pub fn group_comes_later(&self, case: &Case, upstream: &Upstream) -> Result<Conclusion> {
        self.room.prepare(self.room.size)?;
        let mut seen = self.watch()?;
        let group = self.group("early", 2, self.room.size, false);
        case.observe("pods of the group", group.count);
        let conclusion = self.early(case, upstream, &mut seen, &group)?;
        let conclusion = self.clear(&mut seen, &[&group], &[], conclusion)?;
        seen.close();
        Ok(conclusion)
    }

    fn early(
        &self,
        case: &Case,
        upstream: &Upstream,
        seen: &mut Watching<'_>,
        group: &Group,
    ) -> Result<Conclusion> {
        if !self.adapter.start(group)? {
            return Ok(unlinked());
        }
        let deadline = Deadline::after(ALONE);
        while seen.advance(deadline)? {
            let bound = seen.tally(&group.name).bound;
            if bound > 0 {
                return Ok(Conclusion::unknown(
                    Reason::FeatureGateOff,
                    format!(
                        "{bound} of {} pods were bound although their group does not exist: the kinds are served and the scheduler does not obey them; turn on its feature gate GenericWorkload and its plug-in GangScheduling",
                        group.count
                    ),
                ));
            }
        }
        case.observe("pods bound without the group", 0);
        upstream.create_with(&group.name, group.count, |_| ())?;
        self.all_run(case, seen, group, self.waits.start)
    }

    /// The solution's word follows what the pods do: it does not say that a group was admitted while none of its pods could
    /// exist yet, and says so when all of them run.
    ///
    /// # Errors
    /// Those of the server and of the door.
    pub fn condition_is_true(&self, case: &Case) -> Result<Conclusion> {
        let mut seen = self.watch()?;
        let group = self.group("told", 2, self.room.size, false);
        let conclusion = match self.told(case, &mut seen, &group) {
            Err(error) if error.ends_the_probe() => return Err(error),
            // The steps after this one do not rest on it, so its pods must not stay in their way. What a call without an answer
            // made is seen a moment later.
            Err(error) => {
                let deadline = Deadline::after(Duration::from_secs(1));
                while seen.advance(deadline)? {}
                error.conclusion()
            }
            Ok(conclusion) => conclusion,
        };
        let conclusion = self.clear(&mut seen, &[&group], &[], conclusion)?;
        seen.close();
        Ok(conclusion)
    }

    fn told(&self, case: &Case, seen: &mut Watching<'_>, group: &Group) -> Result<Conclusion> {
        self.adapter.create(group)?;
        let deadline = Deadline::after(Duration::from_secs(1));
        while seen.advance(deadline)? {}
        if seen.decision(&group.name) == Some(Decision::Admitted) {
            return Ok(Conclusion::fail(
                "it says that the group was scheduled before it has a single pod",
            ));
        }
        if !self.adapter.start(group)? {
            return Ok(unlinked());
        }
        let conclusion = self.all_run(case, seen, group, self.waits.start)?;
        if !conclusion.is_pass() {
            return Ok(conclusion);
        }
        let said = seen.until(self.waits.rejection, |seen| {
            (seen.decision(&group.name)? == Decision::Admitted).then_some(())
        })?;
        Ok(match said {
            Some(()) => Conclusion::Pass,
            None => Conclusion::fail(format!(
                "all pods run, and after {} s it says {:?}",
                self.waits.rejection.as_secs(),
                seen.decision(&group.name)
            )),
        })
    }

    /// A group with a topology constraint that fits into one domain: all of its pods are there.
    ///
    /// # Errors
    /// Those of the server and of the door.
    pub fn one_domain(&self, case: &Case, upstream: &Upstream) -> Result<Conclusion> {
        let (size, count) = self.per_domain();
        if count < 2 || self.room.places.len() < 2 {
            return Ok(Conclusion::unknown(
                Reason::InsufficientCapacity,
                "needs two nodes, on one of which two pods fit",
            ));
        }
        self.room.prepare(size)?;
        let mut seen = self.watch()?;
        let group = self.group("near", count, size, false);
        let conclusion = match self.constrained(upstream, &group)? {
            Some(conclusion) => conclusion,
            None => self.all_run(case, &mut seen, &group, self.waits.start)?,
        };
        let mut nodes: Vec<String> = Vec::new();
        for member in seen.members(&group.name) {
            let node = member.pod.text("/spec/nodeName");
            if !nodes.iter().any(|have| have == node) {
                nodes.push(node.to_owned());
            }
        }
        let conclusion = if conclusion.is_pass() && nodes.len() != 1 {
            self.room.unless_changed(format!(
                "the group fits into one domain of {HOSTNAME} and its pods are in {}",
                nodes.len()
            ))?
        } else {
            conclusion
        };
        let conclusion = self.clear(&mut seen, &[&group], &[], conclusion)?;
        seen.close();
        Ok(conclusion)
    }

    /// A group that fits into no domain of its topology constraint: none of its pods starts.
    ///
    /// # Errors
    /// Those of the server and of the door.
    pub fn no_domain(&self, case: &Case, upstream: &Upstream) -> Result<Conclusion> {
        let (size, count) = self.per_domain();
        let mut seen = self.watch()?;
        let group = self.group("far", count + 1, size, false);
        case.observe("pods that fit into one domain", count);
        let conclusion = match self.constrained(upstream, &group)? {
            Some(conclusion) => conclusion,
            None => match self.rejected_briefly(case, &mut seen, &group)? {
                Ok(()) => Conclusion::Pass,
                Err(conclusion) => conclusion,
            },
        };
        let conclusion = self.clear(&mut seen, &[&group], &[], conclusion)?;
        seen.close();
        Ok(conclusion)
    }

    /// A size of pods, and how many of it fit into the largest domain.
    fn per_domain(&self) -> (u64, u64) {
        let size = match self.room.scarce {
            crate::Scarce::Cpu => self.room.size / 3,
            _ => self.room.size,
        };
        let largest = self.room.places.iter().map(|(_, free)| free / size.max(1));
        (size, largest.max().unwrap_or(0))
    }

    fn constrained(&self, upstream: &Upstream, group: &Group) -> Result<Option<Conclusion>> {
        let constraint = json!({"topology": [{"key": HOSTNAME}]});
        let stored = upstream.create_with(&group.name, group.count, |spec| {
            spec["schedulingConstraints"] = constraint.clone();
        })?;
        if stored.text("/spec/schedulingConstraints/topology/0/key") != HOSTNAME {
            return Ok(Some(Conclusion::unknown(
                Reason::FeatureGateOff,
                "the server dropped the topology constraint; turn on the feature gate TopologyAwareWorkloadScheduling",
            )));
        }
        Ok((!self.adapter.start(group)?).then(unlinked))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(free: &[u64]) -> Vec<(String, u64)> {
        free.iter().map(|free| ("n".to_owned(), *free)).collect()
    }

    #[test]
    fn a_layout_counts_more_in_sum_than_node_by_node() {
        assert_eq!(
            layout(&places(&[32_000, 32_000]), 19_200, true),
            Some(Layout {
                size: 19_200,
                held: 0,
                count: 3
            })
        );
        assert_eq!(
            layout(&places(&[2, 2, 2, 2]), 1, false),
            Some(Layout {
                size: 2,
                held: 1,
                count: 2
            })
        );
        assert_eq!(
            layout(&places(&[4, 4]), 1, false),
            Some(Layout {
                size: 2,
                held: 1,
                count: 3
            })
        );
        assert_eq!(layout(&places(&[2, 2]), 1, false), None);
        assert_eq!(layout(&places(&[1, 1]), 1, false), None);
    }
}
