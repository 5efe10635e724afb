//! What is taken and what is refused, as tables.

use super::*;

fn read(text: &str, format: Format) -> Result<Vec<Sample>, Wrong> {
    let mut names: HashSet<&str> = ["a", "b", "c_total", "h_bucket", "h_count", "x:y"].into();
    names.insert("DCGM_FI_DEV_GPU_TEMP");
    parse(text, format, &names)
}

fn old(text: &str) -> Result<Vec<Sample>, Wrong> {
    read(text, Format::Prometheus)
}

fn new(text: &str) -> Result<Vec<Sample>, Wrong> {
    read(text, Format::OpenMetrics)
}

#[test]
fn numbers_keep_their_text() {
    let found = old(concat!(
        "# HELP a What it is.\n# TYPE a gauge\n",
        "a{z=\"1\",k=\"q\\\"\\\\\\n\"} 9223372036854775794\n",
        "a NaN\n\n",
        "b{ } +Inf 1700000000000\n",
        "b\t{x = \"y\" , } -1.5e-7 -5\n",
        "# anything else\n",
        "x:y 0012\n",
        "unnamed{a=\"b\"} 1\n",
    ))
    .unwrap();
    let texts: Vec<&str> = found.iter().map(|sample| sample.text.as_str()).collect();
    assert_eq!(
        texts,
        ["9223372036854775794", "NaN", "+Inf", "-1.5e-7", "0012"]
    );
    assert_eq!(
        found[0].labels,
        [
            ("k".to_owned(), "q\"\\\n".to_owned()),
            ("z".to_owned(), "1".to_owned())
        ]
    );
    assert!(old("").unwrap().is_empty());
}

#[test]
fn both_formats_take_what_they_document() {
    for text in [
        "a 1\n",
        "a{} 1\n",
        "a 1 1700000000000\na 2 1700000000001\n",
        "# TYPE h histogram\nh_bucket{le=\"1\"} 1\nh_bucket{le=\"+Inf\"} 3\nh_sum 4\nh_count 3\n",
        "# TYPE c_total counter\nc_total 5\n",
        "#no keyword\na 1\n",
        "a Inf\nb nan\n",
        "# TYPE s summary\ns{quantile=\"0.5\"} 1\ns_sum 1\ns_count 1\n",
    ] {
        assert!(old(text).is_ok(), "{text}: {:?}", old(text));
    }
    for text in [
        "# EOF\n",
        "# TYPE c counter\n# UNIT c seconds\n# HELP c A \\\"c\\\".\nc_total 5 # {trace=\"x\"} 1 1700000000.5\nc_created 1700000000.123\n# EOF\n",
        "# TYPE h histogram\nh_bucket{le=\"1.0\"} 1 # {} 0.5\nh_bucket{le=\"+Inf\"} 1\nh_count 1\nh_sum 0.5\n# EOF\n",
        "# TYPE i info\ni_info{v=\"1\"} 1\n# EOF\n",
        "# TYPE s stateset\ns{s=\"on\"} 1\ns{s=\"off\"} 0\n# EOF\n",
        "a 1 1700000000.5\n# EOF\n",
    ] {
        assert!(new(text).is_ok(), "{text}: {:?}", new(text));
    }
}

#[test]
fn the_first_wrong_thing_is_named_with_its_line() {
    for (text, line, part) in [
        ("a 1", 1, "cut short"),
        ("a 1\nb", 2, "cut short"),
        ("a 1\nb\n", 2, "no blank before the value"),
        ("a\n", 1, "no blank"),
        ("a one\n", 1, "is no number"),
        ("a 0x1p3\n", 1, "is no number"),
        ("a 1_000\n", 1, "is no number"),
        ("a .\n", 1, "is no number"),
        ("a 1e\n", 1, "is no number"),
        ("a 1 2.5\n", 1, "is no time"),
        ("a 1 2 3\n", 1, "behind the sample"),
        ("a 1 # {x=\"y\"} 1\n", 1, "behind the sample"),
        ("1a 1\n", 1, "no name"),
        ("{\"a.b\"} 1\n", 1, "no name"),
        ("a{x=\"y\" 1\n", 1, "do not end"),
        ("a{x=\"y} 1\n", 1, "does not end"),
        ("a{x=y} 1\n", 1, "no `\"`"),
        ("a{x} 1\n", 1, "no `=`"),
        ("a{,} 1\n", 1, "no label"),
        ("a{1=\"y\"} 1\n", 1, "no label"),
        ("a{a:b=\"y\"} 1\n", 1, "no `=`"),
        ("a{x=\"\\t\"} 1\n", 1, "escape"),
        ("a{x=\"1\",x=\"2\"} 1\n", 1, "twice"),
        ("a 1\na 1\n", 2, "twice"),
        ("a{x=\"1\",y=\"2\"} 1\na{y=\"2\",x=\"1\"} 2\n", 2, "twice"),
        ("a 1 5\na 2 5\n", 2, "twice"),
        ("a 1\r\n", 1, "carriage return"),
        ("# TYPE a gauge\n# TYPE a gauge\n", 2, "a second TYPE"),
        ("# HELP a x\n# HELP a y\n", 2, "a second HELP"),
        ("a 1\n# TYPE a gauge\n", 2, "behind its first sample"),
        ("# TYPE a meter\n", 1, "is no type"),
        ("# TYPE 5 gauge\n", 1, "is no name"),
        ("# TYPE h histogram\nh 1\n", 2, "no series of it"),
        ("# TYPE h histogram\nh_bucket 1\n", 2, "no bound"),
        (
            "# TYPE h histogram\nh_bucket{le=\"2\"} 1\nh_bucket{le=\"1\"} 2\n",
            3,
            "do not grow",
        ),
        (
            "# TYPE h histogram\nh_bucket{le=\"1\"} 2\nh_bucket{le=\"2\"} 1\n",
            3,
            "do not add up",
        ),
        (
            "# TYPE h histogram\nh_bucket{le=\"1\"} 2\nh_count 2\n",
            3,
            "no bucket `+Inf`",
        ),
        (
            "# TYPE h histogram\nh_bucket{le=\"+Inf\"} 2\nh_count 3\n",
            3,
            "is not that of its bucket",
        ),
        ("# TYPE h histogram\nh_count 3\n", 2, "without buckets"),
    ] {
        let error = old(text).unwrap_err();
        assert_eq!(error.line, line, "{text}: {error}");
        assert!(error.what.contains(part), "{text}: {error}");
    }
}

#[test]
fn open_metrics_is_stricter() {
    for (text, part) in [
        ("", "cut short"),
        ("a 1\n", "`# EOF` is missing"),
        ("a 1\n# EOF", "cut short"),
        ("# EOF\na 1\n", "follows"),
        ("# EOF\n\n", "follows"),
        ("\n# EOF\n", "empty line"),
        ("# a comment\n# EOF\n", "a comment"),
        ("a  1\n# EOF\n", "more than one space"),
        ("a\t1\n# EOF\n", "more than one space"),
        (" a 1\n# EOF\n", "blanks"),
        ("a{x=\"1\",} 1\n# EOF\n", "comma"),
        ("a{x =\"1\"} 1\n# EOF\n", "blanks among"),
        ("# TYPE a untyped\n# EOF\n", "is no type"),
        ("# TYPE c counter\nc 1\n# EOF\n", "`_total`"),
        ("# TYPE c counter\nc_total -1\n# EOF\n", "never negative"),
        ("# TYPE c counter\nc_total NaN\n# EOF\n", "never"),
        ("# TYPE a gauge\na 1 # {x=\"y\"} 1\n# EOF\n", "exemplar"),
        (
            "# TYPE c counter\nc_total 1 # x 1\n# EOF\n",
            "without labels",
        ),
        (
            "# TYPE c counter\nc_total 1 # {x=\"y\"} z\n# EOF\n",
            "no number",
        ),
        ("a 1\nb 1\na{x=\"1\"} 1\n# EOF\n", "two places"),
        ("# TYPE s stateset\ns{s=\"on\"} 2\n# EOF\n", "0 or 1"),
        ("a 1 then\n# EOF\n", "no time"),
    ] {
        let error = new(text).unwrap_err();
        assert!(error.what.contains(part), "{text:?}: {error}");
    }
}

#[test]
fn content_types_decide() {
    for (kind, format) in [
        ("", Some(Format::Prometheus)),
        (
            "text/plain; version=0.0.4; charset=utf-8",
            Some(Format::Prometheus),
        ),
        ("text/plain", Some(Format::Prometheus)),
        (
            "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Some(Format::OpenMetrics),
        ),
        ("text/html", None),
        ("application/json", None),
        ("text/plain; version=1.0.0", None),
        ("application/vnd.google.protobuf", None),
    ] {
        assert_eq!(Format::of(kind).ok(), format, "{kind}");
    }
}
