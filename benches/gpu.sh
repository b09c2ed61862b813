#!/bin/sh
# Measures the GPU backend on this machine: memory bandwidth, the byte coder, the whole path, the crossover with the CPU.
# Every answer is compared with the CPU's first. On a machine without a driver it says so and fails.
#
# usage: [NARROWS_BENCH_PROFILE=FILE] benches/gpu.sh [small | floats]
#   NARROWS_BENCH_PROFILE: a profile with networks, which are measured too
#   small: sizes for a software driver, whose numbers mean nothing
#   floats: instead, takes all 2^32 floats to integers on the GPU and compares them with the CPU's
set -eu
cd "$(dirname "$0")/.."
case "${1:-}" in
    small) export NARROWS_BENCH_SMALL=1 ;;
    floats) export NARROWS_BENCH_FLOATS=1 ;;
esac
echo "date: $(date -u +%Y-%m-%d); commit: $(git rev-parse --short HEAD 2>/dev/null || echo unknown)"
exec cargo bench --no-default-features --features gpu --bench gpu
