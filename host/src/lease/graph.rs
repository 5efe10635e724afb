//! How long a run must take because of its leases: reckoned from manifests before it, and from what was held after it.
//!
//! Both are lower bounds, the longest of three: one probe from end to end; one lock, held exclusively by one after the other;
//! and the nodes, which can be held alone by so many at one time as there are. What shares does not add up.

use super::{Held, Wait};
use crate::manifest::{Manifest, UnitsWish, Wish};
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::Duration;

/// One lease of one probe in a plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Row {
    /// What is held: `nodes`, or a lock.
    pub what: String,
    /// Who holds it.
    pub probe: String,
    /// Name of the lease in its manifest.
    pub lease: String,
    /// How: `alone`, `shared`, `exclusive`.
    pub how: &'static str,
    /// `2 to 16 nodes, 1 unit on each`; empty for a lock.
    pub amount: String,
    /// For how long, usually, in milliseconds.
    pub for_ms: u64,
}

/// The leases of a plan and its longest path.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Graph {
    /// Every lease, those of one thing together.
    pub rows: Vec<Row>,
    /// The usual time of each probe in milliseconds, where its manifest says it.
    pub usual_ms: BTreeMap<String, u64>,
    /// The longest path in milliseconds: no order of the probes is faster.
    pub longest_ms: u64,
    /// What makes it: `probe gang-scheduling`, `lock preemption`, `4 nodes`.
    pub because: String,
    /// Time for which nodes are held alone, summed over nodes, in milliseconds.
    pub alone_node_ms: u64,
}

impl Graph {
    /// Reckons with so many worker nodes, once they are known.
    pub fn on_nodes(&mut self, nodes: u64) {
        if let Some(ms) = self.alone_node_ms.checked_div(nodes)
            && ms > self.longest_ms
        {
            self.longest_ms = ms;
            let noun = if nodes == 1 { "node" } else { "nodes" };
            self.because = format!("{nodes} {noun}");
        }
    }

    /// Whether somebody holds nodes alone, so that their number matters.
    #[must_use]
    pub fn wants_nodes(&self) -> bool {
        self.alone_node_ms > 0
    }
}

/// The longest of several times with a name for each.
#[derive(Debug, Default)]
struct Longest {
    ms: u64,
    because: String,
}

impl Longest {
    fn with(&mut self, ms: u64, because: impl FnOnce() -> String) {
        if ms > self.ms {
            *self = Longest {
                ms,
                because: because(),
            };
        }
    }
}

/// Reckons from manifests, without nodes: how many there are, only a cluster can tell ([`Graph::on_nodes`]).
pub fn planned<'a>(manifests: impl IntoIterator<Item = &'a Manifest>) -> Graph {
    let mut graph = Graph::default();
    let mut longest = Longest::default();
    let mut locks: BTreeMap<String, u64> = BTreeMap::new();
    for manifest in manifests {
        let longest_lease = manifest.leases.iter().map(|line| line.usual).max();
        if let Some(usual) = manifest.budget.usual.or(longest_lease) {
            let ms = millis(usual);
            longest.with(ms, || format!("probe {}", manifest.id));
            graph.usual_ms.insert(manifest.id.clone(), ms);
        }
        for line in &manifest.leases {
            let ms = millis(line.usual);
            let (what, how, amount) = match &line.wish {
                Wish::Lock { name, shared: true } => (name.clone(), "shared", String::new()),
                Wish::Lock { name, .. } => {
                    *locks.entry(name.clone()).or_default() += ms;
                    (name.clone(), "exclusive", String::new())
                }
                Wish::Nodes(wish) => {
                    if wish.alone {
                        graph.alone_node_ms += u64::from(wish.least) * ms;
                    }
                    let count = match (wish.least, wish.most) {
                        (1, 1) => "1 node".to_owned(),
                        (least, most) if least == most => format!("{least} nodes"),
                        (least, most) => format!("{least} to {most} nodes"),
                    };
                    let units = match wish.units {
                        UnitsWish::Count(0) => String::new(),
                        UnitsWish::Count(1) => ", 1 unit on each".to_owned(),
                        UnitsWish::Count(units) => format!(", {units} units on each"),
                        UnitsWish::All => ", all free units".to_owned(),
                    };
                    let how = if wish.alone { "alone" } else { "shared" };
                    let kind = if wish.containers {
                        " with containers"
                    } else {
                        ""
                    };
                    ("nodes".to_owned(), how, format!("{count}{kind}{units}"))
                }
            };
            graph.rows.push(Row {
                what,
                probe: manifest.id.clone(),
                lease: line.name.clone(),
                how,
                amount,
                for_ms: ms,
            });
        }
    }
    for (lock, ms) in locks {
        longest.with(ms, || format!("lock {lock}"));
    }
    // Nodes first, then locks by name; within each the longest first.
    graph.rows.sort_by(|a, b| {
        (
            a.what != "nodes",
            &a.what,
            std::cmp::Reverse(a.for_ms),
            &a.probe,
            &a.lease,
        )
            .cmp(&(
                b.what != "nodes",
                &b.what,
                std::cmp::Reverse(b.for_ms),
                &b.probe,
                &b.lease,
            ))
    });
    graph.longest_ms = longest.ms;
    graph.because = longest.because;
    graph
}

/// Reckons from what was held. `probes` are the attempts with the time that each took, waiting included.
pub fn seen(probes: &[(String, Duration)], held: &[Held], waits: &[Wait]) -> Duration {
    let mut longest = Duration::ZERO;
    let mut waited: BTreeMap<&str, Duration> = BTreeMap::new();
    for wait in waits {
        *waited.entry(&wait.probe).or_default() += wait.time;
    }
    for (probe, time) in probes {
        let waited = waited.get(probe.as_str()).copied().unwrap_or_default();
        longest = longest.max(time.saturating_sub(waited));
    }
    let mut sums: BTreeMap<(&str, &str), Duration> = BTreeMap::new();
    for held in held {
        for lock in held.locks.iter().filter(|(_, shared)| !**shared) {
            *sums.entry(("lock", lock.0)).or_default() += held.time;
        }
        for node in held.nodes.iter().filter(|(_, alone)| **alone) {
            *sums.entry(("node", node.0)).or_default() += held.time;
        }
    }
    sums.into_values().fold(longest, Duration::max)
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::{LeaseLine, NodesWish};

    fn held(probe: &str, nodes: &[(&str, bool)], locks: &[(&str, bool)], seconds: u64) -> Held {
        let map = |list: &[(&str, bool)]| {
            list.iter()
                .map(|(name, how)| ((*name).to_owned(), *how))
                .collect()
        };
        Held {
            probe: probe.to_owned(),
            nodes: map(nodes),
            locks: map(locks),
            time: Duration::from_secs(seconds),
        }
    }

    fn manifest(id: &str, usual: u64, leases: &[LeaseLine]) -> Manifest {
        let mut manifest = crate::run::plan::tests::manifest(id, crate::model::Reach::Read, 300);
        manifest.budget.usual = Some(Duration::from_secs(usual));
        manifest.leases = leases.to_vec();
        manifest
    }

    fn line(name: &str, wish: Wish, seconds: u64) -> LeaseLine {
        LeaseLine {
            name: name.to_owned(),
            wish,
            usual: Duration::from_secs(seconds),
        }
    }

    #[test]
    fn the_longest_path_is_a_probe_a_lock_or_the_nodes() {
        let order = |shared| Wish::Lock {
            name: "preemption".to_owned(),
            shared,
        };
        let nodes = Wish::Nodes(NodesWish {
            least: 2,
            most: 16,
            units: UnitsWish::Count(1),
            alone: true,
            containers: false,
        });
        let a = manifest("a", 70, &[line("order", order(false), 60)]);
        let b = manifest("b", 50, &[line("order", order(true), 40)]);
        let graph = planned([&a, &b]);
        assert_eq!(
            (graph.longest_ms, graph.because.as_str()),
            (70_000, "probe a")
        );
        let c = manifest(
            "c",
            65,
            &[line("order", order(false), 30), line("gang", nodes, 60)],
        );
        let mut graph = planned([&a, &b, &c]);
        assert_eq!(
            (graph.longest_ms, graph.because.as_str()),
            (90_000, "lock preemption")
        );
        let rows: Vec<String> = graph
            .rows
            .iter()
            .map(|row| format!("{} {} {} {}", row.what, row.probe, row.how, row.amount))
            .collect();
        assert_eq!(
            rows,
            [
                "nodes c alone 2 to 16 nodes, 1 unit on each",
                "preemption a exclusive ",
                "preemption b shared ",
                "preemption c exclusive ",
            ]
        );
        assert!(graph.wants_nodes());
        graph.on_nodes(0);
        graph.on_nodes(2);
        assert_eq!(graph.longest_ms, 90_000);
        graph.on_nodes(1);
        assert_eq!(
            (graph.longest_ms, graph.because.as_str()),
            (120_000, "1 node")
        );
    }

    #[test]
    fn what_excludes_adds_up_and_what_shares_does_not() {
        let second = Duration::from_secs(1);
        let probes = [("a".to_owned(), 50 * second), ("b".to_owned(), 70 * second)];
        let waits = [Wait {
            probe: "b".to_owned(),
            time: 40 * second,
        }];
        assert_eq!(
            seen(&probes, &[], &waits),
            50 * second,
            "waiting is no work"
        );
        let locks = [
            held("a", &[], &[("preemption", false), ("x", true)], 40),
            held("b", &[], &[("preemption", false), ("x", true)], 30),
        ];
        assert_eq!(seen(&probes, &locks, &waits), 70 * second);
        let nodes = [
            held("a", &[("n0", true), ("n1", true)], &[], 45),
            held("b", &[("n1", true), ("n2", false)], &[], 30),
            held("c", &[("n2", false)], &[], 60),
        ];
        assert_eq!(seen(&probes, &nodes, &waits), 75 * second);
    }
}
