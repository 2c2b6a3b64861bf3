#!/usr/bin/env bash
# `rlhf online_dpo` with configs/online_dpo.yaml; every option is passed on:
#   scripts/train_online_dpo.sh --reward_model_name_or_path runs/reward --gate_dir runs/gate
exec "$(dirname "$0")/train.sh" online_dpo "$@"
