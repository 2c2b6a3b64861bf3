#!/usr/bin/env bash
# `rlhf reward` with the laptop's settings (or your own --config FILE); options are passed on:
#   scripts/train_reward.sh --dataset_name DATA --output_dir runs/reward
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
(. "$root/scripts/venv.sh") # in a subshell: relative paths keep their meaning
case " $* " in
  *" --config"[\ =]*) ;;
  *) set -- --config "$root/configs/reward.yaml" "$@" ;;
esac
exec "$root/.venv/bin/rlhf" reward "$@"
