#!/usr/bin/env bash
# Proves every SIMD level against the portable kernels, those that this machine does not have by itself too: SSE4.2 and
# AVX2 alone and NEON under QEMU, WebAssembly's under Node.js. For Debian; installs what is missing.
#
# usage: tools/parity.sh [native] [sse4.2] [avx2] [neon] [wasm128]      default: all
#
# One line for each run: where and level, tests passed, seconds. What cannot be run here is named, with the reason;
# the exit code is 1 then, too.
set -uo pipefail
cd "$(dirname "$0")/.."
target=${CARGO_TARGET_DIR:-target}
scratch=$target/parity
tests=(levels parity vectors all_floats)
failed=0
mkdir -p "$scratch"

# The oldest QEMU that is used: 7.2, Debian 12's, computes AVX2 wrongly.
qemu_major=10
qemu_folder=

line() { printf '%-24s %-24s %s\n' "$1" "$2" "$3"; }
give_up() { line "$1" "not run" "$2"; failed=1; }

install() {
    local missing=() package sudo
    for package in "$@"; do dpkg -s "$package" >/dev/null 2>&1 || missing+=("$package"); done
    [ ${#missing[@]} = 0 ] && return
    sudo=$( [ "$(id -u)" = 0 ] || echo sudo )
    { $sudo apt-get update -qq &&
        $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}"
    } >"$scratch/apt.log" 2>&1
}

# Prints the paths of the test programs, in the order of `tests`; the rest are arguments of cargo.
build() {
    local args=() json test
    for test in "${tests[@]}"; do args+=(--test "$test"); done
    json=$(cargo test --release --no-default-features --no-run --message-format=json "${args[@]}" "$@" \
        2>"$scratch/build.log") || return
    for test in "${tests[@]}"; do
        sed -n "s/.*\"executable\":\"\([^\"]*\/$test-[^\"]*\)\".*/\1/p" <<<"$json" | tail -n 1
    done
}

# run NAME PROGRAMS COMMAND...: every test program under a command.
run() {
    local name=$1 programs=$2 program passed=0 count start seconds
    shift 2
    start=$(date +%s.%N)
    for program in $programs; do
        if ! "$@" "$program" >"$scratch/$name.log" 2>&1; then
            failed=1
            line "$name" "FAILED" "${program##*/}; see $scratch/$name.log"
            return
        fi
        count=$(sed -n 's/^test result: ok\. \([0-9]*\) passed.*/\1/p' "$scratch/$name.log")
        passed=$((passed + ${count:-0}))
    done
    seconds=$(awk -v a="$start" -v b="$(date +%s.%N)" 'BEGIN { printf "%.1f", b - a }')
    line "$name" "$passed tests passed" "$seconds s"
}

# Debian's QEMU if it is new enough, else that of its backports, unpacked in the scratch folder.
find_qemu() {
    [ -n "$qemu_folder" ] && return
    new_enough() {
        local version
        version=$("$1/qemu-x86_64" --version 2>/dev/null | sed -n 's/.* version \([0-9]*\).*/\1/p')
        [ "${version:-0}" -ge $qemu_major ]
    }
    local folder options
    install qemu-user
    for folder in "$(dirname "$(command -v qemu-x86_64 || echo /usr/bin/)")" "$(realpath "$scratch")/qemu/usr/bin"; do
        if new_enough "$folder"; then qemu_folder=$folder; return; fi
    done
    mkdir -p "$scratch/lists/partial"
    (
        cd "$scratch" && . /etc/os-release &&
        echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian" \
            "$VERSION_CODENAME-backports main" >backports.list &&
        options=(-o "Dir::Etc::sourcelist=$PWD/backports.list" -o Dir::Etc::sourceparts=/dev/null
            -o "Dir::State::lists=$PWD/lists") &&
        apt-get "${options[@]}" update &&
        apt-get "${options[@]}" download "qemu-user/$VERSION_CODENAME-backports" &&
        dpkg -x qemu-user_*.deb qemu
    ) >"$scratch/qemu.log" 2>&1
    folder=$(realpath "$scratch")/qemu/usr/bin
    new_enough "$folder" && qemu_folder=$folder
}

add_target() { rustup target add "$1" >"$scratch/rustup.log" 2>&1; }

native() {
    local programs level levels
    programs=$(build) || { give_up native "does not build, see $scratch/build.log"; return; }
    run native "$programs" env -u NARROWS_BACKEND
    # Each level as the one that is chosen by itself. `levels` tells those of the machine when they are not as named.
    levels=$(env NARROWS_LEVELS=? ${programs%%$'\n'*} 2>&1 | sed -n 's/^ *left: "\(.*\)"$/\1/p')
    for level in $levels; do
        run "native-$level" "$programs" env NARROWS_LEVELS="$(echo $levels)" NARROWS_BACKEND="$level"
    done
}

# emulated LEVELS CPU: the native programs on an older processor.
emulated() {
    local name=qemu-${1##* } programs
    find_qemu || { give_up "$name" "needs QEMU $qemu_major or later, see $scratch/qemu.log"; return; }
    [ "$(uname -m)" = x86_64 ] || { give_up "$name" "needs an x86-64 machine"; return; }
    programs=$(build) || { give_up "$name" "does not build, see $scratch/build.log"; return; }
    run "$name" "$programs" env -u NARROWS_BACKEND NARROWS_LEVELS="$1" "$qemu_folder/qemu-x86_64" -cpu "$2"
}

neon() {
    local triple=aarch64-unknown-linux-gnu programs
    find_qemu || { give_up qemu-neon "needs QEMU $qemu_major or later, see $scratch/qemu.log"; return; }
    install gcc-aarch64-linux-gnu libc6-dev-arm64-cross || { give_up qemu-neon "see $scratch/apt.log"; return; }
    add_target $triple || { give_up qemu-neon "no standard library, see $scratch/rustup.log"; return; }
    export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
    programs=$(build --target $triple) || { give_up qemu-neon "does not build, see $scratch/build.log"; return; }
    run qemu-neon "$programs" env -u NARROWS_BACKEND NARROWS_LEVELS="portable neon" \
        "$qemu_folder/qemu-aarch64" -L /usr/aarch64-linux-gnu
}

wasm() {
    local triple=wasm32-wasip1 programs
    command -v node >/dev/null || install nodejs
    [ "$(node --version 2>/dev/null | sed 's/v\([0-9]*\).*/\1/')" -ge 20 ] 2>/dev/null ||
        { give_up wasm128 "needs Node.js 20 or later"; return; }
    # clang and the headers compile zstd.
    install clang llvm wasi-libc || { give_up wasm128 "see $scratch/apt.log"; return; }
    add_target $triple || { give_up wasm128 "no standard library, see $scratch/rustup.log"; return; }
    export CC_wasm32_wasip1=clang AR_wasm32_wasip1=llvm-ar
    export CFLAGS_wasm32_wasip1="--target=wasm32-wasi -isystem /usr/include/wasm32-wasi"
    export CARGO_TARGET_WASM32_WASIP1_RUSTFLAGS="-C target-feature=+simd128"
    programs=$(build --target $triple) || { give_up wasm128 "does not build, see $scratch/build.log"; return; }
    run wasm128 "$programs" env -u NARROWS_BACKEND NARROWS_LEVELS="portable wasm128" \
        node --no-warnings tools/wasi.mjs "$PWD"
}

[ $# -gt 0 ] || set -- native sse4.2 avx2 neon wasm128
for level in "$@"; do
    case $level in
        native) native ;;
        sse4.2) emulated "portable sse4.2" Nehalem ;;
        avx2) emulated "portable sse4.2 avx2" Haswell ;;
        neon) neon ;;
        wasm128) wasm ;;
        *) echo "unknown level: $level" >&2; exit 2 ;;
    esac
done
exit $failed
