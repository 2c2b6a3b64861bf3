#!/usr/bin/env bash
# `rlhf sft` with the laptop's settings (or your own --config FILE); options are passed on:
#   scripts/train_sft.sh --dataset_name DATA --output_dir runs/sft
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
(. "$root/scripts/venv.sh") # in a subshell: relative paths keep their meaning
case " $* " in
  *" --config"[\ =]*) ;;
  *) set -- --config "$root/configs/sft.yaml" "$@" ;;
esac
exec "$root/.venv/bin/rlhf" sft "$@"
