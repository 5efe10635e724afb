//! `kill -9` of whoever owns a laboratory: the kernel and the janitor clean up, nothing of ours has to run.

use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use karat_testbed::named;

use crate::control_plane::alive;

/// Polls a fact that the kernel makes true soon.
fn soon(what: &str, fact: impl Fn() -> bool) {
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
