//! `metrics`: an endpoint whose values a test decides. Gauges are set from outside; a counter and a histogram count requests,
//! and a counter of its own the readings of the endpoint, so that a test can tell whether anybody else reads it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::Failure;
use crate::serve::forever;

/// Most gauges that can be set.
const MOST: usize = 1000;
/// Upper bounds of the histogram of requests, in seconds, as they are written.
const BOUNDS: [(&str, Duration); 3] = [
    ("0.001", Duration::from_millis(1)),
    ("0.1", Duration::from_millis(100)),
    ("10.0", Duration::from_secs(10)),
];

#[derive(Default)]
struct Values {
    /// Stands behind the name of every series: nothing, or labels without braces.
    labels: String,
    gauges: BTreeMap<String, f64>,
    requests: u64,
    /// Requests below each bound of [`BOUNDS`].
    below: [u64; BOUNDS.len()],
    taken: Duration,
    scrapes: u64,
}

/// `[PORT] [--label=NAME=VALUE...] [NAME=VALUE...]`
pub(crate) fn run(args: &[&str]) -> Result<ExitCode, Failure> {
    let (port, settings) = match args {
        [first, rest @ ..] if !first.contains('=') => (first.parse()?, rest),
        all => (8080, all),
    };
    let mut values = Values::default();
    for setting in settings {
        let label = setting.strip_prefix("--label=");
        let (name, value) = label
            .unwrap_or(setting)
            .split_once('=')
            .ok_or_else(|| format!("{setting:?}: expected NAME=VALUE"))?;
        if label.is_some() {
            values.label(name, value)?;
        } else {
            values.set(name, value)?;
        }
    }
    let values = Mutex::new(values);
    forever(port, move |request, to| {
        let began = Instant::now();
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
                values.scrapes += 1;
                let text = values.text(open);
                drop(values);
                to.plain(200, &[("Content-Type", kind)], &text)
            }
            // For the kubelet, whose requests must not count.
            ("GET", "/healthz") => to.plain(200, &[], "ok\n"),
            ("POST", "/set") => {
                let parameter = |name| request.parameter(name).unwrap_or_default();
                match values.set(parameter("name"), parameter("value")) {
                    Ok(()) => to.plain(204, &[], ""),
                    Err(why) => to.plain(400, &[], &format!("{why}\n")),
                }
            }
            _ => {
                values.request(began.elapsed());
                let text = format!("{}\n", values.requests);
                drop(values);
                to.plain(200, &[], &text)
            }
        }
    })
}

fn is_name(name: &str) -> bool {
    let fine = |(i, c): (usize, char)| {
        c == '_' || c.is_ascii_alphabetic() || (i > 0 && c.is_ascii_digit())
    };
    !name.is_empty() && name.chars().enumerate().all(fine)
}

impl Values {
    /// A label of every series.
    fn label(&mut self, name: &str, value: &str) -> Result<(), String> {
        let plain = value
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'/'));
        if !is_name(name) || name == "le" || !plain {
            return Err(format!("{name:?}={value:?}: not a label"));
        }
        if !self.labels.is_empty() {
            self.labels.push(',');
        }
        let _ = write!(self.labels, "{name}=\"{value}\"");
        Ok(())
    }

    fn request(&mut self, took: Duration) {
        self.requests += 1;
        self.taken += took;
        for ((_, bound), below) in BOUNDS.iter().zip(&mut self.below) {
            *below += u64::from(took <= *bound);
        }
    }

    fn set(&mut self, name: &str, value: &str) -> Result<(), String> {
        if !is_name(name) || name.starts_with("karat_request") || name.starts_with("karat_scrapes")
        {
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
        let labels = if self.labels.is_empty() {
            String::new()
        } else {
            format!("{{{}}}", self.labels)
        };
        let mut text = String::new();
        for (name, value) in &self.gauges {
            let value = if value.is_nan() {
                "NaN".to_owned()
            } else if value.is_infinite() {
                format!("{}Inf", if *value > 0.0 { '+' } else { '-' })
            } else {
                value.to_string()
            };
            let _ = write!(text, "# TYPE {name} gauge\n{name}{labels} {value}\n");
        }
        for (counter, value) in [
            ("karat_requests", self.requests),
            ("karat_scrapes", self.scrapes),
        ] {
            // The family of a counter has the suffix in the older format only.
            let suffix = if open { "" } else { "_total" };
            let _ = write!(
                text,
                "# TYPE {counter}{suffix} counter\n{counter}_total{labels} {value}\n"
            );
        }
        self.histogram(&mut text, &labels);
        if open {
            text.push_str("# EOF\n");
        }
        text
    }

    fn histogram(&self, text: &mut String, labels: &str) {
        const NAME: &str = "karat_request_duration_seconds";
        let before = if self.labels.is_empty() {
            String::new()
        } else {
            format!("{},", self.labels)
        };
        let _ = writeln!(text, "# TYPE {NAME} histogram");
        let bounds = BOUNDS.iter().map(|(bound, _)| *bound).zip(self.below);
        for (bound, below) in bounds.chain([("+Inf", self.requests)]) {
            let _ = writeln!(text, "{NAME}_bucket{{{before}le=\"{bound}\"}} {below}");
        }
        let _ = write!(
            text,
            "{NAME}_sum{labels} {}\n{NAME}_count{labels} {}\n",
            self.taken.as_secs_f64(),
            self.requests
        );
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
        values.request(Duration::from_millis(250));
        values.request(Duration::from_micros(1));
        values.scrapes = 1;
        assert_eq!(
            values.text(false),
            "# TYPE broken gauge\nbroken NaN\n# TYPE queue_depth gauge\nqueue_depth 30\n\
             # TYPE karat_requests_total counter\nkarat_requests_total 2\n\
             # TYPE karat_scrapes_total counter\nkarat_scrapes_total 1\n\
             # TYPE karat_request_duration_seconds histogram\n\
             karat_request_duration_seconds_bucket{le=\"0.001\"} 1\n\
             karat_request_duration_seconds_bucket{le=\"0.1\"} 1\n\
             karat_request_duration_seconds_bucket{le=\"10.0\"} 2\n\
             karat_request_duration_seconds_bucket{le=\"+Inf\"} 2\n\
             karat_request_duration_seconds_sum 0.250001\nkarat_request_duration_seconds_count 2\n"
        );
        let open = values.text(true);
        assert!(open.contains("# TYPE karat_requests counter\nkarat_requests_total 2\n"));
        assert!(open.ends_with("# EOF\n"));
    }

    #[test]
    fn a_label_is_on_every_series() {
        let mut values = Values::default();
        values.label("run", "abcd2345").unwrap();
        values.set("queue_depth", "30").unwrap();
        let text = values.text(false);
        assert!(text.contains("queue_depth{run=\"abcd2345\"} 30\n"));
        assert!(text.contains("_bucket{run=\"abcd2345\",le=\"+Inf\"} 0\n"));
        let series = text.lines().filter(|line| !line.starts_with('#'));
        assert!(series.clone().count() == 9, "{text}");
        assert!(series.into_iter().all(|line| line.contains("{run=")));
        for (name, value) in [("le", "1"), ("a", "\""), ("a-b", "1"), ("a", "x\ny")] {
            assert!(values.label(name, value).is_err(), "{name} {value}");
        }
    }

    #[test]
    fn names_that_would_break_the_text_are_refused() {
        let mut values = Values::default();
        for bad in [
            "",
            "1a",
            "a b",
            "a\nb 1",
            "karat_requests_total",
            "karat_request_duration_seconds_sum",
            "karat_scrapes_total",
            "ä",
        ] {
            assert!(values.set(bad, "1").is_err(), "{bad:?}");
        }
        assert!(values.set("a", "many").is_err());
    }
}
