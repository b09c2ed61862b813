//! Runs the binary as a user would, on small data made here: files of every type come back through every mode, pipes
//! and JSON work, and every kind of bad input gives one clear line on standard error, a failing exit status and no
//! output file.

use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use half::{bf16, f16};
use ndarray::{Array2, Array4, ArrayD, Axis, Dimension, IxDyn};
use ndarray_npy::{NpzWriter, ReadNpyExt, WriteNpyExt};
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use serde_json::Value;
use tempfile::TempDir;

const DEMO: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/demo");

/// A folder for one test; its methods run the binary in it.
struct Place(TempDir);

impl Place {
    fn new() -> Place {
        Place(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, bytes).unwrap();
        path
    }

    fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.path(name)).unwrap()
    }

    fn command(&self, args: &[impl AsRef<OsStr>]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_narrows"));
        command.args(args).current_dir(self.0.path());
        command
    }

    fn run(&self, line: &str) -> Output {
        self.command(&line.split_whitespace().collect::<Vec<_>>()).output().unwrap()
    }

    /// Runs a command that must succeed; its standard output.
    fn ok(&self, line: &str) -> Vec<u8> {
        let output = self.run(line);
        assert!(output.status.success(), "{line}: {}", text(&output.stderr));
        output.stdout
    }

    fn json(&self, line: &str) -> Value {
        serde_json::from_slice(&self.ok(line)).unwrap()
    }

    /// Runs a command that must fail with status 1, one line that holds all `words`, and nothing new in the folder.
    fn fails(&self, line: &str, words: &[&str]) {
        let before = self.listing();
        let output = self.run(line);
        let error = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{line}: {error}");
        assert!(error.starts_with("error: "), "{line}: {error}");
        assert_eq!(error.lines().count(), 1, "{line}: {error}");
        for word in words {
            assert!(error.contains(word), "{line}: {error:?} does not say {word:?}");
        }
        assert!(output.stdout.is_empty(), "{line}");
        assert_eq!(self.listing(), before, "{line}");
    }

    fn listing(&self) -> Vec<PathBuf> {
        let mut names: Vec<_> = fs::read_dir(self.0.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
        names.sort();
        names
    }

    /// `count` tiles of the demo's images, with a label file.
    fn images(&self, count: usize) {
        let sheet = image::open(Path::new(DEMO).join("test_images.png")).unwrap().into_rgb8();
        let labels = fs::read_to_string(Path::new(DEMO).join("test_labels.txt")).unwrap();
        fs::create_dir(self.path("images")).unwrap();
        let mut csv = String::from("file,author,label\n");
        for (i, label) in labels.lines().take(count).enumerate() {
            let (x, y) = (i as u32 % 40 * 32, i as u32 / 40 * 32);
            let tile = image::imageops::crop_imm(&sheet, x, y, 32, 32).to_image();
            tile.save(self.path(&format!("images/{i}.png"))).unwrap();
            csv += &format!("{i}.png,\"Doe, Jane\",{label}\n");
        }
        self.write("labels.csv", csv);
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A smooth feature with some noise; each seed gives another.
fn feature(shape: &[usize], seed: usize) -> ArrayD<f32> {
    let mut state = seed as u32 + 1;
    ArrayD::from_shape_fn(IxDyn(shape), |at| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let noise = (state >> 16) as f32 / 65536.0 - 0.5;
        let wave: usize = at.slice().iter().enumerate().map(|(axis, i)| (axis + 1) * i).sum();
        ((wave + seed) as f32 / 5.0).sin() * 2.0 + noise
    })
}

fn npy(array: &ArrayD<f32>) -> Vec<u8> {
    let mut bytes = Vec::new();
    array.write_npy(&mut bytes).unwrap();
    bytes
}

fn parse(bytes: &[u8]) -> ArrayD<f32> {
    ArrayD::read_npy(bytes).unwrap()
}

fn safetensors(dtype: Dtype, shape: &[usize], bytes: &[u8]) -> Vec<u8> {
    let view = TensorView::new(dtype, shape.to_vec(), bytes).unwrap();
    safetensors::serialize([("map", view)], &None).unwrap()
}

/// Fits a small profile in a place, as `name`.
fn fit(place: &Place, name: &str, seed: usize) {
    let samples: Vec<_> = (0..12).map(|i| feature(&[1, 6, 8, 8], seed + 31 * i)).collect();
    let views: Vec<_> = samples.iter().map(|sample| sample.view()).collect();
    place.write("samples.npy", npy(&ndarray::concatenate(Axis(0), &views).unwrap()));
    place.ok(&format!("fit samples.npy --batch --blocks 1,4 -o {name}"));
}

#[test]
fn every_mode_brings_an_npy_file_back() {
    let place = Place::new();
    let original = feature(&[1, 6, 8, 8], 3);
    place.write("f.npy", npy(&original));
    for (mode, bound) in [
        ("--lossless", 0.0),
        ("--packed 8 --clip minmax", 0.02),
        ("--packed 4", 1.0),
        ("", 1.0),
        ("--scale 0.1 --no-rdo", 0.1),
        ("--sqnr 30 --chunks 2 --lanes 2", 0.5),
        ("--bytes 300", 2.0),
        ("--channel-axis 3 --batch-axis none", 1.0),
    ] {
        place.ok(&format!("encode f.npy -o f.nrw {mode}"));
        place.ok("decode f.nrw -o g.npy");
        let decoded = parse(&place.read("g.npy"));
        assert_eq!(decoded.shape(), original.shape());
        let worst = (&decoded - &original).iter().fold(0.0f32, |worst, x| worst.max(x.abs()));
        assert!(worst <= bound, "{mode}: {worst}");
        if mode.contains("--bytes") {
            assert!(place.read("f.nrw").len() <= 300);
        }
    }
}

#[test]
fn every_element_type_comes_back_from_its_files() {
    let place = Place::new();
    let values = feature(&[4, 5, 6], 1);
    let shape = values.shape().to_vec();
    let f32_bytes: Vec<u8> = values.iter().flat_map(|x| x.to_le_bytes()).collect();
    let f16_bytes: Vec<u8> = values.iter().flat_map(|&x| f16::from_f32(x).to_le_bytes()).collect();
    let bf16_bytes: Vec<u8> = values.iter().flat_map(|&x| bf16::from_f32(x).to_le_bytes()).collect();
    let bytes: Vec<u8> = values.iter().map(|&x| (x * 20.0) as i8 as u8).collect();
    for (dtype, data, numpy) in [
        (Dtype::F32, &f32_bytes, true),
        (Dtype::F16, &f16_bytes, true),
        (Dtype::BF16, &bf16_bytes, false),
        (Dtype::I8, &bytes, true),
        (Dtype::U8, &bytes, true),
    ] {
        place.write("f.safetensors", safetensors(dtype, &shape, data));
        place.ok("encode f.safetensors -o f.nrw --lossless");
        place.ok("decode f.nrw -o g.safetensors --array map");
        let bytes = place.read("g.safetensors");
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let tensor = file.tensor("map").unwrap();
        assert_eq!((tensor.dtype(), tensor.shape(), tensor.data()), (dtype, &shape[..], &data[..]));
        if !numpy {
            place.fails("decode f.nrw -o g.npy", &["bf16", ".safetensors"]);
            continue;
        }
        // Through .npy and .npz and back to the same bytes.
        place.ok("decode f.nrw -o g.npy");
        place.ok("encode g.npy -o g.nrw --lossless");
        place.ok("decode g.nrw -o g.npz --array one");
        place.ok("encode g.npz --array one -o h.nrw --lossless");
        assert_eq!(place.read("h.nrw"), place.read("f.nrw"));
        fs::remove_file(place.path("g.npy")).unwrap();
    }
}

#[test]
fn one_of_several_arrays_is_chosen_by_name() {
    let place = Place::new();
    let mut archive = NpzWriter::new_compressed(fs::File::create(place.path("two.npz")).unwrap());
    archive.add_array("a", &Array2::<f32>::zeros((3, 4))).unwrap();
    archive.add_array("b", &Array4::<u8>::ones((1, 2, 3, 4))).unwrap();
    archive.finish().unwrap();
    place.fails("encode two.npz -o f.nrw", &["--array", "a, b"]);
    place.fails("encode two.npz --array c -o f.nrw", &["no array c", "a, b"]);
    let done = place.json("encode two.npz --array b -o f.nrw --lossless --json");
    assert_eq!(done["shape"], serde_json::json!([1, 2, 3, 4]));
    assert_eq!(place.json("inspect two.npz --json")["arrays"].as_array().map(Vec::len), Some(2));
}

#[test]
fn arrays_in_fortran_order_are_read_as_what_they_are() {
    let place = Place::new();
    let original = feature(&[3, 4, 5], 2);
    let mut reversed = Vec::new();
    original.t().write_npy(&mut reversed).unwrap(); // the transpose of a C array is written as Fortran
    place.write("f.npy", reversed);
    place.ok("encode f.npy -o f.nrw --lossless");
    place.ok("decode f.nrw -o g.npy");
    assert_eq!(parse(&place.read("g.npy")), original.t());
}

#[test]
fn pipes_carry_features_and_streams() {
    let place = Place::new();
    let original = feature(&[2, 3, 4], 5);
    let through = |args: &str, input: &[u8]| {
        let mut child = place
            .command(&args.split(' ').collect::<Vec<_>>())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{args}");
        output.stdout
    };
    let stream = through("encode - -o - --lossless", &npy(&original));
    assert_eq!(parse(&through("decode - -o -", &stream)), original);
    assert!(text(&through("inspect -", &stream)).contains("lossless"));
    let tensors = through("decode - -o - --format safetensors", &stream);
    assert_eq!(SafeTensors::deserialize(&tensors).unwrap().names(), ["feature"]);
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let place = Place::new();
    let mut child =
        place.command(&["completions", "bash"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), String::new()));
}

#[test]
fn a_profile_is_fitted_named_and_wanted_back() {
    let place = Place::new();
    fit(&place, "a.safetensors", 0);
    fit(&place, "b.safetensors", 1000);
    place.ok("fit samples.npy --batch --blocks 1,4 -o again.safetensors");
    assert_eq!(place.read("again.safetensors"), place.read("b.safetensors"));
    place.write("f.npy", npy(&feature(&[1, 6, 8, 8], 7)));
    let done = place.json("encode f.npy -p a.safetensors -o f.nrw --json");
    assert_eq!(done["bytes"].as_u64(), Some(place.read("f.nrw").len() as u64));
    place.ok("decode f.nrw -p b.safetensors -p a.safetensors -o g.npy");
    assert_eq!(parse(&place.read("g.npy")).shape(), [1, 6, 8, 8]);

    let hash = place.json("inspect a.safetensors --json")["hash"].as_str().unwrap().to_string();
    let info = place.json("inspect f.nrw -p a.safetensors --json");
    assert_eq!((info["profile"].as_str(), &info["layout"]["dtype"]), (Some(&*hash), &Value::from("f32")));
    assert_eq!(info["header_bytes"], 12);
    assert!(text(&place.ok("inspect a.safetensors")).contains("how it was fitted"));

    fs::remove_file(place.path("g.npy")).unwrap();
    place.fails("decode f.nrw -p b.safetensors -o g.npy", &[&hash]);
    place.fails("decode f.nrw -o g.npy", &[&hash, "--profile"]);
    place.fails("inspect f.nrw -p b.safetensors", &[&hash]);
    place.write("wrong.npy", npy(&feature(&[1, 5, 8, 8], 7)));
    place.fails("encode wrong.npy -p a.safetensors -o h.nrw", &["5 channels", "6"]);
    place.fails("encode f.npy -p a.safetensors --bytes 3 -o h.nrw", &["budget", "limit is 3"]);
    let mut bytes = place.read("a.safetensors");
    *bytes.last_mut().unwrap() ^= 1;
    place.write("changed.safetensors", bytes);
    place.fails("encode f.npy -p changed.safetensors -o h.nrw", &["changed"]);
    place.fails("encode f.npy -p f.npy -o h.nrw", &["not a narrows profile"]);
}

#[test]
fn gradients_are_read_row_by_row() {
    let place = Place::new();
    fit(&place, "plain.safetensors", 0);
    let gradients = feature(&[24, 6, 8, 8], 9);
    place.write("g.npy", npy(&gradients));
    place.ok("fit samples.npy --batch --blocks 1 --gradients g.npy -o g.safetensors");
    let notes = place.json("inspect g.safetensors --json")["notes"].as_str().unwrap().to_string();
    assert!(notes.contains("gradient"), "{notes}");
    place.write("g.npy", npy(&feature(&[25, 6, 8, 8], 9)));
    place.fails("fit samples.npy --batch --gradients g.npy -o h.safetensors", &["25 gradients", "12"]);
    place.write("g.npy", npy(&feature(&[24, 5, 8, 8], 9)));
    place.fails("fit samples.npy --batch --gradients g.npy -o h.safetensors", &["320", "384"]);
    place.write("g.npy", &npy(&gradients)[..5000]);
    place.fails("fit samples.npy --batch --gradients g.npy -o h.safetensors", &["5000 bytes"]);
}

#[test]
fn bad_files_get_one_line_and_leave_nothing_behind() {
    let place = Place::new();
    let good = npy(&feature(&[2, 3, 4], 5));
    place.write("good.npy", &good);
    place.ok("encode good.npy -o good.nrw --lossless");
    let stream = place.read("good.nrw");

    place.write("empty.npy", b"");
    place.write("cut.npy", &good[..good.len() - 5]);
    place.write("long.npy", [&good[..], b"more"].concat());
    place.write("header.npy", &good[..20]);
    place.write("foreign.npy", b"this is a text, not an array\n");
    place.write("zip.npz", b"PK\x03\x04 but not really");
    place.write("huge.safetensors", [&u64::MAX.to_le_bytes()[..], b"{}"].concat());
    let mut doubles = Vec::new();
    Array2::<f64>::zeros((2, 2)).write_npy(&mut doubles).unwrap();
    place.write("f64.npy", doubles);
    place.write("nan.npy", npy(&ArrayD::from_elem(IxDyn(&[2, 3, 4]), f32::NAN)));
    fs::create_dir(place.path("folder")).unwrap();
    for (name, words) in [
        ("missing.npy", &["missing.npy"][..]),
        ("empty.npy", &["empty.npy", "is empty"]),
        ("cut.npy", &["cut.npy", "cut off"]),
        ("long.npy", &["long.npy", "4 unexpected bytes"]),
        ("header.npy", &["header.npy", "cut off"]),
        ("foreign.npy", &["foreign.npy", "neither"]),
        ("zip.npz", &["zip.npz", "damaged"]),
        ("huge.safetensors", &["huge.safetensors", "damaged"]),
        ("f64.npy", &["<f8", "astype"]),
        ("nan.npy", &["NaN"]),
        ("folder", &["directory"]),
    ] {
        place.fails(&format!("encode {name} -o out.nrw"), words);
    }
    place.fails("encode good.npy -o no/such/folder/out.nrw", &["no folder no/such/folder"]);
    place.fails("encode good.npy -o ./good.npy --lossless", &["good.npy is an input"]);
    place.fails("decode good.nrw -o good.nrw --format npy", &["good.nrw is an input"]);
    place.fails("fit good.npy --batch -o good.npy", &["good.npy is an input"]);
    place.fails("decode good.npy -o out.npy", &["good.npy is a feature, not a stream"]);
    place.fails("encode good.npy -o out.nrw --lanes 3", &["lanes"]);
    place.fails("encode good.npy -o out.nrw --scale=-1", &["positive"]);
    place.fails("encode good.npy -o out.nrw --channel-axis 7", &["channels 7", "axes, 0 to 2"]);
    place.fails("encode good.npy -o out.nrw --bytes 2", &["budget"]);
    place.fails("encode good.npy -o - --json", &["--json"]);

    place.write("empty.nrw", b"");
    place.write("cut.nrw", &stream[..stream.len() - 3]);
    place.write("foreign.nrw", b"GIF89a");
    place.fails("decode empty.nrw -o out.npy", &["is empty"]);
    place.fails("decode cut.nrw -o out.npy", &["cut.nrw"]);
    place.fails("decode foreign.nrw -o out.npy", &["not a narrows stream"]);
    place.fails("decode good.nrw -o out.gif", &[".npy", "--format"]);
    place.fails("inspect foreign.nrw", &["neither"]);
    for end in 1..stream.len() {
        place.write("short.nrw", &stream[..end]);
        if end % 7 == 0 {
            place.fails("decode short.nrw -o out.npy", &["short.nrw"]);
        }
    }
    // What was there before a failure stays.
    place.write("old.npy", b"old");
    place.fails("decode cut.nrw -o old.npy", &[]);
    assert_eq!(place.read("old.npy"), b"old");
}

#[test]
fn fits_without_enough_to_fit_on_are_refused() {
    let place = Place::new();
    place.fails("fit -o p.safetensors", &["--model"]);
    place.write("f.npy", npy(&feature(&[3, 4, 5], 5)));
    place.fails("fit f.npy f.npy f.npy -o p.safetensors", &["8"]);
    place.write("nan.npy", npy(&ArrayD::from_elem(IxDyn(&[10, 3, 4, 4]), f32::NAN)));
    place.fails("fit nan.npy --batch -o p.safetensors", &["fitting"]);
    place.write("other.npy", npy(&feature(&[3, 4, 6], 5)));
    let names = "f.npy f.npy f.npy f.npy f.npy f.npy f.npy other.npy";
    place.fails(&format!("fit {names} -o p.safetensors"), &["[3, 4, 6]"]);
}

#[test]
fn a_network_is_inspected_fitted_and_measured() {
    let place = Place::new();
    place.images(24);
    let model = format!("{DEMO}/network.onnx");
    let inspected = place.json(&format!("inspect {model} --json"));
    let cuts = inspected["cuts"].as_array().unwrap();
    let cut = cuts.iter().find(|cut| cut["name"] == "cut").unwrap();
    assert_eq!((&cut["shape"], &cut["elements"]), (&serde_json::json!([1, 64, 16, 16]), &Value::from(16384)));

    let common = format!("--model {model} --images images --labels labels.csv --normalize cifar10");
    place.ok(&format!("fit {common} --cut cut --rows 1-12 --weights none --blocks 1 -o p.safetensors"));
    let measure = format!("eval {common} --rows 13-24 --cut cut --profile p.safetensors");
    let report = place.json(&format!("{measure} --qualities 0.5,2 --out report --json"));
    assert_eq!(report["images"], 12);
    let points = report["points"].as_array().unwrap();
    let find = |codec: &str, setting: &str| {
        points.iter().find(|point| point["codec"] == codec && point["setting"] == setting).unwrap()
    };
    assert_eq!(find("PNG", "")["agreement"], 1.0);
    assert_eq!(find("raw RGB", "")["bytes"]["mean"], 3072.0);
    assert_eq!(find("raw f16", "")["bytes"]["mean"], 32768.0);
    assert!(find("raw f16", "")["kl_nats"].as_f64().unwrap() < 1e-3);
    let bytes = |setting| find("narrows", setting)["bytes"]["mean"].as_f64().unwrap();
    assert!(bytes("x0.5") > bytes("x2"));
    assert!(find("JPEG", "q95")["agreement"].as_f64().unwrap() > 0.5);
    assert_eq!(report["bd_rate"].as_array().map(Vec::len), Some(4));
    let csv = text(&place.read("report/narrows.csv"));
    assert_eq!(csv.lines().count(), 1 + points.len());
    let html = text(&place.read("report/narrows.html"));
    assert!(html.contains("<svg") && html.contains("data:image/png;base64,"));
    assert_eq!(serde_json::from_slice::<Value>(&place.read("report/narrows.json")).unwrap(), report);

    // The same again, fitted on the way, two cuts, as a table.
    let line = format!(
        "eval {common} --fit-rows 1-12 --rows 13-24 --cut cut --cut tail.mean --weights none --blocks 1 \
         --qualities 1 --baselines png --threads 1"
    );
    let table = text(&place.ok(&line));
    for word in ["sent: the input", "sent: the feature at cut", "tail.mean", "top-1", "PNG"] {
        assert!(table.contains(word), "{table}");
    }

    let same = place.run(&line.replace("--rows 13-24", "--rows 12-24"));
    assert!(text(&same.stderr).contains("warning: some rows"));

    let wrong = place.run(&format!("eval {common} --cut kut"));
    let error = text(&wrong.stderr);
    assert_eq!(wrong.status.code(), Some(1));
    assert!(error.starts_with("error: the model has no value named kut"), "{error}");
    let second = error.lines().nth(1).unwrap();
    assert!(second.trim().starts_with("cut ") && second.contains("64x16x16"), "{error}");
    let inside = text(&place.run(&format!("eval {common} --cut stage2.0.relu")).stderr);
    assert!(inside.starts_with("error: ") && inside.contains("it can be cut at"), "{inside}");
    place.fails(&format!("eval {common} --cut tail.mean --profile p.safetensors"), &["fitted on features"]);
    place.fails(&format!("eval {common} --cut cut --cut cut1 --profile p.safetensors"), &["2 cuts", "1 profiles"]);
    place.fails(&format!("eval {common} --cut cut --rows 13-25"), &["13-25", "24"]);
    place.fails(&format!("eval {common} --cut cut --qualities 0"), &["--qualities"]);
    place.fails(&format!("eval {common} --cut cut --model-output nothing"), &["nothing", "logits"]);
}

#[test]
fn bad_images_labels_and_models_get_one_line() {
    let place = Place::new();
    place.images(2);
    let model = format!("{DEMO}/network.onnx");
    let run = |model: &str, images: &str, labels: &str, more: &str| {
        format!("eval --model {model} --cut cut --images {images} --labels {labels} {more}")
    };
    fs::create_dir(place.path("none")).unwrap();
    place.write("none/notes.txt", b"no image");
    place.write("missing.csv", b"file,label\n0.png,3\nnot-there.png,2\n");
    place.write("words.csv", b"file,label\n0.png,three\n");
    place.write("strange.csv", b"name;class\n");
    fs::create_dir(place.path("broken")).unwrap();
    place.write("broken/0.png", b"\x89PNG but not really");
    place.write("one.csv", b"0.png,3\n");
    let normalize = "--normalize cifar10";
    place.fails(&run(&model, "none", "labels.csv", normalize), &["no images", "none"]);
    place.fails(&run(&model, "nowhere", "labels.csv", normalize), &["nowhere"]);
    place.fails(&run(&model, "images", "nowhere.csv", normalize), &["nowhere.csv"]);
    place.fails(&run(&model, "images", "missing.csv", normalize), &["not-there.png"]);
    place.fails(&run(&model, "images", "words.csv", normalize), &["line 2", "class index"]);
    place.fails(&run(&model, "images", "strange.csv", normalize), &["header"]);
    place.fails(&run(&model, "broken", "one.csv", normalize), &["broken/0.png"]);
    place.fails(&run(&model, "images", "labels.csv", ""), &["--normalize"]);
    place.write("header.csv", b"file,label\n");
    place.write("one-based.csv", b"\xef\xbb\xbffile, class \n0.png, 10\n1.png,1\n");
    place.fails(&run(&model, "images", "header.csv", normalize), &["header.csv", "no lines after the header"]);
    let loss = run(&model, "images", "header.csv", normalize).replace("eval", "loss");
    place.fails(&format!("{loss} --profile p.safetensors"), &["header.csv", "no lines after the header"]);
    let words = ["one-based.csv", "class 10", "10 classes", "begin at 1?"];
    place.fails(&run(&model, "images", "one-based.csv", normalize), &words);
    place.fails(
        &run(&model, "images/0.png", "labels.csv", normalize),
        &["labels.csv", "line 1", "one class index a line"],
    );
    place.write("empty.txt", b"\n");
    place.fails(&run(&model, "images/0.png", "empty.txt", normalize), &["empty.txt", "is empty"]);
    place.write("two.txt", b"1\n2\n");
    place.fails(&run(&model, "images/0.png", "two.txt", normalize), &["1 tiles", "2 labels"]);
    place.fails(&format!("eval --model {model} --cut cut --images images {normalize}"), &["--labels"]);
    place.fails(&format!("eval --model {model} --cut cut --labels labels.csv {normalize}"), &["--images"]);
    place.fails(&run("labels.csv", "images", "labels.csv", normalize), &["labels.csv", "ONNX"]);
    place.fails(&run("nowhere.onnx", "images", "labels.csv", normalize), &["nowhere.onnx"]);
}

/// A label file that a spreadsheet has written, of classes that are all in one half of the network's.
#[test]
fn labels_from_a_spreadsheet_are_read() {
    let place = Place::new();
    place.images(8);
    let labels = text(&place.read("labels.csv")).replace("label", " target");
    place.write("sheet.csv", format!("\u{feff}{}", labels.replace('\n', " \r\n")));
    let run = |labels: &str| {
        let network = format!("--model {DEMO}/network.onnx --model-output logits --cut cut --images images");
        place
            .json(&format!("eval {network} --labels {labels} --normalize cifar10 --baselines png --qualities 1 --json"))
    };
    assert_eq!(run("sheet.csv")["top1_uncut"], run("labels.csv")["top1_uncut"]);
}

/// Output that cannot be written is refused before the work, in words of the user's.
#[test]
fn outputs_are_checked_before_the_work() {
    let place = Place::new();
    fs::create_dir(place.path("folder")).unwrap();
    place.write("file", b"");
    // The other arguments are wrong too, so that the order shows.
    for (line, words) in [
        ("fit nothing.npy -o folder", &["folder", "it is a folder"][..]),
        ("fit nothing.npy -o none/p.safetensors", &["none/p.safetensors", "there is no folder none"]),
        ("exit --fit-measurements f --measurements t --out none/p.json", &["there is no folder none"]),
        ("plan --measurements m --out file", &["file is a file"]),
        ("plan --measurements m --out file/below", &["file is a file"]),
        ("simulate --measurements m --out file", &["file is a file"]),
        ("eval --model m --cut c --labels l --out file", &["file is a file"]),
        ("eval --model m --cut c --labels l --measurements none/m.json", &["there is no folder none"]),
        ("offload --server http://s:1 --model m --policy local --out file", &["file is a file"]),
        ("demo --out folder", &["it is a folder"]),
        ("demo --export file", &["file is a file"]),
    ] {
        place.fails(line, words);
    }
    let unwritten =
        text(&place.run("encode file -o none/f.nrw").stderr) + &text(&place.run("demo --out none/d.html").stderr);
    assert!(!unwritten.contains("narrows-") && !unwritten.contains("tmp"), "{unwritten}");
    assert_eq!(place.listing().len(), 2);
    assert!(fs::read_dir(place.path("folder")).unwrap().next().is_none());
    // A folder that is to be made holds the measurements too.
    place.images(4);
    let network =
        format!("--model {DEMO}/network.onnx --model-output logits --cut cut --images images --labels labels.csv");
    place.ok(&format!(
        "eval {network} --normalize cifar10 --baselines png --qualities 1 --out new/report --measurements new/report/m.json"
    ));
    assert!(place.path("new/report/m.json").is_file() && place.path("new/report/narrows.html").is_file());
}

#[test]
fn an_unknown_backend_is_refused_in_the_environment_too() {
    let place = Place::new();
    place.write("f.npy", npy(&feature(&[2, 3, 4], 5)));
    let run = |name: &str| {
        let mut command = place.command(&["encode", "f.npy", "-o", "f.nrw"]);
        command.env("NARROWS_BACKEND", name).output().unwrap()
    };
    assert!(run("portable").status.success() && run("").status.success());
    let refused = run("fastest");
    let error = text(&refused.stderr);
    assert_eq!(refused.status.code(), Some(1));
    assert!(error.contains("fastest, which NARROWS_BACKEND names") && error.contains("sse4.2"), "{error}");
}

#[test]
fn a_link_that_cannot_be_is_refused_before_it_listens() {
    let place = Place::new();
    place.write("bad.csv", b"0,1e6\nlater,1e6\n");
    let shape = "shape --to 127.0.0.1:1";
    place.fails(&format!("{shape} --loss 2"), &["a loss of 2"]);
    place.fails(&format!("{shape} --buffer 0"), &["a buffer of 0"]);
    place.fails(&format!("{shape} --trace bad.csv"), &["trace bad.csv", "line 2"]);
}

#[test]
fn a_server_that_is_not_there_is_named_once() {
    let place = Place::new();
    place.images(1);
    let server = "http://127.0.0.1:1";
    let line = format!(
        "offload --server {server} --model {DEMO}/network.onnx --model-output logits --cut cut --images images \
         --normalize cifar10 --timeout 1s"
    );
    place.fails(&line, &[server, "network@cut", "the server is not reached"]);
    let error = text(&place.run(&line).stderr);
    assert_eq!(error.matches("refused").count(), 1, "{error}");
}

#[test]
fn help_teaches_and_misuse_has_status_two() {
    let place = Place::new();
    for command in ["fit", "encode", "decode", "inspect", "eval", "plan", "demo", "completions"] {
        let help = text(&place.ok(&format!("{command} --help")));
        assert!(help.contains("Usage: narrows"), "{help}");
    }
    assert!(text(&place.ok("--help")).contains("From a model to bytes"));
    assert!(text(&place.ok("--version")).starts_with("narrows "));
    let eval = text(&place.ok("eval --help"));
    assert!(
        ["`label`", "`class`", "`target`", "`imagenet_index0`"].into_iter().all(|name| eval.contains(name)),
        "{eval}"
    );
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        assert!(text(&place.ok(&format!("completions {shell}"))).contains("narrows"));
    }
    for line in [
        "unknown",
        "encode",
        "encode f.npy -o f.nrw --lossless --packed 4",
        "encode f.npy -o f.nrw --bytes 3 --sqnr 20",
        "encode f.npy -o f.nrw --packed 9",
        "encode f.npy -o f.nrw --clip aciq",
        "eval --model m.onnx",
        "eval --model m.onnx --cut c --rows 9-1",
        "plan",
        "plan --measurements m.json --round-trip 40",
        "plan --measurements m.json --bandwidth fast",
        "plan --measurements m.json --model m.onnx",
        "plan --measurements m.json --loss 1 --agreement 0.9",
        "plan --measurements m.json --deadline 0",
        "exit --measurements m.json --fit-measurements f.json --deadline 0ms",
        "simulate --measurements m.json --deadline 0",
        "offload --server http://s:1 --model m.onnx --deadline 0",
        "offload --server http://s:1 --model m.onnx --threshold 1.5",
        "offload --server http://s:1 --model m.onnx --log foo",
        "serve --model m.onnx --cut c --threshold NaN",
        "serve --model m.onnx --cut c --threshold=-0.1",
        "serve --model m.onnx --cut c --log info,foo",
        "shape --to foo",
        "shape --to foo:0",
        "fit f.npy -o p.safetensors --target 0",
        "fit f.npy -o p.safetensors --target NaN",
        "fit --model m.onnx --cut c -o p.safetensors --scale 0",
        "fit --model m.onnx --cut c -o p.safetensors --scale 1/0",
    ] {
        assert_eq!(place.run(line).status.code(), Some(2), "{line}");
    }
}
