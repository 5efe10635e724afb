//! `karat images check`: asks registries for each image of a plan, by the name and digest that pods use.
//!
//! It asks from this machine and with its credentials. A node sees another network and has other credentials, so this is no
//! proof that a node can pull, and the output says so.

use super::registry::{place, remote};
use super::{Needed, Needs, Stop};
use crate::args::ImagesCheckArgs;
use crate::commands::plan::connect;
use crate::commands::{Context, block_on};
use crate::exit::Exit;
use crate::settings::connect_options;
use crate::ui::diagnostics::{Classify as _, CommandError, CommandResult};
use crate::ui::printer::Style;
use crate::ui::table::{Cell, Table};
use crate::ui::text::{counted, shown_within};
use karat_engine::cluster::Cluster;
use karat_engine::images::OWN_REGISTRY;
use karat_engine::manifest::ImageSource;
use karat_registry::Remote;
use karat_registry::remote::RemoteError;
use serde::Serialize;
use std::collections::BTreeMap;

/// What is true of every answer.
const LIMITS: &str =
    "asked from this machine with its credentials; nodes may see another network and have others";
/// Nodes that are named; the rest is counted.
const NAMED: usize = 5;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum State {
    /// Every platform that it names can be pulled.
    There,
    /// It is not there.
    Absent,
    /// Its index names platforms that are not there.
    Incomplete,
    /// The registry did not answer, or does not let us.
    NotTold,
    /// On the nodes or nowhere: no registry serves it.
    NotAsked,
    /// This program does not have it.
    NotBrought,
}

impl State {
    fn words(self) -> (&'static str, Style) {
        match self {
            State::There => ("there", Style::Good),
            State::Absent => ("not there", Style::Bad),
            State::Incomplete => ("not whole", Style::Bad),
            State::NotTold => ("could not tell", Style::Unsure),
            State::NotAsked => ("on the nodes or nowhere", Style::Unsure),
            State::NotBrought => ("not brought by this program", Style::Bad),
        }
    }
}

#[derive(Debug, Serialize)]
struct Checked {
    image: String,
    probes: Vec<String>,
    state: State,
    platforms: Vec<String>,
    /// Platforms of its index that the registry does not have.
    missing: Vec<String>,
    /// Nodes that it has no platform for.
    lacking: Vec<String>,
    /// What went wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
}

#[derive(Serialize)]
struct Report<'a> {
    images: &'a [Checked],
    /// Nodes by platform; absent where no cluster was asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    nodes: Option<&'a Nodes>,
    limits: &'static str,
}

/// Names of nodes by platform.
type Nodes = BTreeMap<String, Vec<String>>;

/// Checks.
pub(crate) fn execute(context: &Context, args: &ImagesCheckArgs) -> CommandResult {
    let needs = Needs::new(context, &args.plan)?;
    let asks_cluster =
        args.nodes || args.cluster.kubeconfig.is_some() || args.cluster.context.is_some();
    let options = connect_options(&args.cluster)?;
    let (checked, nodes) = block_on(Stop::around("nothing was changed", async |_: Stop| {
        let remote = remote(context, &args.registries)?;
        let nodes = if asks_cluster {
            Some(nodes(&connect(options).await?).await?)
        } else {
            None
        };
        let mut checked = Vec::new();
        for one in &needs.all {
            let mut found = check(&remote, one, &needs).await?;
            found.lacking = lacking(&found, nodes.as_ref());
            checked.push(found);
        }
        Ok((checked, nodes))
    }))??;
    let printer = &context.printer;
    if args.json {
        let report = Report {
            images: &checked,
            nodes: nodes.as_ref(),
            limits: LIMITS,
        };
        printer.json(&report).bug("cannot write what was found")?;
    } else {
        printer.data_lines(table(&checked).lines(printer.out_paint()));
        for one in &checked {
            let image = shown_within(&one.image, 200);
            if let Some(why) = &one.why {
                printer.warn(&format!("{image}: {}", shown_within(why, 600)));
            }
            if !one.missing.is_empty() {
                let missing = shown_within(&one.missing.join(", "), 200);
                printer.warn(&format!(
                    "{image}: its manifests for {missing} are not there"
                ));
            }
            if !one.lacking.is_empty() {
                printer.warn(&format!("{image}: nothing for {}", named(&one.lacking)));
            }
        }
        printer.status(LIMITS);
    }
    Ok(exit(&checked))
}

async fn check(remote: &Remote, one: &Needed, needs: &Needs) -> Result<Checked, CommandError> {
    let own = match &one.source {
        ImageSource::Own(name) => needs.own.images.iter().find(|image| image.name == *name),
        ImageSource::Reference(_) => None,
    };
    let mut checked = Checked {
        image: match (&one.reference, &one.source) {
            (Some(reference), _) => reference.clone(),
            (None, ImageSource::Own(name) | ImageSource::Reference(name)) => name.clone(),
        },
        probes: one.probes.clone(),
        state: State::NotBrought,
        platforms: own.map(|own| own.architectures.clone()).unwrap_or_default(),
        missing: Vec::new(),
        lacking: Vec::new(),
        why: None,
    };
    let Some(reference) = &one.reference else {
        return Ok(checked);
    };
    let at = place(reference)?;
    if at.registry == OWN_REGISTRY {
        checked.state = State::NotAsked;
        return Ok(checked);
    }
    match remote.look(&at).await {
        Ok(seen) => {
            checked.platforms = seen.platforms.into_iter().collect();
            checked.missing = seen.missing.into_iter().collect();
            checked.state = if checked.missing.is_empty() {
                State::There
            } else {
                State::Incomplete
            };
        }
        Err(RemoteError::Absent(_)) => {
            checked.state = State::Absent;
            checked.platforms.clear();
        }
        Err(error) => {
            let error = anyhow::Error::from(error);
            checked.state = State::NotTold;
            checked.why = Some(format!("{error:#}"));
        }
    }
    Ok(checked)
}

/// Nodes by what they can run: the labels that every kubelet sets.
async fn nodes(cluster: &Cluster) -> Result<Nodes, CommandError> {
    let list = cluster.list_json("/api/v1/nodes", "").await;
    let list = list.environment("cannot list the nodes of the cluster")?;
    let mut nodes = Nodes::new();
    for node in list {
        let label = |name: &str| {
            node["metadata"]["labels"][name]
                .as_str()
                .unwrap_or("unknown")
        };
        let platform = format!(
            "{}/{}",
            label("kubernetes.io/os"),
            label("kubernetes.io/arch")
        );
        let name = node["metadata"]["name"].as_str().unwrap_or_default();
        nodes.entry(platform).or_default().push(name.to_owned());
    }
    Ok(nodes)
}

/// Nodes that an image has no platform for. Of an image that was not seen nothing is said, but for one that the program brings:
/// its platforms are known.
fn lacking(checked: &Checked, nodes: Option<&Nodes>) -> Vec<String> {
    let known = matches!(
        checked.state,
        State::There | State::Incomplete | State::NotAsked
    );
    let Some(nodes) = nodes.filter(|_| known) else {
        return Vec::new();
    };
    nodes
        .iter()
        .filter(|(platform, _)| !checked.platforms.contains(platform))
        .flat_map(|(platform, names)| names.iter().map(move |name| format!("{name} ({platform})")))
        .collect()
}

fn named(nodes: &[String]) -> String {
    let shown: Vec<String> = nodes
        .iter()
        .take(NAMED)
        .map(|one| shown_within(one, 100))
        .collect();
    let rest = nodes.len().saturating_sub(NAMED);
    if rest == 0 {
        return shown.join(", ");
    }
    format!("{} and {}", shown.join(", "), counted(rest, "more node"))
}

fn table(checked: &[Checked]) -> Table {
    let mut table = Table::with_heading(&["image", "where pods pull it", "platforms"]);
    for one in checked {
        let (words, style) = one.state.words();
        table.row([
            Cell::styled(shown_within(&one.image, 200), Style::Strong),
            Cell::styled(words.to_owned(), style),
            shown_within(&one.platforms.join(", "), 200).into(),
        ]);
    }
    table
}

/// What is wrong counts before what could not be told.
fn exit(checked: &[Checked]) -> Exit {
    let wrong = |one: &Checked| {
        matches!(
            one.state,
            State::Absent | State::Incomplete | State::NotBrought
        ) || !one.lacking.is_empty()
    };
    if checked.iter().any(wrong) {
        Exit::Failed
    } else if checked.iter().all(|one| one.state == State::There) {
        Exit::Passed
    } else {
        Exit::Unclear
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(state: State, platforms: &[&str]) -> Checked {
        Checked {
            image: "registry.example/x@sha256:00".to_owned(),
            probes: Vec::new(),
            state,
            platforms: platforms.iter().map(|one| (*one).to_owned()).collect(),
            missing: Vec::new(),
            lacking: Vec::new(),
            why: None,
        }
    }

    #[test]
    fn what_is_missing_counts_before_what_could_not_be_told() {
        let of = |states: &[State]| {
            let all: Vec<Checked> = states.iter().map(|state| checked(*state, &[])).collect();
            exit(&all)
        };
        assert_eq!(of(&[State::There, State::There]), Exit::Passed);
        assert_eq!(of(&[State::There, State::NotAsked]), Exit::Unclear);
        assert_eq!(of(&[State::There, State::NotTold]), Exit::Unclear);
        for wrong in [State::Absent, State::Incomplete, State::NotBrought] {
            assert_eq!(of(&[State::NotTold, wrong]), Exit::Failed);
        }
    }

    #[test]
    fn a_node_needs_its_own_platform() {
        let nodes = Nodes::from([
            ("linux/amd64".to_owned(), vec!["a".to_owned()]),
            (
                "linux/arm64".to_owned(),
                vec!["b".to_owned(), "c".to_owned()],
            ),
        ]);
        let one = checked(State::There, &["linux/amd64"]);
        assert_eq!(
            lacking(&one, Some(&nodes)),
            ["b (linux/arm64)", "c (linux/arm64)"]
        );
        assert!(lacking(&one, None).is_empty());
        let brought = checked(State::NotAsked, &["linux/amd64"]);
        assert_eq!(lacking(&brought, Some(&nodes)).len(), 2);
        assert!(lacking(&checked(State::NotTold, &[]), Some(&nodes)).is_empty());
        let many: Vec<String> = (0..7).map(|n| format!("n{n}")).collect();
        assert_eq!(named(&many), "n0, n1, n2, n3, n4 and 2 more nodes");
    }
}
