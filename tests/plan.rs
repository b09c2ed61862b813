//! From measuring to a plan, as a user would: `eval --measurements` writes what the library reads and what its own report
//! says, `plan` chooses from it what the library's planner does, and draws it; what is wrong gets one clear line.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;

use narrows::Conditions;
use narrows::split::{Action, Cut, Goal, Measurements, Planner, Power};
use serde_json::Value;
use tempfile::TempDir;

const DEMO: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/demo");
const IMAGES: usize = 20;

/// A folder with images of the demo and their labels.
struct Place(TempDir);

impl Place {
    fn new() -> Place {
        let place = Place(tempfile::tempdir().unwrap());
        let sheet = image::open(Path::new(DEMO).join("test_images.png")).unwrap().into_rgb8();
        let labels = fs::read_to_string(Path::new(DEMO).join("test_labels.txt")).unwrap();
        fs::create_dir(place.path("images")).unwrap();
        let mut csv = String::from("file,label\n");
        for (i, label) in labels.lines().take(IMAGES).enumerate() {
            let tile = image::imageops::crop_imm(&sheet, i as u32 * 32, 0, 32, 32).to_image();
            tile.save(place.path(&format!("images/{i:02}.png"))).unwrap();
            csv += &format!("{i:02}.png,{label}\n");
        }
        fs::write(place.path("labels.csv"), csv).unwrap();
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn run(&self, line: &str) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_narrows"));
        command.args(line.split_whitespace()).current_dir(self.0.path()).output().unwrap()
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
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{line}: {error}");
        assert_eq!(error.lines().count(), 1, "{line}: {error}");
        for word in words {
            assert!(error.contains(word), "{line}: {error:?} does not say {word:?}");
        }
    }

    fn measurements(&self, name: &str) -> Measurements {
        Measurements::from_json(&fs::read(self.path(name)).unwrap()).unwrap()
    }
}

/// The flags that name the demo's network and images.
fn network() -> String {
    format!("--model {DEMO}/network.onnx --model-output logits --images images --labels labels.csv --normalize cifar10")
}

/// The demo's cut, twice, with its two profiles; two step scales, and two layers.
fn eval(more: &str) -> String {
    format!(
        "eval {} --cut stage3.0.out --cut stage3.0.out --profile {DEMO}/profile.safetensors \
         --profile {DEMO}/bottleneck.safetensors --qualities 0.35,1 --layers 2 --layer-qualities 0.35 --baselines jpeg,png {more}",
        network()
    )
}

#[test]
fn measurements_say_what_the_report_says() {
    let place = Place::new();
    let report = place.json(&eval("--json --exit exit2 --exit exit1 --measurements m.json"));
    let measured = place.measurements("m.json");
    assert_eq!((measured.images(), measured.classes, measured.cuts.len()), (IMAGES, 10, 1));
    assert_eq!((measured.model.as_str(), measured.output.as_str()), ("network.onnx", "logits"));
    assert_eq!(measured.accuracy(Action::Local), report["top1_uncut"].as_f64().unwrap());
    let actions: Vec<Action> = measured.actions().skip(1).collect();
    let points = report["points"].as_array().unwrap();
    assert_eq!((actions.len(), points.len()), (2 + 8 + 8, 2 + 8 + 8));
    for (action, point) in actions.iter().zip(points) {
        let coding = measured.coding(*action).unwrap();
        assert_eq!(coding.codec, point["codec"].as_str().unwrap());
        assert!((coding.mean_bytes() - point["bytes"]["mean"].as_f64().unwrap()).abs() < 1e-9, "{action:?}");
        assert!((measured.accuracy(*action) - point["top1"].as_f64().unwrap()).abs() < 1e-9, "{action:?}");
        assert!((coding.share_of(&measured.answers) - point["agreement"].as_f64().unwrap()).abs() < 1e-9, "{action:?}");
        assert!(coding.confidence.iter().all(|share| (0.1..=1.0).contains(share)), "{action:?}");
        assert!(coding.encode > 0.0 && coding.decode > 0.0, "{action:?}");
    }
    let codings = &measured.cuts[0].codings;
    let layers: Vec<_> = codings.iter().filter(|coding| coding.codec == "narrows layered").collect();
    assert_eq!(layers.iter().map(|coding| coding.layer).collect::<Vec<_>>(), [Some((1, 2)), Some((2, 2))]);
    assert!(layers[0].bytes.iter().zip(&layers[1].bytes).all(|(base, all)| base < all));
    let profiles: Vec<&str> = codings.iter().filter_map(|coding| coding.profile.as_deref()).collect();
    assert_eq!((profiles.len(), profiles[0].len()), (8, 16));
    assert_ne!(profiles[0], profiles[7]);
    // Exits are in the order of the network, and their logits are right more often than chance.
    let names: Vec<&str> = measured.exits.iter().map(|exit| exit.name.as_str()).collect();
    assert_eq!(names, ["exit1", "exit2"]);
    for exit in &measured.exits {
        assert!(exit.extra > 0.0 && exit.seconds > 0.0);
        let best = |logits: &Vec<f32>| (0..10).max_by(|&a, &b| logits[a].total_cmp(&logits[b])).unwrap() as u32;
        let right = exit.logits.iter().zip(&measured.labels).filter(|&(logits, &label)| best(logits) == label).count();
        assert!(right > IMAGES / 2, "{}: {right}", exit.name);
    }
    // Bytes and answers do not depend on the run.
    place.ok(&eval("--threads 1 --measurements again.json"));
    let again = place.measurements("again.json");
    let seen = |measured: &Measurements| {
        let codings = measured.actions().filter_map(|action| measured.coding(action));
        codings.map(|coding| (coding.bytes.clone(), coding.answers.clone())).collect::<Vec<_>>()
    };
    assert_eq!(seen(&again), seen(&measured));
}

#[test]
fn the_plan_is_the_planners() {
    let place = Place::new();
    place.ok(&eval("--measurements m.json"));
    let measured = Arc::new(place.measurements("m.json"));
    let flags = "--bandwidth 200k --round-trip 60ms --server-wait 5ms --device-speed 0.05 --server-speed 2 --loss 10";
    let plan = place.json(&format!("plan --measurements m.json {flags} --json --out plan"));
    let conditions = Conditions {
        bandwidth: 2e5,
        round_trip: 0.06,
        wait: 0.005,
        device_speed: 0.05,
        server_speed: 2.0,
        ..Conditions::default()
    };
    let accuracy = measured.accuracy(Action::Local) - 0.1;
    let planner = Planner::new(measured.clone(), Power::default(), Goal::Delay { accuracy });
    let best = planner.best(&conditions);
    assert_eq!(plan["best"]["action"], measured.name(best.action));
    for (name, value) in [("delay", best.delay), ("bytes", best.bytes), ("energy", best.energy)] {
        assert!((plan["best"][name].as_f64().unwrap() - value).abs() < 1e-9 * value.max(1.0), "{name}");
    }
    let sum: f64 = ["device", "link", "server"].iter().map(|part| plan["best"][part].as_f64().unwrap()).sum();
    assert!((sum - best.delay).abs() < 1e-9);
    assert_eq!(plan["candidates"].as_array().unwrap().len(), measured.actions().count());

    // At a crossover both ways take equally long, and the cut is faster on the side that it says.
    let crossovers = plan["crossovers"].as_array().unwrap();
    assert!(!crossovers.is_empty());
    let curve = |way: &Value, bandwidth: f64| {
        let curves = plan["curves"].as_array().unwrap();
        let points = curves.iter().find(|curve| curve["way"] == *way).unwrap()["points"].as_array().unwrap();
        let near = |point: &&Value| ((point[0].as_f64().unwrap() / bandwidth).ln().abs() * 1e6) as u64;
        points.iter().min_by_key(near).unwrap()[1].as_f64().unwrap()
    };
    for crossover in crossovers {
        let at = crossover["bandwidth"].as_f64().unwrap();
        let lead = |bandwidth: f64| curve(&crossover["cut"], bandwidth) / curve(&crossover["other"], bandwidth);
        assert!((lead(at) - 1.0).abs() < 0.05, "{crossover}");
        assert_eq!(lead(at * 0.9) < lead(at * 1.1), crossover["cut_is_faster"] == "below", "{crossover}");
    }
    // One way follows the other over all bandwidths.
    let reigns = plan["fastest_by_bandwidth"].as_array().unwrap();
    assert_eq!(reigns[0]["from"], 37_500.0);
    assert!((reigns.last().unwrap()["to"].as_f64().unwrap() / 1e8 - 1.0).abs() < 1e-6);
    assert!(reigns.windows(2).all(|pair| pair[0]["to"] == pair[1]["from"] && pair[0]["way"] != pair[1]["way"]));

    // What lies in the folder.
    assert_eq!(place.measurements("plan/measurements.json"), *measured);
    let csv = fs::read_to_string(place.path("plan/plan.csv")).unwrap();
    assert_eq!(csv.lines().count(), 1 + measured.actions().count());
    assert_eq!(csv.lines().filter(|line| line.ends_with(",1")).count(), 1);
    let html = fs::read_to_string(place.path("plan/plan.html")).unwrap();
    assert!(html.contains("<polyline") && !html.contains("NaN") && !html.contains("http://"));
    let text = place.ok(&format!("plan --measurements m.json {flags}"));
    assert!(text.contains(&format!("best: {}", measured.name(best.action))) && text.contains("crossovers"), "{text}");

    // The same file twice is the same plan.
    let twice = place.json(&format!("plan --measurements m.json --measurements plan/measurements.json {flags} --json"));
    assert_eq!(twice["candidates"], plan["candidates"]);
}

#[test]
fn each_wish_has_its_choice() {
    let place = Place::new();
    place.ok(&eval("--measurements m.json"));
    let best = |flags: &str| place.json(&format!("plan --measurements m.json --json {flags}"))["best"].clone();
    assert_eq!(best("--bandwidth 1k")["action"], "local");
    let far = best("--bandwidth 1G --round-trip 0 --device-speed 0.0001");
    assert!(far["cut"].is_null() && far["action"] != "local", "{far}");
    let in_time = best("--deadline 1s --bandwidth 20k --device-speed 0.001");
    assert!(in_time["delay_p95"].as_f64().unwrap() <= 1.0, "{in_time}");
    let radio = best("--goal energy --power 0,1000,1.29,1.06 --bandwidth 100k");
    assert_eq!(radio["action"], "local");
    let compute = best("--goal energy --power 1000,0,0,0 --loss 100");
    assert!(compute["device"].as_f64().unwrap() < 1e-3, "{compute}");
    let agreeing = place.json("plan --measurements m.json --json --agreement 0.9 --bandwidth 50k --device-speed 0.01");
    assert_eq!((&agreeing["measure"], &agreeing["accuracy_uncut"]), (&Value::from("agreement"), &Value::from(1.0)));
    assert!(agreeing["best"]["accuracy"].as_f64().unwrap() >= 0.9);
}

/// With a deadline, everything that is shown is about answers that are right and in time, not about a floor of accuracy.
#[test]
fn a_deadline_is_what_the_plan_is_about() {
    let place = Place::new();
    place.ok(&eval("--measurements m.json"));
    let measured = Arc::new(place.measurements("m.json"));
    let flags = "plan --measurements m.json --round-trip 60ms --device-speed 0.05 --bandwidth 200k";
    let text = place.ok(&format!("{flags} --deadline 100ms --out plan"));
    // Where lines break depends on the name of the processor.
    let flat = text.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(flat.contains("Wanted: the most answers that are right within 100 ms"), "{text}");
    for words in ["right in time", "\nbest by bandwidth, most answers right within 100 ms\n"] {
        assert!(text.contains(words), "{words} in {text}");
    }
    assert!(!text.contains("of at least") && !text.contains("no setting") && !text.contains("Not drawn"), "{text}");
    assert!(
        text.contains("\nmean delay by bandwidth, the setting with the most answers right within 100 ms\n"),
        "{text}"
    );
    let html = fs::read_to_string(place.path("plan/plan.html")).unwrap();
    assert!(html.contains("uncut deadline") && html.contains(">deadline 100 ms<"));
    assert!(!html.contains("of at least") && !html.contains("fastest") && html.contains("crossovers below"));
    let csv = fs::read_to_string(place.path("plan/plan.csv")).unwrap();
    assert!(csv.lines().next().unwrap().ends_with(",accuracy,right_in_time,chosen"));

    // Each way at its best, and the best of all at each bandwidth, by the goal.
    let plan = place.json(&format!("{flags} --deadline 100ms --json"));
    assert!(plan["accuracy_wanted"].is_null());
    assert!(!plan["crossovers"].as_array().unwrap().is_empty());
    let planner = Planner::new(measured.clone(), Power::default(), Goal::Accuracy);
    let planner = planner.only(|action| measured.coding(action).is_none_or(|coding| coding.codec != "raw RGB"));
    let reigns = plan["fastest_by_bandwidth"].as_array().unwrap();
    assert!(!reigns.is_empty());
    for reign in reigns {
        let middle = (reign["from"].as_f64().unwrap() * reign["to"].as_f64().unwrap()).sqrt();
        let now = Conditions {
            bandwidth: middle,
            round_trip: 0.06,
            device_speed: 0.05,
            deadline: 0.1,
            ..Conditions::default()
        };
        let best = planner.best(&now).action;
        let codec = measured.coding(best).map_or("local", |coding| coding.codec.as_str());
        assert_eq!(reign["way"].as_str().unwrap().split(" @ ").next(), Some(codec), "{reign}");
    }

    // A deadline is named for the other goals too, and drawn; where there is none, nothing speaks of it.
    let delay = place.ok(&format!("{flags} --deadline 5s --goal delay --loss 10 --out delay"));
    assert!(
        delay.contains("the deadline is 5 s") && delay.contains("fastest by bandwidth, agreement of at least"),
        "{delay}"
    );
    let html = fs::read_to_string(place.path("delay/plan.html")).unwrap();
    assert!(html.contains("uncut deadline") && html.contains("crossovers below"));
    place.ok(&format!("{flags} --loss 10 --out free"));
    assert!(!fs::read_to_string(place.path("free/plan.html")).unwrap().contains("deadline"));
    let late = place.run("plan --measurements m.json --deadline 1ms --device-speed 0.0001 --bandwidth 40k");
    let warning = String::from_utf8(late.stderr).unwrap();
    assert!(warning.starts_with("warning: no way answers within 1 ms; the soonest, "), "{warning}");
    assert!(place.run(&format!("{flags} --deadline 5s")).stderr.is_empty());
}

#[test]
fn what_is_not_accurate_enough_is_named() {
    let place = Place::new();
    place.ok(&eval("--measurements m.json"));
    let mut measured = place.measurements("m.json");
    // JPEG is always wrong.
    let wrong = |(answer, label): (&mut u32, &u32)| *answer = (label + 1) % 10;
    for coding in measured.inputs.iter_mut().filter(|coding| coding.codec == "JPEG") {
        coding.answers.iter_mut().zip(&measured.labels).for_each(wrong);
    }
    fs::write(place.path("bad.json"), measured.to_json().unwrap()).unwrap();
    let line = "plan --measurements bad.json --device-speed 0.05 --loss 10 --out plan";
    let text = place.ok(line);
    assert!(text.contains("Not drawn: JPEG,") && text.contains(" below agreement 0.9000"), "{text}");
    let html = fs::read_to_string(place.path("plan/plan.html")).unwrap();
    assert!(html.contains("Not drawn: JPEG,") && !html.contains("<title>JPEG</title>"));
    assert_eq!(place.json(&format!("{line} --json"))["not_drawn"][0], "JPEG");
    // It is among the curves all the same, and marked.
    let curves = fs::read_to_string(place.path("plan/curves.csv")).unwrap();
    assert_eq!(curves.lines().next(), Some("way,as_accurate_as_wanted,bandwidth,delay_s"));
    assert_eq!(curves.lines().filter(|line| line.starts_with("JPEG,0,")).count(), 481);
    assert_eq!(curves.lines().filter(|line| line.starts_with("local,1,")).count(), 481);
    // The table has the delays of the curves.
    let table = text.split("mean delay by bandwidth").nth(1).unwrap();
    let local = table.lines().find(|line| line.trim().starts_with("local")).unwrap();
    let seconds: f64 =
        curves.lines().find(|line| line.starts_with("local,1,")).unwrap().split(',').nth(3).unwrap().parse().unwrap();
    let texts = [0, 1, 2].map(|digits| format!("{:.digits$} ms", 1e3 * seconds));
    assert!(texts.iter().any(|text| local.contains(text)), "{texts:?} in {table}");
    assert!(table.lines().nth(1).unwrap().contains("37.5 kbit/s") && table.contains("100 Mbit/s"), "{table}");
}

#[test]
fn one_file_comes_out_as_it_was() {
    let place = Place::new();
    place.ok(&eval("--measurements m.json --exit exit1 --exit exit2"));
    let mut measured = place.measurements("m.json");
    // A busy machine may have timed what comes later as shorter.
    let later = Cut { name: "later".into(), head: 0.5 * measured.cuts[0].head, ..measured.cuts[0].clone() };
    measured.cuts.push(later);
    measured.exits[1].seconds = 0.5 * measured.exits[0].seconds;
    measured.exits[1].extra = 0.0;
    fs::write(place.path("odd.json"), measured.to_json().unwrap()).unwrap();
    place.ok("plan --measurements odd.json --out plan");
    assert_eq!(place.measurements("plan/measurements.json"), measured);
    // Joined with what it has already, too; what is new finds its place.
    place.ok("plan --measurements odd.json --measurements m.json --out plan");
    let names = |measured: &Measurements| measured.cuts.iter().map(|cut| cut.name.clone()).collect::<Vec<_>>();
    assert_eq!(names(&place.measurements("plan/measurements.json")), ["stage3.0.out", "later"]);
    place.ok("plan --measurements m.json --measurements odd.json --out plan");
    assert_eq!(names(&place.measurements("plan/measurements.json")), ["later", "stage3.0.out"]);
}

#[test]
fn a_network_without_labels_or_cuts_is_measured_too() {
    let place = Place::new();
    let network = network().replace("--labels labels.csv", "");
    let flags = "--cuts 2 --qualities 0.5 --baselines jpeg --device-speed 0.01 --json --out plan";
    let plan = place.json(&format!("plan {network} {flags}"));
    assert_eq!(plan["measure"], "agreement");
    let measured = place.measurements("plan/measurements.json");
    assert_eq!((measured.images(), measured.labels == measured.answers), (IMAGES, true));
    // A map of each half of the network, the smallest one there.
    let cuts: Vec<&str> = measured.cuts.iter().map(|cut| cut.name.as_str()).collect();
    assert_eq!(cuts.len(), 2);
    assert!(measured.cuts[1].shape.iter().product::<usize>() <= measured.cuts[0].shape.iter().product());
    assert!(measured.cuts[0].codings.iter().all(|coding| coding.codec == "narrows plain"));
}

#[test]
fn what_is_wrong_is_said() {
    let place = Place::new();
    place.ok(&eval("--measurements m.json"));
    let mut other = place.measurements("m.json");
    other.labels.rotate_left(1);
    fs::write(place.path("other.json"), other.to_json().unwrap()).unwrap();
    fs::write(place.path("broken.json"), b"{\"version\": 1}").unwrap();
    fs::write(
        place.path("later.json"),
        fs::read_to_string(place.path("m.json")).unwrap().replace("\"version\":1", "\"version\":2"),
    )
    .unwrap();
    place.fails("plan --measurements nowhere.json", &["nowhere.json"]);
    let mut none = place.measurements("m.json");
    let codings = none.inputs.iter_mut().chain(none.cuts.iter_mut().flat_map(|cut| &mut cut.codings));
    for coding in codings {
        coding.bytes.clear();
        coding.answers.clear();
        coding.confidence.clear();
    }
    none.labels.clear();
    none.answers.clear();
    none.confidence.clear();
    fs::write(place.path("none.json"), none.to_json().unwrap()).unwrap();
    place.fails("plan --measurements none.json", &["none.json", "no images"]);
    place.fails("plan --measurements broken.json", &["broken.json", "not a measurement file"]);
    place.fails("plan --measurements later.json", &["later.json", "later version"]);
    place.fails("plan --measurements m.json --measurements other.json", &["other.json", "different images"]);
    let mut exit = place.measurements("m.json");
    exit.output = "exit1".into();
    fs::write(place.path("exit.json"), exit.to_json().unwrap()).unwrap();
    place.fails("plan --measurements m.json --measurements exit.json", &["output logits", "output exit1"]);
    let adaptive = format!("offload --server http://127.0.0.1:1 {} --policy adaptive --measurements m.json", network());
    let codings = &exit.cuts[0].codings;
    let hashes: Vec<&str> = codings.iter().filter_map(|coding| coding.profile.as_deref()).collect();
    place.fails(&adaptive, &[hashes[0], hashes[7], "name their files with --profile"]);
    let other = "benches/profiles/resnet20-layer1.safetensors";
    let other = format!("{}/{other}", env!("CARGO_MANIFEST_DIR"));
    place.fails(&format!("{adaptive} --profile {other}"), &["none of the profiles given", hashes[0]]);
    place.fails("plan --measurements m.json --agreement 97", &["--agreement", "97"]);
    place.fails("plan --measurements m.json --cut nowhere", &["--cut has no effect", "--model"]);
    place.fails("plan --measurements m.json --threads 5", &["--threads has no effect", "--model"]);
    place.fails(&format!("plan {} --cut cut --layers 2", network()), &["--layers", "--fit-rows"]);
    place.fails(&format!("plan {} --profile p.safetensors", network()), &["0 cuts", "1 profiles", "--cut"]);
    place.fails(&eval("--measurements n.json --exit nowhere"), &["nowhere", "exit1, exit2"]);
    place.fails(&eval("--measurements n.json --exit logits"), &["logits", "is the answer"]);
    place.fails(&eval("--exit exit1"), &["--exit", "--measurements"]);
}
