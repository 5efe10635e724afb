//! Who gets what: a machine without clock and without cluster, so that its promises can be tested as properties.
//!
//! - **All at once.** An ask is granted whole or not at all, and whoever holds something never waits ([`super::Holder`] refuses a
//!   second lease): there is no circle of waiting, so no deadlock.
//! - **Alone means alone.** Nobody else gets anything on a node that is held alone, nor holds it before.
//! - **In order.** Asks are looked at in the order of their arrival. One that cannot be granted yet keeps a place for what it
//!   needs, and later ones get only what is left beside it: they overtake where they do no harm, and nobody starves.

use super::choice::NodeLabels;
use crate::manifest::{NodesWish, UnitsWish};
use std::collections::{BTreeMap, BTreeSet};

/// What a node has for leases.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Offer {
    /// Ready, schedulable and for workloads.
    pub(super) usable: bool,
    /// A simulator plays it: no container runs there.
    pub(super) played: bool,
    /// Those of its labels that a [`super::NodeChoice`] names.
    pub(super) labels: BTreeMap<String, String>,
    /// Units by kind that nobody outside of this run holds.
    pub(super) units: BTreeMap<String, u64>,
}

/// What somebody wants, all of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Ask {
    /// Each of these gets nodes of its own.
    pub(super) nodes: Vec<NodesWish>,
    /// What those nodes must have.
    pub(super) labels: NodeLabels,
    /// Lock and whether it may be shared.
    pub(super) locks: BTreeMap<String, bool>,
}

/// What of one node goes with a lease.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Share {
    pub(super) alone: bool,
    pub(super) units: BTreeMap<String, u64>,
}

/// What is given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Placement {
    pub(super) nodes: BTreeMap<String, Share>,
    pub(super) locks: BTreeMap<String, bool>,
}

/// An ask in the queue, or what became of it. Counts up, so that a smaller one came earlier.
pub(super) type Ticket = u64;

#[derive(Clone, Debug)]
struct Waiting {
    ticket: Ticket,
    owner: String,
    ask: Ask,
}

#[derive(Clone, Debug)]
struct Held {
    owner: String,
    ask: Ask,
    placement: Placement,
}

/// The state of a run's leases.
#[derive(Debug, Default)]
pub(super) struct Arbiter {
    offers: BTreeMap<String, Offer>,
    held: BTreeMap<Ticket, Held>,
    /// In order of tickets.
    queue: Vec<Waiting>,
    last: Ticket,
}

/// What is taken of a node, by holders and by places that are kept.
#[derive(Clone, Debug, Default)]
struct Use {
    alone: bool,
    holders: u32,
    units: BTreeMap<String, u64>,
}

/// What is taken of everything.
#[derive(Clone, Debug, Default)]
struct View {
    nodes: BTreeMap<String, Use>,
    /// Lock, and whether all who have it share it.
    locks: BTreeMap<String, bool>,
}

impl View {
    fn take(&mut self, placement: &Placement) {
        for (name, share) in &placement.nodes {
            let used = self.nodes.entry(name.clone()).or_default();
            used.alone |= share.alone;
            used.holders += 1;
            for (kind, count) in &share.units {
                *used.units.entry(kind.clone()).or_default() += count;
            }
        }
        for (lock, shared) in &placement.locks {
            self.locks
                .entry(lock.clone())
                .and_modify(|all| *all &= shared)
                .or_insert(*shared);
        }
    }
}

/// A lock on a node is a lease of it: alone, or beside others.
fn node_of(lock: &str) -> Option<&str> {
    lock.strip_prefix("node/")
}

impl Arbiter {
    /// Tells what nodes there are now.
    pub(super) fn offer_all(&mut self, offers: BTreeMap<String, Offer>) {
        self.offers = offers;
    }

    /// Tells what one node has now.
    pub(super) fn offer(&mut self, name: &str, offer: Offer) {
        self.offers.insert(name.to_owned(), offer);
    }

    /// Why these offers could never satisfy an ask, with nothing held; none if they could.
    pub(super) fn impossible(&self, ask: &Ask) -> Option<String> {
        place(&self.offers, ask, &View::default()).err()
    }

    /// Puts an ask at the end of the queue.
    pub(super) fn enqueue(&mut self, owner: &str, ask: Ask) -> Ticket {
        self.last += 1;
        self.queue.push(Waiting {
            ticket: self.last,
            owner: owner.to_owned(),
            ask,
        });
        self.last
    }

    /// Grants what can be granted, in order.
    pub(super) fn settle(&mut self) {
        let mut view = self.view();
        for waiting in std::mem::take(&mut self.queue) {
            match place(&self.offers, &waiting.ask, &view) {
                Ok(placement) => {
                    view.take(&placement);
                    let Waiting { ticket, owner, ask } = waiting;
                    let held = Held {
                        owner,
                        ask,
                        placement,
                    };
                    self.held.insert(ticket, held);
                }
                Err(_) => {
                    view.take(&keep(&self.offers, &waiting.ask, &view));
                    self.queue.push(waiting);
                }
            }
        }
    }

    /// What a ticket was granted; none while it waits.
    pub(super) fn placement(&self, ticket: Ticket) -> Option<&Placement> {
        self.held.get(&ticket).map(|held| &held.placement)
    }

    /// Ends a ticket, whatever became of it.
    pub(super) fn give_back(&mut self, ticket: Ticket) {
        self.held.remove(&ticket);
        self.queue.retain(|waiting| waiting.ticket != ticket);
    }

    /// Takes a grant back and lets its ask wait again, in its old place.
    pub(super) fn recall(&mut self, ticket: Ticket) {
        let Some(Held { owner, ask, .. }) = self.held.remove(&ticket) else {
            return;
        };
        let at = self
            .queue
            .partition_point(|waiting| waiting.ticket < ticket);
        self.queue.insert(at, Waiting { ticket, owner, ask });
    }

    /// Units that leases take of a node, by kind.
    pub(super) fn taken(&self, node: &str) -> BTreeMap<String, u64> {
        let mut taken = BTreeMap::new();
        for share in self
            .held
            .values()
            .filter_map(|held| held.placement.nodes.get(node))
        {
            for (kind, count) in &share.units {
                *taken.entry(kind.clone()).or_default() += count;
            }
        }
        taken
    }

    /// Who holds something of a node.
    pub(super) fn owners(&self, node: &str) -> impl Iterator<Item = &str> {
        let on = move |held: &&Held| held.placement.nodes.contains_key(node);
        self.held
            .values()
            .filter(on)
            .map(|held| held.owner.as_str())
    }

    /// What a waiting ticket waits for and who has it, in one sentence without subject: `waits for 3 nodes held by x`.
    pub(super) fn why(&self, ticket: Ticket) -> Option<String> {
        let waiting = self.queue.iter().find(|waiting| waiting.ticket == ticket)?;
        let mut parts = Vec::new();
        for (lock, shared) in &waiting.ask.locks {
            let holders = self.held.values().filter(|held| {
                let locks = held.placement.locks.get(lock);
                locks.is_some_and(|theirs| !(*shared && *theirs))
            });
            let owners: BTreeSet<&str> = holders.map(|held| held.owner.as_str()).collect();
            if !owners.is_empty() {
                parts.push(format!("lock {lock} held by {}", words(&owners)));
            }
        }
        let lacks_nodes = place(&self.offers, &nodes_only(&waiting.ask), &self.view()).is_err();
        if lacks_nodes {
            // Whoever holds a node that would do.
            let would_do: BTreeSet<String> = waiting
                .ask
                .nodes
                .iter()
                .flat_map(|wish| {
                    let (labels, nothing) = (&waiting.ask.labels, Placement::default());
                    fitting(&self.offers, wish, labels, &View::default(), &nothing)
                })
                .map(|(name, _)| name)
                .collect();
            let owners: BTreeSet<&str> = self
                .held
                .values()
                .filter(|held| {
                    held.placement
                        .nodes
                        .keys()
                        .any(|name| would_do.contains(name))
                })
                .map(|held| held.owner.as_str())
                .collect();
            let count: u32 = waiting.ask.nodes.iter().map(|wish| wish.least).sum();
            let noun = if count == 1 { "node" } else { "nodes" };
            parts.push(if owners.is_empty() {
                // Nobody of the run: others took capacity since the ask was found possible.
                format!("{count} {noun} that others use")
            } else {
                format!("{count} {noun} held by {}", words(&owners))
            });
        }
        if parts.is_empty() {
            let earlier: BTreeSet<&str> = self
                .queue
                .iter()
                .filter(|other| other.ticket < ticket)
                .map(|other| other.owner.as_str())
                .collect();
            return Some(if earlier.is_empty() {
                "waits for its turn".to_owned()
            } else {
                format!("waits behind {}", words(&earlier))
            });
        }
        Some(format!("waits for {}", parts.join(" and ")))
    }

    fn view(&self) -> View {
        let mut view = View::default();
        for held in self.held.values() {
            view.take(&held.placement);
        }
        view
    }
}

fn nodes_only(ask: &Ask) -> Ask {
    Ask {
        locks: BTreeMap::new(),
        ..ask.clone()
    }
}

fn words(owners: &BTreeSet<&str>) -> String {
    owners.iter().copied().collect::<Vec<_>>().join(", ")
}

/// Gives an ask all that it wants beside what is taken, or says what is missing.
fn place(offers: &BTreeMap<String, Offer>, ask: &Ask, view: &View) -> Result<Placement, String> {
    let mut placement = Placement::default();
    let mut view = view.clone();
    for (lock, shared) in &ask.locks {
        if view.locks.get(lock).is_some_and(|all| !(*shared && *all)) {
            return Err(format!("lock {lock}"));
        }
        if let Some(node) = node_of(lock) {
            let used = view.nodes.get(node).cloned().unwrap_or_default();
            if used.alone || (!shared && used.holders > 0) {
                return Err(format!("lock {lock}"));
            }
            let share = Share {
                alone: !shared,
                units: BTreeMap::new(),
            };
            placement.nodes.insert(node.to_owned(), share);
        }
        placement.locks.insert(lock.clone(), *shared);
    }
    for wish in &ask.nodes {
        let mut found = fitting(offers, wish, &ask.labels, &view, &placement);
        if (found.len() as u64) < u64::from(wish.least) {
            return Err(missing(wish, &ask.labels, found.len()));
        }
        found.truncate(usize::try_from(wish.most).unwrap_or(usize::MAX));
        for (name, share) in found {
            let used = view.nodes.entry(name.clone()).or_default();
            used.holders += 1;
            placement.nodes.insert(name, share);
        }
    }
    Ok(placement)
}

/// What a waiting ask keeps others from taking: its locks, and the fewest nodes that it can do with, free ones first.
fn keep(offers: &BTreeMap<String, Offer>, ask: &Ask, view: &View) -> Placement {
    let mut kept = Placement {
        locks: ask.locks.clone(),
        ..Placement::default()
    };
    for (lock, shared) in &ask.locks {
        if let Some(node) = node_of(lock) {
            let share = Share {
                alone: !shared,
                units: BTreeMap::new(),
            };
            kept.nodes.insert(node.to_owned(), share);
        }
    }
    for wish in &ask.nodes {
        let mut chosen = fitting(offers, wish, &ask.labels, view, &kept);
        let names: BTreeSet<String> = chosen.iter().map(|(name, _)| name.clone()).collect();
        let all = fitting(offers, wish, &ask.labels, &View::default(), &kept);
        chosen.extend(all.into_iter().filter(|(name, _)| !names.contains(name)));
        chosen.truncate(usize::try_from(wish.least).unwrap_or(usize::MAX));
        kept.nodes.extend(chosen);
    }
    kept
}

fn missing(wish: &NodesWish, labels: &NodeLabels, found: usize) -> String {
    let units = match wish.units {
        UnitsWish::Count(0) => String::new(),
        UnitsWish::Count(count) => format!(" with {count} free units of one kind on each"),
        UnitsWish::All => " with free units".to_owned(),
    };
    let kind = if wish.containers {
        " that run containers"
    } else {
        ""
    };
    let chosen = if labels.is_empty() {
        String::new()
    } else {
        format!(" among those with the labels {labels}, which the configuration asks for")
    };
    format!(
        "{} Ready, schedulable worker nodes{kind}{units} are needed, and there are {found}{chosen}",
        wish.least
    )
}

/// Nodes that fit a wish beside what is taken, best first, with what goes with each.
fn fitting(
    offers: &BTreeMap<String, Offer>,
    wish: &NodesWish,
    labels: &NodeLabels,
    view: &View,
    own: &Placement,
) -> Vec<(String, Share)> {
    let unused = Use::default();
    let open: Vec<(&String, &Offer, &Use)> = offers
        .iter()
        .filter(|(name, offer)| offer.usable && !own.nodes.contains_key(*name))
        .filter(|(_, offer)| !(wish.containers && offer.played) && labels.fit(&offer.labels))
        .map(|(name, offer)| (name, offer, view.nodes.get(name).unwrap_or(&unused)))
        .filter(|(_, _, used)| !(used.alone || wish.alone && used.holders > 0))
        .collect();
    let free = |offer: &Offer, used: &Use, kind: &str| -> u64 {
        let there = offer.units.get(kind).copied().unwrap_or_default();
        there.saturating_sub(used.units.get(kind).copied().unwrap_or_default())
    };
    let share = |units: BTreeMap<String, u64>| Share {
        alone: wish.alone,
        units,
    };
    let mut found: Vec<(u32, String, Share)> = match wish.units {
        UnitsWish::Count(0) => open
            .into_iter()
            .map(|(name, _, used)| (used.holders, name.clone(), share(BTreeMap::new())))
            .collect(),
        UnitsWish::All => open
            .into_iter()
            .filter_map(|(name, offer, used)| {
                let units: BTreeMap<String, u64> = offer
                    .units
                    .keys()
                    .map(|kind| (kind.clone(), free(offer, used, kind)))
                    .filter(|(_, count)| *count > 0)
                    .collect();
                (!units.is_empty()).then(|| (used.holders, name.clone(), share(units)))
            })
            .collect(),
        UnitsWish::Count(count) => {
            let wanted = u64::from(count);
            let kinds: BTreeSet<&String> = open
                .iter()
                .flat_map(|(_, offer, _)| offer.units.keys())
                .collect();
            let of_kind = |kind: &String| -> Vec<(u32, String, Share)> {
                open.iter()
                    .filter(|(_, offer, used)| free(offer, used, kind) >= wanted)
                    .map(|(name, _, used)| {
                        let units = BTreeMap::from([(kind.clone(), wanted)]);
                        (used.holders, (*name).clone(), share(units))
                    })
                    .collect()
            };
            let mut best = Vec::new();
            for kind in kinds {
                let with_kind = of_kind(kind);
                if with_kind.len() > best.len() {
                    best = with_kind;
                }
            }
            best
        }
    };
    // Nodes that nobody uses first, so that probes come into each other's way as little as possible.
    found.sort_by(|a, b| (a.0, &a.1).cmp(&(b.0, &b.1)));
    found
        .into_iter()
        .map(|(_, name, share)| (name, share))
        .collect()
}

#[cfg(test)]
mod tests;
