#!/usr/bin/env bash
# Train on one device.
set -euo pipefail
usage='Usage: run_standalone_train_ascend.sh [DEVICE_ID] [CONFIG_PATH] [--KEY VALUE ...]
Runs in the foreground and also writes ./logs/rank_0.log. Further arguments are passed to training.train.
Environment: DEVICE_TARGET (Ascend, GPU or CPU; default Ascend), PYTHON (default python)'
source "$(dirname -- "${BASH_SOURCE[0]}")/arguments.sh"
(($# >= 2)) || fail "expected at least 2 arguments, got $#"
need_number DEVICE_ID "$1"
need_file CONFIG_PATH "$2"

mkdir -p logs
exec "$python" -m training.train \
  --config "$2" --device_target "${DEVICE_TARGET:-Ascend}" --device_id "$1" "${@:3}" \
  > >(exec tee -i logs/rank_0.log) 2>&1
