//! Reports: what a finished run says, for people, for machines and for the programme. Pure functions of a folder (the
//! output of a run, or a bundle, which has the same layout) to bytes: no clock, no network, no printing, and the same folder
//! gives the same bytes.
//!
//! [`open()`] reads a folder into a [`Report`]; [`render`] writes that in one [`Format`]. Nothing is judged again here and no
//! signature is looked at: a report repeats what the folder says, and tells what is missing in it. The folder is hostile:
//! every part has a limit, and foreign text has a type of its own ([`text::Foreign`]) with one escaping for each sink.

mod conversation;
mod go;
mod html;
mod junit;
mod markdown;
pub mod model;
pub mod open;
pub mod terminal;
pub mod text;
pub mod words;

#[cfg(test)]
mod tests;

pub use go::Selection;
pub use model::Report;
pub use open::open;

use terminal::Paint;

/// A format of reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Format {
    /// One page for people.
    Html,
    /// For machines; schema in [`json_schema`].
    Json,
    /// JUnit XML.
    Junit,
    /// The text of `go test -v`.
    E2eLog,
    /// The events of `go test -json`.
    Results,
    /// One Markdown page for each requirement.
    Markdown,
    /// Plain lines.
    Terminal,
}

impl Format {
    /// All, in the order of the documentation.
    pub const ALL: [Format; 7] = [
        Format::Html,
        Format::Json,
        Format::Junit,
        Format::E2eLog,
        Format::Results,
        Format::Markdown,
        Format::Terminal,
    ];

    /// The name of its file, as the programme knows it; none for formats without one file.
    pub fn file_name(self) -> Option<&'static str> {
        match self {
            Format::Html => Some("report.html"),
            Format::Json => Some("report.json"),
            Format::Junit => Some("junit.xml"),
            Format::E2eLog => Some("e2e.log"),
            Format::Results => Some("results.json"),
            Format::Markdown | Format::Terminal => None,
        }
    }
}

/// One file of a report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Path below the folder that reports are written to. Never absolute, never with `..`, of harmless characters.
    pub path: String,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// A report cannot be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RenderError {
    /// The template failed.
    #[error("the page cannot be written")]
    Template(#[from] askama::Error),
    /// JSON failed.
    #[error("the report cannot be written as JSON")]
    Json(#[from] serde_json::Error),
    /// XML failed.
    #[error("the report cannot be written as XML")]
    Xml(#[from] std::io::Error),
}

/// Writes a report in one format: one file, or one for each requirement in Markdown.
///
/// # Errors
/// [`RenderError`]; none is known for a report that [`open()`] gave.
pub fn render(report: &Report, format: Format) -> Result<Vec<File>, RenderError> {
    let one = |name: &str, bytes: Vec<u8>| {
        vec![File {
            path: name.to_owned(),
            bytes,
        }]
    };
    let all = &Selection::Everything;
    Ok(match format {
        Format::Html => one("report.html", html::render(report)?.into_bytes()),
        Format::Json => one("report.json", json(report)?),
        Format::Junit => one("junit.xml", junit::render(report, all)?),
        Format::E2eLog => one("e2e.log", go::text(report, all).into_bytes()),
        Format::Results => one("results.json", go::events(report, all)?.into_bytes()),
        Format::Markdown => markdown::render(report),
        Format::Terminal => {
            let mut text = terminal::lines(report, Paint::Never).join("\n");
            text.push('\n');
            one("report.txt", text.into_bytes())
        }
    })
}

/// As [`render`] for the three formats of test results, with only some requirements in them. A product folder takes this: the
/// programme refuses a submission for any failing test in its files, also for one of an extension, which counts for nothing.
/// None for other formats.
///
/// # Errors
/// As [`render`].
pub fn render_results(
    report: &Report,
    format: Format,
    selection: &Selection,
) -> Result<Option<Vec<u8>>, RenderError> {
    Ok(match format {
        Format::Junit => Some(junit::render(report, selection)?),
        Format::E2eLog => Some(go::text(report, selection).into_bytes()),
        Format::Results => Some(go::events(report, selection)?.into_bytes()),
        Format::Html | Format::Json | Format::Markdown | Format::Terminal => None,
    })
}

/// The page in Markdown for one requirement.
pub fn requirement_page(report: &Report, requirement: &model::Requirement) -> String {
    markdown::page(report, requirement)
}

/// The name of the test that stands for a requirement in the formats of test results: `TestKarat/gang_scheduling`.
pub fn test_name(requirement: &text::Foreign) -> String {
    go::test_name(requirement)
}

fn json(report: &Report) -> Result<Vec<u8>, RenderError> {
    let mut text = text::calm_json(&serde_json::to_string_pretty(report)?);
    text.push('\n');
    Ok(text.into_bytes())
}

/// The JSON Schema of `report.json`, with its keys in order.
pub fn json_schema() -> serde_json::Value {
    let mut schema = schemars::schema_for!(Report).to_value();
    if let Some(object) = schema.as_object_mut() {
        object.insert("$id".to_owned(), "urn:karat:report:v0.1".into());
        object.insert("title".to_owned(), "Karat report, report.json".into());
    }
    crate::runfolder::sorted(schema)
}
