#!/bin/bash
# The sandbox's page in a headless browser: every kind of block with an echo bot, then a person's way with the real bot. Packages go to a cache outside the tree; DIAGBOT_SANDBOX names a sandbox that is
# already built, SCREENSHOTS a folder for pictures.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
. "$here/slack_alone.sh"
cache=${XDG_CACHE_HOME:-$HOME/.cache}/diagbot-contract/page
mkdir -p "$cache"
cp "$here"/page/{package.json,page.mjs,bot.mjs} "$cache/"
(cd "$cache" && PLAYWRIGHT_SKIP_BROWSER_DOWNLOAD=1 npm install --no-package-lock --no-audit --no-fund --loglevel=error >/dev/null)
browser=$(command -v chromium || command -v chromium-browser || command -v google-chrome)
start_slack
timeout 240 node "$cache/page.mjs" "$slack" "$browser" ${SCREENSHOTS:+"$SCREENSHOTS"}
stop_slack
start_sandbox --json
timeout 240 node "$cache/bot.mjs" "$slack" "$browser" ${SCREENSHOTS:+"$SCREENSHOTS"}
