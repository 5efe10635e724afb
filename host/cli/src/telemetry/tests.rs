//! A receiver inside the test: it takes OTLP over HTTP and decodes it.

use super::*;
use crate::ui::printer::Verbosity;
use crate::ui::samples::events;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::trace::v1::Span as SentSpan;
use prost::Message as _;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};

/// Answers every request with a status and hands on path and body.
fn receiver(status: &'static str) -> (String, Receiver<(String, Vec<u8>)>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let (send, received) = channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let send = send.clone();
            std::thread::spawn(move || {
                while let Some(request) = request(&mut stream) {
                    let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n");
                    if stream.write_all(answer.as_bytes()).is_err() || send.send(request).is_err() {
                        return;
                    }
                }
            });
        }
    });
    (address, received)
}

fn request(stream: &mut TcpStream) -> Option<(String, Vec<u8>)> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read(&mut byte).ok()? == 0 {
            return None;
        }
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).ok()?;
    let path = head.split(' ').nth(1)?.to_owned();
    let length = head.lines().find_map(|line| {
        line.to_ascii_lowercase()
            .strip_prefix("content-length:")?
            .trim()
            .parse()
            .ok()
    })?;
    let mut body = vec![0; length];
    stream.read_exact(&mut body).ok()?;
    Some((path, body))
}

fn spans(requests: &[(String, Vec<u8>)]) -> Vec<SentSpan> {
    requests
        .iter()
        .filter(|(path, _)| path == "/v1/traces")
        .flat_map(|(_, body)| {
            ExportTraceServiceRequest::decode(body.as_slice())
                .unwrap()
                .resource_spans
        })
        .flat_map(|resource| resource.scope_spans)
        .flat_map(|scope| scope.spans)
        .collect()
}

#[test]
fn a_run_is_a_tree_of_spans_with_metrics_and_logs() {
    let (address, received) = receiver("200 OK");
    let mut telemetry = Telemetry::to(&address, "karat").unwrap();
    for event in events() {
        telemetry.handle(&event);
    }
    let (printer, captured) = Printer::captured(Verbosity::Normal);
    telemetry.finish(&printer);
    assert_eq!(captured.err(), "");
    let requests: Vec<_> = received.try_iter().collect();

    let spans = spans(&requests);
    let find = |name: &str| {
        spans
            .iter()
            .find(|span| span.name == name)
            .unwrap_or_else(|| panic!("no span {name}"))
    };
    let run = find("run");
    assert!(run.parent_span_id.is_empty());
    let probe = find("probe dra-support");
    assert_eq!(probe.parent_span_id, run.span_id);
    let case = find("case served");
    assert_eq!(case.parent_span_id, probe.span_id);
    let call = find("kube-read.discover");
    assert_eq!(call.parent_span_id, case.span_id);
    assert_eq!(
        call.end_time_unix_nano - call.start_time_unix_nano,
        4_321_000
    );
    assert!(spans.iter().all(|span| span.trace_id == run.trace_id));
    assert_eq!(spans.len(), 5);

    let metrics: Vec<String> = requests
        .iter()
        .filter(|(path, _)| path == "/v1/metrics")
        .flat_map(|(_, body)| {
            ExportMetricsServiceRequest::decode(body.as_slice())
                .unwrap()
                .resource_metrics
        })
        .flat_map(|resource| resource.scope_metrics)
        .flat_map(|scope| scope.metrics)
        .map(|metric| metric.name)
        .collect();
    for name in [
        "karat.calls",
        "karat.call.duration",
        "karat.call.bytes",
        "karat.verdicts",
        "karat.probe.duration",
    ] {
        assert!(
            metrics.iter().any(|metric| metric == name),
            "{name} in {metrics:?}"
        );
    }

    let logs: Vec<_> = requests
        .iter()
        .filter(|(path, _)| path == "/v1/logs")
        .flat_map(|(_, body)| {
            ExportLogsServiceRequest::decode(body.as_slice())
                .unwrap()
                .resource_logs
        })
        .flat_map(|resource| resource.scope_logs)
        .flat_map(|scope| scope.log_records)
        .collect();
    assert_eq!(logs.len(), 2);
    assert!(logs.iter().all(|log| log.trace_id == run.trace_id));
}

#[test]
fn a_receiver_that_refuses_costs_one_warning() {
    let (address, _received) = receiver("400 Bad Request");
    let mut telemetry = Telemetry::to(&address, "karat").unwrap();
    for event in events() {
        telemetry.handle(&event);
    }
    let (printer, captured) = Printer::captured(Verbosity::Normal);
    telemetry.finish(&printer);
    let said = captured.err();
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(
        said.starts_with("warning: the telemetry receiver took no "),
        "{said}"
    );
}

#[test]
fn without_an_endpoint_there_is_silence() {
    let (printer, captured) = Printer::captured(Verbosity::Normal);
    let environment = Environment::fixed(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "")]);
    assert!(Telemetry::start(&environment, &printer).is_none());
    assert_eq!(captured.err(), "");
}

#[test]
fn an_unusable_endpoint_costs_one_warning() {
    let (printer, captured) = Printer::captured(Verbosity::Normal);
    let environment = Environment::fixed(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "not an address")]);
    assert!(Telemetry::start(&environment, &printer).is_none());
    assert_eq!(captured.err().lines().count(), 1, "{}", captured.err());
}

#[test]
fn a_run_that_broke_off_still_sends_its_spans() {
    let (address, received) = receiver("200 OK");
    let mut telemetry = Telemetry::to(&address, "karat").unwrap();
    for event in &events()[..6] {
        telemetry.handle(event);
    }
    let (printer, _) = Printer::captured(Verbosity::Normal);
    telemetry.finish(&printer);
    let requests: Vec<_> = received.try_iter().collect();
    let mut names: Vec<String> = spans(&requests).into_iter().map(|span| span.name).collect();
    names.sort();
    assert_eq!(
        names,
        [
            "case served",
            "kube-read.discover",
            "probe dra-support",
            "run"
        ]
    );
}
