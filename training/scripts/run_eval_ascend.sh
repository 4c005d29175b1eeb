#!/usr/bin/env bash
# Top-1 and top-5 of a checkpoint on all images of the val split.
set -euo pipefail
usage='Usage: run_eval_ascend.sh [DEVICE_ID] [CONFIG_PATH] [CHECKPOINT_PATH] [--KEY VALUE ...]
Further arguments are passed to training.eval.
Environment: DEVICE_TARGET (Ascend, GPU or CPU; default Ascend), PYTHON (default python)'
source "$(dirname -- "${BASH_SOURCE[0]}")/arguments.sh"
(($# >= 3)) || fail "expected at least 3 arguments, got $#"
need_number DEVICE_ID "$1"
need_file CONFIG_PATH "$2"
need_file CHECKPOINT_PATH "$3"

exec "$python" -m training.eval \
  --config "$2" --pretrained "$3" --device_target "${DEVICE_TARGET:-Ascend}" --device_id "$1" "${@:4}"
