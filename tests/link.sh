#!/usr/bin/env bash
# The link with software that is not ours: Triton's Python client, and nginx before several servers.
#
#   tests/link.sh [NARROWS]          NARROWS: the binary [target/release/narrows, built if it is not there]
#
# Installs nginx (Debian) and, into a virtual environment in the target folder, tritonclient (PyPI) where they are missing.
set -euo pipefail
cd "$(dirname "$0")/.."
target=${CARGO_TARGET_DIR:-target}
narrows=${1:-$target/release/narrows}
[ -x "$narrows" ] || cargo build --release
export PATH=$PATH:/usr/sbin
if ! command -v nginx >/dev/null; then
    sudo=$( [ "$(id -u)" = 0 ] || echo sudo )
    $sudo apt-get update -qq
    $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends nginx-light >/dev/null
fi
venv=$target/link-venv
if ! "$venv/bin/python" -c 'import tritonclient.grpc' 2>/dev/null; then
    python3 -m venv "$venv"
    "$venv/bin/pip" install -q 'tritonclient[grpc]'
fi
"$venv/bin/python" tests/link/triton.py "$(realpath "$narrows")"
tests/link/replicas.sh "$narrows"
