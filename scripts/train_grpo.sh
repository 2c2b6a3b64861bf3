#!/usr/bin/env bash
# `rlhf grpo` with configs/grpo.yaml; every option is passed on:
#   scripts/train_grpo.sh --reward_model_name_or_path runs/reward --gate_dir runs/gate
exec "$(dirname "$0")/train.sh" grpo "$@"
