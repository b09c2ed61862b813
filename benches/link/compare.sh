#!/usr/bin/env bash
# Every way to answer over one shaped link, end to end with real processes: a server, the link, a device.
#
#   benches/link/compare.sh [FOLDER]            the demo network; FOLDER [a new one] gets CSV and JSON of every run
#   NETWORK=lite0 MODEL=net.onnx PHOTOS=folder benches/link/compare.sh [FOLDER]      EfficientNet-Lite0
#
# Two links: 1 Mbit/s and 20 ms each way; and the same with a tenth of the bandwidth between the seconds 10 and 40.
# What can be set: DEVICE_SPEED relative to this machine [demo 0.03, lite0 0.2], INTERVAL between images [200ms, 400ms],
# DEADLINE [150ms], ROWS of the images that are classified [601-800], LINKS [steady drop], WAYS [local jpeg:75 webp:70
# webp:90 fixed adaptive-delay adaptive-energy; also adaptive-accuracy, jpeg:Q, webp:Q, png], SERVER_THREADS of one run of
# the network [1], SKIP_LATE=1 to skip images that are late before their turn, NARROWS, the binary.
# Measurements for the plan, and the policy for the exits, are of other images than those that are classified.
set -euo pipefail
cd "$(dirname "$0")/../.."
narrows=${NARROWS:-${CARGO_TARGET_DIR:-target}/release/narrows}
out=${1:-$(mktemp -d)}
speed=${DEVICE_SPEED:-$([ "${NETWORK:-demo}" = demo ] && echo 0.03 || echo 0.2)}
interval=${INTERVAL:-$([ "${NETWORK:-demo}" = demo ] && echo 200ms || echo 400ms)}
deadline=${DEADLINE:-150ms}
mkdir -p "$out"

case ${NETWORK:-demo} in
demo)
    "$narrows" demo --export "$out/demo" 2>/dev/null
    network=(--model "$out/demo/network.onnx" --model-output logits)
    images=(--images "$out/demo/images" --labels "$out/demo/labels.csv" --normalize cifar10)
    cuts=(--cut stage3.0.out)
    profiles=(--profile "$out/demo/bottleneck.safetensors")
    fixed=("${cuts[@]}" "${profiles[@]}" --quality 1)
    measure=(--qualities 0.5,0.71,1,1.41,2,2.83)
    exits=(--exit exit1 --exit exit2)
    normalize=(--normalize cifar10)
    plan_rows=1-600; fit_rows=1-300; test_rows=301-600; rows=${ROWS:-601-800} ;;
lite0)
    network=(--model "${MODEL:?the ONNX file of EfficientNet-Lite0}" --model-output logits)
    images=(--images "${PHOTOS:?the folder of photos}" --labels "$PHOTOS/labels.csv" --normalize lite)
    cuts=(--cut /_blocks.2/Add_output_0 --cut /_blocks.4/Add_output_0 --cut /_blocks.7/Add_output_0)
    profiles=()
    for block in 2 4 7; do profiles+=(--profile "benches/profiles/lite0-block$block.safetensors"); done
    fixed=(--cut /_blocks.7/Add_output_0 --profile benches/profiles/lite0-block7.safetensors --quality 1.41)
    measure=(--qualities 0.5,0.71,1,1.41,2 --layers 2 --layer-qualities 0.5,1)
    exits=()
    normalize=(--normalize lite)
    plan_rows=401-600; rows=${ROWS:-601-800} ;;
*) echo "NETWORK is demo or lite0" >&2; exit 1 ;;
esac
name=network

# What is known beforehand.
if [ ! -s "$out/plan.json" ]; then
    "$narrows" eval "${network[@]}" "${cuts[@]}" "${profiles[@]}" "${images[@]}" --rows "$plan_rows" \
        "${measure[@]}" --baselines jpeg,webp --measurements "$out/plan.json" "${exits[@]}" >"$out/eval.txt"
fi
policy=()
if [ ${#exits[@]} -gt 0 ]; then
    for part in fit test; do
        rows_of=$([ $part = fit ] && echo "$fit_rows" || echo "$test_rows")
        [ -s "$out/$part.json" ] || "$narrows" eval "${network[@]}" "${cuts[@]}" "${profiles[@]}" "${images[@]}" \
            --rows "$rows_of" --qualities 1 --baselines jpeg,webp --measurements "$out/$part.json" "${exits[@]}" >/dev/null
    done
    "$narrows" exit --fit-measurements "$out/fit.json" --measurements "$out/test.json" --loss 0.5 \
        --device-speed "$speed" --deadline "$deadline" --out "$out/policy.json" >"$out/exit.txt"
    policy=(--exits "$out/policy.json")
fi

running=()
stop() { for pid in "${running[@]}"; do kill "$pid" 2>/dev/null || true; done; }
trap stop EXIT

# Starts a command that says where it listens; the address goes to $address.
start() {
    local log=$1; shift
    : >"$log"
    "$@" >"$log" 2>"$log.err" &
    running+=($!)
    for _ in $(seq 100); do
        address=$(awk '$1 == "listening" { print $2 }' "$log")
        [ -z "$address" ] || return 0
        sleep 0.1
    done
    cat "$log.err" >&2; return 1
}

start "$out/serve.log" "$narrows" serve "${network[@]}" --name "$name" "${cuts[@]}" "${profiles[@]}" \
    --whole "${normalize[@]}" --threads "${SERVER_THREADS:-1}" --listen 127.0.0.1:0
server=$address
printf 'seconds,bits_per_second\n0,1000000\n10,100000\n40,1000000\n' >"$out/drop.csv"

columns() { awk -F '  +' '{ printf "%-24s", $2; for (i = 3; i <= NF; i++) printf "%11s", $i; print "" }' "$1"; }

for link in ${LINKS:-steady drop}; do
    case $link in
    steady) shape=(--rate 1Mbit); text="1 Mbit/s and 20 ms each way" ;;
    drop) shape=(--trace "$out/drop.csv"); text="the same, but 100 kbit/s from second 10 to 40" ;;
    esac
    printf '\n%s; an image every %s, device speed %s, in time: %s\n' "$text" "$interval" "$speed" "$deadline"
    head=yes
    for way in ${WAYS:-local jpeg:75 webp:70 webp:90 fixed adaptive-delay adaptive-energy}; do
        # A link of its own for each, so that the trace begins anew.
        start "$out/shape.log" "$narrows" shape --to "$server" --delay 20ms "${shape[@]}"
        more=() policy_name=$way
        [ "$way" != fixed ] || more=("${fixed[@]}")
        case $way in adaptive*)
            policy_name=adaptive
            more=("${profiles[@]}" --whole --measurements "$out/plan.json" "${policy[@]}")
            more+=(--goal "${way#adaptive-}") ;;
        esac
        "$narrows" offload --server "http://$address" "${network[@]}" --name "$name" "${images[@]}" --rows "$rows" \
            --policy "$policy_name" "${more[@]}" --interval "$interval" ${SKIP_LATE:+--skip-late} --deadline "$deadline" --device-speed "$speed" \
            --out "$out/$link-${way/:/-}" >"$out/table.txt" 2>"$out/offload.err" || { cat "$out/offload.err" >&2; exit 1; }
        # One table of many.
        [ $head = no ] || columns "$out/table.txt" | sed -n 1p
        columns "$out/table.txt" | tail -n +2
        head=no
        kill "${running[-1]}"; wait "${running[-1]}" 2>/dev/null || true
        unset 'running[-1]'
    done
done
echo
echo "in $out: requests.csv and summary.json of every run"
