#!/usr/bin/env bash
# `rlhf kto` with configs/kto.yaml; every option is passed on:
#   scripts/train_kto.sh --dataset_name DATA --output_dir runs/kto
exec "$(dirname "$0")/train.sh" kto "$@"
