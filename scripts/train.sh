#!/usr/bin/env bash
# One training stage with the laptop's settings, or your own --config FILE; used by train_*.sh:
#   scripts/train.sh dpo --dataset_name DATA --output_dir runs/dpo
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
(. "$root/scripts/venv.sh") # in a subshell: relative paths keep their meaning
stage=$1
shift
case " $* " in
  *" --config"[\ =]*) ;;
  *) set -- --config "$root/configs/$stage.yaml" "$@" ;;
esac
exec "$root/.venv/bin/rlhf" "$stage" "$@"
