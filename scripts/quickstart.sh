#!/usr/bin/env bash
# From a fresh machine to a tuned model and a report, in runs/quickstart/. Needs Python and pip.
# Run it again to go on where it stopped. Options go to `rlhf run`: see `rlhf run --help`.
. "$(dirname "$0")/venv.sh"

rlhf pull smollm2-135m-instruct-q4
rlhf run configs/pipeline/quickstart.yaml --output_dir runs/quickstart "$@"
