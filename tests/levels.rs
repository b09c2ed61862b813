//! Proves that a run of the other tests is about the backends it is meant for: the processor backends of this machine
//! are those that `NARROWS_LEVELS` names, separated by spaces, if it is set, and `NARROWS_BACKEND` chooses among them.
//! `tools/parity.sh` sets both.

use narrows::Backend;

#[test]
fn the_backends_are_the_expected_ones() {
    let names: Vec<_> = Backend::available().iter().map(Backend::name).collect();
    assert_eq!(names[0], "portable");
    let Ok(expected) = std::env::var("NARROWS_LEVELS") else { return };
    assert_eq!(names.join(" "), expected);
    if let Ok(name) = std::env::var("NARROWS_BACKEND") {
        assert_eq!(Backend::detect().name(), name);
    }
}
