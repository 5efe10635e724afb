//! `metrics`: an endpoint whose values a test decides. Gauges are set from outside, one counter counts requests.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};

use crate::Failure;
use crate::serve::forever;

/// Most gauges that can be set.
const MOST: usize = 1000;

#[derive(Default)]
struct Values {
    gauges: BTreeMap<String, f64>,
    requests: u64,
}

/// `[PORT] [NAME=VALUE...]`
pub(crate) fn run(args: &[&str]) -> Result<ExitCode, Failure> {
    let (port, settings) = match args {
        [first, rest @ ..] if !first.contains('=') => (first.parse()?, rest),
        all => (8080, all),
    };
    let mut values = Values::default();
    for setting in settings {
        let (name, value) = setting
            .split_once('=')
            .ok_or_else(|| format!("{setting:?}: expected NAME=VALUE"))?;
        values.set(name, value)?;
    }
    let values = Mutex::new(values);
    forever(port, move |request, to| {
        let mut values = values.lock().unwrap_or_else(PoisonError::into_inner);
        match (request.method.as_str(), request.path.as_str()) {
            ("GET", "/metrics") => {
                let open = request
                    .header("accept")
                    .is_some_and(|a| a.contains("application/openmetrics-text"));
                let kind = if open {
                    "application/openmetrics-text; version=1.0.0; charset=utf-8"
                } else {
                    "text/plain; version=0.0.4; charset=utf-8"
                };
                let text = values.text(open);
                drop(values);
                to.plain(200, &[("Content-Type", kind)], &text)
            }
            ("POST", "/set") => {
                let parameter = |name| request.parameter(name).unwrap_or_default();
                match values.set(parameter("name"), parameter("value")) {
                    Ok(()) => to.plain(204, &[], ""),
                    Err(why) => to.plain(400, &[], &format!("{why}\n")),
                }
            }
            _ => {
                values.requests += 1;
                let text = format!("{}\n", values.requests);
                drop(values);
                to.plain(200, &[], &text)
            }
        }
    })
}

impl Values {
    fn set(&mut self, name: &str, value: &str) -> Result<(), String> {
        let fine = name
            .chars()
            .enumerate()
            .all(|(i, c)| c == '_' || c.is_ascii_alphabetic() || (i > 0 && c.is_ascii_digit()));
        if name.is_empty() || !fine || name.starts_with("karat_requests") {
            return Err(format!("{name:?}: not a name for a gauge"));
        }
        let value = value
            .parse()
            .map_err(|_| format!("{value:?}: not a number"))?;
        if self.gauges.len() >= MOST && !self.gauges.contains_key(name) {
            return Err(format!("{MOST} gauges are enough"));
        }
        self.gauges.insert(name.to_owned(), value);
        Ok(())
    }

    fn text(&self, open: bool) -> String {
        let mut text = String::new();
        for (name, value) in &self.gauges {
            let value = if value.is_nan() {
                "NaN".to_owned()
            } else if value.is_infinite() {
                format!("{}Inf", if *value > 0.0 { '+' } else { '-' })
            } else {
                value.to_string()
            };
            let _ = write!(text, "# TYPE {name} gauge\n{name} {value}\n");
        }
        // The family of a counter has the suffix in the older format only.
        let family = if open {
            "karat_requests"
        } else {
            "karat_requests_total"
        };
        let _ = write!(
            text,
            "# TYPE {family} counter\nkarat_requests_total {}\n",
            self.requests
        );
        if open {
            text.push_str("# EOF\n");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_formats_are_what_their_parsers_expect() {
        let mut values = Values::default();
        values.set("queue_depth", "30").unwrap();
        values.set("broken", "NaN").unwrap();
        values.requests = 2;
        assert_eq!(
            values.text(false),
            "# TYPE broken gauge\nbroken NaN\n# TYPE queue_depth gauge\nqueue_depth 30\n# TYPE karat_requests_total counter\nkarat_requests_total 2\n"
        );
        assert!(
            values
                .text(true)
                .ends_with("# TYPE karat_requests counter\nkarat_requests_total 2\n# EOF\n")
        );
    }

    #[test]
    fn names_that_would_break_the_text_are_refused() {
        let mut values = Values::default();
        for bad in ["", "1a", "a b", "a\nb 1", "karat_requests_total", "ä"] {
            assert!(values.set(bad, "1").is_err(), "{bad:?}");
        }
        assert!(values.set("a", "many").is_err());
    }
}
