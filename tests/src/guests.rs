//! Components made for one test: the hostile guest of `tests/guests/hostile`, wrapped with a manifest of the test's own.
//!
//! `cargo xtask probes` (and so `cargo xtask test`) builds the core module; a test that finds none fails and says so.

use anyhow::{Context, Result};
use serde_json::Value;
use std::fmt::Write;
use std::path::PathBuf;

/// A probe to be: an attack or a script, with the manifest around it.
pub struct Guest {
    id: String,
    reach: &'static str,
    attack: String,
    script: String,
    lines: String,
    cases: String,
    budget: String,
    capabilities: Vec<&'static str>,
    requirements: Vec<&'static str>,
    core: Option<Vec<u8>>,
}

/// Grows a table until somebody stops it.
const TABLE_BOMB: &str = r#"(module
  (table $hoard 1 funcref)
  (memory (export "memory") 1)
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) unreachable)
  (func (export "karat:probe/guest@0.1.0-dev.1#check") (result i32)
    (loop $again
      (if (i32.eq (table.grow $hoard (ref.null func) (i32.const 1000)) (i32.const -1)) (then unreachable))
      (br $again))
    unreachable))"#;

impl Guest {
    /// A guest that commits one of the attacks of `tests/guests/hostile/src/attacks.rs`.
    pub fn attacking(id: &str, attack: &str) -> Guest {
        Guest {
            id: id.into(),
            reach: "sandbox",
            attack: attack.into(),
            script: "[]".into(),
            lines: String::new(),
            cases: case("lie", "list namespaces") + &case("other", "list namespaces"),
            budget: String::new(),
            capabilities: vec![
                "kube-read",
                "kube-write",
                "leases",
                "pods",
                "http",
                "metrics",
            ],
            requirements: Vec::new(),
            core: None,
        }
        .permit("", &["namespaces"], &["get", "list", "watch"], "cluster")
    }

    /// A puppet that makes the calls of a script, see `tests/guests/hostile/src/puppet.rs`.
    pub fn scripted(id: &str, script: &Value) -> Guest {
        Guest {
            script: script.to_string(),
            ..Guest::attacking(id, "script")
        }
    }

    /// A guest that grows a table without end; Rust has no word for that, so it is written in WAT.
    ///
    /// # Errors
    /// If the text does not assemble.
    pub fn table_bomb(id: &str) -> Result<Guest> {
        let mut core = wat::parse_str(TABLE_BOMB)?;
        let mut resolve = wit_parser::Resolve::default();
        let (package, _) = resolve.push_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../wit"))?;
        let world = resolve.select_world(&[package], Some("probe"))?;
        wit_component::embed_component_metadata(
            &mut core,
            &resolve,
            world,
            wit_component::StringEncoding::UTF8,
            false,
        )?;
        Ok(Guest {
            core: Some(core),
            ..Guest::attacking(id, "none")
        })
    }

    /// How far it goes; `sandbox` by default.
    #[must_use]
    pub fn reach(mut self, reach: &'static str) -> Guest {
        self.reach = reach;
        self
    }

    /// Answers a requirement; none by default.
    #[must_use]
    pub fn answers(mut self, id: &'static str) -> Guest {
        self.requirements.push(id);
        self
    }

    /// Asks for a capability beside those that the guest imports: `kube-read`, `kube-write`, `leases`, `pods`, `http` and `metrics`.
    #[must_use]
    pub fn capability(mut self, name: &'static str) -> Guest {
        self.capabilities.push(name);
        self
    }

    /// One permission line. `scope` is `sandbox`, `cluster` or a namespace.
    #[must_use]
    pub fn permit(mut self, group: &str, resources: &[&str], verbs: &[&str], scope: &str) -> Guest {
        let scope = match scope {
            "sandbox" | "cluster" => format!("{scope:?}"),
            namespace => format!("{{ namespace = {namespace:?} }}"),
        };
        let _ = write!(
            self.lines,
            "\n[[permissions]]\napi-groups = [{group:?}]\nresources = {resources:?}\nverbs = {verbs:?}\nscope = {scope}\nwhy = \"a test\"\n"
        );
        self
    }

    /// Paths outside the resource API.
    #[must_use]
    pub fn permit_paths(mut self, paths: &[&str]) -> Guest {
        let _ = write!(
            self.lines,
            "\n[[permissions]]\nnon-resource = {paths:?}\nwhy = \"a test\"\n"
        );
        self
    }

    /// A sandbox namespace.
    #[must_use]
    pub fn namespace(mut self, alias: &str) -> Guest {
        let _ = write!(self.lines, "\n[[namespaces]]\nalias = {alias:?}\n");
        self
    }

    /// Lines of the table `[budget]`.
    #[must_use]
    pub fn budget(mut self, lines: &str) -> Guest {
        self.budget = lines.into();
        self
    }

    /// The cases, each an inline table as `probe.toml` has it; see [`case`].
    #[must_use]
    pub fn cases(mut self, cases: &str) -> Guest {
        self.cases = cases.into();
        self
    }

    /// Lines of the manifest that the other methods do not cover.
    #[must_use]
    pub fn lines(mut self, lines: &str) -> Guest {
        self.lines.push_str(lines);
        self
    }

    /// The manifest in TOML.
    pub fn manifest(&self) -> String {
        let Guest {
            id,
            reach,
            attack,
            script,
            lines,
            cases,
            budget,
            capabilities,
            requirements,
            core: _,
        } = self;
        format!(
            r#"
id = {id:?}
version = "0.0.1"
title = "A guest of the tests"
claim = "Whatever it says."
misleads = "It is made to."
contract = "0.1.0-dev.1"
requirements = {requirements:?}
reach = {reach:?}
capabilities = {capabilities:?}
cases = [
{cases}]
{lines}
[settings.attack]
type = "string"
default = {attack:?}
help = "What it does."

[settings.script]
type = "string"
default = {script:?}
help = "The calls of a puppet, in JSON."

[budget]
{budget}
"#
        )
    }

    /// The component.
    ///
    /// # Errors
    /// If the core module was not built, or the manifest is wrong.
    pub fn component(&self) -> Result<Vec<u8>> {
        let core = self.core.clone().map_or_else(hostile_core, Ok)?;
        karat_engine::package::build(&core, &self.manifest())
            .with_context(|| format!("wrap the guest `{}`", self.id))
    }
}

/// A required positive case with one effect, as a line of `cases`.
pub fn case(id: &str, effect: &str) -> String {
    format!(
        "  {{ id = {id:?}, kind = \"positive\", required = \"always\", effect = [{effect:?}], claim = \"c\", expected = \"e\" }},\n"
    )
}

/// The core module of the hostile guest.
///
/// # Errors
/// If it was not built.
pub fn hostile_core() -> Result<Vec<u8>> {
    let path = target_dir().join("hostile-guests/guest-hostile.core.wasm");
    std::fs::read(&path).with_context(|| {
        format!(
            "{} is missing; build it with `cargo xtask probes`",
            path.display()
        )
    })
}

/// A component as `cargo xtask probes` wraps it: a probe or an example.
///
/// # Errors
/// If it was not built.
pub fn built(name: &str) -> Result<Vec<u8>> {
    let path = target_dir().join(format!("components/{name}.wasm"));
    std::fs::read(&path).with_context(|| {
        format!(
            "{} is missing; build it with `cargo xtask probes`",
            path.display()
        )
    })
}

/// The target folder that this test binary was built into: `…/target/debug/deps/all-…`.
pub fn target_dir() -> PathBuf {
    let program = std::env::current_exe().unwrap_or_default();
    program
        .ancestors()
        .nth(3)
        .map_or_else(|| PathBuf::from("target"), PathBuf::from)
}
