//! Runs every command of docs/tutorial.md as it is written there, in one shell, from an empty folder.

use std::path::Path;
use std::process::Command;

/// The `sh` blocks of a page, in order.
fn commands(page: &str) -> String {
    let mut script = String::from("set -euo pipefail\n");
    for block in page.split("```sh\n").skip(1) {
        script += block.split("```").next().unwrap_or_default();
    }
    script
}

#[test]
fn the_tutorial_runs_as_written() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = std::fs::read_to_string(root.join("docs/tutorial.md")).unwrap();
    let mut script = commands(&page);
    assert!(script.matches("narrows ").count() >= 10);
    // Ports that nobody else has, and the servers gone whatever happens.
    let held = ["8001", "8002", "9001"].map(|port| (port, std::net::TcpListener::bind("127.0.0.1:0").unwrap()));
    for (port, listener) in &held {
        script = script.replace(&format!("127.0.0.1:{port}"), &listener.local_addr().unwrap().to_string());
    }
    drop(held);
    script.insert_str(0, "trap 'kill $(jobs -p) 2>/dev/null || true' EXIT\n");
    script.insert_str(0, "trap 'echo \"status $? of: $BASH_COMMAND\" >&2' ERR\n");
    let folder = tempfile::tempdir().unwrap();
    let binaries = Path::new(env!("CARGO_BIN_EXE_narrows")).parent().unwrap();
    let path = std::env::join_paths(
        [binaries.to_path_buf()].into_iter().chain(std::env::split_paths(&std::env::var_os("PATH").unwrap())),
    );
    let output = Command::new("bash")
        .args(["-c", &script])
        .current_dir(folder.path())
        .env("PATH", path.unwrap())
        .output()
        .expect("the tutorial needs bash");
    // The command that failed comes first: a log may be cut off behind it.
    let [printed, errors] = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes));
    let last = errors.lines().skip(errors.lines().count().saturating_sub(10)).collect::<Vec<_>>().join("\n");
    assert!(output.status.success(), "{last}\n\nbefore it:\n{errors}\n{printed}");
    for file in ["net.profile.safetensors", "plan/plan.html", "policy.json", "fleet/simulation.html"] {
        assert!(folder.path().join("mine").join(file).is_file(), "{file} was not made");
    }
}
