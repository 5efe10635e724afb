//! `karat inspect`: what a probe is and asks for, from its bytes alone. Nothing is compiled or run.

use super::Context;
use crate::args::InspectArgs;
use crate::exit::Exit;
use crate::probes::{Probe, read_component};
use crate::settings;
use crate::ui::diagnostics::{Classify as _, CommandError, CommandResult};
use crate::ui::plan::{kind_word, required_words};
use crate::ui::printer::{Paint, Style};
use crate::ui::text::{bytes, counted, duration, shown, shown_within};
use crate::ui::verdicts::push_wrapped;
use karat_engine::manifest::{Manifest, Scope};
use karat_engine::run::plan::describe;
use karat_registry::{Artifact, artifact::ComponentInterface};
use serde::Serialize;
use std::path::Path;

#[derive(Serialize)]
struct Inspected<'a> {
    origin: &'a str,
    digest: &'a str,
    bytes: usize,
    imports: &'a [String],
    exports: &'a [String],
    manifest: &'a Manifest,
}

/// Shows one probe, or all that answer a requirement.
pub(crate) fn execute(context: &Context, args: &InspectArgs) -> CommandResult {
    let found: Vec<Probe> = if names_a_file(&args.target) {
        let path = Path::new(&args.target);
        vec![Probe::from_bytes(
            read_component(path)?,
            args.target.clone(),
        )?]
    } else {
        let probes = settings::probes(&args.sources, &context.environment)?;
        probes.find(&args.target)?.into_iter().cloned().collect()
    };
    let printer = &context.printer;
    for (number, probe) in found.iter().enumerate() {
        let interface = interface(probe)?;
        if args.json {
            let inspected = Inspected {
                origin: &probe.origin,
                digest: &probe.digest,
                bytes: probe.bytes.len(),
                imports: &interface.imports,
                exports: &interface.exports,
                manifest: &probe.manifest,
            };
            printer
                .json(&inspected)
                .bug("cannot write what was found")?;
        } else {
            if number > 0 {
                printer.data("");
            }
            printer.data_lines(lines(probe, &interface, printer.out_paint()));
        }
    }
    Ok(Exit::Passed)
}

/// A probe id never ends in `.wasm` and never starts like a path, though a foreign one holds a slash.
fn names_a_file(target: &str) -> bool {
    target.ends_with(".wasm") || target.starts_with(['.', '/'])
}

fn interface(probe: &Probe) -> Result<ComponentInterface, CommandError> {
    let manifest = &probe.manifest;
    let artifact = Artifact::new(&manifest.id, &manifest.version, probe.bytes.to_vec())
        .usage(format!("{} is no valid component", probe.origin))?;
    Ok(artifact.interface().clone())
}

fn lines(probe: &Probe, interface: &ComponentInterface, paint: Paint) -> Vec<String> {
    let manifest = &probe.manifest;
    let id = paint.paint(Style::Strong, &shown_within(&manifest.id, 60));
    let mut out = vec![format!(
        "{id} {}  {}",
        shown_within(&manifest.version, 40),
        shown_within(&manifest.title, 100)
    )];
    let mut row = |label: &str, text: &str| push_wrapped(&mut out, &format!("  {label:<10}"), text);
    row("claim", &shown(&manifest.claim));
    row("misleads", &shown(&manifest.misleads));
    if !manifest.requirements.is_empty() {
        let names: Vec<String> = manifest
            .requirements
            .iter()
            .map(|name| shown_within(name, 60))
            .collect();
        row("answers", &names.join(", "));
    }
    row("contract", &shown_within(&manifest.contract, 40));
    row("digest", &probe.digest);
    let size = probe.bytes.len();
    row("size", &format!("{} ({size} bytes)", bytes(size as u64)));
    row("from", &shown(&probe.origin));
    row("reach", &manifest.reach.to_string());
    let budget = &manifest.budget;
    row(
        "budget",
        &format!(
            "{}, {} of CPU, {} of memory, {} calls, {} seen",
            duration(budget.wall),
            duration(budget.cpu),
            bytes(budget.memory_bytes),
            budget.calls,
            bytes(budget.seen_bytes)
        ),
    );
    for import in &interface.imports {
        row("imports", &shown_within(import, 200));
    }
    for line in &manifest.permissions {
        let place = match &line.scope {
            _ if !line.non_resource.is_empty() => String::new(),
            Scope::Sandbox => " in its own namespaces".to_owned(),
            Scope::Cluster => " in the whole cluster".to_owned(),
            Scope::Namespace(name) => format!(" in namespace {}", shown_within(name, 80)),
        };
        let optional = if line.optional {
            ", can do without"
        } else {
            ""
        };
        let what = shown(&describe(line));
        row(
            "asks for",
            &format!("{what}{place}{optional}: {}", shown(&line.why)),
        );
    }
    for namespace in &manifest.namespaces {
        let text = format!(
            "{}, Pod Security {}, at most {}",
            shown_within(&namespace.alias, 20),
            namespace.pod_security.label(),
            counted(namespace.pods as usize, "pod")
        );
        row("namespace", &text);
    }
    for image in &manifest.images {
        let name = shown_within(&image.name, 60);
        row(
            "image",
            &format!("{name}: {}", shown(&image.source.to_string())),
        );
    }
    for snapshot in &manifest.snapshots {
        let version = shown_within(&snapshot.api_version, 80);
        let resource = shown_within(&snapshot.resource, 80);
        row("snapshot", &format!("{version} {resource}"));
    }
    for (key, setting) in &manifest.settings {
        let default = match &setting.default {
            Some(value) => format!(", default {}", shown_within(value, 80)),
            None => String::new(),
        };
        let kind = shown_within(&settings::kind_of_setting(&setting.kind), 200);
        let text = format!(
            "{}: {} ({kind}{default})",
            shown_within(key, 60),
            shown(&setting.help)
        );
        row("setting", &text);
    }
    for case in &manifest.cases {
        let text = format!(
            "{} ({}{}): {}",
            shown_within(&case.id, 60),
            kind_word(case.kind),
            required_words(case.required),
            shown(&case.claim)
        );
        row("case", &text);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ui::samples::{HOSTILE, component_with};

    fn probe() -> Probe {
        let component = component_with("dra-support", "0.1.0", "dra_support");
        Probe::from_bytes(component, "a.wasm".to_owned()).unwrap()
    }

    #[test]
    fn a_probe_in_full() {
        let mut probe = probe();
        probe.digest = "sha256:[digest]".to_owned();
        let size = probe.bytes.len().to_string();
        let text = lines(&probe, &interface(&probe).unwrap(), Paint::Never).join("\n");
        insta::assert_snapshot!(text.replace(&size, "[n]"));
    }

    #[test]
    fn hostile_text_stays_on_its_line() {
        let mut probe = probe();
        let mut manifest = (*probe.manifest).clone();
        manifest.title = HOSTILE.to_owned();
        manifest.claim = HOSTILE.to_owned();
        manifest.permissions[0].why = HOSTILE.to_owned();
        manifest.cases[0].claim = HOSTILE.to_owned();
        probe.manifest = manifest.into();
        let interface = ComponentInterface {
            imports: vec![HOSTILE.to_owned()],
            ..ComponentInterface::default()
        };
        for line in lines(&probe, &interface, Paint::Never) {
            let hostile = |c: char| c.is_control() || c == '\u{202e}';
            assert!(!line.contains(hostile), "{line:?}");
            assert!(!line.contains("##vso["), "{line:?}");
        }
    }

    #[test]
    fn files_and_ids_are_told_apart() {
        for (target, file) in [
            ("a.wasm", true),
            ("./a", true),
            ("/a", true),
            ("dra-support", false),
            ("v.example/x", false),
        ] {
            assert_eq!(names_a_file(target), file, "{target}");
        }
    }
}
