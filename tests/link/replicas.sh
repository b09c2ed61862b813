#!/usr/bin/env bash
# Stateless replicas behind a standard proxy: three servers behind nginx (Debian's package), devices that send images all
# the while, one server killed and one told to end meanwhile. No image may be without an answer.
#
#   tests/link/replicas.sh NARROWS
set -euo pipefail
cd "$(dirname "$0")/../.."
narrows=$(realpath "$1")
folder=$(mktemp -d)
servers=()
proxy=
clean() {
    for pid in "${servers[@]}"; do kill "$pid" 2>/dev/null || true; done
    [ -z "$proxy" ] || kill "$proxy" 2>/dev/null || true
    wait 2>/dev/null || true
    rm -rf "$folder"
}
trap clean EXIT

upstream=
for i in 1 2 3; do
    "$narrows" serve --model demo/network.onnx --model-output logits --cut stage3.0.out --name demo \
        --profile demo/profile.safetensors --listen 127.0.0.1:0 --log error >"$folder/$i.log" &
    servers+=($!)
done
for i in 1 2 3; do
    for _ in $(seq 200); do grep -q listening "$folder/$i.log" && break; sleep 0.1; done
    upstream+="        server $(awk '{ print $2 }' "$folder/$i.log") max_fails=1 fail_timeout=2s;
"
done

# A free port for the proxy, by asking for one.
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
cat >"$folder/nginx.conf" <<CONF
daemon off;
pid $folder/nginx.pid;
error_log $folder/error.log warn;
events { worker_connections 256; }
http {
    access_log off;
    client_body_temp_path $folder;
    upstream narrows {
$upstream        keepalive 16;
    }
    server {
        listen 127.0.0.1:$port http2;
        keepalive_requests 1000000;
        client_max_body_size 8m;
        location / {
            grpc_pass grpc://narrows;
            # Inference changes nothing: what one server has lost may be asked of the next.
            grpc_next_upstream error timeout invalid_header http_502 http_503 non_idempotent;
            grpc_next_upstream_tries 3;
            grpc_connect_timeout 2s;
            grpc_read_timeout 30s;
            grpc_send_timeout 30s;
        }
    }
}
CONF
nginx -p "$folder" -c "$folder/nginx.conf" -e "$folder/error.log" &
proxy=$!
for _ in $(seq 100); do [ -s "$folder/nginx.pid" ] && break; sleep 0.1; done

# Three devices: nginx gives their calls to the servers in turns.
devices=()
for i in 1 2 3; do
    "$narrows" offload --server "http://127.0.0.1:$port" --model demo/network.onnx --model-output logits --name demo \
        --cut stage3.0.out --profile demo/profile.safetensors --images demo/test_images.png --labels demo/test_labels.txt \
        --rows 1-600 --normalize cifar10 --interval 12ms --json --log error >"$folder/$i.json" 2>"$folder/$i.err" &
    devices+=($!)
done
sleep 3
kill -KILL "${servers[0]}"
sleep 1.5
kill -TERM "${servers[1]}"
for i in 1 2 3; do
    if ! wait "${devices[i - 1]}"; then
        cat "$folder/$i.err" "$folder/error.log" >&2
        exit 1
    fi
done
python3 - "$folder" <<'PYTHON'
import json, sys

all = [json.load(open(f"{sys.argv[1]}/{i}.json")) for i in (1, 2, 3)]
assert all[0]["images"] == 600 and sum(one["lost"] for one in all) == 0, all
assert min(one["accuracy"] for one in all) > 0.88, all
retries = sum(one["retries"] for one in all)
seen = open(f"{sys.argv[1]}/error.log").read()
assert "prematurely closed" in seen or "Connection refused" in seen, "the proxy has lost no server"
print(f"replicas: 1,800 images from 3 devices, none lost, {retries} retries: one server was killed, one ended")
PYTHON
