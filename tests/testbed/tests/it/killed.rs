//! `kill -9` of whoever owns a laboratory: the kernel and the janitor clean up, nothing of ours has to run.

use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use karat_testbed::named;

use crate::control_plane::alive;

/// Polls a fact that the kernel makes true soon.
pub(crate) fn soon(what: &str, fact: impl Fn() -> bool) {
    let began = Instant::now();
    while !fact() {
        assert!(began.elapsed() < Duration::from_secs(20), "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn kill_9_of_the_owner_leaves_no_process_and_no_file() {
    let mut owner = Command::new(env!("CARGO_BIN_EXE_testbed-hold"))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(owner.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    let said: serde_json::Value = serde_json::from_str(&line).unwrap();
    let state = PathBuf::from(said["state"].as_str().unwrap());
    let pids: Vec<u32> = said["pids"]
        .as_array()
        .unwrap()
        .iter()
        .map(|p| p.as_u64().unwrap().try_into().unwrap())
        .collect();
    assert_eq!(pids.len(), 5);
    assert!(pids.iter().all(|p| alive(*p)) && state.is_dir());
    owner.kill().unwrap();
    owner.wait().unwrap();
    soon("programs are left", || !pids.iter().any(|p| alive(*p)));
    soon("files are left", || !state.exists());
}

#[test]
fn a_named_laboratory_is_found_stopped_and_after_kill_9_replaced() {
    // Tests of other checkouts may run on the same machine at the same time.
    let name = format!("it-{}", std::process::id());
    let begin = || {
        Command::new(env!("CARGO_BIN_EXE_testbed-hold"))
            .arg(&name)
            .spawn()
            .unwrap()
    };
    let ready = || {
        let began = Instant::now();
        loop {
            if let Some(lab) = named::status(&name).unwrap() {
                return lab;
            }
            assert!(began.elapsed() < Duration::from_secs(180), "not ready");
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    let gone = |lab: &named::Description| {
        soon("programs are left", || {
            !lab.programs.iter().any(|(_, pid)| alive(*pid))
        });
        soon("files are left", || !lab.state_dir.exists());
    };

    let mut owner = begin();
    let lab = ready();
    assert_eq!(lab.pid, owner.id());
    let mut second = begin();
    assert!(
        !second.wait().unwrap().success(),
        "the name was given twice"
    );
    named::stop(&name).unwrap();
    assert!(owner.wait().unwrap().success());
    gone(&lab);

    let mut owner = begin();
    let lab = ready();
    owner.kill().unwrap();
    owner.wait().unwrap();
    assert!(named::status(&name).unwrap().is_none());
    gone(&lab);
    let mut owner = begin();
    ready();
    named::stop(&name).unwrap();
    owner.wait().unwrap();
}

#[test]
fn missing_programs_are_named_with_what_to_do() {
    let empty = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_testbed-hold"))
        .env("PATH", empty.path())
        .env("KARAT_CACHE_DIR", empty.path())
        .env_remove("KUBEBUILDER_ASSETS")
        .output()
        .unwrap();
    assert!(!output.status.success());
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(
        text.contains("etcd") && text.contains("KUBEBUILDER_ASSETS") && text.contains("Go 1.26"),
        "{text}"
    );
}

#[test]
fn a_name_that_is_not_running_is_said_so() {
    assert!(named::status("never-started").unwrap().is_none());
    assert!(
        named::stop("never-started")
            .unwrap_err()
            .to_string()
            .contains("not running")
    );
    assert!(named::status("../etc").is_err());
}
