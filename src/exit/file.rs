//! Policies as JSON.

use serde_json::{Map, Value, json};

use crate::error::{Error, Result};
use crate::exit::costs::{MAX_EXITS, Rest, Route, Stage, Weights};
use crate::exit::curves::{Curve, KNOTS};
use crate::exit::policy::{Evidence, Policy, Rule};
use crate::power::Power;

/// What `kind` says in every file.
const KIND: &str = "narrows exit policy";
const VERSION: u64 = 1;
/// Largest file that is read: far more than the most exits need.
const MAX_BYTES: usize = 1 << 20;
const MAX_CLASSES: u64 = 1 << 24;

impl Policy {
    /// Writes a policy as JSON, with a version. Numbers come back exactly.
    pub fn to_json(&self) -> String {
        let stage = |stage: &Stage| json!({ "seconds": stage.seconds, "extra": stage.extra });
        let rest = match self.route.rest {
            Rest::Device { seconds } => json!({ "at": "device", "seconds": seconds }),
            Rest::Server { head, encode, bytes, most, tail } => {
                json!({ "at": "server", "head": head, "encode": encode, "bytes": bytes, "most": most, "tail": tail })
            }
        };
        let Weights { delay, energy, bytes, power } = self.weights;
        let Power { compute, send, receive, idle } = power;
        // An infinite threshold, which nothing reaches, has no number in JSON.
        let thresholds = |values: &[f64]| {
            values.iter().map(|x| if x.is_finite() { json!(x) } else { Value::Null }).collect::<Vec<_>>()
        };
        let rule = match &self.rule {
            Rule::Priced { price, curves } => {
                let curve = |curve: &Curve| {
                    json!({
                        "confidence": curve.confidence,
                        "right": curve.right,
                        "next_right": curve.next_right,
                        "rest_right": curve.rest_right,
                        "next": curve.next,
                    })
                };
                json!({ "by": "price", "price": price, "curves": curves.iter().map(curve).collect::<Vec<_>>() })
            }
            Rule::Never => json!({ "by": "never" }),
            Rule::Always(exit) => json!({ "by": "always", "exit": exit }),
            Rule::Probability(least) => json!({ "by": "probability", "thresholds": thresholds(least) }),
            Rule::Entropy(most) => json!({ "by": "entropy", "thresholds": thresholds(most) }),
        };
        let Evidence { images, accuracy, rest_accuracy, met } = self.evidence;
        let value = json!({
            "kind": KIND,
            "version": VERSION,
            "classes": self.classes,
            "exits": self.route.exits.iter().map(stage).collect::<Vec<_>>(),
            "rest": rest,
            "weights": { "delay": delay, "energy": energy, "bytes": bytes },
            "watts": { "compute": compute, "send": send, "receive": receive, "idle": idle },
            "sharpness": self.sharpness,
            "rule": rule,
            "evidence": { "images": images, "accuracy": accuracy, "rest_accuracy": rest_accuracy, "met": met },
        });
        format!("{value:#}\n")
    }

    /// Reads a policy. Files of any content are safe: what is read is what a fit could have written.
    ///
    /// # Errors
    /// `InvalidInput` that names the field that is missing or out of range, `Unsupported` for a later version,
    /// `LimitExceeded` beyond a megabyte.
    pub fn from_json(bytes: &[u8]) -> Result<Policy> {
        if bytes.len() > MAX_BYTES {
            let (needed, limit) = (bytes.len() as u64, MAX_BYTES as u64);
            return Err(Error::LimitExceeded { what: "bytes of an exit policy", needed, limit });
        }
        let value: Value =
            serde_json::from_slice(bytes).map_err(|error| Error::invalid(format!("not an exit policy: {error}")))?;
        let file = Object::of(&value, "the file")?;
        if file.0.get("kind").and_then(Value::as_str) != Some(KIND) {
            return Err(Error::invalid("not an exit policy: `narrows exit --out FILE` writes them"));
        }
        if file.whole("version", u64::MAX)? != VERSION {
            return Err(Error::Unsupported { what: "an exit policy of another version" });
        }
        let classes = file.whole("classes", MAX_CLASSES)? as usize;
        let exits = file.list("exits", 1..=MAX_EXITS)?.iter().map(|exit| {
            let exit = Object::of(exit, "exits")?;
            Ok(Stage { seconds: exit.amount("seconds")?, extra: exit.amount("extra")? })
        });
        let exits = exits.collect::<Result<Vec<_>>>()?;
        let count = exits.len();
        let rest = file.object("rest")?;
        let rest = match rest.text("at")? {
            "device" => Rest::Device { seconds: rest.amount("seconds")? },
            "server" => Rest::Server {
                head: rest.amount("head")?,
                encode: rest.amount("encode")?,
                bytes: rest.amount("bytes")?,
                most: rest.amount("most")?,
                tail: rest.amount("tail")?,
            },
            _ => return Err(wrong("at")),
        };
        let route = Route { exits, rest };
        let (weights, watts) = (file.object("weights")?, file.object("watts")?);
        let weights = Weights {
            delay: weights.amount("delay")?,
            energy: weights.amount("energy")?,
            bytes: weights.amount("bytes")?,
            power: Power {
                compute: watts.amount("compute")?,
                send: watts.amount("send")?,
                receive: watts.amount("receive")?,
                idle: watts.amount("idle")?,
            },
        };
        route.check()?;
        weights.check()?;
        let sharpness = file.numbers("sharpness", count..=count)?;
        if classes < 2 || sharpness.iter().any(|&value| value <= 0.0) {
            return Err(wrong(if classes < 2 { "classes" } else { "sharpness" }));
        }
        let rule = rule(&file.object("rule")?, count)?;
        let evidence = file.object("evidence")?;
        let evidence = Evidence {
            images: evidence.whole("images", u64::from(u32::MAX))? as usize,
            accuracy: evidence.share("accuracy")?,
            rest_accuracy: evidence.share("rest_accuracy")?,
            met: evidence.0.get("met").and_then(Value::as_bool).ok_or_else(|| wrong("met"))?,
        };
        Ok(Policy { classes, route, weights, sharpness, rule, evidence })
    }
}

fn rule(rule: &Object<'_>, exits: usize) -> Result<Rule> {
    let thresholds = |worst: f64| -> Result<Vec<f64>> {
        let one = |value: &Value| if value.is_null() { Some(worst) } else { value.as_f64().filter(|x| x.is_finite()) };
        let list = rule.list("thresholds", exits..=exits)?;
        list.iter().map(one).collect::<Option<_>>().ok_or_else(|| wrong("thresholds"))
    };
    Ok(match rule.text("by")? {
        "never" => Rule::Never,
        "always" => Rule::Always(rule.whole("exit", exits as u64 - 1)? as usize),
        "probability" => Rule::Probability(thresholds(f64::INFINITY)?),
        "entropy" => Rule::Entropy(thresholds(f64::NEG_INFINITY)?),
        "price" => {
            let list = rule.list("curves", exits..=exits)?;
            let last = |i: usize| i + 1 == exits;
            let curves = list.iter().enumerate().map(|(i, value)| curve(&Object::of(value, "curves")?, last(i)));
            let curves = curves.collect::<Result<Vec<_>>>()?;
            for pair in curves.windows(2) {
                // What goes on from an exit arrives at the next.
                let width = pair[1].confidence.len();
                let whole = |row: &Vec<f64>| row.len() == width && (row.iter().sum::<f64>() - 1.0).abs() < 1e-6;
                if !pair[0].next.iter().all(whole) {
                    return Err(wrong("next"));
                }
            }
            Rule::Priced { price: rule.amount("price")?, curves }
        }
        _ => return Err(wrong("by")),
    })
}

fn curve(value: &Object<'_>, last: bool) -> Result<Curve> {
    let is_share = |x: &f64| (0.0..=1.0 + 1e-9).contains(x);
    let shares = |value: &Value, key: &str, lengths| -> Result<Vec<f64>> {
        let list = numbers(value, key, lengths)?;
        if list.iter().all(is_share) { Ok(list) } else { Err(wrong(key)) }
    };
    let field = |key: &str, lengths| shares(value.0.get(key).ok_or_else(|| wrong(key))?, key, lengths);
    let confidence = field("confidence", 1..=KNOTS)?;
    if confidence.windows(2).any(|pair| pair[0] >= pair[1]) {
        return Err(wrong("confidence"));
    }
    let knots = confidence.len();
    let rows = if last { 0 } else { knots };
    let next = value.list("next", rows..=rows)?.iter().map(|row| shares(row, "next", 1..=KNOTS));
    Ok(Curve {
        confidence,
        right: field("right", knots..=knots)?,
        next_right: field("next_right", rows..=rows)?,
        rest_right: field("rest_right", knots..=knots)?,
        next: next.collect::<Result<_>>()?,
    })
}

/// A JSON object, and its fields in the types that are wanted.
struct Object<'a>(&'a Map<String, Value>);

impl<'a> Object<'a> {
    fn of(value: &'a Value, name: &str) -> Result<Object<'a>> {
        value.as_object().map(Object).ok_or_else(|| wrong(name))
    }

    fn object(&self, key: &str) -> Result<Object<'a>> {
        Object::of(self.0.get(key).ok_or_else(|| wrong(key))?, key)
    }

    fn text(&self, key: &str) -> Result<&'a str> {
        self.0.get(key).and_then(Value::as_str).ok_or_else(|| wrong(key))
    }

    fn whole(&self, key: &str, most: u64) -> Result<u64> {
        self.0.get(key).and_then(Value::as_u64).filter(|&value| value <= most).ok_or_else(|| wrong(key))
    }

    /// A number of 0 or more.
    fn amount(&self, key: &str) -> Result<f64> {
        let value = self.0.get(key).and_then(Value::as_f64).filter(|value| value.is_finite() && *value >= 0.0);
        value.ok_or_else(|| wrong(key))
    }

    fn share(&self, key: &str) -> Result<f64> {
        self.amount(key).and_then(|value| if value <= 1.0 { Ok(value) } else { Err(wrong(key)) })
    }

    fn list(&self, key: &str, lengths: std::ops::RangeInclusive<usize>) -> Result<&'a Vec<Value>> {
        let list = self.0.get(key).and_then(Value::as_array).filter(|list| lengths.contains(&list.len()));
        list.ok_or_else(|| wrong(key))
    }

    fn numbers(&self, key: &str, lengths: std::ops::RangeInclusive<usize>) -> Result<Vec<f64>> {
        numbers(self.0.get(key).ok_or_else(|| wrong(key))?, key, lengths)
    }
}

fn numbers(value: &Value, key: &str, lengths: std::ops::RangeInclusive<usize>) -> Result<Vec<f64>> {
    let list = value.as_array().filter(|list| lengths.contains(&list.len())).ok_or_else(|| wrong(key))?;
    let number = |value: &Value| value.as_f64().filter(|value| value.is_finite());
    list.iter().map(number).collect::<Option<_>>().ok_or_else(|| wrong(key))
}

fn wrong(key: &str) -> Error {
    Error::invalid(format!("not an exit policy: `{key}` is missing or out of range"))
}
