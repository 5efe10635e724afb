//! Rules for settings and for the budget: values that an operator may see and change.

use super::parse::{Checked, Checker, plain};
use super::source::shown;
use super::values::is_dns_label;
use super::{Budget, Setting, SettingKind, raw};
use crate::names::DNS_LABEL_MAX;
use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::Duration;
use toml::Spanned;

/// Bounds of the wall time. Adding and removing a node takes 75 minutes at worst.
const WALL: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(2 * 3600);
/// Bounds of the CPU time. A probe waits most of its time; ten minutes of computing is a runaway loop.
const CPU: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(600);
/// Bounds of the memory in bytes. Interpreters need tens of megabytes; a gigabyte is the pool's largest slot.
const MEMORY: RangeInclusive<u64> = 1 << 20..=1 << 30;
/// Bounds of the host calls.
const CALLS: RangeInclusive<u64> = 1..=1_000_000;
/// Bounds of the bytes seen, all of which end up in the recording.
const SEEN: RangeInclusive<u64> = 1 << 10..=256 << 20;
/// Bounds of the usual duration.
const USUAL: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(2 * 3600);

impl Checker<'_> {
    pub(super) fn settings(
        &self,
        raw: &BTreeMap<Spanned<String>, raw::Setting>,
    ) -> Checked<BTreeMap<String, Setting>> {
        raw.iter()
            .map(|(key, raw)| {
                self.require(
                    is_dns_label(key.get_ref(), DNS_LABEL_MAX),
                    key,
                    "setting",
                    "write a DNS label",
                )?;
                let kind = self.setting_kind(raw)?;
                let default = raw
                    .default
                    .as_ref()
                    .map(|default| self.setting_default(&kind, default))
                    .transpose()?;
                Ok((
                    key.get_ref().clone(),
                    Setting {
                        kind,
                        default,
                        help: self.prose(&raw.help, "`help`")?,
                    },
                ))
            })
            .collect()
    }

    fn setting_kind(&self, raw: &raw::Setting) -> Checked<SettingKind> {
        const ONE_OF: &str = "one-of";
        self.known(
            &raw.kind,
            "type",
            &[
                "string", "bool", "integer", "duration", "quantity", ONE_OF, "secret",
            ],
        )?;
        match (raw.kind.get_ref().as_str(), &raw.values) {
            (ONE_OF, Some(values)) => {
                if values.get_ref().is_empty() {
                    return self.refuse(
                        values.span(),
                        "`values` is empty; name the words to choose from",
                    );
                }
                for value in values.get_ref() {
                    self.title(value, "a value")?;
                }
                self.unique("value", values.get_ref())?;
                Ok(SettingKind::OneOf(plain(values.get_ref())))
            }
            (ONE_OF, None) => self.refuse(
                raw.kind.span(),
                "type `one-of` needs `values`; name the words to choose from",
            ),
            (_, Some(values)) => self.refuse(
                values.span(),
                "only type `one-of` has `values`; leave them out",
            ),
            ("bool", None) => Ok(SettingKind::Bool),
            ("integer", None) => Ok(SettingKind::Integer),
            ("duration", None) => Ok(SettingKind::Duration),
            ("quantity", None) => Ok(SettingKind::Quantity),
            ("secret", None) => Ok(SettingKind::Secret),
            (_, None) => Ok(SettingKind::String),
        }
    }

    fn setting_default(
        &self,
        kind: &SettingKind,
        default: &Spanned<toml::Value>,
    ) -> Checked<String> {
        let text = match (kind, default.get_ref()) {
            (SettingKind::Secret, _) => {
                return self.refuse(
                    default.span(),
                    "a secret has no default; the operator gives it",
                );
            }
            (SettingKind::Bool, toml::Value::Boolean(value)) => value.to_string(),
            (SettingKind::Integer, toml::Value::Integer(value)) => value.to_string(),
            (SettingKind::Bool, _) => {
                return self.refuse(
                    default.span(),
                    "the default is no boolean; write `true` or `false`, without quotes",
                );
            }
            (SettingKind::Integer, _) => {
                return self.refuse(
                    default.span(),
                    "the default is no integer; write a whole number, without quotes",
                );
            }
            (_, toml::Value::String(value)) => value.clone(),
            _ => return self.refuse(default.span(), "the default is no text; put it in quotes"),
        };
        match kind.check(&text) {
            Ok(()) => Ok(text),
            Err(form) => self.refuse(
                default.span(),
                format!(
                    "the default `{}` does not fit the type; {form}",
                    shown(&text)
                ),
            ),
        }
    }

    pub(super) fn budget(&self, raw: &raw::Budget) -> Checked<Budget> {
        let mut budget = Budget::default();
        if let Some(wall) = &raw.wall {
            budget.wall = self.duration(wall, "budget `wall`", &WALL)?;
        }
        match &raw.cpu {
            // Without this, a short `wall` would leave a default that can never be reached.
            None => budget.cpu = budget.cpu.min(budget.wall),
            Some(cpu) => {
                budget.cpu = self.duration(cpu, "budget `cpu`", &CPU)?;
                if budget.cpu > budget.wall {
                    return self.refuse(
                        cpu.span(),
                        format!(
                            "budget `cpu` exceeds `wall`, which is {:?}; lower it",
                            budget.wall
                        ),
                    );
                }
            }
        }
        if let Some(memory) = &raw.memory {
            budget.memory_bytes = self.bytes(memory, "budget `memory`", &MEMORY)?;
        }
        if let Some(calls) = &raw.calls {
            if !CALLS.contains(calls.get_ref()) {
                return self.refuse(
                    calls.span(),
                    format!(
                        "budget `calls` must lie between {} and {}",
                        CALLS.start(),
                        CALLS.end()
                    ),
                );
            }
            budget.calls = *calls.get_ref();
        }
        if let Some(seen) = &raw.seen {
            budget.seen_bytes = self.bytes(seen, "budget `seen`", &SEEN)?;
        }
        if let Some(raw) = &raw.usual {
            let usual = self.duration(raw, "budget `usual`", &USUAL)?;
            if usual > budget.wall {
                return self.refuse(
                    raw.span(),
                    format!(
                        "budget `usual` exceeds `wall`, which is {:?}; lower it, or raise `wall`",
                        budget.wall
                    ),
                );
            }
            budget.usual = Some(usual);
        }
        Ok(budget)
    }
}
