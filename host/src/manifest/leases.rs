//! Rules for the leases of a manifest: each is about nodes or about a lock, and says how long it is usually held.
//!
//! Whether a cluster has what a lease asks for is found out when it is taken ([`crate::lease`]).

use super::parse::{Checked, Checker};
use super::source::shown;
use super::values::{self, is_dns_label};
use super::{LeaseLine, NodesWish, UnitsWish, Wish, raw};
use crate::names::DNS_LABEL_MAX;
use std::ops::RangeInclusive;
use std::time::Duration;
use toml::Spanned;

/// Most nodes of one lease. A check that needs more shows nothing that a thousand do not show.
const MAX_NODES: u32 = 1000;
/// Most units on one node; the largest nodes have some hundred partitions.
const MAX_UNITS: i64 = 1000;
/// Bounds of the time that a lease is usually held.
const USUAL: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(2 * 3600);

fn is_true(value: Option<&Spanned<bool>>) -> bool {
    value.is_some_and(|value| *value.get_ref())
}

impl Checker<'_> {
    pub(super) fn leases(
        &self,
        raw: &[raw::Lease],
        capabilities: &[String],
    ) -> Checked<Vec<LeaseLine>> {
        self.unique("lease", raw.iter().map(|line| &line.name))?;
        if let Some(first) = raw.first()
            && !capabilities.iter().any(|have| have == "leases")
        {
            return self.refuse(
                first.name.span(),
                "a lease needs capability `leases`; add it to `capabilities`",
            );
        }
        raw.iter()
            .map(|line| {
                self.require(
                    is_dns_label(line.name.get_ref(), DNS_LABEL_MAX),
                    &line.name,
                    "lease name",
                    "write a DNS label",
                )?;
                Ok(LeaseLine {
                    name: line.name.get_ref().clone(),
                    wish: self.wish(line)?,
                    usual: self.duration(&line.usual, "`for`", &USUAL)?,
                })
            })
            .collect()
    }

    fn wish(&self, line: &raw::Lease) -> Checked<Wish> {
        match (&line.nodes, &line.lock) {
            (Some(nodes), None) => {
                if let Some(shared) = &line.shared {
                    return self.refuse(
                        shared.span(),
                        "`shared` belongs to a lock; nodes are shared unless `alone` is true",
                    );
                }
                let (least, most) = self.nodes(nodes)?;
                Ok(Wish::Nodes(NodesWish {
                    least,
                    most,
                    units: match &line.units {
                        None => UnitsWish::Count(0),
                        Some(units) => self.units(units)?,
                    },
                    alone: is_true(line.alone.as_ref()),
                    containers: is_true(line.containers.as_ref()),
                }))
            }
            (None, Some(lock)) => {
                let of_nodes = [
                    ("units", line.units.as_ref().map(Spanned::span)),
                    ("alone", line.alone.as_ref().map(Spanned::span)),
                    ("containers", line.containers.as_ref().map(Spanned::span)),
                ];
                for (key, span) in of_nodes {
                    if let Some(span) = span {
                        let message = format!("`{key}` belongs to `nodes`; make two leases");
                        return self.refuse(span, message);
                    }
                }
                self.require(
                    values::is_lock(lock.get_ref()),
                    lock,
                    "lock",
                    "write `pool/NAME`, `node/NAME`, `metrics/NAME`, `cluster/RESOURCE`, `preemption` or `autoscaler`",
                )?;
                Ok(Wish::Lock {
                    name: lock.get_ref().clone(),
                    shared: is_true(line.shared.as_ref()),
                })
            }
            (Some(_), Some(lock)) => self.refuse(
                lock.span(),
                "a lease has `nodes` or `lock`, not both; make two leases and take them together",
            ),
            (None, None) => self.refuse(
                line.name.span(),
                "the lease asks for nothing; give it `nodes` or `lock`",
            ),
        }
    }

    /// `2..16` or `3`.
    fn nodes(&self, raw: &Spanned<String>) -> Checked<(u32, u32)> {
        let text = raw.get_ref();
        let number = |text: &str| {
            let plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
            text.parse::<u32>().ok().filter(|_| plain)
        };
        let range = match text.split_once("..") {
            Some((least, most)) => number(least).zip(number(most)),
            None => number(text).map(|exactly| (exactly, exactly)),
        };
        match range {
            Some((least, most)) if least >= 1 && least <= most && most <= MAX_NODES => {
                Ok((least, most))
            }
            _ => self.refuse(
                raw.span(),
                format!(
                    "nodes `{}` is malformed; write how many, as in `3`, or at least and at most, as in `2..16`, from 1 to {MAX_NODES}",
                    shown(text)
                ),
            ),
        }
    }

    fn units(&self, raw: &Spanned<toml::Value>) -> Checked<UnitsWish> {
        match raw.get_ref() {
            toml::Value::Integer(count) if (0..=MAX_UNITS).contains(count) => {
                Ok(UnitsWish::Count(u32::try_from(*count).unwrap_or(u32::MAX)))
            }
            toml::Value::String(word) if word == "all" => Ok(UnitsWish::All),
            _ => self.refuse(
                raw.span(),
                format!("`units` is how many on each node, from 0 to {MAX_UNITS}, or `\"all\"`"),
            ),
        }
    }
}
