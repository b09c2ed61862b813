#!/usr/bin/env bash
# Hostile clients beside a good one for ten minutes, or $1 seconds: the test of tests/link/hostile.rs, longer. Prints how many
# connections there were, how the good client fared, and the server's resident memory beside its bound.
set -euo pipefail
cd "$(dirname "$0")/../.."
NARROWS_HOSTILE_SECONDS=${1:-600} cargo test --release --test link hostile -- --nocapture
