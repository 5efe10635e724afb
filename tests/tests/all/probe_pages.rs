//! `docs/probes/`: a page for each probe, from its manifest and its README, and a list of them. Written anew with
//! `KARAT_UPDATE=1`; without it, what lies there must be what would be written.

use crate::docs::root;
use anyhow::{Context as _, Result, ensure};
use karat_engine::catalog::{Level, VERSIONS, extension_of, requirement};
use karat_engine::manifest::{
    Case, CaseKind, LeaseLine, Manifest, Required, Scope, UnitsWish, Wish,
};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::time::Duration;

const FOLDER: &str = "docs/probes";
const AGAIN: &str = "KARAT_UPDATE=1 cargo test --workspace --test all -- probe_pages::";

#[test]
fn every_probe_has_a_page_that_says_what_it_is() -> Result<()> {
    let wanted = pages()?;
    let folder = root().join(FOLDER);
    if std::env::var_os("KARAT_UPDATE").is_some() {
        fs::create_dir_all(&folder)?;
        for name in names(&folder)? {
            fs::remove_file(folder.join(name))?;
        }
        for (name, page) in &wanted {
            fs::write(folder.join(name), page)?;
        }
    }
    let there = names(&folder)?;
    ensure!(
        there.iter().eq(wanted.keys()),
        "{FOLDER} holds {there:?}; run {AGAIN}"
    );
    for (name, page) in &wanted {
        ensure!(
            fs::read_to_string(folder.join(name))? == *page,
            "{FOLDER}/{name} is not what manifest and README say; run {AGAIN}"
        );
    }
    Ok(())
}

fn names(folder: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("{FOLDER}; run {AGAIN}"))? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

/// All pages by file name.
fn pages() -> Result<BTreeMap<String, String>> {
    let mut pages = BTreeMap::new();
    let mut list = String::from(
        "# Probes\n\nThose that the program brings, each with what it claims, does and needs.\n\n\
         | Probe | Answers | Reach | Claim |\n|---|---|---|---|\n",
    );
    let mut folders: Vec<_> = fs::read_dir(root().join("probes"))?.collect::<Result<_, _>>()?;
    folders.sort_by_key(fs::DirEntry::file_name);
    for folder in folders {
        let name = folder.file_name().to_string_lossy().into_owned();
        let source = fs::read_to_string(folder.path().join("probe.toml"))?;
        let manifest = Manifest::parse(&source, &format!("probes/{name}/probe.toml"))?;
        let readme = fs::read_to_string(folder.path().join("README.md"))?;
        writeln!(
            list,
            "| [{}]({}.md) | {} | {} | {} |",
            manifest.title,
            manifest.id,
            answers(&manifest),
            manifest.reach,
            cell(&manifest.claim)
        )?;
        pages.insert(
            format!("{}.md", manifest.id),
            page(&manifest, &name, &readme)?,
        );
    }
    pages.insert("README.md".to_owned(), list);
    Ok(pages)
}

fn page(manifest: &Manifest, folder: &str, readme: &str) -> Result<String> {
    let mut out = String::new();
    writeln!(
        out,
        "<!-- From probes/{folder}/probe.toml and README.md. Change those, then: {AGAIN} -->\n\
         # {}\n\n{}\n\n**How a pass could mislead.** {}\n",
        manifest.title, manifest.claim, manifest.misleads
    )?;
    writeln!(out, "| | |\n|---|---|")?;
    writeln!(
        out,
        "| Id, version | `{}`, {} |",
        manifest.id, manifest.version
    )?;
    writeln!(out, "| Answers | {} |", answers(manifest))?;
    writeln!(out, "| Reach | `{}` |", manifest.reach)?;
    writeln!(
        out,
        "| Capabilities | {} |",
        manifest.capabilities.join(", ")
    )?;
    for image in &manifest.images {
        writeln!(out, "| Image `{}` | {} |", image.name, image.source)?;
    }
    for namespace in &manifest.namespaces {
        writeln!(
            out,
            "| Namespace | Pod Security {}, at most {} pods |",
            namespace.pod_security.label(),
            namespace.pods
        )?;
    }
    for lease in &manifest.leases {
        writeln!(out, "| Lease `{}` | {} |", lease.name, wish(lease))?;
    }
    let usual = manifest.budget.usual.map(time);
    let usual = usual.map_or(String::new(), |usual| format!("; usually {usual}"));
    writeln!(
        out,
        "| Time | at most {}{usual} |",
        time(manifest.budget.wall)
    )?;

    writeln!(
        out,
        "\n## Cases\n\n| Case | Claim | Expected | Counts only with |\n|---|---|---|---|"
    )?;
    for case in &manifest.cases {
        writeln!(
            out,
            "| `{}`, {} | {} | {} | {} |",
            case.id,
            kind(case),
            cell(&case.claim),
            cell(&case.expected),
            proof(case)
        )?;
    }
    writeln!(
        out,
        "\n## Permissions\n\n| Where | What | Verbs | Why |\n|---|---|---|---|"
    )?;
    for line in &manifest.permissions {
        let what = if line.resources.is_empty() {
            line.non_resource.join(", ")
        } else {
            let groups: Vec<&str> = line.api_groups.iter().map(String::as_str).collect();
            match groups.as_slice() {
                [] | [""] => line.resources.join(", "),
                groups => format!("{} of {}", line.resources.join(", "), groups.join(", ")),
            }
        };
        let optional = if line.optional { ", optional" } else { "" };
        let scope = match &line.scope {
            Scope::Sandbox => "own namespaces".to_owned(),
            Scope::Cluster => "cluster".to_owned(),
            Scope::Namespace(name) => format!("namespace `{name}`"),
        };
        writeln!(
            out,
            "| {scope}{optional} | {what} | {} | {} |",
            line.verbs.join(" "),
            cell(&line.why)
        )?;
    }
    if !manifest.settings.is_empty() {
        writeln!(
            out,
            "\n## Settings\n\n| Setting | Default | |\n|---|---|---|"
        )?;
        for (name, setting) in &manifest.settings {
            let default = setting.default.as_deref().unwrap_or("none");
            writeln!(out, "| `{name}` | {default} | {} |", cell(&setting.help))?;
        }
    }
    writeln!(out, "\n## From its authors\n")?;
    for line in readme.lines().skip_while(|line| !line.is_empty()).skip(1) {
        let deeper = if line.starts_with("## ") { "#" } else { "" };
        let linked = line.replace("](../", "](../../probes/");
        writeln!(out, "{deeper}{linked}")?;
    }
    Ok(out)
}

/// `dra_support` (KAR-51): MUST in 1.34.
fn answers(manifest: &Manifest) -> String {
    let one = |id: &String| {
        let Some(official) = requirement(id) else {
            let area = extension_of(id).map_or("", |extension| extension.area);
            return format!("`{id}`, an extension ({area})");
        };
        let kar = official
            .kar
            .map_or(String::new(), |kar| format!(" (KAR-{kar})"));
        let mut levels = Vec::new();
        for (level, word) in [(Level::Should, "SHOULD"), (Level::Must, "MUST")] {
            let versions: Vec<&str> = VERSIONS
                .iter()
                .copied()
                .filter(|version| official.level(version) == Some(level))
                .collect();
            if !versions.is_empty() {
                levels.push(format!("{word} in {}", versions.join(", ")));
            }
        }
        format!("`{id}`{kar}: {}", levels.join("; "))
    };
    manifest
        .requirements
        .iter()
        .map(one)
        .collect::<Vec<_>>()
        .join("; ")
}

fn kind(case: &Case) -> String {
    let kind = match case.kind {
        CaseKind::Observation => "observation",
        CaseKind::Positive => "positive",
        CaseKind::Negative => "negative",
    };
    let required = match case.required {
        Required::Always => "",
        Required::IfOpened => ", once for each subject",
        Required::Optional => ", not part of the verdict",
    };
    format!("{kind}{required}")
}

/// What the engine asks for before it counts a case.
fn proof(case: &Case) -> String {
    let mut all = Vec::new();
    let effects: Vec<String> = case.effect.iter().map(ToString::to_string).collect();
    if !effects.is_empty() {
        all.push(format!("an answer to {}", effects.join(", ")));
    }
    for control in &case.controls {
        let alive = if control.alive {
            ", still alive at the end"
        } else {
            ""
        };
        all.push(format!(
            "`{}` passed on the same {}{alive}",
            control.case,
            control.same.join(" and ")
        ));
    }
    if let Some(quiet) = case.quiet {
        all.push(format!("{} without a gap", time(quiet)));
    }
    if !case.needs.is_empty() {
        all.push(format!("for a fail, a pass of {}", case.needs.join(", ")));
    }
    if case.pending {
        all.push("leaves pods pending on purpose".to_owned());
    }
    all.join("; ")
}

fn wish(lease: &LeaseLine) -> String {
    let what = match &lease.wish {
        Wish::Lock { name, shared } => {
            format!(
                "lock `{name}`, {}",
                if *shared { "shared" } else { "alone" }
            )
        }
        Wish::Nodes(nodes) => {
            let count = if nodes.least == nodes.most {
                nodes.least.to_string()
            } else {
                format!("{} to {}", nodes.least, nodes.most)
            };
            let units = match nodes.units {
                UnitsWish::Count(0) => String::new(),
                UnitsWish::Count(count) => format!(", {count} free accelerator units on each"),
                UnitsWish::All => ", all free accelerator units on each".to_owned(),
            };
            let alone = if nodes.alone { ", alone" } else { "" };
            format!("{count} nodes{units}{alone}")
        }
    };
    format!("{what}; for {}", time(lease.usual))
}

fn time(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        120.. if seconds.is_multiple_of(60) => format!("{} min", seconds / 60),
        _ => format!("{seconds} s"),
    }
}

/// Text in a cell of a table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}
