#!/usr/bin/env bash
# A shaped link made by the kernel: two network namespaces, a pair of virtual Ethernet devices between them, netem for delay
# and loss, tbf for bandwidth. Runs a server in one and a device in the other. Needs root and the modules sch_netem, sch_tbf.
#
#   benches/link/netns.sh RATE DELAY LOSS -- OFFLOAD-ARGUMENTS...
#   benches/link/netns.sh 1mbit 20ms 1% -- --policy fixed
#
# Runs the demo network. Where kernel or rights are missing it says so and ends with status 77; `narrows shape` is the
# substitute (benches/link/compare.sh).
set -euo pipefail
cd "$(dirname "$0")/../.."
narrows=$(realpath "${NARROWS:-${CARGO_TARGET_DIR:-target}/release/narrows}")
rate=${1:-1mbit} delay=${2:-20ms} loss=${3:-0%}
shift $(( $# < 3 ? $# : 3 )); [ "${1:-}" != -- ] || shift
device=narrows-device-$$ server=narrows-server-$$
serving=
clean() {
    [ -z "$serving" ] || kill "$serving" 2>/dev/null || true
    ip netns del "$device" 2>/dev/null || true
    ip netns del "$server" 2>/dev/null || true
}
trap clean EXIT
missing() { echo "not possible here: $*" >&2; exit 77; }

command -v ip >/dev/null && command -v tc >/dev/null || missing "ip and tc (package iproute2)"
ip netns add "$device" 2>/dev/null && ip netns add "$server" 2>/dev/null || missing "network namespaces (root)"
ip link add nd$$ netns "$device" type veth peer name ns$$ netns "$server" || missing "virtual Ethernet devices"
for side in "$device nd$$ 10.77.0.1" "$server ns$$ 10.77.0.2"; do
    read -r space port address <<<"$side"
    ip -n "$space" addr add "$address/30" dev "$port"
    ip -n "$space" link set "$port" up
    ip -n "$space" link set lo up
    # Segmentation offload would pass packets of 64 KiB through the shaper at once.
    ip netns exec "$space" ethtool -K "$port" tso off gso off gro off >/dev/null 2>&1 || true
    tc -n "$space" qdisc add dev "$port" root handle 1: netem delay "$delay" loss "$loss" 2>/dev/null \
        || missing "the kernel has no netem (module sch_netem)"
    tc -n "$space" qdisc add dev "$port" parent 1: handle 2: tbf rate "$rate" burst 3000 limit 65536 \
        || missing "the kernel has no tbf (module sch_tbf)"
done
folder=$(mktemp -d)
ip netns exec "$server" "$narrows" serve --model demo/network.onnx --model-output logits --cut stage3.0.out \
    --profile demo/profile.safetensors --whole --normalize cifar10 --listen 10.77.0.2:8001 >"$folder/serve.log" &
serving=$!
for _ in $(seq 100); do grep -q listening "$folder/serve.log" && break; sleep 0.1; done
ip netns exec "$device" "$narrows" offload --server http://10.77.0.2:8001 --model demo/network.onnx --model-output logits \
    --cut stage3.0.out --profile demo/profile.safetensors --images demo/test_images.png --labels demo/test_labels.txt \
    --rows 1-200 --normalize cifar10 "$@"
