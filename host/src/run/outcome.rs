//! How an attempt ended, in words that name the cause and what to change: from traps, limits and the door's own endings to
//! an [`Outcome`]. Says nothing about the platform; that is [`crate::judge`]'s matter.

use crate::contract::{DoorEnded, GuestState, TooManyHandles, TooMuchText};
use crate::engine::limits::{MAX_ARGUMENT_BYTES, MAX_HANDLES, MAX_TABLE_ELEMENTS};
use crate::gate::Ended;
use crate::model::Outcome;
use crate::recording::format::Limits;
use wasmtime::Trap;

/// wasmtime's words when a guest passes more bytes to the host than [`MAX_ARGUMENT_BYTES`]; there is no type for it.
const HOSTCALL_FUEL: &str = "fuel allocated for hostcalls has been exhausted";

/// wasmtime's words when the guest drops or makes handles beyond its table.
const HANDLE_LIMIT: &str = "resource table has no free keys";

/// How the guest ended, before it is put into words.
#[derive(Debug)]
pub(crate) enum GuestEnd {
    /// `check` returned.
    Returned(Result<(), String>),
    /// It trapped, or could not be instantiated.
    Trapped(wasmtime::Error),
    /// The wall budget was over.
    WallOver,
    /// The run was stopped, and the guest did not return in time.
    Stopped,
}

/// What the store knows about the end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Traces {
    /// Size in bytes that was asked for when memory was last denied.
    pub(crate) denied_memory: Option<usize>,
    /// Elements that were asked for when a table was last denied.
    pub(crate) denied_table: Option<usize>,
    /// The last line of level `error`.
    pub(crate) last_error: Option<String>,
}

impl Traces {
    pub(crate) fn of(state: &GuestState) -> Traces {
        Traces {
            denied_memory: state.limits.denied_memory,
            denied_table: state.limits.denied_table,
            last_error: state.last_error.clone(),
        }
    }
}

/// Puts the end into words. `stopping` says whether the run was asked to stop: what a guest does then says nothing about it.
pub(crate) fn classify(
    end: &GuestEnd,
    traces: &Traces,
    limits: &Limits,
    stopping: bool,
) -> Outcome {
    match end {
        GuestEnd::Stopped => Outcome::Interrupted,
        _ if stopping => Outcome::Interrupted,
        GuestEnd::Returned(Ok(())) => Outcome::Concluded,
        GuestEnd::Returned(Err(text)) => Outcome::ProbeError(text.clone()),
        GuestEnd::WallOver => Outcome::OverBudget(wall(limits)),
        GuestEnd::Trapped(error) => trapped(error, traces, limits),
    }
}

fn wall(limits: &Limits) -> String {
    format!(
        "wall time: {} are over; raise `wall` under [budget] in probe.toml",
        seconds(limits.wall_ms)
    )
}

fn trapped(error: &wasmtime::Error, traces: &Traces, limits: &Limits) -> Outcome {
    if let Some(DoorEnded(ended)) = error.downcast_ref() {
        return match ended {
            Ended::OverBudget(text) => Outcome::OverBudget(text.clone()),
            Ended::Diverged(text) => Outcome::Trapped(format!("replay: {text}")),
            Ended::Unrecorded(text) => Outcome::Trapped(format!("recording: {text}")),
        };
    }
    let text = format!("{error:#}");
    if error.is::<TooManyHandles>() || text.contains(HANDLE_LIMIT) {
        return Outcome::OverBudget(format!(
            "handles: more than {MAX_HANDLES} queries, targets, cursors, watches and cases at one time; drop those that are no longer used"
        ));
    }
    if error.is::<TooMuchText>() {
        return Outcome::OverBudget(format!("host memory: {error}; build fewer or smaller ones"));
    }
    if text.contains(HOSTCALL_FUEL) {
        return Outcome::OverBudget(format!(
            "argument too large: a host call takes at most {} MiB; pass less at one time",
            MAX_ARGUMENT_BYTES >> 20
        ));
    }
    match error.downcast_ref::<Trap>() {
        Some(Trap::Interrupt) => Outcome::OverBudget(format!(
            "cpu: {} of computing are used up; raise `cpu` under [budget] in probe.toml",
            seconds(limits.cpu_ms)
        )),
        Some(Trap::StackOverflow) => Outcome::Trapped(
            "stack: call stack exhausted, most likely by endless recursion".to_owned(),
        ),
        Some(trap) => {
            denied(traces, limits).unwrap_or_else(|| Outcome::Trapped(words(*trap, error, traces)))
        }
        // Not a trap of the code: instantiation failed, or a host function gave an error.
        None => denied(traces, limits).unwrap_or(Outcome::Trapped(text)),
    }
}

/// A runtime that gets no memory just aborts; what was denied before names the cause.
fn denied(traces: &Traces, limits: &Limits) -> Option<Outcome> {
    if let Some(asked) = traces.denied_memory {
        return Some(Outcome::OverBudget(format!(
            "memory: {} MiB were asked for and {} MiB are allowed; raise `memory` under [budget] in probe.toml",
            asked.div_ceil(1 << 20),
            limits.memory_bytes >> 20
        )));
    }
    traces.denied_table.map(|asked| {
        Outcome::OverBudget(format!(
            "table: {asked} elements were asked for and {MAX_TABLE_ELEMENTS} are allowed for every probe"
        ))
    })
}

fn words(trap: Trap, error: &wasmtime::Error, traces: &Traces) -> String {
    match (trap, &traces.last_error) {
        (Trap::UnreachableCodeReached, Some(message)) => format!("panic: {message}"),
        (Trap::UnreachableCodeReached, None) => format!(
            "abort without a message (`unreachable`){}; the SDK's panic hook would name the cause",
            place(error)
        ),
        (Trap::MemoryOutOfBounds, _) => format!(
            "stack: access outside of memory{}, most likely the shadow stack after deep recursion",
            place(error)
        ),
        (trap, _) => format!("{trap}{}", place(error)),
    }
}

/// The innermost function of the guest, where its name section has one.
fn place(error: &wasmtime::Error) -> String {
    error
        .downcast_ref::<wasmtime::WasmBacktrace>()
        .and_then(|trace| trace.frames().iter().find_map(|frame| frame.func_name()))
        .map(|name| format!(" in {name}"))
        .unwrap_or_default()
}

fn seconds(ms: u64) -> String {
    if ms.is_multiple_of(1000) {
        format!("{} s", ms / 1000)
    } else {
        format!("{ms} ms")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> Limits {
        Limits {
            wall_ms: 300_000,
            cpu_ms: 1500,
            memory_bytes: 64 << 20,
            calls: 10,
            seen_bytes: 10,
        }
    }

    fn detail(end: &GuestEnd, traces: &Traces) -> (&'static str, String) {
        let outcome = classify(end, traces, &limits(), false);
        (
            outcome.word(),
            outcome.detail().unwrap_or_default().to_owned(),
        )
    }

    fn trap(trap: Trap) -> GuestEnd {
        GuestEnd::Trapped(trap.into())
    }

    #[test]
    fn each_budget_names_its_line_of_the_manifest() {
        let none = Traces::default();
        for (end, traces, words) in [
            (GuestEnd::WallOver, &none, ["300 s", "`wall`"]),
            (trap(Trap::Interrupt), &none, ["1500 ms", "`cpu`"]),
            (
                trap(Trap::UnreachableCodeReached),
                &Traces {
                    denied_memory: Some(65 << 20),
                    ..none.clone()
                },
                ["65 MiB", "`memory`"],
            ),
        ] {
            let (word, detail) = detail(&end, traces);
            assert_eq!(word, "over-budget");
            for expected in words.iter().chain(&["[budget] in probe.toml"]) {
                assert!(detail.contains(expected), "{detail}");
            }
        }
    }

    #[test]
    fn a_panic_is_told_in_its_own_words() {
        let traces = Traces {
            last_error: Some("panicked at src/lib.rs:7: no such node".to_owned()),
            ..Traces::default()
        };
        let (word, detail) = detail(&trap(Trap::UnreachableCodeReached), &traces);
        assert_eq!(word, "trapped");
        assert!(detail.contains("no such node"));
    }

    #[test]
    fn both_kinds_of_deep_recursion_say_stack() {
        for kind in [Trap::StackOverflow, Trap::MemoryOutOfBounds] {
            assert!(
                detail(&trap(kind), &Traces::default())
                    .1
                    .starts_with("stack")
            );
        }
    }

    #[test]
    fn a_probe_that_ends_while_the_run_stops_was_interrupted() {
        for end in [
            GuestEnd::Returned(Err("stopping".to_owned())),
            GuestEnd::WallOver,
            trap(Trap::Interrupt),
        ] {
            assert_eq!(
                classify(&end, &Traces::default(), &limits(), true),
                Outcome::Interrupted
            );
        }
    }

    #[test]
    fn endings_by_the_door_keep_its_words() {
        let ended = |ended| GuestEnd::Trapped(DoorEnded(ended).into());
        let none = Traces::default();
        assert_eq!(
            detail(
                &ended(Ended::OverBudget("budget `calls`".to_owned())),
                &none
            ),
            ("over-budget", "budget `calls`".to_owned())
        );
        assert_eq!(
            detail(&ended(Ended::Diverged("x".to_owned())), &none).0,
            "trapped"
        );
    }
}
