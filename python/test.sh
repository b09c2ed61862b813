#!/usr/bin/env bash
# Builds and installs the Python package in a virtual environment of its own, checks its Rust side, and runs its tests.
# The environment sees the packages of the system: with PyTorch there, its tests run too.
set -euo pipefail
cd "$(dirname "$0")"

python=${PYTHON:-python3}
target=${CARGO_TARGET_DIR:-$PWD/target}
venv=$(mktemp -d)
trap 'rm -rf "$venv"' EXIT

cargo fmt --check
CARGO_TARGET_DIR=$target cargo clippy --release --all-targets -- -D warnings

"$python" -m venv --system-site-packages "$venv"
# The system's NumPy, if there is one, is the one that its PyTorch was built for.
"$venv/bin/python" -c 'import numpy; print(f"numpy=={numpy.__version__}")' >"$venv/constraints.txt" 2>/dev/null || true
CARGO_TARGET_DIR=$target "$venv/bin/pip" install --quiet --disable-pip-version-check -c "$venv/constraints.txt" "$PWD[test]"
# Not `python -m pytest`, which would find the sources here in place of the installed package.
"$venv/bin/pytest" "$@"
