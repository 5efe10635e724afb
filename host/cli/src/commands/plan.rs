//! `karat plan`: what a run would do. Asks the cluster questions and changes nothing; `karat run` shows the same plan before
//! it starts.

use super::{Context, block_on};
use crate::args::PlanArgs;
use crate::exit::Exit;
use crate::probes::{Probe, read_limited};
use crate::settings::{Selection, connect_options};
use crate::ui::diagnostics::{Classify as _, CommandError, CommandResult, Hint as _};
use crate::ui::plan::{Shown, lines};
use karat_engine::cluster::{Cluster, ConnectError, ConnectOptions};
use karat_engine::grant::{Effective, Grants, MAX_GRANTS_SIZE};
use karat_engine::lease::worker_nodes;
use karat_engine::manifest::Manifest;
use karat_engine::model::Reach;
use karat_engine::names;
use karat_engine::recording::format::Access;
use karat_engine::run::plan::preflight::{Preflight, preflight};
use karat_engine::run::plan::trial::{Trial, Tried, attempt};
use karat_engine::run::plan::{self, Offer, Plan, RUN_PLACEHOLDER, Wishes};
use std::collections::BTreeMap;

/// Where samples are tried before the run's own namespaces exist. It is there in every cluster.
const TRIAL_NAMESPACE: &str = "default";

/// Plans and shows.
pub(crate) fn execute(context: &Context, args: &PlanArgs) -> CommandResult {
    let selection = Selection::new(&args.selection, &context.environment)?;
    let mut made = make(&selection)?;
    if let Some(line) = selection.redaction_line() {
        context.printer.status(&line);
    }
    let asked = if args.offline {
        None
    } else {
        let options = connect_options(&args.cluster)?;
        Some(block_on(async {
            let cluster = connect(options).await?;
            let asked = ask(&cluster, &selection, &mut made.plan).await?;
            Ok::<_, CommandError>((asked, cluster.context().map(str::to_owned)))
        })??)
    };
    let (asked, name) = match &asked {
        Some((asked, name)) => (Some(asked), name.as_deref()),
        None => (None, None),
    };
    let shown = Shown {
        plan: &made.plan,
        preflight: asked.map(|asked| &asked.preflight),
        trials: asked.map_or(&[], |asked| &asked.trials),
    };
    let printer = &context.printer;
    if args.json {
        printer.json(&shown).bug("cannot write the plan")?;
    } else {
        printer.data_lines(lines(&shown, name, printer.out_paint()));
    }
    Ok(Exit::Passed)
}

/// A plan and the grants it rests on.
pub(crate) struct Made {
    /// The plan.
    pub(crate) plan: Plan,
    /// What the operator grants: the file, or what the plan shows as asked for.
    pub(crate) grants: Grants,
}

/// What a cluster answered.
pub(crate) struct Asked {
    /// Accesses.
    pub(crate) preflight: Preflight,
    /// Samples.
    pub(crate) trials: Vec<Tried>,
}

/// Plans without a cluster.
///
/// # Errors
/// An unreadable grants file.
pub(crate) fn make(selection: &Selection) -> Result<Made, CommandError> {
    let selected = selection.selected();
    let grants = match &selection.grants {
        Some(path) => {
            let name = path.display().to_string();
            let bytes = read_limited(path, MAX_GRANTS_SIZE as u64)?;
            let text = String::from_utf8(bytes).usage(format!("{name} is not UTF-8"))?;
            Grants::parse(&text, &name).usage(format!("{name} is no grants file"))?
        }
        None => {
            let mut all = Grants::none();
            for probe in &selected {
                all.extend(Grants::all_asked(&probe.manifest));
            }
            all
        }
    };
    let effective: BTreeMap<&str, Effective> = selected
        .iter()
        .map(|probe| {
            let manifest = &probe.manifest;
            let effective = Effective::new(manifest, &grants, sandbox(manifest));
            (manifest.id.as_str(), effective)
        })
        .collect();
    let granted = |manifest: &Manifest, access: &Access| match effective.get(manifest.id.as_str()) {
        Some(effective) => effective
            .allows(access)
            .map_err(|refusal| refusal.to_string()),
        None => Err("the probe is not selected".to_owned()),
    };
    let offers: Vec<Offer<'_>> = selected
        .iter()
        .map(|probe| Offer {
            manifest: &probe.manifest,
            digest: &probe.digest,
            enforced: selection.enforce.contains(&probe.manifest.id),
        })
        .collect();
    let wishes = Wishes {
        wanted: Vec::new(),
        reach: selection.reach,
        parallel: selection.parallel,
        images: selection.images.clone(),
        nodes: selection.nodes.clone(),
    };
    let plan = plan::make(&offers, &wishes, &granted);
    Ok(Made { plan, grants })
}

fn sandbox(manifest: &Manifest) -> Vec<String> {
    manifest
        .namespaces
        .iter()
        .map(|line| names::sandbox_namespace(RUN_PLACEHOLDER, &manifest.id, &line.alias))
        .collect()
}

/// Connects and makes sure that somebody answers.
///
/// # Errors
/// No usable kubeconfig.
pub(crate) async fn connect(options: ConnectOptions) -> Result<Cluster, CommandError> {
    let named = options.kubeconfig.is_some() || options.context.is_some();
    Cluster::connect(options).await.map_err(|error| match error {
        // A file or context that the user named is the user's; what was only searched is the environment's.
        ConnectError::Kubeconfig { .. } if named => {
            CommandError::usage(error).doing("cannot use this kubeconfig and context")
        }
        error => CommandError::environment(error)
            .doing("cannot reach a cluster")
            .hint("give --kubeconfig and --context, or set KUBECONFIG; `karat plan --offline` needs no cluster"),
    })
}

/// Asks the cluster what it would allow.
///
/// # Errors
/// It does not answer.
pub(crate) async fn ask(
    cluster: &Cluster,
    selection: &Selection,
    plan: &mut Plan,
) -> Result<Asked, CommandError> {
    let planned: Vec<&Probe> = selection
        .selected()
        .into_iter()
        .filter(|probe| plan.probes.iter().any(|one| one.probe == probe.manifest.id))
        .collect();
    let manifests: Vec<&Manifest> = planned.iter().map(|probe| &*probe.manifest).collect();
    let server = cluster.server();
    let preflight = preflight(
        cluster,
        &manifests,
        &selection.enforce,
        selection.witness,
        selection.images.pull_secrets(),
    )
    .await
    .environment(format!(
        "the cluster at {server} did not answer as expected"
    ))
    .hint("look at the address and the credentials: `kubectl version` with the same kubeconfig")?;
    // Who may not list nodes gets the plan without them.
    if plan.leases.wants_nodes()
        && let Ok(nodes) = worker_nodes(cluster).await
    {
        plan.leases.on_nodes(nodes);
    }
    let mut kinds: Vec<String> = plan
        .probes
        .iter()
        .filter(|probe| probe.reach > Reach::Read)
        .flat_map(|probe| probe.creates.iter().chain(&probe.creates_in_cluster))
        .cloned()
        .collect();
    if plan.probes.iter().any(|probe| !probe.namespaces.is_empty()) {
        kinds.push("namespaces".to_owned());
    }
    let trial = Trial {
        namespace: TRIAL_NAMESPACE.to_owned(),
        kinds,
        image: plan
            .probes
            .iter()
            .find_map(|probe| probe.images.first().cloned()),
        suffix: RUN_PLACEHOLDER.to_owned(),
    };
    let trials = attempt(cluster, &trial)
        .await
        .environment(format!("the cluster at {server} did not answer a dry run"))?;
    Ok(Asked { preflight, trials })
}
