//! OpenTelemetry of a run: traces (run, probe, case, host call), metrics and logs over OTLP/HTTP, made from the same events
//! that the screen shows. Silent unless `OTEL_EXPORTER_OTLP_ENDPOINT` is set.
//!
//! Telemetry never decides anything: a receiver that is slow, absent or broken costs one warning and at most a few seconds
//! at the end. What is sent was redacted by the door already; guest text is shortened here.

use crate::env::{Environment, OTEL_ENDPOINT, OTEL_SERVICE_NAME};
use crate::ui::printer::Printer;
use crate::ui::text::shown;
use jiff::Timestamp;
use karat_engine::event::{RunEvent, RunEventKind};
use karat_engine::model::{CaseKey, Verdict};
use opentelemetry::logs::{AnyValue, LogRecord as _, Logger as _, LoggerProvider as _, Severity};
use opentelemetry::metrics::{Counter, Histogram, MeterProvider as _};
use opentelemetry::trace::{
    Span as _, SpanContext, Status, TraceContextExt as _, Tracer as _, TracerProvider as _,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_otlp::{
    ExporterBuildError, LogExporter, MetricExporter, SpanExporter, WithExportConfig as _,
};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::logs::{SdkLogger, SdkLoggerProvider};
use opentelemetry_sdk::metrics::SdkMeterProvider;
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, SdkTracer, SdkTracerProvider, Span,
};
use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

/// How long one export may take. There are three of them at the end.
const PATIENCE: Duration = Duration::from_secs(3);

/// Spans that wait for export. A probe makes thousands of calls in a second at most.
const QUEUE: usize = 65_536;

/// Longest text of an attribute or log in characters.
const TEXT_MAX: usize = 1000;

/// Exporters, and the spans that are open.
pub(crate) struct Telemetry {
    traces: SdkTracerProvider,
    metrics: SdkMeterProvider,
    logs: SdkLoggerProvider,
    tracer: SdkTracer,
    logger: SdkLogger,
    instruments: Instruments,
    run: Option<Span>,
    probes: BTreeMap<String, OpenProbe>,
}

struct OpenProbe {
    span: Span,
    case: Option<(CaseKey, Span)>,
}

struct Instruments {
    calls: Counter<u64>,
    call_time: Histogram<f64>,
    bytes: Counter<u64>,
    verdicts: Counter<u64>,
    probe_time: Histogram<f64>,
}

impl Telemetry {
    /// Exporters, where a receiver is named. One that cannot be used costs a warning.
    pub(crate) fn start(environment: &Environment, printer: &Printer) -> Option<Telemetry> {
        let endpoint = environment.text(OTEL_ENDPOINT)?;
        let service = environment
            .text(OTEL_SERVICE_NAME)
            .unwrap_or_else(|| "karat".to_owned());
        match Telemetry::to(&endpoint, &service) {
            Ok(telemetry) => Some(telemetry),
            Err(error) => {
                printer.warn(&format!(
                    "no telemetry is sent: {}",
                    shown(&error.to_string())
                ));
                None
            }
        }
    }

    fn to(endpoint: &str, service: &str) -> Result<Telemetry, ExporterBuildError> {
        // The exporters' HTTP client takes the process's TLS stack and panics without one. A second call changes nothing.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let base = endpoint.trim_end_matches('/');
        let resource = Resource::builder()
            .with_service_name(service.to_owned())
            .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
            .build();
        let spans = SpanExporter::builder()
            .with_http()
            .with_endpoint(format!("{base}/v1/traces"))
            .with_timeout(PATIENCE)
            .build()?;
        let queue = BatchConfigBuilder::default()
            .with_max_queue_size(QUEUE)
            .build();
        let traces = SdkTracerProvider::builder()
            .with_resource(resource.clone())
            .with_span_processor(
                BatchSpanProcessor::builder(spans)
                    .with_batch_config(queue)
                    .build(),
            )
            .build();
        let metrics = SdkMeterProvider::builder()
            .with_resource(resource.clone())
            .with_periodic_exporter(
                MetricExporter::builder()
                    .with_http()
                    .with_endpoint(format!("{base}/v1/metrics"))
                    .with_timeout(PATIENCE)
                    .build()?,
            )
            .build();
        let logs = SdkLoggerProvider::builder()
            .with_resource(resource)
            .with_batch_exporter(
                LogExporter::builder()
                    .with_http()
                    .with_endpoint(format!("{base}/v1/logs"))
                    .with_timeout(PATIENCE)
                    .build()?,
            )
            .build();
        let meter = metrics.meter("karat");
        let instruments = Instruments {
            calls: meter
                .u64_counter("karat.calls")
                .with_description("Host calls of probes")
                .build(),
            call_time: meter
                .f64_histogram("karat.call.duration")
                .with_unit("s")
                .with_description("Time of a host call through the door")
                .build(),
            bytes: meter
                .u64_counter("karat.call.bytes")
                .with_unit("By")
                .with_description("Bytes that probes saw")
                .build(),
            verdicts: meter
                .u64_counter("karat.verdicts")
                .with_description("Ended attempts by what they came to")
                .build(),
            probe_time: meter
                .f64_histogram("karat.probe.duration")
                .with_unit("s")
                .with_description("Wall time of an attempt")
                .build(),
        };
        Ok(Telemetry {
            tracer: traces.tracer("karat"),
            logger: logs.logger("karat"),
            traces,
            metrics,
            logs,
            instruments,
            run: None,
            probes: BTreeMap::new(),
        })
    }

    /// Takes note of an event.
    pub(crate) fn handle(&mut self, event: &RunEvent) {
        let at = SystemTime::from(event.at);
        match &event.kind {
            RunEventKind::ClusterReached {
                server_version,
                server,
            } => {
                let run = self.run(at);
                run.set_attribute(KeyValue::new("k8s.server.version", short(server_version)));
                run.set_attribute(KeyValue::new("server.address", short(server)));
            }
            RunEventKind::RunStarted { run, probes } => {
                let span = self.run(at);
                span.set_attribute(KeyValue::new("karat.run", short(run)));
                let count = i64::try_from(probes.len()).unwrap_or(i64::MAX);
                span.set_attribute(KeyValue::new("karat.probes", count));
            }
            RunEventKind::Preparing { what } => {
                let name = format!("preparing {}", short(what));
                self.run(at).add_event_with_timestamp(name, at, Vec::new());
            }
            RunEventKind::Waiting { holder, .. } => {
                let attributes = vec![KeyValue::new("karat.holder", short(holder))];
                self.run(at)
                    .add_event_with_timestamp("waiting for another run", at, attributes);
            }
            RunEventKind::ProbeStarted { probe, attempt, .. } => {
                let attributes = [
                    KeyValue::new("karat.probe", short(probe)),
                    KeyValue::new("karat.attempt", i64::from(*attempt)),
                ];
                let parent = self.run(at).span_context().clone();
                let span = self.child(&parent, format!("probe {}", short(probe)), at, attributes);
                self.probes
                    .insert(probe.clone(), OpenProbe { span, case: None });
            }
            RunEventKind::CaseOpened { probe, case, claim } => {
                let Some(parent) = self.probe_context(probe) else {
                    return;
                };
                let attributes = [
                    KeyValue::new("karat.probe", short(probe)),
                    KeyValue::new("karat.case", short(&case.to_string())),
                    KeyValue::new("karat.claim", short(claim)),
                ];
                let span = self.child(&parent, format!("case {}", short(&case.id)), at, attributes);
                if let Some(open) = self.probes.get_mut(probe) {
                    open.case = Some((case.clone(), span));
                }
            }
            RunEventKind::CaseConcluded { probe, word, .. } => {
                if let Some(open) = self.probes.get_mut(probe)
                    && let Some((_, mut span)) = open.case.take()
                {
                    span.set_attribute(KeyValue::new("karat.conclusion", short(word)));
                    span.end_with_timestamp(at);
                }
            }
            RunEventKind::Called { .. } => self.called(event, at),
            RunEventKind::CaseJudged { probe, result } => {
                // A judgement comes after the probe's end and belongs to the run's own work.
                let attributes = vec![
                    KeyValue::new("karat.probe", short(probe)),
                    KeyValue::new("karat.case", short(&result.case.to_string())),
                    KeyValue::new("karat.verdict", result.verdict.to_string()),
                ];
                self.run(at)
                    .add_event_with_timestamp("case judged", at, attributes);
            }
            RunEventKind::ProbeFinished {
                probe,
                outcome,
                judgement,
                usage,
                ..
            } => {
                let word = match judgement.verdict {
                    Some(verdict) => verdict.to_string(),
                    None => outcome.word().to_owned(),
                };
                let labels = [
                    KeyValue::new("karat.probe", short(probe)),
                    KeyValue::new("karat.verdict", word.clone()),
                    KeyValue::new("karat.tier", judgement.tier.to_string()),
                ];
                self.instruments.verdicts.add(1, &labels);
                let seconds = Duration::from_millis(usage.wall_ms).as_secs_f64();
                self.instruments.probe_time.record(seconds, &labels[..1]);
                if let Some(mut open) = self.probes.remove(probe) {
                    if let Some((_, mut case)) = open.case.take() {
                        case.end_with_timestamp(at);
                    }
                    let failed = judgement
                        .verdict
                        .is_none_or(|verdict| matches!(verdict, Verdict::Fail | Verdict::Unknown));
                    if failed {
                        open.span.set_status(Status::error(word.clone()));
                    }
                    open.span
                        .set_attribute(KeyValue::new("karat.verdict", word));
                    open.span.end_with_timestamp(at);
                }
            }
            RunEventKind::Logged { probe, level, text } => {
                let context = self.probe_context(probe);
                let severity = match level.as_str() {
                    "debug" => Severity::Debug,
                    "warn" => Severity::Warn,
                    "error" => Severity::Error,
                    _ => Severity::Info,
                };
                self.log(event.at, severity, text, Some(probe), context);
            }
            RunEventKind::Warned { text } => {
                let context = self.run(at).span_context().clone();
                self.log(event.at, Severity::Warn, text, None, Some(context));
            }
            RunEventKind::Stopping { cause } => {
                let attributes = vec![KeyValue::new("karat.cause", short(cause))];
                self.run(at)
                    .add_event_with_timestamp("stopping", at, attributes);
            }
            RunEventKind::LeaseAwaited { .. }
            | RunEventKind::LeaseGranted { .. }
            | RunEventKind::LeaseReleased { .. }
            | RunEventKind::CleaningUp { .. } => {}
            RunEventKind::RunFinished { left_behind } => {
                let count = i64::try_from(left_behind.len()).unwrap_or(i64::MAX);
                let run = self.run(at);
                run.set_attribute(KeyValue::new("karat.left_behind", count));
                run.end_with_timestamp(at);
            }
        }
    }

    /// Sends what is left. Waits for a few seconds at most.
    pub(crate) fn finish(mut self, printer: &Printer) {
        // A run that broke off leaves spans open; they end now, children first.
        self.probes.clear();
        drop(self.run.take());
        let results = [
            ("traces", self.traces.force_flush()),
            ("metrics", self.metrics.force_flush()),
            ("logs", self.logs.force_flush()),
        ];
        let failed: Vec<&str> = results
            .iter()
            .filter(|(_, result)| result.is_err())
            .map(|(name, _)| *name)
            .collect();
        if let Some((_, Err(error))) = results.iter().find(|(_, result)| result.is_err()) {
            printer.warn(&format!(
                "the telemetry receiver took no {}: {}",
                failed.join(", "),
                shown(&error.to_string())
            ));
        }
        let _ = self.traces.shutdown_with_timeout(PATIENCE);
        let _ = self.metrics.shutdown_with_timeout(PATIENCE);
        let _ = self.logs.shutdown_with_timeout(PATIENCE);
    }

    fn called(&mut self, event: &RunEvent, at: SystemTime) {
        let RunEventKind::Called {
            probe,
            sequence,
            function,
            target,
            outcome,
            took_us,
            bytes,
        } = &event.kind
        else {
            return;
        };
        let took = Duration::from_micros(*took_us);
        let labels = [
            KeyValue::new("karat.probe", short(probe)),
            KeyValue::new("karat.function", short(function)),
            KeyValue::new("karat.outcome", short(outcome)),
        ];
        self.instruments.calls.add(1, &labels);
        self.instruments
            .call_time
            .record(took.as_secs_f64(), &labels[..2]);
        self.instruments.bytes.add(*bytes, &labels[..2]);
        let Some(parent) = self.probe_context(probe) else {
            return;
        };
        let number = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        let [probe, function, outcome] = labels;
        let attributes = [
            probe,
            function,
            outcome,
            KeyValue::new("karat.target", short(target)),
            KeyValue::new("karat.sequence", number(*sequence)),
            KeyValue::new("karat.bytes", number(*bytes)),
        ];
        let started = at.checked_sub(took).unwrap_or(at);
        let name = match &event.kind {
            RunEventKind::Called { function, .. } => short(function),
            _ => return,
        };
        let mut span = self.child(&parent, name, started, attributes);
        span.end_with_timestamp(at);
    }

    /// The span of the run, begun with the first event.
    fn run(&mut self, at: SystemTime) -> &mut Span {
        let tracer = &self.tracer;
        self.run.get_or_insert_with(|| {
            tracer
                .span_builder("run")
                .with_start_time(at)
                .start_with_context(tracer, &Context::new())
        })
    }

    fn child(
        &self,
        parent: &SpanContext,
        name: String,
        at: SystemTime,
        attributes: impl IntoIterator<Item = KeyValue>,
    ) -> Span {
        self.tracer
            .span_builder(name)
            .with_start_time(at)
            .with_attributes(attributes)
            .start_with_context(
                &self.tracer,
                &Context::new().with_remote_span_context(parent.clone()),
            )
    }

    /// The open case of a probe, else the probe itself.
    fn probe_context(&self, probe: &str) -> Option<SpanContext> {
        let open = self.probes.get(probe)?;
        let span = open.case.as_ref().map_or(&open.span, |(_, span)| span);
        Some(span.span_context().clone())
    }

    fn log(
        &self,
        at: Timestamp,
        severity: Severity,
        text: &str,
        probe: Option<&str>,
        context: Option<SpanContext>,
    ) {
        let mut record = self.logger.create_log_record();
        record.set_timestamp(SystemTime::from(at));
        record.set_observed_timestamp(SystemTime::from(at));
        record.set_severity_number(severity);
        record.set_severity_text(severity.name());
        record.set_body(AnyValue::from(short(text)));
        if let Some(probe) = probe {
            record.add_attribute("karat.probe", short(probe));
        }
        if let Some(context) = context {
            record.set_trace_context(
                context.trace_id(),
                context.span_id(),
                Some(context.trace_flags()),
            );
        }
        self.logger.emit(record);
    }
}

fn short(text: &str) -> String {
    text.chars().take(TEXT_MAX).collect()
}

#[cfg(test)]
mod tests;
