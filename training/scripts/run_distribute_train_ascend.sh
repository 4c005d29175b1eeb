#!/usr/bin/env bash
# Train on all devices of one server, with one process per device.
set -euo pipefail
usage='Usage: run_distribute_train_ascend.sh [RANK_TABLE_FILE] [CONFIG_PATH] [--KEY VALUE ...]
Runs in the foreground. Rank 0 prints here, and every rank N writes ./logs/rank_N.log. If a rank fails, the other ranks
are stopped and the exit status is not 0; Ctrl-C also stops all ranks. Further arguments are passed to training.train.
On GPU and CPU, all ranks run on this machine, one for each device in the table.
Environment: DEVICE_TARGET (Ascend, GPU or CPU; default Ascend), PYTHON (default python)'
source "$(dirname -- "${BASH_SOURCE[0]}")/arguments.sh"
(($# >= 2)) || fail "expected at least 2 arguments, got $#"
need_file RANK_TABLE_FILE "$1"
need_file CONFIG_PATH "$2"
target=${DEVICE_TARGET:-Ascend}

# The device_id of each rank, in order of the ranks.
listed=$("$python" -c '
import json, sys
(server,) = json.load(open(sys.argv[1]))["server_list"]
devices = {int(device["rank_id"]): device["device_id"] for device in server["device"]}
print(*(devices[rank] for rank in range(len(server["device"]))))
' "$1" 2>/dev/null) || fail "RANK_TABLE_FILE $1 must list the devices of one server, with rank_id 0, 1, 2 ..."
read -ra devices <<<"$listed"
((${#devices[@]})) || fail "RANK_TABLE_FILE $1 lists no device"

trap 'kill $(jobs -pr) 2>/dev/null || true; wait' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
mkdir -p logs
train=("$python" -m training.train --config "$2" --device_target "$target" "${@:3}")
export RANK_SIZE=${#devices[@]}
processes=$RANK_SIZE
if [[ $target == Ascend ]]; then
  export RANK_TABLE_FILE=$1
else
  # Without HCCL, set up the same cluster as MindSpore's msrun. msrun itself leaves its ranks running when it gets
  # SIGTERM, and lets them wait for ten minutes if its port is taken (MindSpore 2.10).
  port=$("$python" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
  export MS_WORKER_NUM=$RANK_SIZE MS_SCHED_HOST=127.0.0.1 MS_SCHED_PORT=$port
  MS_ROLE=MS_SCHED "${train[@]}" >logs/scheduler.log 2>&1 &
  ((processes += 1))
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
# Not `jobs -p`, which no longer lists a process that has already exited.
for ((process = 0; process < processes; process++)); do
  wait -n || {
    status=$?
    echo "error: a process exited with status $status, stopping the others; the last line of each log:" >&2
    tail -n 1 logs/*.log >&2
    exit "$status"
  }
done
