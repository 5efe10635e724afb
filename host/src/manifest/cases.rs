//! Rules for the cases of a manifest: what each must declare, and how they lean on each other.
//!
//! What a case must show while it runs is judged by the engine from the recording; here it is only made sure that it could.

use super::parse::{Checked, Checker, plain};
use super::permissions::covers;
use super::source::shown;
use super::values::is_dns_label;
use super::{Case, CaseKind, Control, EffectPattern, PermissionLine, Required, raw};
use crate::names::DNS_LABEL_MAX;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::time::Duration;
use toml::Spanned;

/// Facts that a control can share with the case it controls.
const SAME: &[&str] = &["node", "image", "object", "service", "lease"];
/// Bounds of a quiet window. Three retries of the scheduler are the least that shows anything.
const QUIET: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(3600);

impl Checker<'_> {
    pub(super) fn cases(
        &self,
        raw: &Spanned<Vec<Spanned<raw::Case>>>,
        permissions: &[PermissionLine],
    ) -> Checked<Vec<Case>> {
        let list = raw.get_ref();
        if list.is_empty() {
            return self.refuse(raw.span(), "there are no cases; declare at least one");
        }
        self.unique("case", list.iter().map(|case| &case.get_ref().id))?;
        let cases = list
            .iter()
            .map(|case| self.case(case, permissions))
            .collect::<Checked<Vec<_>>>()?;
        for case in list {
            self.references(case.get_ref(), &cases)?;
        }
        self.acyclic(list)?;
        if cases.iter().all(|case| case.required == Required::Optional) {
            return self.refuse(
                raw.span(),
                "every case is `optional`, so nothing would decide; require at least one",
            );
        }
        Ok(cases)
    }

    fn case(&self, case: &Spanned<raw::Case>, permissions: &[PermissionLine]) -> Checked<Case> {
        let raw = case.get_ref();
        self.require(
            is_dns_label(raw.id.get_ref(), DNS_LABEL_MAX),
            &raw.id,
            "case id",
            "write a DNS label",
        )?;
        let kind = self.word(
            &raw.kind,
            "kind",
            &[
                ("observation", CaseKind::Observation),
                ("positive", CaseKind::Positive),
                ("negative", CaseKind::Negative),
            ],
        )?;
        let required = self.word(
            &raw.required,
            "`required`",
            &[
                ("always", Required::Always),
                ("if-opened", Required::IfOpened),
                ("optional", Required::Optional),
            ],
        )?;
        let effect = raw
            .effect
            .iter()
            .map(|text| self.effect(text, permissions))
            .collect::<Checked<Vec<_>>>()?;
        self.unique("effect", &raw.effect)?;
        if effect.is_empty() && kind != CaseKind::Observation {
            let message = format!(
                "a {} case needs an `effect`: the calls whose answers prove it",
                raw.kind.get_ref()
            );
            return self.refuse(raw.kind.span(), message);
        }
        if kind == CaseKind::Negative && raw.controls.is_empty() {
            return self.refuse(
                raw.kind.span(),
                "a negative case needs `controls`: a positive case which shows that the forbidden thing could have happened",
            );
        }
        if kind != CaseKind::Negative {
            if let Some(control) = raw.controls.first() {
                return self.refuse(
                    control.span(),
                    "only a negative case has `controls`; use `needs` for an order",
                );
            }
            if let Some(quiet) = &raw.quiet {
                return self.refuse(
                    quiet.span(),
                    "only a negative case has `quiet`; leave it out",
                );
            }
        }
        let controls = raw
            .controls
            .iter()
            .map(|control| {
                let control = control.get_ref();
                for fact in &control.same {
                    self.known(fact, "fact", SAME)?;
                }
                self.unique("fact", &control.same)?;
                Ok(Control {
                    case: control.case.get_ref().clone(),
                    same: plain(&control.same),
                    alive: control.alive,
                })
            })
            .collect::<Checked<Vec<_>>>()?;
        Ok(Case {
            id: raw.id.get_ref().clone(),
            kind,
            required,
            claim: self.prose(&raw.claim, "the claim")?,
            expected: raw
                .expected
                .as_ref()
                .map(|text| self.prose(text, "`expected`"))
                .transpose()?
                .unwrap_or_default(),
            needs: plain(&raw.needs),
            effect,
            controls,
            quiet: raw
                .quiet
                .as_ref()
                .map(|quiet| self.duration(quiet, "`quiet`", &QUIET))
                .transpose()?,
            pending: raw.pending,
            line: self.source.line(case.span().start),
        })
    }

    fn effect(
        &self,
        text: &Spanned<String>,
        permissions: &[PermissionLine],
    ) -> Checked<EffectPattern> {
        let pattern: EffectPattern = match text.get_ref().parse() {
            Ok(pattern) => pattern,
            Err(form) => {
                return self.refuse(
                    text.span(),
                    format!("effect `{}` is malformed; {form}", shown(text.get_ref())),
                );
            }
        };
        // A call that the door would always refuse can never be an effect: the case could never pass.
        if !permissions.iter().any(|line| covers(line, &pattern)) {
            return self.refuse(
                text.span(),
                format!("effect `{pattern}` matches no permission of this manifest; add the permission or correct the effect"),
            );
        }
        Ok(pattern)
    }

    /// Checks that `needs` and `controls` name other cases, and controls positive ones.
    fn references(&self, case: &raw::Case, cases: &[Case]) -> Checked<()> {
        let controls: Vec<&Spanned<String>> = case
            .controls
            .iter()
            .map(|control| &control.get_ref().case)
            .collect();
        for (what, names) in [
            ("`needs`", case.needs.iter().collect::<Vec<_>>()),
            ("control", controls.clone()),
        ] {
            self.unique(what, names.iter().copied())?;
            for name in names {
                if name.get_ref() == case.id.get_ref() {
                    return self.refuse(
                        name.span(),
                        format!("{what} names the case itself; name another case"),
                    );
                }
                let Some(named) = cases.iter().find(|other| &other.id == name.get_ref()) else {
                    let message = format!(
                        "{what} names `{}`, which is no case of this manifest",
                        shown(name.get_ref())
                    );
                    return self.refuse(name.span(), message);
                };
                if what == "control" && named.kind != CaseKind::Positive {
                    let message = format!(
                        "control `{}` is not a positive case; only something that happened shows that it could",
                        named.id
                    );
                    return self.refuse(name.span(), message);
                }
            }
        }
        Ok(())
    }

    /// Refuses cases that wait for each other, with the whole circle.
    fn acyclic(&self, list: &[Spanned<raw::Case>]) -> Checked<()> {
        let edges: BTreeMap<&str, Vec<&Spanned<String>>> = list
            .iter()
            .map(|case| {
                let case = case.get_ref();
                let controls = case.controls.iter().map(|control| &control.get_ref().case);
                (
                    case.id.get_ref().as_str(),
                    case.needs.iter().chain(controls).collect(),
                )
            })
            .collect();
        // Depth first without recursion: a hostile manifest may chain thousands of cases.
        let mut done = BTreeSet::new();
        for start in edges.keys().copied() {
            let mut path: Vec<(&str, usize)> = vec![(start, 0)];
            while let Some((case, next)) = path.last_mut() {
                let case = *case;
                let edge = if done.contains(case) {
                    None
                } else {
                    edges[case].get(*next)
                };
                let Some(edge) = edge else {
                    done.insert(case);
                    path.pop();
                    continue;
                };
                *next += 1;
                let target = edge.get_ref().as_str();
                if let Some(from) = path.iter().position(|(on_path, _)| *on_path == target) {
                    let mut circle: Vec<&str> =
                        path[from..].iter().map(|(case, _)| *case).collect();
                    circle.push(target);
                    let message = format!(
                        "cases wait for each other: {}; break the circle",
                        shown(&circle.join(" → "))
                    );
                    return self.refuse(edge.span(), message);
                }
                path.push((target, 0));
            }
        }
        Ok(())
    }
}
