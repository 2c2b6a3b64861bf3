#!/usr/bin/env bash
# `rlhf dpo` with configs/dpo.yaml; every option is passed on:
#   scripts/train_dpo.sh --dataset_name DATA --output_dir runs/dpo
exec "$(dirname "$0")/train.sh" dpo "$@"
