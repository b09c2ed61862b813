#!/bin/sh
# All 2^32 values of f32 to integers on every backend of this machine, against exact arithmetic. One line for each scale.
#
# usage: tools/all_floats.sh [scales]      scales: how many, 1 to 8 (default 3), each half a minute to some minutes
set -eu
cd "$(dirname "$0")/.."
export NARROWS_SCALES="${1:-3}"
exec cargo test --release --no-default-features --test all_floats -- --include-ignored --nocapture --test-threads 1
