#!/bin/bash
# The local Slack against clients that we did not write: Slack's JavaScript and Python SDKs. Their packages go to a cache outside
# the tree; a variable DIAGBOT_SANDBOX names a sandbox that is already built.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
. "$here/slack_alone.sh"
cache=${XDG_CACHE_HOME:-$HOME/.cache}/diagbot-contract
mkdir -p "$cache/slack_bolt_js"

cp "$here"/slack_bolt_js/{package.json,contract.mjs} "$cache/slack_bolt_js/"
(cd "$cache/slack_bolt_js" && npm install --no-package-lock --no-audit --no-fund --loglevel=error >/dev/null)
[ -x "$cache/python/bin/python" ] || python3 -m venv "$cache/python"
"$cache/python/bin/pip" install --quiet --disable-pip-version-check -r "$here/slack_bolt_py/requirements.txt"

failed=0
start_slack
timeout 240 node "$cache/slack_bolt_js/contract.mjs" "$slack" || failed=1
stop_slack
start_slack
timeout 240 "$cache/python/bin/python" "$here/slack_bolt_py/contract.py" "$slack" || failed=1
stop_slack
exit $failed
