//! A strict reader of metrics as text: Prometheus 0.0.4 and OpenMetrics 1.0. A number keeps its text.
//!
//! Known crates read numbers as doubles, in which the sentinels of accelerators (9223372036854775794) drown. Strict, because a
//! body that was cut short, mixed up or written twice must not become a measurement: every line is looked at, also those of
//! series that nobody asked for. The first thing that is wrong is named with its line. What the reader refuses and another
//! would take: names in quotes (format 1.0 of Prometheus), hexadecimal numbers, one series written twice without times, and
//! histograms that do not add up.

use std::collections::{BTreeMap, HashMap, HashSet};

/// Most samples of one exposition.
const SAMPLES_MAX: usize = 200_000;
/// Most labels of one sample.
const LABELS_MAX: usize = 64;
/// Longest text that a message shows.
const SHOWN: usize = 60;

/// One sample.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sample {
    pub(crate) name: String,
    /// Sorted by name.
    pub(crate) labels: Vec<(String, String)>,
    /// The value as it was written.
    pub(crate) text: String,
}

/// The two formats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Prometheus,
    OpenMetrics,
}

/// Why a text is no exposition.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {what}")]
pub(crate) struct Wrong {
    /// Counts from 1.
    pub(crate) line: usize,
    pub(crate) what: String,
}

impl Format {
    /// The format that a content type names. Servers that name none mean plain text.
    pub(crate) fn of(content_type: &str) -> Result<Format, String> {
        let mut parts = content_type.split(';').map(str::trim);
        let kind = parts.next().unwrap_or_default().to_ascii_lowercase();
        let version = parts
            .filter_map(|part| part.split_once('='))
            .find(|(key, _)| key.trim().eq_ignore_ascii_case("version"))
            .map(|(_, value)| value.trim().trim_matches('"').to_owned());
        match (kind.as_str(), version.as_deref()) {
            ("", None) | ("text/plain", None | Some("0.0.4")) => Ok(Format::Prometheus),
            ("application/openmetrics-text", None | Some("1.0.0" | "0.0.1")) => {
                Ok(Format::OpenMetrics)
            }
            _ => Err(format!(
                "the content type {:?} is neither text/plain of version 0.0.4 nor application/openmetrics-text of version 1.0.0",
                shown(content_type)
            )),
        }
    }
}

/// Reads a whole exposition; gives the samples of the named series in their order.
///
/// # Errors
/// The first thing that is wrong, wherever it stands.
pub(crate) fn parse(
    text: &str,
    format: Format,
    names: &HashSet<&str>,
) -> Result<Vec<Sample>, Wrong> {
    let mut reader = Reader {
        format,
        types: HashMap::new(),
        helps: HashSet::new(),
        units: HashSet::new(),
        sampled: HashSet::new(),
        closed: HashSet::new(),
        current: String::new(),
        seen: HashSet::new(),
        histograms: BTreeMap::new(),
        count: 0,
    };
    let mut found = Vec::new();
    let mut ended = false;
    let lines = text.split_inclusive('\n').enumerate();
    let mut last = 0;
    for (at, line) in lines {
        let number = at + 1;
        last = number;
        let wrong = |what: String| Wrong { line: number, what };
        let Some(line) = line.strip_suffix('\n') else {
            return Err(wrong(
                "the last line has no end; the text was cut short".to_owned(),
            ));
        };
        if ended {
            return Err(wrong("something follows `# EOF`".to_owned()));
        }
        if format == Format::OpenMetrics && line == "# EOF" {
            ended = true;
            continue;
        }
        if let Some(sample) = reader.line(line, number).map_err(wrong)?
            && names.contains(sample.name.as_str())
        {
            found.push(sample);
        }
    }
    if format == Format::OpenMetrics && !ended {
        return Err(Wrong {
            line: last + 1,
            what: "`# EOF` is missing; the text was cut short".to_owned(),
        });
    }
    reader.histograms_hold()?;
    Ok(found)
}

struct Reader {
    format: Format,
    types: HashMap<String, String>,
    helps: HashSet<String>,
    units: HashSet<String>,
    /// Families of which a sample was read.
    sampled: HashSet<String>,
    /// Families that were left; OpenMetrics does not come back to one.
    closed: HashSet<String>,
    current: String,
    /// Series, with their time where they have one.
    seen: HashSet<String>,
    /// By family and labels without `le`.
    histograms: BTreeMap<(String, String), Histogram>,
    count: usize,
}

#[derive(Default)]
struct Histogram {
    line: usize,
    /// Bounds and counts in their order.
    buckets: Vec<(f64, f64)>,
    count: Option<f64>,
}

impl Reader {
    fn line(&mut self, line: &str, number: usize) -> Result<Option<Sample>, String> {
        let strict = self.format == Format::OpenMetrics;
        if line.contains('\r') {
            return Err("a carriage return".to_owned());
        }
        let trimmed = line.trim_matches([' ', '\t']);
        if trimmed.is_empty() {
            return if strict {
                Err("an empty line".to_owned())
            } else {
                Ok(None)
            };
        }
        if let Some(comment) = trimmed.strip_prefix('#') {
            self.comment(comment, line)?;
            return Ok(None);
        }
        if strict && trimmed.len() != line.len() {
            return Err("blanks at an end of the line".to_owned());
        }
        self.sample(trimmed, number).map(Some)
    }

    fn comment(&mut self, comment: &str, line: &str) -> Result<(), String> {
        let strict = self.format == Format::OpenMetrics;
        let mut words = comment
            .trim_start_matches([' ', '\t'])
            .splitn(3, [' ', '\t']);
        let keyword = words.next().unwrap_or_default();
        if strict && !(line.starts_with("# ") && matches!(keyword, "HELP" | "TYPE" | "UNIT")) {
            return Err(
                "a comment that is none of `# HELP`, `# TYPE`, `# UNIT`, `# EOF`".to_owned(),
            );
        }
        if !(matches!(keyword, "HELP" | "TYPE") || strict && keyword == "UNIT") {
            return Ok(());
        }
        let name = words.next().unwrap_or_default().trim_matches([' ', '\t']);
        let rest = words.next().unwrap_or_default();
        if !is_name(name) {
            return Err(format!("{keyword} of {:?}, which is no name", shown(name)));
        }
        let again = match keyword {
            "HELP" => {
                check_help(rest, strict)?;
                !self.helps.insert(name.to_owned())
            }
            "UNIT" => !self.units.insert(name.to_owned()),
            _ => {
                let kind = rest.trim_matches([' ', '\t']);
                let known: &[&str] = if strict {
                    &[
                        "counter",
                        "gauge",
                        "histogram",
                        "gaugehistogram",
                        "stateset",
                        "info",
                        "summary",
                        "unknown",
                    ]
                } else {
                    &["counter", "gauge", "histogram", "summary", "untyped"]
                };
                if !known.contains(&kind) {
                    return Err(format!("{:?} is no type of this format", shown(kind)));
                }
                self.types
                    .insert(name.to_owned(), kind.to_owned())
                    .is_some()
            }
        };
        if again {
            return Err(format!("a second {keyword} of {name}"));
        }
        if self.sampled.contains(name) {
            return Err(format!("{keyword} of {name} behind its first sample"));
        }
        if strict {
            self.enter(name)?;
        }
        Ok(())
    }

    /// OpenMetrics keeps everything of a family together.
    fn enter(&mut self, family: &str) -> Result<(), String> {
        if self.current != family {
            let left = std::mem::replace(&mut self.current, family.to_owned());
            self.closed.insert(left);
            if self.closed.contains(family) {
                return Err(format!("{family} stands in two places"));
            }
        }
        Ok(())
    }

    fn sample(&mut self, line: &str, number: usize) -> Result<Sample, String> {
        let strict = self.format == Format::OpenMetrics;
        self.count += 1;
        if self.count > SAMPLES_MAX {
            return Err(format!("more than {SAMPLES_MAX} samples"));
        }
        let mut rest = Text { rest: line, strict };
        let name = rest.name()?;
        let labels = rest.labels(name)?;
        rest.gap("the value")?;
        let text = rest.word().to_owned();
        let value = number_of(&text).ok_or_else(|| format!("{:?} is no number", shown(&text)))?;
        let mut time = String::new();
        let mut has_exemplar = false;
        if !rest.rest.is_empty() {
            rest.gap("a time")?;
            if !rest.rest.starts_with('#') {
                time = rest.word().to_owned();
                check_time(&time, strict)?;
                if !rest.rest.is_empty() {
                    rest.gap("an exemplar")?;
                }
            }
            if strict && rest.rest.starts_with("# ") {
                rest.rest = &rest.rest[2..];
                rest.exemplar()?;
                has_exemplar = true;
            }
            if !rest.rest.is_empty() {
                return Err(format!("{:?} behind the sample", shown(rest.rest)));
            }
        }
        let (family, kind, suffix) = self.family(name);
        if strict {
            self.enter(&family)?;
            check_open_metrics(&kind, suffix, value, &labels, has_exemplar)?;
        }
        self.sampled.insert(family.clone());
        let key = series_key(name, &labels);
        // Without a time, or at the same time, a series has one value.
        if !self.seen.insert(format!("{key}\u{0}{time}"))
            || (!time.is_empty() && self.seen.contains(&format!("{key}\u{0}")))
        {
            return Err(format!(
                "{} is there twice",
                shown(&key.replace('\u{1}', " "))
            ));
        }
        if matches!(kind.as_str(), "histogram" | "gaugehistogram") {
            self.histogram(&family, suffix, &labels, value, number)?;
        }
        Ok(Sample {
            name: name.to_owned(),
            labels,
            text,
        })
    }

    /// The family of a sample, its type, and what the sample's name adds.
    fn family<'n>(&self, name: &'n str) -> (String, String, &'n str) {
        const SUFFIXES: &[(&str, &[&str])] = &[
            ("_total", &["counter"]),
            ("_created", &["counter", "histogram", "summary"]),
            ("_bucket", &["histogram", "gaugehistogram"]),
            ("_count", &["histogram", "summary"]),
            ("_sum", &["histogram", "summary"]),
            ("_gcount", &["gaugehistogram"]),
            ("_gsum", &["gaugehistogram"]),
            ("_info", &["info"]),
        ];
        if let Some(kind) = self.types.get(name) {
            return (name.to_owned(), kind.clone(), "");
        }
        for (suffix, kinds) in SUFFIXES {
            // In the older format a counter is typed under its whole name.
            let is_new = matches!(*suffix, "_total" | "_created" | "_info");
            if is_new && self.format == Format::Prometheus {
                continue;
            }
            if let Some(base) = name.strip_suffix(suffix)
                && let Some(kind) = self.types.get(base)
                && kinds.contains(&kind.as_str())
            {
                return (base.to_owned(), kind.clone(), &name[base.len()..]);
            }
        }
        (name.to_owned(), "unknown".to_owned(), "")
    }

    fn histogram(
        &mut self,
        family: &str,
        suffix: &str,
        labels: &[(String, String)],
        value: f64,
        number: usize,
    ) -> Result<(), String> {
        let others: Vec<(String, String)> = labels
            .iter()
            .filter(|(key, _)| key != "le")
            .cloned()
            .collect();
        let key = (family.to_owned(), series_key("", &others));
        let histogram = self.histograms.entry(key).or_default();
        histogram.line = number;
        match suffix {
            "_bucket" => {
                let le = labels.iter().find(|(key, _)| key == "le");
                let le = le
                    .and_then(|(_, le)| number_of(le))
                    .filter(|le| !le.is_nan())
                    .ok_or_else(|| format!("a bucket of {family} has no bound `le`"))?;
                if let Some((before, count)) = histogram.buckets.last() {
                    if le <= *before {
                        return Err(format!("the bounds of {family} do not grow"));
                    }
                    if value < *count {
                        return Err(format!("the buckets of {family} do not add up"));
                    }
                }
                histogram.buckets.push((le, value));
            }
            "_count" | "_gcount" => histogram.count = Some(value),
            "" => {
                return Err(format!(
                    "{family} is a histogram, and {family} itself is no series of it"
                ));
            }
            _ => {}
        }
        Ok(())
    }

    fn histograms_hold(&self) -> Result<(), Wrong> {
        for ((family, _), histogram) in &self.histograms {
            let wrong = |what: String| Wrong {
                line: histogram.line,
                what,
            };
            let Some((bound, all)) = histogram.buckets.last() else {
                return Err(wrong(format!("{family} is a histogram without buckets")));
            };
            if *bound != f64::INFINITY {
                return Err(wrong(format!("{family} has no bucket `+Inf`")));
            }
            if histogram.count.is_some_and(|count| count != *all) {
                return Err(wrong(format!(
                    "the count of {family} is not that of its bucket `+Inf`"
                )));
            }
        }
        Ok(())
    }
}

/// OpenMetrics knows three escapes; the older format leaves what it does not know as it is.
fn check_help(text: &str, strict: bool) -> Result<(), String> {
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if strict && c == '\\' && !matches!(chars.next(), Some('\\' | 'n' | '"')) {
            return Err("an unknown escape in HELP".to_owned());
        }
    }
    Ok(())
}

fn check_open_metrics(
    kind: &str,
    suffix: &str,
    value: f64,
    labels: &[(String, String)],
    has_exemplar: bool,
) -> Result<(), String> {
    match (kind, suffix) {
        ("counter", "") => return Err("a sample of a counter ends in `_total`".to_owned()),
        ("info", "") => return Err("a sample of an info ends in `_info`".to_owned()),
        ("counter", "_total") | ("histogram", "_bucket" | "_count") | ("summary", "_count")
            if value.is_nan() || value < 0.0 =>
        {
            return Err("a count is never negative and never NaN".to_owned());
        }
        ("stateset", _) if value != 0.0 && value != 1.0 => {
            return Err("a state is 0 or 1".to_owned());
        }
        ("info", _) if value != 1.0 => return Err("an info is 1".to_owned()),
        ("summary", "") if !labels.iter().any(|(key, _)| key == "quantile") => {
            return Err("a summary has quantiles, `_sum` and `_count`".to_owned());
        }
        _ => {}
    }
    if has_exemplar && !matches!(suffix, "_total" | "_bucket") {
        return Err("an exemplar of something that is neither a counter nor a bucket".to_owned());
    }
    Ok(())
}

fn check_time(text: &str, strict: bool) -> Result<(), String> {
    let fits = if strict {
        number_of(text).is_some_and(f64::is_finite)
    } else {
        text.parse::<i64>().is_ok()
    };
    if fits {
        Ok(())
    } else {
        Err(format!("{:?} is no time", shown(text)))
    }
}

/// What is left of a line.
struct Text<'a> {
    rest: &'a str,
    strict: bool,
}

impl<'a> Text<'a> {
    fn skip(&mut self) -> usize {
        let trimmed = self.rest.trim_start_matches([' ', '\t']);
        let skipped = self.rest.len() - trimmed.len();
        self.rest = trimmed;
        skipped
    }

    /// Blanks between two words: one space in OpenMetrics.
    fn gap(&mut self, before: &str) -> Result<(), String> {
        let is_space = self.rest.starts_with(' ');
        match self.skip() {
            0 => Err(format!("no blank before {before}")),
            1 if is_space || !self.strict => Ok(()),
            _ if self.strict => Err(format!("more than one space before {before}")),
            _ => Ok(()),
        }
    }

    fn word(&mut self) -> &'a str {
        let end = self.rest.find([' ', '\t']).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        word
    }

    fn name(&mut self) -> Result<&'a str, String> {
        let end = self
            .rest
            .find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '_' | ':')))
            .unwrap_or(self.rest.len());
        let (name, rest) = self.rest.split_at(end);
        if !is_name(name) {
            return Err(format!("{:?} begins with no name", shown(self.rest)));
        }
        self.rest = rest;
        if !self.strict && !rest.trim_start_matches([' ', '\t']).is_empty() {
            let behind = rest.trim_start_matches([' ', '\t']);
            if behind.starts_with('{') {
                self.rest = behind;
            }
        }
        Ok(name)
    }

    /// `{a="b",…}`, or nothing.
    fn labels(&mut self, name: &str) -> Result<Vec<(String, String)>, String> {
        let mut labels: Vec<(String, String)> = Vec::new();
        let Some(rest) = self.rest.strip_prefix('{') else {
            return Ok(labels);
        };
        self.rest = rest;
        loop {
            self.blanks()?;
            if let Some(rest) = self.rest.strip_prefix('}') {
                self.rest = rest;
                break;
            }
            let end = self
                .rest
                .find(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
                .unwrap_or(self.rest.len());
            let (label, rest) = self.rest.split_at(end);
            if !is_label(label) {
                return Err(format!("{:?} is no label of {name}", shown(self.rest)));
            }
            self.rest = rest;
            self.blanks()?;
            self.sign('=', name)?;
            self.blanks()?;
            self.sign('"', name)?;
            let value = self.quoted()?;
            if labels.iter().any(|(known, _)| known == label) {
                return Err(format!("label {label} of {name} is there twice"));
            }
            if labels.len() == LABELS_MAX {
                return Err(format!("more than {LABELS_MAX} labels of {name}"));
            }
            labels.push((label.to_owned(), value));
            self.blanks()?;
            match self.rest.as_bytes().first() {
                Some(b',') => {
                    self.rest = &self.rest[1..];
                    if self.strict && self.rest.starts_with('}') {
                        return Err(format!("a comma behind the last label of {name}"));
                    }
                }
                Some(b'}') => {}
                _ => return Err(format!("the labels of {name} do not end")),
            }
        }
        labels.sort();
        Ok(labels)
    }

    fn blanks(&mut self) -> Result<(), String> {
        if self.skip() > 0 && self.strict {
            return Err("blanks among the labels".to_owned());
        }
        Ok(())
    }

    fn sign(&mut self, sign: char, name: &str) -> Result<(), String> {
        self.rest = self
            .rest
            .strip_prefix(sign)
            .ok_or_else(|| format!("no `{sign}` where one belongs among the labels of {name}"))?;
        Ok(())
    }

    /// A value up to its closing quote.
    fn quoted(&mut self) -> Result<String, String> {
        let mut value = String::new();
        let mut chars = self.rest.char_indices();
        while let Some((at, c)) = chars.next() {
            match c {
                '"' => {
                    self.rest = &self.rest[at + 1..];
                    return Ok(value);
                }
                '\\' => match chars.next() {
                    Some((_, '\\')) => value.push('\\'),
                    Some((_, '"')) => value.push('"'),
                    Some((_, 'n')) => value.push('\n'),
                    _ => return Err("an unknown escape in a label".to_owned()),
                },
                other => value.push(other),
            }
        }
        Err("a label whose value does not end".to_owned())
    }

    /// `{labels} value [time]`, up to the end of the line.
    fn exemplar(&mut self) -> Result<(), String> {
        if !self.rest.starts_with('{') {
            return Err("an exemplar without labels".to_owned());
        }
        let labels = self.labels("the exemplar")?;
        let length: usize = labels
            .iter()
            .map(|(key, value)| key.chars().count() + value.chars().count())
            .sum();
        if length > 128 {
            return Err("an exemplar with more than 128 characters of labels".to_owned());
        }
        self.gap("the exemplar's value")?;
        let value = self.word();
        number_of(value).ok_or_else(|| format!("{:?} is no number", shown(value)))?;
        if !self.rest.is_empty() {
            self.gap("the exemplar's time")?;
            let time = self.word();
            check_time(time, true)?;
        }
        Ok(())
    }
}

/// Whether text is the name of a series.
pub(crate) fn is_name(text: &str) -> bool {
    text.len() <= 512
        && text.starts_with(|c: char| c.is_ascii_alphabetic() || matches!(c, '_' | ':'))
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b':'))
}

fn is_label(text: &str) -> bool {
    is_name(text) && !text.contains(':')
}

/// A number as both formats write it: decimal, `NaN`, `+Inf`, `-Inf` in any case.
pub(crate) fn number_of(text: &str) -> Option<f64> {
    let plain = text.strip_prefix(['+', '-']).unwrap_or(text);
    let word = ["nan", "inf", "infinity"]
        .iter()
        .any(|word| plain.eq_ignore_ascii_case(word));
    if !word {
        let (mantissa, exponent) = plain.split_once(['e', 'E']).unwrap_or((plain, "0"));
        let exponent = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
        let (whole, part) = mantissa.split_once('.').unwrap_or((mantissa, "0"));
        let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
        let fits = digits(whole)
            && digits(part)
            && digits(exponent)
            && !exponent.is_empty()
            && !(whole.is_empty() && part.is_empty())
            && text.len() <= 64;
        if !fits {
            return None;
        }
    }
    text.parse().ok()
}

/// One text for a series, whatever the order of its labels.
fn series_key(name: &str, labels: &[(String, String)]) -> String {
    let mut key = name.to_owned();
    for (label, value) in labels {
        for part in ["\u{1}", label, "=", value] {
            key.push_str(part);
        }
    }
    key
}

fn shown(text: &str) -> String {
    text.chars().take(SHOWN).collect()
}

#[cfg(test)]
mod tests;
