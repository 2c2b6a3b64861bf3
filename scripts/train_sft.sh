#!/usr/bin/env bash
# `rlhf sft` with configs/sft.yaml; every option is passed on:
#   scripts/train_sft.sh --dataset_name DATA --output_dir runs/sft
exec "$(dirname "$0")/train.sh" sft "$@"
