mod decoder;

use decoder::{Profile, decode};

#[test]
fn golden_streams_decode() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors");
    let profiles = ["waves", "rectified"].map(|n| Profile::read(&std::fs::read(folder.join(format!("{n}.profile.safetensors"))).unwrap()).unwrap());
    let mut bad = 0;
    for file in std::fs::read_dir(&folder).unwrap() {
        let path = file.unwrap().path();
        if path.extension().is_some_and(|e| e == "stream") {
            let d = decode(&std::fs::read(&path).unwrap(), &profiles);
            let want = std::fs::read(path.with_extension("feature")).unwrap();
            let ok = d.as_ref().is_ok_and(|d| d.bytes == want);
            println!("{path:?} {ok} {:?}", d.map(|d| (d.dtype, d.shape)));
            bad += u32::from(!ok);
        }
    }
    assert_eq!(bad, 0);
}
