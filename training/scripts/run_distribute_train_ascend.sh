#!/usr/bin/env bash
# Train on all devices of one server, one process a device.
set -euo pipefail
usage='Usage: run_distribute_train_ascend.sh [RANK_TABLE_FILE] [CONFIG_PATH] [--KEY VALUE ...]
Runs in the foreground: rank 0 prints here, each rank N into ./logs/rank_N.log. When a rank fails, the others are ended
and the exit status is not 0; so they are on Ctrl-C. Further arguments go to training.train.
Without Ascend there are as many ranks as the table has devices, and they find each other on this machine.
Environment: DEVICE_TARGET (Ascend, GPU or CPU; default Ascend), PYTHON (default python)'
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

trap 'kill $(jobs -pr) 2>/dev/null || true; wait' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
mkdir -p logs
train=("$python" -m training.train --config "$2" --device_target "$target" "${@:3}")
export RANK_SIZE=${#devices[@]}
if [[ $target == Ascend ]]; then
  export RANK_TABLE_FILE=$1
else
  # No HCCL: the cluster that MindSpore's msrun makes. Not by msrun itself, which leaves its ranks running when it is
  # ended by SIGTERM and lets them wait for ten minutes when its port is taken (MindSpore 2.10).
  port=$("$python" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
  export MS_WORKER_NUM=$RANK_SIZE MS_SCHED_HOST=127.0.0.1 MS_SCHED_PORT=$port
  MS_ROLE=MS_SCHED "${train[@]}" >logs/scheduler.log 2>&1 &
  export MS_ROLE=MS_WORKER
fi
for rank in "${!devices[@]}"; do
  export RANK_ID=$rank DEVICE_ID=${devices[rank]} MS_NODE_ID=$rank
  if ((rank == 0)); then
    "${train[@]}" --device_id "$DEVICE_ID" > >(exec tee -i logs/rank_0.log) 2>&1 &
  else
    "${train[@]}" --device_id "$DEVICE_ID" >"logs/rank_$rank.log" 2>&1 &
  fi
done
for _ in $(jobs -p); do
  wait -n || {
    status=$?
    echo "error: a process ended with status $status, so the others are ended; the last line of each:" >&2
    tail -n 1 logs/*.log >&2
    exit "$status"
  }
done
