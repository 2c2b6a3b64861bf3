#!/usr/bin/env bash
# `rlhf rloo` with configs/rloo.yaml; every option is passed on:
#   scripts/train_rloo.sh --reward_model_name_or_path runs/reward --gate_dir runs/gate
exec "$(dirname "$0")/train.sh" rloo "$@"
