//! Leases through the door: recorded, replayed, refused.

use super::*;
use crate::capability::cases;
use crate::capability::testing::Rig;
use crate::manifest::Wish;
use crate::model::Conclusion;
use crate::recording::format::ReplyKind;

fn rig() -> Rig {
    let line = |name: &str, lock: &str| LeaseLine {
        name: name.to_owned(),
        wish: Wish::Lock {
            name: lock.to_owned(),
            shared: false,
        },
        usual: Duration::from_secs(9),
    };
    Rig::with_leases(vec![
        line("order", "preemption"),
        line("scale", "autoscaler"),
    ])
}

fn names(list: &[&str]) -> Vec<String> {
    list.iter().map(|name| (*name).to_owned()).collect()
}

#[tokio::test]
async fn a_lease_is_recorded_and_replayed() {
    let mut rig = rig();
    let both = names(&["order", "scale"]);
    let lease = acquire(&rig.door, &both, 1000).await.unwrap();
    let granted = lease.granted().to_owned();
    assert!(
        granted.contains(r#""locks":["autoscaler","preemption"]"#),
        "{granted}"
    );
    let second = acquire(&rig.door, &both, 1000).await;
    assert!(
        matches!(&second, Err(Failure::Refused(text)) if text.contains("holds lease 1")),
        "{second:?}"
    );
    release(&rig.door, &lease).unwrap();
    release(&rig.door, &lease).unwrap();
    let again = acquire(&rig.door, &both, 1000).await.unwrap();
    assert_eq!(again.number, 2);
    let replay = rig.replay();
    let entries = rig.entries();
    let fact = entries[0].facts.lease.as_ref().unwrap();
    assert_eq!((fact.number, fact.locks.len()), (1, 2));
    assert!(
        !entries[0].facts.live,
        "a lease is no answer of the platform"
    );
    let lease = acquire(&replay, &both, 1000).await.unwrap();
    assert_eq!(lease.granted(), granted);
    assert!(acquire(&replay, &both, 1000).await.is_err());
    release(&replay, &lease).unwrap();
    release(&replay, &lease).unwrap();
    acquire(&replay, &both, 1000).await.unwrap();
    assert_eq!(replay.finish_replay(), Ok(vec![]));
}

#[tokio::test]
async fn what_is_not_declared_is_refused_and_what_makes_no_sense_is_malformed() {
    let rig = rig();
    let refused = acquire(&rig.door, &names(&["order", "gang"]), 0)
        .await
        .err();
    assert!(
        matches!(&refused, Some(Failure::Refused(text)) if text.contains("[[leases]] name = \"gang\"")),
        "{refused:?}"
    );
    let long = "x".repeat(300);
    let many: Vec<String> = (0..17).map(|n| n.to_string()).collect();
    for bad in [
        names(&[]),
        names(&["order", "order"]),
        names(&[&long]),
        many,
    ] {
        let failure = acquire(&rig.door, &bad, 0).await.err();
        assert!(
            matches!(failure, Some(Failure::Malformed(_))),
            "{failure:?}"
        );
    }
    // Nothing was taken on the way.
    assert!(acquire(&rig.door, &names(&["order"]), 0).await.is_ok());
}

#[tokio::test]
async fn a_stop_ends_a_wait_and_the_end_of_the_attempt_gives_back() {
    let mut rig = rig();
    let other = rig.leases.holder("other");
    let line = rig.door.manifest().leases[0].clone();
    other.acquire(&[&line], Duration::ZERO).await.unwrap();
    let busy = acquire(&rig.door, &names(&["order"]), 0).await.err();
    assert_eq!(
        busy,
        Some(Failure::Other(
            "busy: waits for lock preemption held by other".to_owned()
        ))
    );
    let scale = acquire(&rig.door, &names(&["scale"]), 0).await.unwrap();
    release(&rig.door, &scale).unwrap();
    let order = names(&["order"]);
    let (stopped, ()) = tokio::join!(acquire(&rig.door, &order, u32::MAX), async {
        rig.stop.stop()
    });
    assert_eq!(stopped.err(), Some(Failure::Stopping));
    other.release_all();
    assert!(
        other.acquire(&[&line], Duration::ZERO).await.is_ok(),
        "the one that was stopped left the queue"
    );
    rig.replay();
    let kinds: Vec<ReplyKind> = rig.entries().iter().map(|entry| entry.result).collect();
    assert_eq!(kinds[0], ReplyKind::Other);
}

#[tokio::test(start_paused = true)]
async fn waiting_costs_no_wall_time() {
    let rig = rig();
    let other = rig.leases.holder("other");
    let line = rig.door.manifest().leases[0].clone();
    other.acquire(&[&line], Duration::ZERO).await.unwrap();
    let before = rig.door.deadline();
    // Longer than the whole budget.
    let order = names(&["order"]);
    let busy = acquire(&rig.door, &order, 900_000).await.err();
    assert!(matches!(busy, Some(Failure::Other(_))), "{busy:?}");
    assert_eq!(rig.door.deadline() - before, Duration::from_secs(900));
    let _ = acquire(&rig.door, &names(&["scale"]), 900_000)
        .await
        .unwrap();
    let moved = rig.door.deadline() - before;
    assert!(
        moved < Duration::from_secs(901),
        "what was not waited is not lent: {moved:?}"
    );
}

#[tokio::test]
async fn a_fail_without_leased_nodes_looks_at_nothing() {
    let mut rig = rig();
    let case = cases::open(&rig.door, "first", "").unwrap();
    acquire(&rig.door, &names(&["order"]), 0).await.unwrap();
    cases::conclude(&rig.door, &case, Conclusion::Fail)
        .await
        .unwrap();
    rig.replay();
    assert!(
        rig.entries()
            .iter()
            .all(|entry| entry.facts.changed.is_empty())
    );
}
