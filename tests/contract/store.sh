#!/bin/bash
# `diagbot store` against a client that we did not write (boto3) and against hostile requests (curl). boto3 goes to a cache outside
# the tree; a variable DIAGBOT names a program that is already built (one that knows `store --config FILE`).
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/diagbot-contract

if [ -z "${DIAGBOT:-}" ]; then
    cargo build --quiet --manifest-path "$root/Cargo.toml" -p diagbot
    DIAGBOT=${CARGO_TARGET_DIR:-$root/target}/debug/diagbot
fi
python=$cache/store_boto3/bin/python
[ -x "$python" ] || python3 -m venv "$cache/store_boto3"
"$python" -m pip install --quiet --disable-pip-version-check -r "$here/store_boto3/requirements.txt"

work=$(mktemp -d)
store=
stop() {
    if [ -n "$store" ]; then
        kill "$store" 2>/dev/null || true
        wait "$store" 2>/dev/null || true
    fi
    rm -rf "$work"
}
trap stop EXIT

port=$("$python" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
cat >"$work/keys.yaml" <<KEYS
- {accessKey: CONTRACT, secretKey: contract-secret-key}
- {accessKey: SECOND, secretKey: second-secret-key}
KEYS
cat >"$work/store.yaml" <<CONFIG
listen: 127.0.0.1:$port
folder: $work/data
bucket: evidence
region: us-east-1
credentialsFile: $work/keys.yaml
maxBodyBytes: 67108864
CONFIG
DIAGBOT_LOG=trace "$DIAGBOT" store --config "$work/store.yaml" >"$work/log" 2>&1 &
store=$!

if ! timeout 300 "$python" "$here/store_boto3/contract.py" "http://127.0.0.1:$port" "$work"; then
    echo "--- what the store said:" >&2
    tail -20 "$work/log" >&2
    exit 1
fi
kill "$store"
wait "$store" || true
store=
timeout 200 "$python" "$here/store_boto3/crash.py" "$DIAGBOT" "$work/store.yaml" "http://127.0.0.1:$port" "$work"
if grep -E 'X-Amz-Signature=|contract-secret-key' "$work/log" >&2; then
    echo "the log of the store holds a signature or a secret" >&2
    exit 1
fi
