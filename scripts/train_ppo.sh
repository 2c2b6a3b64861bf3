#!/usr/bin/env bash
# `rlhf ppo` with configs/ppo.yaml; every option is passed on:
#   scripts/train_ppo.sh --reward_model_name_or_path runs/reward --gate_dir runs/gate --output_dir runs/ppo
exec "$(dirname "$0")/train.sh" ppo "$@"
