#!/usr/bin/env bash
# Looks for undefined behaviour, and runs the code where numbers are laid out otherwise. Needs a nightly compiler with the
# components miri and rust-src; minutes to an hour.
#
#   tools/undefined.sh [miri] [miri-big-endian] [miri-32-bit] [asan] [careful]       (default: all)
#
# miri             unit tests of the portable code and the golden vectors, interpreted on this machine's layout
# miri-big-endian  the same as s390x: numbers with the high byte first
# miri-32-bit      the same as i686: usize of 32 bits
# asan             the whole test suite under AddressSanitizer, SIMD included
# careful          the whole test suite with the checks inside the standard library on (cargo-careful)
set -euo pipefail
cd "$(dirname "$0")/.."
wanted=${*:-miri miri-big-endian miri-32-bit asan careful}
target=${CARGO_TARGET_DIR-target}/undefined

step() { printf '\n== %s\n' "$*"; }

# Miri runs no C, so zstd is only linked in name, as a system library whose header pkg-config finds.
interpret() {
    export CARGO_TARGET_DIR=$target MIRIFLAGS='-Zmiri-disable-isolation' NARROWS_BACKEND=portable PROPTEST_CASES=2
    export ZSTD_SYS_USE_PKG_CONFIG=1 PKG_CONFIG_ALLOW_CROSS=1
    # Fits, and properties of many cases, are too much to interpret; they run elsewhere.
    cargo +nightly miri test --target "$1" --no-default-features --lib -- --skip fit --skip moments --skip any_bytes \
        --skip symbols_come_back --skip within_one_percent
    cargo +nightly miri test --target "$1" --no-default-features --test vectors --test format
}

host=$(rustc -vV | sed -n 's/^host: //p')
for what in $wanted; do
    step "$what"
    case $what in
        miri) (interpret "$host") ;;
        miri-big-endian) (interpret s390x-unknown-linux-gnu) ;;
        miri-32-bit) (interpret i686-unknown-linux-gnu) ;;
        asan)
            # Leaks are looked for too; proc macros and build scripts are left alone by naming the target.
            CARGO_TARGET_DIR=$target/asan RUSTFLAGS=-Zsanitizer=address NARROWS_SANITIZED=1 \
                cargo +nightly test --release --target "$host" --no-default-features --features rayon --tests
            ;;
        careful)
            CARGO_TARGET_DIR=$target/careful cargo +nightly careful test --release --no-default-features --tests
            ;;
        *) echo "unknown: $what" >&2; exit 2 ;;
    esac
done
