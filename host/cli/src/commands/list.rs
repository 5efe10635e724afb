//! `karat list`: the probes that can be run. Reads manifests only, so it answers at once.

use super::Context;
use crate::args::ListArgs;
use crate::exit::Exit;
use crate::probes::Probes;
use crate::settings;
use crate::ui::diagnostics::{Classify as _, CommandResult};
use crate::ui::printer::Style;
use crate::ui::table::{Cell, Table};
use crate::ui::text::{bytes, shown_within};
use karat_engine::model::Reach;
use serde::Serialize;

#[derive(Serialize)]
struct Listed<'a> {
    probe: &'a str,
    version: &'a str,
    title: &'a str,
    requirements: &'a [String],
    reach: Reach,
    cases: usize,
    contract: &'a str,
    digest: &'a str,
    bytes: usize,
    origin: &'a str,
}

/// Lists.
pub(crate) fn execute(context: &Context, args: &ListArgs) -> CommandResult {
    let probes = settings::probes(&args.sources, &context.environment)?;
    let listed = listed(&probes);
    let printer = &context.printer;
    if args.json {
        printer.json(&listed).bug("cannot write the list")?;
    } else {
        printer.data_lines(table(&listed).lines(printer.out_paint()));
    }
    Ok(Exit::Passed)
}

fn listed(probes: &Probes) -> Vec<Listed<'_>> {
    probes
        .iter()
        .map(|probe| Listed {
            probe: &probe.manifest.id,
            version: &probe.manifest.version,
            title: &probe.manifest.title,
            requirements: &probe.manifest.requirements,
            reach: probe.manifest.reach,
            cases: probe.manifest.cases.len(),
            contract: &probe.manifest.contract,
            digest: &probe.digest,
            bytes: probe.bytes.len(),
            origin: &probe.origin,
        })
        .collect()
}

fn table(listed: &[Listed<'_>]) -> Table {
    let mut table = Table::with_heading(&[
        "probe", "version", "answers", "reach", "cases", "size", "title",
    ]);
    for one in listed {
        let requirements: Vec<String> = one
            .requirements
            .iter()
            .map(|name| shown_within(name, 40))
            .collect();
        table.row([
            Cell::styled(shown_within(one.probe, 60), Style::Strong),
            shown_within(one.version, 30).into(),
            requirements.join(", ").into(),
            one.reach.to_string().into(),
            one.cases.to_string().into(),
            bytes(one.bytes as u64).into(),
            shown_within(one.title, 80).into(),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ui::printer::Paint;
    use crate::ui::samples::component_with;

    #[test]
    fn a_list_for_people() {
        let folder = tempfile::tempdir().unwrap();
        for (file, id) in [("a.wasm", "dra-support"), ("b.wasm", "vendor.example/fans")] {
            let component = component_with(id, "0.1.0", "dra_support");
            std::fs::write(folder.path().join(file), component).unwrap();
        }
        let probes = Probes::load(&[folder.path().to_owned()]).unwrap();
        insta::assert_snapshot!(table(&listed(&probes)).lines(Paint::Never).join("\n"));
    }
}
