use super::*;
use crate::engine::EngineOptions;
use crate::test_guests::{Guest, core, manifest};

fn refusal(bytes: &[u8]) -> String {
    inspect(bytes).unwrap_err().to_string()
}

#[track_caller]
fn says(text: &str, words: &[&str]) {
    for word in words {
        assert!(text.contains(word), "{word:?} is not in {text:?}");
    }
}

#[test]
fn a_proper_component_is_read_without_compiling() {
    let bytes = Guest {
        world: "import kube-read; import log; export guest;",
        ..Guest::default()
    }
    .with(&manifest(&["kube-read"], ""));
    let inspected = inspect(&bytes).unwrap();
    assert_eq!(inspected.manifest.id, "small");
    assert_eq!(inspected.digest, digest(&bytes));
    assert!(
        inspected
            .functions
            .contains(&"kube-read.query.get".to_owned())
    );
    assert!(inspected.functions.contains(&"log.write".to_owned()));
}

#[test]
fn and_then_compiled() {
    let engine = Engine::new(&EngineOptions {
        on_demand: true,
        ..EngineOptions::default()
    })
    .unwrap();
    let bytes = Guest {
        world: "import kube-read; import kube-write; import pods; import http; import metrics; import device; import leases; \
                import run; import wait; import clock; import log; import settings; import cases; export guest;",
        ..Guest::default()
    }
    .with(&manifest(&["kube-read", "kube-write", "pods", "http", "metrics", "device", "leases"], "").replace("\"read\"", "\"sandbox\""));
    let probe = load(&engine, bytes.clone()).unwrap();
    assert_eq!(probe.digest(), digest(&bytes));
}

#[test]
fn what_is_no_component_is_refused_by_name() {
    says(&refusal(b"#!/bin/sh\n"), &["not WebAssembly"]);
    says(&refusal(b"\x7fELF\x02\x01\x01"), &["precompiled"]);
    says(
        &refusal(b"\0asm\x01\0\0\0"),
        &["core module", "karat probe build"],
    );
    says(&refusal(b"\0asm\x09\0\x07\0"), &["not valid"]);
    says(&refusal(b"\0asm\x0d\0\x01\0\x00\xff"), &["not valid"]);
    assert!(matches!(
        inspect(&vec![0; MAX_COMPONENT_BYTES + 1]),
        Err(LoadError::Oversize { .. })
    ));
}

#[test]
fn wasmtime_s_own_code_is_refused() {
    let code = wasmtime::Engine::default()
        .precompile_component(&Guest::default().bare())
        .unwrap();
    says(&refusal(&code), &["precompiled machine code"]);
}

#[test]
fn manifests_must_be_there_once_and_readable() {
    let guest = Guest::default();
    says(&refusal(&guest.bare()), &["no section `karat:manifest`"]);
    let good = guest.with(&manifest(&[], ""));
    let mut twice = good.clone();
    let section = {
        let text = manifest(&[], "");
        let empty = section::embed(b"\0asm\x0d\0\x01\0", &text).unwrap();
        empty[8..].to_vec()
    };
    twice.extend_from_slice(&section);
    says(&refusal(&twice), &["two sections"]);
    let unknown = guest.with(&manifest(&[], "colour = \"red\""));
    says(&refusal(&unknown), &["colour"]);
    // A component inside a component, as a composition would leave it.
    let mut nested = good.clone();
    nested.push(4);
    leb(&mut nested, good.len());
    nested.extend_from_slice(&good);
    says(&refusal(&nested), &["inside the component"]);
}

fn leb(out: &mut Vec<u8>, mut value: usize) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

#[test]
fn another_contract_is_named() {
    let bytes = Guest {
        version: "0.2.0",
        ..Guest::default()
    }
    .with(&manifest(&[], ""));
    says(
        &refusal(&bytes),
        &["karat:probe@0.2.0", "serves 0.1.0-dev.1"],
    );
}

#[test]
fn a_function_of_a_later_release_is_named() {
    let bytes = Guest {
        world: "import kube-read; export guest;",
        edit: Some((
            "kube-read.wit",
            "resource query {",
            "resource query { count: func() -> u32;",
        )),
        ..Guest::default()
    }
    .with(&manifest(&["kube-read"], ""));
    says(
        &refusal(&bytes),
        &["kube-read.query.count", "0.1.0-dev.1 does not have it"],
    );
}

#[test]
fn an_interface_of_a_later_release_is_named() {
    let bytes = Guest {
        world: "import storage; export guest;",
        edit: Some((
            "clock.wit",
            "/// Time, from",
            "interface storage { keep: func(); }\n/// Time, from",
        )),
        ..Guest::default()
    }
    .with(&manifest(&[], ""));
    says(&refusal(&bytes), &["the interface storage"]);
}

#[test]
fn an_import_that_the_manifest_does_not_ask_for_is_refused_with_the_line_to_add() {
    let bytes = Guest {
        world: "import kube-write; export guest;",
        ..Guest::default()
    }
    .with(&manifest(&["kube-read"], ""));
    says(
        &refusal(&bytes),
        &["kube-write", "`capabilities` in probe.toml"],
    );
}

#[test]
fn foreign_imports_are_refused_and_wasi_with_advice() {
    let wat = |name: &str| {
        wat::parse_str(format!(
            r#"(component (import "{name}" (instance (export "f" (func)))))"#
        ))
        .unwrap()
    };
    says(
        &refusal(&wat("wasi:filesystem/types@0.2.9")),
        &["wasi:filesystem", "--stub-wasi"],
    );
    says(
        &refusal(&wat("vendor:secret/door")),
        &["vendor:secret/door"],
    );
    let bare = wat::parse_str(r#"(component (import "f" (func)))"#).unwrap();
    says(&refusal(&bare), &["imports f"]);
}

#[test]
fn no_entry_point_is_no_probe() {
    let bytes = Guest {
        world: "import kube-read;",
        ..Guest::default()
    }
    .with(&manifest(&["kube-read"], ""));
    says(&refusal(&bytes), &["does not export", "guest@0.1.0-dev.1"]);
}

#[test]
fn a_wrong_signature_is_refused_when_it_is_linked() {
    let engine = Engine::new(&EngineOptions {
        on_demand: true,
        ..EngineOptions::default()
    })
    .unwrap();
    let import = Guest {
        world: "import clock; export guest;",
        edit: Some(("clock.wit", "now: func() -> string;", "now: func() -> u64;")),
        ..Guest::default()
    }
    .with(&manifest(&[], ""));
    says(
        &load(&engine, import).unwrap_err().to_string(),
        &["disagree about types", "now"],
    );
    let export = Guest {
        edit: Some((
            "probe.wit",
            "check: func() -> result<_, string>;",
            "check: func() -> string;",
        )),
        ..Guest::default()
    }
    .with(&manifest(&[], ""));
    says(
        &load(&engine, export).unwrap_err().to_string(),
        &["disagree about types", "check"],
    );
}

#[test]
fn exports_that_nobody_asked_for_do_no_harm() {
    let engine = Engine::new(&EngineOptions {
        on_demand: true,
        ..EngineOptions::default()
    })
    .unwrap();
    let bytes = Guest {
        world: "export guest; export init: func();",
        ..Guest::default()
    }
    .with(&manifest(&[], ""));
    load(&engine, bytes).unwrap();
}

#[test]
fn a_core_module_by_hand_becomes_a_component() {
    let text = core(
        "",
        "(i32.store8 (i32.const 16) (i32.const 0)) (i32.const 16)",
    );
    let bytes = Guest {
        core: Some(&text),
        ..Guest::default()
    }
    .with(&manifest(&[], ""));
    inspect(&bytes).unwrap();
}
