//! What came of each image, and of all of them.

use serde_json::{Value, json};

use crate::output::thousands;
use crate::report::align;

/// What came of one image.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// Its number, from 0.
    pub image: usize,
    /// Its class, if labels were given.
    pub label: Option<usize>,
    /// The class that was answered; `None` if there was no answer.
    pub answer: Option<usize>,
    /// Where the answer came from: `local`, `exit 1`, `image`, `split`; or `skipped`.
    pub from: String,
    /// Seconds from the moment at which the image was due to its answer.
    pub delay: f64,
    /// Seconds of the network on the device.
    pub device: f64,
    /// Seconds of encoding.
    pub encode: f64,
    /// Seconds from sending to the answer.
    pub link: f64,
    /// Seconds at the server: in its queue, decoding, in the network.
    pub server: [f64; 3],
    /// Bytes of streams or images.
    pub payload: usize,
    /// Bytes sent on the wire, all of gRPC, HTTP/2 and TLS counted.
    pub wire: u64,
    /// Layers that were sent, of a layered stream.
    pub layers: usize,
    /// Attempts that the answer took.
    pub attempts: u32,
    /// Why there was no answer.
    pub error: Option<String>,
}

/// All images of one run.
#[derive(Debug, Clone, PartialEq)]
pub struct Summary {
    /// The policy.
    pub policy: String,
    /// Number of images.
    pub images: usize,
    /// Not looked at, because they were late before their turn.
    pub skipped: usize,
    /// Without an answer for another reason.
    pub lost: usize,
    /// Mean seconds of an answer.
    pub mean: f64,
    /// Half of the answers took no longer.
    pub p50: f64,
    /// 99 % of the answers took no longer.
    pub p99: f64,
    /// Share of images answered within the deadline.
    pub hits: f64,
    /// Share of images answered rightly, if labels were given.
    pub accuracy: Option<f64>,
    /// Mean bytes of streams or images, images answered on the device counted as 0.
    pub payload: f64,
    /// Mean bytes sent on the wire.
    pub wire: f64,
    /// Mean seconds of the device's own work: head, encoder, or the whole network.
    pub busy: f64,
    /// Share of images answered on the device.
    pub local: f64,
    /// Attempts beyond the first.
    pub retries: u32,
}

/// Where the answer of an image that was not looked at would have come from.
pub const SKIPPED: &str = "skipped";

impl Summary {
    /// Sums up.
    pub fn new(policy: String, records: &[Record], deadline: f64) -> Summary {
        let count = records.len().max(1) as f64;
        let share = |is: &dyn Fn(&Record) -> bool| records.iter().filter(|record| is(record)).count() as f64 / count;
        let mean = |of: &dyn Fn(&Record) -> f64| records.iter().map(of).sum::<f64>() / count;
        let mut delays: Vec<f64> = records.iter().filter(|record| record.answer.is_some()).map(|r| r.delay).collect();
        delays.sort_by(f64::total_cmp);
        let at = |share: f64| {
            let place = ((delays.len() as f64 * share).ceil() as usize).saturating_sub(1);
            delays.get(place).copied().unwrap_or(f64::NAN)
        };
        let skipped = records.iter().filter(|record| record.from == SKIPPED).count();
        let labelled = !records.is_empty() && records.iter().all(|record| record.label.is_some());
        Summary {
            policy,
            images: records.len(),
            skipped,
            lost: records.len() - delays.len() - skipped,
            mean: delays.iter().sum::<f64>() / delays.len() as f64,
            p50: at(0.5),
            p99: at(0.99),
            hits: share(&|record| record.answer.is_some() && record.delay <= deadline),
            accuracy: labelled.then(|| share(&|record| record.answer.is_some() && record.answer == record.label)),
            payload: mean(&|record| record.payload as f64),
            wire: mean(&|record| record.wire as f64),
            busy: mean(&|record| record.device + record.encode),
            local: share(&|record| record.answer.is_some() && record.attempts == 0),
            retries: records.iter().map(|record| record.attempts.saturating_sub(1)).sum(),
        }
    }

    fn cells(&self) -> Vec<String> {
        // Where every image is lost there is no delay.
        let milliseconds = |seconds: f64| if seconds.is_nan() { "–".into() } else { format!("{:.1}", 1e3 * seconds) };
        vec![
            self.policy.clone(),
            milliseconds(self.mean),
            milliseconds(self.p50),
            milliseconds(self.p99),
            format!("{:.1} %", 100.0 * self.hits),
            self.accuracy.map_or("–".into(), |accuracy| format!("{accuracy:.4}")),
            thousands(self.payload.round() as u64),
            thousands(self.wire.round() as u64),
            milliseconds(self.busy),
            format!("{:.1} %", 100.0 * self.local),
            self.retries.to_string(),
            self.skipped.to_string(),
            self.lost.to_string(),
        ]
    }

    /// The summary as JSON.
    pub fn json(&self) -> Value {
        json!({
            "policy": self.policy,
            "images": self.images,
            "skipped": self.skipped,
            "lost": self.lost,
            "delay_mean_seconds": self.mean,
            "delay_p50_seconds": self.p50,
            "delay_p99_seconds": self.p99,
            "deadline_hits": self.hits,
            "accuracy": self.accuracy,
            "payload_bytes": self.payload,
            "wire_bytes": self.wire,
            "device_busy_seconds": self.busy,
            "local": self.local,
            "retries": self.retries,
        })
    }
}

/// Summaries as a table.
pub fn table(summaries: &[Summary]) -> String {
    let head = [
        "policy",
        "mean ms",
        "p50 ms",
        "p99 ms",
        "in time",
        "accuracy",
        "payload B",
        "wire B",
        "busy ms",
        "local",
        "retries",
        "skipped",
        "lost",
    ];
    let mut rows = vec![head.map(str::to_string).to_vec()];
    rows.extend(summaries.iter().map(Summary::cells));
    align(&rows, 1).trim_end().to_string()
}

/// Records as CSV, one line an image.
pub fn csv(records: &[Record]) -> String {
    let mut text = String::from(
        "image,label,answer,from,delay_ms,device_ms,encode_ms,link_ms,queue_ms,decode_ms,tail_ms,payload_bytes,\
         wire_bytes,layers,attempts,error\n",
    );
    for record in records {
        let class = |class: Option<usize>| class.map_or(String::new(), |class| class.to_string());
        let times = [record.delay, record.device, record.encode, record.link].into_iter().chain(record.server);
        let times: Vec<String> = times.map(|seconds| format!("{:.3}", 1e3 * seconds)).collect();
        let error = record.error.as_deref().unwrap_or_default().replace('"', "'");
        text += &format!(
            "{},{},{},\"{}\",{},{},{},{},{},\"{error}\"\n",
            record.image,
            class(record.label),
            class(record.answer),
            record.from,
            times.join(","),
            record.payload,
            record.wire,
            record.layers,
            record.attempts,
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(image: usize, delay: f64, answer: Option<usize>) -> Record {
        Record {
            image,
            label: Some(1),
            answer,
            from: "split".into(),
            delay,
            device: 0.001,
            encode: 0.0,
            link: 0.0,
            server: [0.0; 3],
            payload: 100,
            wire: 150,
            layers: 0,
            attempts: 2,
            error: None,
        }
    }

    #[test]
    fn lost_images_miss_their_deadline_and_are_wrong() {
        let mut records: Vec<Record> = (0..99).map(|i| record(i, 0.001 * (i + 1) as f64, Some(i % 2))).collect();
        records.push(record(99, 0.0, None));
        let summary = Summary::new("fixed".into(), &records, 0.050);
        assert_eq!((summary.lost, summary.hits, summary.accuracy), (1, 0.50, Some(0.49)));
        assert!((summary.p50 - 0.050).abs() < 1e-9 && (summary.p99 - 0.099).abs() < 1e-9);
        assert_eq!((summary.payload, summary.wire, summary.local, summary.retries), (100.0, 150.0, 0.0, 100));
        // What was skipped is late and wrong, but not lost.
        records[99].from = SKIPPED.into();
        let summary = Summary::new("fixed".into(), &records, 0.050);
        assert_eq!((summary.skipped, summary.lost, summary.hits, summary.accuracy), (1, 0, 0.50, Some(0.49)));
        let lost = Summary::new("fixed".into(), &[record(0, 0.0, None)], 0.050);
        let line = table(std::slice::from_ref(&lost)).lines().nth(1).unwrap_or_default().to_string();
        assert!(!line.contains("NaN") && line.matches('–').count() == 3, "{line}");
        assert!(lost.json()["delay_mean_seconds"].is_null());
        assert_eq!(csv(&records).lines().count(), 101);
        assert_eq!(table(&[summary]).lines().count(), 2);
    }
}
