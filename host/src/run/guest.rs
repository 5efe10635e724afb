//! One guest from its first instruction to its last: the same code for a live attempt and for a replay, so that a replay
//! runs under the limits of the run.

use super::outcome::{GuestEnd, Traces};
use crate::component::Probe;
use crate::contract::GuestState;
use crate::engine::Engine;
use crate::gate::{Door, StopSignal};
use crate::recording::format::Limits;
use std::pin::pin;
use std::time::Duration;
use tokio::time::{Instant, sleep, sleep_until};

/// How long a guest may go on when its time is over or the run stops. Calls answer `budget` or `stopping` meanwhile; a write
/// that was under way has two seconds to end, and the guest must be able to hear of it.
const GRACE: Duration = Duration::from_millis(2500);

/// What is left of a guest.
#[derive(Debug)]
pub(crate) struct GuestRun {
    pub(crate) end: GuestEnd,
    pub(crate) traces: Traces,
    pub(crate) peak_memory_bytes: u64,
}

/// Runs the guest in a fresh store, which is gone when this returns: after a trap, a timeout or a stop as after success.
pub(crate) async fn run(
    engine: &Engine,
    probe: &Probe,
    door: Door,
    limits: &Limits,
    deadline: Instant,
    stop: &StopSignal,
) -> GuestRun {
    let mut store = GuestState::store(engine, door.clone(), limits);
    let end = {
        let check = pin!(probe.prepared().check(&mut store));
        tokio::select! {
            biased;
            returned = check => match returned {
                Ok(result) => GuestEnd::Returned(result),
                Err(error) => GuestEnd::Trapped(error),
            },
            () = async { stop.stopped().await; sleep(GRACE).await } => GuestEnd::Stopped,
            () = wall(&door, deadline) => GuestEnd::WallOver,
        }
    };
    let state = store.data();
    GuestRun {
        end,
        traces: Traces::of(state),
        peak_memory_bytes: state.limits.memory_peak(),
    }
}

/// Returns when the wall budget and the grace are over. Waiting for leases moves the deadline while we wait for it.
async fn wall(door: &Door, deadline: Instant) {
    loop {
        let until = deadline + door.paused() + GRACE;
        if Instant::now() >= until {
            return;
        }
        sleep_until(until).await;
    }
}

#[cfg(test)]
mod tests {
    use super::super::outcome::classify;
    use super::*;
    use crate::capability::testing::Rig;
    use crate::component::load;
    use crate::engine::EngineOptions;
    use crate::model::Outcome;
    use crate::test_guests::{Guest, core, manifest};

    const SMALL: Limits = Limits {
        wall_ms: 60_000,
        cpu_ms: 100,
        memory_bytes: 4 << 20,
        calls: 100,
        seen_bytes: 1 << 20,
    };

    struct Bed {
        engine: Engine,
    }

    impl Bed {
        fn new(on_demand: bool) -> Bed {
            Bed {
                engine: Engine::new(&EngineOptions {
                    on_demand,
                    ..EngineOptions::default()
                })
                .unwrap(),
            }
        }

        async fn run(&self, imports: &str, body: &str, limits: &Limits) -> (Outcome, GuestRun) {
            let text = core(imports, body);
            let bytes = Guest {
                world: "import log; import clock; import kube-read; export guest;",
                core: Some(&text),
                ..Guest::default()
            }
            .with(&manifest(&["kube-read"], ""));
            let probe = load(&self.engine, bytes).unwrap();
            let deadline = Instant::now() + Duration::from_millis(limits.wall_ms);
            let stop = StopSignal::never();
            let rig = Rig::new("");
            let door = rig.door.clone();
            let done = run(&self.engine, &probe, door, limits, deadline, &stop).await;
            (classify(&done.end, &done.traces, limits, false), done)
        }
    }

    const OK: &str = "(i32.store8 (i32.const 16) (i32.const 0)) (i32.const 16)";

    #[tokio::test]
    async fn a_guest_returns_and_its_memory_is_known() {
        let (outcome, run) = Bed::new(false).run("", OK, &SMALL).await;
        assert_eq!(outcome, Outcome::Concluded);
        assert_eq!(run.peak_memory_bytes, 1 << 16);
    }

    #[tokio::test]
    async fn a_guest_that_says_it_could_not_work_is_no_verdict() {
        let body = r#"
            (i32.store8 (i32.const 16) (i32.const 1))
            (i32.store (i32.const 20) (i32.const 64)) (i32.store (i32.const 24) (i32.const 2))
            (i32.store16 (i32.const 64) (i32.const 0x6f6e))
            (i32.const 16)"#;
        let (outcome, _) = Bed::new(false).run("", body, &SMALL).await;
        assert_eq!(outcome, Outcome::ProbeError("no".to_owned()));
    }

    /// Each kind of misbehaviour, in both ways of allocation; after each the engine runs the next guest.
    #[tokio::test]
    async fn each_kind_of_misbehaviour_is_named_and_harms_nobody() {
        const LOG: &str =
            r#"(import "karat:probe/log@0.1.0-dev.1" "write" (func $log (param i32 i32 i32 i32)))"#;
        const QUERY: &str = r#"(import "karat:probe/kube-read@0.1.0-dev.1" "[constructor]query" (func $query (param i32 i32 i32 i32) (result i32)))"#;
        let endless = "(loop $l (br $l)) unreachable";
        // Grows by a page until it is denied, then aborts as a language runtime does.
        let bomb =
            "(loop $l (br_if $l (i32.ne (memory.grow (i32.const 16)) (i32.const -1)))) unreachable";
        let survivor = format!("(drop (memory.grow (i32.const 1000))) {OK}");
        let table = "(if (i32.eq (table.grow $t (ref.null func) (i32.const 60000)) (i32.const -1)) (then unreachable)) unreachable";
        let deep = "(call $check)";
        let beyond = "(i32.load (i32.const 0x7fffffff))";
        let panic = "(i32.store (i32.const 64) (i32.const 0x6f727265)) (i32.store8 (i32.const 68) (i32.const 0x72)) \
                     (call $log (i32.const 64) (i32.const 5) (i32.const 64) (i32.const 5)) unreachable";
        // 5 MiB in one argument.
        let huge = format!(
            "(drop (memory.grow (i32.const 100))) (call $log (i32.const 0) (i32.const 5) (i32.const 0) (i32.const 5242880)) {OK}"
        );
        let handles = format!(
            "(local $n i32) (loop $l (drop (call $query (i32.const 0) (i32.const 1) (i32.const 0) (i32.const 1))) \
             (local.set $n (i32.add (local.get $n) (i32.const 1))) (br_if $l (i32.lt_u (local.get $n) (i32.const 11000)))) {OK}"
        );
        let wide = Limits {
            memory_bytes: 64 << 20,
            cpu_ms: 5000,
            ..SMALL
        };
        // Name, imports, body, limits, outcome, and what its detail must say.
        type Attack<'a> = (
            &'a str,
            &'a str,
            &'a str,
            &'a Limits,
            &'a str,
            &'a [&'a str],
        );
        let cases: [Attack<'_>; 10] = [
            (
                "endless loop",
                "",
                endless,
                &SMALL,
                "over-budget",
                &["cpu", "100 ms", "`cpu` under [budget]"],
            ),
            (
                "memory bomb",
                "",
                bomb,
                &SMALL,
                "over-budget",
                &["memory", "4 MiB are allowed", "`memory` under [budget]"],
            ),
            (
                "denied memory that is handled",
                "",
                &survivor,
                &SMALL,
                "concluded",
                &[],
            ),
            (
                "table bomb",
                "",
                table,
                &SMALL,
                "over-budget",
                &["table", "60001"],
            ),
            ("deep recursion", "", deep, &SMALL, "trapped", &["stack"]),
            (
                "out of bounds",
                "",
                beyond,
                &SMALL,
                "trapped",
                &["stack", "outside of memory"],
            ),
            ("panic", LOG, panic, &SMALL, "trapped", &["panic: error"]),
            (
                "abort",
                "",
                "unreachable",
                &SMALL,
                "trapped",
                &["abort without a message"],
            ),
            (
                "huge argument",
                LOG,
                &huge,
                &wide,
                "over-budget",
                &["argument too large", "4 MiB"],
            ),
            (
                "handles",
                QUERY,
                &handles,
                &wide,
                "over-budget",
                &["handles"],
            ),
        ];
        for on_demand in [false, true] {
            let bed = Bed::new(on_demand);
            for (name, imports, body, limits, word, texts) in cases {
                let (outcome, _) = bed.run(imports, body, limits).await;
                assert_eq!(outcome.word(), word, "{name}: {outcome:?}");
                for text in texts {
                    assert!(
                        outcome.detail().unwrap_or_default().contains(text),
                        "{name}: {text:?} is not in {outcome:?}"
                    );
                }
                let (next, _) = bed.run("", OK, &SMALL).await;
                assert_eq!(next, Outcome::Concluded, "after {name}");
            }
        }
    }

    #[tokio::test]
    async fn two_endless_loops_on_one_thread_both_end() {
        let bed = Bed::new(false);
        let body = "(loop $l (br $l)) unreachable";
        let (a, b) = tokio::join!(bed.run("", body, &SMALL), bed.run("", body, &SMALL));
        assert_eq!((a.0.word(), b.0.word()), ("over-budget", "over-budget"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_stop_ends_a_guest_that_does_not_listen() {
        let bed = Bed::new(false);
        let text = core("", "(loop $l (br $l)) unreachable");
        let bytes = Guest {
            core: Some(&text),
            ..Guest::default()
        }
        .with(&manifest(&[], ""));
        let probe = load(&bed.engine, bytes).unwrap();
        let limits = Limits {
            cpu_ms: 3_600_000,
            ..SMALL
        };
        let (handle, stop) = StopSignal::pair();
        handle.stop();
        let deadline = Instant::now() + Duration::from_secs(3600);
        let rig = Rig::new("");
        let guest = run(
            &bed.engine,
            &probe,
            rig.door.clone(),
            &limits,
            deadline,
            &stop,
        );
        // The guest keeps the runtime busy, so paused time does not advance by itself.
        let (done, ()) = tokio::join!(guest, tokio::time::advance(2 * GRACE));
        assert!(matches!(done.end, GuestEnd::Stopped));
    }

    #[tokio::test(start_paused = true)]
    async fn wall_time_ends_a_guest_whatever_its_cpu_budget() {
        let bed = Bed::new(false);
        let limits = Limits {
            cpu_ms: 3_600_000,
            wall_ms: 1000,
            ..SMALL
        };
        let guest = bed.run("", "(loop $l (br $l)) unreachable", &limits);
        let ((outcome, _), ()) = tokio::join!(guest, tokio::time::advance(2 * GRACE));
        assert!(
            outcome.detail().unwrap_or_default().contains("`wall`"),
            "{outcome:?}"
        );
    }
}
