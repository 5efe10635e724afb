//! A plan as text: cluster, probes with cases and permissions, missing RBAC, trials, what will be created, cost, and what
//! is left out and why.

use crate::ui::printer::{Paint, Style};
use crate::ui::text::{bytes, counted, duration_ms, shown, shown_lines, shown_within};
use crate::ui::verdicts::push_wrapped;
use karat_engine::lease::graph::Graph;
use karat_engine::manifest::{CaseKind, Required};
use karat_engine::run::plan::preflight::Preflight;
use karat_engine::run::plan::trial::{TrialResult, Tried};
use karat_engine::run::plan::{LeftOutWhy, Plan, PlannedPermission, PlannedProbe};
use karat_engine::run_lease::Holder;
use serde::Serialize;

/// Everything that `karat plan` shows; its JSON form is what `karat plan --json` prints.
#[derive(Serialize)]
pub(crate) struct Shown<'a> {
    /// The plan.
    pub(crate) plan: &'a Plan,
    /// What the cluster said; none offline.
    pub(crate) preflight: Option<&'a Preflight>,
    /// What policies said.
    pub(crate) trials: &'a [Tried],
}

/// Where the cluster's answers came from, for the first lines.
pub(crate) fn cluster_line(context: Option<&str>, preflight: &Preflight) -> String {
    let context = context.map_or(String::new(), |name| format!("context {}, ", shown(name)));
    let user = if preflight.username.is_empty() {
        String::new()
    } else {
        format!(", as {}", shown_within(&preflight.username, 120))
    };
    format!(
        "{context}{}, Kubernetes {}{user}",
        shown_within(&preflight.server, 200),
        shown_within(&preflight.cluster.server_version, 60)
    )
}

/// The lines.
pub(crate) fn lines(shown_plan: &Shown<'_>, context: Option<&str>, paint: Paint) -> Vec<String> {
    let plan = shown_plan.plan;
    let heading = |text: &str| paint.paint(Style::Strong, text);
    let mut out = Vec::new();
    if let Some(preflight) = shown_plan.preflight {
        push_wrapped(&mut out, "cluster  ", &cluster_line(context, preflight));
    } else {
        out.push("cluster  none was asked".to_owned());
    }
    out.push(format!("reach    {}", plan.reach));

    for probe in &plan.probes {
        out.push(String::new());
        probe_lines(&mut out, probe, paint);
    }
    if plan.probes.is_empty() {
        out.push(String::new());
        out.push("nothing would be run".to_owned());
    }

    if !plan.left_out.is_empty() {
        out.push(String::new());
        out.push(heading("left out"));
        for left in &plan.left_out {
            let id = shown_within(&left.probe, 60);
            match &left.why {
                LeftOutWhy::Reach(reach) => {
                    push_wrapped(
                        &mut out,
                        "  ",
                        &format!("{id}: needs reach {reach}: add --reach {reach}"),
                    );
                }
                LeftOutWhy::NoImage(refusal) | LeftOutWhy::NotGranted(refusal) => {
                    let mut refusal = shown_lines(refusal, 12).into_iter();
                    let first = refusal.next().unwrap_or_default();
                    push_wrapped(&mut out, "  ", &format!("{id}: denied: {first}"));
                    for line in refusal {
                        push_wrapped(&mut out, "    ", &line);
                    }
                }
            }
        }
    }

    if let Some(preflight) = shown_plan.preflight {
        out.push(String::new());
        rbac_lines(&mut out, preflight, paint);
    }
    if !shown_plan.trials.is_empty() {
        out.push(String::new());
        out.push(heading("one object of each kind, as a dry run"));
        for tried in shown_plan.trials {
            trial_line(&mut out, tried);
        }
    }

    if !plan.leases.rows.is_empty() {
        out.push(String::new());
        lease_lines(&mut out, &plan.leases, paint);
    }
    if !plan.probes.is_empty() {
        out.push(String::new());
        let holder = shown_plan
            .preflight
            .and_then(|asked| asked.held_by.as_ref());
        cost_lines(&mut out, plan, holder, paint);
    }
    out
}

fn probe_lines(out: &mut Vec<String>, probe: &PlannedProbe, paint: Paint) {
    let id = paint.paint(Style::Strong, &shown_within(&probe.probe, 60));
    out.push(format!(
        "{id} {}  {}",
        shown_within(&probe.version, 40),
        shown_within(&probe.title, 100)
    ));
    if !probe.requirements.is_empty() {
        let names: Vec<String> = probe
            .requirements
            .iter()
            .map(|name| shown_within(name, 60))
            .collect();
        push_wrapped(out, "  answers   ", &names.join(", "));
    }
    for case in &probe.cases {
        let (kind, required) = (kind_word(case.kind), required_words(case.required));
        let pending = if case.pending {
            "; leaves pods pending on purpose"
        } else {
            ""
        };
        let text = format!(
            "{} ({kind}{required}): {}{pending}",
            shown_within(&case.id, 60),
            shown(&case.claim)
        );
        push_wrapped(out, "  case      ", &text);
    }
    for permission in &probe.permissions {
        permission_line(out, permission, paint);
    }
    if probe.enforced {
        let text = "an account of its own with what is granted here: the API server enforces it beside the door (--rbac enforce)";
        push_wrapped(out, "  acts as   ", text);
    }
    for namespace in &probe.namespaces {
        let text = format!(
            "namespace {}, Pod Security {}, at most {}",
            shown_within(&namespace.name, 80),
            namespace.pod_security.label(),
            counted(namespace.pods as usize, "pod")
        );
        push_wrapped(out, "  creates   ", &text);
    }
    for (kinds, place) in [
        (&probe.creates, "inside"),
        (&probe.creates_in_cluster, "in the whole cluster"),
    ] {
        if !kinds.is_empty() {
            let kinds: Vec<String> = kinds.iter().map(|kind| shown_within(kind, 80)).collect();
            push_wrapped(
                out,
                "  creates   ",
                &format!("{place}: {}", kinds.join(", ")),
            );
        }
    }
    for image in &probe.images {
        push_wrapped(out, "  image     ", &shown(image));
    }
    if !probe.nodes.is_empty() {
        let labels = shown(&probe.nodes.to_string());
        push_wrapped(out, "  leases    ", &format!("only nodes with {labels}"));
    }
    let limits = format!(
        "{}, {} calls, {} of memory",
        duration_ms(probe.wall_ms),
        probe.calls,
        bytes(probe.memory_bytes)
    );
    push_wrapped(out, "  at most   ", &limits);
}

/// The word for a kind of case.
pub(crate) fn kind_word(kind: CaseKind) -> &'static str {
    match kind {
        CaseKind::Observation => "observation",
        CaseKind::Positive => "positive",
        CaseKind::Negative => "negative",
    }
}

/// When a case counts, as a suffix of its kind.
pub(crate) fn required_words(required: Required) -> &'static str {
    match required {
        Required::Always => "",
        Required::IfOpened => ", if it arises",
        Required::Optional => ", not part of the verdict",
    }
}

fn permission_line(out: &mut Vec<String>, permission: &PlannedPermission, paint: Paint) {
    let optional = if permission.optional {
        ", can do without"
    } else {
        ""
    };
    // A path outside the resource API has no namespace.
    let place = if permission.what.starts_with("get /") {
        String::new()
    } else {
        format!(" {}", shown_within(&permission.place, 100))
    };
    let text = format!(
        "{}{place}{optional}: {}",
        shown(&permission.what),
        shown(&permission.why)
    );
    match &permission.refused {
        None => push_wrapped(out, "  granted   ", &text),
        Some(refusal) => {
            let mut lines = Vec::new();
            push_wrapped(&mut lines, "  REFUSED   ", &text);
            for line in shown_lines(refusal, 12) {
                push_wrapped(&mut lines, "            ", &line);
            }
            out.extend(
                lines
                    .into_iter()
                    .map(|line| paint.paint(Style::Unsure, &line)),
            );
        }
    }
}

fn rbac_lines(out: &mut Vec<String>, preflight: &Preflight, paint: Paint) {
    if preflight.missing.is_empty() {
        let text = format!(
            "your account has all {} accesses that this needs",
            preflight.asked
        );
        push_wrapped(out, "", &text);
        return;
    }
    out.push(paint.paint(
        Style::Unsure,
        &format!(
            "your account lacks {} of {} accesses",
            preflight.missing.len(),
            preflight.asked
        ),
    ));
    for missing in &preflight.missing {
        let reason = if missing.reason.is_empty() {
            String::new()
        } else {
            format!(" ({})", shown_within(&missing.reason, 200))
        };
        let who: Vec<String> = missing
            .needed_by
            .iter()
            .map(|id| shown_within(id, 60))
            .collect();
        push_wrapped(
            out,
            "  ",
            &format!("{}, for {}{reason}", shown(&missing.what), who.join(", ")),
        );
    }
    if let Some(yaml) = &preflight.rbac {
        out.push(String::new());
        out.push("an administrator can grant it: save this and `kubectl apply -f` it".to_owned());
        out.push(String::new());
        // Strings in it are quoted as JSON, which leaves no control character; what else is invisible is shown.
        out.extend(yaml.lines().map(shown));
    }
}

fn trial_line(out: &mut Vec<String>, tried: &Tried) {
    let place = if tried.namespace.is_empty() {
        String::new()
    } else {
        format!(" in {}", shown_within(&tried.namespace, 80))
    };
    let kind = shown_within(&tried.kind, 80);
    let text = match &tried.result {
        TrialResult::Accepted => format!("accepted   {kind}{place}"),
        TrialResult::Changed(changes) => {
            let changes: Vec<String> = changes
                .iter()
                .map(|change| shown_within(change, 100))
                .collect();
            format!("changed    {kind}{place}: {}", changes.join(", "))
        }
        TrialResult::Refused(why) => format!("REFUSED    {kind}{place}: {}", shown(why)),
        TrialResult::NotTried(why) => format!("not tried  {kind}: {}", shown(why)),
    };
    push_wrapped(out, "  ", &text);
}

fn lease_lines(out: &mut Vec<String>, leases: &Graph, paint: Paint) {
    out.push(paint.paint(Style::Strong, "who holds what"));
    for row in &leases.rows {
        let what = if row.amount.is_empty() {
            format!("lock {}", shown_within(&row.what, 100))
        } else {
            shown_within(&row.amount, 100)
        };
        let text = format!(
            "{what}: {}/{}, {}, for {}",
            shown_within(&row.probe, 60),
            shown_within(&row.lease, 63),
            row.how,
            duration_ms(row.for_ms)
        );
        push_wrapped(out, "  ", &text);
    }
    if leases.longest_ms > 0 {
        let text = format!(
            "longest path: {} ({}); no order of the probes is faster",
            duration_ms(leases.longest_ms),
            shown_within(&leases.because, 100)
        );
        push_wrapped(out, "  ", &text);
    }
}

fn cost_lines(out: &mut Vec<String>, plan: &Plan, holder: Option<&Holder>, paint: Paint) {
    let cost = &plan.cost;
    out.push(paint.paint(Style::Strong, "at most, all together"));
    let mut text = format!(
        "  {}, {}, {}, {} calls",
        duration_ms(cost.wall_ms),
        counted(cost.namespaces as usize, "namespace"),
        counted(cost.pods as usize, "pod"),
        cost.calls
    );
    if cost.cluster_objects > 0 {
        text.push_str(&format!(
            ", {} objects outside of namespaces",
            cost.cluster_objects
        ));
    }
    out.push(text);
    if !cost.pending.is_empty() {
        let cases: Vec<String> = cost
            .pending
            .iter()
            .map(|case| shown_within(case, 100))
            .collect();
        push_wrapped(
            out,
            "  ",
            &format!(
                "pods stay pending on purpose, which an autoscaler may answer with nodes: {}",
                cases.join(", ")
            ),
        );
    }
    if plan.probes.iter().any(|probe| probe.writes) {
        let text = "the run holds Lease karat-run in namespace default, so that no other one writes meanwhile";
        push_wrapped(out, "  ", text);
        if let Some(holder) = holder {
            let text = format!(
                "run {} holds it now{}: with --wait this run waits for it, else it ends at once",
                shown_within(&holder.run, 40),
                match holder.since.as_str() {
                    "" => String::new(),
                    since => format!(", since {}", shown_within(since, 40)),
                }
            );
            let mut lines = Vec::new();
            push_wrapped(&mut lines, "  ", &text);
            out.extend(lines.iter().map(|line| paint.paint(Style::Unsure, line)));
        }
    }
    out.push(
        "  everything is removed at the end; `karat clean` removes what a crash leaves".to_owned(),
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ui::samples::{HOSTILE, manifest_text};
    use karat_engine::manifest::Manifest;
    use karat_engine::model::{ClusterRecord, Reach};
    use karat_engine::recording::format::Access;
    use karat_engine::run::plan::preflight::Missing;
    use karat_engine::run::plan::{self, Offer, Wishes};

    fn plan(reach: Reach, granted: &plan::Granted<'_>) -> Plan {
        let manifest = Manifest::parse(
            &manifest_text("dra-support", "0.1.0", "dra_support"),
            "probe.toml",
        )
        .unwrap();
        let wishes = Wishes {
            wanted: Vec::new(),
            reach,
            parallel: 2,
            images: Default::default(),
            nodes: Default::default(),
        };
        plan::make(
            &[Offer {
                manifest: &manifest,
                digest: "sha256:00",
                enforced: true,
            }],
            &wishes,
            granted,
        )
    }

    fn preflight() -> Preflight {
        Preflight {
            server: "https://10.0.0.1:6443/".to_owned(),
            cluster: ClusterRecord {
                uid: "u-1".to_owned(),
                server_version: "v1.37.0".to_owned(),
            },
            username: "jane".to_owned(),
            asked: 18,
            missing: vec![Missing {
                what: "create deviceclasses.resource.k8s.io in the whole cluster".to_owned(),
                reason: String::new(),
                needed_by: vec!["dra-support".to_owned()],
            }],
            rbac: Some("apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRole\n".to_owned()),
            held_by: Some(Holder {
                run: "k7f2mq3a".to_owned(),
                since: "2026-01-02T03:04:05Z".to_owned(),
                purpose: String::new(),
                duration: std::time::Duration::from_secs(30),
            }),
        }
    }

    #[test]
    fn a_plan_in_full() {
        let plan = plan(Reach::ClusterObjects, &|_, _| Ok(()));
        let trials = [
            Tried {
                kind: "resourceclaims.resource.k8s.io".to_owned(),
                namespace: "default".to_owned(),
                result: TrialResult::Accepted,
            },
            Tried {
                kind: "deviceclasses.resource.k8s.io".to_owned(),
                namespace: String::new(),
                result: TrialResult::Refused("403: policy says no".to_owned()),
            },
        ];
        let preflight = preflight();
        let shown = Shown {
            plan: &plan,
            preflight: Some(&preflight),
            trials: &trials,
        };
        insta::assert_snapshot!(lines(&shown, Some("lab"), Paint::Never).join("\n"));
    }

    #[test]
    fn what_is_left_out_says_how_to_include_it() {
        let plan = plan(Reach::Sandbox, &|_, _| Ok(()));
        let shown = Shown {
            plan: &plan,
            preflight: None,
            trials: &[],
        };
        insta::assert_snapshot!(lines(&shown, None, Paint::Never).join("\n"));
    }

    #[test]
    fn a_missing_grant_names_the_line() {
        let refuse = |_: &Manifest, access: &Access| match access {
            Access::NonResource { .. } => {
                Err("add `non-resource = [\"/version\"]` to grants.toml".to_owned())
            }
            _ => Ok(()),
        };
        let plan = plan(Reach::Disruptive, &refuse);
        let shown = Shown {
            plan: &plan,
            preflight: None,
            trials: &[],
        };
        let text = lines(&shown, None, Paint::Never).join("\n");
        assert!(
            text.contains("REFUSED   get /version, can do without"),
            "{text}"
        );
    }

    #[test]
    fn hostile_text_stays_on_its_line() {
        let mut plan = plan(Reach::ClusterObjects, &|_, _| Ok(()));
        let probe = &mut plan.probes[0];
        for text in [&mut probe.probe, &mut probe.title, &mut probe.version] {
            *text = HOSTILE.to_owned();
        }
        probe.cases[0].claim = HOSTILE.to_owned();
        probe.permissions[0].why = HOSTILE.to_owned();
        probe.permissions[0].refused = Some(HOSTILE.to_owned());
        probe.images = vec![HOSTILE.to_owned()];
        let mut preflight = preflight();
        preflight.username = HOSTILE.to_owned();
        preflight.server = HOSTILE.to_owned();
        preflight.missing[0].reason = HOSTILE.to_owned();
        preflight.held_by.as_mut().unwrap().run = HOSTILE.to_owned();
        preflight.held_by.as_mut().unwrap().since = HOSTILE.to_owned();
        let shown = Shown {
            plan: &plan,
            preflight: Some(&preflight),
            trials: &[],
        };
        for line in lines(&shown, Some(HOSTILE), Paint::Never) {
            assert!(
                !line.chars().any(|c| c.is_control() || c == '\u{202e}'),
                "{line:?}"
            );
            assert!(!line.contains("##vso["), "{line:?}");
        }
    }
}
