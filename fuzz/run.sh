#!/usr/bin/env bash
# Runs the fuzz targets under AddressSanitizer and prints a line for each.
#
#   fuzz/run.sh [-j JOBS] [-b checked|shipped|both] [SECONDS] [TARGET...]
#   fuzz/run.sh -r TARGET FILE            runs one input, as a finding is reproduced
#   fuzz/run.sh -n                        only builds
#
# SECONDS (default 60) is the time of each target, half of it with debug assertions and overflow checks, half as the
# code is shipped, unless -b chooses. JOBS (default 1) targets run side by side. Leaves with 1 if there is a finding.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)

# Target, longest input, most memory in MiB, longest run in seconds.
targets='
header       64    512  5
chunk_table  512   1024 5
cdf_table    8192  1024 10
rans_decode  2048  1024 10
stream       2048  1024 10
profile      32768 2048 20
patched      1024  2048 20
datagram     2048  2048 20
round_trip   1024  2048 20
parity       1024  2048 20
npy          4096  2048 10
gpu_decode   1024  4096 60
'

jobs=1 builds=both reproduce='' only_build=''
while getopts 'j:b:rnh' option; do
    case $option in
        j) jobs=$OPTARG ;;
        b) builds=$OPTARG ;;
        r) reproduce=1 ;;
        n) only_build=1 ;;
        *) sed -n '2,/^set/s/^# \{0,1\}//p' "$0"; exit 2 ;;
    esac
done
shift $((OPTIND - 1))
case $builds in
    both) builds='checked shipped' ;;
    checked | shipped) ;;
    *) echo "-b is checked, shipped or both, not $builds" >&2; exit 2 ;;
esac

die() { echo "fuzz: $*" >&2; exit 2; }

names=$(awk 'NF { print $1 }' <<<"$targets")
known() { grep -qx -- "$1" <<<"$names" || die "no target $1; there are:" $names; }
seconds=60
if [ -n "$reproduce" ]; then
    [ $# = 2 ] || die "-r takes a target and a file"
    known "$1"
    [ -r "$2" ] || die "cannot read $2"
    chosen=$1 file=$(realpath "$2")
else
    if [[ ${1-} =~ ^[0-9]+$ ]]; then seconds=$1; shift; fi
    for name in "$@"; do known "$name"; done
    chosen=${*:-$names}
fi

# What is needed.
command -v cargo >/dev/null || die "there is no cargo: install Rust (https://rustup.rs)"
command -v "${CXX:-c++}" >/dev/null || die "there is no C++ compiler, which libFuzzer needs: install g++ or clang++, or set CXX"
command -v "${CC:-cc}" >/dev/null || die "there is no C compiler, which zstd needs: install gcc or clang, or set CC"
# Sanitizers are unstable: a nightly compiler has them, and a stable one that is told to act as one.
if [ -n "${FUZZ_TOOLCHAIN-}" ]; then
    export RUSTUP_TOOLCHAIN=$FUZZ_TOOLCHAIN
elif command -v rustup >/dev/null && rustup toolchain list | grep -q '^nightly'; then
    export RUSTUP_TOOLCHAIN=nightly
fi
rustc --version | grep -q nightly || export RUSTC_BOOTSTRAP=1
host=$(rustc -vV | sed -n 's/^host: //p')
compgen -G "$(rustc --print sysroot)/lib/rustlib/$host/lib/*asan*" >/dev/null \
    || die "$(rustc --version) for $host comes without AddressSanitizer: use x86_64 or aarch64 Linux or macOS, or get" \
        "a nightly compiler (rustup toolchain install nightly --profile minimal) and set FUZZ_TOOLCHAIN"

features=''
grep -qw npy <<<"$chosen" && features=npy
if grep -qw gpu_decode <<<"$chosen"; then
    features="$features gpu"
    # The software driver, also where there is a GPU.
    export VK_LOADER_DRIVERS_SELECT=${VK_LOADER_DRIVERS_SELECT-*lvp*}
    compgen -G '/usr/share/vulkan/icd.d/lvp*' >/dev/null || compgen -G '/etc/vulkan/icd.d/lvp*' >/dev/null \
        || echo "fuzz: gpu_decode needs a software Vulkan driver: install mesa-vulkan-drivers (or leave it out)" >&2
fi

# The build: libFuzzer's coverage, AddressSanitizer.
passes='-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4'
for what in inline-8bit-counters pc-table trace-compares; do
    passes="$passes -Cllvm-args=-sanitizer-coverage-$what"
done
export RUSTFLAGS="--cfg fuzzing $passes -Zsanitizer=address"
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR-$here/target}
bins="$CARGO_TARGET_DIR/bin"
for build in $builds; do
    started=$SECONDS unchecked=()
    if [ "$build" = shipped ]; then
        for what in debug-assertions overflow-checks; do
            unchecked+=(--config "profile.release.$what=false" --config "profile.release.package.narrows.$what=false")
        done
    fi
    # shellcheck disable=SC2046
    cargo build --manifest-path "$here/Cargo.toml" --quiet --locked --release --target "$host" "${unchecked[@]}" \
        --features "$features" $(printf -- '--bin %s ' $chosen) || die "the build failed"
    # Both builds put their programs in one place.
    mkdir -p "$bins/$build"
    for name in $chosen; do ln -f "$CARGO_TARGET_DIR/$host/release/$name" "$bins/$build/$name"; done
    echo "built ($build, $(rustc --version | cut -d' ' -f2)) in $((SECONDS - started)) s"
done
[ -z "$only_build" ] || exit 0

# Runs a target: build, name, further arguments.
fuzz() {
    local build=$1 name=$2 longest memory slowest
    shift 2
    read -r _ longest memory slowest < <(grep "^$name " <<<"$targets")
    local leaks=1
    # Vulkan drivers keep what they allocate until the process ends.
    [ "$name" != gpu_decode ] || leaks=0
    ASAN_OPTIONS="detect_leaks=$leaks:${ASAN_OPTIONS-}" "$bins/$build/$name" \
        -max_len="$longest" -rss_limit_mb="$memory" -timeout="$slowest" "$@"
}

if [ -n "$reproduce" ]; then
    status=0
    for build in $builds; do
        if fuzz "$build" "$chosen" "$file"; then echo "$build: no finding"; else status=1; echo "$build: a finding"; fi
    done
    exit $status
fi

# One target on both builds, then its line.
run() {
    local name=$1 share=$((seconds / $(wc -w <<<"$builds"))) status=0 executions=0 coverage='' corpus='' cpu=0
    local corpora=("$here/corpus/$name") kept="$here/artifacts/$name"
    [ ! -d "$here/seeds/$name" ] || corpora+=("$here/seeds/$name")
    mkdir -p "${corpora[0]}" "$kept"
    local dictionary=()
    [ ! -f "$here/dict/$name.dict" ] || dictionary=(-dict="$here/dict/$name.dict")
    for build in $builds; do
        local log="$kept/$build.log" TIMEFORMAT='cpu %U'
        { time fuzz "$build" "$name" "${dictionary[@]}" -max_total_time="$((share > 0 ? share : 1))" \
            -print_final_stats=1 -artifact_prefix="$kept/$build-" "${corpora[@]}"; } >"$log" 2>&1 || status=1
        executions=$((executions + $(sed -n 's/^stat::number_of_executed_units: *//p' "$log" | tail -1 | grep . || echo 0)))
        read -r coverage corpus < <(grep -o 'cov: [0-9]* .*corp: [0-9]*/[0-9]*[a-zA-Z]*' "$log" | tail -1 \
            | sed 's/cov: \([0-9]*\) .*corp: \(.*\)/\1 \2/') || true
        cpu=$(awk -v sum="$cpu" '/^cpu / { sum += $2 } END { printf "%.0f", sum }' "$log")
    done
    local found=()
    mapfile -t found < <(find "$kept" -type f ! -name '*.log' | sort)
    printf '%-12s %9d executions  coverage %5s  corpus %9s  cpu %4s s  findings %d\n' \
        "$name" "$executions" "${coverage:--}" "${corpus:--}" "$cpu" "${#found[@]}"
    for file in "${found[@]}"; do
        echo "  FINDING $file ($(wc -c <"$file") bytes)"
        if [ "$(wc -c <"$file")" -le 4096 ]; then echo "  base64: $(base64 -w 0 "$file")"; else echo "  too long to print"; fi
        echo "  again:  $here/run.sh -r $name $file"
    done
    if [ $status != 0 ] || [ ${#found[@]} != 0 ]; then
        grep -hm 3 -A 2 -E 'panicked at|^==[0-9]+== ?(ERROR|WARNING)|SUMMARY|error while loading' "$kept"/*.log | sed 's/^/  | /' || true
        return 1
    fi
}

failed=0 running=0
for name in $chosen; do
    if [ "$running" -ge "$jobs" ]; then
        wait -n || failed=1
        running=$((running - 1))
    fi
    run "$name" &
    running=$((running + 1))
done
while [ "$running" -gt 0 ]; do
    wait -n || failed=1
    running=$((running - 1))
done
exit $failed
