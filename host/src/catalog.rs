//! What the engine itself knows of the requirements: ids, KAR numbers, levels per version, what absence of the capability
//! means, and how many cases an answer needs at least. Numbers and words only; the official texts are copied from the
//! form that the user gives.
//!
//! A probe that answers an official id must bring the cases that [`check`] asks for, so that no package can answer one
//! with less. Which signers may answer an id is a question of trust, not of this table.

use crate::manifest::{CaseKind, Manifest, Required};
use crate::model::Reach;
use std::fmt;

/// Versions of the checklist, oldest first; [`Requirement::levels`] has one place for each.
pub const VERSIONS: [&str; 5] = ["1.33", "1.34", "1.35", "1.36", "1.37"];

/// How binding a requirement is in one version of the checklist.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// MUST.
    Must,
    /// SHOULD.
    Should,
    /// The checklist of that version does not list it.
    Absent,
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Level::Must => "MUST",
            Level::Should => "SHOULD",
            Level::Absent => "-",
        })
    }
}

/// Section of the checklist, by its own key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Category {
    /// `accelerators`
    Accelerators,
    /// `networking`
    Networking,
    /// `schedulingOrchestration`
    SchedulingOrchestration,
    /// `observability`
    Observability,
    /// `security`
    Security,
    /// `operator`
    Operator,
}

impl Category {
    /// The key as it stands in forms.
    pub fn key(self) -> &'static str {
        match self {
            Category::Accelerators => "accelerators",
            Category::Networking => "networking",
            Category::SchedulingOrchestration => "schedulingOrchestration",
            Category::Observability => "observability",
            Category::Security => "security",
            Category::Operator => "operator",
        }
    }
}

/// What a verdict may be when the capability is missing altogether; the wording of the requirement decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Absence {
    /// "support", "provide", "ensure".
    Fails,
    /// "must allow for the installation": `unknown (solution_absent)`.
    Unknown,
    /// "if …", "for accelerators that …": `not-applicable`, once absence is shown.
    NotApplicable,
}

/// One requirement of the checklist.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Requirement {
    /// Id in the form.
    pub id: &'static str,
    /// Number of the KAR; none where the requirement has no document of its own.
    pub kar: Option<u16>,
    /// Section of the form.
    pub category: Category,
    /// Level in each of [`VERSIONS`].
    pub levels: [Level; 5],
    /// What absence means.
    pub absence: Absence,
    /// Whether it needs an accelerator, so that the operator may declare a platform without one.
    pub hardware: bool,
    /// The widest set of objects a probe for it touches.
    pub reach: Reach,
    /// Least number of positive cases that are always required.
    pub positive: usize,
    /// Least number of negative cases that are always required.
    pub negative: usize,
}

impl Requirement {
    /// The level in a version such as `1.36`; none for a version that this table does not know.
    pub fn level(&self, version: &str) -> Option<Level> {
        let place = VERSIONS.iter().position(|known| *known == version)?;
        Some(self.levels[place])
    }
}

/// A subject of this project without a requirement behind it. It informs and never counts towards conformance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extension {
    /// Id.
    pub id: &'static str,
    /// `agentic`, `sovereign`, `scheduling`, …
    pub area: &'static str,
    /// What absence means.
    pub absence: Absence,
    /// The widest set of objects a probe for it touches.
    pub reach: Reach,
}

use Absence::{Fails, NotApplicable, Unknown};
use Category::{
    Accelerators, Networking, Observability, Operator, SchedulingOrchestration, Security,
};
use Level::{Absent as A, Must as M, Should as S};
use Reach::{ClusterObjects, Disruptive, Read, Sandbox};

#[expect(
    clippy::too_many_arguments,
    reason = "one line of the table below, never called elsewhere"
)]
const fn row(
    id: &'static str,
    kar: Option<u16>,
    category: Category,
    levels: [Level; 5],
    absence: Absence,
    hardware: bool,
    reach: Reach,
    cases: (usize, usize),
) -> Requirement {
    Requirement {
        id,
        kar,
        category,
        levels,
        absence,
        hardware,
        reach,
        positive: cases.0,
        negative: cases.1,
    }
}

/// Every requirement of any version of the checklist, in the order of its sections.
#[rustfmt::skip]
pub const REQUIREMENTS: &[Requirement] = &[
    row("dra_support",                 Some(51), Accelerators,            [S, M, M, A, A], Fails,         false, ClusterObjects, (1, 1)),
    row("driver_runtime_management",   Some(1),  Accelerators,            [A, A, S, S, S], Fails,         true,  Sandbox,        (1, 0)),
    row("gpu_sharing",                 Some(3),  Accelerators,            [A, A, S, S, S], NotApplicable, true,  Sandbox,        (1, 0)),
    row("virtualized_accelerator",     Some(4),  Accelerators,            [A, A, S, S, S], NotApplicable, true,  Sandbox,        (1, 1)),
    row("ai_inference",                None,     Networking,              [M, M, M, M, M], Fails,         false, Sandbox,        (2, 0)),
    row("advanced_inference_ingress",  Some(11), Networking,              [A, A, A, S, S], Fails,         false, Sandbox,        (1, 1)),
    row("high_performance_networking", Some(10), Networking,              [A, A, A, S, S], NotApplicable, true,  Sandbox,        (2, 1)),
    row("disaggregated_inference",     Some(41), Networking,              [A, A, A, S, S], Unknown,       false, Sandbox,        (1, 0)),
    row("gang_scheduling",             Some(53), SchedulingOrchestration, [M, M, M, M, M], Unknown,       false, ClusterObjects, (2, 1)),
    row("cluster_autoscaling",         Some(55), SchedulingOrchestration, [M, M, M, M, M], NotApplicable, true,  Disruptive,     (2, 0)),
    row("pod_autoscaling",             Some(57), SchedulingOrchestration, [M, M, M, M, M], Unknown,       true,  Sandbox,        (2, 0)),
    row("accelerator_metrics",         Some(59), Observability,           [M, M, M, M, M], Unknown,       true,  Sandbox,        (1, 0)),
    row("ai_service_metrics",          Some(61), Observability,           [M, M, M, M, M], Fails,         false, Sandbox,        (1, 0)),
    row("secure_accelerator_access",   Some(49), Security,                [M, M, M, M, M], Unknown,       true,  Sandbox,        (1, 3)),
    row("workload_sandboxing",         Some(20), Security,                [A, A, A, A, S], Fails,         false, Sandbox,        (1, 2)),
    row("robust_controller",           Some(63), Operator,                [M, M, M, M, M], Unknown,       false, Sandbox,        (2, 1)),
];

const fn extension(
    id: &'static str,
    area: &'static str,
    absence: Absence,
    reach: Reach,
) -> Extension {
    Extension {
        id,
        area,
        absence,
        reach,
    }
}

/// The project's own subjects.
#[rustfmt::skip]
pub const EXTENSIONS: &[Extension] = &[
    extension("agent_sandbox_lifecycle",      "agentic",       NotApplicable, Sandbox),
    extension("agent_sandbox_network",        "agentic",       NotApplicable, Sandbox),
    extension("agent_sandbox_durability",     "agentic",       NotApplicable, Sandbox),
    extension("agent_mcp_access",             "agentic",       NotApplicable, Sandbox),
    extension("sovereign_data_residency",     "sovereign",     Unknown,       Sandbox),
    extension("sovereign_image_provenance",   "sovereign",     Fails,         Sandbox),
    extension("sovereign_encryption_at_rest", "sovereign",     Unknown,       Sandbox),
    extension("sovereign_egress_control",     "sovereign",     Fails,         Sandbox),
    extension("sovereign_audit_logging",      "sovereign",     Unknown,       Sandbox),
    extension("confidential_compute",         "sovereign",     NotApplicable, Sandbox),
    extension("admission_policy",             "sovereign",     Fails,         ClusterObjects),
    extension("inplace_pod_resize",           "scheduling",    Fails,         Sandbox),
    extension("workload_aware_scheduling",    "scheduling",    NotApplicable, Sandbox),
    extension("jobset_lifecycle",             "scheduling",    Unknown,       Sandbox),
    extension("topology_aware_scheduling",    "scheduling",    Unknown,       ClusterObjects),
    extension("priority_preemption",          "scheduling",    Fails,         ClusterObjects),
    extension("resource_reclamation",         "accelerators",  Unknown,       Sandbox),
    extension("checkpoint_storage",           "storage",       Unknown,       Sandbox),
    extension("scale_to_zero",                "scheduling",    NotApplicable, Sandbox),
    extension("model_readiness",              "serving",       Fails,         Sandbox),
    extension("thermal_throttling_metrics",   "observability", Unknown,       Read),
    extension("rdma_collectives",             "networking",    NotApplicable, Sandbox),
    extension("gpu_operator_health",          "accelerators",  NotApplicable, Read),
];

/// The requirement with this id.
pub fn requirement(id: &str) -> Option<&'static Requirement> {
    REQUIREMENTS.iter().find(|row| row.id == id)
}

/// The extension with this id.
pub fn extension_of(id: &str) -> Option<&'static Extension> {
    EXTENSIONS.iter().find(|row| row.id == id)
}

/// Whether an id belongs to somebody else's namespace, `vendor.example/name`: this table says nothing about it.
pub fn is_foreign(id: &str) -> bool {
    id.contains('/')
}

/// What stands between a verdict `not-applicable` and a requirement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotApplicableBy {
    /// A live answer that shows absence, or the operator's declaration.
    AnswerOrDeclaration,
    /// The operator's declaration only: hardware that is not there shows nothing about a platform that should have it.
    Declaration,
    /// Nothing: the wording allows no such verdict.
    Never,
}

/// How `not-applicable` can be earned for an id.
pub fn not_applicable_by(id: &str) -> NotApplicableBy {
    if is_foreign(id) {
        return NotApplicableBy::AnswerOrDeclaration;
    }
    let (absence, hardware) = match (requirement(id), extension_of(id)) {
        (Some(row), _) => (row.absence, row.hardware),
        (None, Some(row)) => (row.absence, false),
        (None, None) => return NotApplicableBy::Never,
    };
    match absence {
        NotApplicable => NotApplicableBy::AnswerOrDeclaration,
        Fails | Unknown if hardware => NotApplicableBy::Declaration,
        Fails | Unknown => NotApplicableBy::Never,
    }
}

/// What a manifest lacks to answer the ids it names; empty when nothing is missing. A package with an answer here may not
/// answer those ids, and its passes do not count.
pub fn check(manifest: &Manifest) -> Vec<String> {
    let count = |kind: CaseKind| {
        manifest
            .cases
            .iter()
            .filter(|case| case.kind == kind && case.required == Required::Always)
            .count()
    };
    let (positive, negative) = (count(CaseKind::Positive), count(CaseKind::Negative));
    let mut missing = Vec::new();
    for id in &manifest.requirements {
        if is_foreign(id) {
            continue;
        }
        let (least_positive, least_negative) = match (requirement(id), extension_of(id)) {
            (Some(row), _) => (row.positive, row.negative),
            (None, Some(_)) => (1, 0),
            (None, None) => {
                missing.push(format!(
                    "requirement `{id}` is in no checklist; write a requirement of your own as `vendor.example/name`"
                ));
                continue;
            }
        };
        for (have, least, kind) in [
            (positive, least_positive, "positive"),
            (negative, least_negative, "negative"),
        ] {
            if have < least {
                missing.push(format!(
                    "requirement `{id}` needs {least} {kind} case{} with required = \"always\", the manifest has {have}",
                    if least == 1 { "" } else { "s" }
                ));
            }
        }
    }
    missing
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn ids_and_numbers_are_unique() {
        let ids: BTreeSet<&str> = REQUIREMENTS
            .iter()
            .map(|row| row.id)
            .chain(EXTENSIONS.iter().map(|row| row.id))
            .collect();
        assert_eq!(ids.len(), 16 + 23);
        let numbers: Vec<u16> = REQUIREMENTS.iter().filter_map(|row| row.kar).collect();
        assert_eq!(numbers.iter().collect::<BTreeSet<_>>().len(), numbers.len());
        assert_eq!(numbers.len(), 15);
    }

    #[test]
    fn each_version_has_as_many_requirements_as_its_form() {
        let counts = VERSIONS.map(|version| {
            let levels: Vec<Level> = REQUIREMENTS
                .iter()
                .filter_map(|row| row.level(version))
                .collect();
            let of = |level| levels.iter().filter(|found| **found == level).count();
            (of(M), of(S))
        });
        assert_eq!(counts, [(8, 1), (9, 0), (9, 3), (8, 6), (8, 7)]);
        assert_eq!(REQUIREMENTS[0].level("1.99"), None);
    }

    #[test]
    fn absence_follows_the_wording() {
        use NotApplicableBy::*;
        for (id, by) in [
            ("dra_support", Never),
            ("gang_scheduling", Never),
            ("cluster_autoscaling", AnswerOrDeclaration),
            ("gpu_sharing", AnswerOrDeclaration),
            ("accelerator_metrics", Declaration),
            ("secure_accelerator_access", Declaration),
            ("scale_to_zero", AnswerOrDeclaration),
            ("model_readiness", Never),
            ("vendor.example/fabric", AnswerOrDeclaration),
            ("no_such_thing", Never),
        ] {
            assert_eq!(not_applicable_by(id), by, "{id}");
        }
    }
}
