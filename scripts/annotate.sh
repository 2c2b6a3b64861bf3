#!/usr/bin/env bash
# Rate a store's comparisons in the browser, on this machine; options are passed on:
#   scripts/annotate.sh --store runs/quickstart/feedback.db
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
(. "$root/scripts/venv.sh") # in a subshell: relative --store paths keep their meaning
exec "$root/.venv/bin/python" -m annotation_ui "$@"
