#!/usr/bin/env bash
# Train with several processes on one machine, as on several hosts.
#
#   PROCESSES=2 DEVICES=2 experiments/launch/processes.sh --config=configs/quickstart.py --workdir=runs/two
#
# DEVICES is the number of virtual CPU devices per process. The output is that of process 0; the others write to
# process_N.log in the folder LOGS, if set. Exits with the first nonzero exit code, after stopping the other processes.
set -uo pipefail
PROCESSES=${PROCESSES:-2}
export JAX_NUM_PROCESSES=$PROCESSES
export JAX_COORDINATOR_ADDRESS=${JAX_COORDINATOR_ADDRESS:-127.0.0.1:$((20000 + RANDOM % 20000))}
[ -z "${DEVICES:-}" ] || export XLA_FLAGS="${XLA_FLAGS:-} --xla_force_host_platform_device_count=$DEVICES"

pids=()
stop() { kill -TERM "${pids[@]}" 2>/dev/null; }
trap stop INT TERM
for ((index = 0; index < PROCESSES; index++)); do
  output=/dev/null
  [ -z "${LOGS:-}" ] || output=$LOGS/process_$index.log
  [ "$index" -ne 0 ] || output=/dev/stdout
  JAX_PROCESS_ID=$index "${PYTHON:-python}" -m dnc train --multihost "$@" >"$output" &
  pids+=($!)
done

status=0
for ((index = 0; index < PROCESSES; index++)); do
  wait -n || { code=$?; [ "$status" -ne 0 ] || status=$code; stop; }
done
wait
exit "$status"
