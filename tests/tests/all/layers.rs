//! The arrows between the packages of this workspace, and the crates that may not come in.
//!
//! Who may depend on whom is written down once, here. A new package fails the first test until it has a line, because
//! an arrow that nobody decided on is how layers rot. Arrows between modules are checked in review.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

/// Packages by name or by a prefix that ends in `*`, and what of ours they may use. `dev` is for tests only.
const ARROWS: &[Arrow] = &[
    Arrow {
        package: "karat-engine",
        uses: &[],
        dev: &["karat-testbed"],
    },
    Arrow {
        package: "karat-registry",
        uses: &[],
        dev: &[],
    },
    Arrow {
        package: "karat",
        uses: &["karat-engine", "karat-registry"],
        dev: &["karat-testbed"],
    },
    Arrow {
        package: "karat-sdk",
        uses: &[],
        dev: &[],
    },
    Arrow {
        package: "karat-sdk-build",
        uses: &[],
        dev: &[],
    },
    // Steps that several probes share; as much a guest as they are.
    Arrow {
        package: "karat-gang",
        uses: &["karat-sdk"],
        dev: &[],
    },
    Arrow {
        package: "probe-*",
        uses: &["karat-sdk", "karat-sdk-build", "karat-gang"],
        dev: &["karat-engine"],
    },
    Arrow {
        package: "smallest-probe",
        uses: &["karat-sdk", "karat-sdk-build"],
        dev: &[],
    },
    // Guests of the tests speak the contract without the SDK, which would refuse to be that rude.
    Arrow {
        package: "guest-*",
        uses: &[],
        dev: &[],
    },
    // Runs in other people's clusters, and is nothing but itself.
    Arrow {
        package: "karat-tool",
        uses: &[],
        dev: &[],
    },
    Arrow {
        package: "karat-testbed",
        uses: &[],
        dev: &[],
    },
    Arrow {
        package: "karat-tests",
        uses: &[
            "karat-engine",
            "karat-registry",
            "karat-testbed",
            "karat-sdk",
        ],
        dev: &[],
    },
    Arrow {
        package: "karat-broken",
        uses: &["karat-engine", "karat-testbed", "karat-tests"],
        dev: &[],
    },
    Arrow {
        package: "xtask",
        uses: &["karat-registry", "karat-testbed"],
        dev: &[],
    },
];

struct Arrow {
    package: &'static str,
    uses: &'static [&'static str],
    dev: &'static [&'static str],
}

fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_owned()
}

fn metadata() -> Result<Value> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--format-version=1", "--no-deps"])
        .current_dir(root())
        .output()
        .context("cargo metadata")?;
    if !output.status.success() {
        bail!(
            "cargo metadata: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}

fn rule(package: &str) -> Option<&'static Arrow> {
    let fits = |pattern: &str| match pattern.strip_suffix('*') {
        Some(prefix) => package.starts_with(prefix),
        None => package == pattern,
    };
    ARROWS.iter().find(|a| fits(a.package))
}

/// Everything that is wrong with the arrows of these packages.
fn violations(metadata: &Value) -> Vec<String> {
    let packages: Vec<&Value> = metadata["packages"]
        .as_array()
        .into_iter()
        .flatten()
        .collect();
    let ours: BTreeSet<&str> = packages.iter().filter_map(|p| p["name"].as_str()).collect();
    let mut wrong = Vec::new();
    for package in &packages {
        let name = package["name"].as_str().unwrap_or_default();
        let Some(rule) = rule(name) else {
            wrong.push(format!(
                "{name}: has no line in tests/tests/layers.rs; decide what it may depend on"
            ));
            continue;
        };
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            let Some(on) = dependency["name"].as_str().filter(|d| ours.contains(d)) else {
                continue;
            };
            let dev = dependency["kind"] == "dev";
            if !(rule.uses.contains(&on) || dev && rule.dev.contains(&on)) {
                let kind = if dev { "in tests " } else { "" };
                wrong.push(format!("{name} depends {kind}on {on}, which it may not"));
            }
        }
    }
    wrong
}

#[test]
fn packages_depend_only_on_what_their_layer_allows() {
    let wrong = violations(&metadata().unwrap());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_line_of_the_table_is_needed() {
    let metadata = metadata().unwrap();
    let names: Vec<&str> = metadata["packages"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|p| p["name"].as_str())
        .collect();
    for arrow in ARROWS {
        assert!(
            names
                .iter()
                .any(|n| rule(n).is_some_and(|r| r.package == arrow.package)),
            "no package fits {}",
            arrow.package
        );
    }
}

#[test]
fn a_forbidden_arrow_and_an_unknown_package_are_found() {
    let dependency = |name: &str, kind: Value| serde_json::json!({ "name": name, "kind": kind });
    let metadata = serde_json::json!({ "packages": [
        { "name": "karat-engine", "dependencies": [dependency("karat-registry", Value::Null), dependency("karat-testbed", "dev".into()), dependency("serde", Value::Null)] },
        { "name": "karat-registry", "dependencies": [dependency("karat-testbed", "dev".into())] },
        { "name": "karat-testbed", "dependencies": [] },
        { "name": "stranger", "dependencies": [] },
    ]});
    let wrong = violations(&metadata);
    assert_eq!(wrong.len(), 3, "{wrong:?}");
    assert!(wrong[0].contains("karat-engine depends on karat-registry"));
    assert!(wrong[1].contains("karat-registry depends in tests on karat-testbed"));
    assert!(wrong[2].contains("stranger"));
}

#[test]
fn banned_crates_are_not_in_the_tree() {
    let read = |file: &str| std::fs::read_to_string(root().join(file)).unwrap();
    let policy: toml::Table = toml::from_str(&read("deny.toml")).unwrap();
    let banned: BTreeMap<&str, &str> = policy["bans"]["deny"]
        .as_array()
        .unwrap()
        .iter()
        .map(|b| {
            (
                b["name"].as_str().unwrap(),
                b["reason"].as_str().expect("each ban has a reason"),
            )
        })
        .collect();
    assert!(
        banned.contains_key("openssl-sys")
            && banned.contains_key("aws-lc-sys")
            && banned.contains_key("native-tls")
    );
    let lock: toml::Table = toml::from_str(&read("Cargo.lock")).unwrap();
    let packages = lock["package"].as_array().unwrap();
    assert!(packages.len() > 100);
    for package in packages {
        let name = package["name"].as_str().unwrap();
        assert!(
            !banned.contains_key(name),
            "{name} is in Cargo.lock: {}",
            banned[name]
        );
    }
}
