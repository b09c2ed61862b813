//! What a server counts, in the text format of Prometheus.

use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts, Registry, TextEncoder,
    exponential_buckets,
};

use crate::error::{Error, Result};

/// The metrics of one server. Labels are only what the server itself has named.
#[derive(Clone)]
pub(crate) struct Metrics {
    registry: Registry,
    /// Answered calls by method and gRPC code.
    pub calls: IntCounterVec,
    /// Streaming calls that have ended, by gRPC code.
    pub ended: IntCounterVec,
    /// Seconds of a call, by method; of a streaming call, until it was begun.
    pub call_seconds: HistogramVec,
    /// Seconds by model and stage: queue, decode, tail.
    pub stage_seconds: HistogramVec,
    /// Bytes of the data of requests by model and input.
    pub payload_bytes: HistogramVec,
    /// Items by model.
    pub items: IntCounterVec,
    /// Items of one run of a tail.
    pub batch: Histogram,
    /// Answers to layered streams by the layers that had come.
    pub layers: IntCounterVec,
    /// Requests whose time was over, or whose client had gone, before their turn.
    pub dropped: IntCounterVec,
    /// Requests between door and answer.
    pub in_flight: IntGauge,
    /// Open streaming calls.
    pub open_calls: IntGauge,
    pub untaken: IntGauge,
    /// Requests that wait for a worker.
    pub queue: IntGauge,
    /// Open connections.
    pub connections: IntGauge,
    /// Connections closed by the server, by reason.
    pub closed: IntCounterVec,
    /// Bytes from and to the network, by direction, all of HTTP/2 and TLS counted.
    pub received: IntCounter,
    pub sent: IntCounter,
    /// 1 while requests are taken.
    pub ready: IntGauge,
}

impl Metrics {
    /// # Errors
    /// None but those of the registry, which are mistakes in this file.
    pub fn new() -> Result<Metrics> {
        Metrics::registered().map_err(|error| Error::invalid(format!("metrics: {error}")))
    }

    fn registered() -> prometheus::Result<Metrics> {
        let registry = Registry::new();
        let seconds = exponential_buckets(1e-4, 2.0, 18)?;
        let counter = |name: &str, help: &str, labels: &[&str]| {
            let counter = IntCounterVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(counter.clone()))?;
            prometheus::Result::Ok(counter)
        };
        let gauge = |name: &str, help: &str| {
            let gauge = IntGauge::new(name, help)?;
            registry.register(Box::new(gauge.clone()))?;
            prometheus::Result::Ok(gauge)
        };
        let histogram = |name: &str, help: &str, labels: &[&str], buckets: Vec<f64>| {
            let histogram = HistogramVec::new(HistogramOpts::new(name, help).buckets(buckets), labels)?;
            registry.register(Box::new(histogram.clone()))?;
            prometheus::Result::Ok(histogram)
        };
        let bytes = counter("narrows_network_bytes_total", "Bytes from and to the network.", &["direction"])?;
        let batch = Histogram::with_opts(
            HistogramOpts::new("narrows_batch_items", "Items of one run of a tail.")
                .buckets(exponential_buckets(1.0, 2.0, 7)?),
        )?;
        registry.register(Box::new(batch.clone()))?;
        Ok(Metrics {
            calls: counter("narrows_calls_total", "Answered calls.", &["method", "code"])?,
            ended: counter("narrows_streaming_calls_ended_total", "Streaming calls that have ended.", &["code"])?,
            call_seconds: histogram("narrows_call_seconds", "Seconds of a call.", &["method"], seconds.clone())?,
            stage_seconds: histogram("narrows_stage_seconds", "Seconds by stage.", &["model", "stage"], seconds)?,
            payload_bytes: histogram(
                "narrows_payload_bytes",
                "Bytes of the data of requests.",
                &["model", "input"],
                exponential_buckets(16.0, 4.0, 11)?,
            )?,
            items: counter("narrows_items_total", "Items answered.", &["model"])?,
            batch,
            layers: counter("narrows_layers_answered_total", "Answers by layers received.", &["model", "layers"])?,
            dropped: counter("narrows_dropped_total", "Requests dropped before their turn.", &["reason"])?,
            in_flight: gauge("narrows_in_flight", "Requests between door and answer.")?,
            open_calls: gauge("narrows_open_calls", "Open streaming calls.")?,
            untaken: gauge("narrows_untaken_answers", "Answers that their clients have not taken yet.")?,
            queue: gauge("narrows_queue_depth", "Requests that wait for a worker.")?,
            connections: gauge("narrows_connections", "Open connections.")?,
            closed: counter("narrows_connections_closed_total", "Connections closed by the server.", &["reason"])?,
            received: bytes.with_label_values(&["in"]),
            sent: bytes.with_label_values(&["out"]),
            ready: gauge("narrows_ready", "1 while requests are taken.")?,
            registry,
        })
    }

    /// All of it as text.
    pub fn text(&self) -> String {
        TextEncoder::new().encode_to_string(&self.registry.gather()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_counted_is_in_the_text() {
        let metrics = Metrics::new().unwrap();
        metrics.calls.with_label_values(&["ModelInfer", "OK"]).inc();
        metrics.stage_seconds.with_label_values(&["m", "tail"]).observe(0.003);
        metrics.received.inc_by(77);
        let text = metrics.text();
        for line in [
            "narrows_calls_total{code=\"OK\",method=\"ModelInfer\"} 1",
            "narrows_stage_seconds_count{model=\"m\",stage=\"tail\"} 1",
            "narrows_network_bytes_total{direction=\"in\"} 77",
            "narrows_queue_depth 0",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in:\n{text}");
        }
    }
}
