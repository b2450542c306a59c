#!/bin/sh
# The commands that kubectl's users would type, against the sandbox's Kubernetes: kubectl.sh [path of diagbot-sandbox].
# Checks what each prints; ends with 1 at the first wrong answer. Needs kubectl 1.30 or newer, and nothing of a cluster.
set -eu

program=${1:-target/debug/diagbot-sandbox}
work=$(mktemp -d)
server=
cleanup() {
    if [ -n "$server" ]; then
        kill "$server" 2>/dev/null || true
        wait "$server" 2>/dev/null || true
    fi
    rm -rf "$work"
}
trap cleanup EXIT
trap 'exit 1' INT TERM

"$program" kubernetes --directory "$work" >"$work/started" 2>"$work/errors" &
server=$!
export KUBECONFIG="$work/admin.kubeconfig"
export HOME="$work"
pod=ledger-6c7d5b9f4-q8w2k

fail() {
    echo "kubectl contract: $1" >&2
    shift
    for file in "$@"; do
        echo "--- $file" >&2
        cat "$file" >&2
    done
    exit 1
}

# expect NAME PATTERN COMMAND...: the command succeeds, and its output holds the pattern.
expect() {
    name=$1 pattern=$2
    shift 2
    timeout 60 "$@" >"$work/out" 2>"$work/err" </dev/null || fail "$name: exit code $?" "$work/out" "$work/err"
    grep -Eq -- "$pattern" "$work/out" || fail "$name: no match of '$pattern'" "$work/out" "$work/err"
    echo "ok   $name"
}

# refused NAME PATTERN COMMAND...: the command fails, and what it says holds the pattern.
refused() {
    name=$1 pattern=$2
    shift 2
    if timeout 60 "$@" >"$work/out" 2>"$work/err" </dev/null; then
        fail "$name: succeeded" "$work/out"
    fi
    grep -Eq -- "$pattern" "$work/err" || fail "$name: no match of '$pattern'" "$work/out" "$work/err"
    echo "ok   $name"
}

# What is deployed, as kubectl's own kustomize renders it.
deploy=$(dirname "$0")/../../deploy
expect "the base renders" '^kind: Deployment$' kubectl kustomize "$deploy/base"
expect "the one-node overlay renders" '^kind: Deployment$' kubectl kustomize "$deploy/overlays/one-node"
for component in "$deploy"/components/*; do
    expect "the component $(basename "$component") renders" '^kind: ' kubectl kustomize "$component"
done

tries=0
until [ -s "$work/started" ]; do
    kill -0 "$server" 2>/dev/null || fail "the sandbox ended" "$work/errors"
    tries=$((tries + 1))
    [ "$tries" -lt 300 ] || fail "the sandbox did not start" "$work/errors"
    sleep 0.1
done
cat "$work/started"

timeout 60 kubectl -n shop wait --for=condition=Ready "pod/$pod" >/dev/null

expect "get pods" "^shop +$pod +1/1 +Running" kubectl get pods -A
expect "get namespaces" "^shop +Active" kubectl get ns
expect "logs" "^ledger: listening on 127" kubectl -n shop logs "$pod"
expect "logs of a deployment" "^ledger: listening on 127" kubectl -n shop logs deploy/ledger
expect "logs of the previous run" "unknown currency" kubectl -n shop logs --previous deploy/billing
# Where the machine allows no namespaces, containers see the machine's own PID 1.
first='^/diagbot-sandbox workload ledger'
if grep -q "allows no namespaces" "$work/started"; then
    first=.
    echo "not checked: that containers see their own processes only"
fi
expect "exec" "$first" kubectl -n shop exec "$pod" -- sh -c 'tr "\0" " " </proc/1/cmdline'

head -c 3000000 /dev/urandom >"$work/bytes"
timeout 60 kubectl -n shop exec -i "$pod" -- cat <"$work/bytes" >"$work/back" || fail "exec -i: exit code $?"
cmp "$work/bytes" "$work/back" || fail "exec -i: other bytes came back"
echo "ok   exec -i carries bytes"

code=0
timeout 60 kubectl -n shop exec "$pod" -- sh -c 'exit 3' 2>/dev/null </dev/null || code=$?
[ "$code" = 3 ] || fail "exec tells the exit code: $code"
echo "ok   exec tells the exit code"

expect "debug" "Targeting container \"ledger\"" \
    kubectl -n shop debug "$pod" --profile=general --image=busybox --target=ledger -c debug-1 -- \
    sh -c 'tr "\0" " " </proc/1/cmdline; echo; read line; echo "got $line"'
timeout 60 kubectl -n shop wait pod/"$pod" \
    --for='jsonpath={.status.ephemeralContainerStatuses[0].state.terminated.exitCode}=0' >/dev/null
expect "logs of the debug container" "$first" kubectl -n shop logs "$pod" -c debug-1
expect "the debug container's status" '"uid":' kubectl -n shop get pod "$pod" \
    -o 'jsonpath={.status.ephemeralContainerStatuses[0].user}'

# What debug -i would do, in two steps: a container that waits for input, and an attach that brings it.
container='{"name":"waits","image":"busybox","targetContainerName":"ledger","stdin":true,"command":["sh","-c","read a; echo got $a; sleep 1"]}'
kubectl -n shop patch pod "$pod" --subresource=ephemeralcontainers \
    -p "{\"spec\":{\"ephemeralContainers\":[$container]}}" >/dev/null
timeout 60 kubectl -n shop wait pod/"$pod" \
    --for='jsonpath={.status.ephemeralContainerStatuses[?(@.name=="waits")].state.running.startedAt}' >/dev/null
echo marvin | timeout 60 kubectl -n shop attach -i "$pod" -c waits >"$work/out" 2>"$work/err" ||
    fail "attach: exit code $?" "$work/out" "$work/err"
grep -q "got marvin" "$work/out" || fail "attach: no answer" "$work/out" "$work/err"
echo "ok   attach"

cat >"$work/run.yaml" <<'RUN'
apiVersion: diagbot.dev/v1alpha1
kind: DiagnosticRun
metadata: { name: d-contract, namespace: diagbot }
spec:
  key: { kind: Cli, id: contract }
  requester: { user: ada }
  origin: {}
  diagnostic: jstack
  target: { name: checkout }
  receivedAt: 2026-11-22T00:00:00.000000Z
RUN
expect "create a run" "d-contract created" kubectl create --validate=false -f "$work/run.yaml"
expect "get runs by short name" "^diagbot +d-contract +jstack +checkout" kubectl get drun -A

refused "exec into an ended container" 'container not found \("debug-1"\)' kubectl -n shop exec "$pod" -c debug-1 -- ls
refused "attach to an ended container" "container debug-1 not found in pod ${pod}_shop" \
    kubectl -n shop attach "$pod" -c debug-1
sed -e 's/d-contract/d-broken/' -e '/diagnostic: jstack/d' "$work/run.yaml" >"$work/broken.yaml"
refused "a run that its definition forbids" 'spec.diagnostic: Required value' \
    kubectl create --validate=false -f "$work/broken.yaml"
refused "a name twice" 'already exists' kubectl create --validate=false -f "$work/run.yaml"
refused "a changed ephemeral container" 'existing ephemeral containers "debug-1" may not be changed' \
    kubectl -n shop patch pod "$pod" --subresource=ephemeralcontainers \
    -p '{"spec":{"ephemeralContainers":[{"name":"debug-1","image":"other"}]}}'
refused "somebody without rights" 'User "bob" cannot list resource "pods"' kubectl -n shop get pods --as=bob
refused "what the sandbox lacks" 'server doesn.t have a resource type "services"' kubectl -n shop get services

export KUBECONFIG="$work/bot.kubeconfig"
expect "the bot lists pods" "^$pod" kubectl -n shop get pods
refused "the bot reads no secrets" 'cannot list resource "secrets"' kubectl -n shop get secrets
echo "kubectl contract: all as on a real cluster"
