//! Leases: what probes of one run have for themselves for a while, so that they can run side by side without spoiling what
//! the others see.
//!
//! [`Leases`] is one for all attempts of a run: the inventory of the cluster (`inventory`), the arbiter that grants
//! (`arbiter`), and what was really held. A [`Holder`] is one attempt's side of it; when it is dropped, everything it holds is
//! given back, whatever ended the attempt. What it refuses to do: let anybody wait who holds something. How the plan reckons
//! with leases is in [`graph`]; what a probe sees, in [`crate::capability::leases`].

mod arbiter;
mod choice;
pub mod graph;
mod inventory;
#[cfg(test)]
mod tests;

use crate::cluster::{ApiError, Cluster};
use crate::event::{Events, RunEventKind};
use crate::manifest::{LeaseLine, Wish};
use crate::names::sandbox_prefix;
use arbiter::{Arbiter, Ask, Offer, Placement, Share, Ticket};
pub use choice::{NodeChoice, NodeLabels};
use inventory::Node;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

/// How often pods that another probe of the run left on a node are looked for again, before the node is held alone.
const CLEARING: Duration = Duration::from_millis(500);
/// How old an inventory must be before it is read again to find out that something can never be had. Keeps a probe that asks
/// in a loop from reading the cluster in a loop.
const STALE: Duration = Duration::from_secs(30);

/// The leases of a run. Cheap to clone; all clones are the same.
#[derive(Clone)]
pub struct Leases {
    shared: Arc<Shared>,
}

struct Shared {
    cluster: Cluster,
    run: String,
    choice: NodeChoice,
    events: Events,
    state: Mutex<State>,
    /// Counts what may let somebody go on.
    turns: watch::Sender<u64>,
    /// One reads the cluster, the others wait for it.
    reading: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct State {
    arbiter: Arbiter,
    nodes: BTreeMap<String, Node>,
    read: Option<Instant>,
    held: Vec<Held>,
    waits: Vec<Wait>,
}

/// One lease that was held, from grant to release. Names of nodes are real ones: they leave the process only counted.
#[derive(Clone, Debug)]
pub struct Held {
    /// Who held it.
    pub probe: String,
    /// Nodes, each with whether it was held alone.
    pub nodes: BTreeMap<String, bool>,
    /// Locks, each with whether it was shared.
    pub locks: BTreeMap<String, bool>,
    /// How long.
    pub time: Duration,
}

/// Time that a probe spent waiting for a lease.
#[derive(Clone, Debug)]
pub struct Wait {
    /// Who waited.
    pub probe: String,
    /// How long.
    pub time: Duration,
}

/// Why a lease was not granted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LeaseError {
    /// The cluster never has it.
    #[error("unavailable: {0}")]
    Unavailable(String),
    /// The time is up.
    #[error("busy: {0}")]
    Busy(String),
    /// The attempt holds another lease.
    #[error(
        "this attempt holds lease {0}; release it first, or take everything at once: who waits while it holds can block others for ever"
    )]
    Holds(u32),
    /// The cluster could not be asked.
    #[error("the inventory could not be read: {0}")]
    Inventory(String),
}

/// What was granted of one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrantedNode {
    /// Its real name.
    pub name: String,
    /// CPU that pods can still request, in thousandths.
    pub cpu_millis: u64,
    /// Memory that pods can still request, in bytes.
    pub memory_bytes: u64,
    /// Pods that still fit.
    pub pods: u64,
    /// Units of the lease.
    pub units: BTreeMap<String, u64>,
    /// Keys of the taints that pods must tolerate.
    pub taints: Vec<String>,
    /// A simulator plays it: no container runs there.
    pub played: bool,
}

/// What was granted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Granted {
    /// Counts from 1 in the attempt.
    pub number: u32,
    /// The nodes.
    pub nodes: Vec<GrantedNode>,
    /// The locks.
    pub locks: Vec<String>,
}

impl Leases {
    /// Leases of a run. Asks the cluster nothing until somebody wants nodes. `cluster` is the engine's own connection;
    /// `choice` says which nodes may be had.
    pub fn new(cluster: Cluster, run: &str, choice: NodeChoice, events: Events) -> Leases {
        Leases {
            shared: Arc::new(Shared {
                cluster,
                run: run.to_owned(),
                choice,
                events,
                state: Mutex::default(),
                turns: watch::Sender::new(0),
                reading: tokio::sync::Mutex::default(),
            }),
        }
    }

    /// The side of one attempt of a probe.
    pub fn holder(&self, probe: &str) -> Holder {
        Holder {
            leases: self.clone(),
            probe: probe.to_owned(),
            own: Mutex::default(),
        }
    }

    /// What was held so far and is given back, in the order of its end.
    pub fn held(&self) -> Vec<Held> {
        self.state().held.clone()
    }

    /// Time that probes spent waiting.
    pub fn waits(&self) -> Vec<Wait> {
        self.state().waits.clone()
    }

    /// Ready, schedulable worker nodes, as far as anybody asked for nodes.
    pub fn known_nodes(&self) -> u64 {
        self.state()
            .nodes
            .values()
            .filter(|node| node.usable)
            .count() as u64
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn scope(&self) -> inventory::Scope<'_> {
        inventory::Scope {
            cluster: &self.shared.cluster,
            run: &self.shared.run,
            labels: self.shared.choice.keys(),
        }
    }

    /// Something changed: grants what can be granted now, and wakes who waits.
    fn turn(&self) {
        self.state().arbiter.settle();
        self.shared.turns.send_modify(|turn| *turn += 1);
    }

    /// Reads the inventory, unless somebody read it after `since`.
    async fn read(&self, since: Option<Instant>) -> Result<(), LeaseError> {
        let _one = self.shared.reading.lock().await;
        let read = self.state().read;
        if read.is_some() && (since.is_none() || read > since) {
            return Ok(());
        }
        let nodes = inventory::read(&self.scope()).await.map_err(unread)?;
        {
            let mut state = self.state();
            let offers = nodes
                .iter()
                .map(|(name, node)| (name.clone(), offer(node)))
                .collect();
            state.arbiter.offer_all(offers);
            state.nodes = nodes;
            state.read = Some(Instant::now());
        }
        self.turn();
        Ok(())
    }

    /// Whether the cluster can have what is asked for at all.
    async fn possible(&self, ask: &Ask) -> Result<(), LeaseError> {
        if ask.nodes.is_empty() {
            return Ok(());
        }
        self.read(None).await?;
        let impossible = || self.state().arbiter.impossible(ask);
        if impossible().is_none() {
            return Ok(());
        }
        let read = self.state().read;
        if read.is_none_or(|read| read.elapsed() >= STALE) {
            self.read(read).await?;
        }
        match impossible() {
            None => Ok(()),
            Some(why) => Err(LeaseError::Unavailable(why)),
        }
    }

    /// Reads the nodes of a grant again and tells the arbiter. Gives them, or none if the grant no longer stands on them.
    async fn look(
        &self,
        placement: &Placement,
    ) -> Result<Option<BTreeMap<String, Node>>, LeaseError> {
        let known: BTreeMap<String, Node> = {
            let state = self.state();
            let of = |name: &String| state.nodes.get(name).cloned();
            // A lock may name a node that does not exist; there is nothing to look at then.
            placement
                .nodes
                .keys()
                .filter_map(|name| Some((name.clone(), of(name)?)))
                .collect()
        };
        let fresh = inventory::refresh(&self.scope(), &known)
            .await
            .map_err(unread)?;
        let mut state = self.state();
        let mut stands = true;
        for name in known.keys() {
            let offer = fresh.get(name).map(offer).unwrap_or_default();
            let taken = state.arbiter.taken(name);
            let enough = |(kind, count): (&String, &u64)| {
                offer.units.get(kind).is_some_and(|free| free >= count)
            };
            stands &= offer.usable && taken.iter().all(enough);
            state.arbiter.offer(name, offer);
            match fresh.get(name) {
                Some(node) => state.nodes.insert(name.clone(), node.clone()),
                None => state.nodes.remove(name),
            };
        }
        Ok(stands.then_some(fresh))
    }
}

/// How many Ready, schedulable worker nodes a cluster has.
///
/// # Errors
/// They cannot be listed.
pub async fn worker_nodes(cluster: &Cluster) -> Result<u64, ApiError> {
    inventory::count(cluster).await
}

fn offer(node: &Node) -> Offer {
    Offer {
        usable: node.usable,
        played: node.played,
        labels: node.labels.clone(),
        units: node.units(),
    }
}

fn unread(error: ApiError) -> LeaseError {
    LeaseError::Inventory(error.to_string())
}

/// One attempt's leases. Gives them back when it is dropped.
pub struct Holder {
    leases: Leases,
    probe: String,
    own: Mutex<Own>,
}

#[derive(Default)]
struct Own {
    granted: u32,
    held: BTreeMap<u32, Grip>,
}

/// A lease that is held.
struct Grip {
    ticket: Ticket,
    placement: Placement,
    since: Instant,
    /// The nodes as they were when it was granted.
    before: BTreeMap<String, Node>,
}

/// A place in the queue. Left when it is dropped, also when the waiting is cut short.
struct Place<'a> {
    leases: &'a Leases,
    ticket: Option<Ticket>,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket.take() {
            self.leases.state().arbiter.give_back(ticket);
            self.leases.turn();
        }
    }
}

impl Holder {
    /// Takes all that these lines of the manifest ask for, or nothing.
    ///
    /// # Errors
    /// [`LeaseError`].
    pub async fn acquire(
        &self,
        lines: &[&LeaseLine],
        timeout: Duration,
    ) -> Result<Granted, LeaseError> {
        if let Some(number) = self.own().held.keys().next() {
            return Err(LeaseError::Holds(*number));
        }
        let began = Instant::now();
        let until = began + timeout;
        let ask = ask_of(lines, self.leases.shared.choice.of(&self.probe));
        self.leases.possible(&ask).await?;
        let ticket = self
            .leases
            .state()
            .arbiter
            .enqueue(&self.probe, ask.clone());
        let mut place = Place {
            leases: &self.leases,
            ticket: Some(ticket),
        };
        let mut turns = self.leases.shared.turns.subscribe();
        self.leases.turn();
        let mut said = String::new();
        let result = loop {
            let why = match self.wait(&mut turns, ticket, until, &mut said).await {
                Ok(placement) => match self.settle(&placement, until, &mut said).await {
                    Ok(Some(before)) => break Ok((placement, before)),
                    Ok(None) => {
                        self.leases.state().arbiter.recall(ticket);
                        self.leases.turn();
                        // What was found may have shown that it can never be had any more.
                        self.leases.possible(&ask).await?;
                        continue;
                    }
                    Err(error) => error,
                },
                Err(error) => error,
            };
            break Err(why);
        };
        let waited = began.elapsed();
        self.leases.state().waits.push(Wait {
            probe: self.probe.clone(),
            time: waited,
        });
        let (placement, before) = result?;
        place.ticket = None;
        Ok(self.take(ticket, placement, before, waited))
    }

    /// Waits for a grant. Says once for each reason why it waits.
    async fn wait(
        &self,
        turns: &mut watch::Receiver<u64>,
        ticket: Ticket,
        until: Instant,
        said: &mut String,
    ) -> Result<Placement, LeaseError> {
        loop {
            turns.mark_unchanged();
            let why = {
                let state = self.leases.state();
                if let Some(placement) = state.arbiter.placement(ticket) {
                    return Ok(placement.clone());
                }
                state.arbiter.why(ticket).unwrap_or_default()
            };
            if Instant::now() >= until {
                return Err(LeaseError::Busy(why));
            }
            self.say(why, said);
            tokio::select! {
                // The sender lives as long as `self`.
                _ = turns.changed() => {}
                () = sleep_until(until) => {}
            }
        }
    }

    /// Looks at the granted nodes as they are now; none when the grant does not stand. What other probes of the run left there is
    /// waited for until it is gone: on nodes that are to be held alone their pods, and wherever units were asked for what holds some.
    async fn settle(
        &self,
        placement: &Placement,
        until: Instant,
        said: &mut String,
    ) -> Result<Option<BTreeMap<String, Node>>, LeaseError> {
        if placement.nodes.is_empty() {
            return Ok(Some(BTreeMap::new()));
        }
        loop {
            let Some(nodes) = self.leases.look(placement).await? else {
                return Ok(None);
            };
            let left = nodes.iter().find_map(|(name, node)| {
                let share = placement.nodes.get(name)?;
                self.left_on(name, node, share)
            });
            let Some(namespace) = left else {
                return Ok(Some(nodes));
            };
            let why = format!(
                "pods or claims of another probe of this run are still on the nodes (namespace {namespace})"
            );
            if Instant::now() >= until {
                return Err(LeaseError::Busy(why));
            }
            self.say(why, said);
            sleep(CLEARING).await;
        }
    }

    /// A namespace of another probe of the run that has something on a granted node which is in the way.
    fn left_on(&self, name: &str, node: &Node, share: &Share) -> Option<String> {
        let home = |probe: &str| sandbox_prefix(&self.leases.shared.run, probe);
        let own = home(&self.probe);
        if share.alone {
            let mut all = node.own.keys().chain(&node.holding);
            return all.find(|space| !space.starts_with(&own)).cloned();
        }
        if share.units.is_empty() {
            return None;
        }
        // Who holds a lease there has units of its own.
        let state = self.leases.state();
        let homes: Vec<String> = state.arbiter.owners(name).map(home).collect();
        let rightly = |space: &String| homes.iter().any(|home| space.starts_with(home));
        node.holding.iter().find(|space| !rightly(space)).cloned()
    }

    /// Says why the attempt waits, once for each reason.
    fn say(&self, why: String, said: &mut String) {
        if why != *said {
            said.clone_from(&why);
            self.leases.shared.events.send(RunEventKind::LeaseAwaited {
                probe: self.probe.clone(),
                why,
            });
        }
    }

    fn take(
        &self,
        ticket: Ticket,
        placement: Placement,
        before: BTreeMap<String, Node>,
        waited: Duration,
    ) -> Granted {
        let granted = before.iter().map(|(name, node)| GrantedNode {
            name: name.clone(),
            cpu_millis: node.left("cpu"),
            memory_bytes: node.left("memory") / 1000,
            pods: (node.allocatable.get("pods").copied().unwrap_or_default() / 1000)
                .saturating_sub(node.pods),
            units: placement
                .nodes
                .get(name)
                .map(|share| share.units.clone())
                .unwrap_or_default(),
            taints: node.taints.iter().cloned().collect(),
            played: node.played,
        });
        let nodes: Vec<GrantedNode> = granted.collect();
        let locks: Vec<String> = placement.locks.keys().cloned().collect();
        let mut own = self.own();
        own.granted += 1;
        let number = own.granted;
        own.held.insert(
            number,
            Grip {
                ticket,
                placement,
                since: Instant::now(),
                before,
            },
        );
        drop(own);
        self.leases.shared.events.send(RunEventKind::LeaseGranted {
            probe: self.probe.clone(),
            nodes: nodes.len(),
            locks: locks.clone(),
            waited_ms: millis(waited),
        });
        Granted {
            number,
            nodes,
            locks,
        }
    }

    /// Gives a lease back; nothing when it was given back before.
    pub fn release(&self, number: u32) {
        let grip = self.own().held.remove(&number);
        if let Some(grip) = grip {
            self.give_back(grip);
        }
    }

    /// Gives everything back. For the end of the attempt, after its objects are gone.
    pub fn release_all(&self) {
        let held = std::mem::take(&mut self.own().held);
        for grip in held.into_values() {
            self.give_back(grip);
        }
    }

    fn give_back(&self, grip: Grip) {
        let time = grip.since.elapsed();
        {
            let mut state = self.leases.state();
            state.arbiter.give_back(grip.ticket);
            let alone = grip
                .placement
                .nodes
                .into_iter()
                .map(|(name, share)| (name, share.alone));
            state.held.push(Held {
                probe: self.probe.clone(),
                nodes: alone.collect(),
                locks: grip.placement.locks,
                time,
            });
        }
        self.leases.shared.events.send(RunEventKind::LeaseReleased {
            probe: self.probe.clone(),
            held_ms: millis(time),
        });
        self.leases.turn();
    }

    /// Whether the attempt holds nodes.
    pub fn holds_nodes(&self) -> bool {
        self.own().held.values().any(|grip| !grip.before.is_empty())
    }

    /// What others changed on the nodes of the leases held since they were granted, in words. When that cannot be found out, it says
    /// so: unchanged is only what was seen to be.
    pub async fn changed(&self) -> Vec<String> {
        let grips: Vec<(BTreeMap<String, Node>, Placement)> = {
            let own = self.own();
            let grips = own.held.values().filter(|grip| !grip.before.is_empty());
            grips
                .map(|grip| (grip.before.clone(), grip.placement.clone()))
                .collect()
        };
        let mut all = Vec::new();
        for (before, placement) in grips {
            let shared = &self.leases.shared;
            match inventory::refresh(&self.leases.scope(), &before).await {
                Ok(after) => {
                    let alone =
                        |name: &str| placement.nodes.get(name).is_some_and(|share| share.alone);
                    all.extend(inventory::changes(
                        &before,
                        &after,
                        &shared.run,
                        &self.probe,
                        alone,
                    ));
                }
                Err(error) => {
                    let code = error
                        .code()
                        .map_or_else(|| "no answer".to_owned(), |code| code.to_string());
                    all.push(format!("the leased nodes could not be read again ({code})"));
                }
            }
        }
        all
    }

    fn own(&self) -> MutexGuard<'_, Own> {
        self.own.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        self.release_all();
    }
}

fn ask_of(lines: &[&LeaseLine], labels: &NodeLabels) -> Ask {
    let mut ask = Ask {
        labels: labels.clone(),
        ..Ask::default()
    };
    for line in lines {
        match &line.wish {
            Wish::Nodes(wish) => ask.nodes.push(wish.clone()),
            Wish::Lock { name, shared } => {
                // Two lines about one lock: the stricter one counts.
                ask.locks
                    .entry(name.clone())
                    .and_modify(|all| *all &= shared)
                    .or_insert(*shared);
            }
        }
    }
    ask
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
