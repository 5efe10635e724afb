//! Attacks on the host itself: time, memory, stack, handles and floods.

use crate::bindings::karat::probe::{cases, clock, kube_read, leases, log, pods, run, types, wait};
use std::hint::black_box;

/// Does the named deed. Returns only if the host let it.
pub(crate) fn commit(attack: &str) -> Result<(), String> {
    match attack {
        "endless-loop" => endless_loop(),
        "memory-bomb" => memory_bomb(),
        "stack-overflow" => {
            black_box(recurse(0));
        }
        "wasm-stack-overflow" => {
            black_box(plain_recursion(black_box(1)));
        }
        "panic" => panic!("the guest panics on purpose"),
        "trap" => trap(),
        "sleep-for-ever" => loop {
            let _ = wait::any(&[], u32::MAX);
        },
        "a-million-calls" => {
            for _ in 0..1_000_000 {
                black_box(clock::elapsed());
            }
        }
        "huge-argument" => {
            let text = "x".repeat(100 << 20);
            log::write("info", &text);
        }
        "log-flood" => {
            let line = "flood ".repeat(1_000);
            for _ in 0..10_000 {
                log::write("info", &line);
            }
        }
        "ten-thousand-watches" => return ten_thousand_watches(),
        "ten-thousand-leases" => return ten_thousand_leases(),
        "ten-thousand-logs" => return ten_thousand_logs(),
        "foreign-handle" => raw::use_foreign_handle(),
        "ten-thousand-handles" => {
            let kept: Vec<_> = (0..10_000_000)
                .map(|_| kube_read::Query::new("v1", "namespaces"))
                .collect();
            black_box(kept);
        }
        "pass-without-effect" => {
            let case = cases::open("lie", "").map_err(|e| format!("{e:?}"))?;
            case.observe("proof", "I say so");
            cases::Case::conclude(case, &cases::Outcome::Pass).map_err(|e| format!("{e:?}"))?;
        }
        "two-cases-at-once" => {
            let first = cases::open("lie", "").map_err(|e| format!("{e:?}"))?;
            let second = cases::open("other", "").err().map(|e| format!("{e:?}"));
            cases::Case::conclude(first, &cases::Outcome::Pass).map_err(|e| format!("{e:?}"))?;
            return Err(second.unwrap_or_else(|| "the host let two cases be open".into()));
        }
        "error" => return Err("the guest gives up".into()),
        "nothing" => {}
        other => return Err(format!("no such attack: {other}")),
    }
    Ok(())
}

fn endless_loop() {
    let mut n = 0u64;
    loop {
        n = black_box(n.wrapping_add(1));
    }
}

fn memory_bomb() {
    let mut hoard: Vec<Vec<u8>> = Vec::new();
    loop {
        hoard.push(black_box(vec![1; 1 << 20]));
    }
}

/// Recursion with a large frame, on the shadow stack in linear memory.
fn recurse(depth: u64) -> u64 {
    let frame = black_box([depth; 512]);
    if black_box(depth) == u64::MAX {
        0
    } else {
        recurse(depth + 1) + frame[(depth % 512) as usize]
    }
}

/// Recursion with no frame in linear memory, on the stack of the engine.
fn plain_recursion(n: u64) -> u64 {
    if black_box(n) == 0 {
        0
    } else {
        plain_recursion(black_box(n)) + 1
    }
}

fn ten_thousand_watches() -> Result<(), String> {
    let mut kept = Vec::new();
    for n in 0..10_000 {
        let query = kube_read::Query::new("v1", "namespaces");
        match query.open_watch() {
            Ok(watch) => kept.push(watch),
            Err(error) => return Err(format!("watch {n}: {error:?}")),
        }
    }
    Ok(())
}

/// Takes one, never gives it back, and asks on: for more of the same, for names that nobody declared, for nothing, for ever.
fn ten_thousand_leases() -> Result<(), String> {
    let kept = leases::acquire(&["mine".into()], 0).map_err(|e| format!("{e:?}"))?;
    for n in 0..10_000 {
        let name = if n % 2 == 0 {
            "mine".into()
        } else {
            format!("other-{n}")
        };
        match leases::acquire(&[name], u32::MAX) {
            Err(types::Error::Refused(_)) => {}
            Err(types::Error::Budget(text)) => return Err(text),
            other => return Err(format!("lease {n}: {:?}", other.map(|_| "granted"))),
        }
    }
    std::mem::forget(kept);
    Ok(())
}

/// Opens logs that never end, keeps every handle and reads none.
fn ten_thousand_logs() -> Result<(), String> {
    let namespace = run::namespace("main").map_err(|e| format!("{e:?}"))?;
    let mut kept = Vec::new();
    for n in 0..10_000 {
        let query = pods::LogQuery::new(&namespace, "any");
        query.follow();
        match query.open() {
            Ok(stream) => kept.push(stream),
            Err(error) => return Err(format!("log {n}: {error:?}")),
        }
    }
    Ok(())
}

mod raw {
    #![expect(
        unsafe_code,
        reason = "the attack is to call the host with a handle that nobody gave us"
    )]

    #[link(wasm_import_module = "karat:probe/kube-read@0.1.0-dev.1")]
    unsafe extern "C" {
        #[link_name = "[resource-drop]query"]
        fn drop_query(handle: u32);
    }

    pub(super) fn use_foreign_handle() {
        // SAFETY: the call takes a number and touches no memory of ours; the host must refuse the number.
        unsafe { drop_query(4_711) }
    }
}

/// A bare `unreachable` on wasm, without the panic machinery.
fn trap() {
    #[cfg(target_arch = "wasm32")]
    core::arch::wasm32::unreachable();
    #[cfg(not(target_arch = "wasm32"))]
    std::process::abort();
}
