//! Runs `narrows exit` and `narrows simulate` as a user would, on measurement files made here: the policy is what the library
//! reads, tables and pages hold what JSON does, the same command gives the same bytes, and errors say what to do.

#[path = "support/measured.rs"]
mod measured;

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};

use narrows::Conditions;
use narrows::exit::{Decision, Policy};
use narrows::split::Action;
use serde_json::Value;
use tempfile::TempDir;

/// A folder with `fit.json`, `test.json` and a trace, in which the binary runs.
struct Place(TempDir);

impl Place {
    fn new() -> Place {
        let place = Place(tempfile::tempdir().unwrap());
        place.write("fit.json", &measured::measured(1, 2000).to_json().unwrap());
        place.write("test.json", &measured::measured(2, 1000).to_json().unwrap());
        place.write("drop.csv", b"seconds,bits_per_second\n0,1e6\n20,1e5\n25,1e6\n40,1e6\n");
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        fs::write(self.path(name), bytes).unwrap();
    }

    fn run(&self, line: &str) -> Output {
        // Words in single quotes belong together.
        let parts = line.split('\'').enumerate();
        let words = parts.flat_map(|(i, part)| if i % 2 == 1 { vec![part] } else { part.split_whitespace().collect() });
        Command::new(env!("CARGO_BIN_EXE_narrows")).args(words).current_dir(self.0.path()).output().unwrap()
    }

    fn ok(&self, line: &str) -> String {
        let output = self.run(line);
        assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    fn json(&self, line: &str) -> Value {
        serde_json::from_str(&self.ok(line)).unwrap()
    }

    fn fails(&self, line: &str, words: &[&str]) {
        let output = self.run(line);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{line}: {error}");
        assert!(
            output.stdout.is_empty() && error.starts_with("error: ") && error.lines().count() == 1,
            "{line}: {error}"
        );
        for word in words {
            assert!(error.contains(word), "{line}: {error:?} does not say {word:?}");
        }
    }
}

const EXIT: &str = "exit --fit-measurements fit.json --measurements test.json --loss 2";
const SIMULATE: &str =
    "simulate --fit-measurements fit.json --measurements test.json --seconds 100s --devices 50 --deadline 150ms";

#[test]
fn a_policy_is_fitted_shown_and_written() {
    let place = Place::new();
    let text = place.ok(&format!("{EXIT} --out policy.json"));
    for word in ["priced", "always offload", "whole network", "always exit2", "one threshold", "entropy", "100 kbit/s"]
    {
        assert!(text.contains(word), "{text}");
    }
    let policy = Policy::from_json(&fs::read(place.path("policy.json")).unwrap()).unwrap();
    assert!(policy.evidence().met && policy.exits() == 2);
    let sure = [9.0, 0.0, 0.0, 0.0];
    assert_eq!(policy.decide(1, &sure, &Conditions::default()), Decision::Answer(0));

    assert!(text.contains("at an exit") && !text.contains("on device"), "{text}");

    let json = place.json(&format!("{EXIT} --json"));
    assert_eq!(json["sent"], "narrows x1 @ cut");
    let rule = |name: &str| {
        let rules = json["rules"].as_array().unwrap();
        rules.iter().find(|rule| rule["rule"].as_str().unwrap().starts_with(name)).unwrap()["outcome"].clone()
    };
    let number = |name: &str, key: &str| rule(name)[key].as_f64().unwrap();
    let loss = number("always offload", "accuracy") - number("priced", "accuracy");
    assert!(loss < 0.03 && number("priced", "on_device") > 0.1, "{json}");
    assert!(number("priced", "delay_s") < number("always offload", "delay_s"));
    assert!(number("priced", "bytes") < number("always offload", "bytes"));
    // The printed outcome is that of the policy that was written.
    let test = measured::measured(2, 1000);
    let samples = test.exit_samples(Action::Split { cut: 0, coding: 1 }).unwrap();
    let outcome = policy.evaluate(&samples, &Conditions::default()).unwrap();
    assert!((outcome.accuracy - number("priced", "accuracy")).abs() < 1e-12);
    assert!((outcome.mean.delay - number("priced", "delay_s")).abs() < 1e-12);
}

#[test]
fn exit_says_what_its_table_shows() {
    let place = Place::new();
    let said = |flags: &str| String::from_utf8(place.run(&format!("{EXIT} {flags}")).stderr).unwrap();
    let fast = said("--device-speed 1000");
    assert!(fast.starts_with("note: ") && fast.contains("whole network on the device is better, accuracy"), "{fast}");
    assert_eq!(said("--device-speed 0.01"), "");
    let missed = "exit --fit-measurements fit.json --measurements test.json --target 0.9999";
    let missed = |more: &str| String::from_utf8(place.run(&format!("{missed} {more}")).stderr).unwrap();
    assert!(missed("").contains("right as often as what comes after it"), "{}", missed(""));
    assert!(missed("--deadline 1s").contains("right and in time as often"), "{}", missed("--deadline 1s"));
}

#[test]
fn simulate_tells_a_warm_up_from_a_deadline() {
    let place = Place::new();
    let line = "simulate --measurements test.json --strategy local --devices 2";
    place.fails(&format!("{line} --seconds 5s --warm-up 5s"), &["5 of 5 seconds to warm up"]);
    place.write("bare.csv", b"0,1e6\n20,1e5\n25,1e6\n");
    place.write("words.csv", b"when,rate\n0,1e6\n");
    place.fails(&format!("{line} --trace words.csv"), &["words.csv", "`when`", "the first line is the header"]);
    let text = place.ok(&format!("{line} --seconds 30s --trace bare.csv")).replace('\n', " ");
    assert!(!text.contains("probes") && text.contains("trace bare.csv, again after 25 s, mean 820 kbit/s"), "{text}");
    assert!(
        place.ok(&format!("{SIMULATE} --strategy adaptive")).replace('\n', " ").contains("probes of adaptive devices")
    );
}

#[test]
fn a_policy_for_the_device_alone_sends_nothing() {
    let json = Place::new().json(&format!("{EXIT} --send local --weigh-energy 1 --json"));
    assert_eq!((&json["sent"], &json["rules"][0]["outcome"]["bytes"]), (&"local".into(), &0.0.into()));
    assert!(json["rules"].as_array().unwrap().iter().all(|rule| rule["outcome"]["on_device"] == 1.0), "{json}");
    assert!(json["rules"].as_array().unwrap().iter().all(|rule| rule["rule"] != "always offload"));
}

#[test]
fn exit_says_what_is_wrong() {
    let place = Place::new();
    place.fails("exit --fit-measurements fit.json --measurements fit.json", &["2000 images", "other images"]);
    place.fails(&format!("{EXIT} --send 'narrows x7'"), &["`narrows x7`", "narrows x1 @ cut", "JPEG q75"]);
    place.fails(&format!("{EXIT} --certainty 1"), &["certainty"]);
    place.fails("exit --fit-measurements fit.json --measurements none.json", &["none.json"]);
    let mut other = measured::measured(3, 1000);
    other.exits.pop();
    place.write("other.json", &other.to_json().unwrap());
    place.fails("exit --fit-measurements fit.json --measurements other.json", &["differ", "same command"]);
    other.exits.clear();
    place.write("other.json", &other.to_json().unwrap());
    place.fails("exit --fit-measurements fit.json --measurements other.json", &["no exits", "eval --exit"]);
}

#[test]
fn a_fleet_is_simulated_and_reported_in_every_form() {
    let place = Place::new();
    let line = format!("{SIMULATE} --trace drop.csv --same-time --out report --device-speed 0.25 --servers 4");
    let text = place.ok(&line);
    let files = ["simulation.csv", "simulation.html", "simulation.json"]
        .map(|name| fs::read_to_string(place.path("report").join(name)).unwrap());
    let json: Value = serde_json::from_str(&files[2]).unwrap();
    let strategies = json["strategies"].as_array().unwrap();
    let names: Vec<&str> = strategies.iter().map(|one| one["strategy"].as_str().unwrap()).collect();
    let usual = [
        "local",
        "JPEG q75",
        "WebP q70",
        "u8 min-max + zstd @ cut",
        "narrows x1 @ cut",
        "adaptive",
        "adaptive+fallback",
    ];
    assert_eq!(names, usual);
    for name in usual {
        assert!(text.contains(name) && files[0].contains(name) && files[1].contains(name), "{name}");
    }
    assert_eq!(files[0].lines().count(), 8);
    assert_eq!(files[1].matches("<figure>").count(), 3);
    assert!(!files[1].contains("NaN") && !files[1].contains("inf\""));
    let share =
        |name: &str, key: &str| strategies.iter().find(|one| one["strategy"] == name).unwrap()[key].as_f64().unwrap();
    assert!(share("adaptive+fallback", "in_time") > 0.99, "{text}");
    assert!(share("adaptive", "in_time") > share("JPEG q75", "in_time"), "{text}");
    // Requests are the same for all, and everything is the same another time.
    assert!(strategies.iter().all(|one| one["requests"] == strategies[0]["requests"]));
    assert_eq!(place.ok(&line), text);
    assert_ne!(place.ok(&format!("{line} --seed 2")), text);
    // What was simulated, and what is paid for, is said with it.
    assert_eq!(json["scenario"]["devices"], 50);
    assert_eq!(
        (&json["scenario"]["link"]["kind"], &json["scenario"]["link"]["period_s"]),
        (&"trace drop.csv".into(), &40.0.into())
    );
    assert_eq!((&json["power"]["compute"], &json["prices"]["server_hour"]), (&3.2.into(), &0.2.into()));
    let flat = text.replace('\n', " ");
    for words in [
        "again after 40 s",
        "3.2 W computing",
        "after a transfer",
        "used, with the time that workers worked",
        "cost, all",
    ] {
        assert!(flat.contains(words), "{words} in {text}");
    }
    assert_eq!(share("local", "cost_per_million_used"), 0.0);
    assert!(share("local", "cost_per_million") > 0.0);
    let header = files[0].lines().next().unwrap();
    assert!(header.ends_with(",cost_per_million,cost_per_million_used"), "{header}");
}

#[test]
fn drawn_links_say_how_long_they_are_down() {
    let place = Place::new();
    let text = |more: &str| place.ok(&format!("{SIMULATE} --strategy local {more}")).replace('\n', " ");
    let lte = text("--link lte --bandwidth 2M");
    assert!(
        lte.contains("LTE links, mean ") && lte.contains(", down for 1") && lte.contains(" % of the time"),
        "{lte}"
    );
    assert!(text("--link lora").contains("without headers or duty cycle"));
    assert!(!text("").contains("down for"));
    place.write("load.csv", b"0,0.5\n10,0\n40,0.5\n");
    assert!(text("--load load.csv").contains("Others take 12.5 % of the servers (load.csv, again after 40 s)."));
}

#[test]
fn kinds_of_links_and_other_load_change_what_comes_out() {
    let place = Place::new();
    place.write("load.csv", b"seconds,load\n0,0.9\n50,0.9\n");
    let delay = |more: &str| {
        let json = place.json(&format!("{SIMULATE} --strategy 'narrows x1' --json {more}"));
        json["strategies"][0]["in_time"].as_f64().unwrap()
    };
    let constant = delay("");
    assert!(constant > 0.99);
    assert!(delay("--load load.csv") < 0.5);
    assert!(delay("--link lora") < 0.1);
    let lte = delay("--link lte");
    assert!((0.3..1.0).contains(&lte), "{lte}");
    assert!(delay("--link wifi --bandwidth 20M") > 0.9);
}

#[test]
fn simulate_says_what_is_wrong() {
    let place = Place::new();
    place.fails("simulate --measurements none.json", &["none.json"]);
    place.fails("simulate --measurements test.json --strategy adaptive", &["--fit-measurements"]);
    place.fails("simulate --measurements test.json --fit-measurements test.json", &["other images"]);
    place.fails("simulate --measurements test.json --strategy PNG", &["`PNG`", "WebP q70"]);
    place.fails("simulate --measurements test.json --devices 0", &["0 devices"]);
    place.write("bad.csv", b"seconds,bits_per_second\n0,1e6\n1,fast\n");
    place.fails("simulate --measurements test.json --trace bad.csv", &["bad.csv", "line 3, column 2", "`fast`"]);
    place.write("bad.csv", b"seconds,load\n0,1.5\n");
    place.fails("simulate --measurements test.json --load bad.csv", &["bad.csv", "line 2", "1.5"]);
    place.write("bad.csv", b"0,1e6\n20,1e5\n");
    let open = ["bad.csv", "line 2: 100000", "the last line says when all begins again"];
    place.fails("simulate --measurements test.json --trace bad.csv", &open);
    place.fails("simulate --measurements test.json --servers 1000000000000", &["all workers up to a million"]);
    place.fails("simulate --measurements test.json --strategy local --rate 1e-9", &["no request came", "higher rate"]);
    place.fails("simulate --measurements test.json --link lora --bandwidth 2M", &["--bandwidth", "lora"]);
    let both = place.run("simulate --measurements test.json --trace drop.csv --bandwidth 1M");
    assert_eq!(both.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&both.stderr).contains("--bandwidth"));
    let refused = place.run("simulate");
    assert_eq!(refused.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("--measurements"));
}
