#!/usr/bin/env bash
# `rlhf reward` with configs/reward.yaml; every option is passed on:
#   scripts/train_reward.sh --dataset_name DATA --output_dir runs/reward
exec "$(dirname "$0")/train.sh" reward "$@"
