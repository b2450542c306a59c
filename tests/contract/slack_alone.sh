# Sourced: starts and stops the local Slack by itself (`start_slack`), or the whole sandbox (`start_sandbox --json`). Both set
# $slack to the JSON line that is printed.
sandbox=${DIAGBOT_SANDBOX:-}
if [ -z "$sandbox" ]; then
  root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
  cargo build --quiet --locked --manifest-path "$root/Cargo.toml" -p diagbot-sandbox
  sandbox=${CARGO_TARGET_DIR:-$root/target}/debug/diagbot-sandbox
fi
slack_pid=
slack_out=$(mktemp)
stop_slack() {
  if [ -n "$slack_pid" ]; then
    kill "$slack_pid" 2>/dev/null || true
    wait "$slack_pid" 2>/dev/null || true
    slack_pid=
  fi
}
trap 'stop_slack; rm -f "$slack_out"' EXIT
start_slack() { start_sandbox slack "$@"; }
start_sandbox() {
  : >"$slack_out"
  "$sandbox" "$@" >"$slack_out" &
  slack_pid=$!
  for _ in $(seq 300); do
    [ -s "$slack_out" ] && break
    sleep 0.1
  done
  slack=$(cat "$slack_out")
  [ -n "$slack" ] || { echo "the sandbox did not start" >&2; return 1; }
}
