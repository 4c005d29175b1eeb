#!/usr/bin/env bash
# Train on all devices of one server, one process a device.
set -euo pipefail
usage='Usage: run_distribute_train_ascend.sh [RANK_TABLE_FILE] [CONFIG_PATH] [--KEY VALUE ...]
Runs in the foreground: rank 0 prints here, each rank N into ./logs/rank_N.log. When a rank fails, the others are ended
and the exit status is not 0; so they are on Ctrl-C. Further arguments go to training.train.
Environment: DEVICE_TARGET (Ascend, GPU or CPU; default Ascend), PYTHON (default python). Without Ascend, msrun starts as
many ranks as the table has devices, at MASTER_PORT (default 8118).'
source "$(dirname -- "${BASH_SOURCE[0]}")/arguments.sh"
(($# >= 2)) || refuse "2 arguments are needed, not $#"
need_file RANK_TABLE_FILE "$1"
need_file CONFIG_PATH "$2"
target=${DEVICE_TARGET:-Ascend}

# The device_id of each rank, in the order of ranks.
listed=$("$python" -c '
import json, sys
(server,) = json.load(open(sys.argv[1]))["server_list"]
devices = {int(device["rank_id"]): device["device_id"] for device in server["device"]}
print(*(devices[rank] for rank in range(len(server["device"]))))
' "$1" 2>/dev/null) || refuse "RANK_TABLE_FILE $1 must list the devices of one server, with rank_id 0, 1, 2 ..."
read -ra devices <<<"$listed"
((${#devices[@]})) || refuse "RANK_TABLE_FILE $1 lists no device"
train=(-m training.train --config "$2" --device_target "$target")
mkdir -p logs

if [[ $target != Ascend ]]; then # there is no HCCL, and so no use for the table's addresses
  PATH=$(dirname -- "$(command -v "$python")"):$PATH # msrun starts `python`
  exec "$python" -m mindspore.parallel.cluster.run \
    --worker_num "${#devices[@]}" --local_worker_num "${#devices[@]}" --master_port "${MASTER_PORT:-8118}" \
    --join True --log_dir logs --worker_log_name rank --tail_worker_log 0 \
    python "${train[@]}" "${@:3}"
fi

trap 'kill $(jobs -pr) 2>/dev/null || true; wait' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
export RANK_TABLE_FILE=$1 RANK_SIZE=${#devices[@]}
for rank in "${!devices[@]}"; do
  export RANK_ID=$rank DEVICE_ID=${devices[rank]}
  command=("$python" "${train[@]}" --device_id "$DEVICE_ID" "${@:3}")
  if ((rank == 0)); then
    "${command[@]}" > >(exec tee -i logs/rank_0.log) 2>&1 &
  else
    "${command[@]}" >"logs/rank_$rank.log" 2>&1 &
  fi
done
for _ in "${devices[@]}"; do
  wait -n || {
    status=$?
    echo "error: a rank ended with status $status, so the others are ended; the last line of each:" >&2
    tail -n 1 logs/rank_*.log >&2
    exit "$status"
  }
done
