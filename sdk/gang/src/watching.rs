//! What is seen of groups: their pods and what the solution decides, from two watches and never by asking again and again.

use crate::adapter::{Adapter, Decision, GROUP};
use karat_sdk::kube::{Event, Watch};
use karat_sdk::wait::Deadline;
use karat_sdk::{Object, Query, Result, clock, inventory, wait};
use std::time::Duration;

/// What a pod is looked at for.
const SEEN_OF_PODS: &[&str] = &[
    "/metadata/labels",
    "/metadata/deletionTimestamp",
    "/spec/nodeName",
    "/status/phase",
    "/status/reason",
    "/status/message",
    "/status/conditions",
    "/status/containerStatuses/*/state",
];

/// One pod, of a group or not.
#[derive(Clone, Debug)]
pub struct Member {
    /// The latest state seen.
    pub pod: Object,
    /// When it was first seen bound to a node, since the attempt began.
    pub bound: Option<Duration>,
    /// When it was first seen Running, or ended after having run.
    pub ran: Option<Duration>,
    /// Gone meanwhile.
    pub gone: bool,
    /// Not told again since continuity was lost.
    stale: bool,
}

impl Member {
    fn phase(&self) -> &str {
        self.pod.text("/status/phase")
    }
}

/// How many pods of a group are where.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Seen at all.
    pub seen: u64,
    /// Were ever bound to a node.
    pub bound: u64,
    /// Ever ran.
    pub ran: u64,
    /// Ended well.
    pub succeeded: u64,
    /// Ended badly.
    pub failed: u64,
    /// Gone.
    pub gone: u64,
}

/// The two watches, and what they told.
pub struct Watching<'a> {
    adapter: &'a dyn Adapter,
    pods: Watch,
    groups: Watch,
    members: Vec<Member>,
    said: Vec<Object>,
    /// Times that continuity was lost.
    pub gaps: u32,
}

impl<'a> Watching<'a> {
    /// Begins to watch a namespace.
    ///
    /// # Errors
    /// Those of the server and of the door.
    pub fn begin(adapter: &'a dyn Adapter, namespace: &str) -> Result<Self> {
        let pods = Query::new("v1", "pods")
            .in_namespace(namespace)
            .keep(SEEN_OF_PODS)
            .watch()?;
        Ok(Watching {
            adapter,
            pods,
            groups: adapter.decisions().watch()?,
            members: Vec::new(),
            said: Vec::new(),
            gaps: 0,
        })
    }

    /// Takes the next piece of news; false when the deadline came first.
    ///
    /// # Errors
    /// Those of the server and of the door.
    pub fn advance(&mut self, deadline: Deadline) -> Result<bool> {
        loop {
            if let Some(event) = self.pods.poll()? {
                self.take_pod(event);
                return Ok(true);
            }
            if let Some(event) = self.groups.poll()? {
                match event {
                    Event::Added(object) | Event::Modified(object) => self.take_group(object),
                    Event::Gap(_) => self.gaps += 1,
                    Event::Deleted(_) | Event::Synced => {}
                }
                return Ok(true);
            }
            let left = deadline.left();
            if left.is_zero() {
                return Ok(false);
            }
            let (pods, groups) = (self.pods.source(), self.groups.source());
            // A shorter wait would not prove that the streams live, and their silence would not count.
            wait::any(&[&pods, &groups], left.max(Duration::from_secs(1)))?;
        }
    }

    /// Goes on until `found` gives something; none when the time is up.
    ///
    /// # Errors
    /// Those of the server and of the door, and [`karat_sdk::Error::ImageUnavailable`] where a node does not get the image of a pod.
    pub fn until<T>(
        &mut self,
        time: Duration,
        mut found: impl FnMut(&Watching<'_>) -> Option<T>,
    ) -> Result<Option<T>> {
        let deadline = Deadline::after(time);
        loop {
            if let Some(found) = found(self) {
                return Ok(Some(found));
            }
            let there = self.members.iter().filter(|member| !member.gone);
            inventory::all_pulled(there.map(|member| &member.pod))?;
            if !self.advance(deadline)? {
                return Ok(None);
            }
        }
    }

    /// Waits until the pods of these names are gone; false when the time is up.
    ///
    /// # Errors
    /// Those of the server and of the door.
    pub fn until_gone(&mut self, names: &[String], time: Duration) -> Result<bool> {
        let deadline = Deadline::after(time);
        loop {
            let is_gone = |name: &String| self.pod(name).is_none_or(|member| member.gone);
            if names.iter().all(is_gone) {
                return Ok(true);
            }
            if !self.advance(deadline)? {
                return Ok(false);
            }
        }
    }

    fn take_pod(&mut self, event: Event) {
        match event {
            Event::Added(pod) | Event::Modified(pod) => {
                let at = self
                    .members
                    .iter()
                    .position(|member| member.pod.uid() == pod.uid())
                    .unwrap_or_else(|| {
                        self.members.push(Member {
                            pod: pod.clone(),
                            bound: None,
                            ran: None,
                            gone: false,
                            stale: false,
                        });
                        self.members.len() - 1
                    });
                let member = &mut self.members[at];
                member.pod = pod;
                member.stale = false;
                if !member.pod.text("/spec/nodeName").is_empty() && member.bound.is_none() {
                    member.bound = Some(clock::elapsed());
                }
                if matches!(member.phase(), "Running" | "Succeeded") && member.ran.is_none() {
                    member.ran = Some(clock::elapsed());
                }
            }
            Event::Deleted(pod) => self.mark_gone(|member| member.pod.uid() == pod.uid()),
            // What is there follows; what does not follow is gone.
            Event::Gap(_) => {
                self.gaps += 1;
                self.members
                    .iter_mut()
                    .for_each(|member| member.stale = true);
            }
            Event::Synced => self.mark_gone(|member| member.stale),
        }
    }

    fn mark_gone(&mut self, which: impl Fn(&Member) -> bool) {
        for member in self.members.iter_mut().filter(|member| which(member)) {
            member.gone = true;
        }
    }

    fn take_group(&mut self, object: Object) {
        match self.said.iter_mut().find(|have| have.uid() == object.uid()) {
            Some(have) => *have = object,
            None => self.said.push(object),
        }
    }

    /// The pods of a group.
    pub fn members<'b>(&'b self, group: &'b str) -> impl Iterator<Item = &'b Member> {
        self.members
            .iter()
            .filter(move |member| member.pod.label(GROUP) == Some(group))
    }

    /// The pod of this name.
    pub fn pod(&self, name: &str) -> Option<&Member> {
        self.members.iter().find(|member| member.pod.name() == name)
    }

    /// How many pods of a group are where.
    pub fn tally(&self, group: &str) -> Tally {
        let mut tally = Tally::default();
        for member in self.members(group) {
            tally.seen += 1;
            tally.bound += u64::from(member.bound.is_some());
            tally.ran += u64::from(member.ran.is_some());
            tally.succeeded += u64::from(member.phase() == "Succeeded");
            tally.failed += u64::from(member.phase() == "Failed");
            tally.gone += u64::from(member.gone);
        }
        tally
    }

    /// What the solution says about a group now.
    pub fn decision(&self, group: &str) -> Option<Decision> {
        self.said
            .iter()
            .find_map(|object| self.adapter.decision(object, group))
    }

    /// Why pods of a group wait on their node, where a container says so: `ImagePullBackOff`.
    pub fn waiting(&self, group: &str) -> Option<String> {
        self.members(group).find_map(|member| {
            let reason = inventory::waiting(&member.pod);
            (!reason.is_empty()).then(|| reason.to_owned())
        })
    }

    /// Ends both watches.
    pub fn close(self) {
        self.pods.close();
        self.groups.close();
    }
}
