//! Servers as processes: they end without loss, and one that is killed costs a retry.

use std::process::{Command, Stdio};
use std::time::Duration;

use narrows::link::{Client, ClientOptions, Data, Layer};

use crate::support::*;

fn client(servers: &[&Process]) -> Client {
    let servers = servers.iter().map(|server| format!("http://{}", server.address)).collect();
    Client::new(ClientOptions { servers, ..ClientOptions::default() }).unwrap()
}

/// Half of the requests on calls of their own, half on streaming calls.
async fn ask(client: &Client, i: usize) -> u32 {
    let how = Layer { threshold: None, patience: Duration::from_secs(9) };
    let reply = match i % 2 {
        0 => client.infer("demo", "stream", &Data::Bytes(vec![stream(i).into()])).await,
        _ => client.stream("demo", "stream", &[stream(i).into()], how).await,
    };
    let reply = reply.unwrap();
    assert_eq!(reply.logits[0].len(), 10);
    reply.attempts
}

/// Four clients ask until told to stop; how many answers there were, and attempts beyond the first.
async fn load(client: Client, mut stop: tokio::sync::watch::Receiver<bool>) -> (usize, u32) {
    let mut tasks = Vec::new();
    for worker in 0..4 {
        let (client, stop) = (client.clone(), stop.clone());
        tasks.push(tokio::spawn(async move {
            let (mut answers, mut retries) = (0, 0);
            while !*stop.borrow() {
                retries += ask(&client, worker + answers).await - 1;
                answers += 1;
            }
            (answers, retries)
        }));
    }
    let _ = stop.wait_for(|stop| *stop).await;
    let mut all = (0, 0);
    for task in tasks {
        let (answers, retries) = task.await.unwrap();
        all = (all.0 + answers, all.1 + retries);
    }
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_replica_costs_retries_and_no_answer() {
    let (mut first, second) = (Process::start(&[]), Process::start(&[]));
    let client = client(&[&first, &second]);
    client.ready("demo").await.unwrap();
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let running = tokio::spawn(load(client, stopped));
    tokio::time::sleep(Duration::from_millis(500)).await;
    first.child.kill().unwrap();
    tokio::time::sleep(Duration::from_millis(500)).await;
    stop.send(true).unwrap();
    let (answers, retries) = running.await.unwrap();
    assert!(answers > 8 && retries >= 1, "{answers} answers, {retries} retries");
    let (_, metrics) = second.http("/metrics").await;
    assert!(value(&metrics, "narrows_items_total{model=\"demo\"}") > 0.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_told_to_end_finishes_what_it_has() {
    let (mut first, second) = (Process::start(&["--drain", "200ms"]), Process::start(&[]));
    let client = client(&[&first, &second]);
    client.ready("demo").await.unwrap();
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let running = tokio::spawn(load(client, stopped));
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(first.http("/readyz").await.0, "HTTP/1.1 200 OK");
    first.signal("TERM");
    // While it drains, it says that it is not ready, and still answers.
    let mut status = String::new();
    for _ in 0..15 {
        status = first.http("/readyz").await.0;
        if !status.ends_with("OK") {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(status, "HTTP/1.1 503 Service Unavailable");
    let ended = tokio::task::spawn_blocking(move || first.child.wait().unwrap()).await.unwrap();
    assert_eq!(ended.code(), Some(0));
    tokio::time::sleep(Duration::from_millis(200)).await;
    stop.send(true).unwrap();
    let (answers, _) = running.await.unwrap();
    assert!(answers > 8, "{answers}");
}

#[tokio::test]
async fn a_server_that_is_told_twice_ends_at_once() {
    let mut server = Process::start(&["--drain", "10m"]);
    server.signal("INT");
    for _ in 0..2000 {
        if server.http("/readyz").await.0.ends_with("Unavailable") {
            break;
        }
    }
    server.signal("INT");
    assert_eq!(server.child.wait().unwrap().code(), Some(130));
}

#[tokio::test]
async fn metrics_and_health_are_served_over_http() {
    let server = Process::start(&[]);
    ask(&client(&[&server]), 0).await;
    let (status, body) = server.http("/livez").await;
    assert_eq!((status.as_str(), body.as_str()), ("HTTP/1.1 200 OK", "live\n"));
    assert_eq!(server.http("/nothing").await.0, "HTTP/1.1 404 Not Found");
    let (status, text) = server.http("/metrics").await;
    assert_eq!(status, "HTTP/1.1 200 OK");
    for (name, least) in [
        ("narrows_calls_total{code=\"OK\",method=\"ModelInfer\"}", 1.0),
        ("narrows_items_total{model=\"demo\"}", 1.0),
        ("narrows_stage_seconds_count{model=\"demo\",stage=\"queue\"}", 1.0),
        ("narrows_stage_seconds_count{model=\"demo\",stage=\"decode\"}", 1.0),
        ("narrows_stage_seconds_count{model=\"demo\",stage=\"tail\"}", 1.0),
        ("narrows_payload_bytes_count{input=\"stream\",model=\"demo\"}", 1.0),
        ("narrows_network_bytes_total{direction=\"in\"}", 100.0),
        ("narrows_network_bytes_total{direction=\"out\"}", 50.0),
        ("narrows_ready", 1.0),
    ] {
        assert!(value(&text, name) >= least, "{name} in:\n{text}");
    }
}

/// Runs `narrows offload` against servers; its standard output.
fn offload(servers: &[&str], more: &[&str]) -> serde_json::Value {
    let servers = servers.iter().flat_map(|server| ["--server", server]);
    let output = Command::new(env!("CARGO_BIN_EXE_narrows"))
        .arg("offload")
        .args(servers)
        .args(["--model", "network.onnx", "--model-output", "logits", "--cut", "stage3.0.out", "--name", "demo"])
        .args(["--images", "test_images.png", "--labels", "test_labels.txt", "--rows", "1-40"])
        .args(["--normalize", "cifar10", "--json", "--log", "error"])
        .args(more)
        .current_dir(DEMO)
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{more:?}: {error}");
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn a_device_classifies_images_in_every_way() {
    let server = Process::start(&[]);
    let url = format!("http://{}", server.address);
    let run = |more: &[&str]| offload(&[&url], more);
    let number = |value: &serde_json::Value, name: &str| value[name].as_f64().unwrap();
    let local = run(&["--policy", "local"]);
    assert_eq!((number(&local, "local"), number(&local, "wire_bytes")), (1.0, 0.0));
    let accuracy = number(&local, "accuracy");
    assert!(accuracy > 0.8, "{accuracy}");
    let png = run(&["--policy", "png"]);
    assert_eq!((number(&png, "accuracy"), number(&png, "local")), (accuracy, 0.0));
    let split = run(&["--policy", "fixed", "--profile", "profile.safetensors"]);
    assert!((number(&split, "accuracy") - accuracy).abs() < 0.1);
    assert!(number(&split, "payload_bytes") < 0.2 * number(&png, "payload_bytes"));
    assert!(number(&split, "wire_bytes") < number(&split, "payload_bytes") + 80.0);
    let layered =
        run(&["--policy", "fixed", "--profile", "profile.safetensors", "--layers", "3", "--threshold", "0.5"]);
    assert!(number(&layered, "payload_bytes") < number(&split, "payload_bytes"));
    for policy in ["jpeg:75", "webp:70"] {
        assert!(number(&run(&["--policy", policy]), "accuracy") > 0.6, "{policy}");
    }
}

/// Features of two cuts may have one shape, and a tail takes either: what the device is cut at is part of what it asks for.
#[test]
fn a_server_of_another_cut_refuses_before_the_first_image() {
    let server = Process::start(&[]);
    let run = |name: &str, cut: &str| {
        let output = Command::new(env!("CARGO_BIN_EXE_narrows"))
            .args(["offload", "--server", &format!("http://{}", server.address), "--model", "network.onnx"])
            .args(["--model-output", "logits", "--cut", cut, "--name", name, "--profile", "profile.safetensors"])
            .args(["--images", "test_images.png", "--labels", "test_labels.txt", "--rows", "1-4"])
            .args(["--normalize", "cifar10", "--json", "--log", "error"])
            .current_dir(DEMO)
            .output()
            .unwrap();
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (done, error) = run("demo", "stage3.1.out");
    assert!(!done && error.contains("NotFound") && error.contains("narrows serve --cut stage3.1.out"), "{error}");
    assert_eq!(run("demo@stage3.0.out", "stage3.0.out"), (true, String::new()));
}

/// Measures the demo network on images that are not classified afterwards.
fn measured(folder: &std::path::Path) -> String {
    let file = folder.join("measured.json").to_str().unwrap().to_string();
    let output = Command::new(env!("CARGO_BIN_EXE_narrows"))
        .args(["eval", "--model", "network.onnx", "--model-output", "logits", "--cut", "stage3.0.out"])
        .args(["--profile", "profile.safetensors", "--images", "test_images.png", "--labels", "test_labels.txt"])
        .args(["--rows", "41-100", "--normalize", "cifar10", "--qualities", "1,2", "--baselines", "jpeg"])
        .args(["--measurements", &file])
        .current_dir(DEMO)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    file
}

#[test]
fn an_adaptive_device_answers_with_a_server_and_without() {
    let folder = tempfile::tempdir().unwrap();
    let file = measured(folder.path());
    let adaptive = ["--policy", "adaptive", "--profile", "profile.safetensors", "--measurements", &file];
    let number = |value: &serde_json::Value, name: &str| value[name].as_f64().unwrap();
    // A device so slow that what is sent is answered sooner.
    let slow = [&adaptive[..], &["--device-speed", "0.01", "--deadline", "10s", "--loss", "5", "--whole"]].concat();
    let slow = [&slow[..], &["--goal", "delay"]].concat();
    let server = Process::start(&[]);
    let with = offload(&[&format!("http://{}", server.address)], &slow);
    assert!(number(&with, "local") < 0.5 && number(&with, "accuracy") > 0.8, "{with}");
    // The server is gone for good: every answer is the device's own.
    let gone = format!("http://{}", server.address);
    drop(server);
    let without = offload(&[&gone], &[&adaptive[..], &["--deadline", "300ms", "--device-speed", "0.1"]].concat());
    assert_eq!((number(&without, "lost"), number(&without, "accuracy") > 0.8), (0.0, true), "{without}");
}

#[test]
fn a_device_that_is_behind_may_skip_what_is_late() {
    // Nobody is asked. A run of the network takes longer than the images are apart.
    let slow = ["--policy", "local", "--device-speed", "0.02", "--interval", "10ms", "--deadline", "200ms"];
    let summary = offload(&["http://127.0.0.1:1"], &[&slow[..], &["--skip-late"]].concat());
    let number = |name: &str| summary[name].as_f64().unwrap();
    let (images, skipped) = (number("images"), number("skipped"));
    assert!(skipped > 0.0 && skipped < images, "{summary}");
    // Each began before its deadline, and took as long as one image does.
    assert!(number("delay_p99_seconds") < 0.200 + 4.0 * number("device_busy_seconds") * images / (images - skipped));
    assert_eq!(number("lost"), 0.0, "{summary}");
    assert!(number("accuracy") <= 1.0 - skipped / images + 1e-9, "{summary}");
    let all = offload(&["http://127.0.0.1:1"], &slow);
    assert_eq!(all["skipped"], 0);
}

#[test]
fn what_an_interrupted_device_has_measured_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    // Sooner than it listens to signals, it just ends.
    for seconds in [1, 2, 4, 8] {
        let out = folder.path().join(seconds.to_string());
        let device = Command::new(env!("CARGO_BIN_EXE_narrows"))
            .args(["offload", "--server", "http://127.0.0.1:1", "--model", "network.onnx", "--model-output", "logits"])
            .args(["--policy", "local", "--images", "test_images.png", "--labels", "test_labels.txt"])
            .args(["--normalize", "cifar10", "--interval", "100ms", "--out"])
            .arg(&out)
            .current_dir(DEMO)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_secs(seconds));
        let pid = device.id().to_string();
        assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
        let output = device.wait_with_output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        if error.contains("interrupted after") {
            assert_eq!(output.status.code(), Some(1), "{error}");
            let lines = std::fs::read_to_string(out.join("requests.csv")).unwrap().lines().count() - 1;
            assert!(lines > 0 && lines < 1000 && error.contains(&format!("after {lines} of 1000 images")), "{error}");
            return;
        }
    }
    panic!("no device kept anything");
}

#[test]
fn a_device_behind_a_shaped_link_waits_as_long_as_that_takes() {
    let server = Process::start(&[]);
    let mut shape = Command::new(env!("CARGO_BIN_EXE_narrows"))
        .args(["shape", "--to", &server.address, "--rate", "1Mbit", "--delay", "20ms"])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(shape.stdout.take().unwrap()), &mut line).unwrap();
    let url = format!("http://{}", line.trim().strip_prefix("listening ").unwrap());
    let summary = offload(&[&url], &["--policy", "fixed", "--profile", "profile.safetensors"]);
    shape.kill().unwrap();
    shape.wait().unwrap();
    // A delay each way, and some 1,500 bits.
    assert!(summary["delay_p50_seconds"].as_f64().unwrap() > 0.041, "{summary}");
}

#[test]
fn wrong_arguments_are_named() {
    for (more, words) in [
        (&["--cut", "nothing"][..], "no value named nothing"),
        (&["--cut", "cut1", "--profile", "profile.safetensors"], "no cut given has such"),
        (&["--listen", "999.0.0.1:1", "--cut", "cut1"], "invalid socket address"),
        (&[], "nothing to serve"),
        (&["--cut", "cut1", "--tls-cert", "none.pem", "--tls-key", "none.pem"], "cannot read none.pem"),
        (
            &["--cut", "cut1", "--tls-cert", "README.md", "--tls-key", "README.md", "--listen", "127.0.0.1:0"],
            "certificate and key cannot be used",
        ),
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_narrows"))
            .args(["serve", "--model", "network.onnx", "--model-output", "logits"])
            .args(more)
            .current_dir(DEMO)
            .output()
            .unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && error.contains(words), "{more:?}: {error}");
        assert!(output.stdout.is_empty(), "{more:?}: said that it listens");
    }
}
