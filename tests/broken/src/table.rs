//! Reads the tables and puts the entries together: a broken cluster is the healthy one of its probe and one deviation.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use karat_engine::model::{Reach, Verdict};

use crate::data::{EntryData, EverywhereFile, Expect, LabData, Make, ProbeFile, Variant};
use crate::named;

/// The file with shared control planes and the variants that every probe meets.
const EVERYWHERE: &str = "everywhere.yaml";
/// Name of the cluster in which nothing is wrong.
const HEALTHY: &str = "healthy";

/// One cluster, ready to be made.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Id of the probe.
    pub probe: String,
    /// Name, unique for the probe.
    pub name: String,
    /// What is wrong or unusual.
    pub what: String,
    /// Whether the cluster conforms.
    pub conforming: bool,
    /// Why a careless check would pass; none if the cluster conforms.
    pub careless: Option<String>,
    /// The control plane.
    pub lab: LabData,
    /// What is put before and into it.
    pub make: Make,
    /// What the probe must say.
    pub expect: Expect,
    /// How far the run may go.
    pub reach: Reach,
    /// Settings of the probe.
    pub settings: BTreeMap<String, String>,
    /// Exceptions that its operator makes.
    pub exceptions: Option<String>,
    /// Name of the recording to keep.
    pub record_as: Option<String>,
    /// Why the fault is not found yet.
    pub known_miss: Option<String>,
    /// Why the cluster does not let go of what a run made.
    pub leaves: Option<String>,
}

impl Entry {
    /// `probe/name`.
    #[must_use]
    pub fn id(&self) -> String {
        format!("{}/{}", self.probe, self.name)
    }

    /// Whether nothing else may happen in its control plane meanwhile.
    #[must_use]
    pub fn alone(&self) -> bool {
        self.lab.together.unwrap_or(1) < 2 || self.make.touches_the_cluster()
    }
}

/// The folder with the tables of this repository.
#[must_use]
pub fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Reads every table of a folder.
///
/// # Errors
/// The first mistake, with its file, and its place where it is one of form.
pub fn load(dir: &Path) -> Result<Vec<Entry>> {
    let path = dir.join(EVERYWHERE);
    let everywhere: EverywhereFile = parse(&path)?;
    let mut names = BTreeSet::new();
    for variant in &everywhere.variants {
        check_variant(variant)
            .and_then(|()| fresh(&mut names, &variant.name))
            .with_context(|| format!("{}: variant {}", path.display(), variant.name))?;
    }
    let mut files: Vec<PathBuf> = std::fs::read_dir(dir)
        .with_context(|| dir.display().to_string())?
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<_>>()?;
    files.retain(|file| file.extension().is_some_and(|e| e == "yaml") && *file != path);
    files.sort();
    let mut all = Vec::new();
    for path in files {
        let file: ProbeFile = parse(&path)?;
        let stem = path.file_stem().unwrap_or_default().to_string_lossy();
        ensure!(
            stem == file.probe.replace('-', "_"),
            "{}: `probe: {}` belongs into {}.yaml",
            path.display(),
            file.probe,
            file.probe.replace('-', "_")
        );
        all.extend(entries(&file, &everywhere).with_context(|| path.display().to_string())?);
    }
    Ok(all)
}

fn parse<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    serde_yaml_ng::from_str(&text).with_context(|| path.display().to_string())
}

fn entries(file: &ProbeFile, everywhere: &EverywhereFile) -> Result<Vec<Entry>> {
    let healthy = &file.healthy;
    let lab = |name: &str| lab(name, file, everywhere);
    let base = Entry {
        probe: file.probe.clone(),
        name: HEALTHY.into(),
        what: "nothing".into(),
        conforming: true,
        careless: None,
        lab: lab(&healthy.lab).context("healthy")?,
        make: healthy.make.clone(),
        expect: healthy.expect.clone(),
        reach: file.reach,
        settings: file.settings.clone(),
        exceptions: file.exceptions.clone(),
        record_as: healthy.record_as.clone(),
        known_miss: None,
        leaves: None,
    };
    check(&base).context("healthy")?;
    for (name, why) in &healthy.except {
        let known = everywhere.variants.iter().any(|v| v.name == *name);
        ensure!(known, "healthy: except: {name}: there is no such variant");
        ensure!(!why.trim().is_empty(), "healthy: except: {name}: say why");
    }
    let variants = everywhere
        .variants
        .iter()
        .filter(|v| !healthy.except.contains_key(&v.name))
        .map(|variant| Entry {
            name: variant.name.clone(),
            what: variant.conforming.clone(),
            make: base.make.and(&variant.make),
            record_as: None,
            leaves: variant.leaves.clone(),
            ..base.clone()
        });
    let mut all: Vec<Entry> = std::iter::once(base.clone()).chain(variants).collect();
    let mut names: BTreeSet<String> = everywhere.variants.iter().map(|v| v.name.clone()).collect();
    names.insert(HEALTHY.into());
    for data in &file.entries {
        let entry = one(data, &base, lab)
            .and_then(|entry| {
                fresh(&mut names, &entry.name)?;
                check(&entry)?;
                Ok(entry)
            })
            .with_context(|| format!("entry {}", data.name))?;
        all.push(entry);
    }
    Ok(all)
}

fn one(data: &EntryData, base: &Entry, lab: impl Fn(&str) -> Result<LabData>) -> Result<Entry> {
    let (what, conforming) = match (&data.wrong, &data.conforming) {
        (Some(wrong), None) => (wrong, false),
        (None, Some(unusual)) => (unusual, true),
        _ => bail!("write `wrong` (the one thing) or `conforming` (what is unusual), not both"),
    };
    let mut settings = base.settings.clone();
    settings.extend(data.settings.clone());
    Ok(Entry {
        probe: base.probe.clone(),
        name: data.name.clone(),
        what: what.clone(),
        conforming,
        careless: data.careless.clone(),
        lab: data
            .lab
            .as_deref()
            .map_or_else(|| Ok(base.lab.clone()), lab)?,
        make: if data.bare {
            data.make.clone()
        } else {
            base.make.and(&data.make)
        },
        expect: data.expect.clone(),
        reach: base.reach,
        settings,
        exceptions: base.exceptions.clone(),
        record_as: data.record_as.clone(),
        known_miss: data.known_miss.clone(),
        leaves: data.leaves.clone(),
    })
}

fn lab(name: &str, file: &ProbeFile, everywhere: &EverywhereFile) -> Result<LabData> {
    let (own, shared) = (file.labs.get(name), everywhere.labs.get(name));
    ensure!(
        own.is_none() || shared.is_none(),
        "lab {name}: {EVERYWHERE} has one of that name too"
    );
    let known = || {
        let names = file.labs.keys().chain(everywhere.labs.keys());
        names.map(String::as_str).collect::<Vec<_>>().join(", ")
    };
    own.or(shared)
        .cloned()
        .with_context(|| format!("lab {name}: not known; there are {}", known()))
}

fn fresh(names: &mut BTreeSet<String>, name: &str) -> Result<()> {
    let fine = !name.is_empty()
        && name
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    ensure!(fine, "name {name:?}: use a-z, 0-9 and `-`");
    ensure!(names.insert(name.to_owned()), "name {name}: twice");
    Ok(())
}

fn check_variant(variant: &Variant) -> Result<()> {
    ensure!(
        !variant.conforming.trim().is_empty(),
        "`conforming` is empty"
    );
    check_make(&variant.make)
}

/// What a table must obey beyond its form.
fn check(entry: &Entry) -> Result<()> {
    check_make(&entry.make)?;
    for text in entry.lab.objects.iter().chain(&entry.make.objects) {
        crate::place::documents(text)?;
    }
    crate::lab::check(&entry.lab)?;
    crate::one::exceptions(entry)?;
    for name in &entry.make.down {
        crate::lab::add_on(name)?;
    }
    ensure!(
        !entry.what.trim().is_empty(),
        "say what is wrong or unusual"
    );
    let expect = &entry.expect;
    let verdict = expect.verdict();
    if entry.conforming {
        let accused = verdict.allows(Verdict::Fail)
            || expect.cases.values().any(|said| said.allows(Verdict::Fail));
        ensure!(
            !accused,
            "a conforming cluster must not be expected to fail"
        );
        ensure!(
            entry.careless.is_none() && entry.known_miss.is_none(),
            "`careless` and `known-miss` belong to what is wrong"
        );
        return Ok(());
    }
    let careless = entry.careless.as_deref().unwrap_or_default();
    ensure!(
        !careless.trim().is_empty(),
        "`careless` is missing: say why a careless check would pass"
    );
    ensure!(
        !verdict.allows(Verdict::Pass)
            || expect
                .cases
                .values()
                .any(|said| !said.allows(Verdict::Pass)),
        "expects nothing but a pass; then it is `conforming`"
    );
    ensure!(
        !verdict.has_vague_unknown() && !expect.cases.values().any(|s| s.has_vague_unknown()),
        "an `unknown` needs its reason, as in `unknown insufficient_capacity`"
    );
    let known_miss = entry.known_miss.as_deref();
    ensure!(
        known_miss.is_none_or(|why| !why.trim().is_empty()),
        "`known-miss`: say why"
    );
    Ok(())
}

fn check_make(make: &Make) -> Result<()> {
    for rule in &make.proxy {
        rule.rule()?;
    }
    for name in &make.rules {
        named::rules(name)?;
    }
    for controller in &make.controllers {
        controller.check()?;
    }
    for fixture in &make.fixtures {
        let path = karat_testbed::fixture_path(fixture);
        ensure!(path.is_file(), "fixture {fixture}: there is no such file");
    }
    for until in &make.until {
        let objects = until.api_version.is_some() && until.kind.is_some();
        let some = until.api_version.is_some() || until.kind.is_some();
        ensure!(
            objects != until.dry_run.is_some() && objects == some,
            "until: write `api-version` and `kind`, or `dry-run`"
        );
        ensure!(
            until.refused.is_none() || until.dry_run.is_some(),
            "until: `refused` needs `dry-run`"
        );
    }
    if let Some(text) = &make.objects {
        crate::place::documents(text)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVERYWHERE_TEXT: &str = "
labs:
  plain: {together: 4}
variants:
- name: slow
  conforming: every answer takes 300 ms
  make:
    proxy:
    - {path: ^/, delay: 300ms}
";

    fn table(text: &str) -> Result<Vec<Entry>> {
        let everywhere = serde_yaml_ng::from_str(EVERYWHERE_TEXT)?;
        entries(&serde_yaml_ng::from_str(text)?, &everywhere)
    }

    fn file(entry: &str) -> String {
        format!("probe: p\nhealthy: {{lab: plain}}\nentries:\n- {entry}\n")
    }

    #[test]
    fn a_probe_meets_the_healthy_cluster_its_variants_and_its_own() {
        let all = table(&file("{name: a, wrong: w, careless: c, make: {proxy: [{path: ^/x, swallow: true}]}, expect: {verdict: fail}}")).unwrap();
        let names: Vec<_> = all
            .iter()
            .map(|e| (e.name.as_str(), e.conforming))
            .collect();
        assert_eq!(names, [("healthy", true), ("slow", true), ("a", false)]);
        assert!(all.iter().all(|e| !e.alone()));
    }

    #[test]
    fn the_first_rule_that_fits_is_that_of_the_entry() {
        let text = "probe: p\nhealthy: {lab: plain, make: {proxy: [{path: ^/h, delay: 1s}]}}\nentries:\n- {name: a, wrong: w, careless: c, make: {proxy: [{path: ^/x, swallow: true}]}, expect: {verdict: fail}}\n- {name: b, bare: true, conforming: x}\n";
        let all = table(text).unwrap();
        let paths = |name: &str| -> Vec<String> {
            let entry = all.iter().find(|e| e.name == name).unwrap();
            let rules = entry.make.proxy.iter();
            rules.map(|r| r.path.as_str().to_owned()).collect()
        };
        assert_eq!(paths("a"), ["^/x", "^/h"]);
        assert_eq!(paths("slow"), ["^/", "^/h"]);
        assert!(paths("b").is_empty());
    }

    #[test]
    fn what_an_entry_must_say_is_asked_for() {
        for (entry, part) in [
            ("{name: a}", "write `wrong`"),
            ("{name: a, wrong: w, conforming: c}", "not both"),
            (
                "{name: a, wrong: w, expect: {verdict: fail}}",
                "`careless` is missing",
            ),
            ("{name: a, wrong: w, careless: c}", "nothing but a pass"),
            (
                "{name: a, wrong: w, careless: c, expect: {verdict: unknown}}",
                "needs its reason",
            ),
            (
                "{name: a, conforming: c, expect: {verdict: fail}}",
                "must not be expected to fail",
            ),
            ("{name: slow, conforming: c}", "twice"),
            ("{name: A b, conforming: c}", "use a-z"),
            (
                "{name: a, conforming: c, lab: x}",
                "lab x: not known; there are plain",
            ),
            (
                "{name: a, conforming: c, make: {fixtures: [x.yaml]}}",
                "no such file",
            ),
            ("{name: a, conforming: c, make: {rules: [x]}}", "not known"),
            (
                "{name: a, conforming: c, make: {objects: 'kind: X'}}",
                "apiVersion",
            ),
            (
                "{name: a, conforming: c, make: {until: [{kind: Pod}]}}",
                "`api-version` and `kind`",
            ),
            (
                "{name: a, conforming: c, known-miss: x}",
                "belong to what is wrong",
            ),
        ] {
            let error = format!("{:#}", table(&file(entry)).unwrap_err());
            assert!(error.contains(part), "{entry}: {error}");
            assert!(error.contains("entry "), "{error}");
        }
    }

    #[test]
    fn labs_with_real_nodes_are_checked() {
        for (lab, part) in [
            (
                "{with: [dra-driver]}",
                "`with: dra-driver` needs `real-nodes`",
            ),
            (
                "{real-nodes: 1, with: [magic]}",
                "with magic: not one of dra-driver",
            ),
            ("{real-nodes: 1, handlers: {x: {runs: kata}}}", "kata"),
            (
                "{device-plugin: '{first: true}'}",
                "`device-plugin` needs `real-nodes`",
            ),
            (
                "{real-nodes: 1, device-plugin: '{frist: true}'}",
                "unknown field `frist`",
            ),
            (
                "{real-nodes: 1, handlers: {x: {runs: runc, flags: {a: b}}}}",
                "only gvisor has `flags`",
            ),
            (
                "{real-nodes: 1, handlers: {x: {runs: runc, spec: '- a'}}}",
                "handler x: spec",
            ),
        ] {
            let text = format!("probe: p\nlabs: {{real: {lab}}}\nhealthy: {{lab: real}}\n");
            let everywhere = serde_yaml_ng::from_str(EVERYWHERE_TEXT).unwrap();
            let told = serde_yaml_ng::from_str(&text)
                .map_err(anyhow::Error::from)
                .and_then(|file| entries(&file, &everywhere));
            let error = format!("{:#}", told.unwrap_err());
            assert!(error.contains(part), "{lab}: {error}");
        }
    }

    #[test]
    fn mistakes_of_form_have_a_place() {
        let error = format!(
            "{:#}",
            table("probe: p\nhealthy: {lab: plain}\nentries:\n- name: a\n  wrongly: x\n")
                .unwrap_err()
        );
        assert!(
            error.contains("wrongly") && error.contains("line 5"),
            "{error}"
        );
    }

    #[test]
    fn the_tables_of_the_repository_are_well_formed() {
        let all = load(&folder()).unwrap();
        let mut probes: BTreeMap<&str, usize> = BTreeMap::new();
        for entry in all.iter().filter(|e| !e.conforming) {
            *probes.entry(&entry.probe).or_default() += 1;
        }
        assert!(!probes.is_empty());
        for (probe, broken) in probes {
            assert!(broken >= 5, "{probe}: only {broken} broken clusters");
        }
    }
}
